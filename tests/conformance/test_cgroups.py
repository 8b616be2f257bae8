"""Where a container's processes are in the control groups: `cgroupsPath`, what is there already, what is left."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import probes
from conformance.groups import V2, VERSION_1, groups_of, hierarchies, made, read, resources
from conformance.harness import Bundle, alive, cgroup, differs, eventually
from probes import requires

pytestmark = pytest.mark.skipif(probes.layout() == "none", reason="needs control groups")


def paths(pid: int) -> dict[Path, str]:
    """A process's groups, relative to where their hierarchies are mounted."""
    return {place: "/" + str(folder.relative_to(place)) for place, folder in groups_of(pid).items()}


def test_an_absolute_path_is_one_below_the_hierarchys_mount_point(bundle: Bundle) -> None:
    bundle.linux["cgroupsPath"] = f"/{bundle.id}"
    with bundle.running() as pid:
        found = paths(pid)
        assert set(found) == set(hierarchies())
        assert set(found.values()) == {f"/{bundle.id}"}


def test_groups_on_the_way_of_a_path_are_made(bundle: Bundle) -> None:
    with made(f"/{bundle.id}"):
        bundle.linux["cgroupsPath"] = f"/{bundle.id}/{bundle.runtime.mark}x"
        with bundle.running() as pid:
            assert set(paths(pid).values()) == {f"/{bundle.id}/{bundle.runtime.mark}x"}


def test_a_group_above_the_containers_own_stays(bundle: Bundle) -> None:
    with made(f"/{bundle.id}") as folders:
        bundle.linux["cgroupsPath"] = f"/{bundle.id}/inner"
        bundle.says("true")
        assert all(folder.is_dir() for folder in folders)
        assert not any((folder / "inner").exists() for folder in folders)


def test_a_relative_path_is_the_same_place_each_time(bundle: Bundle) -> None:
    """The runtime MUST consistently attach to the same place in the cgroups hierarchy given the same value."""
    bundle.linux["cgroupsPath"] = f"{bundle.runtime.mark}relative"
    with bundle.running() as pid:
        first = paths(pid)
    with bundle.running() as pid:
        assert paths(pid) == first
    assert any(path.endswith(f"{bundle.runtime.mark}relative") for path in first.values())


def test_without_a_path_a_container_has_groups_of_its_own(bundle: Bundle) -> None:
    other = Bundle(bundle.runtime, bundle.runtime.folder / "other")
    with bundle.running() as first, other.running() as second:
        assert set(paths(first)) == set(hierarchies())
        for place, path in paths(first).items():
            assert path not in (paths(second)[place], paths(os.getpid())[place])


def test_dots_in_a_path_lead_to_no_other_group(bundle: Bundle) -> None:
    """Certain values MAY be invalid, which is an error then."""
    bundle.linux["cgroupsPath"] = f"/../../../{bundle.id}"
    if bundle.create("sleep", "1000").code == 0:
        pid = bundle.pid()
        assert all(path.endswith(bundle.id) for path in paths(pid).values())
        bundle.end(pid)


def test_an_executed_process_is_in_the_groups_of_its_container(bundle: Bundle) -> None:
    bundle.without_namespace("cgroup")
    bundle.linux["cgroupsPath"] = f"/{bundle.id}"
    with bundle.running():
        for line in bundle.sh("cat /proc/self/cgroup").splitlines():
            _, names, path = line.split(":", 2)
            if Path(probes.cgroup_mounts().get(names.split(",")[0] or "unified", "/")) in hierarchies():
                assert path == f"/{bundle.id}"


def test_all_processes_of_a_container_are_in_its_groups(bundle: Bundle) -> None:
    with bundle.running("sh", "-c", "sleep 1000 & sleep 1000 & wait") as pid:
        folder = cgroup(pid, "pids")
        eventually(lambda: len((folder / "cgroup.procs").read_text().split()) == 3, "three processes in the group")


def test_the_groups_are_there_before_the_program_runs(bundle: Bundle) -> None:
    with bundle.created() as pid:
        assert all(str(pid) in (folder / "cgroup.procs").read_text().split() for folder in groups_of(pid).values())


def test_the_groups_of_a_deleted_container_are_gone(bundle: Bundle) -> None:
    with bundle.running() as pid:
        folders = list(groups_of(pid).values())
        assert all(folder.is_dir() for folder in folders)
    assert not any(folder.exists() for folder in folders)


def test_groups_that_a_container_has_made_are_gone_with_it(bundle: Bundle) -> None:
    mount = next(entry for entry in bundle.config["mounts"] if entry["destination"] == "/sys/fs/cgroup")
    mount["options"] = ["nosuid", "noexec", "nodev"]
    place = "/sys/fs/cgroup" if V2 else "/sys/fs/cgroup/pids"
    with bundle.running("sh", "-c", f"mkdir -p {place}/one/two {place}/three && exec sleep 1000") as pid:
        folder = cgroup(pid, "pids")
        eventually(lambda: (folder / "three").exists(), "groups of the container's")
    assert not folder.exists()


def test_a_group_that_is_there_already_is_joined(bundle: Bundle) -> None:
    with made(f"/{bundle.id}") as folders:
        bundle.linux["cgroupsPath"] = f"/{bundle.id}"
        with bundle.running() as pid:
            assert set(groups_of(pid).values()) == set(folders)


@requires("cgroup:pids")
def test_limits_of_a_group_that_is_there_already_are_kept_unless_others_are_asked_for(bundle: Bundle) -> None:
    """Do not specify resources unless limits have to be updated."""
    with made(f"/{bundle.id}") as folders:
        for folder in folders:
            if (folder / "pids.max").exists():
                (folder / "pids.max").write_text("77")
        bundle.linux["cgroupsPath"] = f"/{bundle.id}"
        with bundle.running() as pid:
            assert read(pid, "pids", "pids.max") == "77"


@VERSION_1
def test_the_owner_of_groups_stays_on_version_1(bundle: Bundle) -> None:
    """Runtimes SHOULD NOT change the ownership of container cgroups when cgroups v1 is in use."""
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    with bundle.running() as pid:
        assert {folder.stat().st_uid for folder in groups_of(pid).values()} == {0}


@differs("runc", "does it with systemd only; 'Runtimes SHOULD change the cgroup ownership if and only if ...'")
@requires("cgroup:v2", "userns", "cgroupns")
def test_a_writable_group_belongs_to_the_root_of_its_user_namespace(bundle: Bundle) -> None:
    """Runtimes SHOULD change the cgroup ownership if and only if the cgroup filesystem is to be mounted read/write."""
    bundle.namespace("user")
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.runtime.folder.chmod(0o711)
    mount = next(entry for entry in bundle.config["mounts"] if entry["destination"] == "/sys/fs/cgroup")
    mount["options"] = ["nosuid", "noexec", "nodev"]
    with bundle.running() as pid:
        folder = cgroup(pid, "unified")
        assert folder.stat().st_uid == 100000
        assert (folder / "cgroup.procs").stat().st_uid == 100000
        assert (folder / "memory.max").stat().st_uid == 0
        bundle.sh("mkdir /sys/fs/cgroup/made && rmdir /sys/fs/cgroup/made")


@requires("cgroup:v2", "cgroup:pids", "cgroupns")
def test_a_process_is_executed_in_a_container_that_has_divided_its_group(bundle: Bundle) -> None:
    """As systemd and dockerd do inside. cgroup-v2.rst, No Internal Process Constraint: who hands controllers down to
    inner groups has no processes of its own; so the new one goes where the first has gone."""
    mount = next(entry for entry in bundle.config["mounts"] if entry["destination"] == "/sys/fs/cgroup")
    mount["options"] = ["nosuid", "noexec", "nodev"]
    script = "mkdir inner && echo 1 >inner/cgroup.procs && echo +pids >cgroup.subtree_control && exec sleep 1000"
    with bundle.running("sh", "-c", f"cd /sys/fs/cgroup && {script}") as pid:
        eventually(lambda: "sleep" in Path(f"/proc/{pid}/cmdline").read_text(), "a divided group")
        assert bundle.sh("cat /proc/self/cgroup") == "0::/inner"


@requires("cgroup:v2")
def test_a_read_only_group_keeps_its_owner(bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    with bundle.running() as pid:
        assert cgroup(pid, "unified").stat().st_uid == 0


@requires("cgroup:v2")
def test_controllers_that_limits_need_are_enabled(bundle: Bundle) -> None:
    resources(bundle, memory={"limit": 1 << 26}, pids={"limit": 9})
    with bundle.running() as pid:
        enabled = (cgroup(pid, "unified") / "cgroup.controllers").read_text().split()
        assert {"memory", "pids"} <= set(enabled)


def test_a_paused_container_is_frozen_by_its_group(bundle: Bundle) -> None:
    with bundle.running() as pid:
        bundle.runtime.ok("pause", bundle.id)
        frozen = read(pid, "freezer", "cgroup.events").split() if V2 else read(pid, "freezer", "freezer.state")
        assert "frozen 1" in " ".join(frozen) if V2 else frozen == "FROZEN"
        bundle.runtime.ok("resume", bundle.id)
        assert "FROZEN" not in (read(pid, "freezer", "freezer.state") if not V2 else "")


def test_processes_in_the_group_are_listed(bundle: Bundle) -> None:
    with bundle.running("sh", "-c", "sleep 1000 & wait") as pid:
        folder = cgroup(pid, "pids")
        eventually(lambda: len((folder / "cgroup.procs").read_text().split()) == 2, "two processes in the group")
        listed = json.loads(bundle.runtime.ok("ps", "--format", "json", bundle.id))
        assert sorted(listed) == sorted(int(word) for word in (folder / "cgroup.procs").read_text().split())


def test_processes_that_only_the_group_knows_are_ended_by_a_forced_delete(bundle: Bundle) -> None:
    """In the pid namespace of the host nothing ends a container's other processes but its group."""
    bundle.without_namespace("pid")
    with bundle.running("sh", "-c", "sleep 1000 & sleep 1000 & exec sleep 1000") as pid:
        folder = cgroup(pid, "pids")
        eventually(lambda: len((folder / "cgroup.procs").read_text().split()) == 3, "three processes in the group")
        pids = [int(word) for word in (folder / "cgroup.procs").read_text().split()]
        assert bundle.delete("--force").code == 0
        eventually(lambda: not any(alive(one) for one in pids), "the end of all processes")
        assert not folder.exists()
