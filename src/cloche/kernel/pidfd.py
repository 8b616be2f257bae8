"""pidfd_open(2) and its ioctls: a process by a handle that never comes to mean another one."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # without the enums around it
import os
from errno import EINVAL, ESRCH

KILL = 9

# include/uapi/linux/pidfd.h: _IOWR(0xFF, 11, 64 bytes)
_GET_INFO = 3 << 30 | 64 << 16 | 0xFF << 8 | 11
_INFO_EXIT = 1 << 3


def open_pid(pid: int) -> int:
    """A pidfd of whoever has this pid now. Raises ProcessLookupError when that is nobody.

    A number whose process is gone, and that is still its session's or its group's, older kernels (6.1) call EINVAL.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno != EINVAL or pid <= 0:
            raise
        raise ProcessLookupError(ESRCH, os.strerror(ESRCH)) from None


def open_process(pid: int, start_time: int) -> int:
    """A pidfd of the process that had this pid and start time. Raises ProcessLookupError when it is gone."""
    from cloche.kernel import processes

    fd = open_pid(pid)
    if processes.start_time(pid) != start_time:  # looked at after opening
        os.close(fd)
        raise ProcessLookupError(3, "no such process")
    return fd


def process_of(pidfd: int) -> int:
    """The pid, as this process's pid namespace counts; 0 or -1 when it has been reaped (/proc/PID/fdinfo,
    pidfd_open(2))."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        return next((int(line[4:]) for line in file if line.startswith("Pid:")), 0)


def exit_status(pidfd: int) -> int | None:
    """The exit status of a process that somebody else has reaped (Linux >= 6.15, opened before the end): code, or minus
    the signal."""
    import fcntl
    from struct import pack_into, unpack_from

    info = bytearray(64)
    pack_into("=Q", info, 0, _INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _GET_INFO, info)
    except OSError:
        return None
    (mask,) = unpack_from("=Q", info, 0)
    return os.waitstatus_to_exitcode(unpack_from("=i", info, 60)[0]) if mask & _INFO_EXIT else None


def send_signal(pidfd: int, number: int) -> None:
    """pidfd_send_signal(2); one that is gone is no matter."""
    try:
        _signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass


def kill_and_wait(pidfd: int) -> None:
    """SIGKILL, and wait until the process is a zombie or gone."""
    import select

    send_signal(pidfd, KILL)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll()
