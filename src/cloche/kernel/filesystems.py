"""File systems as a whole: syncfs(2), and whether the kernel has one, by fsopen(2)."""

from __future__ import annotations

import os
from errno import EINVAL, ENOSYS, ESPIPE

_FSOPEN = 430  # the same on every architecture
_FSOPEN_CLOEXEC = 1


def syncfs(fd: int) -> None:
    """syncfs(2): what was written to the file system of `fd` is on its disk. Raises OSError."""
    from ctypes import c_int

    from cloche.kernel.libc import check, declare

    check(declare("syncfs", c_int)(fd), "syncfs")


def begin_writing(fd: int) -> None:
    """sync_file_range(2) with SYNC_FILE_RANGE_WRITE: the disk begins with what was written to the file so far, and what
    a syncfs(2) will wait for is less. Nothing is promised by it, so a file system that does not have it is left alone.

    Raises OSError (EIO, ENOSPC): what a sync would find too.
    """
    from ctypes import c_int, c_int64, c_uint

    from cloche.kernel.libc import check, declare

    try:
        check(declare("sync_file_range", c_int, c_int64, c_int64, c_uint)(fd, 0, 0, 2), "sync_file_range")
    except OSError as error:
        if error.errno not in (EINVAL, ENOSYS, ESPIPE):
            raise


def probe(name: str) -> None:
    """Have the kernel find the file system `name`, loading its module if there is one; nothing is mounted.

    Raises OSError: ENODEV where there is none, EPERM without CAP_SYS_ADMIN.
    """
    from cloche.kernel.libc import syscall

    os.close(syscall(_FSOPEN, name.encode(), _FSOPEN_CLOEXEC, what=f"fsopen {name}"))


def type_of(path: str) -> str:
    """The type of the file system that `path` is on, as proc(5)'s mountinfo names it; empty if it is not there."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            if line.split(" ", 3)[2] == wanted:
                return line.partition(" - ")[2].split(" ", 1)[0]
    return ""
