"""Networks as people ask for them: made, removed, joined and left by containers, also by those that run."""

from __future__ import annotations

import os

from cloche.engine.database import RUNNING
from cloche.engine.networks import RESERVED, is_own
from cloche.engine.validation import is_network_name
from cloche.errors import Conflict, Invalid, NotFound, Unsupported
from cloche.network.addresses import Range, address, number, subnet
from cloche.network.model import Network, Subnet
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.containers import Container, Engine

_MTU = "com.docker.network.driver.mtu"
_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
_NAME = "com.docker.network.bridge.name"


class NetworkRequest(Value):
    """A network to make. subnets, gateways, ranges: text; a gateway and a range belong to the subnet they lie in."""

    name: str
    driver: str = "bridge"
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    ipv6: bool = False
    internal: bool = False
    options: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


def create(engine: Engine, wanted: NetworkRequest) -> Network:
    """Record a network; its bridge is made when a container first needs it. Raises Invalid, Conflict, Unsupported."""
    what = f"create network {wanted.name}"
    if not is_network_name(wanted.name):
        raise Invalid(what, "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    if wanted.name in RESERVED or wanted.name == "bridge":
        raise Conflict(what, "operation is not permitted on predefined networks")
    if wanted.driver not in ("bridge", "macvlan"):
        raise Unsupported(f"{what}: driver {wanted.driver}", "", "bridge or macvlan")
    ident, options = os.urandom(32).hex(), dict(wanted.options)
    link, mtu = _link(what, wanted, ident, options), _mtu(what, options)
    masquerade = options.pop(_MASQUERADE, "true") not in ("false", "0")
    if options:
        raise Unsupported(f"{what}: option {min(options)}", "it is not there yet")
    subnets = _subnets(engine, wanted)
    if wanted.driver == "macvlan" and not any(not s.range.wide for s in subnets):
        raise Invalid(what, "a macvlan network needs the subnet of its wire", "--subnet 192.168.1.0/24 --gateway ...")
    network = Network(
        ident,
        wanted.name,
        wanted.driver,
        link,
        subnets,
        wanted.internal,
        masquerade,
        mtu,
        labels=wanted.labels,
        options=wanted.options,
    )
    return engine.networks.insert(network, subnets)


def _link(what: str, wanted: NetworkRequest, ident: str, options: dict[str, str]) -> str:
    """The bridge's name, or that of the link below a macvlan."""
    parent, name = options.pop("parent", ""), options.pop(_NAME, "")
    given = parent or name
    if given and (len(given.encode()) > 15 or "/" in given or not given.isprintable() or " " in given or given == "."):
        raise Invalid(what, f"'{given}' is no name of an interface", "at most 15 bytes, see ip-link(8)")
    if wanted.driver == "macvlan":
        if not parent:
            raise Invalid(what, "a macvlan network needs a link of the host", "-o parent=eth0")
        return parent
    if parent:
        raise Invalid(what, "a bridge has no parent", "-d macvlan")
    return name or f"clo-{ident[:10]}"


def _mtu(what: str, options: dict[str, str]) -> int:
    text = options.pop(_MTU, "0")
    if not text.isascii() or not text.isdigit() or (text != "0" and not 68 <= int(text) <= 65535):
        raise Invalid(what, f"invalid MTU {text}", "from 68 to 65535")
    return int(text)


def _subnets(engine: Engine, wanted: NetworkRequest) -> tuple[Subnet, ...]:
    what = f"create network {wanted.name}"
    ranges = [subnet(text) for text in wanted.subnets]
    for wide in (False, True):
        if sum(r.wide == wide for r in ranges) > 1:
            raise Unsupported(f"{what}: several subnets of one kind", "they are not there yet")
    if any(r.wide for r in ranges) and not wanted.ipv6:
        raise Invalid(what, "an IPv6 subnet needs --ipv6")
    if wanted.ipv6 and not any(r.wide for r in ranges):
        ranges.append(Range(int.from_bytes(b"\xfd" + os.urandom(7) + bytes(8), "big"), 64, True))
    taken = engine.networks.taken() if wanted.driver == "bridge" else []
    found = []
    for each in ranges:
        clash = next((r for r in taken if r.prefix and r.overlaps(each)), None)
        if clash:
            cause = f"Pool overlaps with other one on this address space: {clash.text()}"
            raise Conflict(f"{what}: subnet {each.text()}", cause, "`ip route` shows what the host knows")
        if each.size < 4:
            raise Invalid(f"{what}: subnet {each.text()}", "it has no room for a gateway and a container")
        found.append(_subnet(what, each, wanted))
    for text in (*wanted.gateways, *wanted.ranges):
        value = number(text.partition("/")[0])
        if not any(s.range.wide == (":" in text) and s.range.has(value) for s in found):
            raise Invalid(f"{what}: {text}", "no matching subnet", "give the subnet too: --subnet")
    return tuple(sorted(found, key=lambda s: s.range.wide))


def _subnet(what: str, each: Range, wanted: NetworkRequest) -> Subnet:
    gateway = next((g for g in wanted.gateways if (":" in g) == each.wide and each.has(number(g))), "")
    pool = each
    for text in wanted.ranges:
        if (":" in text) == each.wide:
            pool = subnet(text)
            if not each.has(pool.base) or pool.size > each.size:
                raise Invalid(f"{what}: range {text}", f"it is not within {each.text()}")
    if gateway and number(gateway) in (each.base, each.base + each.size - 1) and not each.wide:
        raise Invalid(f"{what}: gateway {gateway}", "the first and last address of a subnet are for all")
    return Subnet(each, address(number(gateway), each.wide) if gateway else address(each.base + 1, each.wide), pool)


def users(engine: Engine, network: Network) -> list[Container]:
    """The containers that are on it."""
    rows = engine.db.execute("SELECT container FROM connections WHERE network=?", (network.id,)).fetchall()
    mine = {row["container"] for row in rows}
    return [c for c in engine.containers() if c.id in mine]


def remove(engine: Engine, network: Network) -> None:
    """Remove a network, and its bridge where there is one. Raises Conflict, OSError."""
    what = f"remove network {network.name}"
    if network.name == "bridge":
        raise Conflict(what, "bridge is a pre-defined network and cannot be removed")
    active = [c.name for c in users(engine, network) if c.status == RUNNING]
    if active:
        hint = f"stop them, or: cloche network disconnect {network.name} {active[0]}"
        raise Conflict(what, f"network has active endpoints: {', '.join(sorted(active))}", hint)
    engine.db.execute("DELETE FROM networks WHERE id=?", (network.id,))
    if network.driver == "bridge":
        from cloche.network.attachment import raise_network
        from cloche.step.firewall import LetThrough

        for step in (LetThrough(network.link), *reversed(raise_network(network, engine.store.parent, True))):
            step.take_down()


def connect(engine: Engine, network: Network, container: Container, wanted: object = None) -> None:
    """Put a container on one more network. Raises Conflict, Invalid."""
    from cloche.engine.request import Connection

    if not is_own(container.config.request.network):
        mode = container.config.request.network
        raise Conflict(f"connect container {container.name}", f"its network is {mode}, which has no links of its own")
    if container.status == RUNNING:
        raise Unsupported(f"connect container {container.name}: it runs", "that is not there yet", "stop it before")
    connection = wanted if isinstance(wanted, Connection) else Connection(network.name)
    engine.networks.add(container.id, network, connection)
    rewrite(engine, container)


def disconnect(engine: Engine, name: str, container: Container, force: bool = False) -> None:
    """Take a container off a network. Raises NotFound, Conflict."""
    if container.status == RUNNING:
        raise Unsupported(f"disconnect container {container.name}: it runs", "that is not there yet", "stop it before")
    try:
        ident = engine.networks.find(name).id
    except NotFound:
        row = engine.db.execute(
            "SELECT network FROM connections WHERE container=? AND network>=? AND network<?",
            (container.id, name, name + "g"),
        ).fetchone()
        if not force or row is None:
            raise
        ident = row["network"]
    done = engine.db.execute("DELETE FROM connections WHERE container=? AND network=?", (container.id, ident))
    if not done.rowcount:
        raise NotFound(f"container {container.name} is not connected to network {name}")
    rewrite(engine, container)


def rewrite(engine: Engine, container: Container) -> None:
    """The container's /etc/hosts after a change."""
    from cloche.engine.facts import write_files

    try:
        write_files(container.config, engine.store, container.id, engine.networks.endpoints(container.id))
    except NotFound:
        return  # a network that is gone; the next start says so
