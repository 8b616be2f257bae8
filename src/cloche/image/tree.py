"""A host's files below a root folder: paths resolved name by name, every link on the way known, none leaving the root.

An image must have the links that its host has (/bin -> usr/bin), so the way to a file matters as the file does. Files
are opened by their resolved path without following links, so one swapped for a link meanwhile is an error. Not its
business: files of a container (openat2 resolves those). Source: path_resolution(7).
"""

from __future__ import annotations

import errno
import os
from stat import S_ISDIR, S_ISLNK

from cloche.errors import Error, Invalid, NotFound
from cloche.value import Value

_LINKS_MAX = 40  # path_resolution(7)


class Way(Value):
    """Where a path leads. `path` is absolute and without links; `crossed` are the folders and links met, in order."""

    path: str
    crossed: tuple[str, ...]


class Tree:
    """The files below `root`, as a process with that root would see them. What was seen is remembered."""

    def __init__(self, root: str = "/") -> None:
        self.root = "" if root == "/" else os.path.realpath(root)
        self._status: dict[str, os.stat_result] = {}
        self._ways: dict[str, Way] = {}

    def lstat(self, path: str) -> os.stat_result:
        """The status of a resolved path. Raises NotFound, Error."""
        status = self._status.get(path)
        if status is None:
            try:
                status = self._status[path] = os.lstat(self.root + path)
            except (OSError, ValueError) as e:
                raise _error(f"look at {path}", e) from None
        return status

    def readlink(self, path: str) -> str:
        """The text of the link at a resolved path."""
        try:
            return os.readlink(self.root + path)
        except OSError as e:
            raise _error(f"read the link {path}", e) from None

    def walk(self, path: str) -> Way:
        """Resolve an absolute path. Raises NotFound, Invalid (a loop of links), Error."""
        way = self._ways.get(path)
        if way is None:
            way = self._ways[path] = self._walk(path)
        return way

    def _walk(self, path: str) -> Way:
        pending = path.split("/")[::-1]
        here, crossed, links = "/", {}, 0
        while pending:
            name = pending.pop()
            if name in ("", "."):
                continue
            if here != "/" and not S_ISDIR(self.lstat(here).st_mode):
                raise NotFound(f"look at {path}", f"{here} is not a directory")
            if name == "..":
                here = os.path.dirname(here)
                continue
            there = f"{here.rstrip('/')}/{name}"
            crossed[there] = True
            if not S_ISLNK(self.lstat(there).st_mode):
                here = there
                continue
            links += 1
            if links > _LINKS_MAX:
                raise Invalid(f"look at {path}", errno.ELOOP)
            target = self.readlink(there)
            here = "/" if target.startswith("/") else here
            pending += target.split("/")[::-1]
        return Way(here, tuple(crossed))

    def find(self, path: str) -> Way | None:
        """Like `walk`, but None where a search goes on elsewhere: no such file, a forbidden folder, a loop of links."""
        try:
            return self.walk(path)
        except Error as e:
            if isinstance(e, NotFound) or e.errno in (errno.EACCES, errno.ELOOP):
                return None
            raise

    def open(self, path: str) -> int:
        """A descriptor of the file at a resolved path, for reading; no link is followed. Raises NotFound, Error."""
        flags = os.O_NOFOLLOW | os.O_CLOEXEC
        *folders, last = path.strip("/").split("/")
        at = -1
        try:
            at = os.open(self.root or "/", flags | os.O_PATH | os.O_DIRECTORY)
            for name in folders:
                at, before = os.open(name, flags | os.O_PATH | os.O_DIRECTORY, dir_fd=at), at
                os.close(before)
            return os.open(last or ".", flags | os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=at)
        except OSError as e:
            raise _error(f"open {path}", e) from None
        finally:
            if at >= 0:
                os.close(at)

    def read(self, path: str, limit: int) -> bytes:
        """At most `limit` first bytes of the file that `path` leads to."""
        fd = self.open(self.walk(path).path)
        try:
            with open(fd, "rb", closefd=False) as file:
                return file.read(limit)
        except OSError as e:
            raise _error(f"read {path}", e) from None
        finally:
            os.close(fd)

    def names(self, path: str) -> list[str]:
        """The names in the folder at a resolved path, sorted."""
        try:
            return sorted(os.listdir(self.root + path))
        except OSError as e:
            raise _error(f"list {path}", e) from None


def _error(what: str, e: OSError | ValueError) -> Error:
    number = e.errno if isinstance(e, OSError) else errno.EINVAL  # ValueError: a zero byte in a path
    kind = NotFound if number in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG) else Error
    return kind(what, number or "")
