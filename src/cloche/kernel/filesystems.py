"""File systems as a whole: syncfs(2), and whether the kernel has one, by fsopen(2)."""

from __future__ import annotations

import os

_FSOPEN = 430  # the same on every architecture
_FSOPEN_CLOEXEC = 1


def syncfs(fd: int) -> None:
    """syncfs(2): what was written to the file system of `fd` is on its disk. Raises OSError."""
    from ctypes import c_int

    from cloche.kernel.libc import check, declare

    check(declare("syncfs", c_int)(fd), "syncfs")


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
