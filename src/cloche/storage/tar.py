"""Tar archives as a stream of members: ustar, GNU (long names, sparse files, binary numbers) and pax.

Not the standard library's tarfile: that makes an object of some 30 attributes a member, remembers them all, and takes
several times as long; here nothing is remembered, names stay bytes, and each number that a stranger wrote is checked
before it is used. What differs from Go's archive/tar, which made most layers, could make one digest mean two trees:
in doubt this reader does as that one does, or refuses. Not its business: what names mean, and making files. Source:
tar(5) of libarchive, pax(1), GNU tar's manual (Sparse Formats).
"""

from __future__ import annotations

from zlib import adler32

from cloche.errors import Invalid
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 512
FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0123456"
_EXTRA_MAX = 1 << 20  # bytes of a long name, a pax header or a sparse map, as in Go's archive/tar
_SPARSE_MAX = 1 << 20  # pieces of one sparse file
_SIZE_MAX = (1 << 63) - 1
_ZERO = bytes(BLOCK)
_XATTR = b"SCHILY.xattr."
_NO_DATA = (LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO)


class Member(Value):
    """One entry.

    kind: one of this module's constants, or what else the archive says. mtime: nanoseconds. size: bytes of payload in
    the archive; length: of the file, which differs where it is sparse. sparse: (offset, size) of each piece of
    payload.
    """

    name: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    target: bytes
    major: int
    minor: int
    length: int
    xattrs: tuple[tuple[str, bytes], ...]
    sparse: tuple[tuple[int, int], ...] | None


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


class TarReader:
    """The members of an archive that comes in `chunks`. `what` is what an error says was done.

    Iterate `members()`; the payload of one is read by `payload()` before the next is asked for, or passed over.
    All raise Invalid for what is no tar archive, or one that ends too early, and what `chunks` raises.
    """

    def __init__(self, chunks: Iterator[bytes], what: str) -> None:
        self._chunks, self._what = chunks, what
        self._buffer, self._at = b"", 0
        self._left = self._padding = 0  # of the present member
        self._numbers: dict[bytes, int] = {}

    def members(self) -> Iterator[Member]:
        """One member after the other, to the end of the archive; then `drain()` reads what follows it."""
        long_name = long_target = None
        pax: list[tuple[bytes, bytes]] = []
        while True:
            self._skip()
            header = self._take(BLOCK, end_ok=True)
            if not header or header == _ZERO:
                if long_name is not None or long_target is not None or pax:
                    raise self._wrong("it ends where a member was announced")
                return
            self._check(header)
            kind, size = header[156], self._number(header[124:136])
            if kind in b"xXLKg":
                if size > _EXTRA_MAX:
                    raise self._wrong(f"a header of {size} bytes")
                self._start(size)
                data = b"".join(map(bytes, self.payload()))
                if kind == ord("L"):
                    long_name = _text(data)
                elif kind == ord("K"):
                    long_target = _text(data)
                elif kind != ord("g"):  # global ones are comments of git; what else they could say, Go ignores too
                    pax = self._records(data)
                continue
            yield self._member(header, kind, size, pax, long_name, long_target)
            long_name = long_target = None
            pax = []

    def payload(self) -> Iterator[memoryview]:
        """The payload of the present member, in pieces as they came."""
        while self._left:
            size = min(len(self._buffer) - self._at, self._left)
            if not size:
                self._fill()
                continue
            start = self._at
            self._at += size
            self._left -= size
            yield memoryview(self._buffer)[start : start + size]

    def drain(self) -> None:
        """Read on to the end of the stream: what follows the archive belongs to its digest too."""
        self._buffer, self._at, self._left = b"", 0, 0
        for _ in self._chunks:
            pass

    # The stream

    def _fill(self) -> None:
        self._buffer, self._at = next(self._chunks, b""), 0
        if not self._buffer:
            raise self._wrong("it ends too early")

    def _take(self, size: int, end_ok: bool = False) -> bytes:
        at = self._at
        if at + size <= len(self._buffer):
            self._at += size
            return self._buffer[at : at + size]
        data = self._buffer[at:]
        while len(data) < size:
            self._buffer, self._at = next(self._chunks, b""), 0
            if not self._buffer:
                if end_ok and not data:
                    return b""
                raise self._wrong("it ends too early")
            self._at = min(size - len(data), len(self._buffer))
            data += self._buffer[: self._at]
        return data

    def _start(self, size: int) -> None:
        if not 0 <= size <= _SIZE_MAX:
            raise self._wrong(f"a member of {size} bytes")
        self._left, self._padding = size, -size % BLOCK

    def _skip(self) -> None:
        """Pass over what is left of the present member."""
        left = self._left + self._padding
        self._left = self._padding = 0
        while left > len(self._buffer) - self._at:
            left -= len(self._buffer) - self._at
            self._fill()
        self._at += left

    # One header

    def _wrong(self, cause: str) -> Invalid:
        return Invalid(self._what, f"it is no tar archive, or damaged: {cause}")

    def _check(self, header: bytes) -> None:
        """The sum of the header's bytes, its own field as blanks. adler32() has it, modulo 65521, in its low half."""
        field = header[148:156]
        told = self._number(field)
        if (told + sum(field) - 255) % 65521 == adler32(header) & 0xFFFF:
            return
        signed = sum(b - 256 if b > 127 else b for b in header[:148] + header[156:]) + 256  # of very old tars
        if told != signed:
            raise Invalid(self._what, "it is no tar archive, or damaged: a header's checksum is wrong")

    def _number(self, field: bytes) -> int:
        """Octal digits, or GNU's big-endian binary. The few values that modes and owners have are kept."""
        value = self._numbers.get(field)
        if value is not None:
            return value
        if field[0] & 0x80:
            value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
            if field[0] & 0x40:
                value -= 1 << (8 * len(field) - 1)
        else:
            digits = field.strip(b" \0").partition(b"\0")[0]
            if digits.translate(None, b"01234567"):
                raise self._wrong("a number in a header is none")
            value = int(digits or b"0", 8)
        if len(self._numbers) > 4096:
            self._numbers.clear()
        self._numbers[field] = value
        return value

    def _member(
        self,
        header: bytes,
        kind: int,
        size: int,
        pax: list[tuple[bytes, bytes]],
        name: bytes | None,
        target: bytes | None,
    ) -> Member:
        own, link = _text(header[:100]), _text(header[157:257])
        if header[257:263] == b"ustar\0" and header[345]:
            own = _text(header[345:500]) + b"/" + own
        number = self._number
        mode, uid, gid = number(header[100:108]), number(header[108:116]), number(header[116:124])
        mtime = number(header[136:148]) * 1_000_000_000
        major = minor = 0
        if kind in (CHARACTER, BLOCK_DEVICE):
            major, minor = number(header[329:337]), number(header[337:345])
        records = dict(pax)  # an empty value says that the header's holds
        xattrs: tuple[tuple[str, bytes], ...] = ()
        if pax:
            own, link = records.get(b"path") or own, records.get(b"linkpath") or link
            size, uid, gid = (self._decimal(records, k, v) for k, v in ((b"size", size), (b"uid", uid), (b"gid", gid)))
            mtime = self._time(records[b"mtime"]) if records.get(b"mtime") else mtime
            found = ((k[len(_XATTR) :], v) for k, v in records.items() if k.startswith(_XATTR))
            xattrs = tuple((k.decode("utf-8", "surrogateescape"), v) for k, v in found)
        if kind == 0 and own.endswith(b"/"):  # Unix v7 had no type for directories
            kind = DIRECTORY
        elif kind in b"\x007":
            kind = FILE
        self._start(0 if kind in _NO_DATA else size)
        length, sparse = self._left, None
        if kind == ord("S"):
            kind, length, sparse = FILE, number(header[483:495]), self._old_sparse(header)
        elif pax and kind == FILE and any(k.startswith(b"GNU.sparse.") for k in records):
            own = records.get(b"GNU.sparse.name") or own
            length, sparse = self._pax_sparse(records, pax)
        if sparse is not None:
            self._check_sparse(sparse, length)
        own, link = own if name is None else name, link if target is None else target
        return Member(own, kind, mode, uid, gid, mtime, self._left, link, major, minor, length, xattrs, sparse)

    # pax headers

    def _records(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """`LENGTH KEY=VALUE\\n`, again and again."""
        records = []
        at = 0
        while at < len(data):
            digits, blank, _ = data[at : at + 20].partition(b" ")
            end = at + (int(digits) if digits.isdigit() else 0)
            key, equals, value = data[at + len(digits) + 1 : end - 1].partition(b"=")
            if not (blank and equals and key and end <= len(data)) or data[end - 1 : end] != b"\n":
                raise self._wrong("a pax record is malformed")
            if b"\0" in key or (b"\0" in value and key in (b"path", b"linkpath", b"GNU.sparse.name")):
                raise self._wrong("a name has a zero byte in it")
            records.append((key, value))
            at = end
        return records

    def _decimal(self, records: dict[bytes, bytes], key: bytes, default: int | None = None) -> int:
        text = records.get(key)
        if not text:
            if default is None:
                raise self._wrong(f"no {key.decode()}")
            return default
        if not text.isdigit() or len(text) > 19:
            raise self._wrong(f"{key.decode()} is no number")
        return int(text)

    def _time(self, text: bytes) -> int:
        """Nanoseconds out of seconds with a fraction, which may be negative."""
        whole, _, fraction = text.lstrip(b"-").partition(b".")
        if not (whole + fraction).isdigit() or len(whole) > 19:
            raise self._wrong("a time is no number")
        value = int(whole or b"0") * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
        return -value if text[:1] == b"-" else value

    # Sparse files

    def _old_sparse(self, header: bytes) -> tuple[tuple[int, int], ...]:
        """GNU's old format: four pieces in the header, 21 in each block that follows."""
        pieces = self._pieces(header[386:482])
        more = header[482]
        while more:
            block = self._take(BLOCK)
            pieces += self._pieces(block[:504])
            more = block[504]
            if len(pieces) > _SPARSE_MAX:
                raise self._wrong("a sparse file of too many pieces")
        return tuple(pieces)

    def _pieces(self, data: bytes) -> list[tuple[int, int]]:
        found = []
        for at in range(0, len(data), 24):
            if data[at : at + 24].strip(b" \0"):
                found.append((self._number(data[at : at + 12]), self._number(data[at + 12 : at + 24])))
        return found

    def _pax_sparse(
        self, records: dict[bytes, bytes], pax: list[tuple[bytes, bytes]]
    ) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Formats 0.0 (repeated records), 0.1 (one record) and 1.0 (in front of the payload)."""
        if records.get(b"GNU.sparse.major") == b"1" and records.get(b"GNU.sparse.minor") == b"0":
            return self._decimal(records, b"GNU.sparse.realsize"), self._map_in_payload()
        if b"GNU.sparse.major" in records and records.get(b"GNU.sparse.major") != b"0":
            raise self._wrong("a sparse file of an unknown format")
        if b"GNU.sparse.map" in records:
            texts = records[b"GNU.sparse.map"].split(b",")
        else:
            texts = [v for k, v in pax if k in (b"GNU.sparse.offset", b"GNU.sparse.numbytes")]
        numbers = [self._decimal({b"": t}, b"") for t in texts]
        if len(numbers) % 2:
            raise self._wrong("a sparse file's map is malformed")
        return self._decimal(records, b"GNU.sparse.size"), tuple(zip(numbers[::2], numbers[1::2], strict=True))

    def _map_in_payload(self) -> tuple[tuple[int, int], ...]:
        """Decimal lines: how many pieces, then offset and length of each; padded to whole blocks."""
        taken = b""

        def block() -> bytes:
            if self._left < BLOCK or len(taken) > _EXTRA_MAX:
                raise self._wrong("a sparse file's map is malformed")
            self._left -= BLOCK
            return self._take(BLOCK)

        wanted = 1
        while taken.count(b"\n") < wanted:
            taken += block()
            if wanted == 1 and b"\n" in taken:
                wanted = 1 + 2 * self._decimal({b"": taken.partition(b"\n")[0]}, b"")
                if wanted > _EXTRA_MAX:
                    raise self._wrong("a sparse file of too many pieces")
        numbers = [self._decimal({b"": line}, b"") for line in taken.split(b"\n")[1:wanted]]
        return tuple(zip(numbers[::2], numbers[1::2], strict=True))

    def _check_sparse(self, sparse: tuple[tuple[int, int], ...], length: int) -> None:
        """In order, not overlapping, inside the file, and as many bytes as there are."""
        end = total = 0
        for offset, size in sparse:
            if offset < end or size < 0 or offset + size > length:
                raise self._wrong("a sparse file's map is malformed")
            end = offset + size
            total += size
        if total != self._left or not 0 <= length <= _SIZE_MAX:
            raise self._wrong("a sparse file's map does not fit its payload")
