"""signal(7) for a poll loop: while `Caught` is entered, signals arrive as numbers on a descriptor. Main thread only.

Built on `_signal`, the interpreter's own part of `signal`, whose enums cost a client 5 ms.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

HUP, INT, QUIT, USR1 = _signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGUSR1
USR2, PIPE, ALRM, TERM = _signal.SIGUSR2, _signal.SIGPIPE, _signal.SIGALRM, _signal.SIGTERM
CONT, STOP, TSTP, TTOU = _signal.SIGCONT, _signal.SIGSTOP, _signal.SIGTSTP, _signal.SIGTTOU
WINCH, CHLD = _signal.SIGWINCH, _signal.SIGCHLD
REAL_TIME = tuple(range(_signal.SIGRTMIN, _signal.SIGRTMAX + 1))


class Caught:
    """Catches the given signals, except those that are ignored (nohup); gives every handler back at the end."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = tuple(numbers)
        self._handlers: dict[int, Any] = {}
        self._pipe = (-1, -1)
        self._before = -1

    def __enter__(self) -> Caught:
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = _signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        for number in self._numbers:
            before = _signal.getsignal(number)
            if number == PIPE or before not in (_signal.SIG_IGN, None):  # Python ignores SIGPIPE for us
                self._handlers[number] = _signal.signal(number, _note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            _signal.signal(number, handler)
        _signal.set_wakeup_fd(self._before)
        for fd in self._pipe:
            os.close(fd)

    def fileno(self) -> int:
        """Readable when a signal has arrived."""
        return self._pipe[0]

    def read(self) -> list[int]:
        """The numbers of the signals that have arrived, in order."""
        try:
            return [number for number in os.read(self._pipe[0], 4096) if number in self._handlers]
        except BlockingIOError:
            return []


def _note(*_: object) -> None:
    """The number is already in the pipe."""


class Blocked:
    """Keeps one signal from being delivered meanwhile."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> None:
        self._before = _signal.pthread_sigmask(_signal.SIG_BLOCK, [self._number])

    def __exit__(self, *_: object) -> None:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self._before)
