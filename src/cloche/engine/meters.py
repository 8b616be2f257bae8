"""What all running containers use of one thing, looked at again and again: thousands, a few microseconds each.

`stats` tells all of a few containers (usage); this tells one number of each. Not its business: showing (cli.tiles).
"""

from __future__ import annotations

from time import monotonic

from cloche.engine.usage import network_bytes, number_in
from cloche.kernel.cgroups import read_counter
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.containers import Engine

KINDS = ("cpu", "memory", "network")
_PARENT = "CASE WHEN json_valid(config) THEN json_extract(config, '$.request.cgroup_parent') END AS parent"
_QUERY = f"SELECT id, name, pid, {_PARENT} FROM containers WHERE status='running' ORDER BY created"


class Reading(Value):
    """A container's use. value: CPUs (1.0 is one of them), bytes of memory, bytes a second by network."""

    id: str
    name: str
    value: float


class Meters:
    """One kind of use of all that runs. The first look at a container says 0 of what is counted a second."""

    def __init__(self, engine: Engine, kind: str) -> None:
        self._engine, self._kind = engine, kind
        self._before: dict[str, tuple[float, float]] = {}
        layout = engine.host.cgroups
        self._unified = layout.version == 2
        wanted = "memory" if kind == "memory" else "cpuacct"
        trees = [h.path for h in layout.hierarchies if self._unified or wanted in h.controllers]
        self._tree = trees[0] if trees else ""

    def look(self) -> list[Reading]:
        """All that run, oldest first. One that ends meanwhile uses nothing."""
        found, before = [], self._before
        self._before = {}
        for row in self._engine.db.execute(_QUERY).fetchall():
            at = monotonic()
            group = self._tree + self._engine.store.cgroup(row["id"], row["parent"] or "")
            counted = self._count(group, row["pid"])
            self._before[row["id"]] = (at, counted)
            value = counted
            if self._kind != "memory":
                then, last = before.get(row["id"], (at, counted))
                value = max(0, counted - last) / (at - then) if at > then else 0.0
            found.append(Reading(row["id"], row["name"], value))
        return found

    def _count(self, group: str, pid: int) -> float:
        """CPU seconds, bytes, bytes."""
        if self._kind == "network":
            return sum(network_bytes(pid))
        if self._kind == "memory":
            return number_in(group + ("/memory.current" if self._unified else "/memory.usage_in_bytes"))
        if self._unified:
            return (read_counter(group + "/cpu.stat", "usage_usec") or 0) / 1e6
        return number_in(group + "/cpuacct.usage") / 1e9
