"""pipe(7): tee(2), which Python does not have; whether one is at its end."""

from __future__ import annotations

_SPLICE_F_NONBLOCK = 2


def tee(source: int, target: int, count: int) -> int:
    """tee(2), not blocking: copy up to `count` bytes from pipe to pipe without taking them. Raises OSError."""
    from ctypes import c_int, c_size_t, c_ssize_t, c_uint

    from cloche.kernel.libc import check, declare

    function = declare("tee", c_int, c_int, c_size_t, c_uint, result=c_ssize_t)
    return check(function(source, target, count, _SPLICE_F_NONBLOCK), "tee")


def at_end(pipe: int) -> bool:
    """Whether nobody has it open for writing and nothing is in it: it would be readable for ever."""
    import select

    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return any(event & select.POLLHUP and not event & select.POLLIN for _, event in poll.poll(0))
