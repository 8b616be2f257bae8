"""Killing a process at an exact moment: before or after its n-th system call, by ptrace(2).

with killed_at(pid, 17) as killer:
    ...                     # whatever makes the process work
killer.done                 # False: it made fewer stops than that meanwhile, and lives
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from probes import libc

SEIZE, INTERRUPT, SYSCALL = 0x4206, 0x4207, 24
WALL = 0x40000000
GONE = 3


class Killer:
    """What came of it."""

    done = False


def ptrace(request: int, pid: int, data: int = 0) -> None:
    if libc.ptrace(ctypes.c_long(request), ctypes.c_long(pid), None, ctypes.c_long(data)):
        raise OSError(ctypes.get_errno(), f"ptrace {request}")


def _trace(pid: int, stops: int, ready: int) -> None:
    """Each system call is two stops, one before and one after it."""
    ptrace(SEIZE, pid)
    ptrace(INTERRUPT, pid)
    os.waitpid(pid, WALL)
    os.write(ready, b"1")
    while True:
        ptrace(SYSCALL, pid)
        _, status = os.waitpid(pid, WALL)
        if not os.WIFSTOPPED(status):
            return
        if os.WSTOPSIG(status) == signal.SIGTRAP and status >> 16 == 0:
            stops -= 1
            if stops == 0:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, WALL)
                return


@contextmanager
def killed_at(pid: int, stops: int) -> Iterator[Killer]:
    """Kills `pid` with SIGKILL at its n-th stop from now on, if it gets there before the block ends."""
    reading, ready = os.pipe()
    tracer = os.fork()
    if tracer == 0:
        status = 1
        try:
            _trace(pid, stops, ready)
            status = 0
        except ProcessLookupError:
            status = GONE
        finally:
            os._exit(status)
    os.close(ready)
    handle = os.pidfd_open(tracer)
    killer = Killer()
    try:
        if os.read(reading, 1) != b"1":
            raise ProcessLookupError(3, f"process {pid} cannot be traced: it has ended")
        yield killer
        killer.done = bool(select.select([handle], [], [], 0)[0])
    finally:
        signal.pidfd_send_signal(handle, signal.SIGKILL)  # what it traces runs on
        _, status = os.waitpid(tracer, 0)
        os.close(handle)
        os.close(reading)
    if killer.done:
        assert os.waitstatus_to_exitcode(status) in (0, GONE), f"the tracer of {pid} failed"
