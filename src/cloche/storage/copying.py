"""A directory copied with all that is in it: owners, modes, times, links of both kinds, special files, holes.

The source may come from a stranger. Every directory on both sides is opened by openat2(2) below its root and through
no link; a name is made, never opened, at its place. Nothing is synced. Not its business: when a copy counts as whole.
"""

from __future__ import annotations

import errno
import os
from stat import S_IMODE, S_ISDIR, S_ISLNK, S_ISREG

from cloche.kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from cloche.storage.lower import is_kept

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PLAIN = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_tree(source: int, target: int, check: Callable[[], None]) -> int:
    """Copy what is in the open directory `source` into the empty one `target`, which gets its attributes too.

    `check` is called before each entry, and may raise. Returns how many entries there were. Raises OSError.
    """
    links: dict[tuple[int, int], bytes] = {}
    folders = [b""]
    count = 0
    for path in folders:  # it grows
        here, there = (openat2(fd, path or b".", _FOLDER, 0, _PLAIN) for fd in (source, target))
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    check()
                    count += 1
                    name = os.fsencode(entry.name)
                    whole = path + b"/" + name if path else name
                    status = os.stat(name, dir_fd=here, follow_symlinks=False)
                    if S_ISDIR(status.st_mode):
                        os.mkdir(name, 0o700, dir_fd=there)
                        folders.append(whole)
                        continue
                    if status.st_nlink > 1:
                        known = links.setdefault((status.st_dev, status.st_ino), whole)
                        if known is not whole:
                            os.link(known, name, src_dir_fd=target, dst_dir_fd=there, follow_symlinks=False)
                            continue
                    _copy(here, there, name, status)
        finally:
            os.close(here)
            os.close(there)
    for path in reversed(folders):
        here, there = (openat2(fd, path or b".", _FOLDER, 0, _PLAIN) for fd in (source, target))
        try:
            give_attributes(here, there, os.fstat(here))
        finally:
            os.close(here)
            os.close(there)
    return count


def give_attributes(source: int, target: int, status: os.stat_result) -> None:
    """Owner, mode, extended attributes and time; the owner first, for chown(2) takes setuid bits and capabilities
    away."""
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, S_IMODE(status.st_mode))
    try:
        names = os.listxattr(source)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        names = []
    for name in names:
        if is_kept(name):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _copy(here: int, there: int, name: bytes, status: os.stat_result) -> None:
    """Anything but a directory."""
    if S_ISREG(status.st_mode):
        source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
        try:
            target = os.open(name, _NEW, 0o600, dir_fd=there)
            try:
                _copy_data(source, target, status.st_size)
                give_attributes(source, target, status)
            finally:
                os.close(target)
        finally:
            os.close(source)
        return
    if S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=here), name, dir_fd=there)
    else:
        os.mknod(name, status.st_mode & 0o170600, status.st_rdev, dir_fd=there)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=there, follow_symlinks=False)
    if not S_ISLNK(status.st_mode):
        os.chmod(name, S_IMODE(status.st_mode), dir_fd=there)  # nobody else writes here: it is what was just made
    os.utime(name, ns=(status.st_mtime_ns, status.st_mtime_ns), dir_fd=there, follow_symlinks=False)


def _copy_data(source: int, target: int, size: int) -> None:
    """The data; holes stay holes."""
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole to the end
                break
            raise
        end = min(os.lseek(source, at, os.SEEK_HOLE), size)
        os.lseek(target, at, os.SEEK_SET)
        while at < end:
            sent = os.sendfile(target, source, at, min(end - at, 1 << 30))
            if not sent:
                raise OSError(errno.EIO, "the file became shorter")
            at += sent
    os.ftruncate(target, size)
