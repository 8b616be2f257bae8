"""What is undone a moment after a container's end.

Of a network that is left to the kernel: a link ends with its namespace. The plan stays on disk until somebody has
looked that it is gone, and has taken away what somebody else kept alive (another container in the same namespace, a
descriptor): so it is not forgotten when the keeper dies. A container that is started again meanwhile has its own plan
under its own name.

Of many that end at once the control groups: to remove a memory group, the kernel goes through all file systems that are
mounted anywhere, of which each container has ten. When all have ended these are gone, and removing costs nothing. Such
a plan stays under its own name, as that of a start that nobody has undone: whoever removes the container, or takes the
keeper's place, does it, and so does a start of the same container before it begins.
"""

from __future__ import annotations

import os
from collections import deque
from time import monotonic

from cloche.engine.holder import note
from cloche.errors import Invalid
from cloche.kernel.cgroups import processes
from cloche.step import stored

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.engine.store import Store

SETTLED = 0.5  # seconds until it is looked at: the kernel takes 10 to 50 ms for a namespace
MANY, AT_ONCE = 32, 1.0  # so many ends in so many seconds are many
SLICE = 16  # of their groups are removed before the loop looks at others
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
        self._ends: deque[float] = deque(maxlen=MANY)
        self._groups: dict[str, stored.StoredPlan] = {}

    def ended(self, key: str, plan: stored.StoredPlan | None) -> None:
        """As `undo`, of one that has run; of many that end at once the control groups wait until all have. Raises
        OSError."""
        self._ends.append(monotonic())
        many = len(self._ends) == MANY and self._ends[-1] - self._ends[0] < AT_ONCE
        groups = plan.groups if plan and many else []
        if not plan or not groups or any(map(processes, [group.path for group in groups[:1]])):
            self.undo(key, plan)
            return
        problems = plan.undo(later=False, groups=False)
        for problem in problems:
            note(f"undo {key}: {problem}")
        if not self._groups:
            self._after(SETTLED, self._remove_groups)
        self._groups[key] = plan

    def hurry(self, key: str) -> None:
        """It is started again: what of it still waits is undone now. Raises OSError."""
        if plan := self._groups.pop(key, None):
            self.undo(key, plan)

    def _remove_groups(self) -> None:
        """A slice of them, when no more end."""
        if monotonic() - self._ends[-1] < SETTLED:
            self._after(SETTLED, self._remove_groups)
            return
        for key in list(self._groups)[:SLICE]:
            try:
                self.hurry(key)
            except OSError as error:  # its plan stays, for the next keeper
                note(f"undo {key}: {error}")
        if self._groups:
            self._after(0, self._remove_groups)

    def undo(self, key: str, plan: stored.StoredPlan | None) -> None:
        """Take back what the plan may have made, then forget it; what could not be taken back is tried again by the
        next keeper. Raises OSError."""
        problems = plan.undo(later=False) if plan else []
        for problem in problems:
            note(f"undo {key}: {problem}")
        if problems or ":" in key:  # an exec
            return
        if plan and plan.lingers:
            self.add(key, plan)
            return
        try:
            os.unlink(self._store.plan(key))
        except FileNotFoundError:
            pass

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

    def end(self) -> None:
        """Undo everything that waits. Raises OSError."""
        for key in list(self._groups):
            self.hurry(key)
        self.look()

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
