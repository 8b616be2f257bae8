"""What is known of networks, in the shapes of Docker's API: of a container's, and of a network itself."""

from __future__ import annotations

from cloche.engine.database import RUNNING
from cloche.engine.networks import is_own
from cloche.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloche.engine.containers import Container, Engine
    from cloche.engine.request import PortMapping
    from cloche.network.model import Endpoint, Network


def bindings(ports: tuple[PortMapping, ...]) -> dict[str, list[dict[str, str]]]:
    """The ports that were asked for."""
    found: dict[str, list[dict[str, str]]] = {}
    for p in ports:
        host = "" if not p.port else f"{p.port}-{p.last}" if p.last else str(p.port)
        found.setdefault(f"{p.inside}/{p.protocol}", []).append({"HostIp": p.address, "HostPort": host})
    return found


def networking(engine: Engine, found: Container) -> dict[str, Any]:
    """NetworkSettings of docker inspect CONTAINER. An address is the container's also while it does not run; it is
    shown, as by Docker, while it runs."""
    running = found.status == RUNNING
    mode = found.config.request.network
    ports: dict[str, Any] = {}
    if running:
        ports = {f"{port}/{protocol}": None for port, protocol in found.config.exposed}
        for p in found.ports:
            key = f"{p.inside}/{p.protocol}"
            ports[key] = [*(ports.get(key) or ()), {"HostIp": p.address, "HostPort": str(p.port)}]
    networks: dict[str, Any] = {} if mode[:10] == "container:" or is_own(mode) else {mode: {}}
    first: dict[str, Any] = {}
    if is_own(mode):
        try:
            for endpoint in engine.networks.endpoints(found.id):
                networks[endpoint.network.name] = _endpoint(endpoint, running)
                first = first or networks[endpoint.network.name]
        except NotFound:
            networks = {}
    keys = ("Gateway", "IPAddress", "IPPrefixLen", "MacAddress", "GlobalIPv6Address", "GlobalIPv6PrefixLen")
    return {**{key: first.get(key, "") for key in keys}, "Ports": ports, "Networks": networks}


def _endpoint(endpoint: Endpoint, running: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
    }
    for address, subnet in zip(endpoint.addresses, endpoint.network.subnets, strict=True):
        names = ("GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPv6Gateway")
        if not subnet.range.wide:
            names = ("IPAddress", "IPPrefixLen", "Gateway")
        if running:
            shown |= dict(zip(names, (address, subnet.range.prefix, subnet.gateway), strict=True))
    return {
        "NetworkID": endpoint.network.id,
        "MacAddress": endpoint.mac if running else "",
        "Aliases": list(endpoint.aliases) or None,
        "IPAMConfig": None,
        **shown,
    }


def network(engine: Engine, found: Network) -> dict[str, Any]:
    """docker network inspect."""
    from cloche.engine.connecting import users
    from cloche.engine.inspection import moment

    containers = {}
    for container in users(engine, found) if found.driver != "null" else ():
        if container.status == RUNNING:
            for endpoint in engine.networks.endpoints(container.id):
                if endpoint.network.id == found.id:
                    containers[container.id] = _member(container, endpoint)
    return {
        "Name": found.name,
        "Id": found.id,
        "Created": moment(found.created),
        "Scope": "local",
        "Driver": found.driver,
        "EnableIPv4": True,
        "EnableIPv6": any(s.range.wide for s in found.subnets),
        "IPAM": {
            "Driver": "default",
            "Options": {},
            "Config": [
                {"Subnet": s.range.text(), "Gateway": s.gateway}
                | ({"IPRange": s.pool.text()} if s.pool != s.range else {})
                for s in found.subnets
            ],
        },
        "Internal": found.internal,
        "Attachable": False,
        "Ingress": False,
        "Link": found.link,
        "Containers": containers,
        "Options": dict(found.options),
        "Labels": dict(found.labels),
    }


def _member(container: Container, endpoint: Endpoint) -> dict[str, str]:
    texts = {":" in a: a for a in endpoint.addresses}
    bits = {s.range.wide: s.range.prefix for s in endpoint.network.subnets}
    return {
        "Name": container.name,
        "MacAddress": endpoint.mac,
        "IPv4Address": f"{texts[False]}/{bits[False]}" if False in texts else "",
        "IPv6Address": f"{texts[True]}/{bits[True]}" if True in texts else "",
    }
