"""`cloche exec`: a process beside a container's first, with the container's walls around it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from cloche.kernel.capabilities import DEFAULT, mask
from commands import COMMAND, cloche, ok
from probes import layout, requires

pytestmark = [requires("root", "overlay"), pytest.mark.usefixtures("store")]


def box(*flags: str, name: str = "box") -> None:
    ok("run", "-d", "--name", name, *flags, "starter", "sleep", "1000")


def inside(script: str, *flags: str, name: str = "box") -> str:
    return ok("exec", *flags, name, "sh", "-c", script)


def test_output_input_and_exit_codes() -> None:
    box()
    assert cloche("exec", "box", "sh", "-c", "echo out; echo err >&2; exit 5") == (5, "out\n", "err\n")
    assert cloche("exec", "box", "sh", "-c", "kill -9 $$").code == 128 + 9
    assert cloche("exec", "box", "no-such").code == 127
    assert cloche("exec", "box", "/etc").code == 126
    text = "".join(f"line {n}\n" for n in range(50_000))
    assert cloche("exec", "-i", "box", "cat", input=text).out == text
    assert cloche("exec", "-i", "box", "head", "-n1", input=text).out == "line 0\n", "input that nobody reads"
    assert cloche("exec", "box", "cat", input=text).out == "", "without -i there is no input"


@requires("cgroup:v2", "cgroup:pids")
def test_a_container_that_has_divided_its_group_takes_commands() -> None:
    """As dockerd and systemd do: on version 2 a group that hands controllers down takes no process itself."""
    box("--privileged")
    move = "mkdir inner && for pid in 1 $$; do echo $pid >inner/cgroup.procs; done"
    inside(f"cd /sys/fs/cgroup && {move} && echo +pids >cgroup.subtree_control")
    assert inside("cat /proc/self/cgroup") == "0::/inner"


def test_environment_directory_and_user(tmp_path: Path) -> None:
    box("-e", "A=1", "-e", "B=1", "-w", "/tmp", "-u", "12:34")
    (tmp_path / "vars").write_text("C=3\nB=2\n")
    shown = inside("echo $A $B $C $HOME; pwd; id -u; id -g", "-e", "A=2", "--env-file", str(tmp_path / "vars"))
    assert shown.splitlines() == ["2 2 3 /", "/tmp", "12", "34"]
    assert inside("id -un; id -u; echo $HOME", "-u", "root").split() == ["root", "0", "/root"]
    assert inside("id -un; id -gn", "-u", "nobody").split()[0] == "nobody"
    assert inside("pwd", "-w", "/etc") == "/etc"
    assert "TERM" not in inside("env")


def test_in_the_background() -> None:
    box()
    assert cloche("exec", "-d", "box", "sh", "-c", "sleep 0.2; echo done > /tmp/file") == (0, "", "")
    deadline = time.monotonic() + 20
    while inside("cat /tmp/file 2>/dev/null || true") != "done":
        assert time.monotonic() < deadline
    assert cloche("exec", "-d", "box", "no-such").code == 127, "that it could not be started is said at once"
    assert ok("logs", "box") == "", "the log is the first process's"


def test_the_walls_are_the_containers_own() -> None:
    box("--cap-drop", "CHOWN", "--ulimit", "nofile=100:200", "--security-opt", "no-new-privileges", "-h", "bell")
    for kind in ("mnt", "pid", "net", "ipc", "uts", "cgroup"):
        mine, first = inside(f"readlink /proc/self/ns/{kind}; readlink /proc/1/ns/{kind}").split()
        assert mine == first, kind
    mine, first = (inside(f"cat /proc/{who}/cgroup") for who in ("self", "1"))
    assert mine == first
    status = dict(line.split(":\t", 1) for line in inside("cat /proc/self/status").splitlines() if ":\t" in line)
    assert int(status["CapEff"], 16) == mask(DEFAULT) & ~mask(("CAP_CHOWN",))
    assert int(status["CapBnd"], 16) == mask(DEFAULT) & ~mask(("CAP_CHOWN",))
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == inside("grep Seccomp: /proc/1/status").split()[1]
    assert inside("ulimit -n; ulimit -Hn; hostname").split() == ["100", "200", "bell"]
    assert inside("ls /proc/self/fd").split() == ["0", "1", "2", "3"], "3 is the directory that ls reads"


def test_privileged() -> None:
    box("--cap-drop", "ALL")
    everything = int(ok("run", "--rm", "--privileged", "starter", "grep", "CapEff", "/proc/self/status").split()[1], 16)
    assert int(inside("grep CapEff /proc/self/status").split()[1], 16) == 0
    assert int(inside("grep CapEff /proc/self/status", "--privileged").split()[1], 16) == everything
    assert inside("grep Seccomp: /proc/self/status", "--privileged").split()[1] == "0"


@requires("cgroup:memory")
def test_it_counts_against_the_containers_limit() -> None:
    box("-m", "32m")
    eater = cloche("exec", "box", "tail", "/dev/zero")
    assert eater.code in {137, 1}, eater
    assert ok("run", "--rm", "starter", "echo", "the host is usable") == "the host is usable"


def test_it_sees_what_the_container_shares() -> None:
    box(name="first")
    box("--network", "container:first", "--pid", "container:first", name="second")
    assert inside("readlink /proc/self/ns/net", name="second") == inside("readlink /proc/self/ns/net", name="first")
    assert inside("cat /proc/1/cmdline | tr '\\0' ' '", name="second").split() == ["sleep", "1000"]
    box("--pid", "host", "--network", "host", name="open")
    assert int(inside("ls -d /proc/[0-9]* | wc -l", name="open")) > 3


@requires("userns")
def test_in_a_user_namespace() -> None:
    if "id-mapped" in cloche("run", "--rm", "--userns", "auto", "starter", "true").err:
        pytest.skip("needs a file system that can be mounted id-mapped")
    box("--userns", "auto")
    mine, first = inside("readlink /proc/self/ns/user; readlink /proc/1/ns/user").split()
    assert mine == first
    assert inside("touch /mine && stat -c %u /mine") == "0"


def test_several_at_once_do_not_mix() -> None:
    box()
    script = 'for i in 1 2 3 4 5 6 7 8; do echo "$0 $i"; sleep 0.02; done; exit $0'
    clients = [
        subprocess.Popen([*COMMAND, "exec", "box", "sh", "-c", script, str(n)], stdout=subprocess.PIPE, text=True)
        for n in range(6)
    ]
    for n, client in enumerate(clients):
        out, _ = client.communicate(timeout=60)
        assert out.splitlines() == [f"{n} {i}" for i in range(1, 9)]
        assert client.returncode == n


def test_the_end_of_the_container_ends_it() -> None:
    box()
    with subprocess.Popen(
        [*COMMAND, "exec", "box", "sh", "-c", "echo up; sleep 1000"], stdout=subprocess.PIPE
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"up\n"
        ok("kill", "box")
        assert client.wait(30) == 137
    assert "is not running" in cloche("exec", "box", "true").err


def test_what_it_leaves_running_goes_on_and_ends_with_the_container() -> None:
    box()
    assert inside("sleep 500 > /dev/null 2>&1 & echo left") == "left"
    assert "500" in inside("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    pid = int(ok("inspect", "-f", "{{.State.Pid}}", "box"))
    assert Path(f"/proc/{pid}").exists()
    ok("stop", "-t", "0", "box")
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.skipif(layout() == "none", reason="needs cgroups")
def test_a_restarted_container_takes_commands_again() -> None:
    box()
    inside("echo kept > /file")
    ok("stop", "-t", "0", "box")
    ok("start", "box")
    assert inside("cat /file") == "kept"
