"""Volumes, for the SDK: `Client(...).volumes`.

client.volumes.create("data")
client.run("starter", ["sh", "-c", "echo kept > /data/file"], volumes=["data:/data"], remove=True)
"""

from __future__ import annotations

from cloche.display import Table, card
from cloche.engine import volumes as engine_volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cloche.engine.containers import Engine
    from cloche.engine.pruning import Pruned
    from cloche.options import Filters


class Volume:
    """A volume, by its name."""

    def __init__(self, store: engine_volumes.Volumes, record: engine_volumes.Volume) -> None:
        self._store, self._record = store, record
        self.name = record.name

    def __repr__(self) -> str:
        return f"<cloche.Volume {self.name}>"

    def _row_(self) -> dict[str, str]:
        return {"name": self.name, "labels": ", ".join(f"{k}={v}" for k, v in self._record.labels)}

    def _repr_html_(self) -> str:
        return card(self.name, {"path": self.path, "containers": ", ".join(self.users)})

    @property
    def labels(self) -> dict[str, str]:
        """What is said about it."""
        return dict(self._record.labels)

    @property
    def path(self) -> str:
        """Where the host has its files."""
        return self._store.mountpoint(self.name)

    @property
    def users(self) -> list[str]:
        """The names of the containers that have it, also of those that do not run."""
        return self._store.users(self.name)

    def inspect(self) -> dict[str, Any]:
        """All that is known, in the shape of Docker's API."""
        return engine_volumes.document(self._store, self._store.find(self.name))

    def remove(self) -> None:
        """Remove it with all that is in it. Raises Conflict when a container has it, NotFound."""
        self._store.remove(self._record)


class Volumes:
    """The volumes of a client's store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def _store(self) -> engine_volumes.Volumes:
        return engine_volumes.Volumes(self._engine.store, self._engine.db)

    def create(self, name: str = "", labels: Mapping[str, str] | None = None) -> Volume:
        """Make one, or give the one of this name; without a name it gets one. Raises Invalid."""
        return Volume(self._store, self._store.create(name, tuple((labels or {}).items())))

    def get(self, name: str) -> Volume:
        """By its whole name. Raises NotFound."""
        return Volume(self._store, self._store.find(name))

    def list(self, dangling: bool | None = None) -> Table[Volume]:
        """All, or those that no container has (`dangling`), or those that one has; by name."""
        used = self._store.used()
        return Table(
            Volume(self._store, v) for v in self._store.all() if dangling is None or (v.name not in used) == dangling
        )

    def prune(self, all: bool = False, filters: Filters | None = None) -> Pruned:
        """Remove those that nobody named and no container has; with `all` also those with a name. Raises Invalid.

        filters: label, label!.
        """
        from cloche.engine.pruning import check_filters, matches, prune_volumes
        from cloche.options import filter_pairs

        wanted = filter_pairs(filters)
        check_filters(wanted)
        meant = (v for v in self._store.all() if matches(dict(v.labels), v.created, wanted))
        return prune_volumes(self._store, meant, all)
