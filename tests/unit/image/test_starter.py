"""Which tools make the starter image."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloche.errors import NotFound
from cloche.image.starter import collect_starter, ensure_starter, starter_programs
from elf_files import write_elf


def test_tools_are_found_wherever_the_host_has_them_the_shell_first(tmp_path: Path) -> None:
    write_elf(tmp_path / "sbin/ip")
    write_elf(tmp_path / "usr/bin/ls")
    write_elf(tmp_path / "bin/busybox")
    write_elf(tmp_path / "bin/cat", 0o644)
    write_elf(tmp_path / "bin/unusual")
    (tmp_path / "bin/sh").symlink_to("/bin/busybox")
    (tmp_path / "bin/tr").symlink_to("/bin/gone")
    assert starter_programs(root=str(tmp_path)) == ["sh", "busybox", "ip", "ls"]
    packing = collect_starter(str(tmp_path))
    assert packing.programs == ("/bin/sh", "/bin/busybox", "/sbin/ip", "/usr/bin/ls")
    assert {e.path: e.target for e in packing.entries}["bin/sh"] == "/bin/busybox"


def test_a_broken_tool_is_left_out_and_a_broken_shell_is_an_error(tmp_path: Path) -> None:
    write_elf(tmp_path / "bin/sh")
    write_elf(tmp_path / "bin/ls", interpreter="/lib/ld-gone.so")
    packing = collect_starter(str(tmp_path))
    assert packing.programs == ("/bin/sh",)
    assert len(packing.notes) == 1 and "ld-gone" in packing.notes[0]
    write_elf(tmp_path / "bin/sh", interpreter="/lib/ld-gone.so")
    with pytest.raises(NotFound, match="ld-gone"):
        collect_starter(str(tmp_path))


def test_a_host_without_a_shell_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no sh"):
        starter_programs(root=str(tmp_path))


def test_the_image_is_made_once_and_runs_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seams to image/store and image/load alone."""
    made: list[tuple[tuple[str, ...], list[str]]] = []

    def create_image(store: Any, layers: Any, config: Any, references: list[str]) -> str:
        made.append((config.config.cmd, references))
        return "made"

    monkeypatch.setitem(sys.modules, "cloche.image.load", SimpleNamespace(create_image=create_image))
    assert ensure_starter(SimpleNamespace(resolve=lambda name: f"found {name}")) == "found starter:latest"  # type: ignore[arg-type,comparison-overlap]
    assert not made

    def missing(name: str) -> None:
        raise NotFound(f"No such image: {name}")

    assert ensure_starter(SimpleNamespace(resolve=missing)) == "made"  # type: ignore[arg-type,comparison-overlap]
    assert made == [(("sh",), ["starter:latest"])]
