"""Many containers at once: ended together, in one order, whatever else is asked; few descriptors; nothing is left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

import leftovers
from cloche.sdk import Client
from commands import cloche, ok

pytestmark = [
    pytest.mark.requires("root", "overlay"),
    pytest.mark.usefixtures("store"),
    pytest.mark.timeout(240),
]
MANY = 40


def start(client: Client, number: int, command: str = "exec sleep 1000") -> list[str]:
    return [
        client.run("starter", ["sh", "-c", command], detach=True, network="none", name=f"box{n}").name
        for n in range(number)
    ]


def test_those_that_do_not_listen_are_killed_after_one_time_out(store: Path) -> None:
    with Client(str(store)) as client:
        names = start(client, 8, "trap '' TERM; while :; do sleep 0.05; done")
    began = time.monotonic()
    assert ok("stop", "-t", "2", *names).split() == names, "in the order in which they were given"
    assert time.monotonic() - began < 8 * 2, "not one after the other"
    assert set(ok("ps", "-a", "--format", "{{.State}}").split()) == {"exited"}


def test_all_are_tried_and_each_problem_is_said(store: Path) -> None:
    with Client(str(store)) as client:
        names = start(client, 3)
    result = cloche("rm", names[0], "nobody", "-f", names[1], names[1], names[2])
    assert result.code == 0, "what is not there need not be removed by force"
    assert result.out.split()[:2] == names[:2] and result.out.split()[-1] == names[2]
    assert "No such container: nobody" in result.err
    with Client(str(store)) as client:
        names = start(client, 2)
    result = cloche("rm", *names)
    assert result.code == 1 and result.out == "" and len(result.err.splitlines()) == 2
    assert ok("restart", "-t", "0", *names).split() == names
    assert ok("ps", "-q").count("\n") == 1


def test_few_descriptors_each_and_nothing_is_left(store: Path) -> None:
    with Client(str(store)) as client:
        start(client, 1)
        info = client.engine.keeper.ask({"op": "info"})[0]

        def descriptors() -> list[int]:
            return [len(os.listdir(f"/proc/{info[who]}/fd")) for who in ("holder", "keeper")]

        before = descriptors()
        for number in range(1, MANY):
            client.run("starter", ["sleep", "1000"], detach=True, network="none", name=f"more{number}")
        holder, keeper = (now - then for now, then in zip(descriptors(), before, strict=True))
        assert holder <= 3 * MANY, "output and error, a handle of the process"
        assert keeper <= 5 * MANY, "and the log, of those that were written to last"
        assert len(ok("ps", "-q").split()) == MANY
        assert len(ok("rm", "-f", *ok("ps", "-aq").split()).split()) == MANY
        deadline = time.monotonic() + 20
        while descriptors() > before:
            assert time.monotonic() < deadline, descriptors()
            time.sleep(0.05)
    assert os.listdir(store / "containers") == []


def groups(store: Path) -> list[str]:
    """The control groups of the store's containers."""
    return [path for path in leftovers.cgroups(leftovers.marks(store)) if len(path.rpartition("/")[2]) == 64]


def test_groups_of_many_that_end_at_once_are_removed_when_all_have(store: Path) -> None:
    with Client(str(store)) as client:
        start(client, 70)
    names = [f"box{n}" for n in range(70)]
    assert ok("kill", *names).split() == names
    for name in names:
        assert ok("wait", name) == "137"
    again, removed = names[-5:], names[30:40]
    assert ok("start", *again).split() == again, "those that waited are undone before"
    assert ok("rm", *removed).split() == removed, "and by who removes them"
    running = ok("ps", "-q", "--no-trunc").split()
    assert len(running) == 5
    deadline = time.monotonic() + 20
    while left := [path for path in groups(store) if path.rpartition("/")[2] not in running]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert len(groups(store)) % 5 == 0 and groups(store), "of those that run they are there"
    assert set(os.listdir(store / "run/plans")) == set(running)
    assert ok("exec", again[0], "echo", "alive") == "alive"
    assert not (store / "run/keeper/log").read_text()


def test_a_keeper_that_dies_before_it_has_removed_them_is_followed_by_one_that_does(store: Path) -> None:
    with Client(str(store)) as client:
        start(client, 60)
        ok("kill", *(f"box{n}" for n in range(60)))
        os.kill(client.engine.keeper.ask({"op": "info"})[0]["keeper"], signal.SIGKILL)
        deadline = time.monotonic() + 20
        while client.containers() or groups(store) or os.listdir(store / "run/plans"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
