"""The fixtures for other people's tests: containers are gone when the tests are, however these end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import cloche

pytestmark = [pytest.mark.one_lane, pytest.mark.requires("root", "overlay"), pytest.mark.usefixtures("store")]

TESTS = """
import os, signal, sys

OPTIONS = {"network": "none"}

def test_good(cloche_container):
    box = cloche_container("starter", ["sleep", "1000"], name="good", **OPTIONS)
    assert box.status == "running" and box.exec("hostname").exit_code == 0
    assert cloche_container("starter", ["true"], start=False, **OPTIONS).status == "created"

def test_good_is_gone(cloche_client, cloche_container_module, cloche_container_session):
    assert cloche_client.containers(all=True) == []
    cloche_container_module("starter", ["sleep", "1000"], name="module", **OPTIONS)
    cloche_container_session("starter", ["sleep", "1000"], name="session", labels={"a": "b"}, **OPTIONS)

def test_longer_lives(cloche_client):
    assert {box.name for box in cloche_client.containers()} == {"module", "session"}

def test_bad(cloche_container):
    script = "echo its last words; printf '\\\\033[31mred'; exit 3"
    box = cloche_container("starter", ["sh", "-c", script], name="bad", **OPTIONS)
    box.wait()
    assert os.environ["HOW"] != "bad"

def test_ended(cloche_container):
    cloche_container("starter", ["sleep", "1000"], name="left", **OPTIONS)
    os.kill(os.getpid(), {"int": signal.SIGINT, "kill": signal.SIGKILL}.get(os.environ["HOW"], 0))
"""


def run(place: Path, how: str) -> subprocess.CompletedProcess[str]:
    (place / "test_theirs.py").write_text(TESTS)
    (place / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")
    environ = {**os.environ, "HOW": how}
    command = [sys.executable, "-m", "pytest", "-v", str(place)]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, env=environ, cwd=place)


def left() -> list[str]:
    with cloche.Client() as client:
        return [box.name for box in client.containers(all=True)]


def test_containers_live_as_long_as_their_fixture(tmp_path: Path) -> None:
    ran = run(tmp_path, "well")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert left() == []


def test_what_they_wrote_is_in_the_report_of_a_test_that_fails(tmp_path: Path) -> None:
    ran = run(tmp_path, "bad")
    assert ran.returncode == 1
    report = ran.stdout.partition("test_bad _")[2]
    assert "cloche logs bad (exited)" in report and "cloche logs module (running)" in report
    assert "\nits last words\n\\x1b[31mred\n" in report, report
    assert left() == []


def test_a_run_that_is_interrupted_leaves_none(tmp_path: Path) -> None:
    assert run(tmp_path, "int").returncode == 2
    assert left() == []


def test_what_a_killed_run_leaves_is_removed_by_the_next(tmp_path: Path) -> None:
    assert run(tmp_path, "kill").returncode == -signal.SIGKILL
    assert set(left()) == {"left", "module", "session"}
    with cloche.Client() as client:
        client.create("starter", ["true"], name="mine", network="none", labels={"org.cloche.pytest": "nonsense"})
    ran = run(tmp_path, "well")
    assert ran.returncode == 1, "a container that is not theirs is there, and stays"
    assert left() == ["mine"]
