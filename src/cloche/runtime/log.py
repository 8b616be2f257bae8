"""A container's output on disk, written: bytes move from its pipes straight into a file, an index says when and whence.

A log is a directory of pairs, `log.N.raw` and `log.N.idx`; the highest N is written to. The raw file is the bytes of
all streams in the order in which they came. The index is records of 16 bytes, native order: time in ns since the epoch,
then `start << 2 | stream`. A record's chunk reaches to the next record's start, the last one's to the raw file's end.

No byte is lost or doubled when the writer is killed between any two system calls, because
- the record is written before its bytes, and splice(2) takes from the pipe exactly what it puts into the file: the raw
  file's size is the one truth, and a record that starts at or after it says nothing yet;
- only the newest record is ever continued or written over, and only where no byte changes its meaning: continued by its
  own stream within a millisecond (which bounds the index of who writes byte by byte), written over while it is empty;
- a pair is there when its raw file is: the index is made first and unlinked last, and new ones come before old ones go.
Not its business: reading (logview), and when to read which pipe (the keeper). Lean: the keeper imports it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from struct import Struct

from cloche.errors import Error, Invalid, NotFound

STDOUT, STDERR = 1, 2
RECORD = Struct("=QQ")
_TAKE = 1 << 20  # bytes a call at most: about a millisecond
_SAME_MOMENT = 1_000_000
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG)


class Stalled(Error):
    """The log cannot take more now: the disk is full, or an attached client has not read the oldest pair yet.

    Nothing was taken and nothing is lost. Stop polling this container's pipes, and call `take` again later.
    """


def file_name(sequence: int, part: str) -> str:
    """`log.3.raw`; `part` is raw or idx."""
    return f"log.{sequence}.{part}"


def sequences(directory: str | int, parts: tuple[str, ...] = ("raw",)) -> list[int]:
    """The numbers of the pairs in `directory` (a path or a descriptor), oldest first. Raises OSError."""
    found = set()
    for name in os.listdir(directory):
        first, _, rest = name.partition(".")
        digits, _, part = rest.partition(".")
        if first == "log" and part in parts and digits.isascii() and digits.isdigit():
            found.add(int(digits))
    return sorted(found)


def begin(directory: int) -> None:
    """Make the first pair where there is none, as the writer would: who is to miss nothing holds it from the start.
    Raises OSError."""
    if not sequences(directory):
        for part in ("idx", "raw"):
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            os.close(os.open(file_name(1, part), flags, 0o600, dir_fd=directory))


def held(directory: str) -> bool:
    """Whether an attached client still reads this log, so that removing the directory would cut its output short."""
    try:
        return any(_pair_held(f"{directory}/{file_name(n, 'raw')}") for n in sequences(directory))
    except FileNotFoundError:
        return False


def _pair_held(path: str) -> bool:
    """A reader that must not lose anything has a shared flock(2) on the pair that it reads; it ends with the reader."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


class LogWriter:
    """The one writer of a log; a later one, after a crash too, goes on where the last one was.

    max_size: bytes of a pair, raw and index together. max_files: pairs kept; while a client holds an old one, one more.
    """

    __slots__ = ("_directory", "_end", "_index", "_max_files", "_max_size", "_raw", "_sequence", "_slots", "_tail")

    def __init__(self, directory: str, max_size: int, max_files: int) -> None:
        """Open or make the log in an existing directory. Raises Invalid, NotFound, Error."""
        if max_size < 1 or max_files < 1:
            raise Invalid(f"keep {max_files} log files of {max_size} bytes", "both must be at least 1")
        self._directory, self._max_size, self._max_files = directory, max_size, max_files
        self._raw = self._index = -1
        self._sequence = self._end = self._slots = 0
        self._tail = 0, -1, 0  # time, start and stream of the last record; its start is the end: it is empty yet
        try:
            self._open(max(sequences(directory), default=1))
            self._trim()
        except OSError as problem:
            self.close()
            kind = NotFound if problem.errno == errno.ENOENT else Error
            raise kind(f"open the log {directory}", problem.errno or 0) from problem

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; harmless when done twice. `take` opens them again."""
        raw, index, self._raw, self._index = self._raw, self._index, -1, -1
        for fd in (raw, index):
            if fd >= 0:
                os.close(fd)

    def take(self, fd: int, stream: int) -> int:
        """Move what the pipe `fd` holds, at most 1 MiB, to the log's end. Returns the bytes moved, 0 at end of file.

        Raises BlockingIOError when the pipe is empty, Stalled, NotFound when the log was deleted while it was closed,
        and OSError for what is wrong with `fd`.
        """
        if self._raw < 0:
            self._open_again()
        room = self._room()
        if room <= 0:
            if _readable(fd):
                self._rotate()
                room = self._room()
            room = max(room, 1)  # nothing is there: end of file or not is asked without making a pair for it
        try:
            self._record(stream)
            moved: int = os.splice(fd, self._raw, min(room, _TAKE), offset_dst=self._end, flags=os.SPLICE_F_NONBLOCK)
        except OSError as problem:
            if problem.errno in _FULL:
                raise self._stalled(problem.errno, "make room there; the container goes on by itself") from problem
            raise
        self._end += moved
        return moved

    def _open_again(self) -> None:
        try:
            self._open(self._sequence)
        except FileNotFoundError as problem:
            raise NotFound(f"open the log {self._directory}", 2) from problem
        except OSError as problem:
            raise self._stalled(problem.errno or 0, "make room there; the container goes on by itself") from problem

    def _room(self) -> int:
        return self._max_size - self._end - self._slots * RECORD.size

    def _record(self, stream: int) -> None:
        """See that the last record says `stream` and now, for bytes that will begin at the end. Raises OSError."""
        now = time.time_ns()
        moment, start, last = self._tail
        if last == stream and 0 <= now - moment < _SAME_MOMENT:
            return
        slot = self._slots - 1 if start == self._end else self._slots
        if os.pwrite(self._index, RECORD.pack(now, self._end << 2 | stream), slot * RECORD.size) != RECORD.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._slots, self._tail = slot + 1, (now, self._end, stream)

    def _rotate(self) -> None:
        """Begin a new pair, unlink the oldest. Raises Stalled; done again later, it goes on where it was."""
        try:
            if self._trim() > self._max_files:
                raise self._stalled("an attached client has not read it yet", "read on there, or detach")
            self._open(self._sequence + 1)
            self._trim()
        except OSError as problem:
            raise self._stalled(problem.errno or 0, "make room there; the container goes on by itself") from problem

    def _trim(self) -> int:
        """Unlink pairs, and halves of pairs that a crash left, beyond the newest ones. Returns how many are left."""
        oldest = self._sequence - self._max_files + 1
        there = [n for n in sequences(self._directory, ("raw", "idx")) if n <= self._sequence]
        while there and there[0] < oldest:
            if _pair_held(f"{self._directory}/{file_name(there[0], 'raw')}"):
                break
            for part in ("raw", "idx"):
                try:
                    os.unlink(f"{self._directory}/{file_name(there[0], part)}")
                except FileNotFoundError:
                    pass
            there.pop(0)
        return len(there)

    def _open(self, sequence: int) -> None:
        """Make this pair the one that is written, at its end. On an error nothing is changed. Raises OSError."""
        opened: list[int] = []
        try:
            for part in ("idx", "raw"):
                path = f"{self._directory}/{file_name(sequence, part)}"
                opened.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            index, raw = opened
            end = os.fstat(raw).st_size
            slots, tail = _last_record(index, end)
            if os.fstat(index).st_size != slots * RECORD.size:
                os.ftruncate(index, slots * RECORD.size)
        except OSError:
            for fd in opened:
                os.close(fd)
            raise
        self.close()
        self._index, self._raw, self._sequence = index, raw, sequence
        self._end, self._slots, self._tail = end, slots, tail

    def _stalled(self, cause: str | int, hint: str) -> Stalled:
        return Stalled(f"write the log {self._directory}", cause, hint)


def _last_record(index: int, end: int) -> tuple[int, tuple[int, int, int]]:
    """How many records are good, and the last one. After a power failure some may speak of bytes that are not there."""
    slots = os.fstat(index).st_size // RECORD.size
    while slots:
        moment, word = RECORD.unpack(os.pread(index, RECORD.size, (slots - 1) * RECORD.size))
        if word & 3 in (STDOUT, STDERR) and word >> 2 <= end:
            return slots, (moment, word >> 2, word & 3)
        slots -= 1
    return 0, (0, -1, 0)


def _readable(fd: int) -> bool:
    """Whether the pipe holds bytes; end of file is none."""
    from select import POLLIN, poll

    asked = poll()
    asked.register(fd, POLLIN)
    return any(events & POLLIN for _, events in asked.poll(0))
