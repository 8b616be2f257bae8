"""The attached client: one poll loop between the caller's terminal or pipes and a container. For the main thread only.

Output is read from the container's log; typed input goes to its pipe or to the master of its pseudo-terminal. The loop
never waits for one side alone: a full pipe, a terminal that does not read, and signals are all polled. The terminal is
given back as it was found, also on errors and on signals that end the client; SIGKILL leaves it raw (`stty sane`).
Not its business: how the descriptors were come by, what the client's exit code is.
"""

from __future__ import annotations

import errno
import os
from select import POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, poll
from stat import S_ISCHR, S_ISREG

from cloche.cli.detachkeys import DEFAULT, DetachKeys, parse_detach_keys
from cloche.errors import Error
from cloche.kernel import signals
from cloche.kernel.signals import Caught
from cloche.kernel.terminal import RawMode, WindowSize, set_window_size, window_size
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class Output(Protocol):
        """A log that is followed: runtime.logview.Woken is one."""

        def fileno(self) -> int: ...
        def read(self) -> list[tuple[int, bytes]]: ...

    class Done(Protocol):
        """Tells of the container's end: readable, then `result` is not None. When its peer is gone it takes a new
        descriptor or raises: one that stays readable without a result would make the loop spin."""

        def fileno(self) -> int: ...
        def result(self) -> Any: ...


ENDING = (signals.HUP, signals.INT, signals.QUIT, signals.TERM)
PROXIED = (*ENDING, signals.USR1, signals.USR2, signals.ALRM, *signals.REAL_TIME)
_READ = 65536
_TYPED_MAX = 1 << 20  # bytes of typed input that wait for a container which does not read; so its keys still detach
_READY = POLLIN | POLLHUP | POLLERR | POLLNVAL


class Streams(Value):
    """What connects a client to a container. The descriptors stay the caller's.

    input: its standard input, a pipe's write end or the terminal's master, is made non-blocking; None: not attached.
    master: of its pseudo-terminal, for window sizes. end_input: called once when the caller's standard input has ended
    (close `input`, have the keeper close its own). send_signal: must not raise for a container that has just ended.
    """

    output: Output
    done: Done
    input: int | None = None
    master: int | None = None
    end_input: Callable[[], None] = lambda: None
    send_signal: Callable[[int], None] = lambda number: None


class Outcome(Value):
    """How it ended, and the container runs on in all cases but the first:

    `exited` (`result` is what `Done` gave), `detached`, `broken` (nobody reads our output: 141, as of who got SIGPIPE),
    `interrupted` (by `signal`, which was not for the container: 128 + signal).
    """

    how: str
    result: Any = None
    signal: int = 0


def attach(
    streams: Streams,
    *,
    stdin: int | None = 0,
    stdout: int = 1,
    stderr: int = 2,
    shown: tuple[int, ...] = (1, 2),
    tty: bool = False,
    detach_keys: str = DEFAULT,
    sig_proxy: bool = True,
    redraw: bool = False,
) -> Outcome:
    """Pass bytes, sizes and signals until the container ends, the keys are typed, or our side ends.

    tty: the container has a pseudo-terminal: ours becomes raw, the keys detach, ctrl-c is a byte. shown: which of its
    output is written, 1 and 2. redraw: make a program that is attached to once more draw its screen. Raises Invalid
    (the keys), Error (writing output).
    """
    keys = DetachKeys(parse_detach_keys(detach_keys) if tty else b"")
    if streams.input is None:
        stdin = None
    else:
        os.set_blocking(streams.input, False)
    proxied = PROXIED if sig_proxy and not tty else ()
    caught = {*ENDING, *proxied, signals.PIPE}
    if tty:
        caught |= {signals.WINCH, signals.CONT, signals.TSTP}
    with Caught(caught) as arrived, _Out(stdout) as out, _Out(stderr) as err:
        raw = RawMode(stdin) if tty and stdin is not None and os.isatty(stdin) else None
        outs = {number: each for number, each in ((1, out), (2, err)) if number in shown}
        try:
            if raw:
                raw.enter()
            loop = _Loop(streams, arrived, raw, keys, stdin, outs, frozenset(proxied))
            if tty:
                loop.resize(redraw)
            return loop.run()
        finally:
            if raw:
                raw.leave()


class _Out:
    """One of the caller's outputs. It must not block us, and must not become non-blocking for those who share it.

    So terminals and pipes are opened anew; where that is refused, pieces are written that fit when poll(2) says so.
    """

    def __init__(self, fd: int) -> None:
        self.fd, self.own = fd, False
        self.piece = 4096  # pipe(7): what fits when there is any room
        try:
            mode = os.fstat(fd).st_mode
        except OSError as problem:
            raise Error("write the container's output", problem.errno or 0, "standard output is closed") from problem
        if S_ISREG(mode) or (S_ISCHR(mode) and not os.isatty(fd)):
            self.piece = 1 << 20
            return
        try:
            self.fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:  # a socket, another user's terminal, a pipe that nobody reads
            return
        self.own, self.piece = True, 1 << 20

    def __enter__(self) -> _Out:
        return self

    def __exit__(self, *_: object) -> None:
        if self.own:
            os.close(self.fd)


class _Loop:
    """The state of one attachment."""

    def __init__(
        self,
        streams: Streams,
        arrived: Caught,
        raw: RawMode | None,
        keys: DetachKeys,
        stdin: int | None,
        outs: dict[int, _Out],
        proxied: frozenset[int],
    ) -> None:
        self.streams, self.arrived, self.raw, self.keys = streams, arrived, raw, keys
        self.stdin, self.outs, self.proxied = stdin, outs, proxied
        self.output: list[tuple[_Out, memoryview]] = []  # read from the log and not yet written
        self.caught_up = False  # the log had no more; it says when it has
        self.typed = bytearray()  # read from stdin and not yet taken by the container
        self.input_open = streams.input is not None
        self.result: Any = None
        self.outcome: Outcome | None = None

    def run(self) -> Outcome:
        while True:
            if not self.output and not self.caught_up:
                self._fetch()
            if self.outcome:
                return self.outcome
            self._wait()

    def _fetch(self) -> None:
        pieces = self.streams.output.read()
        self.output = [(self.outs[stream], memoryview(data)) for stream, data in pieces if stream in self.outs]
        self.caught_up = not pieces
        if self.caught_up and self.result is not None:
            self.outcome = Outcome("exited", self.result)

    def _wait(self) -> None:
        """Poll for what can be done now, and do it."""
        actions = self._actions()
        asked = poll()
        for fd, wanted in actions.items():
            asked.register(fd, _union(wanted))
        for fd, events in asked.poll(None if self.output or self.caught_up else 0):
            for mask, act in actions[fd]:
                if self.outcome is None and events & (mask | POLLHUP | POLLERR | POLLNVAL):
                    act()

    def _actions(self) -> dict[int, list[tuple[int, Callable[[], None]]]]:
        """What is waited for, by descriptor; one may stand for two things."""
        wanted: list[tuple[int, int, Callable[[], None]]] = [(self.arrived.fileno(), POLLIN, self._take_signals)]
        if self.output:
            wanted.append((self.output[0][0].fd, POLLOUT, self._write))
        elif self.caught_up:
            wanted.append((self.streams.output.fileno(), POLLIN, self._more))
        if self.result is None:
            wanted.append((self.streams.done.fileno(), POLLIN, self._ask_result))
            if self.stdin is not None and len(self.typed) < (_READ if self.streams.master is None else _TYPED_MAX):
                wanted.append((self.stdin, POLLIN, self._read))
            if self.typed and self.input_open:
                assert self.streams.input is not None
                wanted.append((self.streams.input, POLLOUT, self._pass_on))
        actions: dict[int, list[tuple[int, Callable[[], None]]]] = {}
        for fd, mask, act in wanted:
            actions.setdefault(fd, []).append((mask, act))
        return actions

    def _more(self) -> None:
        self.caught_up = False

    def _ask_result(self) -> None:
        self.result = self.streams.done.result()
        if self.result is not None:
            self.caught_up = False  # what came with the end is read before we go

    # Output

    def _write(self) -> None:
        out, data = self.output[0]
        try:
            written = os.write(out.fd, data[: out.piece])
        except BlockingIOError:
            return
        except OSError as problem:
            if problem.errno not in (errno.EPIPE, errno.EIO):  # EIO: the terminal hung up
                raise Error("write the container's output", problem.errno or 0) from problem
            self.outcome = Outcome("broken", signal=signals.PIPE)
            return
        if written == len(data):
            del self.output[0]
        else:
            self.output[0] = out, data[written:]

    # Input

    def _read(self) -> None:
        assert self.stdin is not None
        try:
            data = os.read(self.stdin, _READ)
        except BlockingIOError:
            return
        except OSError:  # EIO: the terminal hung up
            data = b""
        if not data:
            self.stdin = None
            self.typed += self.keys.held
            if not self.typed:
                self._end_input()
            return
        passed, detached = self.keys.feed(data)
        self.typed += passed
        if detached:
            self._pass_on()
            self.outcome = Outcome("detached")

    def _pass_on(self) -> None:
        """Give the container what was typed, as much as it takes."""
        if not self.typed or not self.input_open:
            return
        assert self.streams.input is not None
        try:
            del self.typed[: os.write(self.streams.input, self.typed)]
        except BlockingIOError:
            return
        except OSError:  # it has closed its standard input: nobody will ever read this
            self.typed.clear()
            if self.streams.master is None:
                self.stdin = None
        if self.stdin is None and not self.typed:
            self._end_input()

    def _end_input(self) -> None:
        """Pass the end of our standard input on. A pseudo-terminal has no such thing, its master stays open."""
        if self.input_open and self.streams.master is None:
            self.input_open = False
            self.streams.end_input()

    # Signals

    def _take_signals(self) -> None:
        for number in self.arrived.read():
            if number in self.proxied:
                if self.result is None:
                    self.streams.send_signal(number)
            elif number == signals.WINCH:
                self.resize()
            elif number in (signals.TSTP, signals.CONT):
                self._stop(number)
            elif number in ENDING:
                self.outcome = Outcome("interrupted", signal=number)

    def _stop(self, number: int) -> None:
        """Stopped or continued by a signal from outside; typed, ctrl-z is a byte. The shell sees its own terminal."""
        if self.raw:
            if number == signals.TSTP:
                self.raw.leave()
                os.kill(os.getpid(), signals.STOP)  # and then SIGCONT
            try:
                self.raw.enter()
            except OSError:  # it hung up meanwhile: SIGHUP is on its way
                pass
        elif number == signals.TSTP:
            os.kill(os.getpid(), signals.STOP)
        self.resize()

    def resize(self, redraw: bool = False) -> None:
        """Give the container's terminal the size of ours. `redraw`: another size first, so that it is a change."""
        size = self._local_size()
        if self.streams.master is None or size is None or not size.rows or not size.columns:
            return
        try:
            if redraw:
                set_window_size(self.streams.master, size.replace(rows=size.rows + 1, columns=size.columns + 1))
            set_window_size(self.streams.master, size)
        except OSError as problem:
            if problem.errno != errno.EIO:  # it has just ended
                raise Error("set the container's window size", problem.errno or 0) from problem

    def _local_size(self) -> WindowSize | None:
        for fd in (self.outs[1].fd, self.stdin, self.outs[2].fd):
            if fd is not None and os.isatty(fd):
                try:
                    return window_size(fd)
                except OSError:  # it hung up
                    continue
        return None


def _union(wanted: list[tuple[int, Callable[[], None]]]) -> int:
    mask = 0
    for bits, _ in wanted:
        mask |= bits
    return mask
