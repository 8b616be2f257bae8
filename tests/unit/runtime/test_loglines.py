"""Lines: whole, in the order of their ends, with the time of their first byte; the last, since, until, followed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from cloche.runtime import log
from cloche.runtime.log import STDERR, STDOUT, LogWriter
from cloche.runtime.loglines import Line, LineFollower, Lines, read
from cloche.runtime.logview import Chunk

Said = tuple[int, int, bytes]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes (time, stream, bytes) into the log in tmp_path, which rotates after so many bytes."""

    def write(*what: Said, max_size: int = 1 << 30) -> None:
        write_log(tmp_path, list(what), max_size, monkeypatch)

    return write


def write_log(directory: Path, what: list[Said], max_size: int, patch: pytest.MonkeyPatch) -> None:
    out, into = os.pipe()
    with LogWriter(str(directory), max_size, 10_000) as writer:
        for moment, stream, data in what:
            patch.setattr(log.time, "time_ns", lambda moment=moment: moment)
            os.write(into, data)
            left = len(data)
            while left:
                left -= writer.take(out, stream)
    os.close(out)
    os.close(into)


def texts(lines: object) -> list[bytes]:
    return [line.data for line in lines]  # type: ignore[attr-defined]


MS = 10**6


def test_lines_come_with_stream_and_time(tmp_path: Path, say: Callable[..., None]) -> None:
    say((5 * MS, STDOUT, b"one\ntwo\n"), (9 * MS, STDERR, b"\xff\r\n"), (12 * MS, STDOUT, b"open"))
    assert list(read(str(tmp_path))) == [
        Line(5 * MS, STDOUT, b"one\n"),
        Line(5 * MS, STDOUT, b"two\n"),
        Line(9 * MS, STDERR, b"\xff\r\n"),
        Line(12 * MS, STDOUT, b"open"),
    ]


def test_a_line_has_the_time_of_its_first_byte_and_the_place_of_its_end(
    tmp_path: Path, say: Callable[..., None]
) -> None:
    say((5 * MS, STDOUT, b"be"), (7 * MS, STDERR, b"error\n"), (9 * MS, STDOUT, b"gin\nnext\n"))
    assert list(read(str(tmp_path))) == [
        Line(7 * MS, STDERR, b"error\n"),
        Line(5 * MS, STDOUT, b"begin\n"),
        Line(9 * MS, STDOUT, b"next\n"),
    ]


def test_a_line_that_straddles_files_is_one_line(tmp_path: Path, say: Callable[..., None]) -> None:
    say((5 * MS, STDOUT, b"abcdefghij" * 30 + b"\nlast\n"), max_size=60)
    assert len(log.sequences(str(tmp_path))) > 5
    assert texts(read(str(tmp_path))) == [b"abcdefghij" * 30 + b"\n", b"last\n"]
    assert texts(read(str(tmp_path), tail=2)) == [b"abcdefghij" * 30 + b"\n", b"last\n"]
    assert texts(read(str(tmp_path), tail=1)) == [b"last\n"]


def test_an_empty_log_has_no_lines(tmp_path: Path, say: Callable[..., None]) -> None:
    assert list(read(str(tmp_path))) == []
    say()
    assert list(read(str(tmp_path), tail=3, since=5)) == []


def test_since_and_until_include_their_moments(tmp_path: Path, say: Callable[..., None]) -> None:
    say(*((n * MS, STDOUT, b"%d\n" % n) for n in range(1, 10)))
    assert texts(read(str(tmp_path), since=3 * MS, until=5 * MS)) == [b"3\n", b"4\n", b"5\n"]
    assert texts(read(str(tmp_path), since=3 * MS + 1, until=5 * MS - 1)) == [b"4\n"]
    assert texts(read(str(tmp_path), until=5 * MS, tail=2)) == [b"4\n", b"5\n"]
    assert texts(read(str(tmp_path), since=100 * MS)) == []


def test_a_line_from_before_since_is_not_cut_in_two(tmp_path: Path, say: Callable[..., None]) -> None:
    say((1 * MS, STDERR, b"old "), (5 * MS, STDOUT, b"new\n"), (9 * MS, STDERR, b"line\nnewer\n"))
    assert texts(read(str(tmp_path), since=3 * MS)) == [b"new\n", b"newer\n"]


def test_the_last_line_may_have_begun_long_before_the_others(tmp_path: Path, say: Callable[..., None]) -> None:
    many = [((n + 2) * MS, STDOUT, b"%d\n" % n) for n in range(500)]
    say((1 * MS, STDERR, b"x\nslow "), *many, (900 * MS, STDERR, b"end\n"), max_size=200)
    assert texts(read(str(tmp_path), tail=2)) == [b"499\n", b"slow end\n"]


@given(
    what=some.lists(
        some.tuples(
            some.integers(0, 3),
            some.sampled_from([STDOUT, STDERR]),
            some.text("ab\n", min_size=1, max_size=6).map(str.encode),
        ),
        max_size=25,
    ),
    tail=some.none() | some.integers(0, 8),
    since=some.none() | some.integers(0, 50),
    until=some.none() | some.integers(0, 50),
    max_size=some.sampled_from([20, 50, 1 << 30]),
)
def test_tail_since_and_until_agree_with_taking_them_from_all(
    tmp_path_factory: pytest.TempPathFactory,
    what: list[tuple[int, int, bytes]],
    tail: int | None,
    since: int | None,
    until: int | None,
    max_size: int,
) -> None:
    directory = tmp_path_factory.mktemp("log")
    moment, said = 0, []
    for step, stream, data in what:
        moment += step * MS
        said.append((moment, stream, data))
    with pytest.MonkeyPatch.context() as patch:
        write_log(directory, said, max_size, patch)
    low, high = None if since is None else since * MS, None if until is None else until * MS
    every = [
        line
        for line in read(str(directory))
        if (low is None or line.time >= low) and (high is None or line.time <= high)
    ]
    assert b"".join(texts(read(str(directory)))) or not what
    expected = every if tail is None else every[len(every) - tail :] if tail < len(every) else every
    assert list(read(str(directory), low, high, tail)) == expected
    with LineFollower(str(directory), low, high, tail) as follower:
        followed: list[Line] = []
        while lines := follower.read():
            followed += lines
        followed += follower.rest()
    if tail is None:
        assert followed == expected
    else:  # an unfinished line comes after those, when the container has ended
        whole = [line for line in every if line.data.endswith(b"\n")]
        assert followed == whole[max(len(whole) - tail, 0) :] + [x for x in every if not x.data.endswith(b"\n")]


def test_a_line_without_end_comes_in_pieces_and_takes_bounded_memory() -> None:
    lines = Lines()
    found: list[Line] = []
    for _ in range(5):
        found += lines.feed(Chunk(7, STDOUT, b"x" * 400_000))
    found += lines.feed(Chunk(8, STDOUT, b"end\nnext\n"))
    assert [len(line.data) for line in found] == [1_200_000, 800_004, 5]
    assert [line.begins for line in found] == [True, False, True]
    assert [line.time for line in found] == [7, 7, 8]
    assert lines.rest() == []


def test_a_long_line_byte_by_byte_is_not_quadratic() -> None:
    lines = Lines()
    for _ in range(300_000):
        assert not lines.feed(Chunk(7, STDOUT, b"x"))
    assert len(lines.rest()[0].data) == 300_000


def test_following_goes_on_after_the_last_lines(tmp_path: Path, say: Callable[..., None]) -> None:
    say(*((n * MS, STDOUT, b"%d\n" % n) for n in range(10)), (20 * MS, STDOUT, b"half"))
    with LineFollower(str(tmp_path), tail=2) as follower:
        assert texts(follower.read()) == [b"8\n", b"9\n"]
        assert follower.read() == []
        say((30 * MS, STDOUT, b" a line\nand"))
        assert follower.read() == [Line(20 * MS, STDOUT, b"half a line\n")]
        assert follower.read() == []
        assert texts(follower.rest()) == [b"and"]


def test_following_from_now_shows_nothing_old(tmp_path: Path, say: Callable[..., None]) -> None:
    say((1 * MS, STDOUT, b"old\n"))
    with LineFollower(str(tmp_path), tail=0) as follower:
        assert follower.read() == []
        say((2 * MS, STDOUT, b"new\n"))
        assert texts(follower.read()) == [b"new\n"]
