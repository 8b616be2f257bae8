"""inotify(7): a descriptor that becomes readable when something happens in a directory."""

from __future__ import annotations

import os
from ctypes import c_char_p, c_int, c_uint32

from cloche.kernel.libc import check, declare

IN_MODIFY, IN_CREATE, IN_DELETE_SELF, IN_ONLYDIR = 0x2, 0x100, 0x400, 0x01000000
_CLOEXEC_NONBLOCK = os.O_CLOEXEC | os.O_NONBLOCK

_init1 = declare("inotify_init1", c_int)
_add_watch = declare("inotify_add_watch", c_int, c_char_p, c_uint32)


def inotify_init() -> int:
    """inotify_init1(2): a new descriptor that does not block. Raises OSError (EMFILE: max_user_instances)."""
    return check(_init1(_CLOEXEC_NONBLOCK), "inotify_init1")


def add_watch(fd: int, path: str, mask: int) -> int:
    """inotify_add_watch(2): report the events of `mask` at `path`. Returns the watch's number. Raises OSError."""
    return check(_add_watch(fd, os.fsencode(path), mask), path)


def clear(fd: int) -> None:
    """Take all events that are waiting, unread."""
    try:
        while os.read(fd, 65536):
            pass
    except BlockingIOError:
        pass
