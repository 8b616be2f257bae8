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
    """Asks at once; `result()` when `fileno()` is readable. A keeper that dies is asked again, its successor knows."""

    def __init__(self, keeper: Keeper, ident: str, attached: bool = False) -> None:
        self._keeper, self._ident, self._attached = keeper, ident, attached
        keeper.send({"op": "wait", "id": ident})

    def fileno(self) -> int:
        """Changes when the keeper does."""
        return self._keeper.fileno()

    def result(self) -> Ending | None:
        """What has come; None when it was only the end of a keeper. The exit code is -1 when nobody can know it."""
        while True:
            answer, fds = self._keeper.receive()
            for fd in fds:
                os.close(fd)
            if answer is None:
                if self._attached:  # so that the new keeper does not take our container's stdin for forsaken
                    self._keeper.send({"op": "attach", "id": self._ident})
                self._keeper.send({"op": "wait", "id": self._ident})
                return None
            if "exit" in answer:
                code = answer["exit"]
                return Ending((-1 if code is None else code, answer.get("reason", "")))
            if "error" in answer or "ok" in answer:
                return None  # of the attach above
