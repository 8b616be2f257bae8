"""The lane is what it says it is, and what the tests' own fixtures promise holds on it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import leftovers
import probes
from probes import requires

LANE = os.environ.get("CLOCHE_LANE", "host")


@pytest.mark.skipif(LANE != "v2", reason="the v2 lane's own test")
def test_the_v2_lane_has_one_hierarchy_with_its_controllers() -> None:
    assert probes.layout() == "v2"
    assert probes.cgroup_mounts() == {"unified": "/sys/fs/cgroup"}
    assert {"cpu", "io", "memory", "pids"} <= set(Path("/sys/fs/cgroup/cgroup.controllers").read_text().split())


@pytest.mark.skipif(LANE != "v2", reason="the v2 lane's own test")
@pytest.mark.parametrize("name", ["root", "overlay", "netns", "userns", "seccomp", "cgroup:memory"])
def test_the_v2_lane_can_run_containers(name: str) -> None:
    assert probes.available(name)


def test_the_layout_is_what_is_mounted() -> None:
    kinds = {line.split(" - ")[1].split()[0] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    expected = {"v2": {"cgroup2"}, "v1": {"cgroup"}, "hybrid": {"cgroup", "cgroup2"}, "none": set()}[probes.layout()]
    assert expected <= kinds
    assert ("cgroup" in kinds) == (probes.layout() in ("v1", "hybrid")) or "name=systemd" in probes.cgroup_mounts()


@requires("root")
def test_mounts_of_a_test_do_not_reach_the_namespace_of_process_1() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        probes.mount("tmpfs", place, "tmpfs")
        try:
            assert leftovers.mounts((place,)) == [place]
            assert leftovers.mounts((place,), "/proc/1") == []
        finally:
            probes.libc.umount2(place.encode(), probes.MNT_DETACH)


@requires("root")
def test_the_census_sees_what_a_store_leaves_behind(store: Path) -> None:
    tree = next(iter(probes.cgroup_mounts().values()), None)
    if tree is None:
        pytest.skip("needs a cgroup hierarchy")
    folder = Path(tree, f"{store.name}-left")
    mounted = store / "mounted"
    mounted.mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, cwd=store) as child:
        probes.mount("tmpfs", str(mounted), "tmpfs")
        folder.mkdir()
        try:
            found = leftovers.traces(store)
        finally:
            leftovers.sweep(store)
        assert child.wait() == -9
    assert [line.split()[0] for line in found] == ["process", "mount", "cgroup"]
    assert f"process {child.pid} " in found[0]
    assert leftovers.traces(store) == []
