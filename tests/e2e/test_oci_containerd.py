"""containerd with the runtime under test, by ctr."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e.engines import CONTAINERD, NEEDED, Containerd, containerd
from e2e.places import IMAGE, cgroup_files, exists, frozen, links, memory_limit
from leftovers import end_processes
from screens import PROMPT, eventually

pytestmark = [
    pytest.mark.requires(*NEEDED, *CONTAINERD),
    pytest.mark.timeout(120),
    pytest.mark.one_lane,
]
TRAPS = "trap 'echo ended; exit 7' TERM; trap 'echo user > /said' USR1; echo > /ready; while :; do sleep 0.05; done"


@pytest.fixture(scope="module")
def engine() -> Iterator[Containerd]:
    with containerd() as started:
        yield started


@contextmanager
def running(engine: Containerd, name: str, *flags: str, script: str = TRAPS) -> Iterator[int]:
    """A container until the block ends; gives the id of its first process."""
    done = engine.run("--detach", *flags, IMAGE, name, "sh", "-c", script)
    try:
        assert done.code == 0, done
        eventually(lambda: inside(engine, name, "test -e /ready").code == 0, f"{name} is ready")
        yield tasks(engine)[name][0]
    finally:
        engine("tasks", "delete", "--force", name)
        engine("containers", "delete", name)


def inside(engine: Containerd, name: str, script: str, *flags: str) -> Any:
    """A script beside a container's program."""
    return engine("tasks", "exec", "--exec-id", f"e{os.urandom(4).hex()}", *flags, name, "sh", "-c", script)


def tasks(engine: Containerd) -> dict[str, tuple[int, str]]:
    """The process and the state of each task."""
    lines = [line.split() for line in engine.ok("tasks", "list").splitlines()[1:]]
    return {name: (int(pid), state) for name, pid, state in lines}


def test_output_and_exit_code_are_the_programs(engine: Containerd) -> None:
    done = engine.run("--rm", IMAGE, "one", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.code, done.out, done.err) == (3, "out\n", "err\n")
    assert tasks(engine) == {} and engine.ok("containers", "list", "--quiet") == ""
    assert engine.place.containers() == []


@pytest.mark.parametrize(
    ("flags", "command", "said"),
    [
        ((), "/nonexistent", "no such file"),
        ((), "nonexistent", "not found"),
        ((), "/etc/passwd", "permission denied"),
        (("--cwd", "/etc/passwd"), "true", "/etc/passwd"),
        (("--mount", "type=bind,src=/nonexistent,dst=/x,options=rbind"), "true", "/nonexistent"),
        (("--with-ns", "ipc:/nonexistent"), "true", "/nonexistent"),
    ],
)
def test_what_cannot_be_started_says_why_and_leaves_nothing(
    engine: Containerd, flags: tuple[str, ...], command: str, said: str
) -> None:
    failed = engine.run("--rm", *flags, IMAGE, "failed", command)
    assert failed.code == 1 and failed.out == ""
    assert "OCI runtime create failed: " in failed.err and said in failed.err.lower() and "level=" not in failed.err
    assert tasks(engine) == {} and engine.place.containers() == []
    engine("containers", "delete", "failed")


def test_the_first_runc_on_path_is_used_where_no_other_is_named(engine: Containerd) -> None:
    """And a container may be made first and its task started later."""
    engine.ok("containers", "create", IMAGE, "later", "cat", "/etc/hostname", "/etc/passwd")
    started = engine("tasks", "start", "later")
    assert started.code == 1 and started.out.startswith("root:x:0:0:")
    engine.ok("containers", "delete", "later")


def test_exec_runs_beside_it_with_output_and_exit_code(engine: Containerd) -> None:
    with running(engine, "box"):
        done = inside(engine, "box", "echo out; echo err >&2; exit 4")
        assert (done.code, done.out, done.err) == (4, "out\n", "err\n")
        assert inside(engine, "box", "id -u; pwd", "--user", "7:8", "--cwd", "/tmp").out.split() == ["7", "/tmp"]
        failed = engine("tasks", "exec", "--exec-id", "none", "box", "/nonexistent")
        assert failed.code == 1 and "OCI runtime exec failed: " in failed.err and "no such file" in failed.err
        said = inside(engine, "box", f"{links()}; {links('1')}").out.split()
        assert len(said) == 10 and said[:5] == said[5:]


def test_kill_sends_any_signal_to_one_or_to_all(engine: Containerd) -> None:
    with running(engine, "box", "--with-ns", "pid:/proc/self/ns/pid") as pid:
        engine.ok("tasks", "kill", "--signal", "SIGUSR1", "box")
        eventually(lambda: inside(engine, "box", "cat /said").out == "user\n", "the signal arrives")
        groups = cgroup_files(pid, "pids") / "cgroup.procs"
        engine.ok("tasks", "exec", "--detach", "--exec-id", "beside", "box", "sleep", "1000")
        eventually(lambda: any(is_sleep(word, "1000") for word in groups.read_text().split()), "it sleeps")
        processes = [int(word) for word in groups.read_text().split()]
        engine.ok("tasks", "kill", "--all", "--signal", "SIGKILL", "box")
        eventually(lambda: not any(exists(number) for number in processes), "all have ended")
        eventually(lambda: tasks(engine)["box"][1] == "STOPPED", "the task has stopped")
        deleted = engine("tasks", "delete", "box")
        assert deleted.code == 0 and "137" in deleted.err


def is_sleep(pid: str, seconds: str) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text() == f"sleep\0{seconds}\0"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_sigterm_ends_it_with_its_own_code(engine: Containerd) -> None:
    with running(engine, "box"):
        engine.ok("tasks", "kill", "--signal", "SIGTERM", "box")
        eventually(lambda: tasks(engine)["box"][1] == "STOPPED", "it has ended")
        assert "exit code 7" in engine("tasks", "delete", "box").err
        assert engine("tasks", "kill", "box").code != 0


def test_paused_it_is_frozen_and_goes_on_afterwards(engine: Containerd) -> None:
    with running(engine, "box") as pid:
        engine.ok("tasks", "pause", "box")
        assert frozen(pid) and tasks(engine)["box"] == (pid, "PAUSED")
        engine.ok("tasks", "resume", "box")
        assert not frozen(pid) and tasks(engine)["box"] == (pid, "RUNNING")
        assert inside(engine, "box", "echo here").out == "here\n"


def test_ps_and_metrics_show_its_processes_and_its_limits(engine: Containerd) -> None:
    with running(engine, "box", "--memory-limit", str(64 << 20), "--cpus", "0.5") as pid:
        assert str(pid) in re.findall(r"^\d+", engine.ok("tasks", "ps", "box"), re.MULTILINE)
        shown = json.loads(engine.ok("tasks", "metrics", "--format", "json", "box"))
        assert str(64 << 20) in json.dumps(shown) and memory_limit(pid) == 64 << 20
        assert f"/{engine.place.name}/box" in str(cgroup_files(pid, "memory"))


def test_a_shell_on_a_terminal(engine: Containerd) -> None:
    ours = ("--runc-binary", engine.place.runtime, "--runc-root", f"{engine.place.root}/runtime")
    with engine.screen("run", *ours, "--rm", "--tty", IMAGE, "shell", "sh") as screen:
        screen.until(PROMPT)
        assert screen.ask("tty") == "/dev/pts/0"
        eventually(lambda: screen.ask("stty size") == "24 80", "the terminal has the client's size")
        screen.resize(40, 132)
        eventually(lambda: screen.ask("stty size") == "40 132", "it has the new size")
        screen.type("exit 9\r")
        assert screen.ended() == 9


def test_exec_on_a_terminal(engine: Containerd) -> None:
    with running(engine, "box"):
        with engine.screen("tasks", "exec", "--exec-id", "shell", "--tty", "box", "sh") as screen:
            screen.until(PROMPT)
            assert screen.ask("tty").startswith("/dev/pts/")
            screen.type("exit 6\r")
            assert screen.ended() == 6


def test_it_is_isolated_as_the_flags_say(engine: Containerd, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content\n")
    flags = [
        *("--read-only", "--cap-add", "CAP_SYS_ADMIN", "--env", "A=b", "--cwd", "/tmp", "--seccomp", "--net-host"),
        *("--mount", f"type=bind,src={tmp_path},dst=/given,options=rbind:ro"),
    ]
    script = (
        "touch /no 2>&1; echo $A; pwd; cat /given/file; touch /given/no 2>&1;"
        "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | cut -f2; readlink /proc/self/ns/net"
    )
    said = engine.run("--rm", *flags, IMAGE, "box", "sh", "-c", script).out.splitlines()
    assert said[0].endswith("Read-only file system") and said[4].endswith("Read-only file system")
    assert [*said[1:4], *said[5:]] == ["b", "/tmp", "content", "1", "2", os.readlink("/proc/self/ns/net")]


def test_a_user_namespace_maps_ids(engine: Containerd) -> None:
    flags = ("--uidmap", "0:100000:2000", "--gidmap", "0:200000:2000")
    done = engine.run("--rm", *flags, IMAGE, "box", "sh", "-c", "cat /proc/self/uid_map /proc/self/gid_map")
    assert done.out.split() == ["0", "100000", "2000", "0", "200000", "2000"], done


def test_two_at_once_do_not_know_of_each_other(engine: Containerd) -> None:
    with running(engine, "one") as first, running(engine, "two") as second:
        assert {name: pid for name, (pid, _) in tasks(engine).items()} == {"one": first, "two": second}
        inside(engine, "one", "touch /mine")
        assert inside(engine, "two", "test -e /mine").code == 1
        engine.ok("tasks", "pause", "one")
        assert inside(engine, "two", "echo here").out == "here\n" and not frozen(second)
        engine.ok("tasks", "resume", "one")
    assert not exists(first) and not exists(second)


def test_a_container_outlives_containerd(engine: Containerd) -> None:
    with running(engine, "box") as pid:
        engine.daemon.end(signal.SIGKILL)
        assert exists(pid)
        engine.daemon.start()
        assert tasks(engine)["box"] == (pid, "RUNNING")
        assert inside(engine, "box", "echo here").out == "here\n"
        engine.ok("tasks", "kill", "--signal", "SIGTERM", "box")
        eventually(lambda: tasks(engine)["box"][1] == "STOPPED", "it has ended")


def test_a_container_whose_shim_is_killed_is_taken_away(engine: Containerd) -> None:
    with running(engine, "box") as pid:
        groups = cgroup_files(pid, "pids")
        shim = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert "containerd-shim" in Path(f"/proc/{shim}/cmdline").read_text()
        end_processes([shim], signal.SIGKILL)
        eventually(lambda: not exists(pid) and not groups.exists(), "it is gone with its control groups")
        eventually(lambda: engine.place.containers() == [], "the runtime has forgotten it")
