"""Processes as /proc shows them, seen on children of this one."""

from __future__ import annotations

import os

import pytest

from cloche.kernel.pidfd import open_pid, process_of
from cloche.kernel.processes import children, lives, parent, start_time, zombie_status


def test_a_child_from_its_birth_to_its_grave() -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(reading, 1)
        os._exit(3)
    pidfd = os.pidfd_open(pid)
    started = start_time(pid)
    assert (parent(pid), process_of(pidfd), zombie_status(pid)) == (os.getpid(), pid, None)
    assert lives(pid, started)
    assert not lives(pid, started + 1), "another process with the same number"
    assert pid in children()
    os.write(writing, b"x")
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
    assert zombie_status(pid) == 3 << 8
    assert not lives(pid, started)
    assert pid in children()
    os.waitpid(pid, 0)
    assert pid not in children()
    assert (lives(pid, started), parent(pid), start_time(pid), zombie_status(pid)) == (False, 0, 0, None)
    for fd in (pidfd, reading, writing):
        os.close(fd)


def test_a_process_that_is_gone_has_no_handle_though_its_session_has_the_number() -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork() == 0:
            os.close(writing)
            os.read(reading, 1)  # in the session of the one that is gone, until this test has ended
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(ProcessLookupError):
        open_pid(pid)
    for fd in (reading, writing):
        os.close(fd)
