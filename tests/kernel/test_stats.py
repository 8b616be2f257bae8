"""stats: CPU, memory, processes and traffic of containers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cloche.sdk import Client
from commands import COMMAND, cloche, ok
from probes import layout, requires

pytestmark = [requires("root", "overlay"), pytest.mark.usefixtures("store")]


def box(script: str, *flags: str, name: str = "box") -> None:
    ok("run", "-d", "--name", name, "--network", "none", *flags, "starter", "sh", "-c", script)


def once(*words: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in ok("stats", "--no-stream", "--format", "json", *words).splitlines()]


@requires("cgroup:memory", "cgroup:pids")
def test_fields_are_dockers_and_say_what_is_used() -> None:
    box("while :; do :; done", "-m", "64m", "--pids-limit", "7")
    box("sleep 1000 & sleep 1000; true", name="idle")
    ok("create", "--name", "still", "starter", "true")
    busy = once("box")[0]
    names = {"BlockIO", "CPUPerc", "Container", "ID", "MemPerc", "MemUsage", "Name", "NetIO", "PIDs"}
    assert busy.keys() - {"Pressure"} == names
    if layout() != "v2" or "Pressure" not in busy:
        assert 20 < float(busy["CPUPerc"].rstrip("%")) < 130
    assert busy["MemUsage"].endswith(" / 64MiB")
    assert 0 < float(busy["MemPerc"].rstrip("%")) < 100
    assert (busy["Container"], busy["Name"], busy["PIDs"], busy["NetIO"]) == ("box", "box", "1", "0B / 0B")
    everybody = {each["Name"]: each for each in once()}
    assert everybody.keys() == {"box", "idle"}
    assert float(everybody["idle"]["CPUPerc"].rstrip("%")) < 10
    assert everybody["idle"]["PIDs"] == "3", "the shell and two of its children"
    with_all = {each["Name"]: each for each in once("-a")}
    assert with_all["still"]["CPUPerc"] == "0.00%" and with_all["still"]["PIDs"] == "0"


def test_the_table_and_templates() -> None:
    box("sleep 1000")
    header, line = ok("stats", "--no-stream", "box").splitlines()
    assert header.split("  ")[0] == "CONTAINER ID" and "MEM USAGE / LIMIT" in header
    assert line.split()[1] == "box"
    ident = ok("inspect", "-f", "{{.Id}}", "box")
    assert ok("stats", "--no-stream", "--no-trunc", "--format", "{{.ID}} {{.PIDs}}").split()[0] == ident
    assert cloche("stats", "--no-stream", "none").code == 1


def test_the_stream_goes_on_and_ends() -> None:
    box("sleep 1000")
    with subprocess.Popen([*COMMAND, "stats", "--format", "{{.Name}}"], stdout=subprocess.PIPE) as stream:
        assert stream.stdout is not None
        assert [stream.stdout.readline() for _ in range(2)] == [b"box\n", b"box\n"]
        stream.send_signal(signal.SIGINT)
        stream.stdout.read()
    assert stream.returncode in (0, 130)
    with subprocess.Popen([*COMMAND, "stats", "--format", "{{.Name}}", "box"], stdout=subprocess.PIPE) as stream:
        assert stream.stdout is not None
        stream.stdout.readline()
        ok("rm", "-f", "box")
        stream.stdout.read()
    assert stream.returncode == 0, "what was looked at is gone"


def test_from_python(store: Path) -> None:
    with Client(str(store)) as client:
        one = client.run("starter", ["sh", "-c", "while :; do :; done"], detach=True, network="none")
        first = one.stats()
        time.sleep(0.3)
        second = one.stats()
        if any("cpuacct" in h.controllers or "cpu" in h.controllers for h in client.engine.host.cgroups.hierarchies):
            assert 0 < second.cpu_percent(first) <= 100 * (os.cpu_count() or 1) + 50
        one.remove(force=True)
