"""From a container's settled configuration to a Bundle. Pure: what must be looked up comes as Facts."""

from __future__ import annotations

from cloche.engine.request import SHM_SIZE, bandwidth, bounding, memory_and_swap, mount_options
from cloche.errors import Invalid
from cloche.oci.runtime import (
    Capabilities,
    Device,
    DeviceRate,
    DeviceRule,
    Mount,
    Namespace,
    Process,
    Resources,
    Rlimit,
    Spec,
    User,
)
from cloche.plan.bundle import Bundle, Joining
from cloche.plan.defaults import MASKED, NODES, READONLY
from cloche.step.attachment import Attachment
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.config import ContainerConfig
    from cloche.engine.request import ExecRequest, FileMount, Limits
    from cloche.engine.store import Store
    from cloche.step.rootfs import Folder, Overlay


class Other(Value):
    """A running process whose namespaces are joined: a container's first, by its id."""

    pid: int
    start_time: int
    ipc: str = ""


class Edits(Value):
    """What devices by the Container Device Interface bring. rules: how they may be used."""

    devices: tuple[Device, ...] = ()
    rules: tuple[DeviceRule, ...] = ()
    mounts: tuple[Mount, ...] = ()
    env: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


class Facts(Value):
    """What was looked up for this start: other containers by id, devices of the host, the compiled seccomp filter."""

    others: tuple[tuple[str, Other], ...] = ()
    devices: tuple[Device, ...] = ()
    filter: bytes = b""
    filter_flags: int = 0
    console_size: tuple[int, int] = (0, 0)
    network: Attachment = Attachment()
    rates: tuple[DeviceRate, ...] = ()
    injected: Edits = Edits()


def _capabilities(config: ContainerConfig) -> Capabilities:
    names = bounding(config.request.security)
    return Capabilities(names, names, names)


def process(config: ContainerConfig, facts: Facts) -> Process:
    """The first process."""
    wanted, env = config.request.process, config.env
    if facts.injected.env:
        from cloche.engine.environment import merge

        env = tuple(merge(env, facts.injected.env))
    return Process(
        config.args,
        env,
        config.cwd,
        User(name=config.user, additional_groups=wanted.groups + facts.injected.groups),
        wanted.tty,
        facts.console_size,
        _capabilities(config),
        tuple(Rlimit("RLIMIT_" + u.name.upper(), u.soft, u.hard) for u in wanted.ulimits),
        config.request.security.no_new_privileges,
        wanted.oom_score_adj,
        wanted.init,
    )


def _own_or_host(config: ContainerConfig) -> str:
    return "host" if config.request.network == "host" else ""


def _namespaces(config: ContainerConfig, others: dict[str, Other]) -> tuple[Namespace, ...]:
    wanted = config.request.namespaces
    modes = {
        "user": "" if wanted.user in ("auto", "map") else "host",
        "mount": "",
        "pid": wanted.pid,
        "network": config.request.network if config.request.network[:10] == "container:" else _own_or_host(config),
        "ipc": wanted.ipc,
        "uts": wanted.uts,
        "cgroup": wanted.cgroup,
    }
    if config.request.network == "host" and not wanted.uts:
        modes["uts"] = ""
    found = []
    for kind, mode in modes.items():
        if mode == "host":
            continue
        if mode[:10] == "container:":
            other = others[mode[10:]]
            if kind == "ipc" and other.ipc not in ("shareable", "host"):
                hint = "start it with --ipc shareable"
                raise Invalid(f"join the IPC namespace of {mode[10:]}", "that container does not share it", hint)
            found.append(Namespace(kind, "", other.pid, other.start_time))
        else:
            found.append(Namespace(kind))
    return tuple(found)


def _shm(config: ContainerConfig, others: dict[str, Other]) -> Mount:
    mode = config.request.namespaces.ipc
    if mode == "host":
        return Mount("/dev/shm", "bind", "/dev/shm", ("rbind",))
    if mode[:10] == "container:":
        other = others[mode[10:]]
        return Mount("/dev/shm", "bind", "/dev/shm", ("bind",), other.pid, other.start_time)
    size = config.request.files.shm_size or SHM_SIZE
    return Mount("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777", f"size={size}"))


def _asked(mount: FileMount, config: ContainerConfig, store: Store) -> Mount:
    """A mount of the user's. In a user namespace volumes are mounted id-mapped: they belong to those inside."""
    options = mount_options(mount)
    if mount.kind == "tmpfs":
        return Mount(mount.target, "tmpfs", "tmpfs", options)
    if config.mapping and (mount.kind == "volume" or mount.idmap):
        options = (*options, "ridmap" if "rbind" in options else "idmap")
    if mount.kind == "bind":
        return Mount(mount.target, "bind", mount.source, options)
    return Mount(mount.target, "bind", store.volume(mount.source) + "/_data", options, below=mount.subpath)


def _mounts(
    config: ContainerConfig, store: Store, ident: str, others: dict[str, Other], injected: tuple[Mount, ...]
) -> tuple[Mount, ...]:
    """The kernel's file systems, the files that name the container, then what was asked for, upper paths first."""
    open_ = config.request.security.privileged
    readonly = () if open_ else ("ro",)
    hardened = ("nosuid", "noexec", "nodev")
    sysfs = Mount("/sys", "sysfs", "sysfs", (*hardened, *readonly))
    if config.mapping and (config.request.network == "host" or config.request.network[:10] == "container:"):
        # a user namespace may mount sysfs only where it owns the network namespace
        sysfs = Mount("/sys", "bind", "/sys", ("rbind", "rro", *hardened))
    own = store.container(ident)
    standard = [
        Mount("/proc", "proc", "proc", hardened),
        Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        Mount(
            "/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")
        ),
        sysfs,
        Mount("/sys/fs/cgroup", "cgroup", "cgroup", (*hardened, *readonly)),
        Mount("/dev/mqueue", "mqueue", "mqueue", hardened),
        _shm(config, others),
        *(Mount("/etc/" + name, "bind", f"{own}/{name}", ("bind",)) for name in ("resolv.conf", "hostname", "hosts")),
    ]
    taken = {m.destination.rstrip("/") for m in injected}
    asked = [*(a for a in (_asked(m, config, store) for m in config.mounts) if a.destination not in taken), *injected]
    targets = {m.destination.rstrip("/") for m in asked}
    kept = [m for m in standard if m.destination not in targets]
    return (*kept, *sorted(asked, key=lambda m: m.destination.count("/")))


def _resources(config: ContainerConfig, facts: Facts) -> Resources:
    rules: tuple[DeviceRule, ...] = (DeviceRule(True),)
    if not config.request.security.privileged:
        access = {d.target: d.access for d in config.request.files.devices}
        rules = (
            DeviceRule(False),
            *(
                DeviceRule(True, d.type, d.major, d.minor, access.get(d.path, "rwm"))
                for d in facts.devices
                if d.type in "cb"
            ),
            *facts.injected.rules,
            *config.request.files.device_rules,
        )
    return resources(config.request.resources, rules, facts.rates)


def resources(wanted: Limits, rules: tuple[DeviceRule, ...] = (), rates: tuple[DeviceRate, ...] = ()) -> Resources:
    """The limits as the runtime spec has them. rates: those of `wanted`, with the devices' numbers."""
    quota, period = bandwidth(wanted)
    return Resources(
        wanted.memory or None,
        memory_and_swap(wanted) or None,
        wanted.memory_reservation or None,
        wanted.cpu_shares or None,
        quota,
        period,
        wanted.cpuset_cpus,
        wanted.cpuset_mems,
        wanted.pids or None,
        rules,
        wanted.cpu_rt_period or None,
        wanted.cpu_rt_runtime or None,
        None if wanted.swappiness < 0 else wanted.swappiness,
        wanted.oom_kill_disable,
        wanted.blkio_weight or None,
        rates,
    )


def _sysctls(config: ContainerConfig) -> tuple[tuple[str, str], ...]:
    """Those asked for, behind Docker's own: in a network of its own every user of a container may bind every port, and
    ping (where the kernel can name all groups: not in a user namespace)."""
    request = config.request
    asked = dict(request.security.sysctls)
    if request.network != "host" and request.network[:10] != "container:":
        own = {"net.ipv4.ip_unprivileged_port_start": "0"}
        if not config.mapping:
            own["net.ipv4.ping_group_range"] = "0 2147483647"
        asked = own | asked
    return tuple(asked.items())


def bundle(config: ContainerConfig, root: Overlay | Folder, store: Store, ident: str, facts: Facts) -> Bundle:
    """All that plan() needs. Raises Invalid."""
    request, others = config.request, dict(facts.others)
    privileged = request.security.privileged
    own_uts = request.namespaces.uts != "host" and request.network[:10] != "container:"
    spec = Spec(
        process(config, facts),
        request.files.read_only,
        config.hostname if own_uts else "",
        request.domainname if own_uts else "",
        _mounts(config, store, ident, others, facts.injected.mounts),
        _namespaces(config, others),
        config.mapping,
        config.mapping,
        tuple({d.path: d for d in NODES + facts.devices + facts.injected.devices}.values()),
        _resources(config, facts),
        store.cgroup(ident, request.cgroup_parent),
        _sysctls(config),
        () if privileged else MASKED,
        () if privileged else READONLY,
        annotations=request.annotations,
    )
    return Bundle(
        ident,
        spec,
        root,
        store.run + "/mnt" if config.mapping else store.run + "/mnt/root",
        facts.filter,
        facts.filter_flags,
        facts.network,
    )


def joining(
    config: ContainerConfig, request: ExecRequest, store: Store, ident: str, first: Other, facts: Facts, exec_id: str
) -> Joining:
    """A process beside a container's first."""
    from cloche.engine.environment import merge

    security = config.request.security.replace(privileged=True) if request.privileged else config.request.security
    names = bounding(security)
    env = merge((*config.env, *(("TERM=xterm",) if request.tty else ())), request.env)
    user = User(
        name=request.user or config.user, additional_groups=() if request.user else config.request.process.groups
    )
    new = Process(
        request.command,
        tuple(env),
        request.working_directory or config.cwd,
        user,
        request.tty,
        facts.console_size,
        Capabilities(names, names, names),
        process(config, facts).rlimits,
        config.request.security.no_new_privileges,
        config.request.process.oom_score_adj,
    )
    kinds = tuple(n.type for n in _namespaces(config, {k: v.replace(ipc="shareable") for k, v in facts.others}))
    return Joining(
        exec_id,
        new,
        first.pid,
        first.start_time,
        tuple(Namespace(kind) for kind in kinds),
        store.cgroup(ident, config.request.cgroup_parent),
        b"" if request.privileged else facts.filter,
        0 if request.privileged else facts.filter_flags,
    )
