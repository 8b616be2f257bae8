"""The other end of --console-socket and --pidfd-socket: a socket that descriptors arrive on, a terminal's master."""

from __future__ import annotations

import array
import fcntl
import os
import select
import socket
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conformance.harness import SECONDS


class Reception:
    """Listens at `path` for one descriptor, as a container's monitor does before it calls the runtime."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(str(path))
        self.socket.listen(1)
        self.socket.settimeout(SECONDS)

    def receive(self) -> int:
        """The one descriptor that somebody connects and sends."""
        connection, _ = self.socket.accept()
        with connection:
            connection.settimeout(SECONDS)
            _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
        ((level, kind, data),) = ancillary
        assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        (fd,) = array.array("i", data)
        os.set_inheritable(fd, False)
        return fd

    def asked(self) -> bool:
        """Whether somebody has connected."""
        return bool(select.select([self.socket], [], [], 0)[0])

    def close(self) -> None:
        self.socket.close()
        self.path.unlink(missing_ok=True)


@contextmanager
def reception(folder: Path) -> Iterator[Reception]:
    """A socket in the folder, whose path must be short."""
    made = Reception(folder / "socket")
    try:
        yield made
    finally:
        made.close()


class Master:
    """The master's end of a terminal, which a program writes to and reads from; closes the descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.shown = ""

    def __enter__(self) -> Master:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def size(self) -> tuple[int, int]:
        rows, columns, _, _ = struct.unpack("4H", fcntl.ioctl(self.fd, termios.TIOCGWINSZ, bytes(8)))
        return rows, columns

    def until(self, text: str) -> str:
        """Waits until the text is shown; all that was shown up to now, without the terminal's line ends."""
        deadline = time.monotonic() + SECONDS
        while text not in self.shown:
            assert self._look(max(0.0, deadline - time.monotonic())), f"no {text!r} in {self.shown!r}"
        return self.shown

    def rest(self) -> str:
        """All that is shown until the last program has closed the terminal."""
        while self._look(SECONDS):
            pass
        return self.shown

    def _look(self, seconds: float) -> bool:
        if not select.select([self.fd], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:  # EIO: nobody has the other side open
            return False
        self.shown += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)
