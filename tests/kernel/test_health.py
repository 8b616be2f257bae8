"""Health checks on the real kernel: what is executed, what it changes, what is done about it, whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloche.document import dumps
from cloche.engine.courses import each
from cloche.engine.events import following, last
from cloche.engine.healthchecks import Result, State
from cloche.sdk import Client, Container
from cloche.value import encode
from commands import cloche, ok
from leftovers import processes
from probes import cgroup_mounts, layout

pytestmark = [
    pytest.mark.requires("root", "overlay"),
    pytest.mark.usefixtures("store"),
    pytest.mark.timeout(120),
]
OFTEN = 0.05
FILE = "test -e /healthy"


@pytest.fixture
def client(store: Path) -> Iterator[Client]:
    with Client(str(store)) as made:
        yield made


def run(client: Client, check: Any, command: str = "exec sleep 100", **options: Any) -> Container:
    more = {"health_cmd": check, "health_interval": OFTEN, "network": "none", **options}
    return client.run("starter", ["sh", "-c", command], detach=True, **more)


def until(box: Container, status: str) -> dict[str, Any]:
    """What inspect says once it has this health."""
    deadline = time.monotonic() + 60
    while box.health != status:
        assert time.monotonic() < deadline, box.inspect()["State"]
        time.sleep(0.01)
    return health(box)


def health(box: Container) -> dict[str, Any]:
    found: dict[str, Any] = box.inspect()["State"]["Health"]
    return found


def checks(box: Container, more: int) -> None:
    """Until so many more have been recorded."""
    deadline = time.monotonic() + 60
    for _ in range(more):
        before = health(box)["Log"][-1:]
        while health(box)["Log"][-1:] == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def pids() -> tuple[int, int]:
    holder, keeper = (Path(os.environ["CLOCHE_ROOT"]) / "run/keeper/pids").read_text().split()
    return int(holder), int(keeper)


# What would do harm


def test_a_check_that_hangs_is_ended_with_what_it_had_to_say(client: Client) -> None:
    box = run(client, "echo waiting; exec sleep 1000", health_timeout=0.2, health_retries=2)
    found = until(box, "unhealthy")
    codes = [entry["ExitCode"] for entry in found["Log"]]  # the last five; more may have failed before we looked
    assert codes[:2] == [-1, -1] and {*codes} == {-1} and len(codes) == min(found["FailingStreak"], 5)
    assert found["Log"][0]["Output"] == "Health check exceeded timeout (0.2s): waiting\n"
    assert len(box.exec(["sh", "-c", "ls -d /proc/[0-9]*/"]).output.split()) <= 4, "none of them is left"


def test_a_check_that_ignores_signals_and_leaves_children_is_ended_too(client: Client) -> None:
    script = "trap '' TERM INT; sleep 50 & echo child; while :; do sleep 1; done"
    box = run(client, script, health_timeout=0.2, health_retries=1)
    assert until(box, "unhealthy")["Log"][0]["Output"].endswith("child\n"), "its child has the pipe still open"
    assert box.status == "running"


def test_a_flood_of_output_is_thrown_away(client: Client) -> None:
    box = run(client, "yes | head -c 50000000; echo end >&2; false", health_retries=1, health_timeout=50)
    output = until(box, "unhealthy")["Log"][0]["Output"]
    assert output == "y\n" * 2048 + "..."


def test_what_cannot_be_executed_is_a_failure_that_says_why(client: Client) -> None:
    box = run(client, ["no-such-program"], health_retries=2)
    found = until(box, "unhealthy")
    assert found["Log"][-1]["ExitCode"] == -1
    assert "no-such-program" in found["Log"][-1]["Output"] and "not found" in found["Log"][-1]["Output"]
    box = run(client, "true", working_directory="/gone", command="rmdir /gone; exec sleep 100", health_retries=1)
    assert "/gone" in until(box, "unhealthy")["Log"][-1]["Output"]


def test_control_characters_are_shown_escaped(client: Client) -> None:
    box = run(client, r"printf '\033[2Jgone\n'; false", health_retries=1)
    until(box, "unhealthy")
    assert "\033" not in ok("inspect", "-f", "{{json .State.Health.Log}}", box.name)
    assert "\033" not in ok("inspect", box.name)


def test_nothing_is_left_of_checks_that_were_under_way(client: Client, store: Path) -> None:
    box = run(client, "exec sleep 1000", health_timeout=100)
    time.sleep(4 * OFTEN)
    box.kill()
    assert box.wait() == 137
    assert not [why for why in processes(store).values() if "sleep" in why]
    answer, _ = client.engine.keeper.ask({"op": "info"})
    assert answer["jobs"] == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--no-healthcheck", "--health-interval", "1s"], "conflicts"),
        (["--health-interval", "1s"], "has a command"),
        (["--health-on-failure", "kill"], "has a command"),
        (["--health-on-failure", "reboot", "--health-cmd", "true"], "health-on-failure"),
        (["--health-cmd", "true", "--health-interval", "1"], "invalid duration"),
        (["--health-cmd", "true", "--health-timeout", "1us"], "1ms"),
        (["--health-cmd", "true", "--health-retries", "-1"], "retries"),
    ],
)
def test_what_cannot_be_meant_is_refused(flags: list[str], words: str) -> None:
    refused = cloche("run", "-d", *flags, "starter", "true")
    assert refused.code == 125 and words in refused.err and len(refused.err.splitlines()) == 1
    assert ok("ps", "-aq") == ""


# What is meant


def test_from_starting_to_healthy_to_unhealthy_and_back(client: Client) -> None:
    start = last(client.engine.db)
    box = run(client, f"echo looking; {FILE}", health_start_period=60, health_start_interval=OFTEN, health_retries=2)
    assert ok("ps", "--format", "{{.Status}}").endswith("(health: starting)")
    checks(box, 3)
    assert (box.health, health(box)["FailingStreak"]) == ("starting", 0), "in the start period failures do not count"
    box.exec(["touch", "/healthy"])
    found = until(box, "healthy")
    assert found["Log"][-1]["ExitCode"] == 0 and found["Log"][-1]["Output"] == "looking\n"
    assert ok("ps", "--format", "{{.Status}}").endswith("(healthy)")
    assert ok("ps", "-q", "--filter", "health=healthy") == box.id[:12] and not ok("ps", "-q", "--filter", "health=none")
    box.exec(["rm", "/healthy"])
    found = until(box, "unhealthy")
    assert found["FailingStreak"] >= 2 and len(found["Log"]) <= 5
    box.exec(["touch", "/healthy"])
    assert until(box, "healthy")["FailingStreak"] == 0
    events = each(client.engine.store, following(client.engine, start, until=time.time_ns()))
    said = [e.action.partition(": ")[2] for e in events if e.action.startswith("health_status")]
    assert said == ["healthy", "unhealthy", "healthy"]


def test_the_images_check_with_its_shell_and_what_overrides_it(image: Callable[..., None], client: Client) -> None:
    image(
        Healthcheck={"Test": ["CMD-SHELL", "echo $0"], "Interval": int(OFTEN * 1e9), "Retries": 9},
        Shell=["/bin/sh", "-c"],
    )
    box = client.run("made", ["sleep", "100"], detach=True, network="none")
    assert until(box, "healthy")["Log"][0]["Output"] == "/bin/sh\n"
    document = json.loads(ok("inspect", "-f", "{{json .Config.Healthcheck}}", box.name))
    assert document == {"Test": ["CMD-SHELL", "echo $0"], "Interval": 50_000_000, "Retries": 9}
    box = client.run("made", ["sleep", "100"], detach=True, network="none", health_cmd=["false"], health_retries=1)
    until(box, "unhealthy")
    box = client.run("made", ["sleep", "100"], detach=True, network="none", no_healthcheck=True)
    assert box.health == "" and "Health" not in box.inspect()["State"]
    assert box.inspect()["Config"]["Healthcheck"] == {"Test": ["NONE"]}


def test_a_check_is_as_the_container_is(client: Client) -> None:
    """Its user, variables, directory, limits, filter; its pid namespace."""
    script = 'id -u; echo "$WHO"; pwd; cat /proc/sys/kernel/hostname; grep Seccomp: /proc/self/status; cat /proc/1/comm'
    more: dict[str, Any] = {"user": "1000", "env": {"WHO": "me"}, "working_directory": "/tmp", "hostname": "box"}
    box = run(client, script, **more)
    assert until(box, "healthy")["Log"][0]["Output"] == "1000\nme\n/tmp\nbox\nSeccomp:\t2\nsleep\n"


@pytest.mark.requires("userns")
def test_in_a_user_namespace(client: Client) -> None:
    if "id-mapped" in cloche("run", "--rm", "--userns", "auto", "starter", "true").err:
        pytest.skip("needs a file system that can be mounted id-mapped")
    box = run(client, "id -u; cat /proc/self/uid_map | wc -l", userns="auto")
    assert until(box, "healthy")["Log"][0]["Output"] == "0\n1\n"


def test_a_new_start_begins_anew(client: Client) -> None:
    box = run(client, FILE, health_retries=1)
    until(box, "unhealthy")
    box.stop(0)
    assert ok("ps", "-a", "--format", "{{.Status}}").startswith("Exited (137)")
    before = health(box)["Log"]
    time.sleep(4 * OFTEN)
    assert health(box)["Log"] == before, "what does not run is not checked"
    ok("update", "--memory", "64m", box.name)
    box.start()
    assert health(box)["Status"] in ("starting", "unhealthy") and health(box)["Log"] != before
    until(box, "unhealthy")


@pytest.mark.skipif("freezer" not in cgroup_mounts() and layout() != "v2", reason="needs a freezer")
def test_a_paused_container_is_not_checked(client: Client) -> None:
    box = run(client, "sleep 0.2", health_timeout=0.5)
    until(box, "healthy")
    box.pause()
    time.sleep(1)
    before = health(box)["Log"]
    time.sleep(0.5)
    assert health(box)["Log"] == before and health(box)["Status"] == "healthy"
    box.unpause()
    checks(box, 2)
    assert health(box)["Status"] == "healthy"


# What is done about it


def test_on_failure_kill(client: Client) -> None:
    box = run(client, "false", health_retries=1, health_on_failure="kill")
    assert box.wait() == 137 and health(box)["Status"] == "unhealthy"


def test_on_failure_stop_is_an_end_that_was_asked_for(client: Client) -> None:
    more: dict[str, Any] = {"health_retries": 1, "health_on_failure": "stop", "restart": "always"}
    box = run(client, "false", "trap 'exit 3' TERM; while :; do sleep 0.01; done", **more)
    assert box.wait() == 3
    time.sleep(0.3)
    assert box.status == "exited" and box.inspect()["RestartCount"] == 0


def test_on_failure_stop_kills_who_does_not_listen(client: Client) -> None:
    more: dict[str, Any] = {"health_retries": 1, "health_on_failure": "stop", "stop_timeout": 1}
    box = run(client, "false", "trap '' TERM; while :; do sleep 0.01; done", **more)
    assert box.wait() == 137


@pytest.mark.parametrize("policy", ["no", "on-failure"])
def test_on_failure_restart_makes_it_again(client: Client, policy: str) -> None:
    """It is well at its second start: its files are still there."""
    more: dict[str, Any] = {"health_retries": 1, "health_on_failure": "restart", "restart": policy}
    script = "test -e /first && touch /healthy; touch /first; trap 'exit 0' TERM; while :; do sleep 0.01; done"
    box = run(client, FILE, script, **more)
    until(box, "healthy")
    assert box.inspect()["RestartCount"] == 1 and box.status == "running"
    box.stop(timeout=60)
    time.sleep(0.3)
    assert (box.status, box.exit_code) == ("exited", 0), "who asks for an end gets one"


# Whoever is killed


@pytest.mark.parametrize("which", [0, 1])
def test_checks_go_on_after_the_death_of_holder_or_keeper(client: Client, which: int) -> None:
    box = run(client, f"sleep 0.05; {FILE}", health_retries=3)
    for _ in range(5):
        checks(box, 1)
        os.kill(pids()[which], signal.SIGKILL)
    until(box, "unhealthy")
    box.exec(["touch", "/healthy"])
    os.kill(pids()[which], signal.SIGKILL)
    until(box, "healthy")
    assert len(box.exec(["sh", "-c", "ls -d /proc/[0-9]*/"]).output.split()) <= 5, "no check is left over"
    answer, _ = client.engine.keeper.ask({"op": "info"})
    assert answer["jobs"] <= 2, "the container, and at most one check"


def test_a_keeper_that_dies_before_it_acts_is_followed_by_one_that_does(client: Client) -> None:
    """What is known is written before anything is done about it."""
    box = run(client, FILE, health_retries=1, health_interval=1, health_on_failure="restart")
    # as a keeper leaves it that is killed right behind its record
    now = time.time_ns()
    known = dumps(encode(State("unhealthy", 1, (Result(now, now, 1, ""),))))
    client.engine.db.execute("UPDATE containers SET health='unhealthy', checks=? WHERE id=?", (known, box.id))
    os.kill(pids()[1], signal.SIGKILL)
    deadline = time.monotonic() + 30
    while box.inspect()["RestartCount"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_many_at_once(client: Client) -> None:
    boxes = [run(client, "exit $(cat /n)", f"echo {n % 2} > /n; exec sleep 100", health_retries=1) for n in range(6)]
    for number, box in enumerate(boxes):
        until(box, "unhealthy" if number % 2 else "healthy")
