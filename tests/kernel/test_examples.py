"""The examples do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.requires("root")
def test_forty_lines_are_a_container(tmp_path: Path) -> None:
    from cloche.image.entries import write_layer
    from cloche.image.packing import collect
    from cloche.storage.layers import unpack

    layer, root = tmp_path / "layer.tar", tmp_path / "root"
    with open(layer, "wb") as out:
        write_layer(collect(["sh", "cat", "ls"]).entries, out)
    with open(layer, "rb") as source:
        unpack(source, str(root))
    command = "cat /proc/sys/kernel/hostname; echo $$; test -e /proc/2 || echo alone; exit 7"
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / "forty_lines.py"), str(root), "sh", "-c", command],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent / "src")},
    )
    assert (ran.stdout.split(), ran.stderr, ran.returncode) == (["forty-lines", "1", "alone"], "", 7)
