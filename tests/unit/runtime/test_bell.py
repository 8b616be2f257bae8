"""The process that makes bells: what it gives them, whose children they are, what happens when it is killed."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from cloche.runtime.bell import Bell
from cloche.step.base import Plan
from cloche.step.flat import SLOTS, flatten

NOTHING = flatten(Plan(()))  # its bell has nothing to do and ends with 0


@pytest.fixture
def bell() -> Iterator[Bell]:
    before = set(os.listdir("/proc/self/fd"))
    with closing(Bell()) as made:
        yield made
    assert set(os.listdir("/proc/self/fd")) <= before, "every descriptor is closed"
    with pytest.raises(ChildProcessError):
        os.waitpid(made._pid, os.WNOHANG)


def spawn(bell: Bell, flat: bytes = NOTHING, more: int = 0) -> tuple[int, bytes]:
    """The exit status of a bell on this plan, which is our child, and what it reported."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    null = os.open("/dev/null", os.O_RDWR)
    reading, writing = os.pipe()
    try:
        pid = bell.spawn(flat, (null, null, null), theirs.fileno(), writing, [null] * more)
        theirs.close()
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status), ours.recv(1 << 12)
    finally:
        ours.close()
        theirs.close()
        for fd in (null, reading, writing):
            os.close(fd)


def test_they_are_our_children_one_after_the_other(bell: Bell) -> None:
    assert [spawn(bell)[0] for _ in range(5)] == [0] * 5


def test_each_gets_its_own_plan(bell: Bell) -> None:
    assert spawn(bell, b"nonsense")[0] == 125
    assert spawn(bell)[0] == 0


@pytest.mark.parametrize("more", [1, SLOTS])
def test_many_descriptors(bell: Bell, more: int) -> None:
    assert spawn(bell, more=more)[0] == 0


def test_too_many_descriptors_are_refused_and_no_harm(bell: Bell) -> None:
    with pytest.raises(OSError, match="Bad message"):
        spawn(bell, more=SLOTS + 1)
    assert spawn(bell)[0] == 0


def test_it_is_started_again_when_it_was_killed(bell: Bell) -> None:
    spawn(bell)
    os.kill(bell._pid, signal.SIGKILL)
    os.waitid(os.P_PID, bell._pid, os.WEXITED | os.WNOWAIT)
    first = bell._pid
    assert spawn(bell)[0] == 0
    assert bell._pid != first


def test_one_that_dies_before_it_has_read_what_it_was_asked_has_made_nothing(bell: Bell) -> None:
    spawn(bell)
    victim = bell._pid
    os.kill(victim, signal.SIGSTOP)
    killer = os.fork()
    if killer == 0:
        time.sleep(0.2)  # until the question is in the socket: it waits there, whoever is late
        os.kill(victim, signal.SIGKILL)
        os._exit(0)
    assert spawn(bell)[0] == 0
    os.waitpid(killer, 0)
    assert bell._pid != victim


def test_it_has_nothing_of_ours_open(bell: Bell) -> None:
    held = [os.memfd_create("held") for _ in range(50)]
    spawn(bell)
    assert sorted(os.listdir(f"/proc/{bell._pid}/fd")) == ["0", "1", "2", "3"]
    for fd in held:
        os.close(fd)
