"""What the layers below show at a path, as an overlay would merge them, read without mounting one.

A layer's tar may leave out the entries of parent directories, and link to files that only a lower layer has; then
mode, owner and content come from here. Source: Documentation/filesystems/overlayfs.rst (whiteouts and opaque
directories).
"""

from __future__ import annotations

import os
from stat import S_IMODE, S_ISCHR, S_ISDIR

from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

OPAQUE = "trusted.overlay.opaque"
CAPABILITY = "security.capability"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Attributes(Value):
    """Of a file, besides its content. mtime: nanoseconds, or None: let it be."""

    mode: int
    uid: int
    gid: int
    mtime: int | None = None
    xattrs: tuple[tuple[str, bytes], ...] = ()


class Found(Value):
    """A file of a lower layer: the layer's open directory, the path in it, its status."""

    layer: int
    path: bytes
    status: os.stat_result

    def attributes(self) -> Attributes:
        """Its mode, owner, time and those extended attributes that layers keep."""
        fd = os.open(self.path or b".", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.layer)
        try:
            path = f"/proc/self/fd/{fd}"  # of what fd is, be it a link
            xattrs = tuple((n, os.getxattr(path, n)) for n in os.listxattr(path) if is_kept(n)) if self._has() else ()
        finally:
            os.close(fd)
        s = self.status
        return Attributes(S_IMODE(s.st_mode), s.st_uid, s.st_gid, s.st_mtime_ns, xattrs)

    def _has(self) -> bool:
        """Links have none of those attributes, and listxattr(2) would follow them."""
        return (self.status.st_mode & 0o170000) in (0o100000, 0o040000)


class Lower:
    """The layers below one, their directories topmost first; a context manager."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._layers: list[int] = []
        try:
            for folder in folders:
                self._layers.append(os.open(folder, _FOLDER))
        except OSError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        while self._layers:
            os.close(self._layers.pop())

    def __bool__(self) -> bool:
        return bool(self._layers)

    def find(self, path: bytes) -> Found | None:
        """The topmost file at `path` (no leading slash, no links on its way; empty: the root), or None."""
        layers = self._layers
        if not layers:
            return None
        end = 0
        while end < len(path):
            end = path.find(b"/", end + 1)
            end = len(path) if end < 0 else end
            above = path[:end]
            going: list[int] = []
            for layer in layers:
                try:
                    status = os.stat(above, dir_fd=layer, follow_symlinks=False)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                if is_whiteout(status):
                    break
                if not S_ISDIR(status.st_mode):
                    if going:
                        break
                    return Found(layer, path, status) if end == len(path) else None
                going.append(layer)
                if is_opaque(layer, above):
                    break
            if not going:
                return None
            layers = going
        return Found(layers[0], path, os.stat(path or b".", dir_fd=layers[0], follow_symlinks=False))

    def names(self, path: bytes) -> set[bytes]:
        """What the merged directory at `path` has in it; nothing where there is none."""
        found: set[bytes] = set()
        for layer in self._layers:
            try:
                found.update(_listed(layer, path))
            except (FileNotFoundError, NotADirectoryError):
                continue
        return {name for name in found if self.find(path + b"/" + name if path else name) is not None}


def _listed(layer: int, path: bytes) -> list[bytes]:
    fd = os.open(path or b".", _FOLDER, dir_fd=layer)
    try:
        return [os.fsencode(name) for name in os.listdir(fd)]
    finally:
        os.close(fd)


def is_kept(name: str) -> bool:
    """Whether an extended attribute of that name belongs to a layer: file capabilities, and what users set.

    Never the overlay's own (trusted.overlay.*, user.overlay.*), which would make a layer show other files than it has.
    """
    return name == CAPABILITY or (name.startswith("user.") and not name.startswith("user.overlay."))


def is_whiteout(status: os.stat_result) -> bool:
    """Whether it is the mark by which an overlay hides what lower layers have at its path."""
    return S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(layer: int, path: bytes) -> bool:
    """Whether the directory at `path` of a layer hides what lower layers have in it. Raises OSError."""
    fd = os.open(path, _FOLDER, dir_fd=layer)
    try:
        return os.getxattr(fd, OPAQUE) == b"y"
    except OSError:  # ENODATA; EOPNOTSUPP where there are no attributes at all
        return False
    finally:
        os.close(fd)
