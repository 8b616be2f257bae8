"""openat2(2): paths resolved by the kernel, which can be told not to leave a directory and not to follow links.

The one safe way to a path inside a tree that strangers write to: nothing is looked at before it is opened, so nothing
can be swapped in between. Linux 5.6 and newer.
"""

from __future__ import annotations

import os

# <linux/openat2.h>
RESOLVE_NO_XDEV = 0x01  # cross no mount point
RESOLVE_NO_MAGICLINKS = 0x02  # follow no link of procfs' kind
RESOLVE_NO_SYMLINKS = 0x04  # follow no link
RESOLVE_BENEATH = 0x08  # a path that leads out is an error (EXDEV)
RESOLVE_IN_ROOT = 0x10  # a path that leads out is taken from the directory, as after chroot(2)
RESOLVE_CACHED = 0x20

AT_FDCWD = -100
_OPENAT2 = 437  # the same on every architecture
_TRIES = 128


def openat2(dirfd: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2), close-on-exec. Raises OSError, ValueError (a zero byte in `path`).

    EAGAIN is tried again: with RESOLVE_BENEATH and RESOLVE_IN_ROOT the kernel says so when anything anywhere was
    renamed while `..` was resolved.
    """
    from struct import pack

    from cloche.kernel.libc import syscall

    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError("embedded null byte")
    how = pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(_TRIES):
        try:
            return syscall(_OPENAT2, dirfd, name, how, len(how), what=os.fsdecode(name))
        except BlockingIOError:
            continue
    return syscall(_OPENAT2, dirfd, name, how, len(how), what=os.fsdecode(name))


def rename_new(source: int, old: str, target: int, new: str) -> None:
    """renameat2(2) with RENAME_NOREPLACE. Raises OSError; FileExistsError when there is something of the new name."""
    from cloche.kernel.libc import number, syscall

    syscall(number("renameat2"), source, os.fsencode(old), target, os.fsencode(new), 1, what=old)
