"""The keeper's side of name resolution: sockets at the gateways of networks, and a responder that answers there.

The sockets are held like those of containers, so questions wait in them while a responder, a keeper or a holder is
followed by another. They have ports of the kernel's choice, to which a rule leads port 53: a DNS server of the host's
own has that one, as often as not.
"""

from __future__ import annotations

import os

from cloche.engine.holder import drop, note, reap
from cloche.errors import Error
from cloche.step.firewall import port_element

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.job import Job
    from cloche.engine.keeper import Keeper

SOCKETS, PROCESS = "names", "names:process"
_AGAIN = 0.2  # seconds before a responder that ended follows another that did


def is_ours(key: str) -> bool:
    """Whether what is held under a key is the name server's, and no container's."""
    return key in (SOCKETS, PROCESS)


class NameServer:
    """State is what is held; this only knows how to make it, and again."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def adopt(self) -> None:
        """After a death: go on with what is held; find what containers need that both processes' death has closed."""
        if PROCESS in self._keeper.held:
            self._watch()
        wanted = {a for job in self._keeper.jobs for a in job.notes.get("names", ())}
        if wanted:
            self.serve(sorted(wanted))

    def serve_for(self, job: Job) -> None:
        """Where a container's networks have names, they are answered before its program runs. Raises Error."""
        if gateways := job.notes.get("names"):
            try:
                self.serve(gateways)
            except OSError as error:
                raise Error("answer questions for names", error.errno or 5, "is the bridge still there?") from error

    def serve(self, gateways: list[str]) -> None:
        """See to it that names are answered at these addresses. Raises OSError."""
        held = self._keeper.held.get(SOCKETS, {})
        fresh = {}
        for address in gateways:
            for kind in ("udp", "tcp"):
                name = f"{kind}:{address}"
                if name not in held:
                    fresh[name] = _bind(address, kind)
        gone = self._let_go(set(gateways)) if fresh and held else []
        if fresh:
            self._keeper.put(SOCKETS, **fresh)
        for address in gateways:
            for kind in ("udp", "tcp"):
                port = _port(self._keeper.held[SOCKETS][f"{kind}:{address}"])
                port_element(self._keeper.store.parent, address, kind, 53, address, port).apply()
        if PROCESS not in self._keeper.held:
            self._start()
        elif fresh:
            self._tell(fresh, gone)

    def _let_go(self, wanted: set[str]) -> list[str]:
        """Close sockets at gateways of networks that are gone; their addresses."""
        from cloche.engine.networks import Networks

        networks = Networks(self._keeper.store, self._keeper.db).all()
        wanted |= {subnet.gateway for network in networks for subnet in network.subnets}
        held = self._keeper.held[SOCKETS]
        gone = [name for name in held if name.partition(":")[2] not in wanted]
        for name in gone:
            self._keeper.tell({"op": "close", "key": SOCKETS, "name": name})
            os.close(held.pop(name))
        return sorted({name.partition(":")[2] for name in gone})

    def _tell(self, fresh: dict[str, int], gone: list[str]) -> None:
        """The responder has more sockets, and lets go of some."""
        import socket

        from cloche.engine import protocol

        control = socket.socket(fileno=os.dup(self._keeper.held[PROCESS]["control"]))
        try:
            message = {"kinds": [name.partition(":")[0] for name in fresh], "gone": gone}
            protocol.send(control, message, tuple(fresh.values()), protocol.DONTWAIT)
        except OSError as error:
            note(f"responder: {error}")  # it is dying; the next one gets all
        finally:
            control.close()

    def _start(self) -> None:
        """Spawn a responder with all sockets. Raises OSError."""
        import sys

        from cloche.engine import protocol

        ours, theirs = protocol.pair()
        sockets = list(self._keeper.held[SOCKETS].items())
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "responder.py")
        argv = [sys.executable, "-I", "-B", program, self._keeper.store.root]
        actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)]
        high = []
        try:
            import fcntl

            for number, (name, fd) in enumerate(sockets):
                high.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 1000 + len(sockets)))
                actions.append((os.POSIX_SPAWN_DUP2, high[-1], 4 + number))
                argv.append(f"{4 + number}:{name.partition(':')[0]}")
            environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
            pid = os.posix_spawn(argv[0], argv, environ, file_actions=actions, setsigmask=[], setsigdef=range(1, 32))
        finally:
            theirs.close()
            for fd in high:
                os.close(fd)
        self._keeper.put(PROCESS, pidfd=os.pidfd_open(pid), control=ours.detach())
        self._watch()

    def _watch(self) -> None:
        self._keeper.watch(self._keeper.held[PROCESS]["pidfd"], self._ended)

    def _ended(self) -> None:
        """It has ended, which it does not do by itself: another follows, in a moment."""
        self._forget()
        note("responder: it ended, another follows")
        self._keeper.after(_AGAIN, self._again)

    def _again(self) -> None:
        if PROCESS not in self._keeper.held and SOCKETS in self._keeper.held:
            try:
                self._start()
            except OSError as error:
                note(f"responder: {error}")
                self._keeper.after(_AGAIN * 10, self._again)

    def _forget(self) -> None:
        pidfd = self._keeper.held[PROCESS]["pidfd"]
        self._keeper.unwatch(pidfd)
        reap(pidfd)
        self._keeper.tell({"op": "drop", "key": PROCESS})  # who reaps it, where it is the holder's child
        drop(self._keeper.held, PROCESS)

    def end(self) -> None:
        """Nobody asks any more."""
        from cloche.kernel.pidfd import kill_and_wait

        if PROCESS in self._keeper.held:
            self._keeper.unwatch(self._keeper.held[PROCESS]["pidfd"])
            kill_and_wait(self._keeper.held[PROCESS]["pidfd"])
            self._forget()
        if SOCKETS in self._keeper.held:
            self._keeper.tell({"op": "drop", "key": SOCKETS})
            drop(self._keeper.held, SOCKETS)


def _bind(address: str, kind: str) -> int:
    """A socket for questions; an address of IPv6 is told of at once, without waiting for it to be checked. Raises
    OSError."""
    import _socket

    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    way = _socket.SOCK_DGRAM if kind == "udp" else _socket.SOCK_STREAM
    sock = _socket.socket(family, way | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
    try:
        sock.bind((address, 0))
        if kind == "tcp":
            sock.listen(64)
        return sock.detach()
    except BaseException:
        sock.close()
        raise


def _port(fd: int) -> int:
    import _socket

    sock = _socket.socket(fileno=os.dup(fd))
    try:
        return int(sock.getsockname()[1])
    finally:
        sock.close()
