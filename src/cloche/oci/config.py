"""config.json of the runtime spec: read, checked by what the document alone can tell, and made a Spec.

Source: runtime-spec 1.0 to 1.3, config.md and config-linux.md. Members that the specification does not know are ignored
as it asks (config.md, Extensibility), and so are those of other platforms. What it knows is refused when it is wrong,
by its path: `process.capabilities.bounding[3]`. A bound that the kernel has is checked here, where the error can name
the member. Not its business: the bundle's files, the host, writing.
"""

from __future__ import annotations

from cloche.oci.document import NUMBER_MAX, NUMBER_MIN, UINT16_MAX, UINT32_MAX, UINT64_MAX, parse_object
from cloche.oci.resources import check_link_name, resources
from cloche.oci.resources import parse_resources as parse_resources
from cloche.oci.runtime import (
    Capabilities,
    CpuAffinity,
    Device,
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
    Rlimit,
    Scheduler,
    Spec,
    TimeOffset,
    User,
)
from cloche.oci.seccomp import parse as parse_seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.oci.document import Object

ID_MAX = UINT32_MAX - 1  # 2^32 - 1 tells setresuid(2) and chown(2) to change nothing
MODE_MAX = 0o7777
UMASK_OF_CALLER = -1  # config.md, User: unspecified, it should not be changed from the calling process'
FILE_TYPES = {"c": 0o020000, "u": 0o020000, "b": 0o060000, "p": 0o010000}  # inode(7); u is a c without a buffer
DEVICES = tuple(FILE_TYPES)
MAJOR_MAX, MINOR_MAX = (1 << 12) - 1, (1 << 20) - 1  # what the kernel keeps of each; the rest would be another device
NANOSECONDS = 1_000_000_000
RLIMIT_INFINITY = UINT64_MAX
LIMITS = "AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK"
RLIMITS = tuple(["RLIMIT_" + name for name in LIMITS.split()])  # getrlimit(2)
NAMESPACES = ("mount", "pid", "network", "uts", "ipc", "user", "cgroup", "time")
POLICIES = tuple(["SCHED_" + name for name in "OTHER FIFO RR BATCH ISO IDLE DEADLINE".split()])
FLAGS = "RESET_ON_FORK RECLAIM DL_OVERRUN KEEP_POLICY KEEP_PARAMS UTIL_CLAMP_MIN UTIL_CLAMP_MAX"
POLICY_FLAGS = tuple(["SCHED_FLAG_" + name for name in FLAGS.split()])
IO_CLASSES = ("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE")
# the specification's four, and their recursive forms that Docker and podman write and every runtime takes
PROPAGATIONS = ("private", "shared", "slave", "unbindable", "rprivate", "rshared", "rslave", "runbindable")
MODES = "DEFAULT BIND INTERLEAVE WEIGHTED_INTERLEAVE PREFERRED PREFERRED_MANY LOCAL"
MEMORY_MODES = tuple(["MPOL_" + name for name in MODES.split()])
MEMORY_FLAGS = ("MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES")


def parse(data: bytes | str) -> Spec:
    """A bundle's config.json. Raises Invalid with the path of the wrong member.

    Without `process` the Spec's has no args: a container may be created so, and not started (config.md, Process).
    """
    document = parse_object(data, "read config.json")
    minor = _minor_version(document)
    root = _needed(document, "root")
    path = root.text("path", None)
    if not path:
        raise root.wrong("path", "it is empty")
    linux = document.part("linux")
    namespaces = _namespaces(linux)
    userns = "user" in namespaces
    uids, gids = _user_mappings(linux, userns)
    return Spec(
        process=_process(document.part("process")) if document.has("process") else Process(()),
        root_path=path,
        root_readonly=root.flag("readonly"),
        hostname=document.text("hostname"),
        domainname=document.text("domainname"),
        mounts=tuple([_mount(each, userns) for each in document.parts("mounts")]),
        namespaces=tuple(namespaces.values()),
        uid_mappings=uids,
        gid_mappings=gids,
        devices=tuple([_device(each) for each in linux.parts("devices")]),
        resources=resources(linux.part("resources"), minor),
        cgroups_path=linux.text("cgroupsPath"),
        sysctl=_pairs(linux, "sysctl"),
        masked_paths=linux.absolutes("maskedPaths"),
        readonly_paths=linux.absolutes("readonlyPaths"),
        rootfs_propagation=linux.choice("rootfsPropagation", PROPAGATIONS),
        annotations=_pairs(document, "annotations"),
        hooks=_hooks(document.part("hooks")),
        seccomp=parse_seccomp(linux.part("seccomp").data, "linux.seccomp") if linux.has("seccomp") else None,
        mount_label=linux.text("mountLabel"),
        time_offsets=_time_offsets(linux, namespaces.get("time")),
        net_devices=tuple(_net_devices(linux)),
        intel_rdt=_intel_rdt(linux.part("intelRdt")) if linux.has("intelRdt") else None,
        memory_policy=_memory_policy(linux.part("memoryPolicy")) if linux.has("memoryPolicy") else None,
        personality=_personality(linux.part("personality")) if linux.has("personality") else "",
    )


def parse_process(data: bytes | str) -> Process:
    """The process of `exec --process`, a document of its own. Raises Invalid with the path of the wrong member."""
    return _process(parse_object(data, "read the process"))


def _minor_version(document: Object) -> int:
    """ociVersion is SemVer 2.0.0; of another major version than 1 nothing is known (config.md, Specification version).

    A later minor version is taken: what it adds are members, and those that are unknown are ignored.
    """
    text = document.text("ociVersion", None)
    core, plus, build = text.partition("+")
    core, dash, release = core.partition("-")
    numbers = core.split(".")
    extras = (release.split(".") if dash else []) + (build.split(".") if plus else [])
    if (
        len(numbers) != 3
        or not all(n.isascii() and n.isdecimal() and len(n) < 10 and (n == "0" or n[0] != "0") for n in numbers)
        or not all(e.isascii() and e.replace("-", "0").isalnum() for e in extras)
    ):
        raise document.wrong("ociVersion", "expected a version such as 1.2.0")
    if numbers[0] != "1":
        raise document.wrong("ociVersion", f"{text[:80]} is not supported, only 1.x.x")
    return int(numbers[1])


def _needed(part: Object, key: str) -> Object:
    if not part.has(key):
        raise part.wrong(key, "it is missing")
    return part.part(key)


def _pairs(part: Object, key: str) -> tuple[tuple[str, str], ...]:
    found = part.pairs(key)
    if any(not name for name, _ in found):
        raise part.wrong(key, "a key is empty")
    return found


def _process(part: Object) -> Process:
    args = part.texts("args")
    if not args:  # config.md: at least one entry is required
        raise part.wrong("args", "it is missing" if not part.has("args") else "it is empty")
    part.text("commandLine")
    capabilities = part.part("capabilities")
    oom = part.optional("oomScoreAdj", -1000, 1000)
    terminal = part.flag("terminal")
    return Process(
        args=args,
        env=_environment(part),
        cwd=part.absolute("cwd", None),
        user=_user(part.part("user")),
        terminal=terminal,
        console_size=_console_size(part, terminal),
        # Names that nobody knows stay: a runtime warns of them and goes on (config.md, Linux Process).
        capabilities=Capabilities(
            capabilities.texts("bounding"),
            capabilities.texts("effective"),
            capabilities.texts("permitted"),
            capabilities.texts("inheritable"),
            capabilities.texts("ambient"),
        ),
        rlimits=_rlimits(part),
        no_new_privileges=part.flag("noNewPrivileges"),
        oom_score_adj=oom,
        apparmor_profile=part.text("apparmorProfile"),
        selinux_label=part.text("selinuxLabel"),
        scheduler=_scheduler(part.part("scheduler")) if part.has("scheduler") else None,
        io_priority=_io_priority(part.part("ioPriority")) if part.has("ioPriority") else None,
        cpu_affinity=_cpu_affinity(part.part("execCPUAffinity")),
    )


def _environment(part: Object) -> tuple[str, ...]:
    """NAME=value each: the specification takes environ's form from POSIX, and runc refuses others."""
    found = part.texts("env")
    for i, each in enumerate(found):
        if each.find("=") < 1:
            raise part.wrong(f"env[{i}]", "expected NAME=value")
    return found


def _user(part: Object) -> User:
    part.text("username")  # Windows' own; here it is numbers that count
    umask = part.optional("umask", 0, 0o777)
    return User(
        part.optional("uid", 0, ID_MAX) or 0,
        part.optional("gid", 0, ID_MAX) or 0,
        UMASK_OF_CALLER if umask is None else umask,
        part.numbers("additionalGids", 0, ID_MAX),
    )


def _console_size(part: Object, terminal: bool) -> tuple[int, int]:
    """Rows and columns. Without a terminal it must be ignored (config.md, Process); its types are looked at all the
    same."""
    if not part.has("consoleSize"):
        return (0, 0)
    size = part.part("consoleSize")
    high = UINT16_MAX if terminal else UINT64_MAX  # struct winsize has 16 bits each
    found = size.bounded("height", 0, high), size.bounded("width", 0, high)
    return found if terminal else (0, 0)


def _rlimits(process: Object) -> tuple[Rlimit, ...]:
    found: dict[str, Rlimit] = {}
    for part in process.parts("rlimits"):
        kind = part.choice("type", RLIMITS, None)
        if kind in found:
            raise part.wrong("type", f"{kind} is there twice")
        soft, hard = part.bounded("soft", 0, UINT64_MAX), part.bounded("hard", 0, UINT64_MAX)
        if soft > hard:
            raise part.wrong("soft", "it is larger than hard")
        found[kind] = Rlimit(kind, -1 if soft == RLIMIT_INFINITY else soft, -1 if hard == RLIMIT_INFINITY else hard)
    return tuple(found.values())


def _scheduler(part: Object) -> Scheduler:
    return Scheduler(
        part.choice("policy", POLICIES, None),
        part.optional("nice", -20, 19) or 0,
        part.optional("priority", 0, 99) or 0,
        part.choices("flags", POLICY_FLAGS),
        part.optional("runtime", 0, UINT64_MAX) or 0,
        part.optional("deadline", 0, UINT64_MAX) or 0,
        part.optional("period", 0, UINT64_MAX) or 0,
    )


def _io_priority(part: Object) -> IOPriority:
    return IOPriority(part.choice("class", IO_CLASSES, None), part.optional("priority", 0, 7) or 0)


def _cpu_affinity(part: Object) -> CpuAffinity:
    return CpuAffinity(_ranges(part, "initial"), _ranges(part, "final"))


def _ranges(part: Object, key: str) -> str:
    """A list of CPUs or nodes such as 0-3,7, without the blanks that the specification's schema allows in it."""
    kept = [each for each in (each.strip(" ") for each in part.text(key).split(",")) if each]
    for each in kept:
        first, dash, last = each.partition("-")
        numbers = (first, last) if dash else (first,)
        if not all(n.isascii() and n.isdecimal() and len(n) < 10 for n in numbers) or int(numbers[-1]) < int(first):
            raise part.wrong(key, "expected a list such as 0-3,7")
    return ",".join(kept)


def _mount(part: Object, userns: bool) -> Mount:
    destination = part.text("destination", None)
    if not destination:
        raise part.wrong("destination", "it is empty")
    options = part.texts("options")
    uids, gids = _both_mappings(part)
    if not uids and not userns:
        for i, each in enumerate(options):
            if each in ("idmap", "ridmap"):
                raise part.wrong(f"options[{i}]", "there are no uidMappings, nor a user namespace that has some")
    return Mount(
        # Relative ones are deprecated, and "MUST be interpreted as relative to /" (config.md, Mounts).
        destination=destination if destination.startswith("/") else "/" + destination,
        type=part.text("type"),
        source=part.text("source"),
        options=options,
        uid_mappings=uids,
        gid_mappings=gids,
    )


def _both_mappings(part: Object) -> tuple[tuple[IdMapping, ...], tuple[IdMapping, ...]]:
    """Of users and of groups: both or none. A mount's must be so (config.md, POSIX-platform Mounts); a container's
    process could have no group otherwise, or no user."""
    uids = tuple([_mapping(each) for each in part.parts("uidMappings")])
    gids = tuple([_mapping(each) for each in part.parts("gidMappings")])
    if bool(uids) != bool(gids):
        missing, there = ("uidMappings", "gidMappings") if gids else ("gidMappings", "uidMappings")
        raise part.wrong(missing, f"it is missing, {there} is there")
    return uids, gids


def _mapping(part: Object) -> IdMapping:
    container, host = part.bounded("containerID", 0, UINT32_MAX), part.bounded("hostID", 0, UINT32_MAX)
    size = part.bounded("size", 1, UINT32_MAX)
    if max(container, host) + size > UINT32_MAX:  # user_namespaces(7): no range may wrap around, nor hold 2^32 - 1
        raise part.wrong("size", "the range has ids beyond the last one")
    return IdMapping(container, host, size)


def _hooks(part: Object) -> Hooks:
    return Hooks(
        *[
            tuple([_hook(each) for each in part.parts(key)])
            for key in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
        ]
    )


def _hook(part: Object) -> Hook:
    timeout = part.optional("timeout", 1, NUMBER_MAX)
    return Hook(part.absolute("path", None), part.texts("args"), _environment(part), timeout)


def _namespaces(linux: Object) -> dict[str, Namespace]:
    found: dict[str, Namespace] = {}
    for part in linux.parts("namespaces"):
        kind = part.choice("type", NAMESPACES, None)
        if kind in found:
            raise part.wrong("type", f"{kind} is there twice")
        found[kind] = Namespace(kind, part.absolute("path"))
    return found


def _user_mappings(linux: Object, userns: bool) -> tuple[tuple[IdMapping, ...], tuple[IdMapping, ...]]:
    uids, gids = _both_mappings(linux)
    if uids and not userns:
        raise linux.wrong("uidMappings", "there is no user namespace in namespaces")
    return uids, gids


def _time_offsets(linux: Object, namespace: Namespace | None) -> tuple[TimeOffset, ...]:
    found = []
    for clock, part in linux.named_parts("timeOffsets"):
        if clock not in ("monotonic", "boottime"):
            raise linux.wrong(f"timeOffsets.{clock}", "time_namespaces(7) has offsets for monotonic and boottime")
        seconds = part.optional("secs", NUMBER_MIN, NUMBER_MAX)
        found.append(TimeOffset(clock, seconds or 0, part.optional("nanosecs", 0, NANOSECONDS - 1) or 0))
    if found and namespace is None:
        raise linux.wrong("timeOffsets", "there is no time namespace in namespaces")
    if found and namespace is not None and namespace.path:
        raise linux.wrong("timeOffsets", "the time namespace has a path: its offsets are set already")
    return tuple(found)


def _device(part: Object) -> Device:
    kind = part.choice("type", DEVICES, None)
    number = part.optional if kind == "p" else part.bounded
    return Device(
        part.absolute("path", None),
        kind,
        number("major", 0, MAJOR_MAX) or 0,
        number("minor", 0, MINOR_MAX) or 0,
        _file_mode(part, kind),
        part.optional("uid", 0, ID_MAX) or 0,
        part.optional("gid", 0, ID_MAX) or 0,
    )


def _file_mode(part: Object, kind: str) -> int:
    """Permissions. The bits of the device's own type may be in it: containerd and podman wrote all of st_mode for
    years."""
    mode = part.optional("fileMode", 0, UINT32_MAX)
    if mode is None:
        return 0o666
    if mode & ~MODE_MAX not in (0, FILE_TYPES[kind]):
        raise part.wrong("fileMode", f"expected permissions, at most {MODE_MAX}, not {mode}")
    return mode & MODE_MAX


def _net_devices(linux: Object) -> Iterator[NetDevice]:
    for name, part in linux.named_parts("netDevices"):
        check_link_name(linux, f"netDevices.{name}", name)
        inside = part.text("name")
        if inside:
            check_link_name(part, "name", inside)
        yield NetDevice(name, inside)


def _intel_rdt(part: Object) -> IntelRdt:
    """The schemata are in the order that they are written in: L3, MB, then those of `schemata` (config-linux.md)."""
    group = part.text("closID")
    if group in (".", "..") or "/" in group:
        raise part.wrong("closID", "expected the name of a directory")
    cache, bandwidth = part.text("l3CacheSchema"), part.text("memBwSchema")
    if part.has("memBwSchema") and (not bandwidth.startswith("MB:") or "\n" in bandwidth):
        raise part.wrong("memBwSchema", "expected one line that begins with MB:")
    lines = [each for each in cache.split("\n") if each and not (bandwidth and each.startswith("MB:"))]
    if bandwidth:
        lines.append(bandwidth)
    schemata = part.texts("schemata")
    for i, each in enumerate(schemata):
        if "\n" in each:
            raise part.wrong(f"schemata[{i}]", "expected one line")
    monitoring = [part.flag(key) for key in ("enableMonitoring", "enableCMT", "enableMBM")]  # the last two until 1.2
    return IntelRdt(group, (*lines, *schemata), any(monitoring))


def _memory_policy(part: Object) -> MemoryPolicy:
    return MemoryPolicy(
        part.choice("mode", MEMORY_MODES, None), _ranges(part, "nodes"), part.choices("flags", MEMORY_FLAGS)
    )


def _personality(part: Object) -> str:
    if part.texts("flags"):
        raise part.wrong("flags", "the specification knows none")
    return part.choice("domain", ("LINUX", "LINUX32"), None)
