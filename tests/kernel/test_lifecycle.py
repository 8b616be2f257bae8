"""The verbs around a container's life, as a docker user types them."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from commands import COMMAND, cloche, ok

pytestmark = [pytest.mark.requires("root", "overlay"), pytest.mark.usefixtures("store")]


def test_create_start_stop_remove() -> None:
    ident = ok(
        "create", "--name", "box", "starter", "sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done"
    )
    assert re.fullmatch("[0-9a-f]{64}", ident)
    assert ok("ps", "-a", "--format", "{{.Names}} {{.Status}}") == "box Created"
    assert ok("start", "box") == "box"
    assert ok("ps", "--format", "{{.ID}} {{.Names}} {{.State}}") == f"{ident[:12]} box running"
    refused = cloche("rm", "box")
    assert (refused.code, "it is running" in refused.err) == (1, True)
    while "up" not in ok("logs", "box"):
        pass
    assert ok("stop", "box") == "box"
    assert ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}", "box") == "exited 3 0"
    assert ok("start", ident[:8]) == ident[:8], "a container starts again, by a prefix of its id"
    assert ok("rm", "-f", "box") == "box"
    gone = cloche("start", "box")
    assert gone.code in {1, 125}
    assert "No such container: box" in gone.err


def test_stop_kills_who_does_not_listen_and_kill_sends_what_it_is_told() -> None:
    ok("run", "-d", "--name", "deaf", "starter", "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    began = time.monotonic()
    ok("stop", "-t", "1", "deaf")
    assert time.monotonic() - began < 8
    assert ok("wait", "deaf") == "137"
    ok(
        "run",
        "-d",
        "--name",
        "hup",
        "--stop-signal",
        "USR1",
        "starter",
        "sh",
        "-c",
        "trap 'exit 9' USR1; echo up; while :; do sleep 0.05; done",
    )
    while "up" not in ok("logs", "hup"):
        pass
    ok("stop", "hup")
    assert ok("wait", "hup") == "9"
    again = cloche("kill", "hup")
    assert (again.code, "is not running" in again.err) == (1, True)


def test_logs() -> None:
    ok("run", "-d", "--name", "talk", "starter", "sh", "-c", "for i in 1 2 3; do echo line $i; echo error $i >&2; done")
    ok("wait", "talk")
    result = cloche("logs", "talk")
    assert result.out == "line 1\nline 2\nline 3\n"
    assert result.err == "error 1\nerror 2\nerror 3\n"
    last = cloche("logs", "--tail", "2", "talk")
    assert len((last.out + last.err).splitlines()) == 2
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z line 1", ok("logs", "-t", "talk"))
    assert ok("logs", "--since", "2199-01-01T00:00:00Z", "talk") == ""


def test_logs_follow_to_the_end() -> None:
    ok("run", "-d", "--name", "slow", "starter", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done")
    assert ok("logs", "-f", "slow").split() == ["1", "2", "3"]


def test_exec() -> None:
    ok("run", "-d", "--name", "box", "-e", "A=1", "-w", "/tmp", "starter", "sleep", "1000")
    result = cloche("exec", "box", "sh", "-c", "echo out; echo err >&2; exit 5")
    assert result == (5, "out\n", "err\n")
    assert ok("exec", "-i", "box", "cat", input="typed\n") == "typed"
    assert ok(
        "exec", "-e", "B=2", "-w", "/", "-u", "7:8", "box", "sh", "-c", "echo $A $B; pwd; id -u; id -g"
    ).split() == ["1", "2", "/", "7", "8"]
    assert ok("exec", "box", "cat", "/proc/1/comm") == "sleep"
    assert cloche("exec", "box", "no-such").code == 127
    assert cloche("exec", "box", "/etc/passwd").code == 126
    assert ok("exec", "-d", "box", "sh", "-c", "echo done > /tmp/file") == ""
    while ok("exec", "box", "sh", "-c", "cat /tmp/file 2>/dev/null || true") != "done":
        pass
    assert "CapEff:\t000001f" in ok("exec", "--privileged", "box", "grep", "CapEff", "/proc/self/status")
    ok("kill", "box")
    ok("wait", "box")
    refused = cloche("exec", "box", "true")
    assert "is not running" in refused.err


def test_ps_filters_and_formats() -> None:
    ok("create", "--name", "one", "--label", "tier=web", "starter", "true")
    ok("run", "-d", "--name", "two", "starter", "sleep", "1000")
    assert ok("ps", "-q", "--no-trunc") == ok("inspect", "-f", "{{.Id}}", "two")
    assert ok("ps", "-a", "--filter", "label=tier=web", "--format", "{{.Names}}") == "one"
    assert ok("ps", "--filter", "status=created", "--format", "{{.Names}}") == "one"
    assert ok("ps", "-l", "--format", "{{.Names}}") == "two"
    assert ok("ps", "-a", "--filter", "name=^one$", "--format", "{{.Names}}") == "one"
    row = json.loads(ok("ps", "--format", "json"))
    assert (row["Names"], row["State"], row["Image"]) == ("two", "running", "starter")
    header, first = ok("ps").splitlines()
    assert header.split()[:2] == ["CONTAINER", "ID"]
    assert '"sleep 1000"' in first
    assert cloche("ps", "--filter", "nonsense=1").code == 1


def test_inspect_has_dockers_shapes(tmp_path: Path) -> None:
    ok(
        "create",
        "--name",
        "box",
        "-m",
        "64m",
        "--cpus",
        "1.5",
        "-v",
        f"{tmp_path}:/x:ro",
        "-e",
        "A=b",
        "starter",
        "echo",
        "hi",
    )
    found = json.loads(ok("inspect", "box"))[0]
    assert found["Name"] == "/box"
    assert (found["Path"], found["Args"]) == ("echo", ["hi"])
    assert (found["HostConfig"]["Memory"], found["HostConfig"]["NanoCpus"]) == (64 << 20, 1_500_000_000)
    assert found["State"]["Status"] == "created"
    assert found["Mounts"][0]["Source"] == str(tmp_path)
    assert found["Mounts"][0]["RW"] is False
    assert "A=b" in found["Config"]["Env"]
    assert json.loads(ok("inspect", "starter"))[0]["RepoTags"] == ["starter:latest"]
    missing = cloche("inspect", "nothing")
    assert (missing.code, missing.out.strip(), "No such object" in missing.err) == (1, "[]", True)


def test_images_tag_rmi_and_pack() -> None:
    ok("create", "--name", "user", "starter", "true")
    assert ok("images", "--format", "{{.Repository}}:{{.Tag}}") == "starter:latest"
    ok("tag", "starter", "base:1")
    assert set(ok("images", "--format", "{{.Repository}}:{{.Tag}}").split()) == {"starter:latest", "base:1"}
    assert "Untagged: base:1" in ok("rmi", "base:1")
    used = cloche("rmi", "starter")
    assert used.code == 1
    ok("rm", "user")
    packed = ok("pack", "-t", "tool", "cat", "sh")
    assert "tool" in packed
    assert ok("run", "--rm", "tool", "sh", "-c", "echo packed | cat") == "packed"
    assert "Deleted: sha256:" in ok("rmi", "tool")
    assert cloche("run", "--rm", "tool", "true").code == 125


def test_attach_sees_what_comes_from_now_on_and_the_exit_code() -> None:
    ok("run", "-d", "-i", "--name", "echo", "starter", "sh", "-c", "read line; echo got $line; exit 4")
    with subprocess.Popen(
        [*COMMAND, "attach", "echo"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:
        out, err = client.communicate("typed\n", timeout=30)
    assert (client.returncode, out, err) == (4, "got typed\n", "")


def test_version_and_info() -> None:
    ok("run", "-d", "starter", "sleep", "1000")
    facts = json.loads(ok("info", "--format", "json"))
    assert facts["KeeperPid"] > 1
    assert facts["HolderPid"] > 1
    assert facts["ContainersRunning"] == 1
    assert facts["Driver"] == "overlay2"
    assert "Version:" in ok("version")


def test_files_written_in_one_container_are_in_no_other_and_not_in_the_image() -> None:
    ok("run", "--name", "writer", "starter", "sh", "-c", "echo mine > /file; rm /bin/true || rm /usr/bin/true")
    assert ok("run", "--rm", "starter", "sh", "-c", "test -e /file || echo clean; true && echo there").split() == [
        "clean",
        "there",
    ]
    ok("start", "writer")
    assert ok("wait", "writer") in {"0", "1", "127"}
