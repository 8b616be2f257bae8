"""pause and unpause: everybody in a container's group stands still, and goes on.

What the kernel says is the truth. The record says `paused` before anybody is frozen and until all are thawed, so that
only those containers are looked at, and none is forgotten whoever is killed in between.
"""

from __future__ import annotations

from cloche.engine.database import RUNNING
from cloche.errors import Conflict, Error, Unsupported
from cloche.kernel import freezer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.config import ContainerConfig
    from cloche.engine.containers import Container, Engine


def group(engine: Engine, ident: str, config: ContainerConfig) -> str:
    """Where a container is frozen; "" on a host without a freezer."""
    return freezer.freezer_of(engine.host.cgroups, engine.store.cgroup(ident, config.request.cgroup_parent))


def stands_still(engine: Engine, ident: str, config: ContainerConfig) -> bool:
    """Whether a container that is marked as paused is so."""
    place = group(engine, ident, config)
    return bool(place) and freezer.is_frozen(place)


def pause(engine: Engine, container: Container) -> None:
    """Freeze a running container; returns when everybody stands still. Raises Conflict, Unsupported, Error."""
    what = f"pause container {container.name}"
    if container.status != RUNNING:
        raise Conflict(what, "it is not running", f"start it with: cloche start {container.name}")
    if container.paused:
        raise Conflict(what, "it is already paused")
    place = group(engine, container.id, container.config)
    if not place:
        raise Unsupported(what, "this host has no freezer cgroup controller", "mount it, or boot with cgroup v2")
    mark(engine, container.id, True)
    try:
        freezer.freeze(place)
    except BaseException as error:
        mark(engine, container.id, False)
        if isinstance(error, FileNotFoundError):
            raise Conflict(what, "it is not running any more") from None
        if isinstance(error, OSError):
            raise Error(what, error.errno or 5, "a process of it waits in the kernel; try again") from error
        raise


def unpause(engine: Engine, container: Container) -> None:
    """Let a paused container go on. Raises Conflict, Error."""
    what = f"unpause container {container.name}"
    if not container.paused:
        raise Conflict(what, "it is not paused")
    thaw(engine, container, what)


def thaw(engine: Engine, container: Container, what: str) -> None:
    """The same, whatever it was. Raises Error."""
    try:
        freezer.thaw(group(engine, container.id, container.config))
    except OSError as error:
        raise Error(what, error.errno or 5) from error
    mark(engine, container.id, False)


def mark(engine: Engine, ident: str, paused: bool) -> None:
    """What the record says."""
    engine.db.execute("UPDATE containers SET paused=? WHERE id=?", (paused, ident))
