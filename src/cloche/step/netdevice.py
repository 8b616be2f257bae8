"""A link of the host's that moves into a container's network namespace, with its addresses (config-linux.md, Network
Devices)."""

from __future__ import annotations

from cloche.step.base import Ref, Step, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.step.base import World

PIDFD = Ref("pidfd")
PID = Ref("pid", "pid")


class MoveLink(Step):
    """rtnetlink(7), IFLA_NET_NS_PID. The kernel takes its addresses away on the way: they are given again, and it is
    brought up. A physical one comes back when the namespace ends; others end with it.
    """

    because = "As asked: a network device of the host is the container's for as long as it lives."
    link: str
    inside: str

    def needs(self) -> tuple[Ref, ...]:
        return (PID, PIDFD)

    def call(self) -> str:
        return f"sendmsg(netlink, {{RTM_NEWLINK {self.link}, IFLA_NET_NS_PID, IFLA_IFNAME {self.inside}}})"

    def shell(self) -> str:
        return f"ip link set {word(self.link)} netns ... name {word(self.inside)}"

    def name(self) -> str:
        return f"move the network device {self.link} into the container"

    def execute(self, world: World) -> None:
        from cloche.kernel import rtnetlink

        host = rtnetlink.host()
        number = rtnetlink.index(self.link)
        kept = list(rtnetlink.addresses(host, number))
        with rtnetlink.inside(world.take(PIDFD)) as there:
            before = {each[0] for each in rtnetlink.links(there)}
            host.ask(rtnetlink.move(number, world.take(PID), self.inside))
            # its number may be another one there, and so may its name: `eth%d` is a template
            arrived = next(each[0] for each in rtnetlink.links(there) if each[0] not in before)
            for address, prefix in kept:
                there.ask(rtnetlink.add_address(arrived, address, prefix))
            there.ask(rtnetlink.set_up(arrived))
