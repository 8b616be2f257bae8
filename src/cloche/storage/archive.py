"""A file or a tree as a tar stream (pax where ustar has no room), from descriptors: nothing is opened twice by name.

The tree may be a stranger's, who changes it meanwhile: links are not followed, devices and pipes are not opened,
sockets are left out, a file is as long as it was when it was looked at.
"""

from __future__ import annotations

import os
from stat import S_IFMT, S_ISBLK, S_ISCHR, S_ISDIR, S_ISLNK, S_ISREG, S_ISSOCK

from cloche.storage import tar
from cloche.storage.lower import CAPABILITY, is_kept

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PIECE = 1 << 20
_PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    0o100000: tar.FILE,
    0o040000: tar.DIRECTORY,
    0o120000: tar.SYMLINK,
    0o020000: tar.CHARACTER,
    0o060000: tar.BLOCK_DEVICE,
    0o010000: tar.FIFO,
}
END = bytes(2 * tar.BLOCK)


def header(member: tar.Member) -> bytes:
    """A member's header, with a pax header before it for what does not fit."""
    extra: list[tuple[bytes, bytes]] = []
    name, target = member.name, member.target
    if len(name) > 100 or not name.isascii():
        extra.append((b"path", name))
    if len(target) > 100 or not target.isascii():
        extra.append((b"linkpath", target))
    seconds, rest = divmod(member.mtime, 10**9)
    if rest or not 0 <= seconds < 8**11:
        extra.append((b"mtime", b"%d.%09d" % (seconds, rest) if seconds >= 0 else b"%d" % seconds))
    for key, number, most in ((b"uid", member.uid, 8**7), (b"gid", member.gid, 8**7), (b"size", member.size, 8**11)):
        if number >= most:
            extra.append((key, b"%d" % number))
    extra += [(b"SCHILY.xattr." + os.fsencode(key), value) for key, value in member.xattrs]
    before = b""
    if extra:
        data = b"".join(_record(key, value) for key, value in extra)
        before = _block(b"PaxHeaders/" + name.rpartition(b"/")[2][:80], ord("x"), 0o644, 0, 0, len(data), 0, b"", 0, 0)
        before += data + bytes(-len(data) % tar.BLOCK)
    return before + _block(
        name,
        member.kind,
        member.mode,
        member.uid,
        member.gid,
        member.size,
        seconds,
        target,
        member.major,
        member.minor,
    )


def _record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    size = len(rest) + 1
    while len(b"%d" % size) + len(rest) != size:
        size = len(b"%d" % size) + len(rest)
    return b"%d" % size + rest


def _octal(number: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, number if 0 <= number < 8 ** (width - 1) else 0)


def _block(
    name: bytes, kind: int, mode: int, uid: int, gid: int, size: int, mtime: int, target: bytes, major: int, minor: int
) -> bytes:
    numbers = _octal(mode & 0o7777, 8) + _octal(uid, 8) + _octal(gid, 8) + _octal(size, 12) + _octal(mtime, 12)
    front = name[:100].ljust(100, b"\0") + numbers
    back = bytes([kind]) + target[:100].ljust(100, b"\0") + b"ustar\x0000" + bytes(64)
    back += _octal(major, 8) + _octal(minor, 8) + bytes(167)
    total = sum(front) + sum(back) + 8 * 32
    return front + b"%06o\0 " % total + back


def archive(
    source: int,
    name: bytes,
    owner: Callable[[int, int], tuple[int, int]],
    seen: dict[tuple[int, int], bytes] | None = None,
) -> Iterator[bytes]:
    """What `source` (O_PATH) is open at, as the member `name` and, of a directory, all below it; no end mark.

    name: b"" is for the contents of a directory alone. owner: from ids of the files to those in the archive. seen:
    files that have several names, by device and inode. Raises OSError.
    """
    seen = {} if seen is None else seen
    status = os.fstat(source)
    if not S_ISDIR(status.st_mode):
        yield from file(source, name, status, owner, seen)
        return
    yield directory_header(source, name or b".", status, owner)
    stack = [(listed(source), name)]
    try:
        while stack:
            (folder, names), above = stack[-1]
            if not names:
                os.close(stack.pop()[0][0])
                continue
            each = names.pop()
            path = above + b"/" + each if above else each
            try:
                fd = os.open(each, _PLACE, dir_fd=folder)
            except FileNotFoundError:
                continue  # it was removed meanwhile
            try:
                status = os.fstat(fd)
                if S_ISDIR(status.st_mode):
                    yield directory_header(fd, path, status, owner)
                    stack.append((listed(fd), path))
                else:
                    yield from file(fd, path, status, owner, seen)
            finally:
                os.close(fd)
    finally:
        for (folder, _), _ in stack:
            os.close(folder)


def listed(fd: int) -> tuple[int, list[bytes]]:
    """The directory at `fd` (O_PATH), open for reading, and its names, the last one first. Raises OSError."""
    folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    return folder, sorted((os.fsencode(n) for n in os.listdir(folder)), reverse=True)


def _member(
    name: bytes, status: os.stat_result, owner: Callable[[int, int], tuple[int, int]], kind: int, size: int = 0
) -> tar.Member:
    uid, gid = owner(status.st_uid, status.st_gid)
    major = minor = 0
    if S_ISCHR(status.st_mode) or S_ISBLK(status.st_mode):
        major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    mode = status.st_mode & 0o7777
    return tar.Member(name, kind, mode, uid, gid, status.st_mtime_ns, size, b"", major, minor, size, (), None)


def _xattrs(fd: int, owner: Callable[[int, int], tuple[int, int]]) -> tuple[tuple[str, bytes], ...]:
    path = f"/proc/self/fd/{fd}"
    try:
        found = [(name, os.getxattr(path, name)) for name in os.listxattr(path) if is_kept(name)]
    except OSError:  # a file system without them
        return ()
    return tuple((name, _inside(value, owner) if name == CAPABILITY else value) for name, value in sorted(found))


def _inside(capability: bytes, owner: Callable[[int, int], tuple[int, int]]) -> bytes:
    """File capabilities without the user namespace that they were given in, where its root is root in the archive.

    Version 3 has the id of that root behind what version 2 is. Source: capabilities(7), linux/capability.h.
    """
    if len(capability) == 24 and capability[3] == 3:
        root = int.from_bytes(capability[20:], "little")
        if owner(root, root)[0] == 0:
            return capability[:3] + b"\2" + capability[4:20]
    return capability


def directory_header(
    fd: int, name: bytes, status: os.stat_result, owner: Callable[[int, int], tuple[int, int]]
) -> bytes:
    """The member of a directory alone. Raises OSError."""
    return header(_member(name + b"/", status, owner, tar.DIRECTORY).replace(xattrs=_xattrs(fd, owner)))


def file(
    fd: int,
    name: bytes,
    status: os.stat_result,
    owner: Callable[[int, int], tuple[int, int]],
    seen: dict[tuple[int, int], bytes],
) -> Iterator[bytes]:
    """Anything but a directory, with its content; a second name of one that was `seen` is a link. Raises OSError."""
    if S_ISSOCK(status.st_mode):
        return
    key = status.st_dev, status.st_ino
    if status.st_nlink > 1:
        if key in seen:
            yield header(_member(name, status, owner, tar.LINK).replace(target=seen[key]))
            return
        seen[key] = name
    made = _member(name, status, owner, _KINDS[S_IFMT(status.st_mode)])
    if S_ISLNK(status.st_mode):
        yield header(made.replace(target=os.readlink(b"", dir_fd=fd)))
    elif not S_ISREG(status.st_mode):
        yield header(made)
    else:
        yield header(made.replace(size=status.st_size, xattrs=_xattrs(fd, owner)))
        yield from _content(fd, status.st_size)


def _content(fd: int, size: int) -> Iterator[bytes]:
    """Exactly so many bytes: what was cut off meanwhile is zeros, what was added is left out."""
    reading = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    left = size
    try:
        while left:
            data = os.read(reading, min(left, _PIECE)) or bytes(min(left, _PIECE))
            left -= len(data)
            yield data
    finally:
        os.close(reading)
    if size % tar.BLOCK:
        yield bytes(-size % tar.BLOCK)
