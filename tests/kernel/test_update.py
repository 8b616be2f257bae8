"""top and update: a container's processes, and other limits while it runs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cloche.engine.containers import Engine
from cloche.errors import Error
from cloche.runtime import limits
from cloche.sdk import Client
from commands import cloche, ok
from probes import layout, requires

pytestmark = [requires("root", "overlay"), pytest.mark.usefixtures("store")]
V2 = layout() == "v2"
LISTS = shutil.which("ps") and not subprocess.run(["ps", "-ef"], capture_output=True).returncode
with_ps = pytest.mark.skipif(not LISTS, reason="needs a ps that lists processes here")


def box(*flags: str, name: str = "box") -> None:
    ok("run", "-d", "--name", name, "--network", "none", *flags, "starter", "sleep", "1000")


def limit(old: str, new: str, name: str = "box") -> str:
    """The content of a limit's file, as the container's group has it."""
    engine = Engine()
    controller = old.partition(".")[0]
    tree = next(h for h in engine.host.cgroups.hierarchies if controller in h.controllers)
    found = Path(tree.path + engine.store.cgroup(engine.find(name).id) + "/" + (new if V2 else old))
    engine.close()
    return found.read_text().strip()


# top


@with_ps
def test_top_lists_the_processes_of_the_container_alone() -> None:
    box()
    box(name="other")
    ok("exec", "-d", "box", "sleep", "2000")
    time.sleep(0.1)
    titles, *rows = ok("top", "box").splitlines()
    assert titles.split()[:3] == ["UID", "PID", "PPID"]
    assert sorted(row.split("   ")[-1].strip() for row in rows) == ["sleep 1000", "sleep 2000"]
    assert ok("top", "box", "-o", "pid,args").splitlines()[1].split()[1:] == ["sleep", "1000"]
    assert ok("top", "box", "aux").splitlines()[0].split()[:2] == ["USER", "PID"]
    for words, cause in {
        ("-o", "args"): "Couldn't find PID field",
        ("--nonsense",): "ps --nonsense",
    }.items():
        result = cloche("top", "box", *words)
        assert result.code == 1 and cause in result.err, result
    ok("kill", "other")
    ok("wait", "other")
    assert "it is not running" in cloche("top", "other").err


@with_ps
def test_hostile_names_of_processes_are_shown_escaped() -> None:
    ok(
        "run",
        "-d",
        "--name",
        "box",
        "--network",
        "none",
        "starter",
        "sh",
        "-c",
        "exec sleep 1000 2>/dev/null \"$(printf '\\033[31m')\" || :",
    )
    assert "\033" not in cloche("top", "box").out


@with_ps
def test_top_of_a_paused_container_and_from_python(store: Path) -> None:
    with Client(str(store)) as client:
        one = client.run("starter", ["sleep", "1000"], detach=True, network="none")
        found = one.top(["-o", "pid,comm"])
        assert found.titles == ("PID", "COMMAND")
        assert found.processes == ((str(one.pid), "sleep"),)


# update


@requires("cgroup:memory", "cgroup:cpu", "cgroup:pids")
def test_limits_change_at_once_and_stay_for_the_next_start() -> None:
    box("-m", "64m", "--pids-limit", "20")
    flags = ["-m", "96m", "--memory-swap", "200m", "--cpus", "0.5", "--cpu-shares", "512", "--pids-limit", "30"]
    assert ok("update", *flags, "--memory-reservation", "32m", "box") == "box"

    def check() -> None:
        assert limit("memory.limit_in_bytes", "memory.max") == str(96 << 20)
        assert limit("memory.soft_limit_in_bytes", "memory.low") == str(32 << 20)
        assert limit("cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
        assert limit("cpu.shares", "cpu.weight") in ("512", "20")
        assert limit("pids.max", "pids.max") == "30"

    check()
    form = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}"
    assert ok("inspect", "-f", form, "box") == f"{96 << 20} {200 << 20} 500000000 30"
    ok("restart", "-t", "0", "box")
    check()
    ok("update", "--pids-limit", "-1", "box")
    assert limit("pids.max", "pids.max") == "max"
    assert limit("memory.limit_in_bytes", "memory.max") == str(96 << 20), "what is not given stays"


@requires("cgroup:memory")
def test_memory_up_and_down_and_up() -> None:
    """Version 1 refuses more memory than memory and swap, whatever the order in which they are given."""
    box("-m", "64m")
    for memory, both in ((256, 512), (32, 32), (128, 128), (64, -1), (100, 128)):
        swap = str(both) if both < 0 else f"{both}m"
        ok("update", "-m", f"{memory}m", "--memory-swap", swap, "box")
        assert limit("memory.limit_in_bytes", "memory.max") == str(memory << 20)
    refused = cloche("update", "-m", "512m", "box")
    assert refused.code == 1 and "already set memoryswap limit" in refused.err
    assert limit("memory.limit_in_bytes", "memory.max") == str(100 << 20)


@requires("cgroup:memory")
def test_what_cannot_be_meant_changes_nothing() -> None:
    box("-m", "64m")
    before = ok("inspect", "-f", "{{json .HostConfig}}", "box")
    for words, cause in {
        (): "no limit is given",
        ("-m", "1m"): "6MB",
        ("-m", "lots"): "invalid size",
        ("--cpus", "1000"): "range of CPUs",
        ("--cpuset-cpus", "999"): "CPUs" if not V2 else "",
        ("--restart", "sometimes"): "invalid restart policy",
        ("--cpu-quota", "5"): "less than 1ms",
        ("--kernel-memory", "1g"): "--kernel-memory is not there yet",
        ("--pids-limit", "-3"): "negative",
    }.items():
        result = cloche("update", *words, "box")
        assert result.code != 0 and cause in result.err, result
    assert ok("inspect", "-f", "{{json .HostConfig}}", "box") == before
    both = cloche("update", "-m", "32m", "none", "box")
    assert both.code == 1 and both.out == "box\n" and "No such container: none" in both.err


@requires("cgroup:memory", "cgroup:pids")
def test_a_refused_write_takes_all_back(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(str(store)) as client:
        one = client.run(
            "starter", ["sleep", "1000"], detach=True, network="none", name="box", memory="64m", pids_limit=9
        )
        real = limits._ordered
        bad = "/sys/fs/cgroup/none/pids.max"

        def spoiled(steps: object) -> object:
            found = real(steps)
            return [*found, found[-1].replace(path=bad)]

        with monkeypatch.context() as spoiling, pytest.raises(Error):
            spoiling.setattr(limits, "_ordered", spoiled)
            one.update(memory="32m", pids_limit=5)
        assert limit("memory.limit_in_bytes", "memory.max") == str(64 << 20)
        assert limit("pids.max", "pids.max") == "9"
        assert one.inspect()["HostConfig"]["PidsLimit"] == 9
        one.update(memory="32m", pids_limit=5)
        assert (limit("pids.max", "pids.max"), one.inspect()["HostConfig"]["Memory"]) == ("5", 32 << 20)


@requires("cgroup:pids")
def test_a_container_that_does_not_run_gets_them_at_its_start() -> None:
    ok("create", "--name", "box", "--network", "none", "starter", "sleep", "1000")
    ok("update", "--pids-limit", "11", "box")
    assert re.search("11", ok("inspect", "-f", "{{.HostConfig.PidsLimit}}", "box"))
    ok("start", "box")
    assert limit("pids.max", "pids.max") == "11"


@requires("cgroup:cpu")
def test_one_way_of_limiting_cpus_takes_the_place_of_the_other() -> None:
    box("--cpus", "0.5")
    ok("update", "--cpu-period", "50000", "--cpu-quota", "20000", "box")
    assert limit("cpu.cfs_quota_us", "cpu.max").split()[0] == "20000"
    assert limit("cpu.cfs_period_us", "cpu.max").split()[-1] == "50000"
    assert ok("inspect", "-f", "{{.HostConfig.NanoCpus}} {{.HostConfig.CpuQuota}}", "box") == "0 20000"
    ok("update", "--cpus", "1", "box")
    assert limit("cpu.cfs_quota_us", "cpu.max").split()[0] == "100000"
    assert ok("inspect", "-f", "{{.HostConfig.NanoCpus}} {{.HostConfig.CpuPeriod}}", "box") == "1000000000 0"


def test_another_restart_policy_while_it_runs(store: Path) -> None:
    """Also when the keeper dies behind the change."""
    with Client(str(store)) as client:
        one = client.run("starter", ["sleep", "1000"], detach=True, network="none", name="box")
        one.update(restart="on-failure:1")
        assert one.inspect()["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 1}
        os.kill(client.engine.keeper.ask({"op": "info"})[0]["keeper"], signal.SIGKILL)
        first = one.pid
        os.kill(first, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while one.pid in (0, first):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert one.inspect()["RestartCount"] == 1
        one.update(restart="no")
        os.kill(one.pid, signal.SIGKILL)
        assert one.wait() == 137 and one.status == "exited"
        other = client.run("starter", ["sleep", "1000"], detach=True, network="none", remove=True)
        with pytest.raises(Error, match="--rm"):
            other.update(restart="always")
