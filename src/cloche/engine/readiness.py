"""Waiting until a container is ready: it listens on a port, answers HTTP, has written a line, is healthy.

A line is waited for by following the log, an end by the keeper's word. Nothing tells of a port that begins to listen:
it is tried, from inside the container's own network, in growing steps. Not its business: health checks themselves.
"""

from __future__ import annotations

import errno
import os
from time import monotonic

from cloche.engine.courses import NOTHING, Wait, recorded
from cloche.engine.database import RESTARTING, RUNNING
from cloche.engine.networks import is_own
from cloche.errors import Conflict, Error, Invalid, NotFound, TimedOut, printable
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    import socket
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from cloche.engine.containers import Container, Engine
    from cloche.engine.courses import Course
    from cloche.runtime.loglines import Line

    Condition: TypeAlias = "Listens | Answers | Writes | Healthy"

FIRST, LONGEST = 0.005, 0.25  # seconds between two tries of a port
PATIENCE = 2.0  # seconds for one connection, and for one answer
SHOWN = 10  # of its last lines, where it did not become ready
_ALONE = "it must listen on all addresses, not on 127.0.0.1 alone"


class Listens(Value):
    """On a TCP port of its own."""

    port: int

    def __str__(self) -> str:
        return f"listens on port {self.port}"


class Answers(Value):
    """An HTTP request for a path, with this status; 0: with any below 500."""

    port: int
    path: str = "/"
    status: int = 0

    def __str__(self) -> str:
        return f"answers http :{self.port}{self.path}" + (f" with {self.status}" if self.status else "")


class Healthy(Value):
    """Its health check succeeds."""

    def __str__(self) -> str:
        return "is healthy"


class Writes(Value):
    """A line with this text in it, or in which this expression is found, since its start."""

    wanted: str | re.Pattern[str]

    def __str__(self) -> str:
        return f"writes {self.wanted if isinstance(self.wanted, str) else self.wanted.pattern!r}"

    def fits(self, line: str) -> bool:
        """Whether it is this one."""
        return self.wanted in line if isinstance(self.wanted, str) else self.wanted.search(line) is not None


def conditions(
    port: int | str | None,
    http: int | str | None,
    status: int,
    log: str | re.Pattern[str] | None,
    healthy: bool,
) -> tuple[Condition, ...]:
    """As they are asked for; the line first, for it comes first. Raises Invalid."""
    found: list[Condition] = [Writes(log)] if log is not None else []
    if port is not None:
        found.append(Listens(_port(port)))
    if http is not None:
        number, slash, path = str(http).removeprefix(":").partition("/")
        if "://" in str(http) or not (slash + path).isascii() or any(c <= " " for c in path):
            raise Invalid(f"wait for http {http}", "not a port and a path", 'such as 8080, ":8080/ready" or "/ready"')
        found.append(Answers(_port(number or "80"), slash + path or "/", status))
    elif status:
        raise Invalid(f"wait for the status {status}", "of which answer is not said", 'http=":8080/ready"')
    return tuple(found) + (Healthy(),) * healthy


def _port(text: int | str) -> int:
    number, _, protocol = str(text).partition("/")
    if protocol not in ("", "tcp"):
        raise Invalid(f"wait for the port {text}", "whether anybody listens is known of TCP alone")
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise Invalid(f"wait for the port {text}", "not a port", "from 1 to 65535")
    return int(number)


def ready(engine: Engine, container: Container, wanted: tuple[Condition, ...], seconds: float) -> Course[None]:
    """Until all of it holds. Raises Conflict when it ends before, TimedOut; both with its last lines as a note."""
    due = monotonic() + seconds
    for one in wanted:
        watch = _Watch(engine, container, f"wait until container {container.name} {one}", seconds, due)
        try:
            if container.status not in (RUNNING, RESTARTING) and not isinstance(one, Writes):
                raise watch.not_running()
            yield from _COURSES[type(one)](watch, one)
        except (Conflict, TimedOut) as error:
            if lines := _last_lines(engine, container):
                error.add_note("the last lines of its log:\n" + "\n".join(f"    {line}" for line in lines))
            raise


def _last_lines(engine: Engine, container: Container) -> list[str]:
    from cloche.runtime.loglines import read

    try:
        found = list(read(engine.log_directory(container), tail=SHOWN))
    except Error:
        return []  # it is removed
    return [printable(line.data.decode("utf-8", "backslashreplace").rstrip("\n")) for line in found]


class _Watch:
    """Who waits for what, and until when."""

    def __init__(self, engine: Engine, container: Container, what: str, seconds: float, due: float) -> None:
        self.engine, self.container, self.what = engine, container, what
        self._seconds, self._due = seconds, due

    def left(self) -> float:
        """Seconds."""
        return max(0.0, self._due - monotonic())

    def late(self, hint: str = "") -> TimedOut:
        """The error of a time that is up."""
        return TimedOut(self.what, f"not within {self._seconds:g} seconds", hint)

    def not_running(self) -> Conflict:
        """The error of one that does not run, or not any more."""
        try:
            found = self.engine.find(self.container.id)
        except NotFound:
            return Conflict(self.what, "it has ended and was removed")
        return self.ended(found.exit_code) if found.finished else Conflict(self.what, f"it is {found.state}")

    def ended(self, code: int) -> Conflict:
        """The error of one that has ended."""
        return Conflict(self.what, f"it has ended with exit code {code}" if code >= 0 else "it has ended")

    def wait(self, writes: int = -1, reads: int = -1, seconds: float = PATIENCE, hint: str = "") -> Course[bool]:
        """For a descriptor, or that long; whether it is ready. Raises Conflict, TimedOut."""
        reading, writing = ((fd,) if fd >= 0 else () for fd in (reads, writes))
        found = yield Wait(reading, writing, self.container.id, min(seconds, self.left()))
        if found.ended:
            raise self.ended(recorded(self.engine, self.container, found.ended)[0])
        if not found.fds and not self.left():
            raise self.late(hint)
        return bool(found.fds)


def _writes(watch: _Watch, wanted: Writes) -> Course[None]:
    from cloche.engine.output import lines

    stream = lines(watch.engine, watch.container, _text, follow=True, since=watch.container.started)
    try:
        found = next(stream)
        while True:
            if isinstance(found, Wait):
                come = yield found.replace(seconds=watch.left())
                if not come.fds:
                    raise watch.late()
                found = stream.send(come)
            elif any(map(wanted.fits, found)):
                return
            else:
                found = next(stream)
    except StopIteration:
        raise watch.not_running() from None
    finally:
        stream.close()


def _text(line: Line) -> str:
    return line.data.decode("utf-8", "backslashreplace").rstrip("\n")


def _listens(watch: _Watch, wanted: Listens) -> Course[None]:
    pause = FIRST
    while True:
        sock = yield from _connection(watch, wanted.port)
        if sock:
            sock.close()
            return
        yield from watch.wait(seconds=pause, hint=_ALONE)
        pause = min(pause * 2, LONGEST)


def _connection(watch: _Watch, port: int) -> Course[socket.socket | None]:
    """A connection to it; None when nobody listens."""
    sock, address = _socket(watch)
    if sock is None:
        return None
    try:
        problem = sock.connect_ex((address, port))
        if problem == errno.EINPROGRESS:
            problem = errno.ETIMEDOUT
            if (yield from watch.wait(writes=sock.fileno(), hint=_ALONE)):
                problem = sock.getsockopt(1, 4)  # SOL_SOCKET, SO_ERROR
        if not problem and sock.getsockname() == sock.getpeername():
            problem = errno.ECONNREFUSED  # tcp(7): a port of the ephemeral range has met itself
    except BaseException:
        sock.close()
        raise
    if problem:
        sock.close()
    return None if problem else sock


def _socket(watch: _Watch) -> tuple[socket.socket | None, str]:
    """A socket inside the container's network, and its address there; none, when it is ending, or made again."""
    import socket

    from cloche.kernel.namespaces import Visit
    from cloche.kernel.pidfd import open_process

    container, address = watch.container, "127.0.0.1"
    if is_own(container.config.request.network):
        texts = [text for e in watch.engine.networks.endpoints(container.id) for text in e.addresses]
        address = next((text for text in texts if ":" not in text), address)
    try:
        if container.status != RUNNING:
            raise ProcessLookupError
        pidfd = open_process(container.pid, container.start_time)
        try:
            with Visit(pidfd):
                return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK), address
        finally:
            os.close(pidfd)
    except ProcessLookupError:
        try:
            watch.container = watch.engine.find(container.id)
        except NotFound:
            raise watch.not_running() from None
        return None, address
    except OSError as error:
        raise Error(watch.what, error.errno or 5) from error


def _answers(watch: _Watch, wanted: Answers) -> Course[None]:
    pause = FIRST
    said = ""
    while True:
        sock = yield from _connection(watch, wanted.port)
        if sock:
            try:
                status = yield from _asked(watch, sock, wanted.path)
            finally:
                sock.close()
            if status == wanted.status or (not wanted.status and 0 < status < 500):
                return
            said = f"its last answer was {status}" if status else "what it answers is no HTTP"
        yield from watch.wait(seconds=pause, hint=said or _ALONE)
        pause = min(pause * 2, LONGEST)


def _asked(watch: _Watch, sock: socket.socket, path: str) -> Course[int]:
    """The status of the answer; 0 when none comes. Source: RFC 9112."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: cloche\r\nConnection: close\r\n\r\n"
    try:
        sock.send(request.encode())
        line = b""
        while b"\n" not in line and len(line) < 1000:
            if not (yield from watch.wait(reads=sock.fileno())):
                return 0
            data = sock.recv(1000)
            if not data:
                break
            line += data
    except OSError:
        return 0  # it was closed: not ready yet
    words = line.split(b"\n")[0].split()
    return int(words[1]) if len(words) > 1 and words[0][:5] == b"HTTP/" and words[1].isdigit() else 0


def _healthy(watch: _Watch, _: Healthy) -> Course[None]:
    from cloche.engine import events, healthchecks

    engine, ident = watch.engine, watch.container.id
    if not healthchecks.is_on(watch.container.config.health):
        raise Invalid(watch.what, "it has no health check", "give it one: --health-cmd, health_cmd=")
    filters = (("container", ident), ("event", "health_status"))
    stream = events.following(engine, events.last(engine.db), filters=filters)
    try:
        found = next(stream)  # from here on it is told of each change
        while (now := engine.find(ident)).health != healthchecks.HEALTHY:
            if not isinstance(found, Wait):
                found = stream.send(NOTHING)
                continue
            seconds = watch.left() if found.seconds is None else min(found.seconds, watch.left())
            come = yield found.replace(end=ident, seconds=seconds)
            if come.ended:
                raise watch.ended(recorded(engine, now, come.ended)[0])
            if not come.fds and not watch.left():
                raise watch.late(f"it is {now.health}; cloche inspect shows what its checks say")
            found = stream.send(come)
    except NotFound:
        raise watch.not_running() from None
    finally:
        stream.close()


_COURSES: dict[type, Callable[[_Watch, Any], Course[None]]] = {
    Listens: _listens,
    Answers: _answers,
    Writes: _writes,
    Healthy: _healthy,
}
