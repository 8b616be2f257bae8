"""The SDK does what the command line does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
