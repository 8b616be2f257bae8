"""exec: a process beside a container's first, in its namespaces, control groups and root, with its limits and
filter."""

from __future__ import annotations

import os

from cloche.engine.bundle import Other, joining
from cloche.engine.facts import gather
from cloche.engine.validation import check_exec
from cloche.errors import Conflict, Error
from cloche.kernel.cgroups import habitable
from cloche.kernel.pidfd import KILL, open_process, send_signal
from cloche.kernel.processes import lives, start_time
from cloche.plan import plan_joining
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.client import Keeper
    from cloche.engine.containers import Container, Engine
    from cloche.engine.courses import Course
    from cloche.engine.request import ExecRequest


class Exec(Value):
    """A process that was started in a container: its id, and descriptors to talk to it by name (master | input out
    err)."""

    id: str
    container: Container
    pid: int
    fds: dict[str, int]


def execute(
    engine: Engine,
    container: Container,
    request: ExecRequest,
    console: tuple[int, int] = (0, 0),
    keeper: Keeper | None = None,
) -> Exec:
    """Start it; returns when its program has been executed. keeper: the connection by which we are attached to it, if
    it shall not be the engine's. Raises the error of the step that was refused, Conflict."""
    from cloche.step.flat import flatten
    from cloche.step.stored import dump, stored

    request = check_exec(request)
    if container.paused:
        raise Conflict(f"execute in container {container.name}", "it is paused", "unpause it before: cloche unpause")
    ident = os.urandom(32).hex()
    facts = gather(container.config, engine.store, engine.host, engine.other, console)
    first = Other(container.pid, container.start_time)
    wanted = joining(container.config, request, engine.store, container.id, first, facts, ident)
    group = habitable(engine.host.cgroups, wanted.cgroups_path, container.pid)
    made = plan_joining(wanted.replace(cgroups_path=group), engine.host)
    notes = {
        "tty": request.tty,
        "stdin": request.interactive,
        "stdin_once": True,
        "detached": request.detach,
        "command": " ".join(request.command),
    }
    content = dump(stored(made, flatten(made), notes))
    answer, fds = (keeper or engine.keeper).ask({"op": "exec", "id": ident, "container": container.id}, content)
    if "failure" in answer:
        if not lives(container.pid, container.start_time):
            raise Conflict(f"execute in container {container.name}", "it is not running any more")
        from cloche.runtime.bell import Failure
        from cloche.runtime.execution import explain

        raise explain(made, Failure(*answer["failure"]))
    return Exec(ident, container, answer["pid"], dict(zip(answer["fds"], fds, strict=True)))


def running(
    engine: Engine, container: Container, request: ExecRequest, input: bytes | None = None
) -> Course[tuple[int, bytes, bytes]]:
    """Execute to the end: exit code, stdout, stderr. What it does not read of `input` while it writes does not block
    it. One whose caller is interrupted is killed."""
    from cloche.engine.client import Keeper
    from cloche.engine.courses import Wait
    from cloche.engine.pipes import Pipes, write_some
    from cloche.engine.waiting import Waiting

    keeper = Keeper(engine.store)  # by which we are attached to it, and hear of nothing but its end
    try:
        made = execute(engine, container, request, keeper=keeper)
        fds = made.fds
        if "out" not in fds:  # it had ended before a second keeper was asked for it
            raise Error(f"execute in container {container.name}", "the keeper was killed: what it wrote is lost")
        out: dict[int, list[bytes]] = {1: [], 2: []}
        handle, typing = _handle(made.pid), fds.pop("input", -1)
        pipes, ending = Pipes({1: fds["out"], 2: fds["err"]}), Waiting(keeper, made.id, attached=True)
        left, result = memoryview(input or b""), None
        try:
            if typing >= 0:
                os.set_blocking(typing, False)
            while result is None:
                if typing >= 0 and not left:
                    os.close(typing)
                    typing = -1
                    ending.end_input()
                told = ending.fileno()
                ready = (yield Wait((pipes.fileno(), told), (typing,) if typing >= 0 else ())).fds
                if typing in ready:
                    left = write_some(typing, left)
                for stream, data in pipes.read():
                    out[stream].append(data)
                if told in ready:
                    result = ending.result()
            for stream, data in pipes.drain():
                out[stream].append(data)
        except BaseException:
            if handle >= 0:
                send_signal(handle, KILL)
            raise
        finally:
            for fd in (*fds.values(), *(fd for fd in (typing, handle) if fd >= 0)):
                os.close(fd)
            pipes.close()
    finally:
        keeper.close()
    return result[0], b"".join(out[1]), b"".join(out[2])


def _handle(pid: int) -> int:
    """A pidfd; -1 when it has ended already."""
    try:
        return open_process(pid, start_time(pid))
    except (OSError, ValueError):
        return -1
