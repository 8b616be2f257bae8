"""What the holder reaps, and what it leaves for the keeper to ask about."""

from __future__ import annotations

import os

from cloche.engine.holder import child_status, reap_strangers


def ended(code: int) -> tuple[int, int]:
    """A child that has ended and is still to be reaped: its pid, its pidfd."""
    pid = os.fork()
    if pid == 0:
        os._exit(code)
    pidfd = os.pidfd_open(pid)
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
    return pid, pidfd


def test_strangers_are_reaped_and_what_is_held_is_not() -> None:
    (stranger, first), (ours, second) = ended(3), ended(4)
    reap_strangers([stranger, ours], {"box": {"pidfd": second, "out": -1}, "other": {}})
    assert child_status(first) is None
    assert child_status(second) == 4
    os.waitpid(ours, 0)
    os.close(first)
    os.close(second)


def test_one_that_was_dropped_after_it_was_listed_is_no_error() -> None:
    """A keeper says `drop`, which reaps, between the list and the reaping: the holder must not die of it."""
    pid, pidfd = ended(5)
    os.waitpid(pid, 0)
    reap_strangers([pid], {})
    os.close(pidfd)


def test_one_that_runs_is_not_waited_for() -> None:
    """Its number may have been used again since."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(reading, 1)
        os._exit(6)
    reap_strangers([pid], {})
    os.write(writing, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 6
    os.close(reading)
    os.close(writing)
