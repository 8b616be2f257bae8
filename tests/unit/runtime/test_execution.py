"""Reports in the order in which they may come: init can be quicker than the stage that made it."""

from __future__ import annotations

import os
import socket
from array import array
from collections.abc import Iterator
from contextlib import closing
from struct import pack

import pytest

from cloche.runtime.bell import DONE, FAILED, TOKEN, Bell
from cloche.runtime.execution import Execution, StepFailed
from cloche.step.base import Ref
from cloche.step.stored import StoredPlan
from cloche.step.sync import Await

STAGE, INIT = 1, 2
PLAN = StoredPlan(9, ((3, Await("cloned", (Ref("pid", "pid"), Ref("pidfd")))), (7, Await("ready", ()))), b"", {})


class Actors:
    """Both of bell's processes, at the other end of the control socket."""

    def __init__(self, making: Execution) -> None:
        ours, self.sock = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        making._control = ours.detach()

    def say(self, kind: int, actor: int, value: int, text: bytes = b"", fd: int = -1) -> None:
        data = pack("=BBHiQ", DONE, actor, 1, 0, 1) + pack("=BBHiQ", kind, actor, 5, value, len(text)) + text
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [fd]))] if fd >= 0 else []
        self.sock.sendmsg([data], rights)


@pytest.fixture
def making() -> Iterator[Execution]:
    before = set(os.listdir("/proc/self/fd"))
    with closing(Bell()) as bell, Execution(PLAN, bell, (0, 1, 2)) as made:
        yield made
    assert set(os.listdir("/proc/self/fd")) <= before, "every descriptor is closed"


@pytest.fixture
def bell(making: Execution) -> Iterator[Actors]:
    made = Actors(making)
    assert making.advance() == "cloned"
    yield made
    made.sock.close()
    making.close()


def test_in_their_order(making: Execution, bell: Actors) -> None:
    assert not making.receive(), "nothing has come"
    bell.say(TOKEN, STAGE, 4711, fd=0)
    assert making.receive()
    assert making.pid == 4711
    assert making.advance() == "ready"
    assert not making.overtaken()
    bell.say(TOKEN, INIT, 1)
    assert making.receive()


def test_init_that_is_ready_before_the_stage_has_said_who_it_is(making: Execution, bell: Actors) -> None:
    bell.say(TOKEN, INIT, 1)
    assert not making.receive()
    assert not making.receive()
    bell.say(TOKEN, STAGE, 4711, fd=0)
    assert making.receive()
    assert making.pid == 4711, "as the host counts, not as init does"
    assert making.advance() == "ready"
    assert making.overtaken(), "the socket will not speak again"
    assert making.receive()
    assert not making.overtaken()


def test_init_that_fails_before_the_stage_has_said_who_it_is(making: Execution, bell: Actors) -> None:
    bell.say(FAILED, INIT, 13, b"why")
    assert not making.receive()
    bell.say(TOKEN, STAGE, 4711, fd=0)
    assert making.receive(), "its pid is known first, so that it can be reaped"
    assert making.advance() == "ready"
    with pytest.raises(StepFailed) as caught:
        making.receive()
    assert (caught.value.failure.number, caught.value.failure.errno, caught.value.failure.detail) == (5, 13, "why")


@pytest.mark.parametrize("early", [True, False])
def test_a_stage_that_ends_without_a_word(making: Execution, bell: Actors, early: bool) -> None:
    if early:
        bell.say(TOKEN, INIT, 1, fd=0)
        assert not making.receive()
    bell.sock.close()
    with pytest.raises(StepFailed) as caught:
        making.receive()
    assert caught.value.failure.detail == "bell ended without a word"
    assert making.pid == 0


def test_the_stages_own_failure(making: Execution, bell: Actors) -> None:
    bell.say(FAILED, STAGE, 1)
    with pytest.raises(StepFailed) as caught:
        making.receive()
    assert caught.value.failure.errno == 1
