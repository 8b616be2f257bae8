"""The last acts of every new process, behind its gate: limits, rights, filter, program. The same for run and exec."""

from __future__ import annotations

from cloche.errors import Invalid
from cloche.step.base import Act
from cloche.step.process import (
    RLIMITS,
    ChangeDirectory,
    DropBounding,
    Execute,
    ForbidNewPrivileges,
    LoadFilter,
    LookUpUser,
    SetCapabilities,
    SetLimit,
    SetUser,
    mask,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.oci.runtime import Process


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


def become(process: Process, actor: str, program: bytes, flags: int, permitted: int) -> list[Act]:
    """From the gate to exec. Without no_new_privs the kernel wants CAP_SYS_ADMIN for the filter, so it comes before the
    drop."""
    sets = process.capabilities
    bounding = _mask(sets.bounding, permitted)
    keep = _mask(sets.permitted, permitted), _mask(sets.effective, permitted)
    filters = [Act(actor, LoadFilter(program, flags))] if program else []
    acts = limits(process, actor)
    acts += [] if process.no_new_privileges else filters
    acts += [
        Act(actor, DropBounding(bounding)),
        Act(actor, ChangeDirectory(process.cwd)),
        Act(actor, SetUser(process.user.umask)),
        Act(
            actor,
            SetCapabilities(keep[1], keep[0], _mask(sets.inheritable, permitted), _mask(sets.ambient, permitted)),
        ),
        Act(actor, ChangeDirectory(process.cwd, again=True)),
    ]
    if process.no_new_privileges:
        acts += [Act(actor, ForbidNewPrivileges()), *filters]
    return [*acts, Act(actor, Execute(process.args, process.env, process.reaper))]
