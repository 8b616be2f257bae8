"""The namespaces of a container: new, joined by path, inherited; what is an error; mapped ids and moved clocks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import probes
from conformance.groups import on_version
from conformance.harness import Bundle, Runtime, differs, eventually
from probes import MS_BIND, requires

FILES = {"network": "net", "mount": "mnt"}
KINDS = [
    *("pid", "network", "ipc", "uts"),
    pytest.param("cgroup", marks=requires("cgroupns")),
    pytest.param("time", marks=requires("timens")),
]
USER = pytest.param("user", marks=requires("userns"))
MOVED = 7 * 24 * 3600
LEAVES = on_version(2, differs("crun", "leaves its control group; 'a new container MUST NOT be created'"))


def namespace(pid: int | str, kind: str) -> str:
    """Which namespace a process is in, `net:[4026531840]`."""
    return os.readlink(f"/proc/{pid}/ns/{FILES.get(kind, kind)}")


def path_of(pid: int | str, kind: str) -> str:
    return f"/proc/{pid}/ns/{FILES.get(kind, kind)}"


def map_ids(bundle: Bundle, *ranges: tuple[int, int, int]) -> None:
    """A user namespace in which root is somebody else outside, who can reach the root file system."""
    bundle.namespace("user")
    entries = [{"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in ranges]
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = entries or [
        {"containerID": 0, "hostID": 100000, "size": 65536}
    ]
    bundle.runtime.folder.chmod(0o711)


def listed(bundle: Bundle, kind: str) -> None:
    map_ids(bundle) if kind == "user" else bundle.namespace(kind)


def not_listed(bundle: Bundle, kind: str) -> None:
    """Without the namespace, and without what can only be had in one of the container's own."""
    bundle.without_namespace(kind)
    if kind == "uts":
        del bundle.config["hostname"]
    if kind == "mount":  # what is mounted would be mounted for the runtime too
        bundle.config["mounts"] = []
        del bundle.linux["maskedPaths"], bundle.linux["readonlyPaths"]


@pytest.fixture
def other(runtime: Runtime) -> Bundle:
    """A second bundle of the same runtime."""
    return Bundle(runtime, runtime.folder / "other")


@pytest.mark.parametrize("kind", [*KINDS, "mount", USER])
def test_a_listed_namespace_is_a_new_one(bundle: Bundle, kind: str) -> None:
    listed(bundle, kind)
    with bundle.running() as pid:
        assert namespace(pid, kind) != namespace("self", kind)


@pytest.mark.parametrize(
    "kind",
    [
        *KINDS,
        USER,
        pytest.param(
            "mount",
            marks=differs(
                "runc",
                "binds the root on the host, leaves it there and fails without /proc; 'If a namespace type is not "
                "specified in the namespaces array, the container MUST inherit the runtime namespace of that type'",
            ),
        ),
    ],
)
def test_a_namespace_that_is_not_listed_is_that_of_the_runtime(bundle: Bundle, kind: str) -> None:
    not_listed(bundle, kind)
    with bundle.running() as pid:
        assert namespace(pid, kind) == namespace("self", kind)


@pytest.mark.parametrize(
    "kind",
    [
        *KINDS[:-1],
        USER,
        pytest.param(
            "time",
            marks=[
                requires("timens"),
                differs(
                    "crun",
                    "dies of it; 'The runtime MUST place the container process in the namespace associated with path'",
                ),
            ],
        ),
    ],
)
def test_a_container_joins_the_namespace_of_another(bundle: Bundle, other: Bundle, kind: str) -> None:
    listed(other, kind)
    with other.running() as first:
        bundle.namespace(kind, path=path_of(first, kind))
        with bundle.running() as second:
            assert namespace(second, kind) == namespace(first, kind)


def test_a_container_joins_a_mount_namespace(bundle: Bundle) -> None:
    with subprocess.Popen(["unshare", "--mount", "sleep", "1000"]) as owner:
        try:
            eventually(lambda: namespace(owner.pid, "mount") != namespace("self", "mount"), "a new mount namespace")
            bundle.namespace("mount", path=path_of(owner.pid, "mount"))
            with bundle.running() as pid:
                assert namespace(pid, "mount") == namespace(owner.pid, "mount")
        finally:
            owner.kill()


def test_a_namespace_is_joined_by_any_file_that_stands_for_it(bundle: Bundle) -> None:
    """As tools keep them: bound to a file, with no process in them."""
    place = bundle.runtime.folder / "net"
    place.touch()

    def keep() -> None:
        probes.unshare(probes.NEWNET)
        probes.mount("/proc/self/ns/net", str(place), "", MS_BIND)

    assert probes.succeeds(keep)
    try:
        bundle.namespace("network", path=str(place))
        with bundle.running() as pid:
            assert os.stat(path_of(pid, "network")).st_ino == place.stat().st_ino
    finally:
        probes.libc.umount2(str(place).encode(), probes.MNT_DETACH)


def test_containers_in_one_pid_namespace_see_each_other(bundle: Bundle, other: Bundle) -> None:
    with other.running("sleep", "1234") as first:
        bundle.namespace("pid", path=path_of(first, "pid"))
        assert "sleep 1234" in bundle.says("ps")


def test_the_program_is_the_first_process_of_its_pid_namespace(bundle: Bundle) -> None:
    assert bundle.says("echo $$") == "1"


def test_a_container_in_anothers_network_namespace_sees_its_links(bundle: Bundle, other: Bundle) -> None:
    with other.running() as first:
        subprocess.run(
            ["nsenter", f"--net={path_of(first, 'network')}", *"ip link add cf0 type bridge".split()], check=True
        )
        bundle.namespace("network", path=path_of(first, "network"))
        assert "cf0" in bundle.says("ls /sys/class/net").split()


def test_an_executed_process_is_in_all_namespaces_of_its_container(bundle: Bundle) -> None:
    script = "for kind in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$kind; done"
    with bundle.running("sh", "-c", f"{script}; exec sleep 1000"):
        eventually(lambda: len(bundle.output().split()) == 7, "the program's namespaces")
        assert bundle.sh(script) == bundle.output().rstrip("\n")


@requires("timens")
def test_an_executed_process_is_in_the_time_namespace_of_its_container(bundle: Bundle) -> None:
    bundle.namespace("time")
    with bundle.running() as pid:
        assert bundle.sh("readlink /proc/self/ns/time") == namespace(pid, "time")


@LEAVES
@pytest.mark.parametrize("kind", [*KINDS, "mount", USER])
def test_a_namespace_that_is_listed_twice_is_an_error(bundle: Bundle, kind: str) -> None:
    listed(bundle, kind)
    bundle.linux["namespaces"].append({"type": kind})
    bundle.refused()


@LEAVES
@pytest.mark.parametrize("kind", [*KINDS, "mount", USER])
def test_a_path_to_a_namespace_of_another_type_is_an_error(bundle: Bundle, kind: str) -> None:
    bundle.namespace(kind, path=path_of("self", "ipc" if kind == "uts" else "uts"))
    bundle.refused()


@LEAVES
@pytest.mark.parametrize("kind", [*KINDS, "mount", USER])
def test_a_path_to_what_is_no_namespace_is_an_error(bundle: Bundle, kind: str) -> None:
    bundle.namespace(kind, path=str(bundle.rootfs / "etc/passwd"))
    bundle.refused()


@LEAVES
@pytest.mark.parametrize("kind", [*KINDS, "mount", USER])
def test_a_path_to_nothing_is_an_error(bundle: Bundle, kind: str) -> None:
    bundle.namespace(kind, path=str(bundle.path / "nothing"))
    bundle.refused()


@LEAVES
def test_a_type_that_there_is_not_is_an_error(bundle: Bundle) -> None:
    bundle.namespace("weather")
    bundle.refused()


@requires("userns")
def test_the_ids_of_a_user_namespace_are_mapped(bundle: Bundle) -> None:
    map_ids(bundle)
    with bundle.running() as pid:
        for name in ("uid_map", "gid_map"):
            assert Path(f"/proc/{pid}/{name}").read_text().split() == ["0", "100000", "65536"]
        status = Path(f"/proc/{pid}/status").read_text()
        assert "Uid:\t100000\t100000" in status
        assert "Gid:\t100000\t100000" in status
        assert bundle.sh("id -u; id -g") == "0\n0"


@requires("userns")
def test_every_range_of_ids_is_mapped(bundle: Bundle) -> None:
    map_ids(bundle, (0, 100000, 1000), (1000, 1000, 1), (1001, 101001, 64535))
    assert [line.split() for line in bundle.says("cat /proc/self/uid_map").splitlines()] == [
        ["0", "100000", "1000"],
        ["1000", "1000", "1"],
        ["1001", "101001", "64535"],
    ]


@requires("userns")
def test_users_and_groups_are_mapped_apart(bundle: Bundle) -> None:
    map_ids(bundle)
    bundle.linux["gidMappings"] = [{"containerID": 0, "hostID": 300000, "size": 65536}]
    assert bundle.says("cat /proc/self/uid_map /proc/self/gid_map").split() == [
        "0",
        "100000",
        "65536",
        "0",
        "300000",
        "65536",
    ]


@requires("userns")
def test_files_of_the_container_have_the_mapped_owner_outside(bundle: Bundle) -> None:
    map_ids(bundle)
    (bundle.rootfs / "tmp").chmod(0o1777)
    bundle.process["user"] = {"uid": 10, "gid": 20}
    bundle.says("touch /tmp/made")
    made = (bundle.rootfs / "tmp/made").stat()
    assert (made.st_uid, made.st_gid) == (100010, 100020)


@requires("userns")
def test_files_of_the_root_keep_their_owner(bundle: Bundle) -> None:
    """The runtime SHOULD NOT modify the ownership of referenced filesystems to realize the mapping."""
    map_ids(bundle)
    assert bundle.says("stat -c %u /etc/passwd") == "65534"  # nobody that the container knows
    assert (bundle.rootfs / "etc/passwd").stat().st_uid == 0


@requires("userns")
def test_a_process_of_a_user_namespace_has_its_rights_there_only(bundle: Bundle) -> None:
    map_ids(bundle)
    (bundle.rootfs / "secret").write_text("")
    (bundle.rootfs / "secret").chmod(0o600)
    assert bundle.run("cat", "/secret").code != 0


@requires("userns")
def test_a_user_that_is_not_mapped_is_an_error(bundle: Bundle) -> None:
    map_ids(bundle)
    bundle.process["user"] = {"uid": 70000, "gid": 70000}
    assert bundle.run("true").code != 0


@requires("userns")
def test_an_executed_process_is_in_the_user_namespace(bundle: Bundle) -> None:
    map_ids(bundle)
    with bundle.running() as pid:
        assert bundle.sh("readlink /proc/self/ns/user") == namespace(pid, "user")
        assert bundle.sh("id -u") == "0"


@requires("userns")
def test_devices_are_there_in_a_user_namespace(bundle: Bundle) -> None:
    map_ids(bundle)
    bundle.says("for name in null zero full random urandom; do [ -c /dev/$name ] || exit 1; done; echo a >/dev/null")


@requires("timens")
@pytest.mark.parametrize("clock", ["monotonic", "boottime"])
def test_a_clock_is_moved_by_seconds_and_nanoseconds(bundle: Bundle, clock: str) -> None:
    bundle.namespace("time")
    bundle.linux["timeOffsets"] = {clock: {"secs": MOVED, "nanosecs": 250000000}}
    offsets = {line.split()[0]: line.split()[1:] for line in bundle.says("cat /proc/self/timens_offsets").splitlines()}
    assert offsets.pop(clock) == [str(MOVED), "250000000"]
    assert all(offset == ["0", "0"] for offset in offsets.values())


@requires("timens")
def test_a_moved_clock_tells_the_program_another_time(bundle: Bundle) -> None:
    bundle.namespace("time")
    bundle.linux["timeOffsets"] = {"boottime": {"secs": MOVED}}
    assert float(bundle.says("cat /proc/uptime").split()[0]) > MOVED


@differs(
    "crun",
    "ignores it; 'If the runtime cannot apply a property as specified in the configuration, it MUST generate an error'",
)
@requires("timens")
def test_a_clock_that_there_is_not_is_an_error(bundle: Bundle) -> None:
    bundle.namespace("time")
    bundle.linux["timeOffsets"] = {"sundial": {"secs": 1}}
    bundle.refused()


@requires("timens")
def test_a_clock_cannot_be_moved_before_its_beginning(bundle: Bundle) -> None:
    bundle.namespace("time")
    bundle.linux["timeOffsets"] = {"monotonic": {"secs": -(10**9)}}
    bundle.refused()


@requires("timens")
def test_the_runtimes_own_clocks_cannot_be_moved(bundle: Bundle) -> None:
    """If the runtime cannot apply a property as specified in the configuration, it MUST generate an error."""
    bundle.linux["timeOffsets"] = {"monotonic": {"secs": MOVED}}
    bundle.refused()


def test_a_parameter_of_the_kernel_is_set_in_a_namespace_that_is_joined(bundle: Bundle, other: Bundle) -> None:
    with other.running() as first:
        bundle.namespace("network", path=path_of(first, "network"))
        bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
        bundle.says("true")
        assert other.sh("cat /proc/sys/net/ipv4/ip_forward") == "1"


@requires("userns")
def test_a_parameter_of_the_kernel_is_set_in_a_user_namespace(bundle: Bundle) -> None:
    map_ids(bundle)
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    assert bundle.says("cat /proc/sys/net/ipv4/ip_forward") == "1"
