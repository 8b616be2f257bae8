"""What podman and docker do alike with the runtime under test: the life of a container, and what runs beside it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from e2e.engines import NEEDED, Boxes, Docker, Podman, engine
from e2e.places import IMAGE, cgroup_files, exists, frozen, links, memory_limit
from screens import PROMPT, eventually

pytestmark = [
    pytest.mark.requires(*NEEDED),
    pytest.mark.timeout(120),
    pytest.mark.one_lane,
]
__all__ = ["engine"]  # a fixture
TRAPS = """
trap 'echo ended; exit 7' TERM
trap 'echo user' USR1
echo ready
while :; do sleep 0.05; done
"""


@pytest.fixture
def box(engine: Boxes) -> Iterator[str]:
    """A container that runs, and says what it is told by signals."""
    with engine.running("box", TRAPS):
        yield "box"


@pytest.fixture
def shell(engine: Boxes) -> Iterator[str]:
    """A name for a container on a terminal, which is gone afterwards."""
    yield "shell"
    engine("rm", "--force", *engine.at_once, "shell")


def test_output_and_exit_code_are_the_programs(engine: Boxes) -> None:
    done = engine.run("--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert done == (3, "out\n", "err\n")


def test_input_reaches_the_program_and_ends(engine: Boxes) -> None:
    text = "line\n" * 20_000
    assert engine.run("--rm", "-i", IMAGE, "wc", "-l", input=text).out.split() == ["20000"]
    assert engine.run("--rm", "-i", IMAGE, "cat", input=text).out == text


@pytest.mark.parametrize(
    ("flags", "command", "code", "said"),
    [
        ((), "/nonexistent", 127, "no such file|not found"),
        ((), "nonexistent", 127, "not found"),
        ((), "/tmp", 126, "permission denied|is a directory"),
        ((), "/etc/passwd", 126, "permission denied"),
        (("--sysctl", "net.ipv4.ip_forward=no"), "true", 125, "ip_forward.*invalid argument"),
        (("--no-such-flag",), "true", 125, "unknown flag"),
    ],
)
def test_what_cannot_be_started_says_why_and_leaves_nothing(
    engine: Boxes, flags: tuple[str, ...], command: str, code: int, said: str
) -> None:
    failed = engine.run("--rm", "--name", "failed", *flags, IMAGE, command)
    if isinstance(engine, Podman) and code == 125 and flags[0] != "--no-such-flag":
        code = 126  # podman's word for what the runtime did not like
    assert failed.code == code and failed.out == ""
    assert re.search(said, failed.err.lower()), failed.err
    assert "Traceback" not in failed.err
    assert engine.ok("ps", "--all", "--quiet") == ""
    assert engine.place.containers() == []


def test_nothing_but_proc_is_mounted_on_proc(engine: Boxes) -> None:
    """Else its files, which the kernel is asked through, could be anybody's: CVE-2019-16884."""
    failed = engine.run("--rm", "--volume", "/etc:/proc", IMAGE, "true")
    assert failed.code in (125, 126) and "/proc" in failed.err, failed


def test_a_detached_container_is_waited_for_and_its_output_kept(engine: Boxes) -> None:
    script = "echo one; echo two >&2; sleep 0.3; exit 5"
    assert engine.run("--detach", "--name", "later", IMAGE, "sh", "-c", script).code == 0
    assert engine.ok("wait", "later") == "5"
    assert engine("logs", "later") == (0, "one\n", "two\n")
    assert engine.status("later") == ("exited", 5)
    eventually(lambda: engine.place.containers() == [], "the runtime has forgotten it")
    engine.ok("rm", "later")


def test_a_container_is_created_first_and_started_again_and_again(engine: Boxes) -> None:
    script = "echo x >> /count; cat /count"
    engine.ok(*engine.making("create", "--name", "again", IMAGE, "sh", "-c", script))
    assert engine.status("again") == ("created", 0)
    assert engine.ok("start", "--attach", "again") == "x"
    assert engine.ok("start", "--attach", "again") == "x\nx"
    engine.ok("restart", "--time", "0", "again")
    assert engine.ok("wait", "again") == "0"
    assert engine.ok("logs", "again") == "x\nx\nx\nx\nx\nx"
    engine.ok("rm", "again")


def test_stop_ends_by_sigterm(engine: Boxes, box: str) -> None:
    engine.ok("stop", "--time", "20", box)
    assert engine.status(box) == ("exited", 7)
    assert engine.ok("logs", box).endswith("ended")


def test_stop_kills_what_does_not_listen(engine: Boxes) -> None:
    with engine.running("deaf", "trap '' TERM; echo ready; while :; do sleep 0.05; done") as pid:
        engine.ok("stop", "--time", "1", "deaf")
        assert engine.status("deaf") == ("exited", 137) and not exists(pid)


def test_kill_sends_any_signal(engine: Boxes, box: str) -> None:
    engine.ok("kill", "--signal", "USR1", box)
    engine.says(box, "user")
    engine.ok("kill", "--signal", "SIGUSR1", box)
    eventually(lambda: engine.ok("logs", box).count("user") == 2, "the second signal arrives")
    engine.ok("kill", box)
    assert engine.ok("wait", box) == "137"
    again = engine("kill", box)
    assert again.code != 0 and re.search("not running|can only kill running", again.err), again


def test_rm_takes_what_runs_with_all_its_processes_only_by_force(engine: Boxes, box: str) -> None:
    pid = int(engine.inspect(box, ".State.Pid"))
    groups = cgroup_files(pid, "memory")
    engine.ok("exec", "--detach", box, "sleep", "1000")
    eventually(lambda: len((groups / "cgroup.procs").read_text().split()) > 2, "the second process is there")
    processes = [int(word) for word in (groups / "cgroup.procs").read_text().split()]
    assert engine("rm", box).code != 0 and exists(pid)
    engine.ok("rm", "--force", box)
    assert not groups.exists() and not any(exists(number) for number in processes[:2])


def test_paused_it_is_frozen_and_goes_on_afterwards(engine: Boxes, box: str) -> None:
    pid = int(engine.inspect(box, ".State.Pid"))
    engine.ok("pause", box)
    assert frozen(pid) and engine.status(box)[0] == "paused"
    assert [known["status"] for known in engine.place.containers()] == ["paused"]
    assert engine("exec", box, "true").code != 0
    assert box in engine.ok("ps", "--filter", "status=paused", "--format", "{{.Names}}")
    engine.ok("unpause", box)
    assert not frozen(pid) and engine.status(box)[0] == "running"
    assert engine.ok("exec", box, "echo", "here") == "here"


def test_a_paused_container_is_removed_by_force(engine: Boxes, box: str) -> None:
    pid = int(engine.inspect(box, ".State.Pid"))
    engine.ok("pause", box)
    engine.ok("rm", "--force", box)
    assert not exists(pid)


def test_update_changes_the_limits_of_what_runs(engine: Boxes, box: str) -> None:
    pid = int(engine.inspect(box, ".State.Pid"))
    engine.ok("update", "--memory", "64m", "--memory-swap", "-1", box)
    assert memory_limit(pid) == 64 << 20
    engine.ok("update", "--cpus", "0.5", box)
    assert memory_limit(pid) == 64 << 20
    if isinstance(engine, Docker):
        engine.ok("update", "--pids-limit", "33", box)
        assert (cgroup_files(pid, "pids") / "pids.max").read_text() == "33\n"


def test_what_needs_more_memory_than_it_may_have_is_killed_and_the_rest_goes_on(engine: Boxes) -> None:
    script = "tail /dev/zero; echo $? ready; sleep 1000"
    with engine.running("hungry", script, "--memory", "16m", "--memory-swap", "16m"):
        assert engine.ok("logs", "hungry").splitlines()[-1] == "137 ready"
        if isinstance(engine, Docker):  # whose daemon is told by the shim, which looks at the control group
            filters = ("--filter", "container=hungry", "--filter", "event=oom")
            eventually(lambda: "oom" in engine.ok("events", "--since", "5m", "--until", "0s", *filters), "it is told")


def test_exec_runs_beside_it_with_output_exit_code_and_input(engine: Boxes, box: str) -> None:
    assert engine("exec", box, "sh", "-c", "echo out; echo err >&2; exit 4") == (4, "out\n", "err\n")
    assert engine.ok("exec", "-i", box, "cat", input="given") == "given"
    script = f"{links()}; {links('1')}; cat /proc/self/cgroup; cat /proc/1/cgroup"
    said = engine.ok("exec", box, "sh", "-c", script).splitlines()
    assert said[:5] == said[5:10] and not set(said) & {os.readlink(f"/proc/self/ns/{k}") for k in ("pid", "mnt", "ipc")}
    half = len(said[10:]) // 2
    assert half and said[10 : 10 + half] == said[10 + half :]


def test_exec_takes_user_environment_and_directory(engine: Boxes, box: str) -> None:
    flags = ("--user", "app", "--env", "GREETING=hello there", "--workdir", "/tmp")
    identity, *said = engine.ok("exec", *flags, box, "sh", "-c", "id; echo $GREETING; pwd").splitlines()
    assert identity.startswith("uid=1000(app) gid=1000(app) groups=29(audio)") and said == ["hello there", "/tmp"]
    assert engine.ok("exec", "--user", "7:8", box, "sh", "-c", "id -u; id -g").split() == ["7", "8"]


@pytest.mark.parametrize(("command", "code"), [("/nonexistent", 127), ("nonexistent", 127), ("/etc/passwd", 126)])
def test_exec_of_what_cannot_be_executed_says_why(engine: Boxes, box: str, command: str, code: int) -> None:
    failed = engine("exec", box, command)
    assert failed.code == code or (isinstance(engine, Docker) and failed.code == 126), failed  # before version 23
    assert command in failed.err + failed.out
    assert engine.status(box)[0] == "running"


def test_exec_in_a_directory_that_is_not_there_is_refused(engine: Boxes, box: str) -> None:
    failed = engine("exec", "--workdir", "/nowhere", box, "true")
    assert failed.code in (126, 127) and "/nowhere" in failed.err + failed.out


def test_exec_goes_on_detached_and_ends_with_the_container(engine: Boxes, box: str) -> None:
    engine.ok("exec", "--detach", box, "sh", "-c", "echo $$ > /pid; exec sleep 1000")
    eventually(lambda: engine("exec", box, "test", "-s", "/pid").code == 0, "the process has begun")
    shown = engine.ok("top", box)
    assert "sleep 1000" in shown
    engine.ok("stop", "--time", "20", box)
    assert engine.status(box) == ("exited", 7)


def test_a_shell_on_a_terminal(engine: Boxes, shell: str) -> None:
    with engine.screen(*engine.making("run", "--rm", "-it", "--name", shell, IMAGE, "sh")) as screen:
        screen.until(PROMPT)
        assert screen.ask("tty") == "/dev/pts/0"
        assert screen.ask("stty size") == "24 80"
        screen.resize(40, 132)
        eventually(lambda: screen.ask("stty size") == "40 132", "the container's terminal has the new size")
        assert screen.ask("sh -c 'echo to stderr >&2'") == "to stderr"
        screen.type("sleep 1000\r")
        eventually(lambda: "sleep 1000" in engine.ok("top", shell), "it sleeps")
        screen.type("\x03")
        screen.until(rf"\^C.*?{PROMPT}")
        assert screen.ask("echo $?") == "130"
        screen.type("exit 9\r")
        assert screen.ended() == 9


def test_exec_on_a_terminal(engine: Boxes, box: str) -> None:
    with engine.screen("exec", "-it", "--user", "app", box, "sh") as screen:
        screen.until(PROMPT)
        assert screen.ask("tty").startswith("/dev/pts/")
        assert screen.ask("stty size") == "24 80"
        assert screen.ask("id -un") == "app"
        screen.resize(30, 90)
        eventually(lambda: screen.ask("stty size") == "30 90", "the new size arrives")
        screen.type("\x04")
        assert screen.ended() == 0
    with engine.screen("exec", "-it", box, "sh", "-c", "exit 6") as screen:
        assert screen.ended() == 6


def test_a_terminal_is_left_and_attached_to_again(engine: Boxes, shell: str) -> None:
    flags = ("-it", "--name", shell, "--detach-keys", "ctrl-]")
    with engine.screen(*engine.making("run", *flags, IMAGE, "sh")) as screen:
        screen.until(PROMPT)
        screen.type("\x1d")
        assert screen.ended() == 0
        assert engine.status(shell)[0] == "running"
        screen.clear()
        screen.attach("attach", shell)
        screen.type("\r")
        screen.until(PROMPT)
        screen.type("exit 8\r")
        screen.ended()  # the code is the container's for docker only
    assert engine.ok("wait", shell) == "8"


def test_top_and_stats_show_its_processes(engine: Boxes, box: str) -> None:
    assert "sh -c" in engine.ok("top", box)
    shown = engine.ok("stats", "--no-stream", "--format", "{{.PIDs}}", box)
    assert int(shown) >= 1


def test_many_at_once(engine: Boxes) -> None:
    """Of which each has what is its own."""
    clients = [
        subprocess.Popen(
            [*engine.command, *engine.making("run", "--rm", IMAGE, "sh", "-c", f"echo {number}; exit {number}")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env=engine.place.env,
        )
        for number in range(8)
    ]
    said = [(client.communicate(timeout=60)[0], client.returncode) for client in clients]
    assert said == [(f"{number}\n", number) for number in range(8)]


def test_the_runtime_is_the_one_under_test(engine: Boxes, box: str) -> None:
    field = ".OCIRuntime" if isinstance(engine, Podman) else ".HostConfig.Runtime"
    assert engine.inspect(box, field) == (engine.place.runtime if isinstance(engine, Podman) else "tested")
    (known,) = engine.place.containers()
    assert known["id"] == engine.inspect(box, ".ID" if isinstance(engine, Podman) else ".Id")
    assert known["pid"] == int(engine.inspect(box, ".State.Pid")) and known["status"] == "running"
