"""A tar stream into a directory that exists and that strangers may be writing to at this moment.

Every parent is opened by openat2(2) below the directory, without following links; a name is made, never opened, at
its place; what is there is removed first, but a directory is never replaced by a file or a file by a directory.
"""

from __future__ import annotations

import errno
import os
from stat import S_IFBLK, S_IFCHR, S_IFIFO, S_ISDIR

from cloche.errors import Error, Invalid
from cloche.kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2
from cloche.storage import tar
from cloche.storage.lower import is_kept

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Owner = Callable[[int, int], tuple[int, int]]

_PLAIN = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NODES = {tar.CHARACTER: S_IFCHR, tar.BLOCK_DEVICE: S_IFBLK, tar.FIFO: S_IFIFO}
_ID_MAX = (1 << 32) - 2
_TIME_MAX = (1 << 63) - 1


class Extraction:
    """One stream into the directory `target` (O_PATH).

    owner: from the archive's ids to those that files get. trusted: keep setuid bits, capabilities and device nodes.
    """

    def __init__(self, target: int, owner: Owner, trusted: bool, what: str) -> None:
        self._target, self._owner, self._trusted, self._what = target, owner, trusted, what
        self._times: list[tuple[bytes, tar.Member]] = []

    def run(self, chunks: Iterator[bytes]) -> None:
        """Make every member. Raises Invalid (malformed, hostile), Error."""
        reader = tar.TarReader(chunks, self._what)
        for member in reader.members():
            try:
                self._make(member, reader)
            except OSError as error:
                raise Error(f"{self._what}: write {os.fsdecode(member.name)[:200]}", error.errno or 5) from error
        reader.drain()
        for path, member in reversed(self._times):
            self._settle(path, member)

    def _settle(self, path: bytes, member: tar.Member) -> None:
        try:
            fd = openat2(self._target, path or b".", os.O_RDONLY | os.O_DIRECTORY, 0, _PLAIN)
        except OSError:
            return  # somebody has put something else there
        try:
            self._give(fd, member)
        except OSError as error:
            raise Error(f"{self._what}: write {os.fsdecode(member.name)[:200]}", error.errno or 5) from error
        finally:
            os.close(fd)

    def _wrong(self, member: tar.Member, cause: str) -> Invalid:
        return Invalid(f"{self._what}: write {os.fsdecode(member.name)[:200]}", cause)

    def _parts(self, name: bytes, member: tar.Member) -> list[bytes]:
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise self._wrong(member, "a path with .. in it may lead out of the destination")
        return parts

    def _parent(self, parts: list[bytes]) -> int:
        """The directory of these names, made where it is missing."""
        path = b"/".join(parts) or b"."
        try:
            return openat2(self._target, path, _FOLDER, 0, _PLAIN)
        except FileNotFoundError:
            above = self._parent(parts[:-1])
            try:
                os.mkdir(parts[-1], 0o755, dir_fd=above)
                os.chown(parts[-1], *self._owner(0, 0), dir_fd=above, follow_symlinks=False)
            except FileExistsError:
                pass
            finally:
                os.close(above)
            return openat2(self._target, path, _FOLDER, 0, _PLAIN)

    def _make(self, member: tar.Member, reader: tar.TarReader) -> None:
        parts = self._parts(member.name, member)
        if not (0 <= member.uid <= _ID_MAX and 0 <= member.gid <= _ID_MAX):
            raise self._wrong(member, f"there is no owner {member.uid}:{member.gid}")
        if not parts:
            if member.kind != tar.DIRECTORY:
                raise self._wrong(member, "it has no name")
            return
        folder = self._parent(parts[:-1])
        try:
            self._clear(folder, parts[-1], member)
            if member.kind == tar.DIRECTORY:
                self._directory(folder, parts, member)
            elif member.kind == tar.FILE:
                self._file(folder, parts[-1], member, reader)
            elif member.kind == tar.LINK:
                self._link(folder, parts[-1], member)
            elif member.kind == tar.SYMLINK:
                os.symlink(member.target, parts[-1], dir_fd=folder)
                self._give_by_name(folder, parts[-1], member)
            else:
                self._node(folder, parts[-1], member)
        finally:
            os.close(folder)

    def _clear(self, folder: int, name: bytes, member: tar.Member) -> None:
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        if S_ISDIR(status.st_mode) != (member.kind == tar.DIRECTORY):
            first, second = (
                ("directory", "non-directory") if S_ISDIR(status.st_mode) else ("non-directory", "directory")
            )
            raise self._wrong(member, f"cannot overwrite {first} with {second}")
        if not S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=folder)

    def _directory(self, folder: int, parts: list[bytes], member: tar.Member) -> None:
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=folder)
        except FileExistsError:
            pass
        self._times.append((b"/".join(parts), member))

    def _file(self, folder: int, name: bytes, member: tar.Member, reader: tar.TarReader) -> None:
        fd = os.open(name, _NEW, 0o600, dir_fd=folder)
        try:
            if member.sparse is None:
                for data in reader.payload():
                    _write(fd, data)
            else:
                self._sparse(fd, member, reader)
            self._give(fd, member)
        except BaseException:
            try:
                os.unlink(name, dir_fd=folder)  # half a file is worse than none
            except OSError:
                pass
            raise
        finally:
            os.close(fd)

    def _sparse(self, fd: int, member: tar.Member, reader: tar.TarReader) -> None:
        os.ftruncate(fd, member.length)
        data = bytearray()
        pieces = list(member.sparse or ())
        for view in reader.payload():
            data += view
            while pieces and data:
                offset, left = pieces[0]
                count = os.pwrite(fd, data[:left], offset)
                del data[:count]
                pieces[0] = (offset + count, left - count)
                if not pieces[0][1]:
                    pieces.pop(0)

    def _link(self, folder: int, name: bytes, member: tar.Member) -> None:
        parts = self._parts(member.target, member)
        try:
            fd = openat2(self._target, b"/".join(parts) or b".", os.O_PATH | os.O_NOFOLLOW, 0, _PLAIN)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP, errno.EXDEV, errno.ENOTDIR):
                raise
            raise self._wrong(member, f"a hard link to {os.fsdecode(member.target)[:200]}, which is no file") from None
        try:
            os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(fd)

    def _node(self, folder: int, name: bytes, member: tar.Member) -> None:
        if member.kind not in _NODES:
            raise self._wrong(member, f"it is of the unknown type {chr(member.kind)!r}")
        if member.kind != tar.FIFO and not self._trusted:
            raise self._wrong(member, "a device node of a container is not made on the host")
        if not (0 <= member.major < 1 << 12 and 0 <= member.minor < 1 << 20):
            raise self._wrong(member, f"there is no device {member.major}:{member.minor}")
        device = os.makedev(member.major, member.minor)
        os.mknod(name, _NODES[member.kind] | 0o600, device, dir_fd=folder)
        self._give_by_name(folder, name, member)

    def _mode(self, member: tar.Member) -> int:
        return member.mode & (0o7777 if self._trusted else 0o1777)

    def _give(self, fd: int, member: tar.Member) -> None:
        """Owner first: chown(2) takes setuid bits and capabilities away."""
        os.fchown(fd, *self._owner(member.uid, member.gid))
        os.fchmod(fd, self._mode(member))
        for key, value in member.xattrs:
            if is_kept(key) and (self._trusted or key.startswith("user.")):
                try:
                    os.setxattr(fd, key, value)
                except OSError as error:
                    if error.errno != errno.ENOTSUP:
                        raise
        time = member.mtime if 0 <= member.mtime <= _TIME_MAX else 0
        os.utime(fd, ns=(time, time))

    def _give_by_name(self, folder: int, name: bytes, member: tar.Member) -> None:
        """For what cannot be opened; a link's owner matters to nobody, of all else a descriptor says which it is."""
        owner = self._owner(member.uid, member.gid)
        if member.kind == tar.SYMLINK:
            os.chown(name, *owner, dir_fd=folder, follow_symlinks=False)
            return
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            os.chown(f"/proc/self/fd/{fd}", *owner)
            os.chmod(f"/proc/self/fd/{fd}", self._mode(member))
        finally:
            os.close(fd)


def _write(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]
