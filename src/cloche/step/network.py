"""rtnetlink(7) and sysctl(8) as steps: bridges, pairs of links, addresses, routes; ports that are reserved.

A bridge belongs to a network and stays when a container goes; what is made for one container goes with it. The link
inside ends with its namespace, and takes the host's end along: that is left to the kernel, for asking takes 25 ms.
"""

from __future__ import annotations

import os
from errno import EADDRINUSE, EEXIST, ENODEV, ENOENT

from cloche.step.base import Ref, Step, quote, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar

    from cloche.kernel.netlink import Message
    from cloche.step.base import World

PID, PIDFD, NETWORK = Ref("pid", "pid"), Ref("pidfd"), Ref("network")


def _address(text: str) -> bytes:
    from _socket import inet_pton

    return inet_pton(10 if ":" in text else 2, text)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _unless_there(message: Message) -> None:
    """Ask for something that others may have made before."""
    from cloche.kernel import rtnetlink
    from cloche.kernel.netlink import Refused

    try:
        rtnetlink.host().ask(message)
    except Refused as error:
        if error.errno != EEXIST:
            raise


class WriteSetting(Step):
    """Write one kernel parameter of the host, unless it has that value; it stays, for others count on it by then."""

    because = "A parameter of the host's kernel that networks need."
    path: str
    content: str

    def call(self) -> str:
        return f"write({quote(self.path)}, {quote(self.content)})"

    def shell(self) -> str:
        return f"echo {word(self.content)} > {word(self.path)}"

    def name(self) -> str:
        return f"write {self.content} to {self.path}"

    def execute(self, world: World) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.read(fd, 64).strip() == self.content.encode():
                return
        finally:
            os.close(fd)
        fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, self.content.encode())
        finally:
            os.close(fd)


class MakeBridge(Step):
    """Make a bridge, up; one of that name is left as it is."""

    because = "The network's switch: the host's end of every container's link is a port of it."
    link: str
    mac: str
    alias: str
    mtu: int = 0

    def call(self) -> str:
        return f'sendmsg(route, {{RTM_NEWLINK {quote(self.link)}, "bridge", IFF_UP}})'

    def shell(self) -> str:
        size = f" mtu {self.mtu}" if self.mtu else ""
        return f"ip link add {self.link} address {self.mac}{size} up type bridge"

    def name(self) -> str:
        return f"make the bridge {self.link}"

    def execute(self, world: World) -> None:
        from cloche.kernel import rtnetlink

        try:
            rtnetlink.index(self.link)
        except OSError:
            _unless_there(rtnetlink.make_bridge(self.link, _mac(self.mac), self.mtu))
            rtnetlink.host().ask(rtnetlink.set_alias(self.link, self.alias))

    def take_down(self) -> None:
        from cloche.kernel import rtnetlink

        try:
            with open(f"/sys/class/net/{self.link}/ifalias", encoding="utf-8", errors="replace") as file:
                if file.read().strip() != self.alias:
                    return  # somebody else's, which we were told to use
            rtnetlink.host().ask(rtnetlink.delete_link(self.link))
        except OSError as error:
            if error.errno not in (ENODEV, ENOENT):
                raise


class AddBridgeAddress(Step):
    """Give a bridge its address, unless it has it."""

    because = "The host is the network's gateway."
    link: str
    address: str
    prefix: int

    def call(self) -> str:
        return f"sendmsg(route, {{RTM_NEWADDR {self.address}/{self.prefix}, if_nametoindex({quote(self.link)})}})"

    def shell(self) -> str:
        return f"ip address add {self.address}/{self.prefix} dev {self.link}"

    def name(self) -> str:
        return f"add address {self.address} to {self.link}"

    def execute(self, world: World) -> None:
        from cloche.kernel import rtnetlink

        link = rtnetlink.index(self.link)
        _unless_there(rtnetlink.add_address(link, _address(self.address), self.prefix))


class EnterNetwork(Step):
    """Open a netlink socket in the container's network namespace, and write kernel parameters there."""

    because = "A socket belongs to the namespace in which it was made: what is sent by it happens in there."
    settings: tuple[tuple[str, str], ...] = ()

    def needs(self) -> tuple[Ref, ...]:
        return (PIDFD,)

    def gives(self) -> tuple[Ref, ...]:
        return (NETWORK,)

    def call(self) -> str:
        writes = "".join(f'; write("/proc/sys/net/{key}", {quote(value)})' for key, value in self.settings)
        return f"setns(pidfd, CLONE_NEWNET); socket(AF_NETLINK){writes}; setns(home, CLONE_NEWNET)"

    def shell(self) -> str:
        return "; ".join(f"nsenter --net=... sysctl -w net.{k.replace('/', '.')}={v}" for k, v in self.settings)

    def name(self) -> str:
        return "enter the container's network namespace"

    def execute(self, world: World) -> None:
        from cloche.kernel import rtnetlink

        with rtnetlink.inside(world.take(PIDFD), self.settings) as socket:
            world.give(NETWORK, socket.detach())


class MakeVeth(Step):
    """Make a pair of links: one end a port of the bridge, the other in the container's namespace."""

    because = "A cable: what goes in at one end comes out at the other, in another network namespace."
    later: ClassVar[bool] = True
    link: str
    inside: str
    bridge: str
    mac: str
    alias: str
    mtu: int = 0
    hairpin: bool = False  # it may be sent what it sent itself: to a published port of its own

    def needs(self) -> tuple[Ref, ...]:
        return (PID,)

    def call(self) -> str:
        ends = f'{quote(self.link)}, "veth", IFLA_MASTER {quote(self.bridge)}, peer {quote(self.inside)} in ns of pid'
        return f"sendmsg(route, {{RTM_NEWLINK {ends}}})"

    def shell(self) -> str:
        peer = f"peer name {self.inside} address {self.mac} netns $PID"
        after = f"; ip link set {self.link} type bridge_slave hairpin on" if self.hairpin else ""
        return f"ip link add {self.link} master {self.bridge} up type veth {peer}{after}"

    def name(self) -> str:
        return f"make the link {self.link} to {self.inside}"

    def execute(self, world: World) -> None:
        from cloche.kernel import rtnetlink

        bridge = rtnetlink.index(self.bridge)
        pid = world.take(PID)
        messages = (
            rtnetlink.make_veth(self.link, self.inside, pid, bridge, _mac(self.mac), self.mtu),
            rtnetlink.set_alias(self.link, self.alias),
            *((rtnetlink.set_hairpin(self.link),) if self.hairpin else ()),
        )
        try:
            rtnetlink.host().ask(*messages)
        except OSError as error:
            if error.errno != EEXIST:
                raise
            self.undo()  # of the start before, whose namespace the kernel is still taking apart
            rtnetlink.host().ask(*messages)

    def undo(self) -> None:
        from cloche.kernel import rtnetlink

        try:
            rtnetlink.index(self.link)
            rtnetlink.host().ask(rtnetlink.delete_link(self.link))
        except OSError as error:
            if error.errno != ENODEV:
                raise


class MakeMacvlan(Step):
    """Make a link in the container's namespace that has an address of its own on the wire of one of the host's."""

    because = "The container is a neighbour on the host's own network, with a hardware address of its own."
    inside: str
    parent: str
    mac: str
    mtu: int = 0

    def needs(self) -> tuple[Ref, ...]:
        return (PID,)

    def call(self) -> str:
        ends = f'{quote(self.inside)}, "macvlan", IFLA_LINK {quote(self.parent)}, in ns of pid'
        return f"sendmsg(route, {{RTM_NEWLINK {ends}}})"

    def shell(self) -> str:
        return f"ip link add {self.inside} netns $PID link {self.parent} address {self.mac} type macvlan mode bridge"

    def name(self) -> str:
        return f"make the link {self.inside} on {self.parent}"

    def execute(self, world: World) -> None:
        from cloche.kernel import rtnetlink

        parent, pid = rtnetlink.index(self.parent), world.take(PID)
        rtnetlink.host().ask(rtnetlink.make_macvlan(self.inside, pid, parent, _mac(self.mac), self.mtu))


class AddAddress(Step):
    """Give the link inside an address."""

    because = "By this address others of the network reach the container."
    link: str
    address: str
    prefix: int

    def needs(self) -> tuple[Ref, ...]:
        return (NETWORK,)

    def call(self) -> str:
        return f"sendmsg(network, {{RTM_NEWADDR {self.address}/{self.prefix} on {quote(self.link)}}})"

    def shell(self) -> str:
        return f"nsenter --net=... ip address add {self.address}/{self.prefix} dev {self.link}"

    def name(self) -> str:
        return f"add address {self.address} to {self.link}"

    def execute(self, world: World) -> None:
        from cloche.kernel import rtnetlink

        _ask_inside(world, self.link, lambda link: rtnetlink.add_address(link, _address(self.address), self.prefix))


class SetLinkUp(Step):
    """Bring the link inside up."""

    because = "A new link is down."
    link: str

    def needs(self) -> tuple[Ref, ...]:
        return (NETWORK,)

    def call(self) -> str:
        return f"sendmsg(network, {{RTM_NEWLINK {quote(self.link)}, IFF_UP}})"

    def shell(self) -> str:
        return f"nsenter --net=... ip link set {self.link} up"

    def name(self) -> str:
        return f"bring {self.link} up"

    def execute(self, world: World) -> None:
        from cloche.kernel import rtnetlink

        _ask_inside(world, self.link, rtnetlink.set_up)


class AddRoute(Step):
    """The container's default route."""

    because = "What is not on the container's own networks goes through the host."
    link: str
    gateway: str

    def needs(self) -> tuple[Ref, ...]:
        return (NETWORK,)

    def call(self) -> str:
        return f"sendmsg(network, {{RTM_NEWROUTE default via {self.gateway} dev {quote(self.link)}}})"

    def shell(self) -> str:
        return f"nsenter --net=... ip route add default via {self.gateway} dev {self.link}"

    def name(self) -> str:
        return f"add the default route by {self.gateway}"

    def execute(self, world: World) -> None:
        from cloche.kernel import rtnetlink

        _ask_inside(world, self.link, lambda link: rtnetlink.add_route(link, _address(self.gateway)))


def _ask_inside(world: World, link: str, message: Callable[[int], Message]) -> None:
    """Ask by the socket that belongs to the container's namespace."""
    from cloche.kernel import rtnetlink
    from cloche.kernel.netlink import Netlink

    fd = world.take(NETWORK)
    socket = Netlink.of(fd)
    try:
        socket.ask(message(rtnetlink.index(link, fd)))
    finally:
        socket.detach()


class ReservePort(Step):
    """Bind a socket to a port of the host that is published, and never listen on it."""

    because = (
        "Nobody else on the host can take the port, and one that is taken already is found before anything starts."
    )
    address: str
    protocol: str
    port: int
    made: Ref

    def gives(self) -> tuple[Ref, ...]:
        return (self.made,)

    def call(self) -> str:
        return f"bind(socket({self.protocol}), {quote(self.address)}, {self.port})"

    def name(self) -> str:
        shown = f"[{self.address}]" if ":" in self.address else self.address
        return f"publish port {shown}:{self.port}/{self.protocol}"

    def execute(self, world: World) -> None:
        world.give(self.made, reserve(self.address, self.protocol, self.port))


def reserve(address: str, protocol: str, port: int) -> int:
    """A socket that has the port. Raises OSError(EADDRINUSE).

    A TCP port that is only waiting for old connections to be forgotten (TIME_WAIT) is free: it is had with
    SO_REUSEADDR, which two that listen cannot share.
    """
    import _socket

    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    kind = {"tcp": _socket.SOCK_STREAM, "udp": _socket.SOCK_DGRAM, "sctp": _socket.SOCK_STREAM}[protocol]
    number = {"tcp": 6, "udp": 17, "sctp": 132}[protocol]
    for again in (False, True):
        sock = _socket.socket(family, kind | _socket.SOCK_CLOEXEC, number)
        try:
            if family == _socket.AF_INET6:
                sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
            if again:
                sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            if protocol == "udp":
                sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, 0)  # nothing is ever read from it
            sock.bind((address, port))
            if again:
                sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 0)
            return sock.detach()
        except OSError as error:
            sock.close()
            if again or error.errno != EADDRINUSE or protocol != "tcp":
                raise
    raise AssertionError
