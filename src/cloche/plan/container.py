"""plan(bundle, host): from what a container shall be to every step of making it. Pure: no I/O, no clock, no chance."""

from __future__ import annotations

from cloche.errors import Invalid
from cloche.plan import cgroups, mounts
from cloche.plan import process as process_acts
from cloche.step.base import Act, Plan, Ref, Step
from cloche.step.cgroup import LimitCgroup
from cloche.step.files import MakeFolder
from cloche.step.hook import RunHook, RunHookInside
from cloche.step.mount import (
    MS_PRIVATE,
    MS_REC,
    AttachTree,
    MakeReadonly,
    Mask,
    MountOverlay,
    OpenTree,
    SetPropagation,
    WriteSysctl,
    mount_options,
)
from cloche.step.namespace import (
    KINDS,
    Clone,
    EnterUserNamespace,
    MakeUserNamespace,
    OpenNamespace,
    RaiseLoopback,
    SetDomainName,
    SetHostName,
    SetNamespace,
    Unshare,
)
from cloche.step.netdevice import MoveLink
from cloche.step.process import (
    CloseOthers,
    Execute,
    HoldDescriptors,
    NewKeyring,
    NewSession,
    OpenTerminal,
    WriteSelf,
)
from cloche.step.root import ChangeRoot, EnterRoot, MoveRoot, OntoCopy, PivotRoot
from cloche.step.rootfs import Overlay
from cloche.step.sync import Await, Gate, Meet, Open, Report, StartBell, WaitForStart
from cloche.value import remembered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.oci.runtime import Process, Spec
    from cloche.plan.bundle import Bundle, Joining
    from cloche.step.host import Host

PIDFD = Ref("pidfd")
TERMINAL = Ref("terminal")
USERNS = Ref("userns")
START = Ref("start")
_READONLY = 1 | 2 | 4 | 8  # MOUNT_ATTR_RDONLY, NOSUID, NODEV, NOEXEC


def _namespaces(spec: Spec) -> tuple[int, dict[str, Act]]:
    """The flags of new namespaces, and the host's step that opens each one that is joined. Raises Invalid."""
    flags = 0
    joined: dict[str, Act] = {}
    seen: set[str] = set()
    for namespace in spec.namespaces:
        kind = namespace.type
        if kind not in KINDS or kind in seen:
            cause = "given twice" if kind in seen else "there is none of this name"
            raise Invalid(f"namespace {kind}", cause, "see namespaces(7)")
        seen.add(kind)
        if namespace.path or namespace.pid:
            path = namespace.path or f"/proc/{namespace.pid}/ns/{KINDS[kind][1]}"
            joined[kind] = Act("host", OpenNamespace(path, Ref("ns." + kind), namespace.pid, namespace.start_time))
        else:
            flags |= KINDS[kind][0]
    return flags, joined


def _in_user_namespace(bundle: Bundle, userns: Ref) -> list[Act]:
    """The root is mounted by the stage, with the host's rights, from layers whose owners are shifted by an id-mapped
    mount.

    The upper directory is not: an overlay works in it as the host's root, who has no id there. Its files carry shifted
    ids.
    """
    spec = bundle.spec
    making = MakeUserNamespace(userns, spec.uid_mappings, spec.gid_mappings or spec.uid_mappings)
    acts: list[Step] = [
        *([making] if userns == USERNS else []),
        Unshare(KINDS["mount"][0]),
        SetPropagation("/", MS_REC | MS_PRIVATE),
    ]
    root = bundle.root
    if isinstance(root, Overlay):
        lower = bundle.mountpoint + "/lower"
        acts += [OpenTree(root.directory, Ref("layers")), AttachTree(Ref("layers"), lower, host=True, idmap=(userns,))]
        data = mounts.overlay_data(root)
        target = bundle.mountpoint + "/root"
        acts.append(MountOverlay(lower, target, data))
    else:
        target = bundle.mountpoint + "/root" if root.mapped else bundle.mountpoint
        shifted = (userns,) if root.mapped else ()
        acts += [OpenTree(root.path, Ref("root"), recursive=True)]
        acts += [AttachTree(Ref("root"), target, propagation=MS_PRIVATE | MS_REC, host=True, idmap=shifted)]
    why = {"AttachTree": "Files of the image shall belong to the container's root, and stay as they are on disk."}
    # the new root has no right to go through the host's directories: it inherits where it is
    acts.append(EnterRoot(target))
    return [Act("stage", step, why.get(type(step).__name__, "")) for step in acts]


def _enter_mapped() -> list[Act]:
    """In a user namespace the mounts that were copied are locked; a copy of the root over itself can be pivoted
    into."""
    return [Act("init", SetPropagation("/", MS_REC | MS_PRIVATE)), Act("init", OntoCopy())]


def _clocks(spec: Spec) -> list[Act]:
    """time_namespaces(7): the offsets are written before anybody is in the namespace."""
    if not spec.time_offsets:
        return []
    lines = "".join(f"{o.clock} {o.seconds} {o.nanoseconds}\n" for o in spec.time_offsets)
    return [
        Act("stage", Unshare(KINDS["time"][0]), "The next process that is cloned will be in it."),
        Act("stage", WriteSelf("/proc/self/timens_offsets", lines), "What its clocks show, against the host's."),
    ]


def _stage(
    spec: Spec, flags: int, joined: dict[str, Act], userns: tuple[Ref, ...], cgroup: tuple[Ref, ...]
) -> list[Act]:
    """Others' namespaces are entered with the host's rights, the user namespace after them."""
    acts = [
        Act("stage", SetNamespace(Ref("ns." + kind), kind))
        for kind in joined
        if kind not in ("user", "mount", "cgroup")
    ]
    acts += [Act("stage", SetNamespace(Ref("ns.mount"), "mount"))] if "mount" in joined else []
    clocks = _clocks(spec)
    acts += clocks
    flags &= ~KINDS["time"][0] if clocks else ~0
    acts += [Act("stage", EnterUserNamespace(ref)) for ref in userns]
    clone = Clone(flags & ~(KINDS["cgroup"][0] | KINDS["user"][0]), cgroup)
    return [
        *acts,
        Act("stage", clone),
        Act("stage", Report("cloned", clone.gives())),
        Act("host", Await("cloned", (Ref("pid", "pid"), PIDFD))),
    ]


def _names(spec: Spec, flags: int) -> list[Act]:
    acts = [Act("init", SetHostName(spec.hostname))] if spec.hostname else []
    acts += [Act("init", SetDomainName(spec.domainname))] if spec.domainname else []
    acts += [Act("init", RaiseLoopback())] if flags & KINDS["network"][0] else []
    return acts


def _seal(spec: Spec) -> list[Act]:
    """After pivot_root: who sees whose mounts, what may only be read, what may not be seen."""
    acts = []
    if wanted := mount_options((spec.rootfs_propagation,)).propagation:
        acts.append(Act("init", SetPropagation("/", wanted), "As asked: who else sees what is mounted in here."))
    for key, value in spec.sysctl:
        if {"", ".", ".."} & set((key if "/" in key else key.replace(".", "/")).split("/")):
            raise Invalid(f"set the kernel parameter {key}", "it leads elsewhere", "such as net.ipv4.ip_forward")
        acts.append(Act("init", WriteSysctl(key, value)))
    if spec.root_readonly:
        acts.append(
            Act(
                "init",
                MakeReadonly("/", whole=True),
                "The image cannot be changed, nor anything be written beside the mounts.",
            )
        )
    return [*acts, *_hidden(spec.readonly_paths, spec.masked_paths)]


@remembered
def _hidden(readonly: tuple[str, ...], masked: tuple[str, ...]) -> tuple[Act, ...]:
    acts = [Act("init", MakeReadonly(path, _READONLY)) for path in readonly]
    return (*acts, *(Act("init", Mask(path)) for path in masked))


def _handover(process: Process, actor: str, console: bool) -> tuple[list[Act], list[Act]]:
    """The terminal; and the report that all is ready, with the host's side of it."""
    opening: list[Act] = []
    passed: tuple[Ref, ...] = ()
    if process.terminal:
        opening = [Act(actor, OpenTerminal(TERMINAL, *process.console_size, console))]
        passed = (TERMINAL,)
    ready = [
        Act(actor, Report("ready", passed)),
        Act("host", Await("ready", passed and (Ref("terminal.host"),))),
        Act("host", Open("go")),
    ]
    return opening, ready


def _check(process: Process) -> None:
    if not process.args or not process.args[0]:
        raise Invalid("execute", "no command specified", "give a command, or use an image that has one")
    if process.cwd[:1] != "/":
        raise Invalid(f"working directory {process.cwd!r}", "it is not an absolute path", "begin it with /")
    for text in (*process.args, *process.env):
        if "\0" in text:
            raise Invalid(f"execute {process.args[0]!r}", "an argument or variable has a NUL byte in it")


def _oom(process: Process) -> list[Act]:
    score = process.oom_score_adj
    return [Act("stage", WriteSelf("/proc/self/oom_score_adj", str(score)))] if score is not None else []


def _enter(bundle: Bundle, flags: int, userns: tuple[Ref, ...]) -> tuple[list[Act], list[Act]]:
    """The root: what the stage does, what init does."""
    if not flags & KINDS["mount"][0]:  # somebody else's mount namespace: nothing is mounted in it
        joined = any(n.type == "mount" for n in bundle.spec.namespaces)
        return [], [Act("init", EnterRoot("/" if joined else bundle.mountpoint))]
    if userns:
        return _in_user_namespace(bundle, userns[0]), _enter_mapped()
    folder = bundle.root.path if not isinstance(bundle.root, Overlay) else ""
    return [Act("stage", OpenTree(folder, Ref("root"), recursive=True))] if folder else [], mounts.enter(bundle)


def _change_root(bundle: Bundle, flags: int) -> list[Act]:
    """From the host's root to the container's, behind the hooks that want to see both."""
    hooks = bundle.spec.hooks
    change = PivotRoot() if bundle.pivot else MoveRoot()
    acts: list[Act] = []
    outside = [*(("prestart", h) for h in hooks.prestart), *(("createRuntime", h) for h in hooks.create_runtime)]
    if outside:
        acts += [
            Act("init", Report("mounted")),
            Act("host", Await("mounted")),
            *(Act("host", RunHook(hook, moment, *bundle.state)) for moment, hook in outside),
            Act("host", Open("hooks")),
            Act("init", Meet("hooks")),
        ]
    acts += [Act("init", RunHookInside(hook, "createContainer", *bundle.state)) for hook in hooks.create_container]
    return [*acts, Act("init", change if flags & KINDS["mount"][0] else ChangeRoot())]


def _begin(bundle: Bundle, passing: list[Act], ready: list[Act], permitted: int) -> list[Act]:
    """From the gate to exec; a created container does all that can fail, and then waits to be started."""
    process, chosen = bundle.spec.process, (bundle.filter, bundle.filter_flags)
    program = Act("init", Execute(process.args, process.env, process.reaper))
    before, after = bundle.state[0].replace('"creating"', '"created"', 1), bundle.state[1]
    hooks = [Act("init", RunHookInside(h, "startContainer", before, after)) for h in bundle.spec.hooks.start_container]
    spec = bundle.spec
    rights = process_acts.rights(process, "init", *chosen, permitted, spec.personality, spec.memory_policy)
    last = [*hooks, *passing, program]
    if bundle.listener:  # whoever creates it waits for the listener, so the filter cannot come any later
        rights += process_acts.closing_door(process, "init", *chosen)
        rights += process_acts.listened(bundle.listener, "init")
    else:
        last = [*process_acts.closing_door(process, "init", *chosen), *last]
    if not bundle.created:
        return [*ready, Act("init", Gate("go")), *rights, *last, Act("host", Await("started"))]
    return [
        *ready,
        Act("init", Meet("go")),
        *rights,
        process_acts.find(process, "init"),
        Act("init", Report("prepared")),
        Act("host", Await("prepared")),
        # the last that can fail: a device that has moved ends with the namespace of a container that was not made
        *(Act("host", MoveLink(device.name, device.inside or device.name)) for device in spec.net_devices),
        Act("init", WaitForStart(START)),
        *last,
    ]


def plan(bundle: Bundle, host: Host) -> Plan:
    """Every step of making this container on this host. Raises Invalid, Unsupported."""
    spec, process = bundle.spec, bundle.spec.process
    _check(process)
    flags, joined = _namespaces(spec)
    userns = (Ref("ns.user"),) if "user" in joined else (USERNS,) if flags & KINDS["user"][0] else ()
    opening, joining, cgroup = cgroups.join(spec.cgroups_path, host, "init", bool(userns))
    own = bool(flags & KINDS["mount"][0])
    trees, mapped, attaching = mounts.mounts(bundle, host, *userns or (USERNS,)) if own else ([], [], [])
    if mapped and not userns:
        raise Invalid("mount with the option idmap", "the container has no user namespace", "--userns auto")
    nodes, making = mounts.devices(spec.devices, bool(userns)) if own else ([], [])
    shifting, entering = _enter(bundle, flags, userns)
    terminal, ready = _handover(process, "init", console=True)
    limiting = cgroups.make(spec, host) if spec.cgroups_path else []
    # no process at all, of cgroup v2: nobody could be cloned into such a group
    late = [act for act in limiting if isinstance(act.step, LimitCgroup) and act.step.forbids_all]
    shared = mounts.others(bundle)
    passed, holding, passing = process_acts.passing(bundle.passed, "init")
    waiting = (START,) if bundle.created else ()
    refs = (*passed, *waiting, *(ref for act in (*joined.values(), *shared) for ref in act.step.gives()))
    if bundle.created:
        holding = [Act("init", HoldDescriptors((*passed, START)))]
    return Plan(
        (
            *(Act("host", step) for step in bundle.network.reserve),
            *(act for act in limiting if act not in late),
            *joined.values(),
            *shared,
            Act("host", StartBell(refs)),
            *_oom(process),
            *opening,
            *(shifting if not userns else ()),
            *trees,
            *nodes,
            *(shifting if userns else ()),
            *mapped,
            *_stage(spec, flags, joined, userns, cgroup),
            *late,
            # while init is at work; not before it is known, for who fails then must be able to end it
            *(Act("host", step) for step in (*bundle.network.shared, *bundle.network.own)),
            *joining,
            *([Act("init", Unshare(KINDS["cgroup"][0]))] if flags & KINDS["cgroup"][0] else ()),
            *([Act("init", SetNamespace(Ref("ns.cgroup"), "cgroup"))] if "cgroup" in joined else ()),
            Act("init", NewSession()),
            *([Act("init", NewKeyring())] if bundle.keyring else ()),
            *entering,
            *attaching,
            *making,
            *terminal,
            *_names(spec, flags),
            *([Act("init", MakeFolder(process.cwd))] if process.cwd != "/" and own else ()),
            *_change_root(bundle, flags),
            *(_seal(spec) if own else ()),
            *holding,
            Act("init", CloseOthers((TERMINAL,) if process.terminal else ())),
            process_acts.look_up(process, "init"),
            *_begin(bundle, passing, ready, host.permitted if not userns else -1),
        )
    )


def _enter_again(root: str) -> list[Act]:
    """The container's root: that of its mount namespace, else what its first process has made its root."""
    if not root:
        return [Act("joiner", EnterRoot("/"), "The container's root, through its mount namespace.")]
    return [Act("joiner", EnterRoot(root)), Act("joiner", ChangeRoot())]


def plan_joining(wanted: Joining, host: Host) -> Plan:
    """Every step of starting a process in a running container. Raises Invalid, Unsupported."""
    process = wanted.process
    _check(process)
    kinds = [n.type for n in wanted.namespaces]
    # the user namespace last: its root has no power over namespaces that are not its own
    kinds.sort(key=lambda kind: kind == "user")
    opened = [
        Act(
            "host", OpenNamespace(f"/proc/{wanted.pid}/ns/{KINDS[k][1]}", Ref("ns." + k), wanted.pid, wanted.start_time)
        )
        for k in kinds
    ]
    opening, joining, cgroup = cgroups.join(wanted.cgroups_path, host, "joiner", "user" in kinds)
    terminal, ready = _handover(process, "joiner", console=False)
    passed, holding, passing = process_acts.passing(wanted.passed, "joiner")
    entering: list[Step] = [
        EnterUserNamespace(Ref("ns.user")) if kind == "user" else SetNamespace(Ref("ns." + kind), kind)
        for kind in kinds
    ]
    clone = Clone(0, cgroup)
    listened = process_acts.listened(wanted.listener, "joiner")
    chosen = wanted.filter, wanted.filter_flags, host.permitted if "user" not in kinds else -1
    return Plan(
        (
            *opened,
            Act("host", StartBell((*passed, *(Ref("ns." + k) for k in kinds)))),
            *_oom(process),
            *opening,
            *(Act("stage", step, "The process shall live in the container's namespaces.") for step in entering),
            Act(
                "stage", clone, "A process that enters a pid namespace stays outside itself; only its children are in."
            ),
            Act("stage", Report("cloned", clone.gives())),
            Act("host", Await("cloned", (Ref("pid", "pid"), PIDFD))),
            *joining,
            Act("joiner", NewSession()),
            *([Act("joiner", NewKeyring())] if wanted.keyring else ()),
            *_enter_again(wanted.root),
            *terminal,
            *holding,
            Act("joiner", CloseOthers((TERMINAL,) if process.terminal else ())),
            process_acts.look_up(process, "joiner"),
            *ready,
            Act("joiner", Meet("go") if listened else Gate("go")),
            *process_acts.rights(process, "joiner", *chosen, wanted.personality, wanted.memory_policy),
            *process_acts.closing_door(process, "joiner", *chosen[:2]),
            *listened,
            *([Act("host", Open("last")), Act("joiner", Gate("last"))] if listened else ()),
            *passing,
            Act("joiner", Execute(process.args, process.env, process.reaper)),
            Act("host", Await("started")),
        )
    )
