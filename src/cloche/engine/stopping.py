"""Signals to a container's first process, by a handle that cannot mean another one; stopping; starting again.

A paused container acts upon nothing before it is thawed: it is, behind the signals that shall end it (Docker's rule).
"""

from __future__ import annotations

import os
import signal

from cloche.engine.database import RESTARTING, RUNNING
from cloche.engine.events import record
from cloche.errors import Conflict, Error, NotFound
from cloche.kernel.pidfd import KILL, open_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.containers import Container, Engine


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


def stop(engine: Engine, container: Container, timeout: int | None = None) -> None:
    """The stop signal, and after `timeout` seconds (-1: never) SIGKILL; returns when it has ended. A stopped one is no
    error."""
    import select

    if container.status == RESTARTING and cancel(engine, container):
        return
    container = engine.find(container.id) if container.status == RESTARTING else container
    if container.status != RUNNING:
        return
    seconds = container.config.stop_timeout if timeout is None else timeout
    try:
        send(engine, container, container.config.stop_signal)
    except Conflict:
        pass
    try:
        pidfd = open_process(container.pid, container.start_time)
    except ProcessLookupError:
        pidfd = -1
    if pidfd >= 0:
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(None if seconds < 0 else seconds * 1000):
                send(engine, container, KILL)
        except Conflict:
            pass
        finally:
            os.close(pidfd)
    settle(engine, container)
    record(engine.db, container.id, "stop")


def want_end(engine: Engine, container: Container) -> None:
    """Somebody asks for its end: no policy makes it again."""
    if container.config.request.restart != "no":
        engine.db.execute("UPDATE containers SET stopped=1 WHERE id=?", (container.id,))


def cancel(engine: Engine, container: Container) -> bool:
    """Make one that is about to be made again not; False when it runs by now."""
    want_end(engine, container)
    answer, _ = engine.keeper.ask({"op": "cancel", "id": container.id})
    return bool(answer["cancelled"])


def kill(engine: Engine, container: Container) -> None:
    """SIGKILL, to its recorded end; one that is about to be made again is not."""
    if container.status == RESTARTING and cancel(engine, container):
        return
    try:
        send(engine, engine.find(container.id), KILL)
    except Conflict:
        pass
    settle(engine, container)


def settle(engine: Engine, container: Container) -> None:
    """Until the end is recorded."""
    try:
        engine.wait(container)
    except NotFound:
        pass  # removed by itself


def restart(engine: Engine, container: Container, timeout: int | None = None) -> None:
    """Stop it if it runs, and start it. One that shall be removed at its end is not at this one.

    Raises the error of the step that was refused.
    """
    if container.status == RUNNING:
        set_removal(engine, container.id, False)
        try:
            stop(engine, container, timeout)
        finally:
            set_removal(engine, container.id, container.remove)
    engine.start(engine.find(container.id))
    record(engine.db, container.id, "restart")


def set_removal(engine: Engine, ident: str, remove: bool) -> None:
    """Whether it is removed when it ends; read by the keeper at that moment."""
    engine.db.execute("UPDATE containers SET remove=? WHERE id=?", (remove, ident))
