"""Holder or keeper killed at every moment that there is: before and after each system call of a whole container's life.

Random kills are in test_kills; they find what goes wrong often. These find the rest: the n-th stop of the process is
chosen, over the whole way, as finely as the number of kills allows (`make torture`: every few of them).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloche.engine.courses import finish
from cloche.engine.execs import running
from cloche.engine.request import ExecRequest
from cloche.sdk import Client, Container
from houses import House, step_through
from stepping import killed_at

pytestmark = [pytest.mark.requires("root", "overlay"), pytest.mark.torture, pytest.mark.timeout(600)]
SCRIPT = "echo out 1; echo err 1 >&2; sleep 0.02; echo out 2; echo err 2 >&2; exit 7"
SHELL = ("sh", "-c", SCRIPT)


@pytest.fixture
def house(store: Path) -> Iterator[House]:
    made = House(store)
    yield made
    made.client.close()


def detached(house: House) -> None:
    box = house.client.run("starter", SHELL, detach=True)
    assert box.wait() == 7
    check_output(box)
    assert box.status == "exited"
    box.remove()


def attached_with_input(house: House) -> None:
    text = b"typed " * 2000
    box = house.client.run("starter", ["sh", "-c", "cat; " + SCRIPT], input=text, remove=True)
    assert box.exit_code == 7
    assert box.stdout == text + b"out 1\nout 2\n"
    assert box.stderr == b"err 1\nerr 2\n"


def with_terminal(house: House) -> None:
    box = house.client.run("starter", SHELL, tty=True, detach=True)
    assert box.wait() == 7
    assert box.stdout == b"out 1\r\nerr 1\r\nout 2\r\nerr 2\r\n"
    box.remove()


def executed(house: House) -> None:
    """An exec in a container that is there before; its output is read by its client."""
    box = house.engine.find("box")
    wanted = ExecRequest(box.id, ("sh", "-c", "cat; " + SCRIPT), interactive=True)
    code, out, err = finish(house.engine.store, running(house.engine, box, wanted, b"typed\n"))
    assert (code, out, err) == (7, b"typed\nout 1\nout 2\n", b"err 1\nerr 2\n")


def stopped(house: House) -> None:
    script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done"
    box = house.client.run("starter", ["sh", "-c", script], detach=True)
    while box.stdout != b"up\n":
        assert box.status == "running"
    box.stop()
    assert box.exit_code == 3
    assert box.stdout == b"up\nbye\n"
    box.remove()


def made_again(house: House) -> None:
    """By a policy: the second start has no client that would ask for it again."""
    box = house.client.run("starter", SHELL, detach=True, restart="on-failure:1", network="none")
    assert box.wait() == 7
    assert (box.stdout, box.stderr) == (b"out 1\nout 2\n" * 2, b"err 1\nerr 2\n" * 2)
    assert (box.status, box.inspect()["RestartCount"]) == ("exited", 1)
    box.remove()


def refused(house: House) -> None:
    """A start that fails is refused with the same words, whoever has seen its beginning."""
    from cloche.errors import CommandNotFound

    box = house.client.create("starter", "no-such-command")
    with pytest.raises(CommandNotFound):
        box.start()
    assert box.status == "created"
    box.remove()


def check_output(box: Container) -> None:
    assert box.stdout == b"out 1\nout 2\n"
    assert box.stderr == b"err 1\nerr 2\n"


LIVES = (detached, attached_with_input, with_terminal, stopped, made_again, refused)


@pytest.mark.parametrize("way", LIVES, ids=lambda way: way.__name__)
def test_a_keeper_killed_at_any_system_call_of_a_life(house: House, way: Callable[[House], None], kills: int) -> None:
    step_through(way, house, 1, 4 + kills // 5)
    house.nothing_left()


@pytest.mark.parametrize("way", LIVES, ids=lambda way: way.__name__)
def test_a_holder_killed_at_any_system_call_of_a_life(house: House, way: Callable[[House], None], kills: int) -> None:
    step_through(way, house, 0, 2 + kills // 10)
    house.nothing_left()


@pytest.mark.parametrize("which", [0, 1], ids=["holder", "keeper"])
def test_killed_at_any_system_call_of_an_exec(house: House, which: int, kills: int) -> None:
    box = house.client.run("starter", ["sleep", "1000"], name="box", detach=True)
    step_through(executed, house, which, 4 + kills // 5 if which else 2 + kills // 10)
    box.remove(force=True)
    house.nothing_left()


def left_of_creates(house: House) -> list[str]:
    rows = house.engine.db.execute("SELECT container FROM ranges").fetchall()
    return os.listdir(house.root / "containers") + [f"range of {row['container']}" for row in rows]


def test_a_client_killed_at_any_system_call_of_a_create_leaves_nothing_for_long(house: House, kills: int) -> None:
    """Its container is there, or it is not: then its directory and its range of ids go with the next tidying."""

    def create(stop: int) -> bool:
        go, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.read(go, 1)
                Client(str(house.root)).create("starter", "true", userns="auto")
            finally:
                os._exit(0)
        with killed_at(pid, stop):
            os.write(told, b"x")
            _, status = os.waitpid(pid, 0)
        os.close(go)
        os.close(told)
        return os.WIFSIGNALED(status)

    most, turns = 64, 32 + kills
    while create(most):
        most *= 2
    for turn in range(turns):
        create(1 + most * turn // turns)
    found = {box.id for box in house.client.containers(all=True)}
    forsaken = [name for name in os.listdir(house.root / "containers") if name not in found]
    assert forsaken, "kills that leave nothing prove nothing"
    firsts = [row["first"] for row in house.engine.db.execute("SELECT first FROM ranges")]
    assert len(firsts) == len(set(firsts)) >= len(found)
    for box in house.client.containers(all=True):
        box.remove()
    house.end()
    house.client.run("starter", "true", remove=True)
    assert set(forsaken) <= set(os.listdir(house.root / "containers")), "they may be still at work"
    for name in forsaken:
        os.utime(house.root / "containers" / name, (0, 0))
    house.end()
    house.client.run("starter", "true", remove=True)
    deadline = time.monotonic() + 5
    while (left := left_of_creates(house)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left
