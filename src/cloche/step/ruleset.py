"""The rules of one store, as one nf_tables table: who may reach a container, how its packets are translated.

    prerouting, output    dnat       a published port leads to its container
    postrouting           masquerade what leaves a container for elsewhere bears the host's address
    forward               filter     into a container's network come answers, published ports, neighbours; else nobody
    raw                   filter     a container cannot speak to the host's 127.0.0.0/8

The rules are made once and never change: networks and ports are elements of the sets and maps that they look into.
"""

from __future__ import annotations

from cloche.kernel.nftables import (
    Between,
    Chain,
    Interface,
    Local,
    Loopback,
    Masquerade,
    Rule,
    Set,
    Source,
    Table,
    Term,
    Tracked,
    Translate,
    Verdict,
)
from cloche.value import remembered

BRIDGES = Set("bridges", ("ifname",))
PLAIN = Set("plain", ("ifname",))  # bridges whose packets keep their source
SUBNETS4 = Set("subnets4", ("ipv4_addr",), interval=True)
SUBNETS6 = Set("subnets6", ("ipv6_addr",), interval=True)
INTERNAL = Set("internal", ("ifname",))
SAME = Set("same", ("ifname", "ifname"))
# by address, protocol and port; for every address of the host; for addresses of loopback only
PORTS4 = Set("ports4", ("ipv4_addr", "inet_proto", "inet_service"), ("ipv4_addr", "inet_service"))
PORTS6 = Set("ports6", ("ipv6_addr", "inet_proto", "inet_service"), ("ipv6_addr", "inet_service"))
ANY4 = Set("any4", ("inet_proto", "inet_service"), ("ipv4_addr", "inet_service"))
ANY6 = Set("any6", ("inet_proto", "inet_service"), ("ipv6_addr", "inet_service"))
LOCAL4 = Set("local4", ("ipv4_addr", "inet_proto", "inet_service"), ("ipv4_addr", "inet_service"))
SETS = {
    known.name: known
    for known in (BRIDGES, PLAIN, INTERNAL, SAME, SUBNETS4, SUBNETS6, PORTS4, PORTS6, ANY4, ANY6, LOCAL4)
}

_ACCEPT, _DROP = Verdict("accept"), Verdict("drop")


def _rules() -> tuple[tuple[str, tuple[Term, ...]], ...]:
    published: tuple[tuple[Term, ...], ...] = (
        (Translate("ip", "ports4", True),),
        (Translate("ip6", "ports6", True),),
        (Local(), Translate("ip", "any4")),
        (Local(), Translate("ip6", "any6")),
    )
    return (
        ("raw", (Interface("iifname", "bridges"), Loopback("daddr"), _DROP)),
        ("raw", (Interface("iifname", "bridges"), Loopback("saddr"), _DROP)),
        *(("prerouting", terms) for terms in published),
        ("output", (Translate("ip", "local4", True),)),
        *(("output", terms) for terms in published),
        ("postrouting", (Interface("iifname", "plain"), _ACCEPT)),
        ("postrouting", (Interface("iifname", "bridges"), Interface("oifname", "bridges", True), Masquerade())),
        # by a published port to a neighbour, or to itself: the answer must come back this way. Where bridged packets
        # are filtered too (br_netfilter) it is not known here by which link they came
        ("postrouting", (Interface("oifname", "bridges"), Tracked("dnat"), Source("ip", "subnets4"), Masquerade())),
        ("postrouting", (Interface("oifname", "bridges"), Tracked("dnat"), Source("ip6", "subnets6"), Masquerade())),
        ("postrouting", (Loopback("saddr"), Interface("oifname", "bridges"), Masquerade())),
        ("forward", (Interface("oifname", "bridges"), Verdict("jump", "inward"))),
        ("forward", (Interface("iifname", "internal"), _DROP)),
        ("inward", (Between("same"), _ACCEPT)),
        ("inward", (Interface("oifname", "internal"), _DROP)),
        ("inward", (Interface("iifname", "internal"), _DROP)),
        ("inward", (Tracked("established"), _ACCEPT)),
        ("inward", (Tracked("dnat"), _ACCEPT)),
        ("inward", (_DROP,)),
    )


@remembered
def table(name: str) -> Table:
    """The table of a store."""
    return Table(
        name,
        tuple(SETS.values()),
        (
            Chain("raw", "filter", "prerouting", -300),
            Chain("prerouting", "nat", "prerouting", -100),
            Chain("output", "nat", "output", -100),
            Chain("postrouting", "nat", "postrouting", 100),
            Chain("forward", "filter", "forward", 0),
            Chain("inward"),
        ),
        tuple(Rule(chain, terms) for chain, terms in _rules()),
    )
