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
    """

    def __init__(self, keeper: Keeper, ident: str, attached: bool = False) -> None:
        self._keeper, self._ident, self._attached = keeper, ident, attached
        self._ended = False  # our side of its stdin has been closed
        keeper.send({"op": "wait", "id": ident})
        self._connection = keeper.connection
        if attached and keeper.answered != keeper.connection:  # who let us attach is gone already
            self._ask()

    def _ask(self) -> None:
        """All again, on one connection."""
        asked = ["attach"] * self._attached + ["wait"] + ["end_input"] * self._ended
        self._connection = -1
        while self._connection != self._keeper.connection:
            self._keeper.connected()
            self._connection = self._keeper.connection
            for op in asked:  # attach: so that a new keeper does not take our container's stdin for forsaken
                self._keeper.send({"op": op, "id": self._ident, "quiet": True})

    def end_input(self) -> None:
        """Our side of its stdin has been closed; whichever keeper there is shall close its own."""
        self._ended = True
        self._keeper.send({"op": "end_input", "id": self._ident, "quiet": True})

    def fileno(self) -> int:
        """Changes when the keeper does."""
        if self._connection != self._keeper.connection:
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
