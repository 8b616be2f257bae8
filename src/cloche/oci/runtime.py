"""The runtime spec's config.json as typed values: what a container is, before anything is asked of a kernel.

Names follow the specification (config.md, config-linux.md) in Python's spelling; sizes are bytes, times microseconds.
An empty
string, an empty tuple or None says "not given". Not its business: reading files, defaults of an engine, turning it into
steps.
"""

from __future__ import annotations

from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.oci.seccomp import Seccomp


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


class Scheduler(Value):
    """process.scheduler, sched_setattr(2): policy as SCHED_FIFO, flags as SCHED_FLAG_RECLAIM, times in nanoseconds."""

    policy: str
    nice: int = 0
    priority: int = 0
    flags: tuple[str, ...] = ()
    runtime: int = 0
    deadline: int = 0
    period: int = 0


class IOPriority(Value):
    """process.ioPriority, ioprio_set(2): kind as IOPRIO_CLASS_BE, priority 0 to 7."""

    kind: str
    priority: int = 0


class CpuAffinity(Value):
    """process.execCPUAffinity: lists of CPUs, `0-3,7`, for an exec before and after it is in the container's cpuset."""

    initial: str = ""
    final: str = ""


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
    apparmor_profile: str = ""
    selinux_label: str = ""
    scheduler: Scheduler | None = None
    io_priority: IOPriority | None = None
    cpu_affinity: CpuAffinity = CpuAffinity()


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
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()


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
    """linux.resources.blockIO: of one device. kind: weight, leaf_weight, read_bps, write_bps, read_iops, write_iops."""

    kind: str
    major: int
    minor: int
    rate: int


class Rdma(Value):
    """linux.resources.rdma: of one device; None says that none is asked for."""

    device: str
    handles: int | None = None
    objects: int | None = None


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
    blkio_leaf_weight: int | None = None
    kernel_memory: int | None = None
    kernel_memory_tcp: int | None = None
    check_before_update: bool = False  # refuse a memory limit below what is in use
    cpu_burst: int | None = None
    cpu_idle: int | None = None
    hugepages: tuple[tuple[str, int], ...] = ()  # size as 2MB, limit in bytes
    network_class: int | None = None
    network_priorities: tuple[tuple[str, int], ...] = ()  # interface, priority
    rdma: tuple[Rdma, ...] = ()
    unified: tuple[tuple[str, str], ...] = ()  # files of cgroup v2 and what is written to them


class TimeOffset(Value):
    """linux.timeOffsets: clock is monotonic or boottime."""

    clock: str
    seconds: int = 0
    nanoseconds: int = 0


class NetDevice(Value):
    """linux.netDevices: a link of the host's that moves into the container; `inside` is its name there."""

    name: str
    inside: str = ""


class IntelRdt(Value):
    """linux.intelRdt: a resctrl group; schemata are its lines."""

    clos_id: str = ""
    schemata: tuple[str, ...] = ()
    monitoring: bool = False


class MemoryPolicy(Value):
    """linux.memoryPolicy, set_mempolicy(2): mode as MPOL_BIND, nodes as 0-1, flags as MPOL_F_STATIC_NODES."""

    mode: str
    nodes: str = ""
    flags: tuple[str, ...] = ()


class Hook(Value):
    """hooks.*[]: timeout in seconds, None for ever."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


class Hooks(Value):
    """hooks: what else is executed, in the order of a container's life (config.md, POSIX-platform Hooks)."""

    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


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
    root_path: str = ""  # as the document says, relative to the bundle or absolute
    hooks: Hooks = Hooks()
    seccomp: Seccomp | None = None
    mount_label: str = ""
    time_offsets: tuple[TimeOffset, ...] = ()
    net_devices: tuple[NetDevice, ...] = ()
    intel_rdt: IntelRdt | None = None
    memory_policy: MemoryPolicy | None = None
    personality: str = ""  # LINUX or LINUX32
