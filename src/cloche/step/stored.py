"""Steps as text and back: what a keeper needs of a plan to execute, undo and explain it, in a file that outlives it.

    line 1   JSON: {"count": acts, "host": [[number, step], ...], ...what the engine adds}
    rest     the flat form, for bell

A value is {"_": class, field: ...}; bytes are {"b": latin-1}; tuples are lists. Only the classes named here can be
read.
"""

from __future__ import annotations

from cloche.document import dumps, loads
from cloche.errors import Invalid
from cloche.step.base import Ref
from cloche.step.cgroup import MakeCgroup
from cloche.value import Value, decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloche.step.base import Plan, Step


_known: dict[str, type[Value]] = {}


def _kinds() -> dict[str, type[Value]]:
    """The classes that can be read; who only writes does not import them."""
    if _known:
        return _known
    from cloche.step.cgroup import DelegateCgroup, FilterDevices, LimitCgroup
    from cloche.step.firewall import AddElement, LetThrough, MakeFirewall
    from cloche.step.namespace import OpenNamespace
    from cloche.step.network import (
        AddAddress,
        AddBridgeAddress,
        AddRoute,
        EnterNetwork,
        MakeBridge,
        MakeMacvlan,
        MakeVeth,
        ReservePort,
        SetLinkUp,
        WriteSetting,
    )
    from cloche.step.sync import Await, Open, StartBell

    found: tuple[type[Value], ...] = (
        *(Ref, MakeCgroup, DelegateCgroup, LimitCgroup, FilterDevices, OpenNamespace, StartBell, Await, Open),
        *(MakeFirewall, LetThrough, AddElement, WriteSetting, MakeBridge, AddBridgeAddress, ReservePort),
        *(EnterNetwork, MakeVeth, MakeMacvlan, AddAddress, SetLinkUp, AddRoute),
    )
    _known.update((kind.__name__, kind) for kind in found)
    return _known


class StoredPlan(Value):
    """The host's side of a plan with the numbers its steps have in the whole, the flat form, and the engine's notes."""

    count: int
    host: tuple[tuple[int, Step], ...]
    flat: bytes
    notes: dict[str, Any]

    @property
    def lingers(self) -> bool:
        """Whether something of it may still be there for a moment when it was undone."""
        return any(step.later for _, step in self.host)

    @property
    def groups(self) -> list[MakeCgroup]:
        """Its control groups."""
        return [step for _, step in self.host if isinstance(step, MakeCgroup)]

    def undo(self, later: bool | None = None, groups: bool = True) -> list[OSError]:
        """As Plan.undo: take back what the host's steps made, last first, all of it. Returns what went wrong.

        later: False leaves what ends by itself; True is for that alone, when it had the time to: the other things may
        be another start's by then, for their names are the container's. groups: without, the control groups stay.
        """
        problems = []
        for _, step in reversed(self.host):
            if (later is not None and step.later != later) or (not groups and isinstance(step, MakeCgroup)):
                continue
            try:
                step.undo()
            except OSError as problem:
                problems.append(problem)
        return problems


def stored(plan: Plan, flat: bytes, notes: dict[str, Any]) -> StoredPlan:
    """What of `plan` is kept."""
    host = tuple((number, act.step) for number, act in enumerate(plan.acts, 1) if act.actor == "host")
    return StoredPlan(len(plan.acts), host, flat, notes)


def dump(plan: StoredPlan) -> bytes:
    """The plan as a file's content."""
    head = {"count": plan.count, "host": [[number, encode(step)] for number, step in plan.host], "notes": plan.notes}
    return dumps(head).encode() + b"\n" + plan.flat


def load(content: bytes) -> StoredPlan:
    """Read what dump() wrote. Raises Invalid when it is something else."""
    try:
        line, flat = content.split(b"\n", 1)
        head, kinds = loads(line), _kinds()
        host = tuple((number, decode(step, kinds)) for number, step in head["host"])
        return StoredPlan(head["count"], host, flat, head["notes"])
    except (ValueError, KeyError, TypeError) as error:
        raise Invalid("read a stored plan", f"it is damaged ({error})") from error
