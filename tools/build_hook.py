"""Hatchling's hook: builds bell and puts it into the wheel, which is then one an architecture and of no Python ABI.

It also writes what makes shells complete command lines, from the table of verbs.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent))
import build_bell


def write_completions(tree: Path) -> None:
    """The scripts, where pyproject.toml takes them from."""
    sys.path.insert(0, str(tree / "src"))
    from cloche.cli.completing import SCRIPTS

    place = tree / "build/completion"
    place.mkdir(parents=True, exist_ok=True)
    for shell, script in SCRIPTS.items():
        (place / f"cloche.{shell}").write_text(script)


class BellHook(BuildHookInterface):
    """Runs before a wheel or an editable install is made; a source archive carries bell.c only."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        build_bell.build()
        build_bell.compile_program(
            build_bell.CARRIED, build_bell.PROGRAMS[build_bell.ROOM / "cloche-oci"], version != "editable"
        )
        write_completions(Path(self.root))
        if version != "editable":
            build_data["artifacts"].append("/src/cloche/runtime/bell")
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
            build_data["pure_python"] = False
