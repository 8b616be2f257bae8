"""rtnetlink(7): links, addresses and routes of a network namespace.

Addresses are bytes in network order, four or sixteen. Each function builds one message; `host()` is a socket for this
process's own namespace, `inside()` one for another's.
Not its business: which links a container gets.
"""

from __future__ import annotations

import os
from struct import Struct

from cloche.kernel.netlink import (
    ACK,
    CREATE,
    DUMP,
    EXCL,
    ROUTE,
    Netlink,
    attribute,
    attributes,
    nest,
    shared,
    text,
    u32,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.kernel.netlink import Message

NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, GETADDR, NEWROUTE, GETROUTE = 20, 22, 24, 26
UP = 1  # IFF_UP
ALIAS_MOST = 255  # bytes, with the zero at the end

# linux/if_link.h, if_addr.h, rtnetlink.h, veth.h
_ADDRESS, _IFNAME, _MTU, _LINK, _MASTER, _LINKINFO, _NETNS_PID, _IFALIAS = 1, 3, 4, 5, 10, 18, 19, 20
_KIND, _DATA, _VETH_PEER, _MACVLAN_MODE = 1, 2, 1, 1
_SLAVE_KIND, _SLAVE_DATA, _PORT_MODE = 4, 5, 4
_BRIDGE_MODE = 4  # MACVLAN_MODE_BRIDGE
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _NODAD, _PERMANENT = 1, 2, 4, 2, 0x80
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_MAIN, _BOOT, _UNIVERSE, _LINK_SCOPE, _UNICAST = 254, 3, 0, 253, 1

_IFINFO = Struct("=BBHiII")
_IFADDR = Struct("=BBBBI")
_RTMSG = Struct("=BBBBBBBBI")


def index(name: str, fd: int = -1) -> int:
    """The number of a link, in the namespace of the socket `fd`, or this process's. Raises OSError(ENODEV)."""
    if fd < 0:
        from _socket import if_nametoindex

        try:
            return if_nametoindex(name)
        except OSError:
            raise OSError(19, os.strerror(19), name) from None
    from fcntl import ioctl

    return int.from_bytes(ioctl(fd, 0x8933, name.encode().ljust(40, b"\0"))[16:20], "little")  # SIOCGIFINDEX


def _family(address: bytes) -> int:
    return 2 if len(address) == 4 else 10


def _info(kind: str, *data: bytes) -> bytes:
    return nest(_LINKINFO, text(_KIND, kind), *([nest(_DATA, *data)] if data else []))


def make_bridge(name: str, mac: bytes, mtu: int = 0) -> Message:
    """A bridge that is up."""
    size = u32(_MTU, mtu) if mtu else b""
    head = _IFINFO.pack(0, 0, 0, 0, UP, UP)
    body = head + text(_IFNAME, name) + attribute(_ADDRESS, mac) + size + _info("bridge")
    return NEWLINK, ACK | CREATE | EXCL, body


def make_veth(name: str, peer: str, pid: int, master: int, mac: bytes, mtu: int = 0) -> Message:
    """A pair of links: `name` here, up, a port of the bridge `master`; `peer` in the namespace of `pid`, down."""
    size = u32(_MTU, mtu) if mtu else b""
    there = _IFINFO.pack(0, 0, 0, 0, 0, 0) + text(_IFNAME, peer) + attribute(_ADDRESS, mac) + u32(_NETNS_PID, pid)
    body = (
        _IFINFO.pack(0, 0, 0, 0, UP, UP)
        + text(_IFNAME, name)
        + u32(_MASTER, master)
        + size
        + _info("veth", attribute(_VETH_PEER | 0x8000, there + size))
    )
    return NEWLINK, ACK | CREATE | EXCL, body


def make_macvlan(name: str, pid: int, parent: int, mac: bytes, mtu: int = 0) -> Message:
    """A link with an address of its own on `parent`'s wire, in the namespace of `pid`, down."""
    size = u32(_MTU, mtu) if mtu else b""
    head = _IFINFO.pack(0, 0, 0, 0, 0, 0) + text(_IFNAME, name) + u32(_LINK, parent) + attribute(_ADDRESS, mac)
    return NEWLINK, ACK | CREATE | EXCL, head + u32(_NETNS_PID, pid) + size + _info("macvlan", u32(1, _BRIDGE_MODE))


def set_alias(name: str, alias: str) -> Message:
    """Note whose link this is, for `ip link` to show; at most ALIAS_MOST bytes. Not taken when a link is made."""
    return SETLINK, ACK, _IFINFO.pack(0, 0, 0, 0, 0, 0) + text(_IFNAME, name) + text(_IFALIAS, alias)


def set_hairpin(name: str) -> Message:
    """Let a bridge's port send a packet back where it came from (`ip link set NAME type bridge_slave hairpin on`)."""
    slave = nest(_LINKINFO, text(_SLAVE_KIND, "bridge"), nest(_SLAVE_DATA, attribute(_PORT_MODE, b"\1")))
    return NEWLINK, ACK, _IFINFO.pack(0, 0, 0, 0, 0, 0) + text(_IFNAME, name) + slave


def set_up(link: int) -> Message:
    """Bring a link up."""
    return NEWLINK, ACK, _IFINFO.pack(0, 0, 0, link, UP, UP)


def move(link: int, pid: int, name: str) -> Message:
    """A link into the network namespace of `pid`, under this name there."""
    return NEWLINK, ACK, _IFINFO.pack(0, 0, 0, link, 0, 0) + u32(_NETNS_PID, pid) + text(_IFNAME, name)


def delete_link(name: str) -> Message:
    """Delete a link, and with it the other end of a pair."""
    return DELLINK, ACK, _IFINFO.pack(0, 0, 0, 0, 0, 0) + text(_IFNAME, name)


def add_address(link: int, address: bytes, prefix: int) -> Message:
    """Give a link an address; nobody is asked whether it is taken (no duplicate address detection)."""
    more = b""
    if len(address) == 4 and prefix < 31:
        broadcast = int.from_bytes(address, "big") | (1 << (32 - prefix)) - 1
        more = attribute(_IFA_BROADCAST, broadcast.to_bytes(4, "big"))
    body = _IFADDR.pack(_family(address), prefix, _NODAD, _UNIVERSE, link)
    return NEWADDR, ACK | CREATE | EXCL, body + attribute(_IFA_LOCAL, address) + attribute(_IFA_ADDRESS, address) + more


def add_route(link: int, gateway: bytes, destination: bytes = b"", prefix: int = 0) -> Message:
    """A route through a gateway; without a destination the default route."""
    body = _RTMSG.pack(_family(gateway), prefix, 0, 0, _MAIN, _BOOT, _UNIVERSE, _UNICAST, 0)
    to = attribute(_RTA_DST, destination) if destination else b""
    return NEWROUTE, ACK | CREATE | EXCL, body + to + attribute(_RTA_GATEWAY, gateway) + u32(_RTA_OIF, link)


def routes(socket: Netlink, family: int = 2) -> Iterator[tuple[bytes, int, int]]:
    """(destination, prefix length, link) of each route of the main table; the default route's prefix is 0."""
    for body in socket.ask((GETROUTE, DUMP, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))):
        found = attributes(body, 12)
        table = int.from_bytes(found.get(_RTA_TABLE, bytes((body[4],))), "little")
        if table == _MAIN:
            size = 4 if family == 2 else 16
            yield found.get(_RTA_DST, bytes(size)), body[1], int.from_bytes(found.get(_RTA_OIF, b""), "little")


def links(socket: Netlink) -> Iterator[tuple[int, str, str]]:
    """(number, name, alias) of each link."""
    for body in socket.ask((GETLINK, DUMP, _IFINFO.pack(0, 0, 0, 0, 0, 0))):
        found = attributes(body, 16)
        name, alias = (found.get(kind, b"").rstrip(b"\0").decode("utf-8", "replace") for kind in (_IFNAME, _IFALIAS))
        yield _IFINFO.unpack_from(body)[3], name, alias


def addresses(socket: Netlink, link: int) -> Iterator[tuple[bytes, int]]:
    """(address, prefix length) of a link's own: permanent, and of more than this host or wire."""
    for body in socket.ask((GETADDR, DUMP, _IFADDR.pack(0, 0, 0, 0, 0))):
        _, prefix, flags, scope, number = _IFADDR.unpack_from(body)
        if number == link and flags & _PERMANENT and scope == _UNIVERSE:
            found = attributes(body, 8)
            yield found.get(_IFA_LOCAL) or found[_IFA_ADDRESS], prefix


def host() -> Netlink:
    """This process's socket for its own network namespace. Raises OSError."""
    return shared(ROUTE)


def inside(namespace: int, settings: tuple[tuple[str, str], ...] = ()) -> Netlink:
    """A socket for another network namespace, given by a descriptor of it or a pidfd (Linux >= 5.8).

    This thread enters it for a moment, and writes `settings` below /proc/sys/net meanwhile, which are of the namespace
    of who looks; a thread that cannot come back ends the process. Raises OSError.
    """
    from cloche.kernel.namespaces import Visit

    with Visit(namespace):
        for key, value in settings:
            with open("/proc/sys/net/" + key, "wb", 0) as file:
                file.write(value.encode())
        return Netlink(ROUTE)
