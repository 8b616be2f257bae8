"""A layer's tar becomes a directory that an overlay can have below.

Layers are hostile. Every parent directory is opened by openat2(2) below the layer's root; where one is a link of this
layer, the link is followed as inside a container (RESOLVE_IN_ROOT), as Docker does it; a name is made, never opened,
at its place. Directories get owner, mode and time last, so until then none is setgid and none is read-only. Nothing
is synced: who makes several layers calls syncfs(2) once. Not its business: where layers are kept, and which there are
(see image/staging).

Whiteouts: `.wh.NAME` hides NAME of the layers below (a 0:0 character device), `.wh..wh..opq` all of them in its
directory (trusted.overlay.opaque). Neither touches what this layer itself has. Source: image-spec layer.md,
overlayfs.rst.
"""

from __future__ import annotations

import errno
import os
from contextlib import closing
from stat import S_IFBLK, S_IFCHR, S_IFIFO, S_ISDIR, S_ISLNK, S_ISREG

from cloche.errors import Error, Invalid
from cloche.kernel.filesystems import begin_writing
from cloche.kernel.paths import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
)
from cloche.storage import tar
from cloche.storage.ahead import Arriving, ahead
from cloche.storage.compression import chunks
from cloche.storage.lower import OPAQUE, Attributes, Found, Lower, is_kept, is_whiteout
from cloche.storage.trash import remove_tree
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO, Protocol

    class _Hash(Protocol):
        def update(self, data: bytes, /) -> None: ...
        def hexdigest(self) -> str: ...


_PLAIN = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
_LINKED = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LARGE = 1 << 20  # bytes from which on a file is worth a call more
_FOLDERS_MAX = 128  # open at once
_ID_MAX = (1 << 32) - 2  # -1 would say "as it is" to chown(2)
_TIME_MAX = (1 << 63) - 1
_NODES = {tar.CHARACTER: S_IFCHR, tar.BLOCK_DEVICE: S_IFBLK, tar.FIFO: S_IFIFO}
_HOSTILE = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EXDEV, errno.EMLINK)
_HIDE, _OPAQUE_MARK, _AUFS = b".wh.", b".wh..wh..opq", b".wh..wh."


class Limits(Value):
    """What one layer may unpack to: bytes of its plain tar, and entries, directories made for others counted."""

    bytes: int = 64 << 30
    entries: int = 10_000_000


class Unpacked(Value):
    """What a layer turned out to be. size: bytes in its regular files."""

    diff_id: str
    size: int
    entries: int


def unpack(
    source: BinaryIO | Arriving,
    target: str,
    lower: Sequence[str] = (),
    diff_id: str = "",
    limits: Limits = Limits(),  # noqa: B008 - a frozen value
    what: str = "unpack a layer",
) -> Unpacked:
    """Unpack the tar `source` (plain, gzip, zstd, bzip2 or xz) into the new directory `target`.

    lower: the directories of the layers below, topmost first. diff_id: the digest that the plain tar must have; empty
    for any. Raises Invalid (malformed, hostile, too large, another digest), Unsupported, Error (disk full, no
    rights); then `target` is there in parts, for the caller to remove.
    """
    from hashlib import sha256

    digest = sha256()
    interrupt = source.give_up if isinstance(source, Arriving) else lambda: None
    try:
        os.mkdir(target, 0o700)
        with (
            Lower(lower) as below,
            closing(ahead(chunks(source, what), interrupt)) as plain,
            closing(ahead(_measured(plain, limits, digest, what), interrupt)) as measured,
        ):
            unpacker = _Unpacker(target, below, limits, what)
            try:
                unpacker.run(measured)
                found = "sha256:" + digest.hexdigest()
                if diff_id and found != diff_id:
                    raise Invalid(
                        what, f"its content has the digest {found}, not {diff_id}", "it was damaged on its way"
                    )
                unpacker.finish()
            finally:
                unpacker.close()
    except OSError as e:
        raise Error(what, e.errno or str(e)) from None
    return Unpacked(found, unpacker.size, unpacker.entries)


def _measured(source: Iterator[bytes], limits: Limits, digest: _Hash, what: str) -> Iterator[bytes]:
    total = 0
    for data in source:
        total += len(data)
        if total > limits.bytes:
            raise Invalid(what, f"it unpacks to more than {limits.bytes} bytes")
        digest.update(data)
        yield data


class _Folder(Value):
    """An open directory of the layer, and its path in it without links."""

    fd: int
    path: bytes

    def at(self, name: bytes) -> bytes:
        return self.path + b"/" + name if self.path else name


class _Unpacker:
    """Unpacks one layer into the empty directory `target`."""

    def __init__(self, target: str, lower: Lower, limits: Limits, what: str) -> None:
        self.size = self.entries = 0
        self._lower, self._limits, self._what = lower, limits, what
        self._open: dict[bytes, _Folder] = {}  # by path, links and all
        self._spare: list[_Folder] = []  # to be closed before the next member: the present one may be using them
        # directories by path without links: what they get in the end, and whether they hide what is below
        self._pending: dict[bytes, tuple[Attributes, bool]] = {}
        self._hidden: set[bytes] = set()  # paths that a whiteout of this layer names
        self._root = _Folder(os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC), b"")
        self._place = os.fsencode(os.readlink(f"/proc/self/fd/{self._root.fd}"))
        self._default = Attributes(0o755, os.geteuid(), os.getegid())
        # whom new files belong to anyhow, unless the directory passes on a group of its own
        self._owner = (self._default.uid, os.getegid() if os.fstat(self._root.fd).st_gid == os.getegid() else -1)
        below = lower.find(b"")
        self._pending[b""] = (below.attributes() if below else self._default, False)

    def close(self) -> None:
        self._spare += self._open.values()
        self._open.clear()
        self._close_spare()
        os.close(self._root.fd)

    def _close_spare(self) -> None:
        while self._spare:
            os.close(self._spare.pop().fd)

    def run(self, source: Iterator[bytes]) -> None:
        """Make every member, and read the stream to its end."""
        reader = tar.TarReader(source, self._what)
        for member in reader.members():
            self._count()
            self._close_spare()
            try:
                self._make(member, reader)
            except OSError as e:
                kind = Invalid if e.errno in _HOSTILE else Error
                raise kind(f"{self._what}: write {_shown(member.name)}", e.errno or str(e)) from None
        reader.drain()

    def finish(self) -> None:
        """Give every directory its owner, mode and time: the deepest first, for who is not root."""
        for path in sorted(self._pending, key=len, reverse=True):
            attributes, opaque = self._pending[path]
            try:
                fd = openat2(self._root.fd, path or b".", os.O_RDONLY | os.O_DIRECTORY, 0, _PLAIN)
            except OSError as e:
                if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # something else took its place
                    continue
                raise
            try:
                if opaque and self._lower:
                    os.setxattr(fd, OPAQUE, b"y")
                self._give(fd, attributes)
            finally:
                os.close(fd)

    # Ways

    def _count(self) -> None:
        self.entries += 1
        if self.entries > self._limits.entries:
            raise Invalid(self._what, f"it has more than {self._limits.entries} entries")

    def _wrong(self, member: tar.Member, cause: str) -> Invalid:
        return Invalid(f"{self._what}: write {_shown(member.name)}", cause)

    def _parts(self, name: bytes, member: tar.Member) -> list[bytes]:
        """The names on a path from the root of the layer: a leading slash means nothing, `..` is refused."""
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise self._wrong(member, "a path with .. in it may lead out of the layer")
        return parts

    def _existing(self, path: bytes) -> _Folder:
        """The directory at `path`, opened. Raises OSError."""
        if not path:
            return self._root
        folder = self._open.pop(path, None)
        if folder is None:
            flags, real = os.O_PATH | os.O_DIRECTORY, path
            try:
                fd = openat2(self._root.fd, path, flags, 0, _PLAIN)
            except OSError as e:
                if e.errno != errno.ELOOP:
                    raise
                fd = openat2(self._root.fd, path, flags, 0, _LINKED)
                real = os.fsencode(os.readlink(f"/proc/self/fd/{fd}"))[len(self._place) + 1 :]
            folder = _Folder(fd, real)
            if len(self._open) >= _FOLDERS_MAX:
                self._spare.append(self._open.pop(next(iter(self._open))))
        self._open[path] = folder  # as the last: the first is the one not used for longest
        return folder

    def _enter(self, path: bytes) -> _Folder:
        """The directory at `path`; what is missing of it is made, and looks as it does in the layers below."""
        try:
            return self._existing(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        folder, way = self._root, b""
        for name in path.split(b"/"):
            way = way + b"/" + name if way else name
            try:
                folder = self._existing(way)
            except (FileNotFoundError, NotADirectoryError):
                self._make_parent(folder, name)
                folder = self._existing(way)
        return folder

    def _make_parent(self, folder: _Folder, name: bytes) -> None:
        self._count()
        path = folder.at(name)
        try:
            os.mkdir(name, 0o700, dir_fd=folder.fd)
        except FileExistsError:
            if not is_whiteout(os.stat(name, dir_fd=folder.fd, follow_symlinks=False)):
                raise NotADirectoryError(errno.ENOTDIR, "not a directory") from None
            os.unlink(name, dir_fd=folder.fd)
            os.mkdir(name, 0o700, dir_fd=folder.fd)
        hidden = path in self._hidden
        below = None if hidden else self._lower.find(path)
        if below is not None and S_ISDIR(below.status.st_mode):
            self._pending[path] = (below.attributes(), False)
        else:
            self._pending[path] = (self._default, hidden)

    def _remove(self, folder: _Folder, name: bytes) -> None:
        """Make room for an entry that replaces what this layer had there."""
        path = folder.at(name)
        for key, each in list(self._open.items()):
            # what stood below it; and what was reached by links, of which this may have been one
            if each.path == path or each.path.startswith(path + b"/") or key != each.path:
                self._spare.append(self._open.pop(key))
        if S_ISDIR(os.stat(name, dir_fd=folder.fd, follow_symlinks=False).st_mode):
            remove_tree(folder.fd, name)
        else:
            os.unlink(name, dir_fd=folder.fd)

    # Members

    def _make(self, member: tar.Member, reader: tar.TarReader) -> None:
        parts = self._parts(member.name, member)
        if not parts:
            if member.kind != tar.DIRECTORY:
                raise self._wrong(member, "the root of a layer is a directory")
            self._pending[b""] = (self._attributes(member), self._pending[b""][1])
            return
        if any(part.startswith(_HIDE) for part in parts):
            self._mark(parts, member)
            return
        folder = self._enter(b"/".join(parts[:-1]))
        name, kind = parts[-1], member.kind
        if kind == tar.FILE:
            self._file(folder, name, member, reader)
        elif kind == tar.DIRECTORY:
            self._directory(folder, name, self._attributes(member))
        elif kind == tar.SYMLINK:
            self._symlink(folder, name, member.target, self._attributes(member))
        elif kind == tar.LINK:
            self._link(folder, name, member)
        elif kind == tar.CHARACTER and member.major == member.minor == 0:
            self._whiteout(folder, name)  # it would be one anyhow
        elif kind in _NODES:
            if not (0 <= member.major < 1 << 12 and 0 <= member.minor < 1 << 20):
                raise self._wrong(member, f"there is no device {member.major}:{member.minor}")
            self._node(folder, name, _NODES[kind], os.makedev(member.major, member.minor), self._attributes(member))
        else:
            raise self._wrong(member, f"it is of the unknown type {chr(kind)!r}")

    def _attributes(self, member: tar.Member) -> Attributes:
        if not (0 <= member.uid <= _ID_MAX and 0 <= member.gid <= _ID_MAX):
            raise self._wrong(member, f"there is no owner {member.uid}:{member.gid}")
        mtime = member.mtime if 0 <= member.mtime <= _TIME_MAX else 0
        return Attributes(member.mode & 0o7777, member.uid, member.gid, mtime, member.xattrs)

    def _give(self, fd: int, attributes: Attributes, regular: bool = False) -> None:
        """Owner first: chown(2) takes setuid bits and capabilities away."""
        if (attributes.uid, attributes.gid) != self._owner:
            os.fchown(fd, attributes.uid, attributes.gid)
        os.fchmod(fd, attributes.mode)
        for name, value in attributes.xattrs:
            if is_kept(name) and (regular or name.startswith("user.")):
                os.setxattr(fd, name, value)
        if attributes.mtime is not None:
            os.utime(fd, ns=(attributes.mtime, attributes.mtime))

    def _file(self, folder: _Folder, name: bytes, member: tar.Member, reader: tar.TarReader) -> None:
        attributes = self._attributes(member)
        fd = self._new(folder, name)
        try:
            if member.sparse is None:
                for data in reader.payload():
                    _write(fd, data)
            else:
                _write_sparse(fd, member, reader)
            if member.size >= _LARGE:
                begin_writing(fd)
            self._give(fd, attributes, regular=True)
        finally:
            os.close(fd)
        self.size += member.size

    def _new(self, folder: _Folder, name: bytes) -> int:
        try:
            return os.open(name, _NEW, 0o600, dir_fd=folder.fd)
        except FileExistsError:
            self._remove(folder, name)
            return os.open(name, _NEW, 0o600, dir_fd=folder.fd)

    def _directory(self, folder: _Folder, name: bytes, attributes: Attributes) -> None:
        path = folder.at(name)
        try:
            os.mkdir(name, 0o700, dir_fd=folder.fd)
        except FileExistsError:
            if S_ISDIR(os.stat(name, dir_fd=folder.fd, follow_symlinks=False).st_mode):
                self._pending[path] = (attributes, self._pending[path][1])
                return
            self._remove(folder, name)
            os.mkdir(name, 0o700, dir_fd=folder.fd)
        self._pending[path] = (attributes, path in self._hidden)

    def _symlink(self, folder: _Folder, name: bytes, target: bytes, attributes: Attributes) -> None:
        try:
            os.symlink(target, name, dir_fd=folder.fd)
        except FileExistsError:
            self._remove(folder, name)
            os.symlink(target, name, dir_fd=folder.fd)
        self._give_by_name(folder, name, attributes)

    def _node(self, folder: _Folder, name: bytes, kind: int, device: int, attributes: Attributes) -> None:
        try:
            os.mknod(name, kind | 0o600, device, dir_fd=folder.fd)
        except FileExistsError:
            self._remove(folder, name)
            os.mknod(name, kind | 0o600, device, dir_fd=folder.fd)
        self._give_by_name(folder, name, attributes, attributes.mode)

    def _give_by_name(self, folder: _Folder, name: bytes, attributes: Attributes, mode: int | None = None) -> None:
        """For what cannot be opened. Nobody else writes here, so the name is still what was just made."""
        if (attributes.uid, attributes.gid) != self._owner:
            os.chown(name, attributes.uid, attributes.gid, dir_fd=folder.fd, follow_symlinks=False)
        if mode is not None:
            os.chmod(name, mode, dir_fd=folder.fd)
        times = (attributes.mtime or 0, attributes.mtime or 0)
        os.utime(name, ns=times, dir_fd=folder.fd, follow_symlinks=False)

    # Hard links

    def _link(self, folder: _Folder, name: bytes, member: tar.Member) -> None:
        parts = self._parts(member.target, member)
        if not parts:
            raise self._wrong(member, "a hard link to a directory")
        source = self._link_source(parts, member)
        if source.at(parts[-1]) == folder.at(name):
            return
        ways = {"src_dir_fd": source.fd, "dst_dir_fd": folder.fd}
        try:
            os.link(parts[-1], name, **ways, follow_symlinks=False)
        except FileExistsError:
            self._remove(folder, name)
            os.link(parts[-1], name, **ways, follow_symlinks=False)

    def _link_source(self, parts: list[bytes], member: tar.Member) -> _Folder:
        """The directory that has the file to link to; one that only a lower layer has is copied into this one first."""
        parent = b"/".join(parts[:-1])
        try:
            folder = self._existing(parent)
            status = os.stat(parts[-1], dir_fd=folder.fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            below = self._lower.find(b"/".join(parts))
            if below is None or S_ISDIR(below.status.st_mode):
                raise self._wrong(member, f"a hard link to {_shown(member.target)}, which is no file") from None
            folder = self._enter(parent)
            self._copy(below, folder, parts[-1])
            return folder
        if S_ISDIR(status.st_mode) or is_whiteout(status):
            raise self._wrong(member, f"a hard link to {_shown(member.target)}, which is no file")
        return folder

    def _copy(self, below: Found, folder: _Folder, name: bytes) -> None:
        self._count()
        attributes, status = below.attributes(), below.status
        if S_ISLNK(status.st_mode):
            self._symlink(folder, name, os.readlink(below.path, dir_fd=below.layer), attributes)
        elif not S_ISREG(status.st_mode):
            self._node(folder, name, status.st_mode & 0o170000, status.st_rdev, attributes)
        else:
            self.size += status.st_size
            if self.size > self._limits.bytes:
                raise Invalid(self._what, f"it unpacks to more than {self._limits.bytes} bytes")
            source = os.open(below.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=below.layer)
            try:
                fd = self._new(folder, name)
                try:
                    while os.sendfile(fd, source, None, 1 << 30):
                        pass
                    self._give(fd, attributes, regular=True)
                finally:
                    os.close(fd)
            finally:
                os.close(source)

    # Whiteouts

    def _mark(self, parts: list[bytes], member: tar.Member) -> None:
        """A whiteout; or what an aufs kept for itself, which layers of 2013 have and which says nothing."""
        *way, name = parts
        if any(part.startswith(_AUFS) and part != _OPAQUE_MARK for part in parts):
            return
        if any(part.startswith(_HIDE) for part in way):
            raise self._wrong(member, "a whiteout is no directory")
        hidden = name[len(_HIDE) :]
        if hidden in (b"", b".", b".."):
            raise self._wrong(member, "a whiteout of nothing")
        folder = self._enter(b"/".join(way))
        if name == _OPAQUE_MARK:
            self._pending[folder.path] = (self._pending[folder.path][0], True)
        else:
            self._whiteout(folder, hidden)

    def _whiteout(self, folder: _Folder, name: bytes) -> None:
        """Hide what the layers below have at that name, unless they have nothing: then the mark itself might be
        seen."""
        path = folder.at(name)
        self._hidden.add(path)
        try:
            status = os.stat(name, dir_fd=folder.fd, follow_symlinks=False)
        except FileNotFoundError:
            if self._lower.find(path) is not None:
                os.mknod(name, S_IFCHR, 0, dir_fd=folder.fd)
            return
        if S_ISDIR(status.st_mode):
            self._pending[path] = (self._pending[path][0], True)


def _shown(name: bytes) -> str:
    text = os.fsdecode(name)
    return text if len(text) <= 200 else text[:200] + "..."


def _write(fd: int, data: memoryview) -> None:
    written = os.write(fd, data)
    while written < len(data):
        data = data[written:]
        written = os.write(fd, data)


def _write_sparse(fd: int, member: tar.Member, reader: tar.TarReader) -> None:
    """Pieces at their offsets; what is between them are holes."""
    os.ftruncate(fd, member.length)
    pieces = iter(member.sparse or ())
    offset = left = 0
    for view in reader.payload():
        data = view
        while data:
            while not left:
                offset, left = next(pieces)
            count = os.pwrite(fd, data[:left], offset)
            data, offset, left = data[count:], offset + count, left - count
