"""A container's files as the host may reach them: a directory that is open, in which the kernel resolves every path.

Of a running container it is its own root, with its mounts, or without them; of one that does not run, its files are
mounted in a mount namespace that nobody sees and that ends with the last descriptor.
"""

from __future__ import annotations

import os

from cloche.engine.database import RUNNING
from cloche.errors import Error
from cloche.kernel import trees
from cloche.kernel.mounts import mount
from cloche.kernel.paths import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from cloche.kernel.pidfd import open_process
from cloche.step.rootfs import Overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from cloche.engine.containers import Container, Engine
    from cloche.oci.runtime import IdMapping

_PLACE = os.O_PATH | os.O_CLOEXEC
_FOLDER = _PLACE | os.O_DIRECTORY
_MAKER = (
    "import ctypes, os; libc = ctypes.CDLL(None, use_errno=True);"
    "libc.unshare(0x10000000) == 0 or os._exit(1); os.write(1, b'1'); os.read(0, 1)"
)


class Root:
    """A directory as the root of paths; a context manager. `mapping`: whose ids those of its files are outside."""

    def __init__(self, fd: int, kept: int = -1, mapping: tuple[IdMapping, ...] = (), links: bool = False) -> None:
        self.fd, self._kept, self.mapping = fd, kept, mapping
        self._resolve = 0 if links else RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self.fd, self._kept):
            if fd >= 0:
                os.close(fd)
        self.fd = self._kept = -1

    def open(self, path: str | bytes, flags: int = 0) -> int:
        """What is at `path`, by O_PATH: nothing is read, nothing waits, no device wakes up. Raises OSError."""
        return openat2(self.fd, os.fsencode(path) or b"/", _PLACE | flags, 0, self._resolve)

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """The host's ids of an owner inside; who is nobody inside becomes its root."""
        return _shift(self.mapping, uid, True), _shift(self.mapping, gid, True)

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """The ids inside of an owner outside."""
        return _shift(self.mapping, uid, False), _shift(self.mapping, gid, False)


def _shift(mapping: tuple[IdMapping, ...], number: int, out: bool) -> int:
    if not mapping:
        return number
    for m in mapping:
        first, to = (m.container, m.host) if out else (m.host, m.container)
        if first <= number < first + m.size:
            return number - first + to
    return _shift(mapping, 0, True) if out and number else 65534


def host() -> Root:
    """The host's own files."""
    return Root(os.open("/", _FOLDER), links=True)


def root_of(engine: Engine, container: Container, mounts: bool = True) -> Root:
    """A container's root, with the mounts in it, or without. Raises Error."""
    mapping = container.config.mapping
    try:
        if container.status == RUNNING:
            try:
                return Root(_running(container, mounts), mapping=mapping)
            except ProcessLookupError:
                container = engine.find(container.id)  # it has just ended
        return Root(*_mounted(engine, container, mounts), mapping=mapping)
    except OSError as error:
        raise Error(f"open the files of container {container.name}", error.errno or 5) from error


def _running(container: Container, mounts: bool) -> int:
    pidfd = open_process(container.pid, container.start_time)
    try:
        if not mounts:
            return trees.elsewhere(lambda: trees.open_tree("/"), pidfd)
        try:
            fd = os.open(f"/proc/{container.pid}/root", _FOLDER)
        except FileNotFoundError:
            raise ProcessLookupError(3, "no such process") from None
        try:
            os.close(open_process(container.pid, container.start_time))  # looked at after opening
        except OSError:
            os.close(fd)
            raise
        return fd
    finally:
        os.close(pidfd)


def _mounted(engine: Engine, container: Container, mounts: bool) -> tuple[int, int]:
    """Its root, and the mount namespace that keeps the mounts in it."""
    from cloche.plan.mounts import overlay_data
    from cloche.storage.overlay import existing

    overlay = existing(engine.store.root, container.id, container.config.layers).mounts[0]
    assert isinstance(overlay, Overlay)
    data, place = overlay_data(overlay), engine.store.run + "/mnt/root"
    shifting = _user_namespace(container.config.mapping) if container.config.mapping else -1
    binds = [m for m in container.config.request.files.mounts if m.kind == "bind"] if mounts else []

    def work() -> tuple[int, int]:
        lower = overlay.directory
        if shifting >= 0:
            tree = trees.open_tree(lower)
            lower = engine.store.run + "/mnt/lower"
            target = os.open(lower, _FOLDER)
            trees.change_tree(tree, user_namespace=shifting)
            trees.attach_tree(tree, target)
            os.close(tree)
            os.close(target)
        os.chdir(lower)  # this thread's alone
        mount("overlay", place, "overlay", 0, data)
        root = os.open(place, _FOLDER)
        try:
            for each in sorted(binds, key=lambda m: m.target.count("/")):
                _bind(root, each.source, each.target, each.read_only)
            return root, os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            os.close(root)
            raise

    try:
        return trees.elsewhere(work)
    finally:
        if shifting >= 0:
            os.close(shifting)


def _bind(root: int, source: str, target: str, read_only: bool) -> None:
    """What is not there, on either side, is no matter: the container is not started."""
    try:
        place = openat2(root, target, _PLACE, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except OSError:
        return
    try:
        tree = trees.open_tree(source, recursive=True)
    except FileNotFoundError:
        os.close(place)
        return
    try:
        if read_only:
            trees.change_tree(tree, read_only=True)
        trees.attach_tree(tree, place)
    finally:
        os.close(tree)
        os.close(place)


def _user_namespace(mapping: tuple[IdMapping, ...]) -> int:
    """A user namespace with this map. It takes a process of its own, which ends when it is made. Raises OSError."""
    import subprocess
    import sys

    text = "".join(f"{m.container} {m.host} {m.size}\n" for m in mapping)
    argv = [sys.executable, "-I", "-S", "-c", _MAKER]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}) as maker:
        assert maker.stdout is not None
        if maker.stdout.read(1) != b"1":
            raise OSError(1, "a user namespace cannot be made")
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{maker.pid}/{name}", "w", encoding="ascii") as file:
                file.write(text)
        return os.open(f"/proc/{maker.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
