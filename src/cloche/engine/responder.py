"""The responder: a process of the keeper's that answers questions for names on networks that people have made.

It has no state: who asks and what a name means is looked up in the database at each question. Its sockets are the
keeper's and the holder's, so one that is killed is followed by another who finds every question still waiting.

    argv   ROOT, then each socket as DESCRIPTOR:udp|tcp
    fd 3   the control socket: more sockets come through it; its end is ours

What is not ours is passed on to the host's own servers, its loopback included, for we are in the host's network. A
container that is on internal networks only gets no answer from outside: questions carry data out (CVE-2024-29018).
"""

from __future__ import annotations

import os
import sys
from time import monotonic

if __package__ in (None, ""):
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from cloche.engine import database, protocol
from cloche.engine.loop import Loop
from cloche.engine.networks import Networks
from cloche.engine.sqlite import sqlite3
from cloche.engine.store import locate
from cloche.network import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket as Socket

    from cloche.engine.store import Store

CONTROL = 3
WAIT = 2.5  # seconds for one upstream
PENDING_MOST, CONNECTIONS_MOST = 512, 64
OF_ONE = 4  # one container has at most this part of them: the others want to ask, too


class Asked:
    """A question that an upstream has: whom to tell, what is left to try."""

    def __init__(
        self, packet: bytes, query: names.Query, back: Socket, peer: tuple[str, int], servers: list[str]
    ) -> None:
        self.packet, self.query, self.back, self.peer, self.servers = packet, query, back, peer, servers
        self.sock: Socket | None = None
        self.ident = 0
        self.due = 0.0


class Responder(Loop):
    """The loop over sockets and questions that are out."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.db = database.connect(store)
        self.networks = Networks(store, self.db)
        self.own: set[str] = set()
        self.asked: dict[int, Asked] = {}
        self.sockets: dict[int, Socket] = {}
        self.connections: list[str] = []  # the addresses of those who have one

    def run(self) -> None:
        """Until the control socket ends."""
        while True:
            waits = [a.due - monotonic() for a in self.asked.values()]
            self.call_ready(self.poll.poll(max(0.0, min(waits)) if waits else -1))
            self.call_due()
            for fd in [fd for fd, a in self.asked.items() if a.due <= monotonic()]:
                self.next_upstream(self.asked.pop(fd), fd)

    def take(self, fd: int, kind: str) -> None:
        """Answer at one more socket."""
        import socket

        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        self.own.add(sock.getsockname()[0])
        self.sockets[fd] = sock
        self.watch(fd, (lambda: self.datagram(sock)) if kind == "udp" else (lambda: self.accept(sock)))

    def control(self, sock: Socket) -> None:
        """The keeper has more sockets for us, or knows of networks that are gone."""
        message, fds = protocol.receive(sock)
        if message is None:
            os._exit(0)
        self.own.difference_update(message["gone"])
        for fd, each in list(self.sockets.items()):
            if each.getsockname()[0] in message["gone"]:
                self.unwatch(fd)
                self.sockets.pop(fd).close()
        for fd, kind in zip(fds, message["kinds"], strict=True):
            self.take(fd, kind)

    # -- who asks

    def client(self, address: str) -> names.Client | None:
        """The container that has this address; None for anybody else."""
        mapped = address.removeprefix("::ffff:")
        row = self.db.execute("SELECT container FROM connections WHERE ip4=? OR ip6=?", (mapped, mapped)).fetchone()
        if row is None:
            return None
        mine = [e.network for e in self.networks.endpoints(row["container"])]
        return names.Client(
            lambda name: self.networks.resolve(mine, name),
            lambda of: self.networks.named(mine, of),
            any(not network.internal for network in mine),
        )

    def wanted_servers(self, address: str) -> list[str]:
        """Whom a container's questions are passed on to: those of its --dns, else the host's."""
        from cloche.engine import config as configs

        row = self.db.execute(
            "SELECT k.config FROM connections c JOIN containers k ON k.id = c.container WHERE c.ip4=? OR c.ip6=?",
            (address, address),
        ).fetchone()
        own = configs.load(row["config"]).request.networking.dns if row else ()
        return [server for server in own if server not in self.own][:3] or self.servers()

    def respond(self, packet: bytes, address: str) -> tuple[bytes | None, names.Query | None]:
        """The answer; or None and the question, when somebody else must be asked; or nothing at all."""
        query = names.read(packet)
        if query is None:
            return None, None
        try:
            client = self.client(address)
            if client is None:
                return names.refuse(packet, names.REFUSED), None
            reply = names.answer(packet, query, client)
        except sqlite3.Error:
            return names.refuse(packet, names.SERVFAIL), None
        return reply, query

    # -- UDP

    def datagram(self, sock: Socket) -> None:
        """A bounded number of questions."""
        for _ in range(32):
            try:
                packet, peer = sock.recvfrom(4096)
            except (BlockingIOError, ConnectionError):
                return
            reply, query = self.respond(packet, peer[0])
            if reply is None and query:
                self.pass_on(packet, query, sock, peer)
            elif reply:
                self.tell(sock, peer, reply, query.size if query else 512)

    def tell(self, sock: Socket, peer: tuple[str, int], reply: bytes, most: int) -> None:
        """Send an answer; who does not take it asks again."""
        try:
            sock.sendto(names.truncated(reply, most), peer)
        except OSError:
            pass

    def servers(self) -> list[str]:
        """The host's, as they are now, without ourselves."""
        found = []
        try:
            with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
                for line in file:
                    words = line.split()
                    if words[:1] == ["nameserver"] and len(words) > 1 and words[1] not in self.own:
                        found.append(words[1])
        except OSError:
            pass
        return found[:3]  # as many as resolv.conf(5) takes

    def pass_on(self, packet: bytes, query: names.Query, back: Socket, peer: tuple[str, int]) -> None:
        """Ask the host's servers, one after the other."""
        mine = sum(a.peer[0] == peer[0] for a in self.asked.values())
        if len(self.asked) >= PENDING_MOST or mine >= PENDING_MOST // OF_ONE:
            self.tell(back, peer, names.refuse(packet, names.SERVFAIL), query.size)
            return
        self.next_upstream(Asked(packet, query, back, peer, self.wanted_servers(peer[0])), -1)

    def next_upstream(self, asked: Asked, before: int) -> None:
        """The next server; after the last one there is no answer."""
        import socket

        if asked.sock:
            self.unwatch(before)
            asked.sock.close()
            asked.sock = None
        while asked.servers:
            server = asked.servers.pop(0)
            family = socket.AF_INET6 if ":" in server else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            asked.ident = int.from_bytes(os.urandom(2), "big")  # and a port by the kernel's chance: hard to guess
            try:
                sock.connect((server, 53))
                sock.send(asked.ident.to_bytes(2, "big") + asked.packet[2:])
            except OSError:
                sock.close()
                continue
            asked.sock, asked.due = sock, monotonic() + WAIT
            self.asked[sock.fileno()] = asked
            self.watch(sock.fileno(), lambda sock=sock: self.upstream(sock))  # type: ignore[misc]
            return
        self.tell(asked.back, asked.peer, names.refuse(asked.packet, names.SERVFAIL), asked.query.size)

    def upstream(self, sock: Socket) -> None:
        """A server has answered, or is not there."""
        asked = self.asked[sock.fileno()]
        try:
            reply = sock.recv(65535)
        except BlockingIOError:
            return
        except OSError:
            self.next_upstream(self.asked.pop(sock.fileno()), sock.fileno())
            return
        if not names.belongs(reply, asked.packet, asked.ident):
            return  # somebody's guess
        self.asked.pop(sock.fileno())
        self.unwatch(sock.fileno())
        sock.close()
        self.tell(asked.back, asked.peer, asked.query.ident.to_bytes(2, "big") + reply[2:], 65535)

    # -- TCP

    def accept(self, sock: Socket) -> None:
        """A connection is served by a thread: it may wait."""
        try:
            connection, peer = sock.accept()
        except OSError:
            return
        mine = self.connections.count(peer[0])
        if len(self.connections) >= CONNECTIONS_MOST or mine >= CONNECTIONS_MOST // OF_ONE:
            connection.close()
            return
        from threading import Thread

        self.connections.append(peer[0])
        Thread(target=self._serve, args=(connection, peer[0]), daemon=True).start()

    def _serve(self, connection: Socket, address: str) -> None:
        import struct

        other = Responder.__new__(Responder)  # its own connection to the database: SQLite's are for one thread
        other.store, other.own = self.store, self.own
        other.db = database.connect(self.store)
        other.networks = Networks(self.store, other.db)
        try:
            connection.settimeout(5)
            while True:
                packet = _read(connection, struct.unpack("!H", _read(connection, 2))[0])
                reply, query = other.respond(packet, address)
                if reply is None and query:
                    reply = other.over_tcp(packet, address)
                if reply is None:
                    return
                connection.sendall(struct.pack("!H", len(reply)) + reply)
        except (OSError, EOFError):
            return
        finally:
            self.connections.remove(address)
            other.db.close()
            connection.close()

    def over_tcp(self, packet: bytes, address: str) -> bytes:
        """What the host's servers say to a question over TCP."""
        import socket
        import struct

        for server in self.wanted_servers(address):
            try:
                with socket.create_connection((server, 53), WAIT) as upstream:
                    upstream.sendall(struct.pack("!H", len(packet)) + packet)
                    return _read(upstream, struct.unpack("!H", _read(upstream, 2))[0])
            except (OSError, EOFError):
                continue
        return names.refuse(packet, names.SERVFAIL)


def _read(sock: Socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = sock.recv(size - len(found))
        if not piece:
            raise EOFError
        found += piece
    return found


def main() -> None:
    """Be the responder of a store."""
    import socket

    responder = Responder(locate(sys.argv[1]))
    control = socket.socket(fileno=CONTROL)
    responder.watch(CONTROL, lambda: responder.control(control))
    for word in sys.argv[2:]:
        fd, _, kind = word.partition(":")
        responder.take(int(fd), kind)
    responder.run()


if __name__ == "__main__":
    main()
