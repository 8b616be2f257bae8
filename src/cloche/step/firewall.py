"""nf_tables as steps: the store's table, and the elements by which a network or a published port is known to it.

The rules themselves are in step.ruleset, which nobody needs who only makes plans.
"""

from __future__ import annotations

from errno import EEXIST, EPROTONOSUPPORT

from cloche.step.base import Step, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.kernel.nftables import Element, KnownChain
    from cloche.step.base import World


class MakeFirewall(Step):
    """Make the store's table of rules; one that is there is left, for all of them are alike."""

    because = "Who may reach containers, and how their packets are translated; made once, for all containers."
    table: str

    def call(self) -> str:
        return f"sendmsg(netfilter, {{NFT_MSG_NEWTABLE inet {quote(self.table)}, sets, maps, chains, rules}})"

    def shell(self) -> str:
        from cloche.step.ruleset import table

        return f"nft -f - <<'EOF'\n{table(self.table).text()}\nEOF"

    def name(self) -> str:
        return f"make the firewall table {self.table}"

    def execute(self, world: World) -> None:
        from cloche.kernel.nftables import has_table, host, make_table
        from cloche.step.ruleset import table

        socket = host()
        if not has_table(socket, self.table):
            socket.ask(*make_table(table(self.table)))


class LetThrough(Step):
    """Add rules to Docker's chain DOCKER-USER, which is for that: another firewall drops what is forwarded."""

    because = "Another firewall on this host drops what is forwarded; it lets others speak in the chain DOCKER-USER."
    link: str

    def call(self) -> str:
        return (
            f"sendmsg(netfilter, {{NFT_MSG_NEWRULE ip filter DOCKER-USER, iifname|oifname {quote(self.link)} accept}})"
        )

    def shell(self) -> str:
        rule = "iptables -I DOCKER-USER -{} " + self.link + " -j ACCEPT"
        return "; ".join(rule.format(way) for way in "io")

    def name(self) -> str:
        return f"let packets of {self.link} through DOCKER-USER"

    def execute(self, world: World) -> None:
        from cloche.kernel.nftables import host, let_through, rules_naming

        for chain in docker_user():
            if not rules_naming(host(), chain, self.link):
                host().ask(*let_through(chain, self.link))

    def take_down(self) -> None:
        from cloche.kernel.nftables import delete_rules, host, rules_naming

        for chain in docker_user():
            if handles := rules_naming(host(), chain, self.link):
                host().ask(*delete_rules(chain, handles))


def docker_user() -> list[KnownChain]:
    """Docker's chain for rules of others, where it is (iptables over nf_tables). Raises OSError."""
    from cloche.kernel.nftables import IPV4, chains, host

    return [c for c in chains(host()) if (c.family, c.table, c.name) == (IPV4, "filter", "DOCKER-USER")]


def droppers(own: str) -> list[KnownChain]:
    """Chains of others that drop what is forwarded unless a rule of theirs accepts it. Raises OSError."""
    from cloche.kernel.nftables import INET, IPV4, chains, host

    return [c for c in chains(host()) if c.hook == 2 and c.policy == 0 and c.family in (INET, IPV4) and c.table != own]


class AddElement(Step):
    """Add an element to a set or a map of the store's table.

    Where it leads a port of UDP somewhere, the kernel forgets the flows that went elsewhere before, and those that went
    there when it is taken away.
    """

    because = "The rules look into sets and maps: a container adds an element, and no rule ever changes."
    table: str
    set: str
    key: tuple[str, ...]
    value: tuple[str, ...] = ()
    shared: bool = False  # it belongs to a network and stays when a container goes

    def _element(self) -> Element:
        from cloche.kernel.nftables import Element
        from cloche.step.ruleset import SETS

        return Element(self.table, SETS[self.set], self.key, self.value)

    def _text(self) -> str:
        return " . ".join(self.key) + (f" : {' . '.join(self.value)}" if self.value else "")

    def _leads(self) -> tuple[str, str] | None:
        """The address and the port of UDP whose packets this leads somewhere."""
        *where, protocol, port = self.key if self.value else ("", "")
        if protocol != "udp":
            return None
        return where[0] if where else "::" if self.set == "any6" else "0.0.0.0", port

    def call(self) -> str:
        add = f"sendmsg(netfilter, {{NFT_MSG_NEWSETELEM {self.set} {{ {self._text()} }}}})"
        if (led := self._leads()) is None:
            return add
        return f"{add}; sendmsg(netfilter, {{IPCTNL_MSG_CT_DELETE each flow of udp to {led[0]} port {led[1]}}})"

    def shell(self) -> str:
        add = f"nft add element inet {self.table} {self.set} '{{ {self._text()} }}'"
        if (led := self._leads()) is None:
            return add
        to = "-f ipv6" if led[0] == "::" else "" if led[0] == "0.0.0.0" else f"--orig-dst {led[0]}"
        return f"{add}; " + " ".join(f"conntrack -D -p udp {to} --orig-port-dst {led[1]} || true".split())

    def name(self) -> str:
        return f"add {self._text()} to {self.set}"

    def execute(self, world: World) -> None:
        self.apply()

    def apply(self) -> None:
        """Add it. Where it is already nothing happens: the flows of a port of UDP are right as they are. Raises
        OSError."""
        from cloche.kernel.netlink import Refused
        from cloche.kernel.nftables import add_elements, has_element, host, replace_element

        element = self._element()
        if self._leads() and has_element(host(), element):
            return
        try:
            host().ask(*add_elements(element))
        except Refused as error:
            if error.errno != EEXIST:
                raise
            # of a container that was killed with all that would have cleaned up: the port is ours, it is reserved
            host().ask(*replace_element(element))
        self._forget_flows()

    def _forget_flows(self) -> None:
        if (led := self._leads()) is None:
            return
        from cloche.kernel.conntrack import forget
        from cloche.kernel.nftables import PROTOCOLS, host

        forget(host(), PROTOCOLS["udp"], led[0], int(led[1]))

    def undo(self) -> None:
        if not self.shared:
            self.take_down()

    def take_down(self) -> None:
        from cloche.kernel.nftables import delete_element, has_element, has_table, host

        try:
            there = has_table(host(), self.table)
        except OSError as error:
            if error.errno == EPROTONOSUPPORT:  # a kernel without nf_tables: there is nothing to take back
                return
            raise
        element = self._element()
        if there and has_element(host(), element):  # never another's, whose port kept this one from starting
            host().ask(*delete_element(element))
            self._forget_flows()


def bridge_elements(
    table: str, bridge: str, subnets: tuple[str, ...], internal: bool, masquerade: bool
) -> tuple[AddElement, ...]:
    """What makes a bridge one of ours."""
    found = [("bridges", (bridge,)), ("same", (bridge, bridge))]
    found += [("internal", (bridge,))] if internal else []
    found += [] if masquerade else [("plain", (bridge,))]
    found += [("subnets6" if ":" in subnet else "subnets4", (subnet,)) for subnet in subnets]
    return tuple(AddElement(table, name, key, shared=True) for name, key in found)


def port_element(table: str, host: str, protocol: str, port: int, address: str, inside: int) -> AddElement:
    """A published port: `host` is an address of the host, 0.0.0.0 or :: for all of a family."""
    wide = ":" in host
    value = address, str(inside)
    if host in ("0.0.0.0", "::"):
        return AddElement(table, "any6" if wide else "any4", (protocol, str(port)), value)
    kind = "ports6" if wide else "local4" if host[:4] == "127." else "ports4"
    return AddElement(table, kind, (host, protocol, str(port)), value)
