"""Which groups, with which limits: resources of the spec as files and contents, for cgroups v1 and v2."""

from __future__ import annotations

from cloche.errors import Invalid, Unsupported
from cloche.oci.runtime import DeviceRule
from cloche.step.base import Act, Ref
from cloche.step.cgroup import DelegateCgroup, FilterDevices, JoinCgroup, LimitCgroup, MakeCgroup, OpenForJoining
from cloche.step.devices import v1_line, v2_program
from cloche.step.mount import ATTR_RDONLY, mount_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.oci.runtime import Resources, Spec
    from cloche.plan.blkio import Limit
    from cloche.step.host import Host

_PLACE = "/sys/fs/cgroup"
# the nodes that every container has, ptys, and making any node (opening it is another matter)
ALWAYS = (
    DeviceRule(True, "c", -1, -1, "m"),
    DeviceRule(True, "b", -1, -1, "m"),
    DeviceRule(True, "c", 1, 3),
    DeviceRule(True, "c", 1, 5),
    DeviceRule(True, "c", 1, 7),
    DeviceRule(True, "c", 1, 8),
    DeviceRule(True, "c", 1, 9),
    DeviceRule(True, "c", 5, 0),
    DeviceRule(True, "c", 5, 2),
    DeviceRule(True, "c", 136, -1),
)


def _v1_limits(wanted: Resources) -> list[Limit]:
    """In an order that the kernel takes: memory before memory and swap, a period before what is a part of it."""
    limits: list[Limit] = []

    def add(controller: str, file: str, value: int | str | None) -> None:
        if value not in (None, ""):
            limits.append((controller, ((file, str(value)),)))

    add("memory", "memory.limit_in_bytes", wanted.memory_limit)
    add("memory", "memory.memsw.limit_in_bytes", wanted.memory_swap)
    add("memory", "memory.soft_limit_in_bytes", wanted.memory_reservation)
    add("memory", "memory.swappiness", wanted.swappiness)
    add("memory", "memory.oom_control", 1 if wanted.oom_kill_disable else None)
    add("cpu", "cpu.rt_period_us", wanted.cpu_rt_period)
    add("cpu", "cpu.rt_runtime_us", wanted.cpu_rt_runtime)
    add("cpu", "cpu.shares", wanted.cpu_shares)
    add("cpu", "cpu.cfs_period_us", wanted.cpu_period)
    add("cpu", "cpu.cfs_quota_us", wanted.cpu_quota)
    add("cpuset", "cpuset.cpus", wanted.cpuset_cpus)
    add("cpuset", "cpuset.mems", wanted.cpuset_mems)
    add("cpu", "cpu.cfs_burst_us", wanted.cpu_burst)
    add("cpu", "cpu.idle", wanted.cpu_idle)
    add("pids", "pids.max", "max" if wanted.pids_limit is not None and wanted.pids_limit < 0 else wanted.pids_limit)
    for size, limit in wanted.hugepages:
        add("hugetlb", f"hugetlb.{size}.limit_in_bytes", limit)
    add("net_cls", "net_cls.classid", wanted.network_class)
    for link, priority in wanted.network_priorities:
        add("net_prio", "net_prio.ifpriomap", f"{link} {priority}")
    limits += _rdma(wanted)
    if wanted.unified:
        raise Unsupported("limit the container", f"{wanted.unified[0][0]} is a file of cgroup v2 alone", "see unified")
    if wanted.blkio_weight or wanted.rates or wanted.blkio_leaf_weight:
        from cloche.plan.blkio import v1_block

        limits += v1_block(wanted)
    return limits


def _rdma(wanted: Resources) -> list[Limit]:
    limits: list[Limit] = []
    for each in wanted.rdma:
        parts = (("hca_handle", each.handles), ("hca_object", each.objects))
        text = " ".join(f"{name}={count}" for name, count in parts if count is not None)
        limits.append(("rdma", (("rdma.max", f"{each.device} {text}"),)))
    return limits


def shares_to_weight(shares: int) -> int:
    """cpu.shares (2 to 262144) as cpu.weight (1 to 10000), as the runtime spec's readers convert it."""
    return 1 + ((min(max(shares, 2), 262144) - 2) * 9999) // 262142


def _only_v1(wanted: Resources) -> None:
    for value, what in (
        (wanted.swappiness, "swappiness of one container"),
        (wanted.oom_kill_disable or None, "way to switch off the OOM killer"),
        (wanted.cpu_rt_period, "CPU real-time period"),
        (wanted.cpu_rt_runtime, "CPU real-time runtime"),
        (wanted.network_class, "class of packets"),
        (wanted.network_priorities or None, "priorities of links"),
        (wanted.blkio_leaf_weight, "weight of leaves"),
    ):
        if value is not None:
            raise Unsupported("limit the container", f"cgroup v2 has no {what}", "run without this limit")


def _swap_alone(memory: int | None, both: int) -> int:
    """Of memory and swap together, as version 1 counts; there the kernel refuses what is an error here. Raises
    Invalid."""
    if both < 0:
        return both
    if memory is None or memory < 0:
        raise Invalid(f"limit memory and swap to {both} bytes", "memory alone has no limit", "limit memory too")
    if both < memory:
        raise Invalid(f"limit memory and swap to {both} bytes", f"memory alone may be {memory}")
    return both - memory


def _v2_limits(wanted: Resources) -> list[Limit]:
    _only_v1(wanted)
    found: list[tuple[str, str, str]] = []

    def size(value: int) -> str:
        return "max" if value < 0 else str(value)

    if wanted.memory_limit is not None:
        found.append(("memory", "memory.max", size(wanted.memory_limit)))
    if wanted.memory_swap is not None:
        found.append(("memory", "memory.swap.max", size(_swap_alone(wanted.memory_limit, wanted.memory_swap))))
    if wanted.memory_reservation is not None:
        found.append(("memory", "memory.low", size(wanted.memory_reservation)))
    if wanted.cpu_shares:
        found.append(("cpu", "cpu.weight", str(shares_to_weight(wanted.cpu_shares))))
    if wanted.cpu_period is not None:
        quota = wanted.cpu_quota if wanted.cpu_quota is not None else -1
        found.append(("cpu", "cpu.max", f"{size(quota)} {wanted.cpu_period}"))
    elif wanted.cpu_quota is not None:
        found.append(("cpu", "cpu.max", size(wanted.cpu_quota)))  # the period stays as it is
    if wanted.cpuset_cpus:
        found.append(("cpuset", "cpuset.cpus", wanted.cpuset_cpus))
    if wanted.cpuset_mems:
        found.append(("cpuset", "cpuset.mems", wanted.cpuset_mems))
    if wanted.pids_limit is not None:
        found.append(("pids", "pids.max", size(wanted.pids_limit)))
    if wanted.cpu_burst is not None:
        found.append(("cpu", "cpu.max.burst", str(wanted.cpu_burst)))
    if wanted.cpu_idle is not None:
        found.append(("cpu", "cpu.idle", str(wanted.cpu_idle)))
    found += [("hugetlb", f"hugetlb.{page}.max", str(limit)) for page, limit in wanted.hugepages]
    limits: list[Limit] = [(controller, ((file, content),)) for controller, file, content in found]
    if wanted.blkio_weight or wanted.rates:
        from cloche.plan.blkio import v2_block

        limits += v2_block(wanted)
    # what is named by its file goes last, and so over what the other members mean
    return [*limits, *_rdma(wanted), *((name.partition(".")[0], ((name, text),)) for name, text in wanted.unified)]


def _missing(host: Host, controller: str, file: str, content: str) -> Unsupported:
    return Unsupported(
        f"limit {controller} ({file} = {content})",
        f"this host has no {controller} cgroup controller",
        "run without this limit, or enable the controller (see /proc/cgroups and cgroup.controllers)",
    )


def directories(path: str, host: Host) -> dict[str, str]:
    """The container's directory in each hierarchy, by controller."""
    return {c: h.path + path for h in host.cgroups.hierarchies for c in h.controllers}


def limits(path: str, wanted: Resources, host: Host) -> list[LimitCgroup]:
    """The limits as steps, in an order that a new group takes. Raises Invalid, Unsupported."""
    where = directories(path, host)
    steps = []
    if host.cgroups.version == 2:
        where["cgroup"] = host.cgroups.hierarchies[0].path + path  # files that are of no controller
    for controller, ((file, content), *others) in (_v2_limits if host.cgroups.version == 2 else _v1_limits)(wanted):
        if controller not in where:
            raise _missing(host, controller, file, content)
        if file.startswith("memory.memsw") and not host.swap_accounting:
            continue  # the kernel was started without swap accounting: memory itself is limited, as docker does
        otherwise = tuple((f"{where[controller]}/{name}", text) for name, text in others)
        steps.append(LimitCgroup(f"{where[controller]}/{file}", content, otherwise))
    return steps


def _owner(spec: Spec) -> int | None:
    """Whose the group shall be: the host's id of who runs in it, if he has it as the root of a namespace of its own and
    mounted writable (runtime-spec, config-linux.md, Cgroup ownership). None: it stays root's, as it does when the id
    is not known before the container's root is entered, or the map is that of a namespace that is there already."""
    if not any(n.type == "cgroup" and not n.path and not n.pid for n in spec.namespaces):
        return None
    places = [m for m in spec.mounts if m.type in ("cgroup", "cgroup2") and m.destination.rstrip("/") == _PLACE]
    if not places or mount_options(places[-1].options).set & ATTR_RDONLY:
        return None
    user = spec.process.user
    name = user.name.partition(":")[0]
    if name and not name.isdecimal():
        return None
    uid = int(name) if name else user.uid
    if any(n.type == "user" for n in spec.namespaces):
        found = (m.host + uid - m.container for m in spec.uid_mappings if 0 <= uid - m.container < m.size)
        return next(found, None)
    return uid or None


def make(spec: Spec, host: Host) -> list[Act]:
    """The host's steps: make the groups, write the limits, guard the devices. Raises Invalid, Unsupported."""
    path, wanted = spec.cgroups_path, spec.resources
    unified = host.cgroups.version == 2
    acts = [
        Act(
            "host",
            MakeCgroup(h.path + path, h.path, h.controllers, unified),
            f"Counts and limits: {', '.join(h.controllers)}.",
        )
        for h in host.cgroups.hierarchies
    ]
    owner = _owner(spec) if unified else None  # version 1 cannot be handed on safely
    if owner is not None:
        acts.append(Act("host", DelegateCgroup(host.cgroups.hierarchies[0].path + path, owner)))
    acts += [Act("host", step) for step in limits(path, wanted, host)]
    where = directories(path, host)
    rules = wanted.devices + (ALWAYS if wanted.devices else ())
    if rules and unified:
        acts.append(Act("host", FilterDevices(host.cgroups.hierarchies[0].path + path, v2_program(rules))))
    elif rules and wanted.devices != (DeviceRule(True),):
        if "devices" not in where:
            raise _missing(host, "devices", "devices.allow", v1_line(rules[0]))
        for rule in rules:
            file = "devices.allow" if rule.allow else "devices.deny"
            why = "First nothing is allowed." if v1_line(rule) == "a" else "A device that the container may use."
            acts.append(Act("host", LimitCgroup(f"{where['devices']}/{file}", v1_line(rule)), why))
    return acts


def join(path: str, host: Host, actor: str, userns: bool) -> tuple[list[Act], list[Act], tuple[Ref, ...]]:
    """How the new process gets in: the stage's opening, the process's own joining, and the group that it is cloned
    into."""
    if not path or not host.cgroups.hierarchies:
        return [], [], ()
    if host.cgroups.version == 2 and not userns:
        ref = Ref("cgroup")
        return [Act("stage", OpenForJoining(host.cgroups.hierarchies[0].path + path, ref, directory=True))], [], (ref,)
    opening, joining = [], []
    file = "cgroup.procs" if host.cgroups.version == 2 else "tasks"
    for hierarchy in host.cgroups.hierarchies:
        ref = Ref("cgroup." + ",".join(hierarchy.controllers))
        opening.append(Act("stage", OpenForJoining(f"{hierarchy.path}{path}/{file}", ref)))
        joining.append(Act(actor, JoinCgroup(ref)))
    return opening, joining, ()
