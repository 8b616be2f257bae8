"""update: other limits for a container, live and for its next start. All of them are changed, or none.

The plan's own steps write them; what was there before is written back when one is refused, or cannot be recorded.
"""

from __future__ import annotations

from errno import EBUSY, ENOENT

from cloche.engine import config as configs
from cloche.engine.bundle import resources
from cloche.engine.database import RESTARTING, RUNNING
from cloche.engine.events import record
from cloche.engine.facts import check_limits as check_machine
from cloche.engine.limits import check as check_limits
from cloche.engine.request import memory_and_swap
from cloche.engine.sqlite import sqlite3
from cloche.engine.validation import check_restart
from cloche.errors import Conflict, Error, Invalid
from cloche.plan.cgroups import limits as limit_steps
from cloche.runtime.limits import Refused, change, restore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.containers import Container, Engine
    from cloche.engine.request import Limits


def merged(present: Limits, wanted: Limits) -> Limits:
    """The limits of both, where `wanted` says something. Raises Invalid, in Docker's words."""
    nothing = type(wanted)().fields()
    given = {name: value for name, value in wanted.fields().items() if value != nothing[name]}
    if wanted.nano_cpus:  # one way of saying it takes the place of the other
        given |= {"cpu_period": 0, "cpu_quota": 0}
    elif wanted.cpu_period or wanted.cpu_quota:
        given["nano_cpus"] = 0
    if not given:
        raise Invalid("update a container", "no limit is given", "see cloche update --help")
    swap = memory_and_swap(present)  # decided when the container was made: more memory is no more swap
    made = present.replace(**{"memory_swap": swap, **given})
    if 0 < swap < made.memory and not wanted.memory_swap:
        cause = (
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
        raise Invalid(f"limit memory to {made.memory} bytes", cause, "add --memory-swap")
    check_limits(made)
    return made


def update(engine: Engine, container: Container, wanted: Limits, policy: tuple[str, int] | None = None) -> None:
    """Change what `wanted` gives, and the restart policy with its number of tries.

    Raises Invalid, Unsupported, Conflict, Error: then all is as it was.
    """
    config = container.config
    request = config.request
    if policy:
        request = request.replace(restart=policy[0], restart_tries=policy[1])
        check_restart(request)
    made = request.resources
    if not policy or wanted != type(wanted)():
        made = merged(made, wanted)
    check_machine(made, engine.host)
    changed = made.replace(
        **{name: value for name, value in type(made)().fields().items() if not _is_new(name, wanted)}
    )
    steps = limit_steps(
        engine.store.cgroup(container.id, config.request.cgroup_parent), resources(changed), engine.host
    )
    what = f"update container {container.name}"
    try:
        before = change(steps) if container.status == RUNNING else []
    except Refused as error:
        if error.errno == ENOENT:
            raise Conflict(what, "it is not running any more", "try again") from None
        hint = "it uses more than that now" if error.errno == EBUSY else ""
        raise Error(f"{what}: {error.step.name()}", error.errno or 5, hint) from error
    try:
        _store(engine, container, configs.dump(config.replace(request=request.replace(resources=made))))
    except BaseException:
        restore(before)
        raise
    if policy and container.status in (RUNNING, RESTARTING):
        engine.keeper.ask({"op": "policy", "id": container.id, "restart": list(policy)})


def _is_new(name: str, wanted: Limits) -> bool:
    """Memory and swap are written together: one limits the other."""
    if name in ("memory", "memory_swap"):
        return bool(wanted.memory or wanted.memory_swap)
    if name in ("cpu_period", "cpu_quota"):
        return bool(wanted.cpu_period or wanted.cpu_quota)
    return bool(getattr(wanted, name) != getattr(type(wanted)(), name))


def _store(engine: Engine, container: Container, text: str) -> None:
    what = f"update container {container.name}"
    before = configs.dump(container.config)
    try:
        done = engine.db.execute("UPDATE containers SET config=? WHERE id=? AND config=?", (text, container.id, before))
    except sqlite3.Error as error:
        raise Error(what, str(error), "is the disk full?") from error
    if done.rowcount:
        record(engine.db, container.id, "update")
    else:
        raise Conflict(what, "it was changed or removed meanwhile", "try again")
