"""A client of the keeper: starts the pair when nobody listens, asks, and asks again when a keeper dies in the middle.

Not its business: what containers are. Nothing is forked in the caller's process: the pair is spawned (posix_spawn(3)).
"""

from __future__ import annotations

import fcntl
import os

from cloche.engine import protocol
from cloche.errors import Conflict, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any

    from cloche.engine.store import Store

_TRIES = 200  # of a request whose keeper keeps dying; each try waits for a new keeper by connecting


def connect(store: Store, start: bool = True) -> _socket.socket | None:
    """A connection to the store's keeper. With `start` one is made where there is none. Raises Error."""
    for _ in range(_TRIES):
        try:
            return protocol.connect(store.socket)
        except (FileNotFoundError, ConnectionRefusedError):
            if not start:
                return None
            _start(store)
        except BlockingIOError:
            continue  # its queue of connections is full
        except OSError as error:
            raise Error(f"connect to {store.socket}", error.errno or 5) from error
    raise Error(f"connect to {store.socket}", "no keeper stays alive", f"see {store.run}/keeper/log")


def _start(store: Store) -> None:
    """Spawn holder and keeper, one caller at a time, and wait until they listen."""
    lock = os.open(store.run + "/keeper/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            protocol.connect(store.socket).close()
            return
        except (FileNotFoundError, ConnectionRefusedError):
            pass
        _spawn(store, lock)
    finally:
        os.close(lock)


def _spawn(store: Store, lock: int) -> None:
    """The pair has the lock too until it listens, so that a caller who is killed meanwhile lets no second pair
    begin."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        high: list[int] = []
        try:
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (null, writing, lock)]
            actions = [(os.POSIX_SPAWN_DUP2, fd, place) for fd, place in zip(high, (0, 1, 3), strict=True)]
            argv = [*_program(), store.root]
            environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
            pid = os.posix_spawn(argv[0], argv, environ, file_actions=actions, setsigmask=[], setsigdef=range(1, 32))
        finally:
            for fd in (null, writing, *high):
                os.close(fd)
        listens = os.read(reading, 1) == b"1"
        os.waitpid(pid, 0)  # what was spawned has forked the holder and ended
        if not listens:
            hint = f"see its message above, or {store.run}/keeper/log"
            raise Error("start the keeper", "it ended before it listened", hint)
    finally:
        os.close(reading)


def _program() -> list[str]:
    """Holder and keeper of this cloche."""
    import sys

    return [sys.executable, "-I", "-S", "-B", os.path.join(os.path.dirname(os.path.abspath(__file__)), "holder.py")]


class Keeper:
    """A store's keeper, as one caller sees it: one connection, made when needed, made again when the keeper was
    killed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._sock: _socket.socket | None = None
        self._pid = 0
        self.connection = 0  # its number: whoever asked for something to come later asks again when it changes
        self.answered = 0  # the number of the connection on which the last `ask` was answered

    def close(self) -> None:
        """Let go of the connection: what was attached through it is detached."""
        if self._sock:
            self._sock.close()
            self._sock = None

    def fileno(self) -> int:
        """Readable when an answer is there, or the keeper is gone."""
        return self._sock.fileno() if self._sock else -1

    def connected(self) -> _socket.socket:
        """The connection. A forked child does not use its parent's."""
        if self._sock is None or self._pid != os.getpid():
            self._sock, self._pid = connect(self.store), os.getpid()
            self.connection += 1
        assert self._sock is not None
        return self._sock

    def send(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Ask without waiting; a dead keeper is replaced by the next one. Raises Error."""
        for _ in range(_TRIES):
            try:
                protocol.send(self.connected(), message, fds)
                return
            except OSError:
                self.close()
        raise Error(f"ask the keeper to {message['op']}", "no keeper stays alive", f"see {self.store.run}/keeper/log")

    def tell(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> bool:
        """Send on the connection that there is; False when it is dead: then nothing of it will come."""
        try:
            if self._sock and self._pid == os.getpid():
                protocol.send(self._sock, message, fds)
                return True
        except OSError:
            self.close()
        return False

    def receive(self) -> tuple[dict[str, Any] | None, list[int]]:
        """The next answer; None when the keeper died before it came."""
        try:
            answer, fds = protocol.receive(self.connected())
        except OSError:
            answer, fds = None, []
        if answer is None:
            self.close()
        return answer, fds

    def ask(
        self, message: dict[str, Any], content: bytes = b"", meanwhile: Callable[[], None] | None = None
    ) -> tuple[dict[str, Any], list[int]]:
        """Ask and wait; asked again when the keeper dies. `meanwhile` is done while it works.

        `content` goes along in a file in memory, memfd_create(2), with our version: an older keeper is replaced. Raises
        Error, Conflict with what the keeper says.
        """
        if not content:
            return self._ask(message, (), meanwhile)
        memory = os.memfd_create("content", os.MFD_CLOEXEC)
        try:
            os.write(memory, content)
            return self._ask({**message, "version": protocol.VERSION}, (memory,), meanwhile)
        finally:
            os.close(memory)

    def _ask(
        self, message: dict[str, Any], fds: tuple[int, ...], meanwhile: Callable[[], None] | None
    ) -> tuple[dict[str, Any], list[int]]:
        for _ in range(_TRIES):
            answer, received = self._exchange(message, fds, meanwhile)
            meanwhile = None
            if answer is None:
                continue
            if "older" in answer:
                self._replace(answer["older"])
                continue
            self.answered = self.connection
            if "error" in answer:
                kind = Conflict if answer.get("conflict") else Error
                raise kind(f"{message['op']} {message.get('id', '')[:12]}", answer["error"])
            return answer, received
        raise Error(f"ask the keeper to {message['op']}", "no keeper stays alive", f"see {self.store.run}/keeper/log")

    def _exchange(
        self, message: dict[str, Any], fds: tuple[int, ...] = (), meanwhile: Callable[[], None] | None = None
    ) -> tuple[dict[str, Any] | None, list[int]]:
        """One question and its answer. Who is interrupted in between takes it back, and lets go of the connection: the
        answer may still come, and would be taken for the next one's."""
        try:
            self.send(message, fds)
            if meanwhile:
                meanwhile()
            return self.receive()
        except BaseException:
            try:
                if message["op"] in ("start", "exec"):
                    self._take_back(message["id"])
            finally:
                self.close()
            raise

    def _take_back(self, ident: str) -> None:
        """A start that we have asked for on this connection: when this returns it is not made any more, or runs, and
        whoever wants to kill or remove it can."""
        if self.tell({"op": "cancel", "id": ident}):
            answer: dict[str, Any] | None = {}
            while answer is not None and "cancelled" not in answer:
                answer, received = self.receive()
                for fd in received:
                    os.close(fd)

    def current(self) -> None:
        """Be connected to a keeper of our version; an older one is replaced. Raises Error."""
        version = self.ask({"op": "info"})[0]["version"]
        if version < protocol.VERSION:
            self._replace(version)
            self.connected()

    def _replace(self, version: int) -> None:
        """Have an older keeper hand over to ours; its containers run on. Raises Error."""
        answer, _ = self._exchange({"op": "handover", "version": protocol.VERSION, "argv": _program()})
        if answer is not None and "error" in answer:
            raise Error(f"replace the running keeper of version {version}", answer["error"])
