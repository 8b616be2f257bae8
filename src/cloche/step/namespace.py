"""namespaces(7) as steps: clone(2) into new ones, setns(2) into others', user_namespaces(7) with its maps."""

from __future__ import annotations

import os

from cloche.kernel.namespaces import CLONE_INTO_CGROUP, CLONE_PARENT, NEWUSER, flag_names
from cloche.kernel.namespaces import KINDS as KINDS
from cloche.oci.runtime import IdMapping
from cloche.step.base import Flat, Ref, Step, quote, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar

    from cloche.step.base import World


class OpenNamespace(Step):
    """Open a namespace of a process, or one that is bound to a file."""

    because = "A namespace is joined through a descriptor: a path or a pid could come to mean something else meanwhile."
    path: str
    made: Ref
    pid: int = 0
    start_time: int = 0

    def gives(self) -> tuple[Ref, ...]:
        return (self.made,)

    def call(self) -> str:
        return f"open({quote(self.path)}, O_RDONLY|O_CLOEXEC)"

    def name(self) -> str:
        return f"open namespace {self.path}"

    def of(self, pid: int, start_time: int) -> OpenNamespace:
        """The same namespace of another process."""
        return self.replace(path=f"/proc/{pid}/ns/{self.path.rpartition('/')[2]}", pid=pid, start_time=start_time)

    def execute(self, world: World) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        if self.pid and self.start_time:
            from cloche.kernel.processes import start_time

            # checked after opening: if the process is still the same one, the descriptor is of that process
            if start_time(self.pid) != self.start_time:
                os.close(fd)
                raise ProcessLookupError(3, "the process has ended", self.path)
        world.give(self.made, fd)


class SetNamespace(Step):
    """setns(2): enter an existing namespace."""

    because = "Shared with another container, as asked."
    op: ClassVar[str] = "SETNS"
    namespace: Ref
    kind: str

    def needs(self) -> tuple[Ref, ...]:
        return (self.namespace,)

    def call(self) -> str:
        return f"setns({self.namespace.name}, {KINDS[self.kind][2]})"

    def shell(self) -> str:
        return f"nsenter --{'mount' if self.kind == 'mount' else KINDS[self.kind][1]}=..."

    def name(self) -> str:
        return f"enter the {self.kind} namespace {self.namespace.name}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (slot(self.namespace), KINDS[self.kind][0]), ()


class MakeUserNamespace(Step):
    """Make a user namespace with its maps: a child is cloned into it, mapped, the namespace opened, the child ended."""

    because = "Root inside is nobody in particular outside: the maps say who."
    op: ClassVar[str] = "USERNS"
    made: Ref
    uids: tuple[IdMapping, ...]
    gids: tuple[IdMapping, ...]

    def gives(self) -> tuple[Ref, ...]:
        return (self.made,)

    def call(self) -> str:
        uids, gids = quote(self._map(self.uids)), quote(self._map(self.gids))
        return f"clone(CLONE_NEWUSER); write(uid_map, {uids}); write(gid_map, {gids})"

    def shell(self) -> str:
        first = self.uids[0]
        return f"unshare --user --map-users={first.host},{first.container},{first.size} --map-groups=auto ..."

    def name(self) -> str:
        return "make a user namespace"

    @staticmethod
    def _map(mappings: tuple[IdMapping, ...]) -> str:
        return "".join(f"{m.container} {m.host} {m.size}\n" for m in mappings)

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (slot(self.made),), (self._map(self.uids).encode(), self._map(self.gids).encode())


class EnterUserNamespace(Step):
    """setns(2) into the user namespace and become its root."""

    because = (
        "Namespaces made from here on belong to the container's root, who has power over them and over nothing else."
    )
    op: ClassVar[str] = "ENTERUSER"
    namespace: Ref

    def needs(self) -> tuple[Ref, ...]:
        return (self.namespace,)

    def call(self) -> str:
        return f"setns({self.namespace.name}, CLONE_NEWUSER); setresgid(0, 0, 0); setresuid(0, 0, 0)"

    def name(self) -> str:
        return "enter the user namespace"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (slot(self.namespace), NEWUSER), ()


class Clone(Step):
    """clone3(2): the new process, in its new namespaces, a child of the one that started bell."""

    because = "This call makes the container: an ordinary process that the kernel shows a world of its own."
    op: ClassVar[str] = "CLONE"
    flags: int
    cgroup: tuple[Ref, ...] = ()

    def needs(self) -> tuple[Ref, ...]:
        return self.cgroup

    def gives(self) -> tuple[Ref, ...]:
        return (Ref("stage.pidfd"),)

    def call(self) -> str:
        flags = self.flags | CLONE_PARENT | (CLONE_INTO_CGROUP if self.cgroup else 0)
        into = f", cgroup={self.cgroup[0].name}" if self.cgroup else ""
        return f"clone3({{flags={flag_names(flags)}|CLONE_PIDFD{into}}})"

    def shell(self) -> str:
        options = " ".join("--" + (KINDS[k][1] if k != "mount" else "mount") for k in KINDS if self.flags & KINDS[k][0])
        return f"unshare --fork {options} ..."

    def name(self) -> str:
        return "clone the container's first process"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (self.flags, slot(self.cgroup[0]) if self.cgroup else -1, slot(self.gives()[0])), ()


class Unshare(Step):
    """unshare(2)."""

    because = "A namespace that must be made after the process is where it belongs."
    op: ClassVar[str] = "UNSHARE"
    flags: int

    def call(self) -> str:
        return f"unshare({flag_names(self.flags)})"

    def shell(self) -> str:
        return "unshare " + " ".join(
            "--" + KINDS[k][1].replace("mnt", "mount") for k in KINDS if self.flags & KINDS[k][0]
        )

    def name(self) -> str:
        return f"unshare {flag_names(self.flags)}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (self.flags,), ()


class SetHostName(Step):
    """sethostname(2) in the container's UTS namespace."""

    because = "The container has a name of its own."
    op: ClassVar[str] = "HOSTNAME"
    hostname: str

    def call(self) -> str:
        return f"sethostname({quote(self.hostname)})"

    def shell(self) -> str:
        return f"hostname {word(self.hostname)}"

    def name(self) -> str:
        return f"set the host name {self.hostname}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), (self.hostname.encode(),)


class SetDomainName(Step):
    """setdomainname(2) in the container's UTS namespace."""

    because = "The container has an NIS domain name of its own."
    op: ClassVar[str] = "DOMAINNAME"
    domainname: str

    def call(self) -> str:
        return f"setdomainname({quote(self.domainname)})"

    def shell(self) -> str:
        return f"domainname {word(self.domainname)}"

    def name(self) -> str:
        return f"set the domain name {self.domainname}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), (self.domainname.encode(),)


class RaiseLoopback(Step):
    """ioctl SIOCSIFFLAGS IFF_UP on lo, netdevice(7)."""

    because = "A new network namespace has a loopback interface that is down."
    op: ClassVar[str] = "LOOPBACK"

    def call(self) -> str:
        return 'ioctl(socket, SIOCSIFFLAGS, {"lo", IFF_UP})'

    def shell(self) -> str:
        return "ip link set lo up"

    def name(self) -> str:
        return "bring the loopback interface up"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), ()
