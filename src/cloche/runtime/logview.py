"""A container's output on disk, read and followed: exact bytes in exact order, with stream and time.

Everything here looks at the raw file's size first and at the index after: what the size covers, the index already says
(see log.py). What has no record, which takes a power failure, is shown as standard output of 1970, not hidden.
Not its business: lines (loglines), terminals (cli).
"""

from __future__ import annotations

import errno
import fcntl
import os

from cloche.errors import Error, NotFound
from cloche.runtime.log import RECORD, STDERR, STDOUT, begin, file_name, sequences
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Span = tuple[int, int, int, int]  # time, stream, start, end

_BLOCK = 1 << 18  # bytes read at a time


class Position(Value):
    """A place in a log: pair and byte in its raw file. The default is the beginning, wherever that is by now."""

    sequence: int = 0
    offset: int = 0


class Chunk(Value):
    """What came from one stream (1 or 2) at one moment (ns since the epoch)."""

    time: int
    stream: int
    data: bytes


class Pair:
    """One raw file and its index, open, and up to where the index was used."""

    def __init__(self, directory: int, sequence: int, hold: bool) -> None:
        """Raises FileNotFoundError when it is not there, or is just being removed."""
        self.sequence = sequence
        self._slot = 0
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        self.raw = os.open(file_name(sequence, "raw"), flags, dir_fd=directory)
        try:
            if hold:
                fcntl.flock(self.raw, fcntl.LOCK_SH)  # waits for the writer's unlink at most
            self.index = os.open(file_name(sequence, "idx"), flags, dir_fd=directory)
        except OSError:
            os.close(self.raw)
            raise

    def close(self) -> None:
        os.close(self.raw)
        os.close(self.index)

    def size(self) -> int:
        return os.fstat(self.raw).st_size

    def removed(self) -> bool:
        return os.fstat(self.raw).st_nlink == 0

    def seek(self, offset: int) -> None:
        """Skip the records before the one that holds `offset`, in log2(records) reads."""
        low, high = 0, os.fstat(self.index).st_size // RECORD.size
        while low < high:
            middle = (low + high) // 2
            record = os.pread(self.index, RECORD.size, middle * RECORD.size)
            low, high = (middle + 1, high) if RECORD.unpack(record)[1] >> 2 <= offset else (low, middle)
        self._slot = max(low - 1, 0)

    def spans(self, offset: int, end: int) -> Iterator[Span]:
        """Who wrote the bytes from `offset` to `end` (at most `size()`), in order; for rising offsets only."""
        moment, stream = 0, STDOUT
        for slot, when, whose, start in self._records():
            if start >= end:
                break
            if start > offset:
                yield moment, stream, offset, start
                offset = start
            self._slot, moment, stream = slot, when, whose
        if offset < end:
            yield moment, stream, offset, end

    def _records(self) -> Iterator[tuple[int, int, int, int]]:
        """Slot, time, stream and start of every good record from the last used on."""
        slot = self._slot
        while block := os.pread(self.index, 4096 * RECORD.size, slot * RECORD.size):
            whole = len(block) // RECORD.size
            for moment, word in RECORD.iter_unpack(block[: whole * RECORD.size]):
                if word & 3 in (STDOUT, STDERR):
                    yield slot, moment, word & 3, word >> 2
                slot += 1
            if whole < 4096:
                break

    def spans_backward(self) -> Iterator[Span]:
        """The spans of all there is now, the last first."""
        end = self.size()
        words = memoryview(os.pread(self.index, os.fstat(self.index).st_size // RECORD.size * RECORD.size, 0)).cast("Q")
        for at in range(len(words) - 2, -1, -2):
            moment, stream, start = words[at], words[at + 1] & 3, words[at + 1] >> 2
            if stream in (STDOUT, STDERR) and start < end:
                yield moment, stream, start, end
                end = start
        if end > 0:
            yield 0, STDOUT, 0, end

    def data(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` to `end`, in blocks."""
        while start < end and (block := os.pread(self.raw, min(end - start, _BLOCK), start)):
            yield block
            start += len(block)


class Reader:
    """Reads a log from `position` on, pair after pair, as long as there is more. A context manager.

    hold: the writer keeps what is not read yet, and the container waits when the log is full; for attached clients.
    missed: how many pairs were rotated away before they could be read; none while holding.
    """

    def __init__(self, directory: str, position: Position | None = None, hold: bool = False) -> None:
        """Raises NotFound, Error."""
        self.missed = 0
        self._hold = hold
        self._position = position or Position()
        self._pair: Pair | None = None
        self._next: Pair | None = None
        self._directory = open_directory(directory)
        try:
            if hold:
                self._begin()
            self._first()
        except Error:
            self.close()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every file; harmless when done twice."""
        for pair in (self._pair, self._next):
            if pair:
                pair.close()
        if self._directory >= 0:
            os.close(self._directory)
        self._pair = self._next = None
        self._directory = -1

    @property
    def position(self) -> Position:
        """Where the next byte will come from."""
        return self._position

    def chunks(self) -> list[Chunk]:
        """What comes next, 256 KiB at most; nothing when all there is has been read. Raises Error."""
        found: list[Chunk] = []
        left = _BLOCK
        while left > 0 and (block := self._block(left)):
            found += block
            left -= sum(len(chunk.data) for chunk in block)
        return found

    def read(self) -> list[tuple[int, bytes]]:
        """What comes next as (stream, bytes), neighbours of a stream put together; nothing when all has been read."""
        found: list[tuple[int, list[bytes]]] = []
        for chunk in self.chunks():
            if found and found[-1][0] == chunk.stream:
                found[-1][1].append(chunk.data)
            else:
                found.append((chunk.stream, [chunk.data]))
        return [(stream, b"".join(pieces)) for stream, pieces in found]

    def drain(self) -> Iterator[list[tuple[int, bytes]]]:
        """All the rest, piece by piece: after the container's end."""
        while pieces := self.read():
            yield pieces

    def _block(self, limit: int) -> list[Chunk]:
        while pair := self._pair or self._first():
            offset = self._position.offset
            if data := os.pread(pair.raw, min(limit, max(pair.size() - offset, 0)), offset):
                end = offset + len(data)
                self._position = Position(pair.sequence, end)
                spans = pair.spans(offset, end)
                return [Chunk(moment, stream, data[a - offset : b - offset]) for moment, stream, a, b in spans]
            if self._next:  # it was there already when this one was found read to its end
                pair.close()
                self._pair, self._next = self._next, None
                self._position = Position(self._pair.sequence)
            else:
                self._next = self._open(pair.sequence + 1, pair.removed)
                if self._next is None:
                    break
        return []

    def _begin(self) -> None:
        try:
            begin(self._directory)
        except FileNotFoundError:
            return  # the directory is being removed: nothing will come
        except OSError as problem:
            raise Error("read the log", problem.errno or 0) from problem

    def _first(self) -> Pair | None:
        """Open the pair where reading begins, at its place; None when there is none yet. Raises Error."""
        pair = self._open(self._position.sequence, lambda: True)
        if pair:
            if pair.sequence != self._position.sequence:
                self._position = Position(pair.sequence)
            pair.seek(self._position.offset)
            self._pair = pair
        return pair

    def _open(self, sequence: int, gone: Callable[[], bool]) -> Pair | None:
        """The pair, or the oldest after it when it is gone; None when there is none yet. Raises Error."""
        try:
            while True:
                try:
                    return Pair(self._directory, sequence, self._hold)
                except FileNotFoundError:
                    later = [n for n in listed(self._directory) if n > sequence] if gone() else []
                if not later:
                    return None
                self.missed += later[0] - sequence if sequence else 0
                sequence = later[0]
        except OSError as problem:
            raise Error("read the log", problem.errno or 0) from problem


class Woken(Reader):
    """A reader whom the log's writer wakes, through an eventfd(2) that it is given: for clients of the keeper.

    Call `read` (or `chunks`) until it gives nothing, then poll. There is nothing of the kernel's to watch the directory
    with: closing an inotify descriptor waits for a grace period, 5 to 15 ms, which is more than a short container.
    """

    def __init__(self, directory: str, position: Position | None = None, hold: bool = False) -> None:
        """Raises NotFound, Error."""
        self._wake = -1
        super().__init__(directory, position, hold)
        try:
            self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError as problem:
            self.close()
            raise _unreadable(directory, problem) from problem

    def __enter__(self) -> Woken:
        return self

    def close(self) -> None:
        """Close every file; harmless when done twice."""
        super().close()
        wake, self._wake = self._wake, -1
        if wake >= 0:
            os.close(wake)

    def fileno(self) -> int:
        """The eventfd, for poll(2) and for the writer."""
        return self._wake

    def chunks(self) -> list[Chunk]:
        """What comes next, 256 KiB at most; nothing when all there is has been read. Raises Error."""
        try:
            os.eventfd_read(self._wake)  # before the look, so that what comes after the look wakes
        except BlockingIOError:
            pass
        return super().chunks()


class Follower(Reader):
    """A reader with a descriptor that becomes readable when there may be more, whoever writes.

    Call `read` (or `chunks`) until it gives nothing, then poll: whatever is written after that wakes the poll. It goes
    on over rotations and a renaming of the directory; over its removal as far as it had the files open.
    """

    def __init__(self, directory: str, position: Position | None = None, hold: bool = False) -> None:
        """Raises NotFound, Error (as when there are no inotify instances left)."""
        from cloche.kernel.inotify import IN_CREATE, IN_MODIFY, IN_ONLYDIR, add_watch, inotify_init

        super().__init__(directory, position, hold)
        self._inotify = -1
        try:
            self._inotify = inotify_init()
            add_watch(self._inotify, directory, IN_MODIFY | IN_CREATE | IN_ONLYDIR)
        except OSError as problem:
            self.close()
            raise _unreadable(directory, problem) from problem

    def __enter__(self) -> Follower:
        return self

    def close(self) -> None:
        """Close every file; harmless when done twice."""
        super().close()
        if self._inotify >= 0:
            os.close(self._inotify)
        self._inotify = -1

    def fileno(self) -> int:
        """The inotify descriptor, for poll(2)."""
        return self._inotify

    def chunks(self) -> list[Chunk]:
        """What comes next, 256 KiB at most; nothing when all there is has been read. Raises Error."""
        from cloche.kernel.inotify import clear

        clear(self._inotify)  # before the look, so that what comes after the look wakes
        return super().chunks()


def open_directory(directory: str) -> int:
    """A descriptor of a log's directory, good also after it was renamed. Raises NotFound, Error."""
    try:
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as problem:
        raise _unreadable(directory, problem) from problem


def listed(directory: int) -> list[int]:
    """The numbers of the pairs, oldest first; none when the directory is gone."""
    try:
        return sequences(directory)
    except FileNotFoundError:
        return []


def end(directory: str) -> Position:
    """Where the next byte will be written: `attach` begins there. Raises NotFound, Error."""
    fd = open_directory(directory)
    try:
        while newest := listed(fd)[-1:]:
            try:
                return Position(newest[0], os.stat(file_name(newest[0], "raw"), dir_fd=fd).st_size)
            except FileNotFoundError:
                continue  # rotated away meanwhile: there is a newer one
        return Position()
    finally:
        os.close(fd)


def _unreadable(directory: str, problem: OSError) -> Error:
    if problem.errno == errno.ENOENT:
        return NotFound(f"read the log {directory}", errno.ENOENT)
    hint = "raise fs.inotify.max_user_instances" if problem.errno == errno.EMFILE else ""
    return Error(f"read the log {directory}", problem.errno or 0, hint)
