"""Streams between threads: order, errors, ends, and that nobody waits for ever for who has given up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche.errors import Error, Invalid
from cloche.storage.ahead import Arriving, ahead


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ahead"]


@pytest.fixture(autouse=True)
def nobody_left() -> Iterator[None]:
    yield
    assert threads() == []


def test_all_pieces_in_their_order() -> None:
    pieces = [bytes([n]) for n in range(200)]
    assert list(ahead(pieces)) == pieces
    assert list(ahead([])) == []


def test_it_is_ahead_but_not_far() -> None:
    taken: list[int] = []

    def source() -> Iterator[bytes]:
        for number in range(100):
            taken.append(number)
            yield b"x"

    stream = ahead(source())
    next(stream)
    while len(taken) < 3:
        pass
    assert len(taken) < 10
    stream.close()


def test_what_the_source_raises_is_raised_where_it_is_read_behind_what_came_before() -> None:
    def source() -> Iterator[bytes]:
        yield b"good"
        raise Invalid("read it", "it is damaged")

    found = []
    with pytest.raises(Invalid, match="damaged"):
        for piece in ahead(source()):
            found.append(piece)
    assert found == [b"good"]


def test_who_stops_early_leaves_no_thread_even_behind_another() -> None:
    endless = (b"x" for _ in iter(int, 1))
    inner = ahead(endless)
    outer = ahead(inner)
    assert next(outer) == b"x"
    outer.close()
    inner.close()
    assert threads() == []


def write(arriving: Arriving, path: Path, chunks: list[bytes], failed: bool = False) -> None:
    with open(path, "wb", buffering=0) as file:
        file.writelines(arriving.watched(iter(chunks), str(path)))
    arriving.end(failed)


def test_it_is_read_while_it_arrives(tmp_path: Path) -> None:
    arriving, said = Arriving(), list[bytes]()
    chunks = iter([b"one", b"two"])
    with open(tmp_path / "x", "wb", buffering=0) as file:
        stream = arriving.watched(chunks, str(tmp_path / "x"))
        file.write(next(stream))
        file.write(next(stream))  # now the first is known to be there
        said.append(arriving.read(100))
        assert list(stream) == []
        said.append(arriving.read(2))
        said.append(arriving.read(2))
        arriving.end()
        said.append(arriving.read(2))
    arriving.close()
    assert said == [b"one", b"tw", b"o", b""]


@pytest.mark.parametrize("chunks", [[], [b"x" * 100_000] * 20])
def test_by_two_threads(tmp_path: Path, chunks: list[bytes]) -> None:
    arriving = Arriving()
    writer = threading.Thread(target=write, args=(arriving, tmp_path / "x", chunks))
    writer.start()
    found = b""
    while data := arriving.read(70_000):
        found += data
    writer.join()
    arriving.close()
    assert found == b"".join(chunks)


def test_what_does_not_arrive_whole_is_an_error_and_no_end(tmp_path: Path) -> None:
    arriving = Arriving()
    write(arriving, tmp_path / "x", [b"half"], failed=True)
    with pytest.raises(Error, match="does not arrive"):
        arriving.read(100)
    arriving.close()


def test_who_waits_for_what_never_comes_is_let_go() -> None:
    arriving = Arriving()

    def source() -> Iterator[bytes]:
        yield b"x"
        yield arriving.read(100)  # nobody writes

    stream = ahead(source(), arriving.give_up)
    assert next(stream) == b"x"
    stream.close()
    arriving.close()
