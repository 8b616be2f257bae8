"""Networks, for the SDK: `Client(...).networks`.

back = client.networks.create("back")
client.run("starter", ["sleep", "60"], detach=True, network="back", name="db")
"""

from __future__ import annotations

from cloche.display import Table, card
from cloche.engine import connecting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from cloche.engine.containers import Engine
    from cloche.network.model import Network as Record
    from cloche.options import Filters
    from cloche.sdk import Container


class Network:
    """A network, by its id."""

    def __init__(self, engine: Engine, record: Record) -> None:
        self._engine, self._record = engine, record
        self.id, self.name, self.driver = record.id, record.name, record.driver

    def __repr__(self) -> str:
        return f"<cloche.Network {self.name} {self.id[:12]}>"

    def _row_(self) -> dict[str, str]:
        return {
            "name": self.name,
            "id": self.id[:12],
            "driver": self.driver,
            "subnets": ", ".join(self.subnets),
            "internal": "yes" if self._record.internal else "",
        }

    def _repr_html_(self) -> str:
        facts = self._row_()
        return card(facts.pop("name"), facts)

    @property
    def subnets(self) -> list[str]:
        """Where its addresses are from."""
        return [subnet.range.text() for subnet in self._record.subnets]

    @property
    def internal(self) -> bool:
        """Whether it has no way out."""
        return self._record.internal

    @property
    def labels(self) -> dict[str, str]:
        """What is said about it."""
        return dict(self._record.labels)

    @property
    def users(self) -> list[str]:
        """The names of the containers that are on it, also of those that do not run."""
        return [c.name for c in connecting.users(self._engine, self._record)]

    def inspect(self) -> dict[str, Any]:
        """All that is known, in the shape of Docker's API."""
        from cloche.engine.netinspection import network

        return network(self._engine, self._record)

    def connect(self, container: Container | str, *, ip: str = "", ip6: str = "", aliases: Sequence[str] = ()) -> None:
        """Put a container on it, also one that runs. Raises NotFound, Conflict, Invalid, Error."""
        from cloche.engine.request import Connection

        found = self._engine.find(container if isinstance(container, str) else container.id)
        connecting.connect(self._engine, self._record, found, Connection(self.name, ip, ip6, tuple(aliases)))

    def disconnect(self, container: Container | str, force: bool = False) -> None:
        """Take a container off it, also one that runs. Raises NotFound, Error."""
        found = self._engine.find(container if isinstance(container, str) else container.id)
        connecting.disconnect(self._engine, self.id, found, force)

    def remove(self) -> None:
        """Remove it. Raises Conflict when a container on it runs."""
        connecting.remove(self._engine, self._record)


class Networks:
    """The networks of a client's store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        subnets: Sequence[str] = (),
        gateways: Sequence[str] = (),
        ip_ranges: Sequence[str] = (),
        ipv6: bool = False,
        internal: bool = False,
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Network:
        """Make one; without a subnet it gets one that is free. Raises Invalid, Conflict, Unsupported."""
        wanted = connecting.NetworkRequest(
            name,
            driver,
            tuple(subnets),
            tuple(gateways),
            tuple(ip_ranges),
            ipv6,
            internal,
            tuple((options or {}).items()),
            tuple((labels or {}).items()),
        )
        return Network(self._engine, connecting.create(self._engine, wanted))

    def get(self, name: str) -> Network:
        """By name, id, or the beginning of an id; `bridge`, `host` and `none` are always there. Raises NotFound,
        Conflict."""
        fixed = next((n for n in self._engine.networks.without_links() if n.name == name), None)
        return Network(self._engine, fixed or self._engine.networks.find(name))

    def list(self) -> Table[Network]:
        """All, `bridge`, `host` and `none` among them; by name."""
        networks = self._engine.networks
        networks.default()
        found = sorted((*networks.all(), *networks.without_links()), key=lambda n: n.name)
        return Table(Network(self._engine, record) for record in found)

    def prune(self, filters: Filters | None = None) -> tuple[str, ...]:
        """Remove those that somebody made and no container is on; their names. Raises Invalid."""
        from cloche.engine.pruning import check_filters, prune_networks
        from cloche.options import filter_pairs

        wanted = filter_pairs(filters)
        check_filters(wanted)
        return prune_networks(self._engine, wanted)
