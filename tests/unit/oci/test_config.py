"""config.json: every member arrives, every mistake is named by its path, and what the specification leaves open is
decided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloche.errors import Invalid
from cloche.oci.config import PROPAGATIONS, UMASK_OF_CALLER, parse, parse_process, parse_resources
from cloche.oci.runtime import Device, IntelRdt, Namespace, Process, Resources, Spec, User
from configs import (
    ABSENT,
    EXPECTED,
    EXPECTED_PROCESS,
    EXPECTED_RESOURCES,
    FULL,
    MAPPING,
    MINIMAL,
    PLATFORMS,
    PROCESS,
    RESOURCES,
    SCHEMA,
    SPECS,
    shown,
    steps,
    ways,
    with_value,
)


def parsed(document: Any) -> Spec:
    return parse(json.dumps(document))


def test_every_member_arrives() -> None:
    assert parsed(FULL) == EXPECTED
    assert not SCHEMA.refuses(FULL)


def test_no_member_of_the_specification_is_left_out_of_that_test() -> None:
    known = set(SCHEMA.members(SCHEMA.files["config-schema.json"], "config-schema.json")) - PLATFORMS
    assert len(known) > 150
    maps = {"netDevices": "{}", "rdma": "{}"}
    used = set()
    for way in ways(FULL):
        path, inside = "", False
        for step in way:
            path += "{}" if inside else "[]" if isinstance(step, int) else f".{step}"
            inside = step in maps
        used.add(path)
    assert known - used == set()


def test_every_field_of_a_spec_is_filled_by_that_test() -> None:
    """But those of the engine's own requests, which no document has."""
    defaults = Spec(Process(()))
    same = [f for f in Spec._fields if getattr(EXPECTED, f) == getattr(defaults, f)]
    same += [f for f in Process._fields if getattr(EXPECTED_PROCESS, f) == getattr(defaults.process, f)]
    same += [f for f in Resources._fields if getattr(EXPECTED_RESOURCES, f) == getattr(Resources(), f)]
    assert same == ["reaper"]


def test_what_is_not_said_has_its_default() -> None:
    assert parsed(MINIMAL) == Spec(Process(()), root_path="rootfs")
    assert parsed(MINIMAL | {"linux": {}, "mounts": [], "hooks": {}}) == parsed(MINIMAL)
    plain = Process(("a",), user=User(umask=UMASK_OF_CALLER))
    assert parse_process('{"cwd": "/", "args": ["a"]}') == plain
    assert parse_resources(b"{}") == Resources()


@pytest.mark.parametrize("file", sorted(SPECS.glob("test/config/good/*.json")), ids=lambda file: file.stem)
def test_the_specifications_examples(file: Path) -> None:
    text = file.read_text()
    if file.stem == "spec-example":  # it is of a version from before the first
        with pytest.raises(Invalid, match=r"ociVersion: 0\.5\.0-dev is not supported"):
            parse(text)
        text = text.replace("0.5.0-dev", "1.0.2-dev")
    spec = parse(text)
    assert spec.root_path == "rootfs"
    assert bool(spec.process.args) == ("process" in json.loads(text))


@pytest.mark.parametrize("file", sorted(SPECS.glob("test/config/bad/*.json")), ids=lambda file: file.stem)
def test_the_specifications_bad_examples(file: Path) -> None:
    with pytest.raises(Invalid, match=r"read config\.json: "):
        parse(file.read_bytes())


def test_the_other_documents_are_read_in_the_same_way() -> None:
    assert parse_process(json.dumps(PROCESS)) == EXPECTED_PROCESS
    assert parse_resources(json.dumps(RESOURCES)) == EXPECTED_RESOURCES
    with pytest.raises(Invalid) as found:
        parse_process(json.dumps(with_value(PROCESS, ("rlimits", 1, "type"), "RLIMIT_")))
    assert str(found.value).startswith("read the process: rlimits[1].type: expected one of RLIMIT_AS, ")
    with pytest.raises(Invalid) as found:
        parse_resources('{"memory": {"limit": "1"}}')
    assert str(found.value) == (
        "read the resources: memory.limit: expected a whole number from -1 to 9223372036854775807, not a string"
    )
    for each in (parse, parse_process, parse_resources):
        with pytest.raises(Invalid, match="expected an object, not an array"):
            each("[]")


WRONG: list[tuple[str, Any, str]] = [  # member of FULL, its value, what is said of it
    ("ociVersion", ABSENT, "it is missing"),
    ("ociVersion", "1.0", "expected a version such as 1.2.0"),
    ("ociVersion", "1.02.0", "expected a version such as 1.2.0"),
    ("ociVersion", "1.0.0-", "expected a version such as 1.2.0"),
    ("ociVersion", "1.0.0+a_b", "expected a version such as 1.2.0"),
    ("ociVersion", "v1.0.0", "expected a version such as 1.2.0"),
    ("ociVersion", "1.٣.0", "expected a version such as 1.2.0"),
    ("ociVersion", "1." + "9" * 5000 + ".0", "expected a version such as 1.2.0"),
    ("ociVersion", "2.0.0", "2.0.0 is not supported, only 1.x.x"),
    ("ociVersion", "0.9.0", "0.9.0 is not supported, only 1.x.x"),
    ("ociVersion", 1, "expected a string, not the number 1"),
    ("root", ABSENT, "it is missing"),
    ("root.path", ABSENT, "it is missing"),
    ("root.path", "", "it is empty"),
    ("root.path", "a\0b", "it has a zero byte in it"),
    ("root.readonly", 1, "expected true or false, not the number 1"),
    ("hostname", ["a"], "expected a string, not an array"),
    ("domainname", {}, "expected a string, not an object"),
    ("annotations.a", 1, "expected a string, not the number 1"),
    ("process", [], "expected an object, not an array"),
    ("process.args", ABSENT, "it is missing"),
    ("process.args", [], "it is empty"),
    ("process.args[1]", None, "expected a string, not null"),
    ("process.commandLine", 1, "expected a string, not the number 1"),
    ("process.cwd", ABSENT, "it is missing"),
    ("process.cwd", "", "expected an absolute path"),
    ("process.cwd", "root", "expected an absolute path"),
    ("process.env[1]", "EMPTY", "expected NAME=value"),
    ("process.env[1]", "=value", "expected NAME=value"),
    ("process.terminal", "yes", "expected true or false, not a string"),
    ("process.consoleSize.height", ABSENT, "it is missing"),
    ("process.consoleSize.width", 65536, "expected a whole number from 0 to 65535, not the number 65536"),
    ("process.user.uid", -1, "expected a whole number from 0 to 4294967294, not the number -1"),
    ("process.user.uid", 2**32 - 1, "expected a whole number from 0 to 4294967294, not the number 4294967295"),
    ("process.user.gid", 1.0, "expected a whole number from 0 to 4294967294, not the number 1.0"),
    ("process.user.umask", 0o1000, "expected a whole number from 0 to 511, not the number 512"),
    ("process.user.additionalGids[1]", True, "expected a whole number from 0 to 4294967294, not true or false"),
    ("process.user.username", 0, "expected a string, not the number 0"),
    ("process.capabilities", ["CAP_KILL"], "expected an object, not an array"),
    ("process.capabilities.bounding[1]", 5, "expected a string, not the number 5"),
    ("process.capabilities.ambient", "CAP_KILL", "expected an array, not a string"),
    ("process.rlimits[0].type", ABSENT, "it is missing"),
    ("process.rlimits[0].soft", ABSENT, "it is missing"),
    ("process.rlimits[0].hard", 2**64, "expected a whole number from 0 to 18446744073709551615"),
    ("process.rlimits[1].type", "RLIMIT_NOFILE", "RLIMIT_NOFILE is there twice"),
    ("process.rlimits[1].type", "RLIMIT_FOO", "expected one of RLIMIT_AS, RLIMIT_CORE, "),
    ("process.oomScoreAdj", 1001, "expected a whole number from -1000 to 1000, not the number 1001"),
    ("process.apparmorProfile", False, "expected a string, not true or false"),
    ("process.selinuxLabel", 0, "expected a string, not the number 0"),
    ("process.ioPriority.class", ABSENT, "it is missing"),
    ("process.ioPriority.class", "IOPRIO_CLASS_NONE", "expected one of IOPRIO_CLASS_RT, IOPRIO_CLASS_BE, "),
    ("process.ioPriority.priority", 8, "expected a whole number from 0 to 7, not the number 8"),
    ("process.scheduler.policy", ABSENT, "it is missing"),
    ("process.scheduler.policy", "SCHED_NORMAL", "expected one of SCHED_OTHER, SCHED_FIFO, "),
    ("process.scheduler.nice", 20, "expected a whole number from -20 to 19, not the number 20"),
    ("process.scheduler.priority", 100, "expected a whole number from 0 to 99, not the number 100"),
    ("process.scheduler.flags[1]", "RECLAIM", "expected one of SCHED_FLAG_RESET_ON_FORK, "),
    ("process.scheduler.runtime", -1, "expected a whole number from 0 to 18446744073709551615, not the number -1"),
    ("process.execCPUAffinity.initial", "0-", "expected a list such as 0-3,7"),
    ("process.execCPUAffinity.initial", "1 2", "expected a list such as 0-3,7"),
    ("process.execCPUAffinity.final", "3-1", "expected a list such as 0-3,7"),
    ("process.execCPUAffinity.final", "٣", "expected a list such as 0-3,7"),
    ("mounts[0]", "/proc", "expected an object, not a string"),
    ("mounts[0].destination", ABSENT, "it is missing"),
    ("mounts[0].destination", "", "it is empty"),
    ("mounts[0].type", 1, "expected a string, not the number 1"),
    ("mounts[0].source", 1, "expected a string, not the number 1"),
    ("mounts[0].options", "ro", "expected an array, not a string"),
    ("mounts[1].options[1]", 1, "expected a string, not the number 1"),
    ("mounts[1].uidMappings", ABSENT, "it is missing, gidMappings is there"),
    ("mounts[1].gidMappings", [], "it is missing, uidMappings is there"),
    ("mounts[1].uidMappings[0].hostID", ABSENT, "it is missing"),
    ("mounts[1].uidMappings[0].size", 0, "expected a whole number from 1 to 4294967295, not the number 0"),
    ("mounts[1].uidMappings[0].size", 2**32 - 1000, "the range has ids beyond the last one"),
    ("hooks.prestart[0].path", ABSENT, "it is missing"),
    ("hooks.poststop[1].path", "b", "expected an absolute path"),
    ("hooks.createRuntime[0].timeout", 0, "expected a whole number from 1 to 9223372036854775807, not the number 0"),
    ("hooks.createContainer[0].env[0]", "K", "expected NAME=value"),
    ("hooks.startContainer[0].args[1]", 1, "expected a string, not the number 1"),
    ("hooks.poststart", {}, "expected an array, not an object"),
    ("linux", "", "expected an object, not a string"),
    ("linux.namespaces[0].type", ABSENT, "it is missing"),
    ("linux.namespaces[0].type", "ipcs", "expected one of mount, pid, network, uts, ipc, user, cgroup, time, not ipcs"),
    ("linux.namespaces[0].type", "", "expected one of mount, pid, network, uts, ipc, user, cgroup, time, not an empty"),
    ("linux.namespaces[1].type", "pid", "pid is there twice"),
    ("linux.namespaces[1].path", "neta", "expected an absolute path"),
    ("linux.uidMappings", ABSENT, "it is missing, gidMappings is there"),
    ("linux.gidMappings[0].containerID", -1, "expected a whole number from 0 to 4294967295, not the number -1"),
    ("linux.timeOffsets.realtime", {}, "time_namespaces(7) has offsets for monotonic and boottime"),
    ("linux.timeOffsets.monotonic", 1, "expected an object, not the number 1"),
    ("linux.timeOffsets.monotonic.nanosecs", 10**9, "expected a whole number from 0 to 999999999"),
    (
        "linux.timeOffsets.boottime.secs",
        2**63,
        "expected a whole number from -9223372036854775808 to 9223372036854775807",
    ),
    ("linux.devices[0].path", ABSENT, "it is missing"),
    ("linux.devices[0].path", "fuse", "expected an absolute path"),
    ("linux.devices[0].type", "cb", "expected one of c, u, b, p, not cb"),
    ("linux.devices[0].major", ABSENT, "it is missing"),
    ("linux.devices[0].minor", 1 << 20, "expected a whole number from 0 to 1048575, not the number 1048576"),
    ("linux.devices[0].fileMode", 0o10000, "expected permissions, at most 4095, not 4096"),
    ("linux.devices[0].fileMode", 0o060600, "expected permissions, at most 4095, not 24960"),
    ("linux.devices[0].uid", 2**32 - 1, "expected a whole number from 0 to 4294967294, not the number 4294967295"),
    ("linux.netDevices.eth0", None, "expected an object, not null"),
    ("linux.netDevices.eth0.name", "a name of more", "expected the name of a network interface"),
    ("linux.netDevices.eth0.name", "sixteen_letters_", "expected the name of a network interface"),
    ("linux.netDevices.a/b", {}, "expected the name of a network interface"),
    ("linux.cgroupsPath", 1, "expected a string, not the number 1"),
    ("linux.rootfsPropagation", "SHARED", "expected one of private, shared, slave, unbindable, "),
    ("linux.sysctl.a", 1, "expected a string, not the number 1"),
    ("linux.maskedPaths[0]", "proc/kcore", "expected an absolute path"),
    ("linux.readonlyPaths[0]", "", "expected an absolute path"),
    ("linux.mountLabel", 1, "expected a string, not the number 1"),
    ("linux.personality.domain", ABSENT, "it is missing"),
    ("linux.personality.domain", "BSD", "expected one of LINUX, LINUX32, not BSD"),
    ("linux.personality.flags", ["ADDR_NO_RANDOMIZE"], "the specification knows none"),
    ("linux.intelRdt.closID", "a/b", "expected the name of a directory"),
    ("linux.intelRdt.closID", "..", "expected the name of a directory"),
    ("linux.intelRdt.memBwSchema", "0=20", "expected one line that begins with MB:"),
    ("linux.intelRdt.memBwSchema", "MB:0=20\nL3:0=1", "expected one line that begins with MB:"),
    ("linux.intelRdt.schemata[0]", "a\nb", "expected one line"),
    ("linux.intelRdt.enableCMT", 1, "expected true or false, not the number 1"),
    ("linux.memoryPolicy.mode", ABSENT, "it is missing"),
    ("linux.memoryPolicy.mode", "BIND", "expected one of MPOL_DEFAULT, MPOL_BIND, "),
    ("linux.memoryPolicy.nodes", "all", "expected a list such as 0-3,7"),
    ("linux.memoryPolicy.flags[0]", "", "expected one of MPOL_F_NUMA_BALANCING, "),
    ("linux.resources", [], "expected an object, not an array"),
    ("linux.resources.memory.limit", -2, "expected a whole number from -1 to 9223372036854775807, not the number -2"),
    ("linux.resources.memory.swap", "1g", "expected a whole number from -1 to 9223372036854775807, not a string"),
    ("linux.resources.memory.swappiness", 101, "expected a whole number from 0 to 100, not the number 101"),
    ("linux.resources.memory.useHierarchy", 0, "expected true or false, not the number 0"),
    ("linux.resources.cpu.shares", -1, "expected a whole number from 0 to 18446744073709551615, not the number -1"),
    ("linux.resources.cpu.idle", 2, "expected a whole number from 0 to 1, not the number 2"),
    ("linux.resources.cpu.cpus", 3, "expected a string, not the number 3"),
    ("linux.resources.pids.limit", 2**63, "expected a whole number from -9223372036854775808 to 9223372036854775807"),
    ("linux.resources.devices[0].allow", ABSENT, "it is missing"),
    ("linux.resources.devices[0].allow", "true", "expected true or false, not a string"),
    ("linux.resources.devices[1].type", "p", "expected one of a, b, c, not p"),
    ("linux.resources.devices[1].access", "rx", "expected letters of rwm"),
    ("linux.resources.devices[1].access", "", "expected letters of rwm"),
    ("linux.resources.devices[1].major", -2, "expected a whole number from -1 to 4294967295, not the number -2"),
    ("linux.resources.blockIO.weight", 9, "expected a weight from 10 to 1000, not 9"),
    ("linux.resources.blockIO.leafWeight", 1001, "expected a weight from 10 to 1000, not 1001"),
    ("linux.resources.blockIO.weight", 65536, "expected a whole number from 0 to 65535, not the number 65536"),
    ("linux.resources.blockIO.weightDevice[0].major", ABSENT, "it is missing"),
    ("linux.resources.blockIO.throttleReadBpsDevice[0].rate", ABSENT, "it is missing"),
    ("linux.resources.blockIO.throttleWriteIOPSDevice[0].minor", ABSENT, "it is missing"),
    ("linux.resources.hugepageLimits[0].pageSize", "64kB", "expected a size such as 64KB, 2MB or 1GB"),
    ("linux.resources.hugepageLimits[0].pageSize", "02MB", "expected a size such as 64KB, 2MB or 1GB"),
    ("linux.resources.hugepageLimits[0].pageSize", "MB", "expected a size such as 64KB, 2MB or 1GB"),
    ("linux.resources.hugepageLimits[0].limit", ABSENT, "it is missing"),
    ("linux.resources.network.classID", 2**32, "expected a whole number from 0 to 4294967295, not the number"),
    ("linux.resources.network.priorities[0].name", "a b", "expected the name of a network interface"),
    ("linux.resources.network.priorities[0].priority", ABSENT, "it is missing"),
    ("linux.resources.rdma.mlx5_1.hcaHandles", "all", "expected a whole number from 0 to 4294967295, not a string"),
    ("linux.resources.rdma.a b", {"hcaObjects": 1}, "expected the name of a device"),
    ("linux.resources.unified.memory/high", "1", "expected a file of a control group, as memory.high"),
    ("linux.resources.unified.high", "1", "expected a file of a control group, as memory.high"),
    ("linux.resources.unified.memory", "1", "expected a file of a control group, as memory.high"),
]


@pytest.mark.parametrize(("path", "value", "cause"), WRONG)
def test_what_is_wrong_is_named(path: str, value: Any, cause: str) -> None:
    with pytest.raises(Invalid) as found:
        parsed(with_value(FULL, steps(path), value))
    assert str(found.value).startswith(f"read config.json: {path}: {cause}")


LINUX = MINIMAL | {"linux": {}}
TWO_SIDED: list[tuple[Any, str, Any, str]] = [  # document, member of it, its value, the member that is named and why
    (FULL, "process.rlimits[0].hard", 1023, "process.rlimits[0].soft: it is larger than hard"),
    (FULL, "linux.namespaces[2]", {"type": "uts"}, "linux.uidMappings: there is no user namespace in namespaces"),
    (FULL, "linux.namespaces[3]", {"type": "uts"}, "linux.timeOffsets: there is no time namespace in namespaces"),
    (FULL, "linux.namespaces[3].path", "/t", "linux.timeOffsets: the time namespace has a path: its offsets are set"),
    (
        MINIMAL,
        "mounts",
        [{"destination": "/a", "options": ["idmap"]}],
        "mounts[0].options[0]: there are no uidMappings",
    ),
    (
        MINIMAL,
        "mounts",
        [{"destination": "/a", "gidMappings": [MAPPING]}],
        "mounts[0].uidMappings: it is missing, gidM",
    ),
    (
        FULL,
        "linux.resources.blockIO.weightDevice[0]",
        {"major": 8, "minor": 0},
        "linux.resources.blockIO.weightDevice[0].weight: there is neither this nor leafWeight",
    ),
    (
        FULL,
        "linux.resources.rdma.rxe3",
        {},
        "linux.resources.rdma.rxe3.hcaHandles: there is neither this nor hcaObjects",
    ),
    (MINIMAL, "annotations", {"": "a"}, "annotations: a key is empty"),
    (MINIMAL, "annotations", {"a\0": "a"}, "annotations: it has a zero byte in it"),
    (LINUX, "linux.sysctl", {"": "a"}, "linux.sysctl: a key is empty"),
    (LINUX, "linux.netDevices", {"": {}}, "linux.netDevices.: expected the name of a network interface"),
]


@pytest.mark.parametrize(("document", "path", "value", "said"), TWO_SIDED)
def test_what_does_not_fit_together_is_named(document: Any, path: str, value: Any, said: str) -> None:
    with pytest.raises(Invalid) as found:
        parsed(with_value(document, steps(path), value))
    assert str(found.value).startswith(f"read config.json: {said}")


def test_a_profile_of_seccomp_is_named_too() -> None:
    with pytest.raises(Invalid) as found:
        parsed(with_value(FULL, steps("linux.seccomp.syscalls[0].args[0].op"), "SCMP_CMP_IN"))
    assert str(found.value) == (
        "read the seccomp profile: linux.seccomp.syscalls[0].args[0].op: there is no SCMP_CMP_IN"
    )


def test_control_characters_of_a_document_are_escaped_in_errors() -> None:
    with pytest.raises(Invalid, match=r"annotations\.a\\x1b\[2J: expected a string"):
        parsed(MINIMAL | {"annotations": {"a\x1b[2J": 1}})


@pytest.mark.parametrize(
    "data", ["", "{", "null", "[" * 100000, b"\xff", '{"a": "\\ud800"}', '"\ud800"', "{}{}", "NaN"]
)
def test_what_is_no_document_is_an_error(data: Any) -> None:
    with pytest.raises(Invalid, match=r"read config\.json: "):
        parse(data)


@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.2.1+dev", "1.3.0-rc.1+b-1.x", "1.4.0", "1.0.0-rc5-dev"])
def test_versions_of_major_one_are_taken(version: str) -> None:
    assert parsed(MINIMAL | {"ociVersion": version}) == parsed(MINIMAL)


def test_unknown_members_and_those_of_other_systems_are_ignored() -> None:
    other: dict[str, Any] = {name.strip("."): [] for name in PLATFORMS} | {"unknown": None, "Hostname": 1}
    assert parsed(MINIMAL | other) == parsed(MINIMAL)
    assert parsed(MINIMAL | {"linux": {"resources": {"oomScoreAdj": "x"}, "x": 1}}) == parsed(MINIMAL)


MAPS = {"annotations", "sysctl", "unified", "netDevices", "rdma", "timeOffsets"}  # their entries are no members


def outcome(document: Any) -> object:
    try:
        return parsed(document)
    except Invalid as error:
        return str(error)


def test_a_member_that_is_null_is_one_that_is_not_there() -> None:
    seen = 0
    for way in ways(FULL):
        if isinstance(way[-1], str) and way[-2:-1] not in {(name,) for name in MAPS}:
            assert outcome(with_value(FULL, way, None)) == outcome(with_value(FULL, way, ABSENT)), shown(way)
            seen += 1
    assert seen > 150


# What the specification leaves open, or clients have always written otherwise.


def resources_of(**members: Any) -> Resources:
    return parse_resources(json.dumps(members))


def test_a_limit_of_zero_says_nothing_where_the_kernel_has_no_such_limit() -> None:
    """Docker's until 20.10: {"cpu": {"shares": 0}, "pids": {"limit": 0}, "blockIO": {"weight": 0}}."""
    memory = dict.fromkeys(("limit", "swap", "reservation", "kernel", "kernelTCP"), 0)
    cpu = dict.fromkeys(("shares", "quota", "period", "realtimeRuntime", "realtimePeriod"), 0)
    assert resources_of(memory=memory, cpu=cpu, blockIO={"weight": 0, "leafWeight": 0}) == Resources()
    zeros = resources_of(
        memory={"swappiness": 0},
        cpu={"burst": 0, "idle": 0},
        network={"classID": 0},
        hugepageLimits=[{"pageSize": "1GB", "limit": 0}],
    )
    assert zeros == Resources(swappiness=0, cpu_burst=0, cpu_idle=0, network_class=0, hugepages=(("1GB", 0),))


@pytest.mark.parametrize(("version", "limit"), [("1.2.1", None), ("1.3.0", 0), ("1.10.0", 0)])
def test_no_process_may_be_forked_where_a_document_of_1_3_says_so(version: str, limit: int | None) -> None:
    document = {"ociVersion": version, "root": {"path": "r"}, "linux": {"resources": {"pids": {"limit": 0}}}}
    assert parsed(document).resources.pids_limit == limit


def test_any_negative_limit_that_the_kernel_takes_for_none_is_minus_one() -> None:
    assert resources_of(cpu={"quota": -5, "realtimeRuntime": -7}, pids={"limit": -(2**63)}) == Resources(
        cpu_quota=-1, cpu_rt_runtime=-1, pids_limit=-1
    )
    assert resources_of(memory={"limit": -1, "swap": -1}) == Resources(memory_limit=-1, memory_swap=-1)


def test_dockers_swappiness_of_minus_one_says_nothing() -> None:
    assert resources_of(memory={"swappiness": 2**64 - 1}) == Resources()


def test_pids_without_a_limit_say_nothing() -> None:
    assert resources_of(pids={}) == Resources()


@pytest.mark.parametrize(
    ("kind", "mode", "found"), [("c", 8630, 0o666), ("u", 8630, 0o666), ("b", 25008, 0o660), ("p", 0o11644, 0o1644)]
)
def test_a_devices_mode_may_have_its_own_type_in_it(kind: str, mode: int, found: int) -> None:
    device = {"path": "/dev/a", "type": kind, "major": 1, "minor": 3, "fileMode": mode}
    assert parsed(MINIMAL | {"linux": {"devices": [device]}}).devices == (Device("/dev/a", kind, 1, 3, found),)


@pytest.mark.parametrize("kind", PROPAGATIONS)
def test_propagations_may_be_recursive(kind: str) -> None:
    assert parsed(MINIMAL | {"linux": {"rootfsPropagation": kind}}).rootfs_propagation == kind


def test_a_console_size_is_ignored_without_a_terminal() -> None:
    process = {"cwd": "/", "args": ["a"], "consoleSize": {"height": 1 << 40, "width": 1}}
    assert parse_process(json.dumps(process)).console_size == (0, 0)
    with pytest.raises(Invalid, match=r"consoleSize\.height: "):
        parse_process(json.dumps(process | {"terminal": True}))


def test_an_idmap_without_mappings_may_have_those_of_the_user_namespace() -> None:
    mounts = [{"destination": "/a", "options": ["bind", "idmap"]}]
    assert (
        parsed(MINIMAL | {"mounts": mounts, "linux": {"namespaces": [{"type": "user"}]}}).mounts[0].uid_mappings == ()
    )


def test_an_empty_path_of_a_namespace_is_a_new_one() -> None:
    assert parsed(MINIMAL | {"linux": {"namespaces": [{"type": "pid", "path": ""}]}}).namespaces == (Namespace("pid"),)


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        ({}, ()),
        ({"l3CacheSchema": "L3:0=f\nMB:0=10"}, ("L3:0=f", "MB:0=10")),
        ({"memBwSchema": "MB:0=20"}, ("MB:0=20",)),
        ({"schemata": ["L3:0=1", "MB:0=2"], "memBwSchema": "MB:0=20"}, ("MB:0=20", "L3:0=1", "MB:0=2")),
    ],
)
def test_schemata_are_in_the_order_they_are_written_in(given: Any, lines: tuple[str, ...]) -> None:
    assert parsed(MINIMAL | {"linux": {"intelRdt": given}}).intel_rdt == IntelRdt("", lines)


@pytest.mark.parametrize("key", ["enableMonitoring", "enableCMT", "enableMBM"])
def test_monitoring_by_its_older_names(key: str) -> None:
    assert parsed(MINIMAL | {"linux": {"intelRdt": {key: True}}}).intel_rdt == IntelRdt(monitoring=True)
