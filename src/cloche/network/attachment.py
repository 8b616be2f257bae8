"""The steps by which a container comes onto its networks, and its ports onto the host. Pure."""

from __future__ import annotations

from cloche.step.attachment import Attachment
from cloche.step.base import Ref
from cloche.step.firewall import LetThrough, MakeFirewall, bridge_elements, port_element
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
from cloche.value import remembered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.network.model import Endpoint, Network, Port
    from cloche.step.base import Step

_IPV4, _IPV6 = "/proc/sys/net/ipv4", "/proc/sys/net/ipv6"


@remembered
def raise_network(network: Network, table: str, ipv6: bool) -> tuple[Step, ...]:
    """What of a bridge must be there before a container can be on it; all of it may be there already."""
    if network.driver != "bridge":
        return ()
    link = network.link
    wide = any(s.range.wide for s in network.subnets)
    steps: list[Step] = [
        MakeFirewall(table),
        MakeBridge(link, network.mac(), f"{table} network {network.name}", network.mtu),
        *bridge_elements(
            table, link, tuple(s.range.text() for s in network.subnets), network.internal, network.masquerade
        ),
    ]
    if not network.internal:
        steps.append(WriteSetting(_IPV4 + "/ip_forward", "1"))
        if wide:
            steps.append(WriteSetting(_IPV6 + "/conf/all/forwarding", "1"))
    # what comes to 127.0.0.1 of the host may be sent on to a container: published ports on loopback
    steps.append(WriteSetting(f"{_IPV4}/conf/{link}/route_localnet", "1"))
    if ipv6:
        # CVE-2020-13401: a container that plays router must not be believed, neither here nor inside
        which, value = ("accept_ra", "0") if wide else ("disable_ipv6", "1")
        steps.append(WriteSetting(f"{_IPV6}/conf/{link}/{which}", value))
    steps += [AddBridgeAddress(link, subnet.gateway, subnet.range.prefix) for subnet in network.subnets]
    return tuple(steps)


def _own(endpoint: Endpoint, alias: str, routed: bool, hairpin: bool) -> list[Step]:
    network, inside = endpoint.network, endpoint.inside
    steps: list[Step] = []
    if network.driver == "macvlan":
        steps.append(MakeMacvlan(inside, network.link, endpoint.mac, network.mtu))
    else:
        steps.append(MakeVeth(endpoint.link, inside, network.link, endpoint.mac, alias, network.mtu, hairpin))
    pairs = list(zip(endpoint.addresses, network.subnets, strict=True))
    steps += [AddAddress(inside, address, subnet.range.prefix) for address, subnet in pairs]
    steps.append(SetLinkUp(inside))
    if routed:
        steps += [AddRoute(inside, subnet.gateway) for _, subnet in pairs if subnet.gateway]
    return steps


def join(
    table: str, alias: str, endpoint: Endpoint, routed: bool, ports: tuple[Port, ...], ipv6: bool
) -> tuple[Step, ...]:
    """The steps by which a container that runs comes onto one more network; its ports, where that is its way out."""
    wide = any(":" in a for a in endpoint.addresses)
    settings = (("ipv6/conf/default/accept_ra", "0"),) if wide else ()
    settings = (("ipv6/conf/default/disable_ipv6", "0" if wide else "1"), *settings)
    own = _own(endpoint, alias, routed, bool(ports))
    shared = raise_network(endpoint.network, table, ipv6)
    return (*shared, EnterNetwork(settings if ipv6 else ()), *own, *(publish(table, endpoint, ports) if routed else ()))


def publish(table: str, endpoint: Endpoint, ports: tuple[Port, ...]) -> list[Step]:
    """The elements that lead ports of the host to a container on this network."""
    found: list[Step] = []
    for port in ports:
        to = next((a for a in endpoint.addresses if (":" in a) == (":" in port.address)), "")
        if to:
            found.append(port_element(table, port.address, port.protocol, port.port, to, port.inside))
    return found


def way_out(endpoints: tuple[Endpoint, ...]) -> Endpoint | None:
    """The network by which a container reaches the rest of the world: its first that is not internal."""
    return next((e for e in endpoints if not e.network.internal), None)


def attach(
    table: str,
    alias: str,
    endpoints: tuple[Endpoint, ...],
    ports: tuple[Port, ...],
    ipv6: bool,
    dropped: tuple[str, ...] = (),
) -> Attachment:
    """The steps of one start. The first network that has a way out has the default route, and the published ports.

    dropped: bridges whose packets another firewall would drop, and lets us say otherwise.
    """
    shared: list[Step] = []
    for endpoint in endpoints:
        shared += [s for s in raise_network(endpoint.network, table, ipv6) if s not in shared]
    shared += [LetThrough(link) for link in dropped]
    wide = any(":" in a for endpoint in endpoints for a in endpoint.addresses)
    settings = (("ipv6/conf/default/accept_ra", "0") if wide else ("ipv6/conf/default/disable_ipv6", "1"),)
    own: list[Step] = [EnterNetwork(settings if ipv6 else ())] if endpoints else []
    outward = way_out(endpoints)
    for endpoint in endpoints:
        own += _own(endpoint, alias, endpoint is outward, bool(ports))
    reserve = [ReservePort(p.address, p.protocol, p.port, Ref(f"port{i}")) for i, p in enumerate(ports)]
    if outward:
        own += publish(table, outward, ports)
    return Attachment(tuple(reserve), tuple(shared), tuple(own))
