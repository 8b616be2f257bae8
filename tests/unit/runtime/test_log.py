"""The writer: exact bytes under every crash that can happen between two system calls, bounds, rotation, stalls."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloche.errors import Invalid, NotFound
from cloche.runtime import log
from cloche.runtime.log import STDERR, STDOUT, LogWriter, Stalled, held, sequences
from cloche.runtime.logview import Reader

BIG = 1 << 30


class Pipe:
    """A container's pipe: what is put in comes out at `out`, which does not block."""

    def __init__(self) -> None:
        self.out, self.into = os.pipe()
        os.set_blocking(self.out, False)

    def put(self, data: bytes) -> None:
        assert os.write(self.into, data) == len(data)

    def close(self) -> None:
        for fd in (self.out, self.into):
            try:
                os.close(fd)
            except OSError as problem:
                assert problem.errno == errno.EBADF


@pytest.fixture
def pipes() -> Iterator[dict[int, Pipe]]:
    both = {STDOUT: Pipe(), STDERR: Pipe()}
    yield both
    for pipe in both.values():
        pipe.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Time stands still at 1000 s; calling the fixture moves it on by nanoseconds."""
    now = [1000 * 10**9]
    monkeypatch.setattr(log.time, "time_ns", lambda: now[0])

    def move(by: int) -> None:
        now[0] += by

    return move


def open_descriptors() -> set[int]:
    return {int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}


def content(directory: Path | str) -> list[tuple[int, bytes]]:
    with Reader(str(directory)) as reader:
        return [piece for pieces in reader.drain() for piece in pieces]


def of_stream(directory: Path | str, stream: int) -> bytes:
    return b"".join(data for whose, data in content(directory) if whose == stream)


def take_all(writer: LogWriter, pipe: Pipe, stream: int) -> None:
    try:
        while writer.take(pipe.out, stream):
            pass
    except BlockingIOError:
        pass


def records(directory: Path, sequence: int = 1) -> list[tuple[int, int, int]]:
    raw = (directory / f"log.{sequence}.idx").read_bytes()
    return [(moment, word >> 2, word & 3) for moment, word in log.RECORD.iter_unpack(raw)]


def test_bytes_of_both_streams_come_back_in_their_order(tmp_path: Path, pipes: dict[int, Pipe]) -> None:
    with LogWriter(str(tmp_path), BIG, 2) as writer:
        for stream, data in [(STDOUT, b"one\n"), (STDERR, b"two\n"), (STDOUT, b"th\0ree")]:
            pipes[stream].put(data)
            assert writer.take(pipes[stream].out, stream) == len(data)
        with pytest.raises(BlockingIOError):
            writer.take(pipes[STDOUT].out, STDOUT)
        os.close(pipes[STDOUT].into)
        assert writer.take(pipes[STDOUT].out, STDOUT) == 0
    assert content(tmp_path) == [(STDOUT, b"one\n"), (STDERR, b"two\n"), (STDOUT, b"th\0ree")]


def test_a_take_is_bounded(tmp_path: Path, pipes: dict[int, Pipe], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_TAKE", 100)
    pipes[STDOUT].put(b"x" * 250)
    with LogWriter(str(tmp_path), BIG, 2) as writer:
        assert [writer.take(pipes[STDOUT].out, STDOUT) for _ in range(3)] == [100, 100, 50]


def test_the_index_of_who_writes_byte_by_byte_stays_small(
    tmp_path: Path, pipes: dict[int, Pipe], clock: Callable[[int], None]
) -> None:
    with LogWriter(str(tmp_path), BIG, 2) as writer:
        for _ in range(5000):
            clock(10_000)
            pipes[STDOUT].put(b"x")
            writer.take(pipes[STDOUT].out, STDOUT)
    assert len(records(tmp_path)) == 50  # 50 ms
    assert content(tmp_path) == [(STDOUT, b"x" * 5000)]


def test_another_stream_is_never_merged(tmp_path: Path, pipes: dict[int, Pipe], clock: Callable[[int], None]) -> None:
    with LogWriter(str(tmp_path), BIG, 2) as writer:
        for stream in (STDOUT, STDERR, STDOUT):
            pipes[stream].put(b"x")
            writer.take(pipes[stream].out, stream)
    assert [stream for stream, _ in content(tmp_path)] == [STDOUT, STDERR, STDOUT]


def test_a_clock_that_is_set_back_begins_a_new_record(
    tmp_path: Path, pipes: dict[int, Pipe], clock: Callable[[int], None]
) -> None:
    with LogWriter(str(tmp_path), BIG, 2) as writer:
        for step in (0, -500_000):
            clock(step)
            pipes[STDOUT].put(b"x")
            writer.take(pipes[STDOUT].out, STDOUT)
    assert [start for _, start, _ in records(tmp_path)] == [0, 1]


def test_an_empty_record_is_written_over_by_the_next_stream(
    tmp_path: Path, pipes: dict[int, Pipe], clock: Callable[[int], None]
) -> None:
    with LogWriter(str(tmp_path), BIG, 2) as writer:
        for stream in (STDOUT, STDERR, STDOUT, STDERR):
            with pytest.raises(BlockingIOError):
                writer.take(pipes[stream].out, stream)
    assert len(records(tmp_path)) == 1
    with LogWriter(str(tmp_path), BIG, 2) as writer:
        pipes[STDOUT].put(b"out")
        writer.take(pipes[STDOUT].out, STDOUT)
    assert content(tmp_path) == [(STDOUT, b"out")]


# Every crash between two system calls, by number: the one after which the writer is no more


class Killed(BaseException):
    """kill -9 arrived here."""


CALLS = ("open", "pwrite", "splice", "unlink", "ftruncate", "listdir", "fstat", "close")


def kill_at(number: int, after: bool, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the writer die before or after its system call of that number. Returns the counter."""
    count = [0]

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            count[0] += 1
            if count[0] == number and not after:
                raise Killed
            if count[0] > number:
                raise Killed  # nobody is there any more, not even to clean up
            result = call(*arguments, **named)
            if count[0] == number and after:
                raise Killed
            return result

        return called

    for name in CALLS:
        monkeypatch.setattr(log.os, name, dying(getattr(os, name)))
    return count


def story(
    directory: Path, pipes: dict[int, Pipe], clock: Callable[[int], None], puts: dict[str, bool], max_files: int
) -> None:
    """What a writer lives through: both streams, merged and not, empty pipes, reopening, three rotations."""
    for number in range(12):
        if not puts.get(str(number)):
            puts[str(number)] = True
            pipes[STDOUT].put(b"out %d;" % number)
            if number % 3 == 0:
                pipes[STDERR].put(b"err %d;" % number)
        with LogWriter(str(directory), 60, max_files) as writer:
            clock(300_000)
            for stream in (STDERR, STDOUT, STDERR):
                take_all(writer, pipes[stream], stream)


@pytest.mark.parametrize("max_files", [50, 2])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_at_any_system_call_loses_and_doubles_nothing(
    tmp_path: Path, clock: Callable[[int], None], after: bool, max_files: int
) -> None:
    expected = {STDOUT: b"".join(b"out %d;" % n for n in range(12)), STDERR: b"err 0;err 3;err 6;err 9;"}
    number, killed = 0, True
    while killed:
        number += 1
        killed = False
        directory = tmp_path / str(number)
        directory.mkdir()
        both = {STDOUT: Pipe(), STDERR: Pipe()}
        puts: dict[str, bool] = {}
        before = open_descriptors()
        with pytest.MonkeyPatch.context() as patch:
            kill_at(number, after, patch)
            try:
                story(directory, both, clock, puts, max_files)
            except Killed:
                killed = True
        for fd in open_descriptors() - before:  # as the kernel does for who was killed
            os.close(fd)
        names = {part: sequences(str(directory), (part,)) for part in ("raw", "idx")}
        assert set(names["raw"]) <= set(names["idx"]), "no raw file is ever without its index"
        story(directory, both, clock, puts, max_files)
        names = {part: sequences(str(directory), (part,)) for part in ("raw", "idx")}
        assert names["raw"] == names["idx"]
        assert len(names["raw"]) <= max_files
        for stream, data in expected.items():
            kept = of_stream(directory, stream)
            assert data.endswith(kept) if max_files == 2 else data == kept, f"killed at call {number}"
        for pipe in both.values():
            pipe.close()
        for name in directory.iterdir():
            name.unlink()
    assert number > 150, "the story has that many system calls"


TAKER = """
import select, sys
from cloche.runtime.log import LogWriter
directory, max_size, *fds = sys.argv[1:]
with LogWriter(directory, int(max_size), 10**6) as writer:
    poll = select.poll()
    streams = {int(fd): number for number, fd in enumerate(fds, 1)}
    for fd in streams:
        poll.register(fd, select.POLLIN)
    print("ready", flush=True)
    while streams:
        for fd, _ in poll.poll():
            try:
                if not writer.take(fd, streams[fd]):
                    poll.unregister(fd)
                    del streams[fd]
            except BlockingIOError:
                pass
"""
SOURCE = """
import os, random, sys
seed, lines = int(sys.argv[1]), int(sys.argv[2])
chance = random.Random(seed)
for number in range(lines):
    fd = 2 if chance.random() < 0.2 else 1
    data = b"%d %s\\n" % (number, b"x" * chance.randrange(60))
    while data:
        data = data[os.write(fd, data):]
"""


def test_a_writer_killed_again_and_again_at_random_loses_and_doubles_nothing(tmp_path: Path) -> None:
    lines, seed, kills = 300_000, 7, 40
    expected: dict[int, list[bytes]] = {STDOUT: [], STDERR: []}
    chance = random.Random(seed)
    for number in range(lines):
        stream = STDERR if chance.random() < 0.2 else STDOUT
        expected[stream].append(b"%d %s\n" % (number, b"x" * chance.randrange(60)))
    out, err = Pipe(), Pipe()
    source = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", SOURCE, str(seed), str(lines)], stdout=out.into, stderr=err.into
    )
    os.close(out.into)
    os.close(err.into)
    path = [str(Path(log.__file__).parents[2])]
    command = [sys.executable, "-S", "-B", "-c", TAKER, str(tmp_path), "300000", str(out.out), str(err.out)]

    def taker() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command, pass_fds=(out.out, err.out), stdout=subprocess.PIPE, env={"PYTHONPATH": path[0]}
        )
        assert process.stdout and process.stdout.readline() == b"ready\n"
        return process

    moment, killed = random.Random(), 0
    for _ in range(kills):
        with taker() as process:
            try:
                process.wait(timeout=moment.random() * 0.008)
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
    assert killed > kills // 2, "the source ended before the killing did"
    with taker() as process:
        assert process.wait() == 0
    assert source.wait() == 0
    for stream, pipe in ((STDOUT, out), (STDERR, err)):
        assert of_stream(tmp_path, stream) == b"".join(expected[stream])
        pipe.close()


# Rotation


def test_pairs_are_rotated_at_their_size_and_only_the_newest_kept(tmp_path: Path, pipes: dict[int, Pipe]) -> None:
    with LogWriter(str(tmp_path), 100, 3) as writer:
        for number in range(100):
            pipes[STDOUT].put(b"%04d\n" % number)
            take_all(writer, pipes[STDOUT], STDOUT)
            there = sequences(str(tmp_path))
            assert len(there) <= 3
            # a record may begin where there is one byte of room, and another be written that says nothing yet
            assert all(
                sum((tmp_path / f"log.{n}.{part}").stat().st_size for part in ("raw", "idx")) <= 132 for n in there
            )
    kept = of_stream(tmp_path, STDOUT)
    assert kept.endswith(b"0098\n0099\n")
    assert len(kept) > 100


def test_an_index_of_alternating_bytes_is_bounded_too(
    tmp_path: Path, pipes: dict[int, Pipe], clock: Callable[[int], None]
) -> None:
    with LogWriter(str(tmp_path), 4096, 2) as writer:
        for _ in range(1000):
            for stream in (STDOUT, STDERR):
                pipes[stream].put(b"x")
                take_all(writer, pipes[stream], stream)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 2 * (4096 + 16)


def test_a_full_pair_is_not_rotated_before_there_is_more(tmp_path: Path, pipes: dict[int, Pipe]) -> None:
    with LogWriter(str(tmp_path), 116, 1) as writer:
        pipes[STDOUT].put(b"x" * 100)
        take_all(writer, pipes[STDOUT], STDOUT)
        os.close(pipes[STDOUT].into)
        assert writer.take(pipes[STDOUT].out, STDOUT) == 0
    assert content(tmp_path) == [(STDOUT, b"x" * 100)]


def test_what_an_attached_client_has_not_read_is_kept_and_the_writer_waits(
    tmp_path: Path, pipes: dict[int, Pipe]
) -> None:
    directory = str(tmp_path)
    data = bytes(range(256)) * 4
    pipes[STDOUT].put(data)
    with LogWriter(directory, 300, 2) as writer:
        with Reader(directory, hold=True) as client:
            with pytest.raises(Stalled, match="has not read"):
                take_all(writer, pipes[STDOUT], STDOUT)
            assert len(sequences(directory)) == 3
            assert held(directory)
            got = b""
            while len(got) < len(data):
                for _, piece in client.read():
                    got += piece
                try:
                    take_all(writer, pipes[STDOUT], STDOUT)
                except Stalled:
                    pass
            assert got == data
            assert client.missed == 0
        assert not held(directory)


def test_a_client_that_died_holds_nothing(tmp_path: Path, pipes: dict[int, Pipe]) -> None:
    directory = str(tmp_path)
    with LogWriter(directory, 100, 1) as writer:
        client = os.open(tmp_path / "log.1.raw", os.O_RDONLY)
        fcntl.flock(client, fcntl.LOCK_SH)
        pipes[STDOUT].put(b"x" * 500)
        with pytest.raises(Stalled):
            take_all(writer, pipes[STDOUT], STDOUT)
        os.close(client)
        take_all(writer, pipes[STDOUT], STDOUT)
        assert len(sequences(directory)) == 1


# What can be found on the disk, and what cannot be opened


def test_records_of_bytes_that_a_power_failure_took_are_dropped(tmp_path: Path, pipes: dict[int, Pipe]) -> None:
    (tmp_path / "log.1.raw").write_bytes(b"abc")
    good = log.RECORD.pack(5, 0 << 2 | STDERR)
    lost = log.RECORD.pack(6, 3000 << 2 | STDOUT)
    (tmp_path / "log.1.idx").write_bytes(good + lost + bytes(32) + b"torn")
    pipes[STDOUT].put(b"def")
    with LogWriter(str(tmp_path), BIG, 2) as writer:
        assert records(tmp_path) == [(5, 0, STDERR)]
        writer.take(pipes[STDOUT].out, STDOUT)
    assert content(tmp_path) == [(STDERR, b"abc"), (STDOUT, b"def")]


def test_bytes_without_an_index_are_shown(tmp_path: Path, pipes: dict[int, Pipe]) -> None:
    (tmp_path / "log.1.raw").write_bytes(b"abc")
    pipes[STDERR].put(b"def")
    with LogWriter(str(tmp_path), BIG, 2) as writer:
        writer.take(pipes[STDERR].out, STDERR)
    assert content(tmp_path) == [(STDOUT, b"abc"), (STDERR, b"def")]


def test_other_files_in_the_directory_are_no_pairs(tmp_path: Path) -> None:
    for name in ("log", "log.x.raw", "log..raw", "log.²1.raw", "log.7.raw.gz", "catalog.9.raw"):
        (tmp_path / name).touch()
    with LogWriter(str(tmp_path), BIG, 2):
        assert sequences(str(tmp_path)) == [1]


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "log.1.raw").symlink_to("/dev/null")
    with pytest.raises(log.Error, match="ELOOP"):
        LogWriter(str(tmp_path), BIG, 2)


def test_a_log_that_cannot_be_opened_says_why_and_leaks_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        LogWriter(str(tmp_path / "no"), BIG, 2)
    with pytest.raises(Invalid):
        LogWriter(str(tmp_path), 0, 2)
    (tmp_path / "log.1.raw").mkdir()
    before = open_descriptors()
    with pytest.raises(log.Error):
        LogWriter(str(tmp_path), BIG, 2)
    assert open_descriptors() == before


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path), BIG, 2)
    writer.close()
    writer.close()


@pytest.mark.parametrize("call", ["pwrite", "splice", "open"])
def test_a_full_disk_is_a_stall_at_each_place_and_goes_on_exactly(
    tmp_path: Path, pipes: dict[int, Pipe], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The real full disk is in tests/kernel; here it is met at a chosen call."""
    with LogWriter(str(tmp_path), 64, 9) as writer:
        pipes[STDOUT].put(b"a" * 40)
        take_all(writer, pipes[STDOUT], STDOUT)
        pipes[STDERR].put(b"b" * 100)

        def full(*_: object, **__: object) -> int:
            raise OSError(errno.ENOSPC, "full")

        with monkeypatch.context() as patch:
            patch.setattr(log.os, call, full)
            for _ in range(2):
                with pytest.raises(Stalled, match="ENOSPC"):
                    take_all(writer, pipes[STDERR], STDERR)
        take_all(writer, pipes[STDERR], STDERR)
    assert content(tmp_path) == [(STDOUT, b"a" * 40), (STDERR, b"b" * 100)]


def test_a_wrong_descriptor_is_no_stall(tmp_path: Path) -> None:
    with LogWriter(str(tmp_path), BIG, 2) as writer:
        with pytest.raises(OSError, match="Bad file"):
            writer.take(10_000, STDOUT)


def test_the_keeper_gets_no_heavy_module_by_it() -> None:
    code = "import sys; sys.path.insert(0, %r); before = set(sys.modules); import cloche.runtime.log; "
    code += "print(*sorted(m for m in set(sys.modules) - before if not m.startswith('cloche')))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code % str(Path(log.__file__).parents[2])], capture_output=True, text=True
    )
    assert not set(done.stdout.split()) & {"typing", "re", "enum", "collections", "contextlib", "select", "ctypes"}, (
        done
    )
