"""What a user asks of the engine: a container to run, a command to execute in one. Text forms are `notation`'s.

Sizes are bytes; 0, "" and () say "not given". `validation.check()` refuses what cannot be meant, whoever asks.
"""

from __future__ import annotations

from cloche.value import Value

TYPE_CHECKING = False  # importing typing would cost a start 8 ms
if TYPE_CHECKING:
    from cloche.oci.runtime import DeviceRule, IdMapping

PERIOD = 100_000  # microseconds: the kernel's default period of CPU bandwidth
SHM_SIZE = 64 << 20  # of /dev/shm where none is asked for
PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared")
ON_FAILURE = ("none", "kill", "restart", "stop")
RECURSIONS = ("enabled", "writable", "readonly", "disabled")


class Ulimit(Value):
    """A resource limit by its lower-case name (`nofile`); -1 is unlimited."""

    name: str
    soft: int
    hard: int


class Program(Value):
    """The process: what is executed, as whom, with which terminal.

    entrypoint: () drops the image's, None keeps it. env: `K=V`, or `K` for a variable of the image that the container
    shall not have. stop_timeout: seconds; -1 waits for ever.
    """

    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    working_directory: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    interactive: bool = False
    tty: bool = False
    init: bool = False
    stop_signal: str = ""
    stop_timeout: int | None = None
    ulimits: tuple[Ulimit, ...] = ()
    oom_score_adj: int = 0


class DeviceLimit(Value):
    """How fast a block device of the host may be used. kind: `weight` (10 to 1000), `read_bps`, `write_bps` (bytes a
    second), `read_iops`, `write_iops` (operations a second)."""

    kind: str
    path: str
    rate: int


class Limits(Value):
    """Resources. memory_swap: memory and swap together; nano_cpus: billionths of a CPU; -1: any swap, pids, quota.

    Periods, quota and runtime of CPUs: microseconds. blkio_weight: 10 to 1000. swappiness: 0 to 100, -1: not given.
    """

    memory: int = 0
    memory_swap: int = 0
    memory_reservation: int = 0
    nano_cpus: int = 0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    pids: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_rt_period: int = 0
    cpu_rt_runtime: int = 0
    cpuset_mems: str = ""
    swappiness: int = -1
    oom_kill_disable: bool = False
    blkio_weight: int = 0
    rates: tuple[DeviceLimit, ...] = ()


class FileMount(Value):
    """A mount: kind `bind` (source: an absolute path of the host), `volume` (source: its name, "" for a new one that is
    the container's own) or `tmpfs` (size, mode; options of mount(8)).

    propagation: one of PROPAGATIONS. recursion, of a bind: one of RECURSIONS, what happens to mounts below the source.
    idmap, of a bind: in a user namespace, files belong inside to whom they belong outside (volumes' always do).
    copy, of a volume: what the image has at the target fills it when it is empty. subpath: only this part of it.
    labels: of a volume that is made for it. anonymous, origin: the engine's, of settled ones: whether the volume is the
    container's own; `image` for what the image asks for, `container` for what is another one's.
    """

    kind: str
    target: str
    source: str = ""
    read_only: bool = False
    propagation: str = ""
    recursion: str = "enabled"
    size: int = 0
    mode: int | None = None
    options: tuple[str, ...] = ()
    idmap: bool = False
    copy: bool = True
    subpath: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    anonymous: bool = False
    origin: str = ""


class HostDevice(Value):
    """A device of the host at `target` inside; access is made of r, w and m (mknod)."""

    source: str
    target: str
    access: str = "rwm"


class Files(Value):
    """What the container sees beside its image. read_only: its root. shm_size: of /dev/shm.

    volumes_from: containers whose binds and volumes it has too, `NAME` or `NAME:ro`. device_rules: which devices it may
    use beside those that it has; the nodes are its own to make. cdi: devices by full names of the Container Device
    Interface (vendor.com/class=name). gpus: those that Docker's --gpus means: `all`, a number, `device=0`.
    """

    mounts: tuple[FileMount, ...] = ()
    devices: tuple[HostDevice, ...] = ()
    read_only: bool = False
    shm_size: int = 0
    volumes_from: tuple[str, ...] = ()
    device_rules: tuple[DeviceRule, ...] = ()
    cdi: tuple[str, ...] = ()
    gpus: str = ""


class Namespaces(Value):
    """Which namespaces are shared: `host`, `container:ID`; "" is the container's own.

    ipc: also `private`, `shareable`. cgroup: `host` or `private`. user: "" or `host` is the host's, `auto` a range of
    ids of its own, `map` what user_map says.
    """

    pid: str = ""
    ipc: str = ""
    uts: str = ""
    cgroup: str = ""
    user: str = ""
    user_map: tuple[IdMapping, ...] = ()


class PortMapping(Value):
    """A port `inside` that is published on the host. address: of the host, "" for all; port: 0 is any that is free,
    with `last` one from `port` to `last`."""

    inside: int
    protocol: str = "tcp"
    address: str = ""
    port: int = 0
    last: int = 0


class Connection(Value):
    """A network that a container is on, with what it asks for there: addresses, other names, a hardware address."""

    network: str
    ip: str = ""
    ip6: str = ""
    aliases: tuple[str, ...] = ()
    mac: str = ""


class Networking(Value):
    """The network beside its mode. connections: () is the one network that the mode names, with nothing asked for.

    hosts: (name, address) for /etc/hosts, `host-gateway` for the host's address; expose: (port, protocol).
    """

    connections: tuple[Connection, ...] = ()
    ports: tuple[PortMapping, ...] = ()
    publish_all: bool = False
    expose: tuple[tuple[int, str], ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    hosts: tuple[tuple[str, str], ...] = ()


class Security(Value):
    """Rights. seccomp: "" is the default profile, `unconfined` none, else a profile's JSON text."""

    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = False
    seccomp: str = ""
    sysctls: tuple[tuple[str, str], ...] = ()


class Health(Value):
    """A health check. test: () is the image's, ("NONE",) none, else ("CMD", words...) or ("CMD-SHELL", text).

    Durations are nanoseconds; 0 is the image's value, or the default. on_failure: what is done with a container that
    has become unhealthy, one of ON_FAILURE, "" is none.
    """

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0
    on_failure: str = ""


class Logging(Value):
    """How much of the output is kept: `json-file`, `local`, `none`; "" is the configuration file's, or json-file."""

    driver: str = ""
    options: tuple[tuple[str, str], ...] = ()


class RunRequest(Value):
    """A container to create and, mostly, to start. detach to cidfile say how the caller goes along with it.

    restart: `no`, `always`, `unless-stopped`, `on-failure`; restart_tries: of the last, 0 for any number.
    cgroup_parent: the control group that its own is made in, from each hierarchy's root; "": the store's.
    network: `none`, `host`, `container:ID`, or the first of its networks (`bridge` is the default one).
    attach: which of `stdin`, `stdout`, `stderr` a caller in the foreground goes along with; () is all.
    """

    image: str
    process: Program = Program()
    resources: Limits = Limits()
    files: Files = Files()
    namespaces: Namespaces = Namespaces()
    network: str = "bridge"
    security: Security = Security()
    name: str = ""
    hostname: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    remove: bool = False
    detach: bool = False
    detach_keys: str = ""
    sig_proxy: bool = True
    cidfile: str = ""
    networking: Networking = Networking()
    restart: str = "no"
    restart_tries: int = 0
    health: Health = Health()
    domainname: str = ""
    cgroup_parent: str = ""
    log: Logging = Logging()
    attach: tuple[str, ...] = ()

    def attached(self, stream: str) -> bool:
        """Whether the caller goes along with `stdin` (which must be open), `stdout` or `stderr`."""
        if self.detach or (stream == "stdin" and not self.process.interactive):
            return False
        return not self.attach or stream in self.attach


class ExecRequest(Value):
    """A command to execute in a running container."""

    container: str
    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    working_directory: str = ""
    user: str = ""
    interactive: bool = False
    tty: bool = False
    privileged: bool = False
    detach: bool = False
    detach_keys: str = ""


def capability(name: str) -> str:
    """`net_admin` and `CAP_NET_ADMIN` as CAP_NET_ADMIN; `ALL` stays."""
    upper = name.upper()
    return upper if upper == "ALL" or upper[:4] == "CAP_" else "CAP_" + upper


def bounding(security: Security) -> tuple[str, ...]:
    """The capabilities that a container may have: Docker's default without what is dropped, with what is added."""
    from cloche.kernel.capabilities import DEFAULT, NAMES

    if security.privileged:
        return NAMES
    add, drop = (tuple(map(capability, names)) for names in (security.cap_add, security.cap_drop))
    if "ALL" in add:
        return tuple(n for n in NAMES if n not in drop)
    kept = () if "ALL" in drop else tuple(n for n in DEFAULT if n not in drop)
    return tuple(n for n in NAMES if n in kept or n in add)


def bandwidth(limits: Limits) -> tuple[int | None, int | None]:
    """CPU bandwidth as the kernel counts it: (quota, period) in microseconds, None for what is not asked for."""
    if limits.nano_cpus:
        return limits.nano_cpus * PERIOD // 10**9, PERIOD
    return limits.cpu_quota or None, limits.cpu_period or None


def memory_and_swap(limits: Limits) -> int:
    """How much of both together: where it was not said, as much swap as memory (Docker's rule); -1 is unlimited."""
    return limits.memory_swap or limits.memory * 2


def mount_options(mount: FileMount) -> tuple[str, ...]:
    """The options of mount(8) that a mount stands for, those that win last; read-only binds are so all the way down."""
    if mount.kind == "tmpfs":
        size = (f"size={mount.size}",) if mount.size else ()
        mode = () if mount.mode is None else (f"mode={mount.mode:o}",)
        return ("noexec", "nosuid", "nodev", *size, *mode, *mount.options, *(("ro",) if mount.read_only else ()))
    bind = "bind" if mount.kind == "volume" or mount.recursion == "disabled" else "rbind"
    access: tuple[str, ...] = ("rw",)
    if mount.read_only:
        access = ("ro", "rro") if mount.recursion in ("enabled", "readonly") else ("ro",)
    return (bind, *access, mount.propagation or "rprivate")
