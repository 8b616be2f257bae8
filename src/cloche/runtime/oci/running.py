"""run: create, start, stay until the end, delete. Signals go on to the container, its exit status is ours.

With a terminal and nobody who wants its other end (--console-socket), ours and the container's are connected.
"""

from __future__ import annotations

import os
from select import POLLHUP, POLLIN, poll

from cloche.errors import NotFound
from cloche.kernel import signals
from cloche.kernel.pidfd import send_signal
from cloche.runtime.oci.creating import Made, create
from cloche.runtime.oci.ending import remove
from cloche.runtime.oci.starting import start
from cloche.runtime.oci.state import Directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.runtime.oci.call import Call

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_READ = 1 << 16
# KILL and STOP cannot be caught; faults are our own; CHLD and WINCH mean something else here; the rest is job control
_OWN = {4, 5, 7, 8, 9, 11, 17, 18, 19, 20, 21, 22, 23, 28, 31}


def run(call: Call) -> int:
    """The exit status for our own end: the container's, 128 + n for signal n. Raises Error."""
    given = call.given
    if given.flag("detach"):
        _begin(call, foreground=False)
        return 0
    if not given.flag("no-subreaper"):
        from cloche.kernel.libc import prctl

        prctl(_SUBREAPER, 1)
    with forwarded() as caught:  # from now on: one that comes while it is made is the container's all the same
        made = _begin(call, foreground=True)
        status = stay(made.pid, caught, made.terminal)
    if not given.flag("keep"):
        _remove(call)
    return status


def _begin(call: Call, foreground: bool) -> Made:
    made = create(call, foreground)
    try:
        start(call)
    except BaseException:
        _remove(call)
        raise
    return made


def _remove(call: Call) -> None:
    try:
        with Directory(call.root, call.id) as place:
            remove(place, call.warn)
    except NotFound:
        pass  # somebody else has deleted it


def forwarded() -> signals.Caught:
    """The signals that are not for us."""
    return signals.Caught((*(n for n in range(1, 32) if n not in _OWN), signals.CHLD, signals.WINCH))


def stay(pid: int, caught: signals.Caught, terminal: int = -1) -> int:
    """Wait for a child of ours; signals that we get are its. Returns its exit status as a shell has it."""
    handle = os.pidfd_open(pid)
    try:
        if terminal < 0:
            status = _wait(pid, handle, caught, None)
        else:
            with Console(terminal) as console:
                status = _wait(pid, handle, caught, console)
    finally:
        os.close(handle)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _wait(pid: int, handle: int, caught: signals.Caught, console: Console | None) -> int:
    """Until it has ended; orphans that have become ours are reaped on the way. Returns the wait status."""
    while True:
        waiting = poll()
        waiting.register(caught, POLLIN)
        waiting.register(handle, POLLIN)
        for fd in console.sources() if console else ():
            waiting.register(fd, POLLIN)
        ready = dict(waiting.poll())
        if console:
            console.copy(ready)
        for number in caught.read():
            if number == signals.WINCH and console:
                console.resize()
            elif number != signals.CHLD:
                send_signal(handle, number)
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                ended = 0
            if ended == pid:
                if console:
                    console.drain()
                return status
            if not ended:
                break


class Console:
    """Our terminal, raw, and the other end of the container's."""

    def __init__(self, master: int) -> None:
        from cloche.kernel.terminal import RawMode

        self._master, self._input = master, 0
        self._raw = RawMode(0) if os.isatty(0) else None

    def __enter__(self) -> Console:
        if self._raw:
            self._raw.enter()
            self.resize()
        return self

    def __exit__(self, *_: object) -> None:
        if self._raw:
            self._raw.leave()
        os.close(self._master)

    def sources(self) -> tuple[int, ...]:
        """What is read from."""
        return tuple(fd for fd in (self._master, self._input) if fd >= 0)

    def resize(self) -> None:
        """Ours is how large the container's is."""
        from cloche.kernel.terminal import set_window_size, window_size

        if self._raw:
            set_window_size(self._master, window_size(0))

    def copy(self, ready: dict[int, int]) -> None:
        """What there is, both ways."""
        if self._master in ready and ready[self._master] & (POLLIN | POLLHUP):
            self._show()
        if self._input in ready:
            typed = os.read(self._input, _READ)
            if not typed:
                self._input = -1
            while typed:
                typed = typed[os.write(self._master, typed) :]

    def drain(self) -> None:
        """What the container had written before its end."""
        os.set_blocking(self._master, False)
        while self._show():
            pass

    def _show(self) -> bool:
        try:
            said = os.read(self._master, _READ)
        except OSError:  # EIO: nobody has the other end any more
            return False
        left = said
        while left:
            left = left[os.write(1, left) :]
        return bool(said)
