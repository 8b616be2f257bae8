"""events: what happened, in order, once, whoever was killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from cloche.engine import events
from cloche.engine.containers import Engine
from cloche.sdk import Client
from commands import COMMAND, cloche, ok
from probes import requires

pytestmark = [requires("root", "overlay"), pytest.mark.usefixtures("store")]


def told(*words: str) -> list[dict[str, Any]]:
    text = ok("events", "--since", "1h", "--until", "0s", "--format", "json", *words)
    return [json.loads(line) for line in text.splitlines()]


def actions(name: str = "box") -> list[str]:
    return [each["Action"] for each in told("--filter", f"container={name}", "--filter", "type=container")]


def test_the_life_of_a_container() -> None:
    ident = ok("run", "-d", "--name", "box", "--label", "k=v", "--network", "none", "starter", "sleep", "1000")
    assert cloche("exec", "box", "sh", "-c", "exit 3").code == 3
    ok("kill", "-s", "CONT", "box")
    ok("rename", "box", "new")
    ok("restart", "-t", "0", "new")
    ok("rm", "-f", "new")
    found = told("--filter", "type=container")
    command = "sh -c exit 3"
    kinds = ["create", "start", f"exec_create: {command}", f"exec_start: {command}", "exec_die", "kill", "rename"]
    assert [each["Action"] for each in found][:7] == kinds
    rest = [each["Action"] for each in found][7:]
    assert sorted(rest) == sorted(["kill", "kill", "die", "stop", "start", "restart", "kill", "die", "destroy"])
    assert rest[-1] == "destroy"
    assert {each["Actor"]["ID"] for each in found} == {ident}
    assert all(each["Actor"]["Attributes"]["k"] == "v" for each in found), "labels, also of one that is gone"
    assert found[4]["Actor"]["Attributes"]["exitCode"] == "3"
    assert found[6]["Actor"]["Attributes"] | {"oldName": "/box", "name": "new"} == found[6]["Actor"]["Attributes"]
    died = [each for each in found if each["Action"] == "die"]
    assert [each["Actor"]["Attributes"]["exitCode"] for each in died] == ["137", "137"]
    assert found[0].keys() == {"status", "id", "from", "Type", "Action", "Actor", "scope", "time", "timeNano"}
    line = ok("events", "--since", "1h", "--until", "0s", "--filter", "event=destroy").splitlines()[0]
    stamp, kind, action, who = line.split()[:4]
    assert (kind, action, who) == ("container", "destroy", ident) and "image=starter" in line and len(stamp) >= 30


def test_filters_and_formats() -> None:
    ok("run", "--name", "one", "--network", "none", "starter", "true")
    ok("run", "--name", "two", "--network", "none", "--label", "k=v", "starter", "true")
    ok("tag", "starter", "other:1")
    ok("rmi", "other:1")
    assert {each["Actor"]["Attributes"]["name"] for each in told("--filter", "label=k=v")} == {"two"}
    assert len(told("--filter", "event=die")) == 2
    assert len(told("--filter", "event=die", "--filter", "event=start", "--filter", "container=one")) == 2
    images = [each["Action"] for each in told("--filter", "type=image")]
    assert images[:2] == ["create", "tag"] and images[-2:] == ["tag", "untag"]
    assert ok("events", "--since", "1h", "--until", "0s", "--filter", "event=create", "--filter", "container=one",
              "--format", "{{.Type}} {{.Actor.Attributes.name}}") == "container one"  # fmt: skip
    assert ok("events", "--since", "0.0001s", "--until", "0s") == ""
    wrong = cloche("events", "--filter", "size=3")
    assert wrong.code == 1 and "invalid filter" in wrong.err


def test_they_come_as_they_happen() -> None:
    ok("run", "--rm", "--network", "none", "starter", "true")
    form = "{{.Action}} {{.Actor.Attributes.name}}"
    command = [*COMMAND, "events", "--filter", "type=container", "--format", form]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stream:
        assert stream.stdout is not None
        time.sleep(1)
        for number in range(5):
            ok("run", "--rm", "--name", f"box{number}", "--network", "none", "starter", "true")
            wanted = [f"{what} box{number}\n" for what in ("create", "start", "die", "destroy")]
            assert [stream.stdout.readline() for _ in wanted] == wanted
        stream.send_signal(signal.SIGINT)
    assert ok("events", "--until", "0s") is not None


def test_a_killed_keeper_loses_none(store: Path, kills: int) -> None:
    with Client(str(store)) as client:
        client.run("starter", "true", network="none", remove=True)
        for number in range(kills):
            box = client.run(
                "starter", ["sh", "-c", "sleep 0.05; exit 4"], network="none", detach=True, name=f"b{number}"
            )
            pid = client.engine.keeper.ask({"op": "info"})[0]["keeper"]
            time.sleep(number * 0.1 / kills)
            os.kill(pid, signal.SIGKILL)
            box.wait()
            while client.engine.keeper.ask({"op": "info"})[0]["keeper"] == pid:
                time.sleep(0.01)
            found = [e for e in events.read(client.engine.db) if e.actor == box.id]
            assert [e.action for e in found] == ["create", "start", "die"]
            assert found[-1].attributes["exitCode"] == "4"
            box.remove()


def test_the_newest_are_kept() -> None:
    ok("create", "--name", "box", "--network", "none", "starter", "true")
    engine = Engine()
    ident = engine.find("box").id
    engine.db.execute("BEGIN")
    for number in range(events.KEPT + 500):
        events.record(engine.db, ident, f"n{number}")
    engine.db.execute("COMMIT")
    found = events.read(engine.db)
    assert events.KEPT <= len(found) <= events.KEPT + 100
    assert found[-1].action == f"n{events.KEPT + 499}"
    engine.close()
