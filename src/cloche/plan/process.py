"""The last acts of every new process, behind its gate: limits, rights, filter, program. The same for run and exec."""

from __future__ import annotations

from cloche.errors import Invalid
from cloche.step.base import Act, Ref
from cloche.step.listener import SendListener
from cloche.step.process import (
    RLIMITS,
    ChangeDirectory,
    DropBounding,
    FindProgram,
    ForbidNewPrivileges,
    HandOn,
    HoldDescriptors,
    LoadFilter,
    LookUpUser,
    SetCapabilities,
    SetLimit,
    SetUser,
    mask,
)
from cloche.step.scheduling import SetAffinity, SetIOPriority, SetMemoryPolicy, SetPersonality, SetScheduler
from cloche.step.sync import Await, Meet, Open, Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.oci.runtime import MemoryPolicy, Process
    from cloche.plan.bundle import Listener
    from cloche.step.base import Step

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # bell's, where there is no PATH


def _mask(names: tuple[str, ...], permitted: int) -> int:
    try:
        return mask(names) & permitted
    except KeyError as error:
        raise Invalid(f"capability {error.args[0]}", "there is none of this name", "see capabilities(7)") from None


def look_up(process: Process, actor: str) -> Act:
    """Who the program runs as, found in the container's own files."""
    user = process.user
    return Act(actor, LookUpUser(user.name, user.additional_groups, user.uid, user.gid, user.additional_gids))


def limits(process: Process, actor: str) -> list[Act]:
    """setrlimit(2), one a kind. Raises Invalid for a duplicate or unknown one."""
    acts: list[Act] = []
    seen: set[str] = set()
    for limit in process.rlimits:
        name = limit.type.removeprefix("RLIMIT_")
        if name not in RLIMITS or name in seen:
            cause = "given twice" if name in seen else "there is none of this name"
            raise Invalid(f"resource limit {limit.type}", cause, "see getrlimit(2)")
        seen.add(name)
        acts.append(Act(actor, SetLimit(name, limit.soft, limit.hard, limit.lower)))
    return acts


def scheduling(process: Process, actor: str, personality: str, memory: MemoryPolicy | None) -> list[Act]:
    """When and where it runs, while it still has the host's rights."""
    steps: list[Step] = []
    if process.cpu_affinity.final and actor == "joiner":
        steps.append(SetAffinity(process.cpu_affinity.final))
    if process.scheduler:
        steps.append(SetScheduler(process.scheduler))
    if process.io_priority:
        steps.append(SetIOPriority(process.io_priority))
    if memory:
        steps.append(SetMemoryPolicy(memory))
    if personality:
        steps.append(SetPersonality(personality))
    return [Act(actor, step) for step in steps]


def rights(
    process: Process,
    actor: str,
    program: bytes,
    flags: int,
    permitted: int,
    personality: str = "",
    memory: MemoryPolicy | None = None,
) -> list[Act]:
    """What the process may do. Without no_new_privs the kernel wants CAP_SYS_ADMIN for the filter, so it comes before
    the drop."""
    sets = process.capabilities
    bounding = _mask(sets.bounding, permitted)
    keep = _mask(sets.permitted, permitted), _mask(sets.effective, permitted)
    acts = [*scheduling(process, actor, personality, memory), *limits(process, actor)]
    acts += [Act(actor, LoadFilter(program, flags))] if program and not process.no_new_privileges else []
    return [
        *acts,
        Act(actor, DropBounding(bounding)),
        Act(actor, ChangeDirectory(process.cwd)),
        Act(actor, SetUser(process.user.umask)),
        Act(
            actor,
            SetCapabilities(keep[1], keep[0], _mask(sets.inheritable, permitted), _mask(sets.ambient, permitted)),
        ),
        Act(actor, ChangeDirectory(process.cwd, again=True)),
    ]


def closing_door(process: Process, actor: str, program: bytes, flags: int) -> list[Act]:
    """With no_new_privs the filter is loaded as late as can be: fewer calls of ours have to pass it."""
    if not process.no_new_privileges:
        return []
    return [Act(actor, ForbidNewPrivileges()), *([Act(actor, LoadFilter(program, flags))] if program else [])]


def listened(listener: Listener | None, actor: str) -> list[Act]:
    """Behind a filter that notifies: nothing goes on before its listener is where it belongs."""
    if listener is None:
        return []
    sending = SendListener(listener.path, listener.metadata, *listener.state, listener.pid)
    return [
        Act(actor, Report("filtered")),
        Act("host", Await("filtered")),
        Act("host", sending),
        Act("host", Open("listened")),
        Act(actor, Meet("listened")),
    ]


def find(process: Process, actor: str) -> Act:
    """Whether there is such a program, for whoever only creates the container."""
    path = next((v[5:] for v in reversed(process.env) if v[:5] == "PATH="), DEFAULT_PATH)
    return Act(actor, FindProgram(process.args[0], path))


def passing(count: int, actor: str) -> tuple[tuple[Ref, ...], list[Act], list[Act]]:
    """Descriptors of the caller's: their refs, what holds them open, what makes them the program's."""
    refs = tuple(Ref(f"passed.{number}") for number in range(count))
    return refs, [Act(actor, HoldDescriptors(refs))] if refs else [], [Act(actor, HandOn(refs))] if refs else []
