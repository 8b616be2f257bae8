"""Names of containers as a DNS server answers them: what is known here, what is passed on, what is refused. Pure.

Source: RFC 1035; Docker's embedded server for what it answers and what it does not.
"""

from __future__ import annotations

from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

TTL = 0  # seconds: a container may be gone at any moment, and asking us again is cheap
UDP_MOST = 1232  # bytes of an answer without a question about it (DNS flag day 2020)
A, AAAA, PTR, ANY = 1, 28, 12, 255
NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5


class Query(Value):
    """What was asked. size: the longest answer that the asker takes over UDP."""

    ident: int
    name: str
    type: int
    size: int


class Client(Value):
    """Who asks. find: the addresses of a name on its networks, None when there is none; reverse: the name of an
    address; may_leave: whether it may ask others."""

    find: Callable[[str], tuple[str, ...] | None]
    reverse: Callable[[str], str]
    may_leave: bool


def read(packet: bytes) -> Query | None:
    """The question of a packet; None when it is none that can be answered."""
    from dnslib import QTYPE, DNSError, DNSRecord

    # a question has no answers with it, and at most EDNS and a signature: names that point at names end soon
    if len(packet) < 12 or packet[4:10] != b"\0\1\0\0\0\0" or packet[10:12] > b"\0\2":
        return None
    try:
        record = DNSRecord.parse(packet)
    except (DNSError, ValueError, IndexError, RecursionError):
        return None
    if record.header.qr or record.header.opcode != 0 or len(record.questions) != 1:
        return None
    question = record.questions[0]
    if question.qclass != 1:  # of the Internet
        return None
    size = next((extra.rclass for extra in record.ar if extra.rtype == QTYPE.OPT), 512)
    return Query(record.header.id, str(question.qname).rstrip("."), question.qtype, max(512, min(size, UDP_MOST)))


def answer(packet: bytes, query: Query, client: Client) -> bytes | None:
    """The answer to what is ours; None for what must be asked elsewhere."""
    if query.type == PTR and (address := reversed_address(query.name)):
        if name := client.reverse(address):
            return _answer(packet, PTR, (name,))
        return None if client.may_leave else refuse(packet, NXDOMAIN)
    found = client.find(query.name)
    if found is None:
        return None if client.may_leave else refuse(packet, SERVFAIL)
    wanted = {A: (False,), AAAA: (True,), ANY: (False, True)}.get(query.type, ())
    return _answer(packet, query.type, tuple(a for a in found if (":" in a) in wanted))


def _answer(packet: bytes, kind: int, values: tuple[str, ...]) -> bytes:
    """A name that is there and has nothing of the kind is answered with nothing, and that is no error."""
    from dnslib import AAAA as V6
    from dnslib import PTR as Name
    from dnslib import RR, DNSRecord
    from dnslib import A as V4

    asked = DNSRecord.parse(packet)
    reply = asked.reply(ra=1, aa=1)
    for value in values:
        data = Name(value) if kind == PTR else V6(value) if ":" in value else V4(value)
        number = PTR if kind == PTR else AAAA if ":" in value else A
        reply.add_answer(RR(asked.q.qname, number, ttl=TTL, rdata=data))
    return bytes(reply.pack())


def refuse(packet: bytes, code: int) -> bytes:
    """An answer that says why there is none."""
    from dnslib import DNSRecord

    reply = DNSRecord.parse(packet).reply(ra=1, aa=0)
    reply.header.rcode = code
    return bytes(reply.pack())


def truncated(reply: bytes, most: int) -> bytes:
    """An answer that fits; one that does not becomes one without content that says to ask again over TCP."""
    if len(reply) <= most:
        return reply
    end = _question_end(reply)
    return reply[:2] + bytes((reply[2] | 2,)) + reply[3:6] + bytes(6) + reply[12:end]


def belongs(reply: bytes, packet: bytes, ident: int) -> bool:
    """Whether an upstream's packet answers what we asked it under this number: the question is repeated in it."""
    end = _question_end(packet)
    return (
        len(reply) >= 12
        and reply[:2] == ident.to_bytes(2, "big")
        and bool(reply[2] & 0x80)
        and reply[4:6] == b"\0\1"
        and reply[12:end].lower() == packet[12:end].lower()
    )


def _question_end(packet: bytes) -> int:
    at = 12
    while at < len(packet) and packet[at]:
        at += packet[at] + 1
    return at + 5


def reversed_address(name: str) -> str:
    """The address that a name of in-addr.arpa or ip6.arpa stands for; "" for another name."""
    from _socket import inet_ntop

    labels = name.lower().split(".")
    if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
        octets = labels[3::-1]
        if all(o.isascii() and o.isdigit() and len(o) < 4 and int(o) < 256 for o in octets):
            return ".".join(str(int(o)) for o in octets)
    if labels[-2:] == ["ip6", "arpa"] and len(labels) == 34 and all(len(x) == 1 for x in labels[:32]):
        digits = "".join(labels[31::-1])
        if set(digits) <= set("0123456789abcdef"):
            return inet_ntop(10, bytes.fromhex(digits))
    return ""
