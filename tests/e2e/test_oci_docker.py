"""docker with the runtime under test, where it goes its own ways: networks, restarts, health, user namespaces."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.engines import DOCKER, NEEDED, Docker, docker, in_a_network_of_its_own
from e2e.places import IMAGE, cgroup_files, exists
from leftovers import end_processes
from probes import MS_BIND, mount, private_mount_namespace, requires
from screens import eventually

pytestmark = [
    pytest.mark.requires(*NEEDED, *DOCKER),
    pytest.mark.timeout(120),
    pytest.mark.one_lane,
]
SLEEPS = "echo ready; sleep 1000"


@pytest.fixture(scope="module")
def engine() -> Iterator[Docker]:
    with docker() as started:
        yield started


def test_the_daemon_knows_the_runtime_and_its_version(engine: Docker) -> None:
    shown = json.loads(engine.ok("info", "--format", "{{json .}}"))
    assert shown["DefaultRuntime"] == "tested" and shown["Runtimes"]["tested"]["path"] == engine.place.runtime
    assert engine.run("--rm", "--runtime", "tested", IMAGE, "echo", "chosen").out == "chosen\n"
    said = subprocess.run([engine.place.runtime, "--version"], check=True, capture_output=True, text=True).stdout
    version = json.loads(engine.ok("version", "--format", "{{json .}}"))
    (part,) = [part for part in version["Server"]["Components"] if part["Name"] == "tested"]
    assert part["Version"] in said.splitlines()[0]


def test_one_that_fails_is_restarted_as_often_as_allowed(engine: Docker) -> None:
    done = engine.run("--detach", "--name", "failing", "--restart", "on-failure:2", IMAGE, "sh", "-c", "echo x; exit 4")
    assert done.code == 0, done
    eventually(lambda: engine.inspect("failing", ".RestartCount") == "2", "it was restarted twice")
    eventually(lambda: engine.status("failing") == ("exited", 4), "it has ended for good")
    assert engine.ok("logs", "failing") == "x\nx\nx"
    engine.ok("rm", "failing")


def test_a_container_that_is_killed_from_outside_is_restarted(engine: Docker) -> None:
    with engine.running("killed", SLEEPS, "--restart", "always") as pid:
        end_processes([pid], signal.SIGKILL)
        eventually(lambda: engine.ok("logs", "killed").count("ready") == 2, "it runs again")
        assert engine.status("killed")[0] == "running" and int(engine.inspect("killed", ".State.Pid")) != pid


def test_health_checks_are_execs_of_the_daemons(engine: Docker) -> None:
    flags = ("--health-cmd", "test -e /healthy", "--health-interval", "100ms", "--health-retries", "1")
    with engine.running("checked", SLEEPS, *flags):
        eventually(lambda: engine.inspect("checked", ".State.Health.Status") == "unhealthy", "it is unhealthy")
        engine.ok("exec", "checked", "touch", "/healthy")
        eventually(lambda: engine.inspect("checked", ".State.Health.Status") == "healthy", "it is healthy")


def test_what_fails_to_start_can_be_started_when_the_cause_is_gone(engine: Docker, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho began\n")
    engine.ok(*engine.making("create", "--name", "late", "-v", f"{tmp_path}:/host", IMAGE, "/host/script"))
    failed = engine("start", "--attach", "late")
    assert failed.code != 0 and "permission denied" in failed.err.lower()
    assert engine.status("late") == ("created", 126)
    script.chmod(0o755)
    assert engine.ok("start", "--attach", "late") == "began"
    engine.ok("rm", "late")


def test_files_are_copied_into_and_out_of_what_runs(engine: Docker, tmp_path: Path) -> None:
    with engine.running("copied", SLEEPS, "--tmpfs", "/scratch"):
        (tmp_path / "given").write_text("given\n")
        engine.ok("cp", f"{tmp_path}/given", "copied:/root/given")
        assert engine.ok("exec", "copied", "cat", "/root/given") == "given"
        engine.ok("exec", "copied", "sh", "-c", "echo taken > /root/taken")
        engine.ok("cp", "copied:/root/taken", str(tmp_path))
        assert (tmp_path / "taken").read_text() == "taken\n"
        assert engine.status("copied")[0] == "running"


@requires("bridge", "nf_tables", "program:iptables")
def test_containers_on_a_bridge_reach_each_other(engine: Docker) -> None:
    """By the hook that libnetwork puts into the configuration, which gives a container's network its link."""
    engine.ok("run", "--detach", "--name", "server", IMAGE, "sleep", "1000")
    try:
        address = engine.inspect("server", ".NetworkSettings.IPAddress")
        assert f" {address}/" in engine.ok("exec", "server", "ip", "-4", "address")
        said = engine.ok("run", "--rm", IMAGE, "ping", "-c", "1", "-W", "5", address)
        assert "1 packets received" in said
        assert engine.ok("exec", "server", "ls", "/sys/class/net").split() == ["eth0", "lo"]
    finally:
        engine.ok("rm", "--force", "server")


@pytest.fixture(scope="module")
def remapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """A daemon that gives every container a user namespace. Whose ids it may give is said in files in /etc, which it
    sees as they are here."""
    place = tmp_path_factory.mktemp("ids")
    (place / "ids").write_text("nobody:300000:65536\n")

    def before() -> None:
        private_mount_namespace()
        for name in ("/etc/subuid", "/etc/subgid"):
            mount(str(place / "ids"), name, "", MS_BIND)
        in_a_network_of_its_own()

    with docker("--userns-remap", "nobody:nogroup", "--bridge", "none", "--iptables=false", before=before) as started:
        yield started


@requires("userns", "file:/etc/subuid", "file:/etc/subgid")
def test_every_container_has_a_user_namespace_when_ids_are_remapped(remapped: Docker) -> None:
    with remapped.running("mapped", SLEEPS) as pid:
        assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", "300000", "65536"]
        assert remapped.ok("exec", "mapped", "sh", "-c", "id -u; stat -c %u:%g /bin/busybox").split() == ["0", "0:0"]
        assert remapped.ok("exec", "mapped", "readlink", "/proc/self/ns/user") == os.readlink(f"/proc/{pid}/ns/user")
        assert "Uid:\t300000\t" in Path(f"/proc/{pid}/status").read_text()
        remapped.ok("pause", "mapped")
        remapped.ok("unpause", "mapped")
        remapped.ok("stop", "--time", "0", "mapped")
        assert not exists(pid)


@requires("userns", "file:/etc/subuid", "file:/etc/subgid")
def test_a_container_may_keep_the_hosts_ids_all_the_same(remapped: Docker) -> None:
    assert remapped.sh("cat /proc/self/uid_map", "--userns", "host").split() == ["0", "0", "4294967295"]


def test_a_running_container_outlives_its_daemon() -> None:
    """With live-restore the next daemon takes it over from containerd's shim."""
    with docker("--live-restore", "--bridge", "none", "--iptables=false") as restored:
        with restored.running("kept", SLEEPS) as pid:
            groups = cgroup_files(pid, "pids")
            restored.daemon.end()
            assert exists(pid)
            restored.daemon.start()
            assert restored.status("kept")[0] == "running" and int(restored.inspect("kept", ".State.Pid")) == pid
            assert restored.ok("exec", "kept", "echo", "here") == "here"
            restored.ok("stop", "--time", "0", "kept")
            assert not exists(pid) and not groups.exists()
