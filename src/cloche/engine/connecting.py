"""Networks as people ask for them: made, removed, joined and left by containers, also by those that run."""

from __future__ import annotations

import errno
import os

from cloche.engine.database import RUNNING
from cloche.engine.networks import RESERVED, is_own, resolvers
from cloche.engine.request import Connection
from cloche.engine.validation import is_network_name
from cloche.errors import Conflict, Error, Invalid, NotFound, Unsupported
from cloche.network.addresses import Range, address, number, subnet
from cloche.network.model import Network, Subnet
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.containers import Container, Engine
    from cloche.step.base import Step

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


def connect(engine: Engine, network: Network, container: Container, wanted: Connection | None = None) -> None:
    """Put a container on one more network, also one that runs. Raises Conflict, Invalid, Error."""
    mode = container.config.request.network
    what = f"connect container {container.name} to network {network.name}"
    if not is_own(mode):
        raise Conflict(what, f"its network is {mode}, which has no links of its own")
    engine.networks.add(container.id, network, wanted or Connection(network.name))
    try:
        if container.status == RUNNING:
            _join(engine, network, container, what)
        _rewrite(engine, container)
    except BaseException:
        _leave(engine, container, network.id)
        raise


def _join(engine: Engine, network: Network, container: Container, what: str) -> None:
    """Make the link, from here: what a caller who is killed leaves of it ends with the container."""
    from cloche.network.attachment import join, way_out
    from cloche.runtime.execution import Reach

    endpoints = engine.networks.endpoints(container.id, os.urandom(2).hex())
    mine = next(e for e in endpoints if e.network.id == network.id)
    alias = f"{engine.store.parent} {container.name}"
    routed = way_out(endpoints) is mine
    steps = join(engine.store.parent, alias, mine, routed, container.ports, os.path.exists("/proc/sys/net/ipv6"))
    done: list[Step] = []
    try:
        with Reach(container.pid, container.start_time) as reach:
            for step in steps:
                done.append(step)
                step.execute(reach)
        if names := resolvers((mine,)):
            engine.keeper.ask({"op": "names", "id": container.id, "gateways": list(names)})
    except BaseException as error:
        for step in reversed(done):
            step.undo()
        if isinstance(error, OSError):
            raise Error(f"{what}: {done[-1].name()}", error.errno or 5) from error
        raise


def _leave(engine: Engine, container: Container, network: str) -> int:
    """Take the row away; how many there were."""
    query = "DELETE FROM connections WHERE container=? AND network=?"
    return int(engine.db.execute(query, (container.id, network)).rowcount)


def disconnect(engine: Engine, name: str, container: Container, force: bool = False) -> None:
    """Take a container off a network, also one that runs. Raises NotFound, Error."""
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
    query = "SELECT position FROM connections WHERE container=? AND network=?"
    row = engine.db.execute(query, (container.id, ident)).fetchone()
    if row is None:
        raise NotFound(f"container {container.name} is not connected to network {name}")
    if container.status == RUNNING:
        try:
            _unlink(engine, container, ident, row["position"])
        except OSError as error:
            raise Error(f"disconnect container {container.name} from network {name}", error.errno or 5) from error
    _leave(engine, container, ident)
    _rewrite(engine, container)


def _unlink(engine: Engine, container: Container, network: str, position: int) -> None:
    """Delete the link inside; where it was the way out, the next network is. Raises OSError."""
    from cloche.kernel import rtnetlink
    from cloche.kernel.netlink import Netlink
    from cloche.network.attachment import publish, way_out
    from cloche.runtime.execution import Reach
    from cloche.step.network import NETWORK, AddRoute, EnterNetwork

    endpoints = engine.networks.endpoints(container.id)
    rest = tuple(e for e in endpoints if e.network.id != network)
    before, after = way_out(endpoints), way_out(rest)
    with Reach(container.pid, container.start_time) as reach:
        EnterNetwork().execute(reach)
        socket = Netlink.of(os.dup(reach.take(NETWORK)))
        try:
            socket.ask(rtnetlink.delete_link(f"eth{position}"))
        except OSError as error:
            if error.errno != errno.ENODEV:  # who connected it was killed in the middle, or who disconnected it
                raise
        finally:
            socket.close()
        if before is after or before is None:
            return
        for step in publish(engine.store.parent, before, container.ports):
            step.undo()
        if after is None:
            return
        for subnet in after.network.subnets:
            AddRoute(after.inside, subnet.gateway).execute(reach)
        for step in publish(engine.store.parent, after, container.ports):
            step.execute(reach)


def _rewrite(engine: Engine, container: Container) -> None:
    """The container's /etc/hosts after a change."""
    from cloche.engine.facts import write_files

    try:
        write_files(container.config, engine.store, container.id, engine.networks.endpoints(container.id))
    except NotFound:
        return  # a network that is gone; the next start says so
