"""Networks of a store and who is on them: made, found, removed; addresses given and taken back; what a start needs.

An address belongs to a container from its creation to its removal, so a container that is started again has it again.
The lowest that is free is given; `cursor` is below it (0 whenever one was given back), so that nobody counts from one.
"""

from __future__ import annotations

import os

from cloche.document import dumps, loads
from cloche.engine.sqlite import sqlite3
from cloche.errors import Conflict, Error, Invalid, NotFound
from cloche.network.addresses import Range, address, free_subnet, number
from cloche.network.model import Endpoint, Network, Port, Subnet, endpoint_mac
from cloche.transaction import Transaction
from cloche.value import Value, decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloche.engine.config import ContainerConfig
    from cloche.engine.request import Connection, PortMapping, RunRequest
    from cloche.engine.store import Store
    from cloche.step.attachment import Attachment

DEFAULT = "bridge"
RESERVED = ("none", "host", "default", "container")
_KINDS: dict[str, type[Value]] = {"Network": Network, "Subnet": Subnet, "Range": Range}
_TRIES = 1 << 17  # addresses that are looked at for a free one


def is_own(mode: str) -> bool:
    """Whether a container of this network mode has a namespace with links of its own."""
    return mode not in ("none", "host") and mode[:10] != "container:"


def fixed_id(name: str) -> str:
    """An id that is always the same."""
    from hashlib import sha256

    return sha256(name.encode()).hexdigest()


class Networks:
    """The store's networks. Not for several threads at once."""

    def __init__(self, store: Store, db: sqlite3.Connection) -> None:
        self._store, self._db = store, db

    # -- finding

    def all(self) -> list[Network]:
        """Every network, oldest first."""
        rows = self._db.execute("SELECT config FROM networks ORDER BY created").fetchall()
        return [decode(loads(row["config"]), _KINDS) for row in rows]

    def without_links(self) -> tuple[Network, ...]:
        """`host` and `none`, which Docker lists with the others."""
        return tuple(
            Network(fixed_id(name), name, driver, "", ()) for name, driver in (("host", "host"), ("none", "null"))
        )

    def look_up(self, name: str) -> Network:
        """As find(), and `host` and `none` by name. Raises NotFound, Conflict."""
        return next((n for n in self.without_links() if n.name == name), None) or self.find(name)

    def find(self, name: str) -> Network:
        """By name, id, or the beginning of an id; the default network is made when it is first asked for.

        Raises NotFound, Conflict.
        """
        if name in ("default", DEFAULT):
            return self.default()
        row = self._db.execute("SELECT config FROM networks WHERE name=? OR id=?", (name, name)).fetchone()
        if row is None and name and all(c in "0123456789abcdef" for c in name):
            like = self._db.execute(
                "SELECT config FROM networks WHERE id >= ? AND id < ? LIMIT 2", (name, name + "g")
            ).fetchall()
            if len(like) > 1:
                raise Conflict(f"find network {name}", "more than one id begins so", "give more of it")
            row = like[0] if like else None
        if row is None:
            raise NotFound(f"network {name} not found", "", "`cloche network ls` lists them")
        network: Network = decode(loads(row["config"]), _KINDS)
        return network

    def default(self) -> Network:
        """The network `bridge`. Raises Invalid when no subnet is free."""
        row = self._db.execute("SELECT config FROM networks WHERE name=?", (DEFAULT,)).fetchone()
        if row is None:
            ident = os.urandom(32).hex()
            link = "cloche0" if self._store.parent == "cloche" else f"clo-{ident[:10]}"
            self.insert(Network(ident, DEFAULT, "bridge", link, ()), ())
            return self.default()
        network: Network = decode(loads(row["config"]), _KINDS)
        return network

    # -- making

    def insert(self, wanted: Network, subnets: tuple[Subnet, ...]) -> Network:
        """Record a network; without an IPv4 subnet one that is free is found, under the lock. Raises Conflict."""
        from time import time_ns

        try:
            with Transaction(self._db):
                if wanted.driver == "bridge":
                    self._check_free(wanted.name, subnets)
                if not any(not s.range.wide for s in subnets):
                    subnets = (self._free(), *subnets)
                network = wanted.replace(subnets=subnets, created=time_ns())
                self._db.execute(
                    "INSERT INTO networks (id, name, created, config, cursor) VALUES (?, ?, ?, ?, 0)",
                    (network.id, network.name, network.created, dumps(encode(network))),
                )
        except sqlite3.IntegrityError:
            if wanted.name == DEFAULT:
                return self.default()  # another process has made it at the same moment
            raise Conflict(f"network with name {wanted.name} already exists") from None
        return network

    def _check_free(self, name: str, subnets: tuple[Subnet, ...]) -> None:
        """Somebody may have made a network of these since they were looked at. Raises Conflict."""
        known = [s.range for network in self.all() for s in network.subnets if network.driver == "bridge"]
        for subnet in subnets:
            clash = next((r for r in known if r.overlaps(subnet.range)), None)
            if clash:
                cause = f"Pool overlaps with other one on this address space: {clash.text()}"
                raise Conflict(f"create network {name}: subnet {subnet.range.text()}", cause)

    def taken(self) -> list[Range]:
        """Where addresses are in use: networks of ours, routes of the host. Raises OSError."""
        from cloche.kernel import rtnetlink

        socket = rtnetlink.host()
        found = [s.range for network in self.all() for s in network.subnets]
        for family, wide in ((2, False), (10, True)):
            try:
                found += [
                    Range(int.from_bytes(to, "big"), prefix, wide) for to, prefix, _ in rtnetlink.routes(socket, family)
                ]
            except OSError:
                if not wide:  # a kernel without IPv6 has no such routes
                    raise
        return found

    def _free(self) -> Subnet:
        pool = free_subnet(self.taken())
        return Subnet(pool, address(pool.base + 1, pool.wide), pool)

    # -- containers on networks

    def connect(self, ident: str, request: RunRequest) -> None:
        """Give a container its place on each network that its request names. Raises NotFound, Conflict, Invalid."""
        from cloche.engine.request import Connection

        if not is_own(request.network):
            return
        for position, wanted in enumerate(request.networking.connections or (Connection(request.network),)):
            self._join(ident, position, self.find(wanted.network), wanted)

    def add(self, ident: str, network: Network, wanted: Connection) -> None:
        """Give a container a place on one more network. Raises NotFound, Conflict, Invalid."""
        query = "SELECT max(position) AS last FROM connections WHERE container=?"
        last = self._db.execute(query, (ident,)).fetchone()["last"]
        self._join(ident, 0 if last is None else last + 1, network, wanted)

    def _join(self, ident: str, position: int, network: Network, wanted: Connection) -> None:
        asked = {":" in text: text for text in (wanted.ip, wanted.ip6) if text}
        for text in asked.values():
            self._check_asked(network, text)
        row = self._db.execute("SELECT cursor FROM networks WHERE id=?", (network.id,)).fetchone()
        if row is None:
            raise NotFound(f"network {network.name} not found", "it was removed meanwhile")
        cursor = row["cursor"]
        taken: set[str] = set()
        for _ in range(_TRIES):
            cursor, addresses = self._next(network, cursor, asked, taken)
            mac = wanted.mac or endpoint_mac(addresses)
            try:
                self._insert(ident, network, position, addresses, mac, wanted.aliases, cursor)
                return
            except sqlite3.IntegrityError:
                taken = self._addresses(network)
                if taken.intersection(asked.values()) or self._is_on(ident, network):
                    self._refuse(ident, network, asked)
        raise Conflict(f"give container {ident[:12]} an address of {network.name}", "no available IPv4 addresses")

    def _insert(
        self,
        ident: str,
        network: Network,
        position: int,
        addresses: tuple[str, ...],
        mac: str,
        aliases: tuple[str, ...],
        cursor: int,
    ) -> None:
        ip4 = next((a for a in addresses if ":" not in a), None)
        ip6 = next((a for a in addresses if ":" in a), None)
        with Transaction(self._db):
            self._db.execute(
                "INSERT INTO connections (container, network, position, ip4, ip6, mac, aliases)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (ident, network.id, position, ip4, ip6, mac, " ".join(aliases)),
            )
            self._db.execute("UPDATE networks SET cursor=? WHERE id=?", (cursor, network.id))

    def _is_on(self, ident: str, network: Network) -> bool:
        query = "SELECT 1 FROM connections WHERE container=? AND network=?"
        return self._db.execute(query, (ident, network.id)).fetchone() is not None

    def _refuse(self, ident: str, network: Network, asked: dict[bool, str]) -> None:
        what = f"connect container {ident[:12]} to network {network.name}"
        if self._is_on(ident, network):
            raise Conflict(what, f"endpoint already exists in network {network.name}")
        raise Conflict(
            what, f"Address already in use: {' '.join(asked.values())}", "`cloche network inspect` shows whose"
        )

    def _check_asked(self, network: Network, text: str) -> None:
        value = number(text)
        for subnet in network.subnets:
            if subnet.range.wide == (":" in text) and subnet.range.has(value):
                if subnet.in_use(value):
                    raise Conflict(
                        f"use the address {text} of network {network.name}", "it is the gateway's, or for all"
                    )
                return
        ranges = ", ".join(s.range.text() for s in network.subnets)
        raise Invalid(f"use the address {text}", f"it is not of network {network.name}", f"its subnets: {ranges}")

    def _addresses(self, network: Network) -> set[str]:
        """All that are given."""
        rows = self._db.execute("SELECT ip4, ip6 FROM connections WHERE network=?", (network.id,)).fetchall()
        return {text for row in rows for text in row}

    def _next(
        self, network: Network, cursor: int, asked: dict[bool, str], taken: set[str]
    ) -> tuple[int, tuple[str, ...]]:
        """The next host number that is nobody's, and the addresses with it. Raises Conflict."""
        least = min(s.pool.size for s in network.subnets)
        for _ in range(min(least, _TRIES)):
            cursor = (cursor + 1) % least
            free = [address(s.pool.base + cursor, s.range.wide) for s in network.subnets]
            unusable = any(s.in_use(s.pool.base + cursor) for s in network.subnets)
            if not unusable and taken.isdisjoint(free):
                found = (asked.get(s.range.wide, a) for s, a in zip(network.subnets, free, strict=True))
                return cursor, tuple(found)
        raise Conflict(f"use network {network.name}", "it has no more addresses", "remove containers that are on it")

    def preview(self, ident: str, request: RunRequest) -> tuple[Endpoint, ...]:
        """Which places it would get now. Raises NotFound, Conflict."""
        from cloche.engine.request import Connection

        found = []
        for position, wanted in enumerate(request.networking.connections or (Connection(request.network),)):
            network = self.find(wanted.network)
            asked = {":" in text: text for text in (wanted.ip, wanted.ip6) if text}
            cursor = self._db.execute("SELECT cursor FROM networks WHERE id=?", (network.id,)).fetchone()["cursor"]
            _, addresses = self._next(network, cursor, asked, self._addresses(network))
            mac = wanted.mac or endpoint_mac(addresses)
            found.append(Endpoint(network, addresses, mac, wanted.aliases, f"cl{ident}-{position}", f"eth{position}"))
        return tuple(found)

    def resolve(self, mine: list[Network], name: str) -> tuple[str, ...] | None:
        """The addresses of those who run and are called so on one of these networks: by name, short id, or alias."""
        marks = ",".join("?" * len(mine))
        wanted = name.lower()
        rows = self._db.execute(
            "SELECT c.ip4, c.ip6 FROM connections c JOIN containers k ON k.id = c.container"
            f" WHERE c.network IN ({marks}) AND k.status = 'running' AND (lower(k.name) = ? OR substr(k.id, 1, 12) = ?"
            " OR instr(' ' || lower(c.aliases) || ' ', ' ' || ? || ' '))",
            (*(n.id for n in mine), wanted, wanted, wanted),
        ).fetchall()
        found = [text for row in rows for text in row if text]
        return tuple(found) if rows and wanted and " " not in wanted else None

    def named(self, mine: list[Network], text: str) -> str:
        """The name of who has an address on one of these networks; "" for nobody's."""
        marks = ",".join("?" * len(mine))
        row = self._db.execute(
            "SELECT k.name FROM connections c JOIN containers k ON k.id = c.container"
            f" WHERE c.network IN ({marks}) AND k.status = 'running' AND (c.ip4 = ? OR c.ip6 = ?)",
            (*(n.id for n in mine), text, text),
        ).fetchone()
        return row["name"] if row else ""

    def names_of_all(self) -> dict[str, list[str]]:
        """The names of the networks that each container is on, by its id; those that have only a mode are not there."""
        names = {network.id: network.name for network in self.all()}
        found: dict[str, list[str]] = {}
        for row in self._db.execute("SELECT container, network FROM connections ORDER BY position"):
            found.setdefault(row["container"], []).append(names.get(row["network"], row["network"][:12]))
        return found

    def endpoints(self, ident: str, attempt: str = "") -> tuple[Endpoint, ...]:
        """A container's places, in order; links are named for this attempt to start it. Raises NotFound."""
        found = []
        rows = self._db.execute(
            "SELECT c.*, n.config FROM connections c LEFT JOIN networks n ON n.id = c.network"
            " WHERE c.container=? ORDER BY c.position",
            (ident,),
        ).fetchall()
        for row in rows:
            if row["config"] is None:
                hint = f"cloche network disconnect -f {row['network'][:12]} {ident[:12]}"
                raise NotFound(f"network {row['network'][:12]} not found", "it was removed", hint)
            network: Network = decode(loads(row["config"]), _KINDS)
            found.append(_endpoint(row, network, ident, attempt))
        return tuple(found)


def _endpoint(row: sqlite3.Row, network: Network, ident: str, attempt: str) -> Endpoint:
    addresses = tuple(row["ip6"] if s.range.wide else row["ip4"] for s in network.subnets)
    at = row["position"]
    link = f"cl{ident[:7]}-{attempt[:4]}{at % 10}"  # 15 bytes at most, IFNAMSIZ
    return Endpoint(network, addresses, row["mac"], tuple(row["aliases"].split()), link, f"eth{at}")


def resolvers(endpoints: tuple[Endpoint, ...]) -> tuple[str, ...]:
    """Where a container asks for names: at the gateways of the networks that people have made. The default one has no
    names, as Docker's."""
    return tuple(
        subnet.gateway
        for endpoint in endpoints
        if endpoint.network.driver == "bridge" and endpoint.network.name != DEFAULT
        for subnet in endpoint.network.subnets
    )


def published(
    config: ContainerConfig, endpoints: tuple[Endpoint, ...], pick: Iterable[int] | None = None
) -> tuple[Port, ...]:
    """The ports of one start: those asked for, and with -P those that are exposed; a port of the host that may be any
    is chosen now. Raises Conflict."""
    request = config.request
    wanted = list(request.networking.ports)
    if request.networking.publish_all:
        from cloche.engine.request import PortMapping

        have = {(p.inside, p.protocol) for p in wanted}
        wanted += [PortMapping(port, protocol) for port, protocol in config.exposed if (port, protocol) not in have]
    if not wanted or not is_own(request.network):
        return ()
    way_out = next((e for e in endpoints if not e.network.internal and e.network.driver == "bridge"), None)
    families = {":" in a for a in way_out.addresses} if way_out else set()
    found: list[Port] = []
    for mapping in wanted:
        hosts = [mapping.address] if mapping.address else [h for h in ("0.0.0.0", "::") if (":" in h) in families]
        hosts = [h for h in hosts if (":" in h) in families]
        port = mapping.port if mapping.port and not mapping.last else 0
        for host in hosts:
            port = port or _any_port(host, mapping)
            found.append(Port(host, mapping.protocol, port, mapping.inside))
    return tuple(found)


def _any_port(host: str, mapping: PortMapping) -> int:
    """A port that is free now, of the range that was given or of the kernel's. Raises Error, Conflict."""
    import _socket

    from cloche.step.network import reserve

    for port in range(mapping.port, mapping.last + 1) if mapping.last else (0,):
        try:
            sock = _socket.socket(fileno=reserve(host, mapping.protocol, port))
        except OSError as error:
            if mapping.last and error.errno == 98:  # EADDRINUSE
                continue
            raise Error(f"find a free port of {host}", error.errno or 5) from error
        try:
            return int(sock.getsockname()[1])
        finally:
            sock.close()
    raise Conflict(f"publish port {mapping.inside}", f"all ports from {mapping.port} to {mapping.last} are taken")


def attachment(store: Store, name: str, endpoints: tuple[Endpoint, ...], ports: tuple[Port, ...]) -> Attachment:
    """The steps of a start."""
    from cloche.network.attachment import attach

    ipv6 = os.path.exists("/proc/sys/net/ipv6")
    new = tuple(n.link for n in _new_bridges(endpoints))
    dropped = new if new and _is_dropped(store) else ()
    return attach(store.parent, f"{store.parent} {name}", endpoints, ports, ipv6, dropped)


def _new_bridges(endpoints: tuple[Endpoint, ...]) -> list[Network]:
    from _socket import if_nametoindex

    found = []
    for network in (e.network for e in endpoints if e.network.driver == "bridge"):
        try:
            if_nametoindex(network.link)
        except OSError:
            found.append(network)
    return found


def _is_dropped(store: Store) -> bool:
    """Whether another firewall would drop what a new bridge's containers send, and lets us add rules."""
    from cloche.step.firewall import docker_user, droppers

    try:
        return bool(droppers(store.parent)) and bool(docker_user())
    except OSError:
        return False  # a kernel without nf_tables: the plan says so


def notices(store: Store, endpoints: tuple[Endpoint, ...]) -> list[str]:
    """What the caller should know of a start that makes a bridge: what is switched on, what stands in the way."""
    found: list[str] = []
    for network in _new_bridges(endpoints):
        if not network.internal and not found:
            with open("/proc/sys/net/ipv4/ip_forward", "rb") as file:
                if file.read().strip() == b"0":
                    found.append("IP forwarding of this host is switched on (net.ipv4.ip_forward=1): bridges need it")
        if not network.internal and (said := _obstacle(store, network.link)):
            found.append(said)
    return found


def _obstacle(store: Store, bridge: str) -> str:
    """What stands in the way of a network, and the command that helps; "" when nothing that we can see does."""
    from cloche.step.firewall import docker_user, droppers

    try:
        found = [] if docker_user() else droppers(store.parent)
    except OSError:
        return ""
    if not found:
        return ""
    chain = found[0]
    where = f"{'inet' if chain.family == 1 else 'ip'} {chain.table} {chain.name}"
    if chain.table == "firewalld":
        command = f"firewall-cmd --permanent --zone=trusted --add-interface={bridge} && firewall-cmd --reload"
    elif os.path.exists("/etc/ufw/ufw.conf"):
        command = f"ufw route allow in on {bridge} && ufw route allow out on {bridge}"
    else:
        command = f"for way in iifname oifname; do nft insert rule {where} $way {bridge} accept; done"
    return f"the firewall chain {where} drops what containers send to other hosts; to allow it: {command}"
