"""Removal in two steps: one rename out of sight, which is all that a crash can come before or after; the files later,
in slices.

However deep a container has nested its directories, the trash is emptied with two descriptors: a directory that is
not empty is moved up into the trash itself. No link is followed and no mount point crossed (openat2(2)).
"""

from __future__ import annotations

import errno
import os
from stat import S_ISDIR

from cloche.errors import Error
from cloche.kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_FULL = (errno.ENOSPC, errno.EDQUOT)
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV


def discard(root: str, path: str) -> None:
    """Rename the file or folder `path` into the trash of the store at `root`; one that is gone already is no error.

    On a full disk, where there may be no room for one more name, it is deleted at once. Raises Error: it is a mount
    point (EBUSY), or on another file system (EXDEV).
    """
    trash = root + "/trash"
    try:
        try:
            os.rename(path, f"{trash}/{_name()}")
        except FileNotFoundError:
            if not os.path.lexists(path):
                return
            os.makedirs(trash, 0o700, exist_ok=True)
            os.rename(path, f"{trash}/{_name()}")
    except OSError as e:
        if e.errno in _FULL and os.path.isdir(path) and not os.path.islink(path):
            remove_at_once(path)
            return
        raise Error(f"remove {path}", e.errno or "") from None


def remove_at_once(path: str) -> None:
    """Delete the directory `path` with all that is in it. Raises Error."""
    try:
        folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_tree(folder, os.path.basename(path))
        finally:
            os.close(folder)
    except OSError as e:
        raise Error(f"remove {path}", e.errno or "") from None


def empty_trash(root: str, budget: int = 1 << 62, skip: Callable[[str], bool] | None = None) -> bool:
    """Delete at most `budget` entries of the trash of the store at `root`. True when there is nothing more to do.

    What cannot be deleted now, as something that is still mounted somewhere, stays there for another time, and so does
    what `skip` says of a path. Raises OSError.
    """
    try:
        trash = os.open(root + "/trash", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        stuck: set[str] = set()
        while pending := [name for name in os.listdir(trash) if name not in stuck]:
            for name in pending:
                if skip and skip(f"{root}/trash/{name}"):
                    stuck.add(name)
                    continue
                spent = _delete(trash, name, budget)
                if spent is None:
                    stuck.add(name)
                    continue
                budget -= spent
                if budget <= 0:
                    return False
        return True
    finally:
        os.close(trash)


def remove_tree(folder: int, name: bytes | str) -> None:
    """Delete the directory `name` in the directory `folder` now. Meanwhile parts of it stand beside it. Raises
    OSError."""
    _strip_here(folder, os.fsdecode(name))


def _name() -> str:
    return os.urandom(10).hex()


def _delete(trash: int, name: str, budget: int) -> int | None:
    """How many entries were deleted of one thing in the trash; None if it cannot be."""
    try:
        if not S_ISDIR(os.stat(name, dir_fd=trash, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=trash)
            return 1
        return _strip(trash, name, budget, [name])
    except FileNotFoundError:  # another process empties it too
        return 1
    except OSError as e:
        if e.errno in (errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOTEMPTY, errno.EROFS):
            return None
        raise


def _strip(folder: int, name: str, budget: int, moved: list[str]) -> int:
    """Delete a directory's entries and, within the budget, itself; its directories are moved to `folder`.

    `moved` has `name` as its last and gets the new names. Returns how many entries were dealt with.
    """
    spent = 0
    fd = openat2(folder, name, os.O_RDONLY | os.O_DIRECTORY, 0, _RESOLVE)
    try:
        fresh: list[str] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                spent += 1
                if spent > budget:
                    return spent
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=fd)
                    continue
                try:
                    os.rmdir(entry.name, dir_fd=fd)
                except OSError as e:
                    if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    if not _move(fd, entry.name, folder, fresh):
                        _strip_here(fd, entry.name)
    finally:
        os.close(fd)
    try:
        os.rmdir(name, dir_fd=folder)
        moved.pop()
    except OSError as e:
        if e.errno != errno.ENOTEMPTY:  # some file systems leave names out while a directory is changed: look again
            raise
    moved += fresh
    return spent + 1


def _move(source: int, name: str, folder: int, moved: list[str]) -> bool:
    """Move a directory to `folder` under a new name, which is added to `moved`. False: the disk is full."""
    new = _name()
    try:
        os.rename(name, new, src_dir_fd=source, dst_dir_fd=folder)
    except OSError as e:
        if e.errno in _FULL:
            return False
        raise
    moved.append(new)
    return True


def _strip_here(folder: int, name: str) -> None:
    """Delete a directory in its place, as deep as descriptors and the stack allow: the way on a full disk."""
    pending = [name]
    while pending:
        _strip(folder, pending[-1], 1 << 62, pending)
