"""The SDK does what the command line does."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from time import monotonic, sleep, time

import pytest

import cloche

pytestmark = [pytest.mark.requires("root", "overlay"), pytest.mark.usefixtures("store")]


def test_run_to_the_end() -> None:
    done = cloche.run("starter", ["sh", "-c", "echo out; echo err >&2; exit 3"], network="none", remove=True)
    assert (done.output, done.stdout, done.stderr, done.exit_code) == ("out\n", b"out\n", b"err\n", 3)
    assert done.status == "removed"
    assert cloche.run("starter", ["wc", "-c"], input=b"x" * 500_000, remove=True).output.strip() == "500000"


def test_a_container_as_a_context_manager() -> None:
    with cloche.run("starter", ["sleep", "1000"], detach=True, name="box", memory="64m", env={"A": "b"}) as box:
        assert box.status == "running"
        ran = box.exec(["sh", "-c", "cat; echo $A; exit 4"], input=b"typed ")
        assert (ran.exit_code, ran.output, ran.stderr) == (4, "typed b\n", b"")
        assert cloche.get("box").id == box.id
        assert [c.name for c in cloche.containers()] == ["box"]
        assert box.inspect()["HostConfig"]["Memory"] == 64 << 20
        assert len(box.plan().acts) > 60
        box.kill("TERM")
        box.stop(timeout=0)
        assert box.wait() == 137
    assert box.status == "removed"


def test_create_start_logs() -> None:
    box = cloche.create("starter", ["sh", "-c", "echo one; echo two"])
    assert (box.status, box.exit_code) == ("created", None)
    assert box.start().wait() == 0
    assert list(box.logs()) == ["one", "two"]
    assert list(box.logs(tail=1)) == ["two"]
    box.remove()


def test_errors_are_typed_and_leave_nothing() -> None:
    with pytest.raises(cloche.CommandNotFound, match="nosuch"):
        cloche.run("starter", ["nosuch"], remove=True)
    with pytest.raises(cloche.NotFound, match="No such image"):
        cloche.run("nosuch", ["true"])
    with pytest.raises(cloche.Invalid):
        cloche.run("starter", ["true"], memory="much")
    with pytest.raises(cloche.NotFound):
        cloche.run("starter", ["true"], network="mine")
    with pytest.raises(TypeError, match="bogus"):
        cloche.run("starter", ["true"], bogus=1)  # type: ignore[call-arg]
    with pytest.raises(cloche.NotFound):
        cloche.get("nosuch")
    assert cloche.containers(all=True) == []


def test_importing_it_costs_nothing() -> None:
    source = str(Path(cloche.__file__).parents[1])
    script = (
        f"import sys; sys.path.insert(0, {source!r}); a = len(sys.modules); import cloche; print(len(sys.modules) - a)"
    )
    count = int(
        subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True).stdout
    )
    assert count < 8


def test_logs_as_they_come() -> None:
    script = "echo one; sleep 0.2; echo two >&2; sleep 0.2; printf three"
    with cloche.run("starter", ["sh", "-c", script], network="none", detach=True) as box:
        began = time()
        lines = box.logs(follow=True)
        assert next(lines) == "one" and time() - began < 0.3
        assert list(lines) == ["two", "three"]
        stamps = [line.split(" ")[0] for line in box.logs(timestamps=True)]
        assert list(box.logs(since=stamps[1])) == ["two", "three"]
        assert list(box.logs(until=datetime.fromisoformat(stamps[0][:23] + "+00:00").timestamp() + 0.01)) == ["one"]
    with cloche.run("starter", ["sh", "-c", "echo x; sleep 1000"], network="none", detach=True) as box:
        assert list(box.logs(follow=True, until=time() + 0.3)) == ["x"], "until is the end of following"
        for _ in box.logs(follow=True):
            assert box.exec("true").exit_code == 0, "other calls go on beside it"
            break


def test_stats_as_they_come() -> None:
    with cloche.run("starter", ["sh", "-c", "sleep 0.3"], network="none", detach=True) as box:
        looks = list(box.stats_stream(every=0.05))
        assert 3 <= len(looks) <= 12


def test_events_as_they_come() -> None:
    with cloche.Client() as client:
        client.images.get("starter")
        before = time()
        coming = client.events(filters={"type": "container", "event": ["start", "die"]})
        with client.run("starter", ["true"], network="none", name="box", detach=True) as box:
            assert [next(coming).action for _ in range(2)] == ["start", "die"]
            box.wait()
        past = [e.action for e in client.events(since=before, until=time(), filters={"container": "box"})]
        assert past == ["create", "start", "die", "destroy"]
        with pytest.raises(cloche.Invalid, match="filter color=blue"):
            client.events(filters={"color": "blue"})


def test_images() -> None:
    with cloche.Client() as client:
        image = client.images.get("starter")
        image.tag("mine:1")
        assert image.tags == ["mine:1", "starter:latest"] and image.size > 0
        assert client.images.tag("mine:1", "mine:2").id == image.id == client.images.get("mine:2").inspect()["Id"]
        assert client.images.remove("mine:2").untagged == ("mine:2",)
        assert "<table>" in client.images.list()._repr_html_()
        with pytest.raises(cloche.NotFound):
            client.images.load("/nowhere.tar")
        assert client.images.prune(all=True).size > 0
        assert client.images.list() == []


@pytest.mark.requires("nf_tables")
def test_networks() -> None:
    with cloche.Client() as client:
        net = client.networks.create("back", internal=True, subnets=["10.199.7.0/24"], labels={"a": "b"})
        assert (net.subnets, net.internal, net.labels) == (["10.199.7.0/24"], True, {"a": "b"})
        assert [n.name for n in client.networks.list()] == ["back", "bridge", "host", "none"]
        with client.run("starter", ["sleep", "1000"], detach=True, name="box") as box:
            net.connect(box, ip="10.199.7.9", aliases=["other"])
            assert net.users == ["box"] and net.inspect()["Containers"][box.id]["IPv4Address"] == "10.199.7.9/24"
            net.disconnect("box")
            assert client.networks.get("back").users == []
        assert client.networks.prune(filters={"label": "a=c"}) == ()
        assert client.networks.prune() == ("back",)


def test_volumes() -> None:
    with cloche.Client() as client:
        client.volumes.create("kept", labels={"a": "b"})
        client.volumes.create()
        assert len(client.volumes.list()) == 2
        assert len(client.volumes.prune().removed) == 1
        assert client.volumes.prune(all=True, filters={"label!": "a"}).removed == ()
        assert client.volumes.prune(all=True).removed == ("kept",)


def test_an_interrupted_run_is_killed() -> None:
    """Nobody has a handle on it yet."""
    cloche.create("starter", ["true"], network="none").remove()

    def interrupt() -> None:
        with cloche.Client() as client:
            while not client.containers():
                sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    for remove in (True, False):
        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            cloche.run("starter", ["sleep", "1000"], network="none", remove=remove)
        interrupting.join()
        left = cloche.containers(all=True)
        assert [box.status for box in left] == ([] if remove else ["exited"])
        for box in left:
            box.remove()


# an interrupt between an open() and its `with` leaves the file to the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_after_an_interrupt_at_any_moment_all_goes_on(kills: int) -> None:
    """What it had asked for may still be answered, to nobody."""
    armed, interrupted, steps = [False], 0, 20 + kills
    before = signal.signal(signal.SIGUSR1, lambda *_: signal.default_int_handler(2, None) if armed[0] else None)
    cloche.run("starter", ["true"], network="none", remove=True)
    began = monotonic()
    cloche.run("starter", ["true"], network="none", remove=True)
    seconds = monotonic() - began
    try:
        for step in range(steps):
            timer = threading.Timer(seconds * step / steps, os.kill, (os.getpid(), signal.SIGUSR1))
            try:
                armed[0] = True
                timer.start()
                cloche.run("starter", ["true"], network="none", remove=True)
                armed[0] = False
            except KeyboardInterrupt:
                armed[0] = False
                interrupted += 1
            timer.join()
            assert cloche.run("starter", ["echo", "on"], network="none", remove=True).output == "on\n"
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert interrupted
    assert cloche.containers(all=True) == []
    gc.collect()


def test_functions_may_be_called_by_any_thread() -> None:
    cloche.create("starter", ["true"], network="none").remove()

    def one(number: int) -> str:
        return cloche.run("starter", ["echo", str(number)], network="none", remove=True).output

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(24))) == [f"{n}\n" for n in range(24)]
