"""The benchmark's floor does what it says on this layout, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import leftovers
import probes
from probes import requires

BENCH = Path(__file__).resolve().parents[2] / "bench"


@requires("root", "overlay", "netns", "cgroupns", "mqueue", "seccomp", "program:gcc")
def test_the_floor_runs_and_removes_its_cgroups_and_layers(tmp_path: Path) -> None:
    rootfs, scratch, floor = tmp_path / "rootfs", tmp_path / "scratch", tmp_path / "floor"
    for name in ("bin", "proc", "dev", "sys", "tmp"):
        (rootfs / name).mkdir(parents=True)
    scratch.mkdir()
    compiler = "musl-gcc" if shutil.which("musl-gcc") else "gcc"
    for source, program in ((BENCH / "floor.c", floor), (BENCH / "true.c", rootfs / "bin/true")):
        subprocess.run([compiler, "-static", "-O1", "-o", program, source], check=True)
    command = [floor, rootfs, scratch, "2", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line, errors = process.communicate()
    assert process.returncode == 0, errors
    said = json.loads(line)
    assert said["runs"] == 2
    assert 0 < said["median_ms"] <= said["p90_ms"]
    assert said["cgroups"].startswith("v2" if probes.layout() == "v2" else "v1")
    assert said["device_rules"]
    assert not leftovers.cgroups((f"floor-{process.pid}",))
    assert list(scratch.iterdir()) == []
