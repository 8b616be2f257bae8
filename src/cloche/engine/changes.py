"""diff: what a container changed in its image's files, read from the overlay's upper directory.

A whiteout is a removal; an opaque directory hides what was below; what is above and below alike was only touched.
Source: Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISREG

from cloche.storage.difference import PLACES
from cloche.storage.lower import Lower, is_opaque, is_whiteout
from cloche.storage.overlay import layer_folder
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloche.engine.containers import Container, Engine
    from cloche.storage.lower import Found

ADDED, CHANGED, DELETED = "A", "C", "D"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Change(Value):
    """One path: kind is A, C or D (added, changed, deleted)."""

    kind: str
    path: bytes


def changes(engine: Engine, container: Container) -> list[Change]:
    """All of them, by path. Raises OSError."""
    from cloche.engine.inside import Root

    folders = [layer_folder(engine.store.root, number) for number in reversed(container.config.layers)]
    upper = os.open(engine.store.container(container.id) + "/upper", _FOLDER)
    owner = Root(-1, mapping=container.config.mapping).inside
    try:
        with Lower(folders) as lower:
            found = list(_Walk(lower, owner).below(upper, b"", False))
    finally:
        os.close(upper)
    return sorted(found, key=lambda change: change.path)


class _Walk:
    def __init__(self, lower: Lower, owner: Callable[[int, int], tuple[int, int]]) -> None:
        self._lower, self._owner = lower, owner

    def below(self, folder: int, above: bytes, fresh: bool) -> Iterator[Change]:
        """What is in an open directory of the upper side. fresh: nothing of the image is seen below it."""
        names = [os.fsencode(name) for name in os.listdir(folder)]
        for name in names:
            path = above + b"/" + name if above else name
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                continue
            before = None if fresh else self._lower.find(path)
            if is_whiteout(status):
                if before is not None:
                    yield Change(DELETED, b"/" + path)
            elif S_ISDIR(status.st_mode):
                yield from self._directory(folder, name, path, status, before)
            elif before is None:
                if not (path in PLACES and S_ISREG(status.st_mode) and not status.st_size):
                    yield Change(ADDED, b"/" + path)
            elif self._differs(status, before):
                yield Change(CHANGED, b"/" + path)

    def _directory(
        self, folder: int, name: bytes, path: bytes, status: os.stat_result, before: Found | None
    ) -> Iterator[Change]:
        try:
            fd = os.open(name, _FOLDER, dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            stood = before is not None and S_ISDIR(before.status.st_mode)
            opaque = is_opaque(fd, b".")
            inner = list(self.below(fd, path, before is None))
            if stood and opaque:
                inner += self._hidden(fd, path)
        finally:
            os.close(fd)
        if before is None:
            if inner or path not in PLACES:
                yield Change(ADDED, b"/" + path)
        elif inner or opaque or not stood or self._differs(status, before):
            yield Change(CHANGED, b"/" + path)
        yield from inner

    def _hidden(self, fd: int, path: bytes) -> Iterator[Change]:
        """What the image has in a directory that was removed and made again."""
        here = {os.fsencode(name) for name in os.listdir(fd)}
        for name in self._lower.names(path) - here:
            yield Change(DELETED, b"/" + path + b"/" + name)

    def _differs(self, status: os.stat_result, before: Found) -> bool:
        """As a layer would: kind, rights and owner; of files also size, time and device."""
        old = before.status
        if status.st_mode != old.st_mode or self._owner(status.st_uid, status.st_gid) != (old.st_uid, old.st_gid):
            return True
        if S_ISDIR(status.st_mode):
            return False
        mine, theirs = ((s.st_size, s.st_mtime_ns, s.st_rdev) for s in (status, old))
        return mine != theirs
