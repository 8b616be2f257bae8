"""Output of an exec, read by its client itself, in the shape of a log's follower: a descriptor to poll, chunks, the
rest."""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.courses import Course

MOST = 1 << 16


class Pipes:
    """Reads several descriptors by stream number. `fileno()` is an epoll, readable when one of them is."""

    def __init__(self, fds: dict[int, int]) -> None:
        self._fds = dict(fds)
        self._epoll = select.epoll()
        for fd in self._fds.values():
            self._epoll.register(fd, select.EPOLLIN)

    def fileno(self) -> int:
        """To poll."""
        return self._epoll.fileno()

    def read(self) -> list[tuple[int, bytes]]:
        """What is there now; nothing when there is nothing. A pipe's end, and a terminal that nobody has open, are let
        go."""
        ready = {fd for fd, _ in self._epoll.poll(0)}
        found = []
        for stream, fd in list(self._fds.items()):
            if fd not in ready:
                continue
            try:
                data = os.read(fd, MOST)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno != 5:
                    raise
                data = b""
            if data:
                found.append((stream, data))
            else:
                self._epoll.unregister(fd)
                del self._fds[stream]
        return found

    def close(self) -> None:
        """The descriptors stay their owner's."""
        self._epoll.close()

    def drain(self) -> list[tuple[int, bytes]]:
        """What is left when the process has ended; descendants that still write are not waited for."""
        found = []
        while more := self.read():
            found += more
        return found


def feeding(fd: int, data: bytes, ident: str) -> Course[None]:
    """Write all of `data` to a container's standard input and close it; one that reads no more is no error."""
    from cloche.engine.courses import Wait

    left = memoryview(data)
    try:
        os.set_blocking(fd, False)
        while left:
            ready = yield Wait(writes=(fd,), end=ident)
            left = write_some(fd, left) if ready.fds else left[:0]
    finally:
        os.close(fd)


def write_some(fd: int, left: memoryview) -> memoryview:
    """What is left, when as much as it takes now is written; nothing, when it reads no more."""
    try:
        return left[os.write(fd, left) :]
    except BlockingIOError:
        return left
    except BrokenPipeError:
        return left[:0]
