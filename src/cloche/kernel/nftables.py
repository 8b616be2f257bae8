"""nf_tables by netlink: tables, chains, sets, maps, rules and elements.

Each is one value, from which come what nft(8) writes and what the kernel reads: what is shown is what is done.

A change is a batch: all of it happens at once, or nothing. Rules look things up in sets and maps, so that a container
adds and takes elements, never rules.
Not its business: which rules there are (network.firewall).
"""

from __future__ import annotations

from struct import Struct

from cloche.kernel.netlink import ACK, CREATE, DUMP, NETFILTER, attribute, attributes, nest, shared, text
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.kernel.netlink import Message, Netlink

INET, IPV4, IPV6 = 1, 2, 10  # NFPROTO_
_BE32 = Struct(">I")

# linux/netfilter/nf_tables.h: messages
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN, _NEWRULE, _GETRULE, _DELRULE = 0, 1, 2, 3, 4, 6, 7, 8
_NEWSET, _NEWSETELEM, _GETSETELEM, _DELSETELEM = 9, 12, 13, 14
_SUBSYSTEM, _BEGIN, _END = 10 << 8, 16, 17
_APPEND = 0x800

# name: (type number, bytes in a register); nft(8) shows elements by the type
_TYPES = {"ipv4_addr": (7, 4), "ipv6_addr": (8, 16), "inet_proto": (12, 4), "inet_service": (13, 4), "ifname": (41, 16)}
_HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
_HOST_ORDER = b"\0\4\1\0\0\0"  # for nft(8): the key's bytes are as the machine has them
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


def _be32(kind: int, value: int) -> bytes:
    return attribute(kind, _BE32.pack(value & 0xFFFFFFFF))


def _data(kind: int, value: bytes) -> bytes:
    return nest(kind, attribute(1, value))


def _expression(name: str, *attrs: bytes) -> bytes:
    return nest(1, text(1, name), nest(2, *attrs))


def _meta(key: int, register: int = 1) -> bytes:
    return _expression("meta", _be32(1, register), _be32(2, key))


def _compare(value: bytes, differs: bool = False) -> bytes:
    return _expression("cmp", _be32(1, 1), _be32(2, int(differs)), _data(3, value))


def _payload(base: int, offset: int, size: int, register: int = 1) -> bytes:
    return _expression("payload", *(_be32(i, v) for i, v in enumerate((register, base, offset, size), 1)))


def _lookup(name: str, inverted: bool = False, into: int = 0) -> bytes:
    register = _be32(3, into) if into else b""
    return _expression("lookup", text(1, name), _be32(2, 1), register, _be32(5, 1) if inverted else b"")


def _family(number: int) -> bytes:
    return _meta(15) + _compare(bytes((number,)))


def _pad(value: bytes) -> bytes:
    return value + bytes(-len(value) % 4)


class Term(Value):
    """A part of a rule."""

    def text(self) -> str:
        """As nft(8) writes it."""
        raise NotImplementedError

    def encode(self) -> bytes:
        """As the kernel reads it."""
        raise NotImplementedError


class Source(Term):
    """Whether the packet's source address is in a set of subnets."""

    family: str
    set: str

    def text(self) -> str:
        return f"{self.family} saddr @{self.set}"

    def encode(self) -> bytes:
        wide = self.family == "ip6"
        where = _payload(1, 8 if wide else 12, 16 if wide else 4)
        return _family(IPV6 if wide else IPV4) + where + _lookup(self.set)


class Interface(Term):
    """Whether the packet came in (`iifname`) or goes out (`oifname`) by a link of a set."""

    key: str
    set: str
    inverted: bool = False

    def text(self) -> str:
        return f"{self.key} {'!= ' if self.inverted else ''}@{self.set}"

    def encode(self) -> bytes:
        return _meta(6 if self.key == "iifname" else 7) + _lookup(self.set, self.inverted)


class Between(Term):
    """Whether the pair of links by which the packet came and goes is in a set."""

    set: str

    def text(self) -> str:
        return f"iifname . oifname @{self.set}"

    def encode(self) -> bytes:
        return _meta(6) + _meta(7, 2) + _lookup(self.set)


class Loopback(Term):
    """Whether an IPv4 address of the packet, `saddr` or `daddr`, is one of 127.0.0.0/8."""

    key: str

    def text(self) -> str:
        return f"ip {self.key} 127.0.0.0/8"

    def encode(self) -> bytes:
        return _family(IPV4) + _payload(1, 12 if self.key == "saddr" else 16, 1) + _compare(b"\x7f")


class Local(Term):
    """Whether the packet is for an address of this host."""

    def text(self) -> str:
        return "fib daddr type local"

    def encode(self) -> bytes:
        return _expression("fib", _be32(1, 1), _be32(2, 3), _be32(3, 2)) + _compare(b"\2\0\0\0")


class Tracked(Term):
    """What connection tracking knows of the packet: `established`, or `dnat`: its destination was translated."""

    what: str

    def text(self) -> str:
        return "ct state established,related" if self.what == "established" else "ct status dnat"

    def encode(self) -> bytes:
        key, mask = (0, 6) if self.what == "established" else (2, 0x20)
        bits = mask.to_bytes(4, "little")
        masked = _expression("bitwise", _be32(1, 1), _be32(2, 1), _be32(3, 4), _data(4, bits), _data(5, bytes(4)))
        return _expression("ct", _be32(1, 1), _be32(2, key)) + masked + _compare(bytes(4), True)


class Translate(Term):
    """The destination becomes what a map says; without an entry the rule ends. `addressed`: the map's key begins with
    the destination address."""

    family: str
    map: str
    addressed: bool = False

    def text(self) -> str:
        address = f"{self.family} daddr . " if self.addressed else ""
        return f"dnat {self.family} to {address}meta l4proto . th dport map @{self.map}"

    def encode(self) -> bytes:
        wide = self.family == "ip6"
        first = 8 if not self.addressed else (12 if wide else 9)
        key = _family(IPV6 if wide else IPV4)
        if self.addressed:
            key += _payload(1, 24 if wide else 16, 16 if wide else 4, 1)
        key += _meta(16, first if self.addressed else 1) + _payload(2, 2, 2, first + 1)
        found = _lookup(self.map, into=1)
        port = 2 if wide else 9
        parts = (_be32(1, 1), _be32(2, IPV6 if wide else IPV4), _be32(3, 1), _be32(5, port))
        return key + found + _expression("nat", *parts)


class Masquerade(Term):
    """The source becomes the address of the link by which the packet leaves."""

    def text(self) -> str:
        return "masquerade"

    def encode(self) -> bytes:
        return _expression("masq")


class Verdict(Term):
    """`accept`, `drop`, or `jump` to a chain."""

    what: str
    chain: str = ""

    def text(self) -> str:
        return f"{self.what} {self.chain}".rstrip()

    def encode(self) -> bytes:
        code = {"drop": 0, "accept": 1, "jump": -3}[self.what]
        verdict = nest(2, _be32(1, code), text(2, self.chain) if self.chain else b"")
        return _expression("immediate", _be32(1, 0), nest(2, verdict))


class Rule(Value):
    """One rule."""

    chain: str
    terms: tuple[Term, ...]

    def text(self) -> str:
        """As nft(8) writes it."""
        return " ".join(term.text() for term in self.terms)


class Chain(Value):
    """A chain; with a hook it is one that the kernel calls. kind: filter or nat."""

    name: str
    kind: str = ""
    hook: str = ""
    priority: int = 0

    def text(self) -> str:
        """The first line as nft(8) writes it; "" for a chain without a hook."""
        return f"type {self.kind} hook {self.hook} priority {self.priority}; policy accept;" if self.hook else ""


class Set(Value):
    """A set, or with `data` a map: the types of the key's parts and of the value's. interval: of subnets."""

    name: str
    key: tuple[str, ...]
    data: tuple[str, ...] = ()
    interval: bool = False

    def text(self) -> str:
        """As nft(8) writes it."""
        to = f" : {' . '.join(self.data)}" if self.data else ""
        flags = " flags interval;" if self.interval else ""
        return f"{'map' if self.data else 'set'} {self.name} {{ type {' . '.join(self.key)}{to};{flags} }}"


class Table(Value):
    """A table of the family inet with all that is in it but elements."""

    name: str
    sets: tuple[Set, ...]
    chains: tuple[Chain, ...]
    rules: tuple[Rule, ...]

    def text(self) -> str:
        """As nft(8) reads it."""
        lines = [f"table inet {self.name} {{", *("  " + s.text() for s in self.sets)]
        for chain in self.chains:
            lines += [f"  chain {chain.name} {{", *(["    " + chain.text()] if chain.hook else [])]
            lines += ["    " + rule.text() for rule in self.rules if rule.chain == chain.name]
            lines.append("  }")
        return "\n".join([*lines, "}"])


class Element(Value):
    """An element of a set, or an entry of a map: text parts, as nft(8) writes them, by the set's types."""

    table: str
    set: Set
    key: tuple[str, ...]
    value: tuple[str, ...] = ()

    def text(self) -> str:
        """As nft(8) writes it."""
        to = f" : {' . '.join(self.value)}" if self.value else ""
        return f"{' . '.join(self.key)}{to}"


def _encode(kind: str, value: str) -> bytes:
    if kind == "ifname":
        return value.encode().ljust(16, b"\0")
    if kind == "inet_proto":
        return bytes((PROTOCOLS[value],))
    if kind == "inet_service":
        return int(value).to_bytes(2, "big")
    from _socket import inet_pton

    return inet_pton(2 if kind == "ipv4_addr" else 10, value)


def _concatenation(kinds: tuple[str, ...], values: tuple[str, ...]) -> bytes:
    parts = [_encode(kind, value) for kind, value in zip(kinds, values, strict=True)]
    return parts[0] if len(parts) == 1 else b"".join(map(_pad, parts))


def _interval(kind: str, subnet: str) -> tuple[bytes, bytes]:
    """The first address of a subnet, and the one behind its last; that is nothing at the end of all addresses."""
    base, _, prefix = subnet.partition("/")
    first = _encode(kind, base)
    size = 1 << len(first) * 8 - int(prefix)
    behind = int.from_bytes(first, "big") + size
    return first, b"" if behind >> len(first) * 8 else behind.to_bytes(len(first), "big")


def _message(kind: int, flags: int, *attrs: bytes) -> Message:
    return _SUBSYSTEM | kind, flags | ACK, bytes((INET, 0, 0, 0)) + b"".join(attrs)


def _set(table: str, made: Set, number: int) -> Message:
    def described(kinds: tuple[str, ...]) -> tuple[int, int]:
        code = size = 0
        for kind in kinds:
            code, size = code << 6 | _TYPES[kind][0], size + _TYPES[kind][1]
        if len(kinds) == 1:
            size = {"inet_proto": 1, "inet_service": 2}.get(kinds[0], size)
        return code, size

    code, size = described(made.key)
    data = b""
    if made.data:
        to, wide = described(made.data)
        data = _be32(6, to) + _be32(7, wide)
    names = text(1, table) + text(2, made.name)
    kind = _be32(3, (8 if made.data else 0) | (4 if made.interval else 0)) + _be32(4, code) + _be32(5, size)
    note = attribute(13, _HOST_ORDER) if made.key == ("ifname",) else b""
    return _message(_NEWSET, CREATE, names, kind, data, _be32(10, number), note)


def _chain(table: str, made: Chain) -> Message:
    hook = b""
    if made.hook:
        where = nest(4, _be32(1, _HOOKS[made.hook]), _be32(2, made.priority))
        hook = where + _be32(5, 1) + text(7, made.kind)
    return _message(_NEWCHAIN, CREATE, text(1, table), text(3, made.name), hook)


def _rule(table: str, made: Rule) -> Message:
    names = text(1, table) + text(2, made.chain)
    return _message(_NEWRULE, CREATE | _APPEND, names, nest(4, *(term.encode() for term in made.terms)))


def _element(kind: int, element: Element, flags: int) -> Message:
    data = _data(2, _concatenation(element.set.data, element.value)) if element.value and kind == _NEWSETELEM else b""
    if element.set.interval:
        first, behind = _interval(element.set.key[0], element.key[0])
        ends = (nest(1, _data(1, first)), *([nest(1, _data(1, behind), _be32(3, 1))] if behind else []))
        return _message(kind, flags, text(1, element.table), text(2, element.set.name), nest(3, *ends))
    listed = nest(3, nest(1, _data(1, _concatenation(element.set.key, element.key)), data))
    return _message(kind, flags, text(1, element.table), text(2, element.set.name), listed)


def _batch(*messages: Message) -> tuple[Message, ...]:
    edge = bytes((0, 0)) + (10).to_bytes(2, "big")
    return ((_BEGIN, 0, edge), *messages, (_END, 0, edge))


def make_table(table: Table) -> tuple[Message, ...]:
    """The batch that makes a table with all that is in it."""
    return _batch(
        _message(_NEWTABLE, CREATE, text(1, table.name), _be32(2, 0)),
        *(_set(table.name, made, number) for number, made in enumerate(table.sets, 1)),
        *(_chain(table.name, made) for made in table.chains),
        *(_rule(table.name, made) for made in table.rules),
    )


def delete_table(name: str) -> tuple[Message, ...]:
    """The batch that deletes a table."""
    return _batch(_message(_DELTABLE, 0, text(1, name)))


def add_elements(*elements: Element) -> tuple[Message, ...]:
    """The batch that adds elements; those that are there already, alike, are left."""
    return _batch(*(_element(_NEWSETELEM, element, CREATE) for element in elements))


def replace_element(element: Element) -> tuple[Message, ...]:
    """The batch that gives an entry of a map another value."""
    return _batch(_element(_DELSETELEM, element, 0), _element(_NEWSETELEM, element, CREATE))


def delete_element(element: Element) -> tuple[Message, ...]:
    """The batch that takes an element away."""
    return _batch(_element(_DELSETELEM, element, 0))


def has_element(socket: Netlink, element: Element) -> bool:
    """Whether an element is there, and of a map with this very value. Raises Refused."""
    from cloche.kernel.netlink import Refused

    try:
        answer = socket.ask(_element(_GETSETELEM, element, 0))
    except Refused as error:
        if error.errno == 2:
            return False
        raise
    found = attributes(attributes(attributes(answer[0], 4)[3])[1])
    if not element.value:
        return True
    return attributes(found[2])[1] == _concatenation(element.set.data, element.value)


def has_table(socket: Netlink, name: str) -> bool:
    """Whether there is a table of this name in the family inet. Raises Refused."""
    from cloche.kernel.netlink import Refused

    try:
        socket.ask(_message(_GETTABLE, 0, text(1, name)))
    except Refused as error:
        if error.errno == 2:
            return False
        raise
    return True


class KnownChain(Value):
    """A chain that is there, whoever made it. hook: its number, -1 for one that only others call; policy: 0 drops."""

    family: int
    table: str
    name: str
    hook: int = -1
    policy: int = 1


def chains(socket: Netlink) -> list[KnownChain]:
    """Every chain of this network namespace. Raises Refused."""
    found = []
    for body in socket.ask((_SUBSYSTEM | _GETCHAIN, DUMP, bytes(4))):
        attrs = attributes(body, 4)
        table, name = (attrs[kind].rstrip(b"\0").decode("utf-8", "replace") for kind in (1, 3))
        hook = _BE32.unpack(attributes(attrs[4])[1])[0] if 4 in attrs else -1
        found.append(KnownChain(body[0], table, name, hook, _BE32.unpack(attrs.get(5, b"\0\0\0\1"))[0]))
    return found


def _foreign(chain: KnownChain, *attrs: bytes) -> bytes:
    return bytes((chain.family, 0, 0, 0)) + text(1, chain.table) + b"".join(attrs)


def let_through(chain: KnownChain, link: str) -> tuple[Message, ...]:
    """The batch that puts two rules at the head of somebody's chain: what comes from a link, or goes to it, is
    accepted. They are what iptables(8) makes of `-I CHAIN -i LINK -j ACCEPT` and `-o`, so that it can show them."""
    rules = []
    for key in (7, 6):
        terms = _meta(key) + _compare(link.encode().ljust(16, b"\0"))
        terms += _expression("counter", attribute(1, bytes(8)), attribute(2, bytes(8))) + Verdict("accept").encode()
        body = _foreign(chain, text(2, chain.name), nest(4, terms))
        rules.append((_SUBSYSTEM | _NEWRULE, CREATE | ACK, body))
    return _batch(*rules)


def rules_naming(socket: Netlink, chain: KnownChain, link: str) -> list[bytes]:
    """The handles of a chain's rules that look for a link of this name. Raises Refused."""
    wanted = link.encode().ljust(16, b"\0")
    bodies = socket.ask((_SUBSYSTEM | _GETRULE, DUMP, _foreign(chain, text(2, chain.name))))
    return [attributes(body, 4)[3] for body in bodies if wanted in body]


def delete_rules(chain: KnownChain, handles: list[bytes]) -> tuple[Message, ...]:
    """The batch that deletes rules."""
    where = text(2, chain.name)
    return _batch(*((_SUBSYSTEM | _DELRULE, ACK, _foreign(chain, where, attribute(3, h))) for h in handles))


def host() -> Netlink:
    """This process's socket for nf_tables in its own network namespace. Raises OSError."""
    return shared(NETFILTER)
