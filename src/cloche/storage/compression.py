"""Compressed streams as chunks of plain bytes: gzip, zstd, bzip2, xz, or none, known by their first bytes.

Never more than one chunk is held, however well the data was compressed: how much may come out is for the reader to
say. A zstd stream that is cut short just ends: the zstandard package does not tell, the content's digest does. That
package is imported when the first zstd stream is met. Source: RFC 1952, RFC 8878.
"""

from __future__ import annotations

from cloche.errors import Invalid, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Protocol

    class Readable(Protocol):
        """What is read of a stream."""

        def read(self, size: int, /) -> bytes: ...

    class _Decompressor(Protocol):
        """What bz2 and lzma have in common."""

        @property
        def eof(self) -> bool: ...
        @property
        def needs_input(self) -> bool: ...
        @property
        def unused_data(self) -> bytes: ...
        def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


CHUNK = 1 << 20
_READ = 1 << 18
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
_LONGEST = 6
_XZ_MEMORY = 256 << 20
_SKIPPABLE = range(0x50, 0x60)  # zstd's skippable frames start with 0x184D2A5?, little-endian


def compression_of(head: bytes) -> str:
    """The name of the compression that a stream starting with `head` has, empty for none. Six bytes are enough."""
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    return "zstd" if head[:1] and head[0] in _SKIPPABLE and head[1:4] == b"\x2a\x4d\x18" else ""


def chunks(source: Readable, what: str) -> Iterator[bytes]:
    """What comes out of `source`, in chunks of at most 1 MiB, to its end.

    `what` is what an error says was done. Raises Invalid (damaged or cut short), Unsupported, OSError.
    """
    head = b""
    while len(head) < _LONGEST and (more := source.read(_READ if not head else _LONGEST)):
        head += more
    kind = compression_of(head)
    if not kind:
        return _plain(source, head)
    if kind == "zstd":
        return _zstd(source, head, what)
    return _gzip(source, head, what) if kind == "gzip" else _block(source, head, what, kind)


def _plain(source: Readable, head: bytes) -> Iterator[bytes]:
    if head:
        yield head
    while data := source.read(CHUNK):
        yield data


def _zlib() -> Any:
    """The module, or the one that does the same twice as fast, which is made for x86-64 and aarch64."""
    try:
        from isal import isal_zlib

        return isal_zlib
    except ImportError:
        import zlib

        return zlib


def _gzip(source: Readable, data: bytes, what: str) -> Iterator[bytes]:
    """Members one after the other (some builders make one a file); zero bytes may follow, as gzip(1) allows."""
    zlib = _zlib()
    try:
        while True:
            member = zlib.decompressobj(31)  # a gzip header, the largest window
            while not member.eof:
                data = data or source.read(_READ)
                if not data:
                    raise Invalid(what, "the gzip stream ends too early")
                out = member.decompress(data, CHUNK)
                data = member.unconsumed_tail
                if out:
                    yield out
            data = member.unused_data.lstrip(b"\0")
            while not data and (more := source.read(_READ)):
                data = more.lstrip(b"\0")
            if not data:
                return
    except zlib.error as error:
        raise Invalid(what, f"the gzip stream is damaged: {error}") from None


def _block(source: Readable, data: bytes, what: str, kind: str) -> Iterator[bytes]:
    from bz2 import BZ2Decompressor
    from lzma import FORMAT_AUTO, LZMADecompressor, LZMAError

    def start() -> _Decompressor:
        # an xz stream says itself how much memory it wants: xz -9 wants 65 MiB, a hostile one 4 GiB
        return BZ2Decompressor() if kind == "bzip2" else LZMADecompressor(FORMAT_AUTO, _XZ_MEMORY)

    stream = start()
    try:
        while True:
            while not stream.eof:
                if stream.needs_input:
                    data = data or source.read(_READ)
                    if not data:
                        raise Invalid(what, f"the {kind} stream ends too early")
                if out := stream.decompress(data, CHUNK):
                    yield out
                data = b""
            data = stream.unused_data or source.read(_READ)
            if not data:
                return
            stream = start()
    except (OSError, LZMAError) as error:  # bz2 says OSError without a number
        if isinstance(error, OSError) and error.errno:
            raise
        raise Invalid(what, f"the {kind} stream is damaged: {error}") from None


def _zstd(source: Readable, data: bytes, what: str) -> Iterator[bytes]:
    try:
        from zstandard import ZstdDecompressor, ZstdError
    except ImportError:
        raise Unsupported(what, "it is compressed by zstd", "install the Python package zstandard") from None
    try:
        joined: Any = _Joined(data, source)
        with ZstdDecompressor().stream_reader(joined, read_size=_READ, read_across_frames=True) as reader:
            while out := reader.read(CHUNK):
                yield out
    except ZstdError as error:
        raise Invalid(what, f"the zstd stream is damaged: {error}") from None


class _Joined:
    """A stream of which the first bytes were read already."""

    def __init__(self, head: bytes, source: Readable) -> None:
        self._head, self._source = head, source

    def read(self, size: int) -> bytes:
        data, self._head = self._head[:size], self._head[size:]
        return data or self._source.read(size)
