"""The one place where ctypes and libc are loaded and prototypes are declared, each once.

`call()` turns a C function's -1 into an OSError with errno; `syscall()` does the same for calls that libc has no
wrapper for.
Not its business: what a call means; that is said in the module of its concept.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_long, c_ulong, c_void_p

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

libc = ctypes.CDLL(None, use_errno=True)


def declare(name: str, *arguments: Any, result: Any = c_int) -> Any:
    """The libc function `name` with its prototype set."""
    function = getattr(libc, name)
    function.argtypes = arguments
    function.restype = result
    return function


_syscall = declare("syscall", result=c_long)
_syscall.argtypes = None
prctl_ = declare("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)
mount_ = declare("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_void_p)
umount2_ = declare("umount2", c_char_p, c_int)
unshare_ = declare("unshare", c_int)
setns_ = declare("setns", c_int, c_int)
sethostname_ = declare("sethostname", c_char_p, c_ulong)

# unistd.h of x86_64; from pidfd_send_signal (424) on, the numbers are the same on every architecture
_NUMBERS = {
    "pivot_root": (155, 41),
    "capget": (125, 90),
    "capset": (126, 91),
    "bpf": (321, 280),
    "keyctl": (250, 219),
    "renameat2": (316, 276),
}


def number(name: str) -> int:
    """The number of a system call that has one per architecture. Raises OSError(ENOSYS) where cloche does not know
    it."""
    column = {"x86_64": 0, "aarch64": 1}.get(os.uname().machine)
    if column is None:
        raise OSError(38, f"system call number of {name} on {os.uname().machine}")
    return _NUMBERS[name][column]


def check(result: int, what: str) -> int:
    """`result`, or OSError with errno when it is -1."""
    if result == -1:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), what)
    return result


def syscall(number: int, *arguments: Any, what: str = "syscall") -> int:
    """syscall(2). Integers are passed as long, bytes as char *."""
    typed = [c_long(a) if isinstance(a, int) else a for a in arguments]
    return check(_syscall(c_long(number), *typed), what)


def prctl(option: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    """prctl(2)."""
    return check(prctl_(option, a, b, c, d), f"prctl {option}")


PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
