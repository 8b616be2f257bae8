"""Content by its digest: layers as they came, compressed or not, each a file that is never written again.

    ROOT/content/sha256/HEX

What comes in is written aside, its digest and size checked while it streams, synced and renamed: under its digest
there is the whole of it or nothing. Not its business: which content is needed (see image/garbage).
"""

from __future__ import annotations

import os

from cloche.errors import Error, Invalid, NotFound
from cloche.kernel.filesystems import begin_writing
from cloche.oci.digest import check_digest, is_hex
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

_CHUNK = 1 << 20
_BEGIN = 16 << 20  # bytes after which the disk begins with them
SIZE_MAX = 64 << 30  # bytes of one piece, unless its size was announced


class Blob(Value):
    """A piece of content; size in bytes."""

    digest: str
    size: int


class ContentStore:
    """The content below the store's directory `root`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.folder = root + "/content/sha256"

    def path(self, digest: str) -> str:
        """Where content of that digest is, or would be. Raises Invalid, Unsupported."""
        return f"{self.folder}/{check_digest(digest).removeprefix('sha256:')}"

    def has(self, digest: str) -> bool:
        return os.path.exists(self.path(digest))

    def open(self, digest: str) -> BinaryIO:
        """A stream of the content. Raises NotFound, Error."""
        try:
            return open(self.path(digest), "rb", buffering=0)
        except FileNotFoundError:
            raise NotFound(f"read the content {digest}", "it is not in the store") from None
        except OSError as e:
            raise Error(f"read the content {digest}", e.errno or "") from None

    def ingest(self, source: BinaryIO, digest: str = "", size: int | None = None) -> Blob:
        """Keep what `source` gives, to its end. Raises Invalid (another digest or size than announced), Error.

        Who ingests holds the lock that keeps garbage collection away until the content is in use (see image/staging).
        """
        aside = f"{self.root}/aside/{os.urandom(10).hex()}"
        try:
            os.makedirs(self.root + "/aside", 0o700, exist_ok=True)
            blob = write(pieces(source), aside, digest, size)
            sync(aside)
            self.place(aside, blob.digest)
            sync(self.folder)
        except OSError as e:
            raise Error("keep content", e.errno or str(e)) from None
        finally:
            try:
                os.unlink(aside)
            except FileNotFoundError:
                pass
        return blob

    def place(self, aside: str, digest: str) -> None:
        """Rename a file that is whole and synced to where its digest says. Raises OSError."""
        os.makedirs(self.folder, 0o700, exist_ok=True)
        os.rename(aside, self.path(digest))

    def digests(self) -> list[str]:
        """Of all content that is there."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return [f"sha256:{name}" for name in names if len(name) == 64 and is_hex(name)]

    def remove(self, digest: str) -> None:
        """Content that is gone already is no error."""
        try:
            os.unlink(self.path(digest))
        except FileNotFoundError:
            pass


def write(
    source: Iterable[bytes | memoryview], path: str, digest: str = "", size: int | None = None, limit: int = SIZE_MAX
) -> Blob:
    """Write a stream to the new file `path` and tell what it was. Nothing is synced.

    Raises Invalid: another digest or size than announced, more than `limit` bytes. Raises OSError.
    """
    from hashlib import sha256

    what = f"read the content {digest}" if digest else "read the content"
    hashed, total, begun = sha256(), 0, 0
    limit = limit if size is None else size
    with open(path, "xb", buffering=0) as file:
        os.fchmod(file.fileno(), 0o600)
        for data in source:
            total += len(data)
            if total > limit:
                raise Invalid(what, f"it is larger than {limit} bytes")
            hashed.update(data)
            while data:
                data = memoryview(data)[file.write(data) :]  # noqa: PLW2901 - the rest of it
            if total - begun >= _BEGIN:
                begin_writing(file.fileno())
                begun = total
    found = "sha256:" + hashed.hexdigest()
    if size is not None and total != size:
        raise Invalid(what, f"it is {total} bytes, not {size}")
    if digest and found != check_digest(digest):
        raise Invalid(what, f"it has the digest {found}", "it was damaged on its way")
    return Blob(found, total)


def pieces(source: BinaryIO) -> Iterable[bytes]:
    """The whole of a stream, in chunks of 1 MiB."""
    while data := source.read(_CHUNK):
        yield data


def sync(path: str) -> None:
    """fsync(2) of a file or a directory. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
