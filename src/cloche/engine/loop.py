"""A loop over descriptors and times, on epoll(7): who waits for what, and what is due later."""

from __future__ import annotations

import select
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Loop:
    """Subclasses run it: poll, call what is watched, call what is due."""

    def __init__(self) -> None:
        self.poll = select.epoll()
        self.watched: dict[int, Callable[[], None]] = {}
        self.later: list[tuple[float, Callable[[], None]]] = []

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
        self.later.append((monotonic() + seconds, call))

    def call_due(self) -> float:
        """Call what is due; returns the time."""
        at = monotonic()
        due = [call for when, call in self.later if when <= at]
        self.later = [(when, call) for when, call in self.later if when > at]
        for call in due:
            call()
        return at
