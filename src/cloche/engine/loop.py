"""A loop over descriptors and times, on epoll(7): who waits for what, and what is due later."""

from __future__ import annotations

import select
from heapq import heappop, heappush
from itertools import count
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Loop:
    """Subclasses run it: poll, call what is watched, call what is due."""

    def __init__(self) -> None:
        self.poll = select.epoll()
        self.watched: dict[int, Callable[[], None]] = {}
        self.later: list[tuple[float, int, Callable[[], None]]] = []  # a heap: the first is due first
        self._order = count()

    def watch(self, fd: int, call: Callable[[], None], events: int = select.EPOLLIN) -> None:
        """Call `call` whenever `fd` is ready."""
        if fd in self.watched:
            self.poll.modify(fd, events)
        else:
            self.poll.register(fd, events)
        self.watched[fd] = call

    def unwatch(self, fd: int) -> None:
        """Stop; harmless when it is not watched."""
        if self.watched.pop(fd, None):
            self.poll.unregister(fd)

    def call_ready(self, ready: list[tuple[int, int]]) -> None:
        """Call what is watched at these descriptors, unless a call before has changed what is watched there."""
        for fd, call in [(fd, self.watched.get(fd)) for fd, _ in ready]:
            if call and self.watched.get(fd) is call:
                call()

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call once, later."""
        heappush(self.later, (monotonic() + seconds, next(self._order), call))

    def call_due(self) -> float:
        """Call what is due; returns the time."""
        at = monotonic()
        due = []
        while self.later and self.later[0][0] <= at:
            due.append(heappop(self.later)[2])
        for call in due:  # what they put off for no time at all is for the next round
            call()
        return at
