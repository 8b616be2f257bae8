"""Waiting for the end of a container or an exec, over any number of keepers: a descriptor to poll, and a result."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.client import Keeper


class Ending(tuple[int, str]):
    """(exit code, "" or why it is unknown)."""

    __slots__ = ()


class Waiting:
    """Asks at once; `result()` when `fileno()` is readable. A keeper that dies is asked again, its successor knows.

    Its end is the only answer that comes: the connection stays usable for others, once it has come.
    wake: an eventfd that each keeper writes to when there may be more in the log.
    """

    def __init__(self, keeper: Keeper, ident: str, attached: bool = False, wake: int = -1) -> None:
        self._keeper, self._ident, self._attached = keeper, ident, attached
        self._wake = (wake,) if wake >= 0 else ()
        self._ended = False  # our side of its stdin has been closed
        self._connection = keeper.answered if attached else -1  # there, the start has attached us
        if self._connection != keeper.connection or not self._wait():
            self._ask()

    def _wait(self) -> bool:
        return self._keeper.tell({"op": "wait", "id": self._ident}, self._wake)

    def _ask(self) -> None:
        """All again, on one connection."""
        asked = ["attach"] * self._attached + ["end_input"] * self._ended
        while True:
            self._keeper.connected()
            self._connection = self._keeper.connection
            # attach: so that a new keeper does not take our container's stdin for forsaken
            if all(self._keeper.tell({"op": op, "id": self._ident, "quiet": True}) for op in asked) and self._wait():
                return

    def end_input(self) -> None:
        """Our side of its stdin has been closed; whichever keeper there is shall close its own."""
        self._ended = True
        if not self._keeper.tell({"op": "end_input", "id": self._ident, "quiet": True}):
            self._ask()

    def fileno(self) -> int:
        """Changes when the keeper does."""
        if self._connection != self._keeper.connection or self._keeper.fileno() < 0:
            self._ask()
        return self._keeper.fileno()

    def result(self) -> Ending | None:
        """What has come; None when it was only the end of a keeper. The exit code is -1 when nobody can know it."""
        while True:
            answer, fds = self._keeper.receive()
            for fd in fds:
                os.close(fd)
            if answer is None:
                self._ask()
                return None
            if "exit" in answer:
                code = answer["exit"]
                if code is None:
                    return Ending((-1, "exit status unknown: nobody saw its end"))
                return Ending((code, answer.get("reason", "")))
