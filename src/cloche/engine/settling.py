"""What of a container's network is left to the kernel: a link ends with its namespace, a moment after the container.

The plan stays on disk until somebody has looked that it is gone, and has taken away what somebody else kept alive
(another container in the same namespace, a descriptor): so it is not forgotten when the keeper dies. A container that
is started again meanwhile has its own plan under its own name.
"""

from __future__ import annotations

import os

from cloche.engine.holder import note
from cloche.errors import Invalid
from cloche.step import stored

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.engine.store import Store

SETTLED = 0.5  # seconds until it is looked at: the kernel takes 10 to 50 ms for a namespace
_MARK = "~"


def is_settling(name: str) -> bool:
    """Whether a file of the plans' directory is of a container that has ended."""
    return _MARK in name


class Settling:
    """The plans that are not quite undone yet, as files `ID~N`."""

    def __init__(self, store: Store, after: Callable[[float, Callable[[], None]], None]) -> None:
        self._store, self._after = store, after
        self._left: dict[str, stored.StoredPlan | None] = {}
        self._number = 0

    def add(self, ident: str, plan: stored.StoredPlan) -> None:
        """Put the plan aside; look at it later. Raises OSError."""
        path = self._store.plan(ident)
        name = f"{ident}{_MARK}{os.getpid()}.{self._number}"
        self._number += 1
        try:
            os.rename(path, self._store.plan(name))
        except FileNotFoundError:
            pass  # its container was removed by a client, who undid it too
        self.adopt(name, plan)

    def adopt(self, name: str, plan: stored.StoredPlan | None = None) -> None:
        """Look at a plan that was put aside, by us or by a keeper before."""
        if not self._left:
            self._after(SETTLED, self.look)
        self._left[name] = plan

    def look(self) -> None:
        """Undo all of them for good."""
        left, self._left = self._left, {}
        for name, known in left.items():
            try:
                plan = known or self._read(name)
                for problem in plan.undo(later=True) if plan else []:
                    note(f"undo {name}: {problem}")
                os.unlink(self._store.plan(name))
            except FileNotFoundError:
                pass
            except OSError as error:
                note(f"undo {name}: {error}")

    def _read(self, name: str) -> stored.StoredPlan | None:
        with open(self._store.plan(name), "rb") as file:
            try:
                return stored.load(file.read())
            except Invalid:
                return None


def take_down(store: Store) -> None:
    """Take away the bridges and the rules of a store in which nothing runs; they are made again when they are needed.

    Raises OSError.
    """
    from cloche.kernel import nftables, rtnetlink
    from cloche.step.firewall import LetThrough

    socket = rtnetlink.host()
    mark = store.parent + " "
    ours = [name for _, name, alias in rtnetlink.links(socket) if alias[: len(mark)] == mark]
    try:
        rules = nftables.has_table(nftables.host(), store.parent)
    except OSError:
        rules = False  # a kernel without nf_tables
    for name in ours:
        try:
            if rules:
                LetThrough(name).take_down()
            socket.ask(rtnetlink.delete_link(name))
        except OSError as error:
            if error.errno != 19:  # ENODEV: it ended meanwhile
                raise
    if rules:
        nftables.host().ask(*nftables.delete_table(store.parent))
