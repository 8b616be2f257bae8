"""Connection tracking by netlink: the flows that the kernel remembers, and making it forget some.

A rule that translates addresses is looked up for the first packet of a flow only; the others go where the first went,
for as long as packets come. UDP has no end that the kernel could see: a client that keeps its port goes on speaking to
a container that is gone.
Source: linux/netfilter/nfnetlink_conntrack.h; net/netfilter/nf_conntrack_netlink.c; conntrack(8).
"""

from __future__ import annotations

from errno import EINVAL, ENOENT

from cloche.kernel.netlink import ACK, DUMP, Refused, attribute, attributes, nest, u32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.kernel.netlink import Message, Netlink

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK
_ORIGINAL, _ID, _ZONE, _FILTER = 1, 12, 18, 25  # CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE, CTA_FILTER
_IP, _PROTOCOL = 1, 2  # CTA_TUPLE_
_NUMBER, _TO_PORT = 1, 3  # CTA_PROTO_NUM, CTA_PROTO_DST_PORT
_BY_PROTOCOL_AND_PORT = 1 << 3 | 1 << 5  # CTA_FILTER_F_CTA_PROTO_NUM, _DST_PORT
_DESTINATION = {2: 2, 10: 4}  # AF_: CTA_IP_V4_DST or CTA_IP_V6_DST


def _body(family: int, *attrs: bytes) -> bytes:
    return bytes((family, 0, 0, 0)) + b"".join(attrs)


def _question(family: int, protocol: int, port: int) -> Message:
    """What is remembered about a port. From Linux 5.8 on the kernel selects, before it tells of all."""
    wanted = nest(_PROTOCOL, attribute(_NUMBER, bytes((protocol,))), attribute(_TO_PORT, port.to_bytes(2, "big")))
    chosen = nest(_FILTER, u32(1, _BY_PROTOCOL_AND_PORT), u32(2, 0))  # CTA_FILTER_ORIG_FLAGS, _REPLY_FLAGS
    return _GET, DUMP, _body(family, nest(_ORIGINAL, wanted), chosen)


def forget(socket: Netlink, protocol: int, address: str, port: int) -> None:
    """Make the kernel forget the flows to a port of an address (0.0.0.0 and :: are all of their family): their next
    packet is looked up anew. protocol: its number (17 is UDP).

    A kernel that has no netlink for connection tracking is asked in vain: flows end there by themselves, 30 to 120
    seconds after their last packet. Raises Refused.
    """
    from _socket import inet_pton

    family = 10 if ":" in address else 2
    host = inet_pton(family, address)
    try:
        found = socket.ask(_question(family, protocol, port))
    except Refused as error:
        if error.errno == EINVAL:  # nfnetlink knows no such subsystem
            return
        raise
    for body in found:
        flow = attributes(body, 4)
        to = attributes(flow[_ORIGINAL])
        kind = attributes(to[_PROTOCOL])
        if kind[_NUMBER][0] != protocol or int.from_bytes(kind[_TO_PORT], "big") != port:
            continue
        if any(host) and attributes(to[_IP])[_DESTINATION[family]] != host:
            continue
        which = [attribute(kind, flow[kind]) for kind in (_ID, _ZONE) if kind in flow]
        try:
            socket.ask((_DELETE, ACK, _body(family, nest(_ORIGINAL, flow[_ORIGINAL]), *which)))
        except Refused as error:
            if error.errno != ENOENT:  # it ended by itself
                raise
