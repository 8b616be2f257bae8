"""Waiting for ends, over any number of keepers: of one container or exec, and of any number of containers at once.

Both have a descriptor to poll, and results.
"""

from __future__ import annotations

import os

from cloche.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.client import Keeper
    from cloche.engine.store import Store


class Ending(tuple[int, str]):
    """(exit code, "" or why it is unknown)."""

    __slots__ = ()


_AT_ONCE = 64  # questions before the answers are read: a socket holds a few hundred, and who is late is ended
NOT_KNOWN = Ending((-1, "exit status unknown: nobody saw its end"))  # no keeper knows of it; the database may


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
                return NOT_KNOWN if code is None else Ending((code, answer.get("reason", "")))


class Endings:
    """The ends of any number of containers, by one connection of their own. Asking never waits for an end."""

    def __init__(self, store: Store) -> None:
        from cloche.engine.client import Keeper

        self._keeper = Keeper(store)
        self._asked: set[str] = set()
        self._unsent: set[str] = set()  # those of them for which this connection has not asked yet

    def close(self) -> None:
        """Ask for nothing any more; it may be used again."""
        self._asked.clear()
        self._unsent.clear()
        self._keeper.close()

    def fileno(self) -> int:
        """Readable when `exchange` has something to give, or to repair; changes when the keeper does."""
        return self._keeper.fileno()

    def __contains__(self, ident: str) -> bool:
        """Whether this one's end is asked for already."""
        return ident in self._asked

    def exchange(self, ident: str = "") -> dict[str, Ending]:
        """Ask for the end of one more; gives those that have come, by id. Raises Error when no keeper stays alive."""
        if ident and ident not in self._asked:
            self._asked.add(ident)
            self._unsent.add(ident)
        found: dict[str, Ending] = {}
        self._take(found)
        while self._unsent:
            if self._keeper.fileno() < 0:
                self._keeper.current()  # one that says whose end it tells of
            for each in list(self._unsent)[:_AT_ONCE]:
                if not self._keeper.tell({"op": "wait", "id": each}):
                    self._unsent |= self._asked
                    break
                self._unsent.remove(each)
            self._take(found)
        return found

    def _take(self, found: dict[str, Ending]) -> None:
        """What has come; behind the end of a connection all that are left are to be asked for again."""
        while self._asked and self._keeper.fileno() >= 0 and self._is_readable():
            answer, _ = self._keeper.receive()
            if answer is None:
                self._unsent |= self._asked
            elif "exit" not in answer:
                raise Error("wait for a container", answer.get("error", "the keeper does not answer"))
            elif answer["id"] in self._asked:
                self._asked.remove(answer["id"])
                self._unsent.discard(answer["id"])
                code = answer["exit"]
                found[answer["id"]] = NOT_KNOWN if code is None else Ending((code, answer["reason"]))

    def _is_readable(self) -> bool:
        import select

        poll = select.poll()
        poll.register(self._keeper.fileno(), select.POLLIN)
        return bool(poll.poll(0))
