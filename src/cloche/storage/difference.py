"""An overlay's upper directory as the tar of a layer: what is new or changed, and whiteouts for what is gone.

`.wh.NAME` stands for an overlay's 0:0 device, `.wh..wh..opq` for its opaque directory; `layers` reads both back. Who
writes to the directory meanwhile does no harm, but may be seen halfway: who wants one moment stops them before.
Source: image-spec layer.md, overlayfs.rst.
"""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISREG

from cloche.errors import Unsupported
from cloche.storage import tar
from cloche.storage.archive import END, directory_header, file, header, listed
from cloche.storage.lower import is_opaque, is_whiteout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloche.storage.lower import Lower

    Owner = Callable[[int, int], tuple[int, int]]

_PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_HIDE = b".wh."
# where the engine mounts: made when the image lacks them, and no doing of the container's
PLACES = frozenset(
    b"dev proc sys dev/pts dev/shm dev/mqueue sys/fs sys/fs/cgroup etc/resolv.conf etc/hostname etc/hosts".split()
)
_ABOVE = frozenset(place.rpartition(b"/")[0] for place in PLACES) | PLACES


def difference(upper: int, lower: Lower, owner: Owner) -> Iterator[bytes]:
    """The tar of `upper` (O_PATH) over `lower`; nothing at all where nothing was changed.

    owner: from ids of the files to those in the layer. Raises Unsupported (a name that no layer can have), OSError.
    """
    walk = _Walk(lower, owner)
    yield from walk.below(upper)
    if walk.begun:
        yield END


class _Folder:
    """An open directory that is being walked. `held`: its header, until something in it needs it."""

    def __init__(self, fd: int, path: bytes, held: bytes, fresh: bool) -> None:
        self.fd, self.names = listed(fd)
        self.path, self.held, self.fresh = path, held, fresh


class _Walk:
    def __init__(self, lower: Lower, owner: Owner) -> None:
        self._lower, self._owner = lower, owner
        self._seen: dict[tuple[int, int], bytes] = {}
        self.begun = False

    def below(self, upper: int) -> Iterator[bytes]:
        """The root's own header only where it differs."""
        stack: list[_Folder] = []
        try:
            head, say, fresh = self._head(upper, b"", False)
            if say:
                self.begun = True
                yield head
            stack.append(_Folder(upper, b"", b"", fresh))
            while stack:
                folder = stack[-1]
                if not folder.names:
                    os.close(stack.pop().fd)
                    continue
                yield from self._entry(stack, folder, folder.names.pop())
        finally:
            for folder in stack:
                os.close(folder.fd)

    def _entry(self, stack: list[_Folder], folder: _Folder, name: bytes) -> Iterator[bytes]:
        path = folder.path + b"/" + name if folder.path else name
        if name.startswith(_HIDE):
            cause = f"{os.fsdecode(path)[:200]!r} would be a whiteout in it"
            raise Unsupported("make a layer", cause, "remove or rename that file")
        try:
            fd = os.open(name, _PLACE, dir_fd=folder.fd)
        except FileNotFoundError:
            return  # it was removed meanwhile
        try:
            status = os.fstat(fd)
            if S_ISDIR(status.st_mode):
                head, say, fresh = self._head(fd, path, folder.fresh)
                stack.append(_Folder(fd, path, b"" if say else head, fresh))
                if say:
                    yield from self._said(stack[:-1], head)
            elif is_whiteout(status):
                if not folder.fresh and self._lower.find(path) is not None:
                    yield from self._said(stack, _mark(folder.path, _HIDE + name))
            elif not (path in PLACES and S_ISREG(status.st_mode) and not status.st_size):
                for data in file(fd, path, status, self._owner, self._seen):
                    yield from self._said(stack, data)
        finally:
            os.close(fd)

    def _head(self, fd: int, path: bytes, fresh: bool) -> tuple[bytes, bool, bool]:
        """A directory's header, the mark of an opaque one behind it; whether it is said although nothing in it is; and
        whether nothing of the layers below is seen in it."""
        status = os.fstat(fd)
        head = directory_header(fd, path or b".", status, self._owner)
        below = None if fresh else self._lower.find(path)
        if below is None or not S_ISDIR(below.status.st_mode):
            return head, path not in PLACES and path != b"", True
        if is_opaque(fd, b"."):
            return head + _mark(path, _HIDE + _HIDE + b".opq"), True, True
        if path and path not in _ABOVE:
            return head, True, False
        owner = self._owner(status.st_uid, status.st_gid)
        same = (status.st_mode, *owner) == (below.status.st_mode, below.status.st_uid, below.status.st_gid)
        return head, not same, False

    def _said(self, stack: list[_Folder], data: bytes) -> Iterator[bytes]:
        """`data`, behind the headers of the directories that it is in."""
        self.begun = True
        for folder in stack:
            if folder.held:
                yield folder.held
                folder.held = b""
        yield data


def _mark(folder: bytes, name: bytes) -> bytes:
    path = folder + b"/" + name if folder else name
    return header(tar.Member(path, tar.FILE, 0o600, 0, 0, 0, 0, b"", 0, 0, 0, (), None))
