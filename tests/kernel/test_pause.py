"""pause, unpause, restart, rename: a container stands still, goes on, begins again, is called otherwise."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cloche.engine.pausing import group
from cloche.errors import Conflict
from cloche.kernel.freezer import is_frozen
from cloche.sdk import Client, Container
from commands import COMMAND, cloche, ok
from probes import available, cgroup_mounts, layout, requires

HAS_FREEZER = "freezer" in cgroup_mounts() or layout() == "v2"
pytestmark = [
    requires("root", "overlay"),
    pytest.mark.usefixtures("store"),
    pytest.mark.skipif(not HAS_FREEZER, reason="needs a freezer"),
]
COUNTING = "trap 'echo bye; exit 6' TERM; n=0; while :; do n=$((n+1)); echo $n; sleep 0.02; done"


def lines(name: str = "box") -> int:
    return len(ok("logs", name).splitlines())


def until(true: object, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


def box(*flags: str, script: str = COUNTING) -> None:
    ok("run", "-d", "--name", "box", "--network", "none", *flags, "starter", "sh", "-c", script)


def state(name: str = "box") -> str:
    return ok("inspect", "-f", "{{.State.Status}} {{.State.Running}} {{.State.Paused}}", name)


def test_a_paused_container_stands_still_and_says_so() -> None:
    box()
    until(lines)
    assert ok("pause", "box") == "box"
    before = lines()
    time.sleep(0.3)
    assert lines() == before
    assert state() == "paused true true"
    assert "(Paused)" in ok("ps", "--format", "{{.Status}}")
    assert ok("ps", "--filter", "status=paused", "--format", "{{.Names}} {{.State}}") == "box paused"
    assert ok("ps", "-q", "--filter", "status=running") == ""
    assert ok("info", "-f", "{{.ContainersRunning}} {{.ContainersPaused}} {{.ContainersStopped}}") == "0 1 0"
    assert ok("unpause", "box") == "box"
    until(lambda: lines() > before)
    assert state() == "running true false"


def test_what_a_paused_container_refuses() -> None:
    box()
    ok("pause", "box")
    for words, cause in {
        ("pause", "box"): "pause container box: it is already paused",
        ("exec", "box", "true"): "execute in container box: it is paused",
        ("attach", "--no-stdin", "box"): "attach to container box: it is paused",
        ("start", "box"): "start container box: it is paused",
        ("rm", "box"): "remove container box: it is paused",
    }.items():
        result = cloche(*words)
        assert result.code != 0 and cause in result.err, result
    ok("unpause", "box")
    twice = cloche("unpause", "box")
    assert (twice.code, "it is not paused" in twice.err) == (1, True)
    ok("rm", "-f", "box")
    assert cloche("pause", "box").code == 1
    ok("create", "--name", "still", "starter", "true")
    assert "it is not running" in cloche("pause", "still").err


@pytest.mark.parametrize(("verb", "code"), [("stop", 6), ("kill", 137), ("term", 6)])
def test_a_signal_that_ends_it_thaws_it(verb: str, code: int) -> None:
    box()
    until(lines)
    ok("pause", "box")
    begun = time.monotonic()
    ok(*{"stop": ["stop"], "kill": ["kill"], "term": ["kill", "-s", "TERM"]}[verb], "box")
    assert ok("wait", "box") == str(code)
    assert time.monotonic() - begun < 8
    assert state() == "exited false false"
    assert ok("start", "box") == "box"
    assert state() == "running true false"


def test_other_signals_wait_for_the_thaw() -> None:
    box(script="trap 'echo hup' HUP; while :; do sleep 0.02; done")
    time.sleep(0.2)
    ok("pause", "box")
    ok("kill", "-s", "HUP", "box")
    time.sleep(0.2)
    assert (state(), ok("logs", "box")) == ("paused true true", "")
    ok("unpause", "box")
    until(lambda: ok("logs", "box") == "hup")


def test_removed_by_force_while_it_is_paused() -> None:
    box()
    ok("pause", "box")
    ok("rm", "-f", "box")
    assert ok("ps", "-aq") == ""


def test_a_keeper_that_dies_changes_nothing(store: Path) -> None:
    box()
    until(lines)
    ok("pause", "box")
    client = Client(str(store))
    for which in ("keeper", "holder"):
        pid = client.engine.keeper.ask({"op": "info"})[0][which]
        os.kill(pid, signal.SIGKILL)
        until(lambda: client.engine.keeper.ask({"op": "info"})[0][which] != pid)  # noqa: B023 - within this round
        assert client.get("box").status == "paused"
    count = lines()
    ok("unpause", "box")
    until(lambda: lines() > count)
    ok("stop", "box")
    client.close()
    code = ok("inspect", "-f", "{{.State.ExitCode}}", "box")
    assert code == "6" or (code == "-1" and not available("exit_info")), "its parent has died: older kernels forget"


def test_whoever_is_killed_in_the_middle_the_state_is_what_the_kernel_says(store: Path) -> None:
    """Marked but not frozen, frozen by nobody of ours: both are told right and can be left."""
    box()
    client = Client(str(store))
    found = client.get("box")
    client.engine.db.execute("UPDATE containers SET paused=1 WHERE id=?", (found.id,))
    assert found.status == "running"
    found.pause()
    assert found.status == "paused"
    for _ in range(6):
        with subprocess.Popen([*COMMAND, "unpause", "box"], stderr=subprocess.DEVNULL) as doing:
            time.sleep(0.05)
            doing.kill()
        assert (found.status == "paused") == is_frozen(group(client.engine, found.id, found._record.config))
        if found.status == "running":
            found.pause()
    client.close()


def test_many_processes_that_fork_while_they_are_frozen(store: Path) -> None:
    with Client(str(store)) as client:
        script = "for i in 1 2 3 4; do (while :; do true | true; done) & done; wait"
        forks = client.run("starter", ["sh", "-c", script], detach=True, network="none", pids_limit=200)
        for _ in range(10):
            forks.pause()
            assert is_frozen(group(client.engine, forks.id, forks._record.config))
            with pytest.raises(Conflict, match="already paused"):
                forks.pause()
            forks.unpause()
        forks.remove(force=True)


def test_restart_runs_the_same_container_again() -> None:
    box()
    until(lines)
    first = ok("inspect", "-f", "{{.State.Pid}} {{.Id}}", "box").split()
    assert ok("restart", "box") == "box"
    second = ok("inspect", "-f", "{{.State.Pid}} {{.Id}}", "box").split()
    assert first[1] == second[1] and first[0] != second[0]
    assert "bye" in ok("logs", "box")
    ok("stop", "box")
    assert ok("restart", "box") == "box", "one that does not run is started"
    assert state() == "running true false"
    ok("pause", "box")
    ok("restart", "-t", "5", "box")
    assert state() == "running true false"
    none = cloche("restart", "box", "none")
    assert (none.code, none.out, "No such container: none" in none.err) == (1, "box\n", True)


def test_restart_with_another_signal_and_with_patience() -> None:
    box(script="trap 'exit 9' USR1; trap '' TERM; echo up; while :; do sleep 0.02; done")
    until(lines)
    begun = time.monotonic()
    ok("restart", "-s", "USR1", "-t", "20", "box")
    assert time.monotonic() - begun < 15
    until(lambda: lines() == 2)
    ok("restart", "-t", "0", "box")
    assert state() == "running true false"


def test_restart_of_one_that_is_removed_when_it_ends() -> None:
    box("--rm")
    until(lines)
    ok("restart", "box")
    assert state() == "running true false"
    ok("stop", "box")
    until(lambda: ok("ps", "-aq") == "")


def test_rename() -> None:
    box()
    ok("create", "--name", "other", "starter", "true")
    ident = ok("inspect", "-f", "{{.Id}}", "box")
    assert ok("rename", "box", "new.name") == ""
    assert ok("inspect", "-f", "{{.Id}} {{.Name}}", "new.name") == f"{ident} /new.name"
    for new, cause in {
        "other": "the name other is in use",
        "new.name": "it has that name already",
        "a b": "only [a-zA-Z0-9]",
        "": "may be empty",
        "x": "at least two",
    }.items():
        result = cloche("rename", "new.name", new)
        assert result.code == 1 and cause in result.err, result
    assert cloche("rename", "box", "gone").code == 1
    ok("rename", ident[:12], "/box")
    ok("exec", "box", "true")


def test_from_python(store: Path) -> None:
    with Client(str(store)) as client:
        one = client.run("starter", ["sleep", "1000"], detach=True, name="one", network="none")
        pid = one.pid
        one.pause()
        assert one.status == one.inspect()["State"]["Status"] == "paused"
        one.unpause()
        one.restart(timeout=0)
        assert one.pid != pid
        one.rename("two")
        assert (one.name, client.get("two").id) == ("two", one.id)
        handle = os.pidfd_open(one.pid)
        one.pause()
        one.remove(force=True)
        assert isinstance(one, Container) and one.status == "removed"
        assert select.select([handle], [], [], 5)[0]
        os.close(handle)
