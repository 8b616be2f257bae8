"""Networks and what a container has on them, as values."""

from __future__ import annotations

from cloche.network.addresses import Range, number
from cloche.value import Value


class Subnet(Value):
    """Addresses of a network. pool: those given to containers that ask for none."""

    range: Range
    gateway: str
    pool: Range

    def in_use(self, value: int) -> bool:
        """Whether an address is the gateway's, or the first or last of an IPv4 subnet, which are for all."""
        size = self.range.size
        edges = not self.range.wide and size > 2 and value in (self.range.base, self.range.base + size - 1)
        return edges or value == self.range.base or value == number(self.gateway)


class Network(Value):
    """A network. driver: bridge or macvlan. link: the bridge's name, or that of the host's link below a macvlan.

    internal: without a way out. masquerade: what leaves bears the host's address. mtu: 0 is the kernel's default.
    """

    id: str
    name: str
    driver: str
    link: str
    subnets: tuple[Subnet, ...]
    internal: bool = False
    masquerade: bool = True
    mtu: int = 0
    created: int = 0
    labels: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, str], ...] = ()

    def mac(self) -> str:
        """The bridge's hardware address: its own from its id, so that it does not change as ports come and go."""
        return mac_of(bytes.fromhex(self.id[:8]))


class Endpoint(Value):
    """A container on a network: its addresses, one for each subnet, its hardware address, its other names there.

    link: the host's end; inside: the container's.
    """

    network: Network
    addresses: tuple[str, ...]
    mac: str
    aliases: tuple[str, ...] = ()
    link: str = ""
    inside: str = "eth0"


class Port(Value):
    """A port of the host that leads to one of the container's. address: the host's, 0.0.0.0 or :: for all."""

    address: str
    protocol: str
    port: int
    inside: int


def mac_of(four: bytes) -> str:
    """A locally administered address of four bytes: as Docker makes them of the IPv4 address."""
    return "02:42:" + ":".join(f"{b:02x}" for b in four)


def endpoint_mac(addresses: tuple[str, ...]) -> str:
    """Of an endpoint: it follows from its first address, so that neighbours' caches stay right."""
    return mac_of((number(addresses[0]) & 0xFFFFFFFF).to_bytes(4, "big"))
