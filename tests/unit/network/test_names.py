"""What a DNS server of ours says to what it is asked."""

from __future__ import annotations

import pytest
from dnslib import EDNS0, QTYPE, RR, A, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from cloche.network import names

KNOWN = {"web": ("10.0.0.2",), "both": ("10.0.0.3", "fd00::3"), "many": tuple(f"10.0.{i}.1" for i in range(100))}
INSIDE = names.Client(KNOWN.get, {"10.0.0.2": "web", "fd00::3": "both"}.get, False)  # type: ignore[arg-type]
OUTSIDE = INSIDE.replace(may_leave=True, reverse=lambda of: {"10.0.0.2": "web", "fd00::3": "both"}.get(of, ""))
CLOSED = OUTSIDE.replace(may_leave=False)


def ask(name: str, kind: str = "A", client: names.Client = OUTSIDE) -> DNSRecord | None:
    packet = DNSRecord.question(name, kind).pack()
    query = names.read(packet)
    assert query is not None
    reply = names.answer(packet, query, client)
    return DNSRecord.parse(reply) if reply else None


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("web", "A", ["10.0.0.2"]),
        ("web.", "A", ["10.0.0.2"]),
        ("web", "AAAA", []),
        ("both", "AAAA", ["fd00::3"]),
        ("both", "ANY", ["10.0.0.3", "fd00::3"]),
        ("web", "MX", []),
        ("2.0.0.10.in-addr.arpa", "PTR", ["web."]),
        ("3." + "0." * 27 + "0.0.d.f.ip6.arpa", "PTR", ["both."]),
    ],
)
def test_what_is_known_is_answered(name: str, kind: str, found: list[str]) -> None:
    reply = ask(name, kind)
    assert reply is not None and reply.header.rcode == 0 and reply.header.qr and reply.header.ra
    assert [str(rr.rdata) for rr in reply.rr] == found and all(rr.ttl == 0 for rr in reply.rr)


def test_what_is_not_known_is_asked_elsewhere_or_nowhere() -> None:
    assert ask("example.org") is None and ask("9.0.0.10.in-addr.arpa", "PTR") is None
    refused, nobody = ask("example.org", client=CLOSED), ask("9.0.0.10.in-addr.arpa", "PTR", CLOSED)
    assert refused is not None and refused.header.rcode == names.SERVFAIL
    assert nobody is not None and nobody.header.rcode == names.NXDOMAIN


def test_an_answer_that_is_too_long_says_so_and_keeps_the_question() -> None:
    packet = DNSRecord.question("many").pack()
    query = names.read(packet)
    assert query is not None and query.size == 512
    reply = names.answer(packet, query, OUTSIDE)
    assert reply is not None and len(reply) > 1232
    short = DNSRecord.parse(names.truncated(reply, query.size))
    assert short.header.tc and not short.rr and str(short.q.qname) == "many."
    assert names.truncated(reply, 65535) == reply
    big = DNSRecord.question("many")
    big.add_ar(EDNS0(udp_len=4096))
    asked = names.read(big.pack())
    assert asked is not None and asked.size == names.UDP_MOST


def test_only_an_answer_to_our_question_belongs() -> None:
    packet = DNSRecord.question("example.org").pack()
    ident = 0x1234
    asked = DNSRecord.parse(ident.to_bytes(2, "big") + packet[2:])
    reply = asked.reply()
    reply.add_answer(RR("example.org", QTYPE.A, rdata=A("192.0.2.1")))
    good = reply.pack()
    assert names.belongs(good, packet, ident)
    assert names.belongs(good.replace(b"example", b"EXAMPLE", 1), packet, ident)
    assert not names.belongs(good, packet, ident + 1)
    assert not names.belongs(packet, packet, int.from_bytes(packet[:2], "big")), "a question is no answer"
    other = DNSRecord.question("bank.example").reply().pack()
    assert not names.belongs(ident.to_bytes(2, "big") + other[2:], packet, ident)
    assert not names.belongs(b"", packet, ident)


@given(st.binary(max_size=600))
def test_nonsense_is_no_question(packet: bytes) -> None:
    query = names.read(packet)
    if query is not None:
        names.answer(packet, query, CLOSED)
        names.refuse(packet, names.REFUSED)


@given(st.data())
def test_damaged_questions_are_no_harm(data: st.DataObject) -> None:
    packet = bytearray(DNSRecord.question("a.b.example", "A").pack())
    for _ in range(data.draw(st.integers(1, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(packet)
    query = names.read(damaged)
    if query is not None:
        reply = names.answer(damaged, query, CLOSED)
        assert reply is None or reply[:2] == damaged[:2]
    names.belongs(damaged, bytes(DNSRecord.question("a.b.example").pack()), 1)


@pytest.mark.parametrize(
    "name", ["1.2.3.in-addr.arpa", "256.1.1.1.in-addr.arpa", "x.1.1.1.in-addr.arpa", "g." * 32 + "ip6.arpa", "", "arpa"]
)
def test_what_is_no_reversed_address(name: str) -> None:
    assert names.reversed_address(name) == ""
