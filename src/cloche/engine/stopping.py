"""Signals to a container's first process, by a handle that cannot mean another one; stopping; starting again.

A paused container acts upon nothing before it is thawed: it is, behind the signals that shall end it (Docker's rule).
"""

from __future__ import annotations

import os
import signal

from cloche.engine.courses import Wait, ending
from cloche.engine.database import RESTARTING, RUNNING
from cloche.engine.events import record
from cloche.errors import Conflict, Error, NotFound
from cloche.kernel.pidfd import KILL, open_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.containers import Container, Engine
    from cloche.engine.courses import Course


_MOMENT = 0.05  # seconds in which one that is being made again runs, or one that was killed is recorded


def send(engine: Engine, container: Container, number: int) -> None:
    """Send a signal to its first process. Raises Conflict when it does not run, Error."""
    what = f"kill container {container.name}"
    if container.status != RUNNING:
        raise Conflict(what, "it is not running")
    want_end(engine, container)
    try:
        pidfd = open_process(container.pid, container.start_time)
        try:
            signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)
    except ProcessLookupError:
        raise Conflict(what, "it is not running") from None
    except OSError as error:
        raise Error(what, error.errno or 5) from error
    record(engine.db, container.id, "kill", signal=str(number))
    if number in (KILL, container.config.stop_signal) and _is_marked(engine, container.id):
        from cloche.engine.pausing import thaw

        thaw(engine, container, what)


def _is_marked(engine: Engine, ident: str) -> bool:
    """Whether it may be paused; asked after the signal, for somebody may have paused it since it was found."""
    row = engine.db.execute("SELECT paused FROM containers WHERE id=?", (ident,)).fetchone()
    return row is not None and bool(row["paused"])


def stopping(engine: Engine, container: Container, timeout: int | None = None) -> Course[None]:
    """The stop signal, and after `timeout` seconds (-1: never) SIGKILL, to its recorded end. A stopped one is no
    error."""
    if container.status not in (RUNNING, RESTARTING):
        return
    seconds = container.config.stop_timeout if timeout is None else timeout
    if not (yield from _reaching(engine, container, container.config.stop_signal)):
        return
    ready = yield Wait(end=container.id, seconds=None if seconds < 0 else seconds)
    if ready.ended is None:
        yield from killing(engine, container)
    record(engine.db, container.id, "stop")


def want_end(engine: Engine, container: Container) -> None:
    """Somebody asks for its end: no policy makes it again."""
    if container.config.comes_back or container.config.health.on_failure:
        engine.db.execute("UPDATE containers SET stopped=1 WHERE id=?", (container.id,))


def cancel(engine: Engine, container: Container) -> bool:
    """Make one that is about to be made again not; False when it runs by now."""
    want_end(engine, container)
    answer, _ = engine.keeper.ask({"op": "cancel", "id": container.id})
    return bool(answer["cancelled"])


def killing(engine: Engine, container: Container) -> Course[None]:
    """SIGKILL, to its recorded end; one that is about to be made again is not."""
    if (yield from _reaching(engine, container, KILL)):
        yield from _settling(engine, container)


def _reaching(engine: Engine, container: Container, number: int) -> Course[bool]:
    """Send a signal that shall be its last; False when it has ended without. One that a policy makes again at this very
    moment is neither there to be sent a signal nor to be cancelled: it is, a moment later."""
    while True:
        try:
            found = engine.find(container.id)
            if found.status == RESTARTING and cancel(engine, found):
                return False
            if found.status not in (RUNNING, RESTARTING):
                return False
            send(engine, found, number)
            return True
        except Conflict:
            pass
        except NotFound:
            return False  # removed by itself
        ready = yield Wait(end=container.id, seconds=_MOMENT)
        if ready.ended is not None:
            return False


def _settling(engine: Engine, container: Container) -> Course[None]:
    """Until the end is recorded."""
    try:
        yield from ending(engine, container)
    except NotFound:
        pass  # removed by itself


def restarting(engine: Engine, container: Container, timeout: int | None = None) -> Course[None]:
    """Stop it if it runs, and start it. One that shall be removed at its end is not at this one.

    Raises the error of the step that was refused.
    """
    if container.status == RUNNING:
        set_removal(engine, container.id, False)
        try:
            yield from stopping(engine, container, timeout)
        finally:
            set_removal(engine, container.id, container.remove)
    engine.start(engine.find(container.id))
    record(engine.db, container.id, "restart")


def set_removal(engine: Engine, ident: str, remove: bool) -> None:
    """Whether it is removed when it ends; read by the keeper at that moment."""
    engine.db.execute("UPDATE containers SET remove=? WHERE id=?", (remove, ident))
