"""Following: every wake arrives, over rotations and removal, and nothing is read that the index does not say."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche.errors import Error, NotFound
from cloche.kernel import inotify
from cloche.runtime import log
from cloche.runtime.log import STDERR, STDOUT, LogWriter, Stalled, sequences
from cloche.runtime.logview import Follower, Position, Reader, Woken, end


class Container:
    """Writes to its log as if it were two pipes of a container."""

    def __init__(self, directory: Path, max_size: int = 1 << 30, max_files: int = 1000) -> None:
        self.writer = LogWriter(str(directory), max_size, max_files)
        self.pipe = os.pipe()
        os.set_blocking(self.pipe[0], False)

    def say(self, data: bytes, stream: int = STDOUT) -> None:
        os.write(self.pipe[1], data)
        while data:
            data = data[self.writer.take(self.pipe[0], stream) :]

    def close(self) -> None:
        self.writer.close()
        for fd in self.pipe:
            os.close(fd)


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    made = Container(tmp_path)
    yield made
    made.close()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Container]:
    """One that rotates after every few bytes and keeps two pairs."""
    made = Container(tmp_path, 40, 2)
    yield made
    made.close()


def readable(fd: int, seconds: float = 0) -> bool:
    asked = select.poll()
    asked.register(fd, select.POLLIN)
    return bool(asked.poll(seconds * 1000))


def everything(reader: Reader) -> bytes:
    return b"".join(data for pieces in reader.drain() for _, data in pieces)


def test_a_follower_wakes_for_each_write_and_only_then(tmp_path: Path, container: Container) -> None:
    with Follower(str(tmp_path)) as follower:
        assert follower.read() == []
        assert not readable(follower.fileno())
        for number in range(20):
            container.say(b"%d" % number, STDERR)
            assert readable(follower.fileno())
            assert follower.read() == [(STDERR, b"%d" % number)]
            assert follower.read() == []
            assert not readable(follower.fileno())


def test_what_is_written_between_the_last_read_and_the_poll_wakes(tmp_path: Path, container: Container) -> None:
    with Follower(str(tmp_path)) as follower:
        container.say(b"one")
        assert follower.read() == [(STDOUT, b"one")]
        container.say(b"two")  # after a read that was not yet told that there is no more
        assert readable(follower.fileno())


def test_an_appended_chunk_without_a_new_record_wakes_too(
    tmp_path: Path, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log.time, "time_ns", lambda: 10**18)
    container.say(b"one")
    with Follower(str(tmp_path), end(str(tmp_path))) as follower:
        container.say(b"two")
        assert os.stat(tmp_path / "log.1.idx").st_size == 16
        assert readable(follower.fileno())
        assert follower.read() == [(STDOUT, b"two")]


def test_a_follower_begins_at_a_position_also_inside_a_chunk(tmp_path: Path, container: Container) -> None:
    container.say(b"out1 ")
    container.say(b"err1 ", STDERR)
    container.say(b"out2 ")
    with Follower(str(tmp_path), Position(1, 7)) as follower:
        assert follower.read() == [(STDERR, b"r1 "), (STDOUT, b"out2 ")]
        assert follower.position == Position(1, 15) == end(str(tmp_path))
    with Follower(str(tmp_path), end(str(tmp_path))) as follower:
        assert follower.read() == []


@pytest.mark.parametrize("records", [0, 1, 2, 5, 100, 4095, 4096, 4097, 9000])
def test_any_place_is_found_in_an_index_of_any_length(tmp_path: Path, records: int) -> None:
    made = [log.RECORD.pack(n, 3 * n << 2 | (STDERR if n % 2 else STDOUT)) for n in range(records)]
    (tmp_path / "log.1.idx").write_bytes(b"".join(made))
    (tmp_path / "log.1.raw").write_bytes(b"abc" * records)
    for begin in {*range(min(3 * records, 20)), max(3 * records - 1, 0), 3 * records}:
        offset = begin
        with Reader(str(tmp_path), Position(1, offset)) as reader:
            for chunk in reader.chunks():
                assert chunk.time == offset // 3
                assert chunk.stream == (STDERR if offset // 3 % 2 else STDOUT)
                offset += len(chunk.data)
            assert reader.chunks() == []
        assert offset == 3 * records


def test_bytes_are_not_read_before_they_are_in_the_file(tmp_path: Path, container: Container) -> None:
    container.say(b"one")
    with (tmp_path / "log.1.idx").open("ab") as index:  # the writer was killed here
        index.write(log.RECORD.pack(5, 3 << 2 | STDERR))
    with Follower(str(tmp_path)) as follower:
        assert follower.read() == [(STDOUT, b"one")]
        assert follower.read() == []
    container.writer.close()
    container.writer = LogWriter(str(tmp_path), 1 << 30, 9)
    container.say(b"two")
    with Follower(str(tmp_path)) as follower:
        assert follower.read() == [(STDOUT, b"onetwo")]


def test_a_follower_goes_on_over_rotations(tmp_path: Path, small: Container) -> None:
    with Follower(str(tmp_path)) as follower:
        for number in range(30):
            small.say(b"line %d;" % number, STDERR if number % 5 == 0 else STDOUT)
            assert readable(follower.fileno())
            assert b"".join(data for _, data in follower.read()) == b"line %d;" % number
        assert follower.position.sequence > 10
        assert follower.missed == 0


def test_what_was_rotated_away_unread_is_counted(tmp_path: Path, small: Container) -> None:
    with Follower(str(tmp_path)) as follower:
        for number in range(30):
            small.say(b"line %d;" % number)
        got = everything(follower)
        assert got.startswith(b"line 0;")  # that file was open
        assert got.endswith(b"line 29;")
        assert follower.missed == len(set(range(1, follower.position.sequence + 1)) - {1, *sequences(str(tmp_path))})
        assert follower.missed > 5


def test_a_late_follower_begins_with_the_oldest_there_is(tmp_path: Path, small: Container) -> None:
    for number in range(30):
        small.say(b"line %d;" % number)
    oldest = sequences(str(tmp_path))[0]
    with Follower(str(tmp_path)) as follower:
        assert everything(follower).endswith(b"line 29;")
        assert follower.missed == 0
    with Follower(str(tmp_path), Position(oldest - 3, 12)) as follower:
        assert everything(follower).endswith(b"line 29;")
        assert follower.missed == 3


def test_a_removed_log_is_read_to_its_end(tmp_path: Path) -> None:
    directory = tmp_path / "container"
    directory.mkdir()
    container = Container(directory)
    container.say(b"last words")
    with Follower(str(directory)) as follower:
        shutil.rmtree(directory)
        container.say(b", and more")
        assert everything(follower) == b"last words, and more"
        assert follower.read() == []
    container.close()


def test_a_renamed_log_is_followed_into_the_trash(tmp_path: Path) -> None:
    directory = tmp_path / "container"
    directory.mkdir()
    container = Container(directory, 40, 100)
    with Follower(str(directory), hold=True) as follower:
        for number in range(20):
            container.say(b"line %d;" % number)
        directory.rename(tmp_path / "trash")
        assert log.held(str(tmp_path / "trash"))
        assert everything(follower) == b"".join(b"line %d;" % n for n in range(20))
    container.close()


def test_a_follower_may_come_before_the_first_file(tmp_path: Path) -> None:
    with Follower(str(tmp_path)) as follower:
        assert follower.read() == []
        container = Container(tmp_path)
        container.say(b"one")
        assert readable(follower.fileno())
        assert follower.read() == [(STDOUT, b"one")]
        container.close()


def test_who_holds_misses_nothing_also_from_before_the_first_file(tmp_path: Path) -> None:
    with Follower(str(tmp_path), hold=True) as follower:
        out, into = os.pipe()
        with LogWriter(str(tmp_path), 100, 1) as writer, pytest.raises(Stalled):
            for number in range(100):
                os.write(into, b"%d\n" % number * 20)
                writer.take(out, STDOUT)
        assert b"".join(data for _, data in follower.read()).startswith(b"0\n")
        assert follower.missed == 0
        os.close(out)
        os.close(into)


def test_one_that_is_woken_by_the_writer_looks_after_it_was_told(tmp_path: Path) -> None:
    with Woken(str(tmp_path), hold=True) as woken:
        container = Container(tmp_path)
        assert woken.read() == []
        assert not readable(woken.fileno())
        container.say(b"one")
        os.eventfd_write(woken.fileno(), 1)
        assert readable(woken.fileno())
        assert woken.read() == [(STDOUT, b"one")]
        assert not readable(woken.fileno())
        container.close()
    woken.close()


def test_much_comes_in_bounded_pieces(tmp_path: Path, container: Container) -> None:
    for _ in range(32):
        container.say(b"x" * 65536)
    with Follower(str(tmp_path)) as follower:
        sizes = [sum(len(data) for _, data in pieces) for pieces in follower.drain()]
    assert sum(sizes) == 32 * 65536
    assert max(sizes) <= 1 << 18


WRITER = """
import os, sys
from cloche.runtime.log import LogWriter, Stalled
directory, lines = sys.argv[1], int(sys.argv[2])
out, into = os.pipe()
with LogWriter(directory, 3000, 2) as writer:
    for number in range(lines):
        os.write(into, b"%d\\n" % number)
        while True:
            try:
                writer.take(out, 1 + number % 2)
                break
            except Stalled:
                os.sched_yield()
"""


def test_a_fast_writer_in_another_process_is_followed_exactly(tmp_path: Path) -> None:
    lines = 20_000
    with Follower(str(tmp_path), hold=True) as follower:
        environment = {"PYTHONPATH": str(Path(log.__file__).parents[2])}
        writer = subprocess.Popen([sys.executable, "-S", "-c", WRITER, str(tmp_path), str(lines)], env=environment)
        got = {STDOUT: b"", STDERR: b""}
        ended = os.pidfd_open(writer.pid)
        asked = select.poll()
        asked.register(follower.fileno(), select.POLLIN)
        asked.register(ended, select.POLLIN)
        over = False
        while not over:
            over = any(fd == ended for fd, _ in asked.poll())
            while pieces := follower.read():
                for stream, data in pieces:
                    got[stream] += data
        os.close(ended)
        assert writer.wait() == 0
        assert follower.missed == 0
    assert got[STDOUT] == b"".join(b"%d\n" % n for n in range(0, lines, 2))
    assert got[STDERR] == b"".join(b"%d\n" % n for n in range(1, lines, 2))


def test_what_cannot_be_followed_says_why_and_leaks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound):
        Follower(str(tmp_path / "no"))
    with pytest.raises(NotFound):
        end(str(tmp_path / "no"))
    count = len(os.listdir("/proc/self/fd"))

    def refuse() -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(inotify, "inotify_init", refuse)
    with pytest.raises(Error, match="max_user_instances"):
        Follower(str(tmp_path))
    (tmp_path / "log.1.raw").symlink_to("/etc/passwd")
    with pytest.raises(Error, match="ELOOP"):
        Reader(str(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == count
