"""What containers are, shown on the real kernel: memory, processes, CPU, names, ids, each kept apart and bounded."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from commands import cloche, ok, sh
from probes import layout

pytestmark = [pytest.mark.requires("root", "overlay"), pytest.mark.usefixtures("store")]


@pytest.mark.requires("cgroup:memory")
def test_a_memory_eater_is_killed_and_it_is_said_why() -> None:
    eater = cloche("run", "--name", "eater", "-m", "64m", "starter", "sh", "-c", "exec tail /dev/zero")
    assert eater.code == 137
    assert ok("inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "eater") == "true 137"
    assert "out of memory" in ok("ps", "-a")
    modest = ok("run", "--name", "modest", "-m", "64m", "starter", "sh", "-c", "head -c 8m /dev/zero | wc -c")
    assert modest == str(8 << 20)
    assert ok("inspect", "-f", "{{.State.OOMKilled}}", "modest") == "false"


@pytest.mark.requires("cgroup:pids")
def test_a_fork_bomb_stops_at_its_limit() -> None:
    script = "i=0; while [ $i -lt 30 ]; do sleep 1000 & i=$((i+1)); echo $i; done"
    bomb = cloche("run", "--rm", "--pids-limit", "10", "starter", "sh", "-c", script)
    assert bomb.code != 0
    assert "fork" in bomb.err
    assert len(bomb.lines) < 10
    assert sh("echo usable") == "usable"


@pytest.mark.requires("cgroup:cpu")
def test_half_a_cpu_throttles_a_busy_loop() -> None:
    ok("run", "-d", "--name", "busy", "--cpus", "0.5", "starter", "sh", "-c", "while :; do :; done")
    ident = ok("inspect", "-f", "{{.Id}}", "busy")
    files = [path / "cpu.stat" for path in Path("/sys/fs/cgroup").glob(f"**/{ident}")]
    stat = next(f for f in files if f.exists() and "nr_throttled" in f.read_text())

    def throttled() -> int:
        return next(int(line.split()[1]) for line in stat.read_text().splitlines() if line.startswith("nr_throttled"))

    deadline = time.monotonic() + 20
    while throttled() < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert throttled() >= 3


def test_a_container_sees_only_itself() -> None:
    assert sh("echo $$; cat /proc/1/comm") == "1\nsh"
    seen = {int(path[6:]) for path in sh("ls -d /proc/[0-9]*").split()}
    assert len(seen) <= 3, "the shell, ls, and nobody of the host"
    assert sh("ls /sys/class/net", "--network", "none") == "lo"
    assert sh("hostname") != os.uname().nodename
    mounts = sh("cut -d' ' -f2 /proc/mounts").split()
    assert "/" in mounts
    assert os.environ["CLOCHE_ROOT"] not in mounts
    assert not {"/root", "/home", "/tmp", "/boot"} & set(mounts)


@pytest.mark.requires("userns")
def test_root_inside_is_nobody_outside(tmp_path: Path) -> None:
    """Even with a directory of the host in sight, which everybody may write."""
    if "id-mapped" in cloche("run", "--rm", "--userns", "auto", "starter", "true").err:
        pytest.skip("needs a file system that can be mounted id-mapped")
    (tmp_path / "secret").write_text("of root\n")
    os.chmod(tmp_path / "secret", 0o600)
    os.chmod(tmp_path, 0o777)
    script = "id -u; touch /host/mine && stat -c %u /host/mine; cat /host/secret 2>&1 || true"
    shown = sh(script, "--userns", "auto", "-v", f"{tmp_path}:/host").splitlines()
    assert shown[:2] == ["0", "0"]
    assert "Permission denied" in shown[2]
    assert os.stat(tmp_path / "mine").st_uid >= 1 << 20
    assert sh("cat /host/secret", "-v", f"{tmp_path}:/host") == "of root", "without the namespace it is root"


def test_a_file_written_in_one_container_is_in_no_other() -> None:
    ok("run", "--name", "writer", "starter", "sh", "-c", "echo mine > /file; rm /etc/passwd; cat /file")
    assert sh("ls /file /etc/passwd 2>/dev/null || true") == "/etc/passwd"
    assert cloche("start", "-a", "writer").out == "mine\n"


def test_a_host_process_cannot_be_killed_from_inside() -> None:
    assert "No such process" in sh(f"kill -9 {os.getpid()} 2>&1 || true")


def test_two_containers_share_a_network_and_a_process_namespace() -> None:
    ok("run", "-d", "--name", "one", "starter", "sleep", "4321")
    assert "4321" in sh("cat /proc/1/cmdline | tr '\\0' ' '", "--pid", "container:one")
    there = ok("exec", "one", "readlink", "/proc/1/ns/net")
    assert sh("readlink /proc/self/ns/net", "--network", "container:one") == there


@pytest.mark.skipif(layout() == "none", reason="needs cgroups")
def test_cgroups_are_read_only_and_private() -> None:
    assert "Read-only" in sh("mkdir /sys/fs/cgroup/memory/x 2>&1 || mkdir /sys/fs/cgroup/x 2>&1 || true")
    assert all(line.endswith(":/") for line in sh("cat /proc/self/cgroup").splitlines())


def test_the_masked_and_the_read_only() -> None:
    assert sh("cat /proc/kcore | wc -c; cat /proc/timer_list | wc -c; ls /sys/firmware | wc -l").split() == [
        "0",
        "0",
        "0",
    ]
    assert "Read-only" in sh("sh -c 'echo 1 > /proc/sys/vm/drop_caches' 2>&1 || true")


def test_the_runtimes_binary_cannot_be_reached() -> None:
    """CVE-2019-5736: /proc/self/exe as the command, and #!/proc/self/exe."""
    direct = cloche("run", "--rm", "starter", "/proc/self/exe")
    assert direct.code in {125, 126}
    script = "printf '#!/proc/self/exe\\n' > /evil; chmod +x /evil; sleep 1000"
    ok("run", "-d", "--name", "trap", "starter", "sh", "-c", script)
    while ok("exec", "trap", "sh", "-c", "test -x /evil && echo yes || true") != "yes":
        pass
    evil = cloche("exec", "trap", "/evil")
    assert evil.code != 0
    assert ok("exec", "trap", "echo", "alive") == "alive"
