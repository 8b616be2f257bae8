"""The flat form of a plan: what bell reads. One table, made from the step classes, is bounds-checked on both sides.

    header   u32 magic, u32 version, u32 acts, u32 size of everything
    act      u16 op, u16 actor, u16 number of the step, u16 integers, u32 strings, u32 size of this act
             i64 integers...   { u32 length, bytes, NUL } strings...

All in the machine's byte order. Refs become slots of bell's descriptor table; the first slots are the descriptors that
StartBell passes, in its order.
"""

from __future__ import annotations

from struct import pack

from cloche.step import cgroup, files, hook, mount, namespace, process, root, scheduling, sync

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.step.base import Plan, Ref, Step

MAGIC = 0x6C6C6562  # "bell"
VERSION = 3
ACTORS = {"stage": 1, "init": 2, "joiner": 2}
SLOTS = 240  # of the descriptors in one message the kernel takes 253 (SCM_MAX_FD)
_MANY = 1 << 20
_KEPT = 1024

# op, by its place from 1 on: (class, integers, fewest strings, most strings)
TABLE: tuple[tuple[type[Step], int, int, int], ...] = (
    (sync.Report, 1, 1, 1),
    (sync.Gate, 0, 1, 1),
    (cgroup.OpenForJoining, 2, 1, 1),
    (cgroup.JoinCgroup, 1, 1, 1),
    (namespace.SetNamespace, 2, 0, 0),
    (namespace.MakeUserNamespace, 1, 2, 2),
    (namespace.EnterUserNamespace, 2, 0, 0),
    (namespace.Clone, 3, 0, 0),
    (namespace.Unshare, 1, 0, 0),
    (namespace.SetHostName, 0, 1, 1),
    (namespace.SetDomainName, 0, 1, 1),
    (namespace.RaiseLoopback, 0, 0, 0),
    (mount.SetPropagation, 1, 1, 1),
    (mount.MountOverlay, 0, 3, 3),
    (mount.OpenTree, 3, 1, 2),
    (mount.AttachTree, 7, 1, 1),
    (root.EnterRoot, 0, 1, 1),
    (mount.MountFilesystem, 2, 3, 64),
    (files.MakeNode, 5, 1, 1),
    (files.MakeLink, 0, 2, 2),
    (files.MakeFolder, 0, 1, 1),
    (root.PivotRoot, 0, 0, 0),
    (mount.Mask, 0, 1, 1),
    (mount.MakeReadonly, 2, 1, 1),
    (mount.WriteSysctl, 0, 2, 2),
    (process.NewSession, 0, 0, 0),
    (process.NewKeyring, 0, 0, 1),  # earlier plans named it
    (process.WriteSelf, 0, 2, 2),
    (process.OpenTerminal, 4, 0, 0),
    (process.CloseOthers, 1, 0, 0),
    (process.LookUpUser, 2, 1, 1 << 10),
    (process.SetUser, 1, 0, 0),
    (process.DropBounding, 1, 0, 0),
    (process.SetCapabilities, 4, 0, 0),
    (process.ForbidNewPrivileges, 0, 0, 0),
    (process.LoadFilter, 1, 1, 1),
    (process.SetLimit, 4, 0, 0),
    (process.ChangeDirectory, 1, 1, 1),
    (process.Execute, 3, 1, _MANY),
    (sync.Meet, 0, 1, 1),
    (sync.WaitForStart, 1, 0, 0),
    (hook.RunHookInside, 2, 4, _MANY),
    (process.FindProgram, 0, 2, 2),
    (process.HoldDescriptors, 0, 1, 1),
    (process.HandOn, 2, 0, 0),
    (root.OntoCopy, 0, 0, 0),
    (root.MoveRoot, 0, 0, 0),
    (mount.ChangeTree, 5, 0, 0),
    (mount.ChangeMount, 3, 1, 1),
    (files.OpenInside, 1, 1, 1),
    (files.CopyUp, 1, 1, 1),
    (scheduling.SetScheduler, 7, 0, 0),
    (scheduling.SetIOPriority, 1, 0, 0),
    (scheduling.SetAffinity, 0, 1, 1),
    (scheduling.SetMemoryPolicy, 1, 1, 1),
    (scheduling.SetPersonality, 1, 0, 0),
    (root.ChangeRoot, 0, 0, 0),
)
OPS = {kind.op: number for number, (kind, *_) in enumerate(TABLE, 1)}


def descriptors(plan: Plan) -> tuple[Ref, ...]:
    """The refs that the host passes to bell when it starts it."""
    return next((act.step.descriptors for act in plan.acts if isinstance(act.step, sync.StartBell)), ())


_packed: dict[int, tuple[Step, int, int, int, bytes]] = {}  # by identity: of steps that come again, see `remembered`


def _pack(step: Step, slot: Callable[[Ref], int]) -> tuple[int, int, int, bytes]:
    """Operation, numbers of integers and strings, both as bytes. What depends on no slot is kept."""
    integers, strings = step.flat(slot)
    body = pack(f"={len(integers)}q", *integers) + b"".join(pack("=I", len(s)) + s + b"\0" for s in strings)
    packed = OPS[step.op], len(integers), len(strings), body
    if not step.needs() and not step.gives():
        if len(_packed) >= _KEPT:
            _packed.clear()
        _packed[id(step)] = (step, *packed)
    return packed


def flatten(plan: Plan) -> bytes:
    """The acts of stage, init and joiner as bell reads them. Raises KeyError for a ref that nobody gives."""
    slots = {ref: number for number, ref in enumerate(descriptors(plan))}
    for act in plan.acts:
        if act.actor != "host":
            for ref in act.step.gives():
                if ref.kind == "fd":
                    slots.setdefault(ref, len(slots))
    if len(slots) > SLOTS:
        raise OverflowError(f"{len(slots)} descriptors in a plan; bell has {SLOTS} slots")
    acts = []
    for number, act in enumerate(plan.acts, 1):
        if act.actor == "host":
            continue
        step = act.step
        kept = _packed.get(id(step))
        op, integers, strings, body = kept[1:] if kept else _pack(step, slots.__getitem__)
        acts.append(pack("=4H2I", op, ACTORS[act.actor], number, integers, strings, 16 + len(body)) + body)
    everything = b"".join(acts)
    return pack("=4I", MAGIC, VERSION, len(acts), 16 + len(everything)) + everything
