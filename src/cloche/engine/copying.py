"""cp: files between the host and a container, or as a tar stream; Docker's rules for paths that end with `/` and `/.`.

Both sides are tar streams, made from descriptors and unpacked below one: whatever a container does to its links while
files are copied, nothing outside of the two places is read or written. export is the same of a whole root.
"""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISLNK

from cloche.engine.database import RUNNING
from cloche.engine.inside import Root, host, root_of
from cloche.errors import Error, Invalid, NotFound
from cloche.storage.archive import END, archive
from cloche.storage.extraction import Extraction
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.engine.containers import Container, Engine

_LINKS = 40  # path_resolution(7): followed on one path
_NAME_MOST = 1 << 12


class Source(Value):
    """What is copied: open by O_PATH, its name, whether it is a directory, and of that only the contents."""

    fd: int
    name: str
    directory: bool
    contents: bool


class Target(Value):
    """Where to: a directory, open by O_PATH, and the name in it; "" for what is there to be put into the directory."""

    fd: int
    name: str


def _is_directory_path(path: str) -> bool:
    return path.endswith(("/", "/.", "/..")) or path in ("", ".", "..")


def source(root: Root, path: str, what: str, follow: bool = False) -> Source:
    """What is at `path`. Raises NotFound, Error. The caller closes its descriptor."""
    wants = _is_directory_path(path)
    try:
        fd = root.open(path, 0 if follow or wants else os.O_NOFOLLOW)
        status = os.fstat(fd)
    except OSError as error:
        raise _refused(what, path, error) from error
    if wants and not S_ISDIR(status.st_mode):
        os.close(fd)
        raise Error(f"{what}: open {path}", 20)
    contents = path.endswith("/.") or path in (".", "")
    name = path.rstrip("/").rpartition("/")[2]
    return Source(fd, name, S_ISDIR(status.st_mode), contents or name in ("", ".", ".."))


def target(root: Root, path: str, found: Source | None, what: str) -> Target:
    """Where what was `found` goes (None: an archive, which goes into a directory). Raises NotFound, Invalid, Error."""
    try:
        fd = root.open(path)
    except FileNotFoundError:
        return _new(root, path, found, what)
    except OSError as error:
        raise _refused(what, path, error) from error
    if S_ISDIR(os.fstat(fd).st_mode):
        return Target(fd, "" if found is None or found.contents else found.name)
    os.close(fd)
    if found is None or found.directory:
        cause = "cannot copy a directory to a file" if found else "it is not a directory"
        raise Invalid(f"{what}: write {path}", cause, "name a directory")
    if _is_directory_path(path):
        raise Error(f"{what}: open {path}", 20)
    return _parent(root, path, what)


def _new(root: Root, path: str, found: Source | None, what: str) -> Target:
    if found is None or (_is_directory_path(path) and not found.directory):
        raise NotFound(f"{what}: write {path}", "destination directory must exist", "make it before")
    return _parent(root, path.rstrip("/").removesuffix("/."), what)


def _parent(root: Root, path: str, what: str) -> Target:
    """The directory that has, or shall have, what `path` comes to when its last link has been followed."""
    for _ in range(_LINKS):
        above, _, name = path.rstrip("/").rpartition("/")
        try:
            fd = root.open((above or "/") if path.startswith("/") else above or ".")
        except OSError as error:
            raise _refused(what, above or "/", error) from error
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return Target(fd, name)
        except OSError as error:
            os.close(fd)
            raise _refused(what, path, error) from error
        if not S_ISLNK(status.st_mode):
            return Target(fd, name)
        try:
            link = os.readlink(name, dir_fd=fd)
        finally:
            os.close(fd)
        path = link if link.startswith("/") else f"{above}/{link}"
        if len(path) > _NAME_MOST:
            break
    raise Error(f"{what}: open {path[:200]}", 40)


def _refused(what: str, path: str, error: OSError) -> Error:
    if error.errno == 2:
        return NotFound(f"{what}: open {path}", 2)
    return Error(f"{what}: open {path}", error.errno or 5)


def _absolute(path: str) -> str:
    """As a path of the host is meant: from the caller's directory. What it ends with stays."""
    return path if path.startswith("/") else os.getcwd().rstrip("/") + "/" + path


def _inside(path: str) -> str:
    return "/" + path.lstrip("/")


def read(engine: Engine, container: Container, path: str, follow: bool = False) -> Iterator[bytes]:
    """A file or directory of a container as a tar stream, with the owners it has inside. Raises NotFound, Error."""
    what = f"copy from container {container.name}"
    with root_of(engine, container) as root:
        found = source(root, _inside(path), what, follow)
        try:
            name = "" if found.contents else found.name
            yield from archive(found.fd, os.fsencode(name), root.inside)
            yield END
        except OSError as error:
            raise Error(f"{what}: read {path}", error.errno or 5) from error
        finally:
            os.close(found.fd)


def copy_out(
    engine: Engine, container: Container, path: str, destination: str, follow: bool = False, keep: bool = False
) -> None:
    """Copy `path` of a container to a path of the host. keep: owners as they are inside. Raises NotFound, Error."""
    what = f"copy from container {container.name}"
    mine = os.geteuid(), os.getegid()
    with root_of(engine, container) as root, host() as outer:
        found = source(root, _inside(path), what, follow)
        try:
            place = target(outer, _absolute(destination), found, what)
            try:
                name = os.fsencode(place.name)
                chunks = _whole(archive(found.fd, name, root.inside), what)
                Extraction(place.fd, (lambda u, g: (u, g)) if keep else (lambda u, g: mine), keep, what).run(chunks)
            finally:
                os.close(place.fd)
        finally:
            os.close(found.fd)


def copy_in(
    engine: Engine, container: Container, path: str, destination: str, follow: bool = False, keep: bool = False
) -> None:
    """Copy a path of the host to `destination` in a container. Without `keep` its root owns them. Raises NotFound,
    Error."""
    what = f"copy to container {container.name}"
    with root_of(engine, container) as root, host() as outer:
        found = source(outer, _absolute(path), what, follow)
        try:
            place = target(root, _inside(destination), found, what)
            try:
                _check_writable(container, what)
                name = os.fsencode(place.name)
                chunks = _whole(archive(found.fd, name, lambda u, g: (u, g)), what)
                owner = root.outside if keep else (lambda u, g: root.outside(0, 0))
                Extraction(place.fd, owner, True, what).run(chunks)
            finally:
                os.close(place.fd)
        finally:
            os.close(found.fd)


def write(engine: Engine, container: Container, chunks: Iterator[bytes], destination: str) -> None:
    """Unpack a tar stream, with the owners it says, in a directory of a container. Raises NotFound, Invalid, Error."""
    what = f"copy to container {container.name}"
    with root_of(engine, container) as root:
        place = target(root, _inside(destination), None, what)
        try:
            _check_writable(container, what)
            Extraction(place.fd, root.outside, True, what).run(chunks)
        finally:
            os.close(place.fd)


def _check_writable(container: Container, what: str) -> None:
    """The root of one that runs is read-only to us too; of one that does not, nobody else would say so."""
    if container.status != RUNNING and container.config.request.files.read_only:
        raise Error(what, "container rootfs is marked read-only", "copy to a mount while it runs")


def _whole(chunks: Iterator[bytes], what: str) -> Iterator[bytes]:
    try:
        yield from chunks
        yield END
    except OSError as error:
        raise Error(f"{what}: read it", error.errno or 5) from error


def export(engine: Engine, container: Container) -> Iterator[bytes]:
    """All its files as a tar stream, without what is mounted in it. Raises Error."""
    with root_of(engine, container, mounts=False) as root:
        yield from _whole(archive(root.fd, b"", root.inside), f"export container {container.name}")
