"""The files of an image archive by name, whether it is a folder, a tar in a file, or a tar that comes once, through a
pipe.

A tar is read once, from its beginning to its end: each file in it becomes content aside (see image/staging), where a
layer has to go anyhow; what turns out not to be needed is dropped. Names are looked up, never used as paths; links
lead from name to name (old archives have links between equal layers).
"""

from __future__ import annotations

import errno
import os
from posixpath import dirname, normpath
from stat import S_ISREG

from cloche.errors import Error, Invalid, NotFound
from cloche.kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, openat2
from cloche.storage import tar
from cloche.storage.compression import chunks
from cloche.storage.layers import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from cloche.image.staging import Staging
    from cloche.storage.content import Blob

WHAT = "read the image archive"
LIMITS = Limits(256 << 30, 100_000)  # of a whole archive
_LINKS_MAX = 8


class FolderFiles:
    """The files below a folder. No link leads out of it. A context manager."""

    def __init__(self, path: str, staging: Staging) -> None:
        self._staging = staging
        self._found: dict[str, Blob | None] = {}
        try:
            self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise Error(f"{WHAT} {path}", e.errno or "") from None

    def close(self) -> None:
        os.close(self._folder)

    def find(self, name: str) -> Blob | None:
        """The content of the file of that name, or None. Raises Invalid, Error."""
        if name not in self._found:
            self._found[name] = self._read(name)
        return self._found[name]

    def _read(self, name: str) -> Blob | None:
        try:
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
            fd = openat2(self._folder, name, flags, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as e:
            if e.errno in (errno.EXDEV, errno.ELOOP, errno.ENAMETOOLONG):
                raise Invalid(f"{WHAT}: {name}", "it is outside of the archive") from None
            raise Error(f"{WHAT}: {name}", e.errno or "") from None
        with open(fd, "rb", buffering=0) as file:
            if not S_ISREG(os.fstat(fd).st_mode):
                raise Invalid(f"{WHAT}: {name}", "it is not a file")
            return self._staging.blob(file)


class TarFiles:
    """The files in a tar archive, plain or compressed, read to its end at once."""

    def __init__(self, source: BinaryIO, staging: Staging, limits: Limits = LIMITS) -> None:
        self._found: dict[str, Blob] = {}
        self._links: dict[str, str] = {}
        try:
            reader = tar.TarReader(_measured(chunks(source, WHAT), limits), WHAT)
            for count, member in enumerate(reader.members()):
                if count >= limits.entries:
                    raise Invalid(WHAT, f"it has more than {limits.entries} entries")
                self._take(member, reader, staging)
            reader.drain()
        except OSError as e:
            raise Error(WHAT, e.errno or str(e)) from None

    def _take(self, member: tar.Member, reader: tar.TarReader, staging: Staging) -> None:
        name = normpath(os.fsdecode(member.name)).lstrip("/")
        self._found.pop(name, None)
        self._links.pop(name, None)
        if member.kind == tar.FILE:
            if member.sparse is not None:
                raise Invalid(f"{WHAT}: {name[:200]}", "it is a sparse file")
            self._found[name] = staging.keep(reader.payload())
        elif member.kind in (tar.LINK, tar.SYMLINK):
            above = dirname(name) + "/" if member.kind == tar.SYMLINK else ""
            self._links[name] = normpath(above + os.fsdecode(member.target)).lstrip("/")

    def close(self) -> None:
        """Nothing is open."""

    def find(self, name: str) -> Blob | None:
        """The content of the file of that name, or None."""
        name = normpath(name).lstrip("/")
        for _ in range(_LINKS_MAX):
            if name not in self._links:
                break
            name = self._links[name]
        return self._found.get(name)


def _measured(source: Iterator[bytes], limits: Limits) -> Iterator[bytes]:
    total = 0
    for data in source:
        total += len(data)
        if total > limits.bytes:
            raise Invalid(WHAT, f"it unpacks to more than {limits.bytes} bytes")
        yield data


def open_files(source: str | os.PathLike[str] | BinaryIO, staging: Staging) -> FolderFiles | TarFiles:
    """The files of an archive: a folder, a file, or a stream. Raises NotFound, Invalid, Error."""
    if not isinstance(source, (str, os.PathLike)):
        return TarFiles(source, staging)
    path = os.fspath(source)
    if os.path.isdir(path):
        return FolderFiles(path, staging)
    try:
        with open(path, "rb", buffering=0) as file:
            return TarFiles(file, staging)
    except FileNotFoundError:
        raise NotFound(f"{WHAT} {path}", "there is no such file") from None
    except OSError as e:
        raise Error(f"{WHAT} {path}", e.errno or "") from None
