"""The runtime spec's config.json as typed values: what a container is, before anything is asked of a kernel.

Names follow the specification (config.md, config-linux.md) in Python's spelling; sizes are bytes, times microseconds.
An empty
string, an empty tuple or None says "not given". Not its business: reading files, defaults of an engine, turning it into
steps.
"""

from __future__ import annotations

from cloche.value import Value


class User(Value):
    """process.user. `name` is Docker's USER[:GROUP], looked up inside the root; the spec's numbers win where it is
    empty."""

    uid: int = 0
    gid: int = 0
    umask: int = 0o022
    additional_gids: tuple[int, ...] = ()
    name: str = ""
    additional_groups: tuple[str, ...] = ()


class Capabilities(Value):
    """process.capabilities: five sets of names such as CAP_KILL."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class Rlimit(Value):
    """process.rlimits[]: `type` as RLIMIT_NOFILE; -1 is infinity. `lower` says that it may be cut to what the host
    allows."""

    type: str
    soft: int
    hard: int
    lower: bool = False


class Process(Value):
    """process: what is executed and with which rights."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: User = User()
    terminal: bool = False
    console_size: tuple[int, int] = (0, 0)  # rows, columns
    capabilities: Capabilities = Capabilities()
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    oom_score_adj: int | None = None
    reaper: bool = False  # a reaper stays PID 1 and the program becomes its child (Docker's --init)


class Mount(Value):
    """mounts[]: options are those of mount(8). `pid` (with its start time): the source is that process's, not the
    host's. below: a path in the source that must not lead out of it."""

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    pid: int = 0
    start_time: int = 0
    below: str = ""


class Namespace(Value):
    """linux.namespaces[]: new where `path` is empty and `pid` 0; else that file's, or that process's (checked by start
    time)."""

    type: str
    path: str = ""
    pid: int = 0
    start_time: int = 0


class IdMapping(Value):
    """linux.uidMappings[]: `size` ids from `container` on are the host's from `host` on."""

    container: int
    host: int
    size: int


class Device(Value):
    """linux.devices[]: a node to make. `type` is c, b, u or p. source: the host's, where it has another path (for a
    user namespace, in which none can be made)."""

    path: str
    type: str
    major: int = 0
    minor: int = 0
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    source: str = ""


class DeviceRule(Value):
    """linux.resources.devices[]: -1 is any number; `type` a is any kind."""

    allow: bool
    type: str = "a"
    major: int = -1
    minor: int = -1
    access: str = "rwm"


class DeviceRate(Value):
    """linux.resources.blockIO: of one device. kind: weight, read_bps, write_bps, read_iops, write_iops."""

    kind: str
    major: int
    minor: int
    rate: int


class Resources(Value):
    """linux.resources, flat: limits in bytes, microseconds, shares; None says that none is asked for, -1
    "unlimited"."""

    memory_limit: int | None = None
    memory_swap: int | None = None  # memory and swap together, as the specification counts
    memory_reservation: int | None = None
    cpu_shares: int | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int | None = None
    devices: tuple[DeviceRule, ...] = ()
    cpu_rt_period: int | None = None
    cpu_rt_runtime: int | None = None
    swappiness: int | None = None
    oom_kill_disable: bool = False
    blkio_weight: int | None = None  # 10 to 1000
    rates: tuple[DeviceRate, ...] = ()


class Spec(Value):
    """config.json: one container."""

    process: Process
    root_readonly: bool = False
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    devices: tuple[Device, ...] = ()
    resources: Resources = Resources()
    cgroups_path: str = ""
    sysctl: tuple[tuple[str, str], ...] = ()
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    rootfs_propagation: str = ""
    annotations: tuple[tuple[str, str], ...] = ()
