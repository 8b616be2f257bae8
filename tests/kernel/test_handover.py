"""A newer cloche takes over from a keeper that runs, by exec: its containers, clients and logs notice nothing."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import cloche as package
from cloche.engine.waiting import Endings
from cloche.sdk import Client
from commands import COMMAND, cloche, ok

pytestmark = [pytest.mark.requires("root", "overlay"), pytest.mark.usefixtures("store")]
WRITER = "i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo line $i; sleep 0.02; done; exit 7"


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """The source tree of a version that this one does not know."""
    tree = tmp_path / "newer"
    shutil.copytree(Path(package.__file__).parent, tree / "cloche", ignore=shutil.ignore_patterns("__pycache__"))
    protocol = tree / "cloche/engine/protocol.py"
    text, changed = re.subn(r"(?m)^VERSION = \d+", "VERSION = 1000000", protocol.read_text())
    assert changed == 1
    protocol.write_text(text)
    return tree


def command(tree: Path) -> list[str]:
    start = f"import sys; sys.path.insert(0, {str(tree)!r}); from cloche.cli.main import program; program()"
    return [sys.executable, "-I", "-S", "-B", "-c", start]


def by(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command(tree), *words], capture_output=True, text=True, timeout=60)


def pids() -> list[int]:
    return [int(pid) for pid in Path(os.environ["CLOCHE_ROOT"], "run/keeper/pids").read_text().split()]


def program_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[4].decode()


def test_containers_live_on_and_nothing_is_lost(newer: Path) -> None:
    ok("run", "-d", "--name", "writer", "starter", "sh", "-c", WRITER)
    ok("run", "-d", "-t", "--name", "screen", "starter", "sh", "-c", WRITER)
    ok("run", "-di", "--name", "reader", "starter", "cat")
    with subprocess.Popen([*COMMAND, "run", "--rm", "-i", "starter", "cat"], stdin=-1, stdout=-1, text=True) as before:
        assert before.stdin
        assert before.stdout
        before.stdin.write("one\n")
        before.stdin.flush()
        assert before.stdout.readline() == "one\n"
        running = ok("exec", "-d", "writer", "sleep", "1000")
        assert running == ""
        holder, keeper = pids()
        done = by(newer, "run", "--rm", "starter", "echo", "new")
        assert (done.returncode, done.stdout, done.stderr) == (0, "new\n", "")
        assert pids()[0] == holder, "the same process, another program"
        assert pids()[1] != keeper
        assert all(program_of(pid) == f"{newer}/cloche/engine/holder.py" for pid in pids())
        before.stdin.write("two\n")
        before.stdin.close()
        assert before.stdout.read() == "two\n", "a client of before goes on with its container"
        assert before.wait(30) == 0
    waited = by(newer, "wait", "writer", "screen")
    assert (waited.stdout.split(), waited.stderr) == (["7", "7"], "")
    lines = [f"line {i}" for i in range(1, 101)]
    assert ok("logs", "writer").splitlines() == lines
    assert ok("logs", "screen").splitlines() == lines
    assert by(newer, "exec", "reader", "echo", "in").stdout == "in\n"
    assert ok("stop", "-t", "0", "reader") == "reader"
    assert by(newer, "ps", "-aq", "--filter", "status=running").stdout == ""


def test_the_older_one_is_told_to_update(newer: Path) -> None:
    assert by(newer, "run", "-d", "--name", "box", "starter", "sleep", "1000").returncode == 0
    refused = cloche("run", "--rm", "starter", "true")
    assert refused.code == 125
    assert "is older" in refused.err
    assert "is older" in cloche("exec", "box", "true").err
    assert ok("ps", "--format", "{{.Names}}") == "box", "what needs no plan goes on"
    assert ok("rm", "-f", "box") == "box"


def test_a_program_that_cannot_begin_does_not_take_over(newer: Path) -> None:
    ok("run", "-d", "--name", "box", "starter", "sleep", "1000")
    before = pids()
    loop = newer / "cloche/engine/loop.py"
    loop.write_text("raise RuntimeError('broken on purpose')\n" + loop.read_text().replace("from __future__", "# "))
    refused = by(newer, "run", "--rm", "starter", "true")
    assert refused.returncode == 125
    assert "cannot take over" in refused.stderr
    assert "broken on purpose" in Path(os.environ["CLOCHE_ROOT"], "run/keeper/log").read_text()
    assert pids() == before
    assert ok("exec", "box", "echo", "here") == "here"


def test_kills_on_the_way_lose_nothing(newer: Path) -> None:
    """The keeper, or the holder, dies before, while or after it hands over."""
    ok("run", "-d", "--name", "writer", "starter", "sh", "-c", WRITER)
    for which in (0, 1):
        with subprocess.Popen(
            [*command(newer), "run", "--rm", "starter", "echo", "new"], stdout=-1, text=True
        ) as asking:
            with Client(os.environ["CLOCHE_ROOT"]):
                os.kill(pids()[which], signal.SIGKILL)
            out, _ = asking.communicate(timeout=60)
        assert (asking.returncode, out) == (0, "new\n")
    assert by(newer, "wait", "writer").stdout == "7\n"
    assert ok("logs", "writer").splitlines() == [f"line {i}" for i in range(1, 101)]


def test_who_waits_replaces_a_keeper_that_does_not_say_whose_end_it_is(tmp_path: Path) -> None:
    """A connection is for many waits only since answers bear an id."""
    tree = tmp_path / "older"
    shutil.copytree(Path(package.__file__).parent, tree / "cloche", ignore=shutil.ignore_patterns("__pycache__"))
    for file, pattern, other in (
        ("protocol", r"(?m)^VERSION = \d+", "VERSION = 3"),
        ("answers", r'"reason": reason, "id": ident}', '"reason": reason}'),
    ):
        path = tree / f"cloche/engine/{file}.py"
        text, changed = re.subn(pattern, other, path.read_text())
        assert changed == 1
        path.write_text(text)
    for number in (3, 4):
        script = f"while [ ! -e /end ]; do sleep 0.02; done; exit {number}"
        done = by(tree, "run", "-d", "--name", f"box{number}", "starter", "sh", "-c", script)
        assert done.returncode == 0, done.stderr
    keeper = pids()[1]
    with Client() as client:
        boxes = [client.get(name) for name in ("box3", "box4")]
        endings, found = Endings(client.engine.store), {}
        for box in boxes:
            found |= endings.exchange(box.id)
        for box in boxes:
            box.exec(["touch", "/end"])
        while len(found) < 2:
            assert select.select([endings], [], [], 20)[0]
            found |= endings.exchange()
        assert [found[box.id][0] for box in boxes] == [3, 4]
        assert pids()[1] != keeper
        endings.close()
