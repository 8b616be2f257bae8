"""config.json for tests: one with every member that the specification has for Linux, and what that is as a Spec; others
of any shape that the specification allows; the specification's schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import referencing
import referencing.jsonschema
from hypothesis import strategies as st

from cloche.oci.config import RLIMITS
from cloche.oci.runtime import (
    Capabilities,
    CpuAffinity,
    Device,
    DeviceRate,
    DeviceRule,
    Hook,
    Hooks,
    IdMapping,
    IntelRdt,
    IOPriority,
    MemoryPolicy,
    Mount,
    Namespace,
    NetDevice,
    Process,
    Rdma,
    Resources,
    Rlimit,
    Scheduler,
    Spec,
    TimeOffset,
    User,
)
from cloche.oci.seccomp import Arg, Rule, Seccomp

SPECS = Path(__file__).parent / "specs/runtime-spec"
KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")

RESOURCES: dict[str, Any] = {
    "unified": {"memory.high": "1000000"},
    "devices": [
        {"allow": False},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        {"allow": True, "type": "b", "major": 8, "access": "r"},
    ],
    "pids": {"limit": 32771},
    "blockIO": {
        "weight": 10,
        "leafWeight": 20,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 500, "leafWeight": 300}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 600}],
        "throttleWriteBpsDevice": [{"major": 8, "minor": 2, "rate": 601}],
        "throttleReadIOPSDevice": [{"major": 8, "minor": 3, "rate": 602}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 4, "rate": 2**64 - 1}],
    },
    "cpu": {
        "cpus": "2-3",
        "mems": "0-7",
        "period": 500000,
        "quota": 1000000,
        "burst": 1000,
        "realtimePeriod": 1000001,
        "realtimeRuntime": 950000,
        "shares": 1024,
        "idle": 1,
    },
    "hugepageLimits": [{"pageSize": "2MB", "limit": 9223372036854772000}],
    "memory": {
        "limit": 536870912,
        "reservation": 436870912,
        "swap": 636870912,
        "kernel": -1,
        "kernelTCP": 5,
        "swappiness": 0,
        "disableOOMKiller": True,
        "useHierarchy": True,
        "checkBeforeUpdate": True,
    },
    "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]},
    "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "rxe3": {"hcaObjects": 0}},
}
PROCESS: dict[str, Any] = {
    "terminal": True,
    "consoleSize": {"height": 25, "width": 80},
    "cwd": "/root",
    "env": ["PATH=/bin", "EMPTY=", "A=b=c"],
    "args": ["sh", ""],
    "commandLine": "of Windows",
    "user": {"uid": 1, "gid": 2, "umask": 0o077, "additionalGids": [5, 6], "username": "of Windows"},
    "capabilities": {
        "bounding": ["CAP_KILL", "CAP_OF_TOMORROW"],
        "effective": ["CAP_CHOWN"],
        "permitted": ["CAP_FOWNER"],
        "inheritable": ["CAP_SETUID"],
        "ambient": ["CAP_SETGID"],
    },
    "rlimits": [
        {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 2**64 - 1},
        {"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1},
    ],
    "apparmorProfile": "acme_secure_profile",
    "oomScoreAdj": -1000,
    "selinuxLabel": "system_u:system_r:svirt_lxc_net_t:s0:c124,c675",
    "noNewPrivileges": True,
    "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 4},
    "scheduler": {
        "policy": "SCHED_DEADLINE",
        "nice": -20,
        "priority": 99,
        "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM"],
        "runtime": 1,
        "deadline": 2,
        "period": 3,
    },
    "execCPUAffinity": {"initial": "7", "final": "0-3, 7"},
}
MAPPING = {"containerID": 0, "hostID": 1000, "size": 32000}
# Every member that the specification's schema has for Linux, each with a value that is not its default.
FULL: dict[str, Any] = {
    "ociVersion": "1.3.0",
    "process": PROCESS,
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "slartibartfast",
    "domainname": "foobarbaz.test",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "data",
            "source": "data",
            "options": ["rbind", "ridmap"],
            "uidMappings": [MAPPING],
            "gidMappings": [MAPPING],
        },
    ],
    "hooks": {
        kind: [{"path": f"/bin/{kind}", "args": [kind, "a"], "env": ["K=v"], "timeout": 5}, {"path": "/bin/b"}]
        for kind in KINDS
    },
    "annotations": {"com.example.key": "value", "empty": ""},
    "linux": {
        "devices": [
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o600, "uid": 1, "gid": 2},
            {"path": "/run/fifo", "type": "p"},
        ],
        "netDevices": {"eth0": {"name": "container_eth0"}, "ens4": {}},
        "uidMappings": [MAPPING],
        "gidMappings": [{"containerID": 1, "hostID": 2000, "size": 1}],
        "timeOffsets": {"monotonic": {"secs": -172800, "nanosecs": 5}, "boottime": {"secs": 604800, "nanosecs": 7}},
        "namespaces": [
            {"type": "pid"},
            {"type": "network", "path": "/run/netns/neta"},
            {"type": "user"},
            {"type": "time"},
        ],
        "resources": RESOURCES,
        "cgroupsPath": "/myRuntime/myContainer",
        "rootfsPropagation": "slave",
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "listenerPath": "/run/listener",
            "listenerMetadata": "meta",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {
                    "names": ["getcwd", "chmod"],
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": 1,
                    "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}],
                }
            ],
        },
        "sysctl": {"net.ipv4.ip_forward": "1", "kernel/shm_rmid_forced": "1"},
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "mountLabel": "system_u:object_r:svirt_sandbox_file_t:s0:c715,c811",
        "intelRdt": {
            "closID": "guaranteed_group",
            "l3CacheSchema": "L3:0=7f0;1=1f\nMB:0=1",
            "memBwSchema": "MB:0=20;1=70",
            "schemata": ["L2:0=f"],
            "enableMonitoring": True,
        },
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]},
        "personality": {"domain": "LINUX32", "flags": []},
    },
}
EXPECTED_RESOURCES = Resources(
    memory_limit=536870912,
    memory_swap=636870912,
    memory_reservation=436870912,
    cpu_shares=1024,
    cpu_quota=1000000,
    cpu_period=500000,
    cpuset_cpus="2-3",
    cpuset_mems="0-7",
    pids_limit=32771,
    devices=(DeviceRule(False), DeviceRule(True, "c", 10, 229, "rw"), DeviceRule(True, "b", 8, -1, "r")),
    cpu_rt_period=1000001,
    cpu_rt_runtime=950000,
    swappiness=0,
    oom_kill_disable=True,
    blkio_weight=10,
    rates=(
        DeviceRate("weight", 8, 0, 500),
        DeviceRate("leaf_weight", 8, 0, 300),
        DeviceRate("read_bps", 8, 1, 600),
        DeviceRate("write_bps", 8, 2, 601),
        DeviceRate("read_iops", 8, 3, 602),
        DeviceRate("write_iops", 8, 4, 2**64 - 1),
    ),
    blkio_leaf_weight=20,
    kernel_memory=-1,
    kernel_memory_tcp=5,
    check_before_update=True,
    cpu_burst=1000,
    cpu_idle=1,
    hugepages=(("2MB", 9223372036854772000),),
    network_class=1048577,
    network_priorities=(("eth0", 500),),
    rdma=(Rdma("mlx5_1", 3, 10000), Rdma("rxe3", None, 0)),
    unified=(("memory.high", "1000000"),),
)
EXPECTED_PROCESS = Process(
    args=("sh", ""),
    env=("PATH=/bin", "EMPTY=", "A=b=c"),
    cwd="/root",
    user=User(1, 2, 0o077, (5, 6)),
    terminal=True,
    console_size=(25, 80),
    capabilities=Capabilities(
        ("CAP_KILL", "CAP_OF_TOMORROW"), ("CAP_CHOWN",), ("CAP_FOWNER",), ("CAP_SETUID",), ("CAP_SETGID",)
    ),
    rlimits=(Rlimit("RLIMIT_NOFILE", 1024, -1), Rlimit("RLIMIT_CORE", -1, -1)),
    no_new_privileges=True,
    oom_score_adj=-1000,
    apparmor_profile="acme_secure_profile",
    selinux_label="system_u:system_r:svirt_lxc_net_t:s0:c124,c675",
    scheduler=Scheduler("SCHED_DEADLINE", -20, 99, ("SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM"), 1, 2, 3),
    io_priority=IOPriority("IOPRIO_CLASS_IDLE", 4),
    cpu_affinity=CpuAffinity("7", "0-3,7"),
)
EXPECTED = Spec(
    process=EXPECTED_PROCESS,
    root_readonly=True,
    hostname="slartibartfast",
    domainname="foobarbaz.test",
    mounts=(
        Mount("/proc", "proc", "proc"),
        Mount(
            "/data",
            source="data",
            options=("rbind", "ridmap"),
            uid_mappings=(IdMapping(0, 1000, 32000),),
            gid_mappings=(IdMapping(0, 1000, 32000),),
        ),
    ),
    namespaces=(Namespace("pid"), Namespace("network", "/run/netns/neta"), Namespace("user"), Namespace("time")),
    uid_mappings=(IdMapping(0, 1000, 32000),),
    gid_mappings=(IdMapping(1, 2000, 1),),
    devices=(Device("/dev/fuse", "c", 10, 229, 0o600, 1, 2), Device("/run/fifo", "p")),
    resources=EXPECTED_RESOURCES,
    cgroups_path="/myRuntime/myContainer",
    sysctl=(("net.ipv4.ip_forward", "1"), ("kernel/shm_rmid_forced", "1")),
    masked_paths=("/proc/kcore",),
    readonly_paths=("/proc/sys",),
    rootfs_propagation="slave",
    annotations=(("com.example.key", "value"), ("empty", "")),
    root_path="rootfs",
    hooks=Hooks(*((Hook(f"/bin/{kind}", (kind, "a"), ("K=v",), 5), Hook("/bin/b")) for kind in KINDS)),
    seccomp=Seccomp(
        "ERRNO",
        38,
        ("X86_64",),
        ("LOG",),
        (Rule(("getcwd", "chmod"), "ERRNO", 1, (Arg(0, 1, 2, "MASKED_EQ"),)),),
        "/run/listener",
        "meta",
    ),
    mount_label="system_u:object_r:svirt_sandbox_file_t:s0:c715,c811",
    time_offsets=(TimeOffset("monotonic", -172800, 5), TimeOffset("boottime", 604800, 7)),
    net_devices=(NetDevice("eth0", "container_eth0"), NetDevice("ens4")),
    intel_rdt=IntelRdt("guaranteed_group", ("L3:0=7f0;1=1f", "MB:0=20;1=70", "L2:0=f"), True),
    memory_policy=MemoryPolicy("MPOL_BIND", "0-1", ("MPOL_F_STATIC_NODES",)),
    personality="LINUX32",
)
MINIMAL: dict[str, Any] = {"ociVersion": "1.0.0", "root": {"path": "rootfs"}}

Way = tuple[str | int, ...]
ABSENT = object()


def shown(way: Way) -> str:
    """A way through a document as errors write it."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in way).lstrip(".")


def reached(document: Any, way: Way) -> Any:
    for step in way:
        document = document[step]
    return document


def with_value(document: Any, way: Way, value: Any) -> Any:
    """A copy with one member set, added or, for ABSENT, taken away."""
    made = json.loads(json.dumps(document))
    parent = reached(made, way[:-1])
    if value is ABSENT:
        del parent[way[-1]]
    elif isinstance(parent, list) and way[-1] == len(parent):
        parent.append(value)
    else:
        parent[way[-1]] = value
    return made


def steps(text: str) -> Way:
    """`linux.devices[0].path` as a way."""
    return tuple(
        int(step) if step.isdecimal() else step for step in text.replace("[", ".").replace("]", "").split(".") if step
    )


def ways(document: Any, way: Way = ()) -> Iterator[Way]:
    """The ways to everything in a document."""
    items = (
        enumerate(document) if isinstance(document, list) else document.items() if isinstance(document, dict) else ()
    )
    for step, value in items:
        yield (*way, step)
        yield from ways(value, (*way, step))


class Schema:
    """The specification's own. Its files refer to each other by name, and some of them to platforms that are not
    here."""

    def __init__(self) -> None:
        self.files = {file.name: json.loads(file.read_text()) for file in SPECS.glob("*.json")}
        registry: Any = referencing.Registry().with_resources(
            (name, referencing.Resource.from_contents(each, referencing.jsonschema.DRAFT4))
            for name, each in self.files.items()
        )
        self.validator = jsonschema.Draft4Validator({"$ref": "config-schema.json"}, registry=registry)

    def refuses(self, document: Any) -> bool:
        return not self.validator.is_valid(document)

    def members(self, schema: Any, file: str, path: str = "") -> Iterator[str]:
        """Paths of all members that it knows, `[]` for the entries of an array and `{}` for those of a map."""
        if "$ref" in schema:
            name, _, pointer = schema["$ref"].partition("#")
            file = name or file
            if file not in self.files:
                return
            schema = reached(self.files[file], tuple(step for step in pointer.split("/") if step))
        for each in (*schema.get("anyOf", ()), *schema.get("allOf", ())):
            yield from self.members(each, file, path)
        if "items" in schema:
            yield from self.members(schema["items"], file, path + "[]")
        if isinstance(schema.get("additionalProperties"), dict):
            yield from self.members(schema["additionalProperties"], file, path + "{}")
        for name, each in schema.get("properties", {}).items():
            yield f"{path}.{name}"
            yield from self.members(each, file, f"{path}.{name}")


SCHEMA = Schema()
PLATFORMS = {".solaris", ".windows", ".vm", ".zos", ".freebsd"}  # members of other systems


# A document as the specification allows it, of any shape: documents().

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
KEY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6)
PATH = TEXT.map(lambda text: "/" + text)
NAME = st.text("abcz019_-%", min_size=1, max_size=15)
U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
I64 = st.integers(-(2**63), 2**63 - 1)
ID = st.integers(0, 2**32 - 2)
TEXTS = st.lists(TEXT, max_size=3)
MAP = st.dictionaries(KEY, TEXT, max_size=2)
LIST = st.sampled_from(["", "0", "0-3", "0-3,7", " 1 , 2-2", ","])
ENV = st.lists(st.builds("{}={}".format, NAME, TEXT), max_size=2)


def thing(optional: dict[str, Any], **required: Any) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(required, optional=optional)


def listed(entries: st.SearchStrategy[Any], by: str = "", least: int = 0) -> st.SearchStrategy[Any]:
    return st.lists(entries, min_size=least, max_size=2, unique_by=(lambda entry: entry[by]) if by else None)


def words(path: str) -> st.SearchStrategy[str]:
    """The words that the schema allows."""
    file, name = path.split("#")
    return st.sampled_from(SCHEMA.files[file]["definitions"][name]["enum"])


MAPPINGS = listed(
    thing({}, containerID=st.integers(0, 1000), hostID=st.integers(0, 2**31), size=st.integers(1, 2**31 - 1)),
    least=1,
)
MOUNT = thing({"type": TEXT, "source": TEXT, "options": TEXTS}, destination=KEY)
MOUNTS = MOUNT | st.builds(lambda mount, ids: mount | {"uidMappings": ids, "gidMappings": ids}, MOUNT, MAPPINGS)
HOOKS = listed(thing({"args": TEXTS, "env": ENV, "timeout": st.integers(1, 2**63 - 1)}, path=PATH))
NUMBERS = {"major": st.integers(0, 4095), "minor": st.integers(0, 2**20 - 1)}
RATE = listed(thing({}, rate=U64, **NUMBERS))
WEIGHT = st.integers(10, 1000)
AVAILABLE = thing(
    {
        "unified": st.dictionaries(st.builds("{}.{}".format, NAME, NAME), TEXT, max_size=2),
        "devices": listed(
            thing(
                {
                    "type": st.sampled_from("abc"),
                    "major": st.integers(-1, 2**32 - 1),
                    "minor": st.integers(-1, 2**32 - 1),
                    "access": st.text("rwm", min_size=1, max_size=3),
                },
                allow=st.booleans(),
            )
        ),
        "pids": thing({}, limit=I64),
        "blockIO": thing(
            {
                "weight": WEIGHT,
                "leafWeight": WEIGHT,
                "weightDevice": listed(thing({"leafWeight": WEIGHT}, weight=WEIGHT, **NUMBERS)),
                "throttleReadBpsDevice": RATE,
                "throttleWriteBpsDevice": RATE,
                "throttleReadIOPSDevice": RATE,
                "throttleWriteIOPSDevice": RATE,
            }
        ),
        "cpu": thing(
            dict.fromkeys(("period", "burst", "realtimePeriod", "shares"), U64)
            | dict.fromkeys(("quota", "realtimeRuntime"), I64)
            | {"cpus": TEXT, "mems": TEXT, "idle": st.integers(0, 1)}
        ),
        "hugepageLimits": listed(thing({}, pageSize=st.sampled_from(["64KB", "2MB", "1GB"]), limit=U64)),
        "memory": thing(
            dict.fromkeys(("limit", "reservation", "swap", "kernel", "kernelTCP"), st.integers(-1, 2**63 - 1))
            | dict.fromkeys(("disableOOMKiller", "useHierarchy", "checkBeforeUpdate"), st.booleans())
            | {"swappiness": st.integers(0, 100)}
        ),
        "network": thing({"classID": U32, "priorities": listed(thing({}, name=NAME, priority=U32))}),
        "rdma": st.dictionaries(NAME, thing({"hcaObjects": U32}, hcaHandles=U32), max_size=2),
    }
)


def _errors_where_they_can_be(profile: dict[str, Any]) -> dict[str, Any]:
    """An action that returns no error is given none (config-linux.md, Seccomp)."""
    returning = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
    for action, key, where in (
        (profile["defaultAction"], "defaultErrnoRet", profile),
        *((rule["action"], "errnoRet", rule) for rule in profile.get("syscalls") or ()),
    ):
        if action not in returning:
            where.pop(key, None)
    return profile


SECCOMP = thing(
    {
        "defaultErrnoRet": st.integers(0, 4095),
        "flags": listed(words("defs-linux.json#SeccompFlag")),
        "architectures": listed(words("defs-linux.json#SeccompArch")),
        "listenerPath": PATH,
        "syscalls": listed(
            thing(
                {
                    "errnoRet": st.integers(0, 4095),
                    "args": listed(
                        thing(
                            {"valueTwo": U64},
                            index=st.integers(0, 5),
                            value=U64,
                            op=words("defs-linux.json#SeccompOperators"),
                        )
                    ),
                },
                names=st.lists(NAME, min_size=1, max_size=2),
                action=words("defs-linux.json#SeccompAction"),
            )
        ),
    },
    defaultAction=words("defs-linux.json#SeccompAction"),
).map(_errors_where_they_can_be)
RLIMIT = st.builds(
    lambda kind, two: {"type": kind, "soft": min(two), "hard": max(two)}, st.sampled_from(RLIMITS), st.tuples(U64, U64)
)
PROCESSES = thing(
    {
        "terminal": st.booleans(),
        "consoleSize": thing({}, height=U16, width=U16),
        "env": ENV,
        "commandLine": TEXT,
        "user": thing(
            {"uid": ID, "gid": ID, "umask": st.integers(0, 0o777), "additionalGids": listed(ID), "username": TEXT}
        ),
        "capabilities": thing(dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), TEXTS)),
        "rlimits": listed(RLIMIT, "type"),
        "apparmorProfile": TEXT,
        "selinuxLabel": TEXT,
        "oomScoreAdj": st.integers(-1000, 1000),
        "noNewPrivileges": st.booleans(),
        "ioPriority": thing(
            {"priority": st.integers(0, 7)},
            **{"class": st.sampled_from(["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"])},
        ),
        "scheduler": thing(
            dict.fromkeys(("runtime", "deadline", "period"), U64)
            | {"nice": st.integers(-20, 19), "priority": st.integers(0, 99)}
            | {"flags": listed(words("defs-linux.json#SchedulerFlag"))},
            policy=words("defs-linux.json#SchedulerPolicy"),
        ),
        "execCPUAffinity": thing({"initial": LIST, "final": LIST}),
    },
    cwd=PATH,
    args=st.lists(TEXT, min_size=1, max_size=3),
)
DEVICE = {"fileMode": st.integers(0, 0o777), "uid": ID, "gid": ID}
LINUXES = thing(
    {
        "devices": listed(
            thing(DEVICE, path=PATH, type=st.sampled_from("cbu"), **NUMBERS)
            | thing(DEVICE | NUMBERS, path=PATH, type=st.just("p"))
        ),
        "netDevices": st.dictionaries(NAME, thing({"name": NAME}), max_size=2),
        "namespaces": listed(thing({"path": PATH}, type=words("defs-linux.json#NamespaceType")), "type"),
        "resources": AVAILABLE,
        "cgroupsPath": TEXT,
        "rootfsPropagation": words("defs-linux.json#RootfsPropagation"),
        "seccomp": SECCOMP,
        "sysctl": MAP,
        "maskedPaths": st.lists(PATH, max_size=2),
        "readonlyPaths": st.lists(PATH, max_size=2),
        "mountLabel": TEXT,
        "intelRdt": thing(
            {
                "closID": NAME,
                "l3CacheSchema": TEXT,
                "memBwSchema": NAME.map("MB:{}".format),
                "schemata": st.lists(NAME, max_size=2),
                "enableMonitoring": st.booleans(),
            }
        ),
        "memoryPolicy": thing(
            {"nodes": LIST, "flags": listed(words("defs-linux.json#MemoryPolicyFlag"))},
            mode=words("defs-linux.json#MemoryPolicyMode"),
        ),
        "personality": thing({"flags": st.just([])}, domain=words("defs-linux.json#PersonalityDomain")),
    }
)
OFFSETS = st.dictionaries(
    st.sampled_from(["monotonic", "boottime"]), thing({"secs": I64, "nanosecs": st.integers(0, 10**9 - 1)})
)


@st.composite
def documents(draw: st.DrawFn) -> Any:
    document = draw(
        thing(
            {
                "process": PROCESSES,
                "hostname": TEXT,
                "domainname": TEXT,
                "mounts": listed(MOUNTS),
                "hooks": thing(dict.fromkeys(KINDS, HOOKS)),
                "annotations": MAP,
                "linux": LINUXES,
            },
            ociVersion=st.sampled_from(["1.0.0", "1.2.1", "1.3.0"]),
            root=thing({"readonly": st.booleans()}, path=KEY),
        )
    )
    linux = document.get("linux", {})
    there = {each["type"]: each for each in linux.get("namespaces", ())}
    if "user" in there:
        linux |= draw(st.sampled_from([{}, {"uidMappings": draw(MAPPINGS), "gidMappings": draw(MAPPINGS)}]))
    if "time" in there and "path" not in there["time"]:
        linux["timeOffsets"] = draw(OFFSETS)
    return document
