"""A container's output as lines, for `logs`: with times, from and to a moment, the last ones, followed.

A line ends where its newline comes; lines of two streams come in the order of their ends. Not its business: bytes as
they came (logview), times as text (timestamp).
"""

from __future__ import annotations

import os
from collections import deque

from cloche.runtime.log import STDERR, STDOUT
from cloche.runtime.logview import Follower, Pair, Position, Reader, end, listed, open_directory
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.runtime.logview import Chunk, Woken

_PIECE = 1 << 20  # bytes; a longer line comes in pieces


class Line(Value):
    """A line with its newline, or a piece: of one without an end, or of one over 1 MiB, where only the first `begins`.

    `time` is that of the chunk which holds the line's first byte, in ns since the epoch.
    """

    time: int
    stream: int
    data: bytes
    begins: bool = True


class Lines:
    """Puts chunks together to lines, each stream for itself; gives those from `since` to `until`, both included."""

    def __init__(self, since: int | None = None, until: int | None = None) -> None:
        self._since = -1 if since is None else since
        self._until = (1 << 64) if until is None else until
        self._open: dict[int, tuple[int, bytearray, bool]] = {}  # by stream: time, bytes, whether they begin the line

    def feed(self, chunk: Chunk) -> list[Line]:
        """The lines that end in this chunk, and pieces of one that is too long."""
        found: list[Line] = []
        *whole, rest = chunk.data.split(b"\n")
        for text in whole:
            if chunk.stream in self._open:
                moment, held, begins = self._open.pop(chunk.stream)
                self._give(found, Line(moment, chunk.stream, bytes(held + text + b"\n"), begins))
            else:
                self._give(found, Line(chunk.time, chunk.stream, text + b"\n"))
        if rest:
            moment, held, begins = self._open.get(chunk.stream) or (chunk.time, bytearray(), True)
            held += rest  # in place: byte by byte it must not become quadratic
            if len(held) >= _PIECE:
                self._give(found, Line(moment, chunk.stream, bytes(held), begins))
                held, begins = bytearray(), False
            self._open[chunk.stream] = moment, held, begins
        return found

    def rest(self) -> list[Line]:
        """The lines that have no end when the log ends, the one that began first first."""
        found: list[Line] = []
        for stream, (moment, held, begins) in sorted(self._open.items(), key=lambda item: item[1][0]):
            if held:
                self._give(found, Line(moment, stream, bytes(held), begins))
        self._open = {}
        return found

    def _give(self, found: list[Line], line: Line) -> None:
        if self._since <= line.time <= self._until:
            found.append(line)


def read(directory: str, since: int | None = None, until: int | None = None, tail: int | None = None) -> Iterator[Line]:
    """The lines that are there now, at the end those without an end too; times in ns. Raises NotFound, Error.

    tail: only the last that many of them. A clock that was set back makes `since` begin late, never early.
    """
    stop, lines = end(directory), Lines(since, until)
    with Reader(directory, locate(directory, since, until, tail)) as reader:
        found = _until(reader, stop, lines)
        yield from found if tail is None else deque(found, tail)


def _until(reader: Reader, stop: Position, lines: Lines) -> Iterator[Line]:
    yield from _lines_to(reader, stop, lines)
    yield from lines.rest()


def _lines_to(reader: Reader, stop: Position, lines: Lines) -> Iterator[Line]:
    """What a reader gives up to `stop`, or a little more: a writer may be faster than any reader."""
    while tuple(reader.position) < tuple(stop) and (chunks := reader.chunks()):
        for chunk in chunks:
            yield from lines.feed(chunk)


def locate(directory: str, since: int | None, until: int | None, tail: int | None) -> Position:
    """A place from which every line that is asked for is read whole; others may come first. Raises NotFound, Error.

    Goes back from the end over as much as the time and the count need, then, for each stream, to where the line that it
    is in the middle of begins: a line of standard error may begin long before the last hundred of standard output.
    """
    place = Position()
    if since is None and tail is None:
        return place
    newlines, counting, looking = 0, True, {STDOUT, STDERR}
    for pair, (moment, stream, begin, stop) in _backward(directory):
        counting = counting and (since is None or moment >= since) and (tail is None or newlines <= tail)
        if not counting and stream not in looking:
            continue
        place = Position(pair.sequence, begin)
        if not counting:
            if any(b"\n" in block for block in pair.data(begin, stop)):
                looking.discard(stream)
                if not looking:
                    break
        elif tail is not None and (until is None or moment <= until):
            newlines += sum(block.count(b"\n") for block in pair.data(begin, stop))
    return place


def _backward(directory: str) -> Iterator[tuple[Pair, tuple[int, int, int, int]]]:
    """Every span with its pair, the last first."""
    fd = open_directory(directory)
    try:
        for sequence in reversed(listed(fd)):
            try:
                pair = Pair(fd, sequence, hold=False)
            except FileNotFoundError:
                continue
            try:
                for span in pair.spans_backward():
                    yield pair, span
            finally:
                pair.close()
    finally:
        os.close(fd)


class LineFollower:
    """The lines that `read` would give, then those that come. A context manager; poll its descriptor.

    Call `read` until it gives nothing, then poll. `rest` gives the lines without an end, after the container's.
    """

    def __init__(
        self,
        directory: str,
        since: int | None = None,
        until: int | None = None,
        tail: int | None = None,
        kind: type[Follower] | type[Woken] = Follower,
    ) -> None:
        """kind: who wakes us. Raises NotFound, Error."""
        self._stop = end(directory)
        self._tail = tail
        self._lines = Lines(since, until)
        self._follower = kind(directory, locate(directory, since, until, tail))

    def __enter__(self) -> LineFollower:
        return self

    def __exit__(self, *_: object) -> None:
        self._follower.close()

    def fileno(self) -> int:
        """Readable when there may be more."""
        return self._follower.fileno()

    @property
    def missed(self) -> int:
        """How many files were rotated away before they could be read."""
        return self._follower.missed

    def read(self) -> list[Line]:
        """The next lines; nothing when all there is has been given. Raises Error."""
        found: list[Line] = []
        if self._tail is not None:
            found += deque(_lines_to(self._follower, self._stop, self._lines), self._tail)
            self._tail = None
        while not found and (chunks := self._follower.chunks()):
            for chunk in chunks:
                found += self._lines.feed(chunk)
        return found

    def rest(self) -> list[Line]:
        """The lines without an end; call it once, when `read` gives nothing and the container has ended."""
        return self._lines.rest()
