"""Compressed streams come out whole, in bounded pieces, or with an error."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
from collections.abc import Callable
from typing import BinaryIO, cast

import pytest
import zstandard

from cloche.errors import Invalid
from cloche.storage.compression import CHUNK, chunks, compression_of


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(3, write_checksum=True).compress(data)


MAKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": gzip.compress,
    "zstd": zstd,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
DATA = random.Random(7).randbytes(300_000) + bytes(5_000_000) + b"the end"


class Dribble:
    """A pipe that gives a few bytes at a time."""

    def __init__(self, data: bytes, size: int = 3) -> None:
        self.stream, self.size = io.BytesIO(data), size

    def read(self, size: int) -> bytes:
        return self.stream.read(min(size, self.size))


def plain(data: bytes, size: int = 1 << 30) -> bytes:
    found = list(chunks(cast("BinaryIO", Dribble(data, size)), "read it"))
    assert all(0 < len(each) <= CHUNK for each in found)
    return b"".join(found)


@pytest.mark.parametrize("kind", MAKERS)
def test_streams_are_recognised_and_come_out_whole(kind: str) -> None:
    packed = MAKERS[kind](DATA)
    assert compression_of(packed[:6]) == kind
    assert plain(packed) == DATA


@pytest.mark.parametrize("kind", MAKERS)
def test_a_pipe_may_give_a_few_bytes_at_a_time(kind: str) -> None:
    assert plain(MAKERS[kind](b"some text" * 50), 3) == b"some text" * 50


@pytest.mark.parametrize("kind", MAKERS)
def test_streams_one_after_the_other_are_one(kind: str) -> None:
    make = MAKERS[kind]
    assert plain(make(b"one ") + make(b"") + make(DATA)) == b"one " + DATA


def test_gzip_may_be_followed_by_zero_bytes_as_gzip_allows() -> None:
    assert plain(gzip.compress(b"x") + bytes(100_000)) == b"x"
    with pytest.raises(Invalid, match="damaged"):
        plain(gzip.compress(b"x") + b"\0\0junk, as long as a header is")


def test_zstd_may_begin_with_a_frame_to_skip() -> None:
    assert plain(b"\x51\x2a\x4d\x18\x04\0\0\0abcd" + zstd(b"x")) == b"x"


def test_an_empty_stream_has_nothing_in_it() -> None:
    assert plain(b"") == b""
    assert plain(b"ab") == b"ab"


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz"])
def test_a_stream_that_is_cut_short_is_an_error(kind: str) -> None:
    packed = MAKERS[kind](DATA)
    for end in (len(packed) - 1, len(packed) // 2, 11):
        with pytest.raises(Invalid, match=f"the {kind} stream"):
            plain(packed[:end])


@pytest.mark.parametrize("kind", ["gzip", "zstd", "bzip2", "xz"])
def test_a_damaged_stream_is_an_error(kind: str) -> None:
    packed = bytearray(MAKERS[kind](DATA))
    packed[len(packed) // 2 :] = random.Random(8).randbytes(len(packed) - len(packed) // 2)
    with pytest.raises(Invalid, match=f"the {kind} stream is damaged"):
        plain(bytes(packed))


@pytest.mark.parametrize("kind", ["gzip", "zstd", "bzip2", "xz"])
def test_a_bomb_comes_out_in_bounded_pieces(kind: str) -> None:
    packed = MAKERS[kind](bytes(64 << 20))
    assert len(packed) < 300_000
    stream = chunks(io.BytesIO(packed), "read it")
    assert all(len(next(stream)) <= CHUNK for _ in range(5))


def test_an_error_of_the_source_is_passed_on() -> None:
    class Broken:
        def read(self, size: int) -> bytes:
            raise OSError(5, "input/output error")

    with pytest.raises(OSError, match="input/output"):
        list(chunks(cast("BinaryIO", Broken()), "read it"))
