"""Docker's notation of ports: `-p [ADDRESS:][HOST[-HOST]:]PORT[-PORT][/PROTOCOL]`, `--expose PORT[-PORT][/PROTOCOL]`.

Source: docker/go-connections nat.
"""

from __future__ import annotations

from cloche.engine.request import PortMapping
from cloche.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.network.model import Port

PROTOCOLS = ("tcp", "udp", "sctp")


def _range(text: str, whole: str, what: str, least: int = 1) -> tuple[int, int]:
    """`80` or `8000-8010`. Raises Invalid."""
    first, dash, last = text.partition("-")
    ends = (first, last) if dash else (first, first)
    if not all(end.isascii() and end.isdigit() and len(end) < 6 for end in ends):
        raise Invalid(f"invalid {what}: {text or whole}", f"in '{whole}'", "a number, or two with a dash")
    low, high = int(ends[0]), int(ends[1])
    if low > high or low < least or high > 65535:
        raise Invalid(f"invalid {what}: {text}", f"in '{whole}'", f"from {least} to 65535, the lower one first")
    return low, high


def _protocol(text: str, whole: str) -> str:
    protocol = text.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise Invalid(f"invalid protocol: {text}", f"in '{whole}'", "tcp, udp or sctp")
    return protocol


def published(text: str) -> tuple[PortMapping, ...]:
    """The mappings that one -p means. Raises Invalid."""
    spec, slash, ending = text.partition("/")
    protocol = _protocol(ending if slash else "tcp", text)
    if spec[:1] == "[":  # an address of IPv6
        address, bracket, rest = spec[1:].partition("]")
        if not bracket or rest[:1] != ":":
            raise Invalid(f"invalid containerPort: {text}", "an IPv6 address is written [ADDRESS]:HOST:PORT")
        parts = [address, *rest[1:].split(":")]
    else:
        parts = spec.split(":")
    if len(parts) > 3:
        raise Invalid(f"invalid containerPort: {text}", "too many colons", "[ADDRESS:][HOST:]PORT[/PROTOCOL]")
    if not parts[-1]:
        raise Invalid("no port specified", f"'{text}'", "[ADDRESS:][HOST:]PORT[/PROTOCOL]")
    low, high = _range(parts[-1], text, "containerPort")
    address = parts[0] if len(parts) == 3 else ""
    if address:
        from cloche.network.addresses import number

        number(address)
    host = parts[-2] if len(parts) > 1 else ""
    if host in ("", "0"):
        return tuple(PortMapping(port, protocol, address) for port in range(low, high + 1))
    first, last = _range(host, text, "hostPort", least=0)
    if low == high and first != last:
        return (PortMapping(low, protocol, address, first, last),)
    if high - low != last - first:
        cause = f"invalid ranges specified for container and host Ports: {parts[-1]} and {host}"
        raise Invalid(cause, f"in '{text}'", "as many of one as of the other")
    return tuple(PortMapping(low + i, protocol, address, first + i) for i in range(high - low + 1))


def exposed(text: str) -> tuple[tuple[int, str], ...]:
    """The ports that one --expose means. Raises Invalid."""
    spec, slash, ending = text.partition("/")
    low, high = _range(spec, text, "range format for --expose")
    protocol = _protocol(ending if slash else "tcp", text)
    return tuple((port, protocol) for port in range(low, high + 1))


def shown(ports: tuple[Port, ...], exposed: tuple[tuple[int, str], ...]) -> str:
    """As `ps` lists them: `0.0.0.0:8080->80/tcp, 443/tcp`; neighbouring ports are one range."""
    from cloche.network.model import Port

    order = sorted(ports, key=lambda p: (p.protocol, ":" in p.address, p.address, p.port))
    groups: list[list[Port]] = []
    for port in order:
        last = groups[-1][-1] if groups else None
        if last and port == Port(last.address, last.protocol, last.port + 1, last.inside + 1):
            groups[-1].append(port)
        else:
            groups.append([port])
    found = []
    for group in groups:
        one, end = group[0], group[-1]
        address = f"[{one.address}]" if ":" in one.address else one.address
        here = str(one.port) if one is end else f"{one.port}-{end.port}"
        there = str(one.inside) if one is end else f"{one.inside}-{end.inside}"
        found.append(f"{address}:{here}->{there}/{one.protocol}")
    led = {(p.inside, p.protocol) for p in ports}
    return ", ".join([*found, *(f"{port}/{protocol}" for port, protocol in exposed if (port, protocol) not in led)])
