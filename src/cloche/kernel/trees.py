"""Trees of mounts that are nowhere: open_tree(2), move_mount(2), mount_setattr(2); and a mount namespace of one thread.

Linux 5.2 (id-mapped: 5.12) and newer.
"""

from __future__ import annotations

import os

from cloche.kernel.libc import syscall
from cloche.kernel.mounts import AT_RECURSIVE, ATTR_IDMAP, ATTR_RDONLY, MS_PRIVATE, MS_REC, mount
from cloche.kernel.namespaces import NEWNS, setns, unshare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442  # the same on every architecture
_AT_FDCWD, _AT_EMPTY_PATH, _CLONE = -100, 0x1000, 1
_MOVE_FROM_FD, _MOVE_TO_FD = 0x4, 0x40
_CLONE_FS = 0x200


def open_tree(path: str, recursive: bool = False) -> int:
    """A detached copy of the mount at `path`, with the mounts below it if `recursive`. Raises OSError."""
    flags = _CLONE | os.O_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags, what=f"open_tree {path}")


def attach_tree(tree: int, target: int) -> None:
    """Mount a detached tree on what `target` is open at. Raises OSError."""
    syscall(_MOVE_MOUNT, tree, b"", target, b"", _MOVE_FROM_FD | _MOVE_TO_FD, what="move_mount")


def change_tree(tree: int, read_only: bool = False, user_namespace: int = -1) -> None:
    """Make a detached tree read-only, or shift its owners as a user namespace says. Raises OSError."""
    from struct import pack

    change = ATTR_RDONLY * read_only | (ATTR_IDMAP if user_namespace >= 0 else 0)
    attributes = pack("=QQQQ", change, 0, 0, max(user_namespace, 0))
    flags = _AT_EMPTY_PATH | (AT_RECURSIVE if read_only else 0)
    syscall(_MOUNT_SETATTR, tree, b"", flags, attributes, len(attributes), what="mount_setattr")


def elsewhere(call: Callable[[], T], namespace: int = -1) -> T:
    """What `call` returns in a thread with a mount namespace of its own, or in the one that `namespace` is open at.

    The thread ends with it: the process stays where it is. In a stranger's namespace `call` shall do system calls
    only, and open nothing by name but what it means to. Raises what it raises, OSError.
    """
    from threading import Thread

    results: list[T] = []
    problems: list[BaseException] = []

    def run() -> None:
        try:
            unshare(_CLONE_FS)
            if namespace >= 0:
                setns(namespace, NEWNS)
            else:
                unshare(NEWNS)
                mount(None, "/", None, MS_REC | MS_PRIVATE)
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again below
            problems.append(error)

    thread = Thread(target=run)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return results[0]
