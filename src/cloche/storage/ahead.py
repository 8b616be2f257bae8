"""Streams between threads: one that is worked out ahead of who reads it, and a file that is read while it arrives.

To unpack a layer is to receive, check, decompress, check again and write: what C does with the interpreter's lock let
go, so that several processors share it. Order stays, errors come where they are met, and no thread outlives its stream.
"""

from __future__ import annotations

from queue import Queue
from threading import Condition, Event, Thread

from cloche.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from typing import BinaryIO

_MOST = 4  # pieces that are there and not yet taken


def ahead(source: Iterable[bytes], interrupt: Callable[[], None] = lambda: None) -> Generator[bytes, None, None]:
    """The pieces of `source`, worked out by a thread of its own, a few ahead of who takes them. What `source` raises is
    raised here. Whoever stops before the end calls close(), by which the thread ends: `interrupt` makes `source` fail
    where it may wait for long.
    """
    pieces: Queue[bytes | BaseException | None] = Queue(_MOST)
    unwanted = Event()

    def work() -> None:
        last: BaseException | None = None
        try:
            for piece in source:
                pieces.put(piece)
                if unwanted.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - it is raised in the other thread
            last = error
        pieces.put(last)

    thread = Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        unwanted.set()
        interrupt()
        while not pieces.empty():  # nobody else takes any: room for the one that is being put, and for the last
            pieces.get()
        thread.join()


class Arriving:
    """Content that one thread writes to a file, and another reads as it comes. It is read like a file.

    The writer wraps its chunks by `watched` and says by `end` that there will be no more.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._path, self._now, self._at = "", 0, 0
        self._file: BinaryIO | None = None
        self._ended = self._failed = self._unwanted = False
        self.is_read = False

    # The writer's side

    def watched(self, chunks: Iterable[bytes | memoryview], path: str) -> Iterator[bytes | memoryview]:
        """The chunks; when the next one is asked for, the one before is in the file."""
        for data in chunks:
            size = len(data)
            yield data
            with self._changed:
                self._path = path
                self._now += size
                self._changed.notify_all()

    def end(self, failed: bool = False) -> None:
        """No more comes: it is all there, or will never be."""
        with self._changed:
            self._ended, self._failed = True, failed
            self._changed.notify_all()

    # The reader's side

    def read(self, size: int) -> bytes:
        """At most `size` bytes, as soon as there are any; nothing at the end. Raises Error when there is no whole."""
        with self._changed:
            self.is_read = True
            self._changed.wait_for(lambda: self._unwanted or self._ended or self._now > self._at)
            if self._unwanted or self._failed:
                raise Error("read content", "it does not arrive")
            size = min(size, self._now - self._at)
            if not size:
                return b""
            if self._file is None:
                self._file = open(self._path, "rb", buffering=0)  # noqa: SIM115 - closed by close()
        data = self._file.read(size)
        self._at += len(data)
        return data

    def give_up(self) -> None:
        """Whoever waits in `read` waits no more."""
        with self._changed:
            self._unwanted = True
            self._changed.notify_all()

    def close(self) -> None:
        """When nobody reads any more."""
        self.give_up()
        if self._file:
            self._file.close()
