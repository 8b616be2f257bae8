"""plan(bundle, host): from what a container shall be to every step of making it. Pure: no I/O, no clock, no chance."""

from __future__ import annotations

from cloche.errors import Invalid
from cloche.plan import cgroups, mounts
from cloche.plan.process import become, look_up
from cloche.step.base import Act, Plan, Ref, Step
from cloche.step.mount import (
    MS_PRIVATE,
    MS_REC,
    AttachTree,
    EnterRoot,
    MakeFolder,
    MakeReadonly,
    Mask,
    MountOverlay,
    OpenTree,
    PivotRoot,
    SetPropagation,
    WriteSysctl,
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
from cloche.step.process import CloseOthers, NewKeyring, NewSession, OpenTerminal, WriteSelf
from cloche.step.rootfs import Overlay
from cloche.step.sync import Await, Gate, Open, Report, StartBell
from cloche.value import remembered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.oci.runtime import Process, Spec
    from cloche.plan.bundle import Bundle, Joining
    from cloche.step.host import Host

PIDFD = Ref("pidfd")
TERMINAL = Ref("terminal")
USERNS = Ref("userns")
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


def _in_user_namespace(bundle: Bundle) -> tuple[list[Act], Bundle]:
    """The root is mounted by the stage, with the host's rights, from layers whose owners are shifted by an id-mapped
    mount.

    The upper directory is not: an overlay works in it as the host's root, who has no id there. Its files carry shifted
    ids.
    """
    spec = bundle.spec
    acts: list[Step] = [
        MakeUserNamespace(USERNS, spec.uid_mappings, spec.gid_mappings or spec.uid_mappings),
        Unshare(KINDS["mount"][0]),
        SetPropagation("/", MS_REC | MS_PRIVATE),
    ]
    root = bundle.root
    if isinstance(root, Overlay):
        lower = bundle.mountpoint + "/lower"
        acts += [OpenTree(root.directory, Ref("layers")), AttachTree(Ref("layers"), lower, host=True, idmap=(USERNS,))]
        data = mounts.overlay_data(root)
        acts.append(MountOverlay(lower, bundle.mountpoint + "/root", data))
    else:
        acts += [OpenTree(root.path, Ref("root"), recursive=True)]
        acts += [AttachTree(Ref("root"), bundle.mountpoint + "/root", host=True, idmap=(USERNS,))]
    why = {"AttachTree": "Files of the image shall belong to the container's root, and stay as they are on disk."}
    # the new root has no right to go through the host's directories: it inherits where it is
    acts.append(EnterRoot(bundle.mountpoint + "/root"))
    placed = [Act("stage", step, why.get(type(step).__name__, "")) for step in acts]
    return placed, bundle.replace(mountpoint=bundle.mountpoint + "/root")


def _enter_mapped(bundle: Bundle) -> list[Act]:
    """In a user namespace the mounts that were copied are locked; a bind of the root onto itself can be pivoted
    into."""
    ref = Ref("root.again")
    why = "A mount that came from outside a user namespace is locked; a copy of it may become the root."
    return [
        Act("init", SetPropagation("/", MS_REC | MS_PRIVATE)),
        Act("init", OpenTree(".", ref, recursive=True), why),
        Act("init", AttachTree(ref, ".", host=True), why),
        Act("init", EnterRoot("../" + bundle.mountpoint.rsplit("/", 1)[1]), "Up and down again, onto the copy."),
    ]


def _stage(flags: int, joined: dict[str, Act], userns: bool, cgroup: tuple[Ref, ...]) -> list[Act]:
    acts = [Act("stage", EnterUserNamespace(USERNS))] if userns else []
    for kind in joined:
        if kind not in ("user", "mount", "cgroup"):
            acts.append(Act("stage", SetNamespace(Ref("ns." + kind), kind)))
    if "user" in joined:
        acts.append(Act("stage", EnterUserNamespace(Ref("ns.user"))))
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
    """After pivot_root: what may only be read, what may not be seen."""
    acts = [Act("init", WriteSysctl(key, value)) for key, value in spec.sysctl]
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
    """The terminal; and the gate, with the host's side of it."""
    opening: list[Act] = []
    passed: tuple[Ref, ...] = ()
    if process.terminal:
        opening = [Act(actor, OpenTerminal(TERMINAL, *process.console_size, console))]
        passed = (TERMINAL,)
    gate = [
        Act(actor, Report("ready", passed)),
        Act("host", Await("ready", passed and (Ref("terminal.host"),))),
        Act("host", Open("go")),
        Act(actor, Gate("go")),
    ]
    return opening, gate


def _check(process: Process) -> None:
    if not process.args or not process.args[0]:
        raise Invalid("execute", "no command specified", "give a command, or use an image that has one")
    if process.cwd[:1] != "/":
        raise Invalid(f"working directory {process.cwd!r}", "it is not an absolute path", "begin it with /")
    for text in (*process.args, *process.env):
        if "\0" in text:
            raise Invalid(f"execute {process.args[0]!r}", "an argument or variable has a NUL byte in it")


def plan(bundle: Bundle, host: Host) -> Plan:
    """Every step of making this container on this host. Raises Invalid, Unsupported."""
    spec, process = bundle.spec, bundle.spec.process
    _check(process)
    flags, joined = _namespaces(spec)
    userns = bool(flags & KINDS["user"][0])
    opening, joining, cgroup = cgroups.join(spec.cgroups_path, host, "init", userns)
    trees, mapped, attaching = mounts.mounts(bundle, host, USERNS)
    if mapped and not userns:
        raise Invalid("mount with the option idmap", "the container has no user namespace", "--userns auto")
    nodes, making = mounts.devices(spec.devices, userns)
    if userns:
        shifting, bundle = _in_user_namespace(bundle)
        entering = _enter_mapped(bundle)
    else:
        shifting, entering = [], mounts.enter(bundle)
        if not isinstance(bundle.root, Overlay):
            opening.append(Act("stage", OpenTree(bundle.root.path, Ref("root"), recursive=True)))
    terminal, gate = _handover(process, "init", console=True)
    score = process.oom_score_adj
    shared = mounts.others(bundle)
    refs = tuple(ref for act in (*joined.values(), *shared) for ref in act.step.gives())
    return Plan(
        (
            *(Act("host", step) for step in bundle.network.reserve),
            *(cgroups.make(spec.cgroups_path, spec.resources, host) if spec.cgroups_path else ()),
            *joined.values(),
            *shared,
            Act("host", StartBell(refs)),
            *([Act("stage", WriteSelf("/proc/self/oom_score_adj", str(score)))] if score is not None else ()),
            *opening,
            *trees,
            *nodes,
            *shifting,
            *mapped,
            *_stage(flags, joined, userns, cgroup),
            # while init is at work; not before it is known, for who fails then must be able to end it
            *(Act("host", step) for step in (*bundle.network.shared, *bundle.network.own)),
            *joining,
            *([Act("init", Unshare(KINDS["cgroup"][0]))] if flags & KINDS["cgroup"][0] else ()),
            *([Act("init", SetNamespace(Ref("ns.cgroup"), "cgroup"))] if "cgroup" in joined else ()),
            Act("init", NewSession()),
            Act("init", NewKeyring()),
            *entering,
            *attaching,
            *making,
            *terminal,
            *_names(spec, flags),
            *([Act("init", MakeFolder(process.cwd))] if process.cwd != "/" else ()),
            Act("init", PivotRoot()),
            *_seal(spec),
            Act("init", CloseOthers((TERMINAL,) if process.terminal else ())),
            look_up(process, "init"),
            *gate,
            *become(process, "init", bundle.filter, bundle.filter_flags, host.permitted if not userns else -1),
            Act("host", Await("started")),
        )
    )


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
    terminal, gate = _handover(process, "joiner", console=False)
    score = process.oom_score_adj
    entering: list[Step] = [
        EnterUserNamespace(Ref("ns.user")) if kind == "user" else SetNamespace(Ref("ns." + kind), kind)
        for kind in kinds
    ]
    clone = Clone(0, cgroup)
    return Plan(
        (
            *opened,
            Act("host", StartBell(tuple(Ref("ns." + k) for k in kinds))),
            *([Act("stage", WriteSelf("/proc/self/oom_score_adj", str(score)))] if score is not None else ()),
            *opening,
            *(Act("stage", step, "The process shall live in the container's namespaces.") for step in entering),
            Act(
                "stage", clone, "A process that enters a pid namespace stays outside itself; only its children are in."
            ),
            Act("stage", Report("cloned", clone.gives())),
            Act("host", Await("cloned", (Ref("pid", "pid"), PIDFD))),
            *joining,
            Act("joiner", NewSession()),
            Act("joiner", NewKeyring()),
            Act("joiner", EnterRoot("/"), "The container's root, through its mount namespace."),
            *terminal,
            Act("joiner", CloseOthers((TERMINAL,) if process.terminal else ())),
            look_up(process, "joiner"),
            *gate,
            *become(
                process, "joiner", wanted.filter, wanted.filter_flags, host.permitted if "user" not in kinds else -1
            ),
            Act("host", Await("started")),
        )
    )
