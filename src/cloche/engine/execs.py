"""exec: a process beside a container's first, in its namespaces, control groups and root, with its limits and
filter."""

from __future__ import annotations

import os

from cloche.engine.bundle import Other, joining
from cloche.engine.facts import gather
from cloche.engine.validation import check_exec
from cloche.errors import Conflict
from cloche.kernel.processes import lives
from cloche.plan import plan_joining
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.containers import Container, Engine
    from cloche.engine.request import ExecRequest


class Exec(Value):
    """A process that was started in a container: its id, and descriptors to talk to it by name (master | input out
    err)."""

    id: str
    container: Container
    pid: int
    fds: dict[str, int]


def execute(engine: Engine, container: Container, request: ExecRequest, console: tuple[int, int] = (0, 0)) -> Exec:
    """Start it; returns when its program has been executed. Raises the error of the step that was refused, Conflict."""
    from cloche.step.flat import flatten
    from cloche.step.stored import dump, stored

    request = check_exec(request)
    if container.paused:
        raise Conflict(f"execute in container {container.name}", "it is paused", "unpause it before: cloche unpause")
    ident = os.urandom(32).hex()
    facts = gather(container.config, engine.store, engine.host, engine.other, console)
    first = Other(container.pid, container.start_time)
    made = plan_joining(
        joining(container.config, request, engine.store, container.id, first, facts, ident), engine.host
    )
    notes = {
        "tty": request.tty,
        "stdin": request.interactive,
        "stdin_once": True,
        "detached": request.detach,
        "command": " ".join(request.command),
    }
    content = dump(stored(made, flatten(made), notes))
    answer, fds = engine.keeper.ask({"op": "exec", "id": ident, "container": container.id}, content)
    if "failure" in answer:
        if not lives(container.pid, container.start_time):
            raise Conflict(f"execute in container {container.name}", "it is not running any more")
        from cloche.runtime.bell import Failure
        from cloche.runtime.execution import explain

        raise explain(made, Failure(*answer["failure"]))
    return Exec(ident, container, answer["pid"], dict(zip(answer["fds"], fds, strict=True)))


def run(
    engine: Engine, container: Container, request: ExecRequest, input: bytes | None = None
) -> tuple[int, bytes, bytes]:
    """Execute to the end: exit code, stdout, stderr. What it does not read of `input` while it writes does not block
    it."""
    import select

    from cloche.engine.pipes import Pipes
    from cloche.engine.waiting import Waiting

    made = execute(engine, container, request)
    fds = made.fds
    out: dict[int, list[bytes]] = {1: [], 2: []}
    pipes, ending = Pipes({1: fds["out"], 2: fds["err"]}), Waiting(engine.keeper, made.id, attached=True)
    left = memoryview(input or b"")
    typing = fds.pop("input", -1)
    result = None
    try:
        if typing >= 0:
            os.set_blocking(typing, False)
        while result is None:
            if typing >= 0 and not left:
                os.close(typing)
                typing = -1
                ending.end_input()
            poll = select.poll()
            poll.register(pipes.fileno(), select.POLLIN)
            poll.register(ending.fileno(), select.POLLIN)
            if typing >= 0:
                poll.register(typing, select.POLLOUT)
            ready = {fd for fd, _ in poll.poll()}
            if typing in ready:
                left = _write_some(typing, left)
            for stream, data in pipes.read():
                out[stream].append(data)
            if ending.fileno() in ready:
                result = ending.result()
        for stream, data in pipes.drain():
            out[stream].append(data)
    finally:
        for fd in (*fds.values(), *([typing] if typing >= 0 else ())):
            os.close(fd)
        pipes.close()
        if result is None:
            engine.keeper.close()  # an answer that nobody waits for any more would be taken for another's
    return result[0], b"".join(out[1]), b"".join(out[2])


def _write_some(fd: int, left: memoryview) -> memoryview:
    try:
        return left[os.write(fd, left) :]
    except BlockingIOError:
        return left
    except BrokenPipeError:
        return left[:0]  # it reads no more
