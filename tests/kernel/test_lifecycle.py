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
        "0.5",
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
    assert (found["HostConfig"]["Memory"], found["HostConfig"]["NanoCpus"]) == (64 << 20, 500_000_000)
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


def test_start_and_attach_shows_what_comes_from_now_on() -> None:
    script = "echo x >> /seen; wc -l < /seen; exit 3"
    assert cloche("run", "--name", "box", "starter", "sh", "-c", script) == (3, "1\n", "")
    assert cloche("start", "-a", "box") == (3, "2\n", "")
    assert cloche("start", "--attach", "box") == (3, "3\n", "")
    assert ok("logs", "box").split() == ["1", "2", "3"], "the log is of all its lives"
    ok("create", "-i", "--name", "reader", "starter", "cat")
    assert cloche("start", "-ai", "reader", input="one\n").out == "one\n"
    assert cloche("start", "-ai", "reader", input="two\n").out == "two\n"
    several = cloche("start", "-a", "box", "reader")
    assert (several.code, "multiple containers" in several.err) == (125, True)


def test_a_container_that_removes_itself() -> None:
    ident = ok("run", "-d", "--rm", "--name", "brief", "starter", "sh", "-c", "exit 6")
    deadline = time.monotonic() + 20
    while ok("ps", "-aq"):
        assert time.monotonic() < deadline
    assert "No such container" in cloche("logs", ident).err
    ok("run", "-d", "--rm", "--name", "stopped", "starter", "sleep", "1000")
    assert ok("stop", "-t", "0", "stopped") == "stopped"
    assert ok("ps", "-aq") == ""


def test_signals_for_the_client_are_passed_on() -> None:
    script = "trap 'echo got; exit 9' TERM; echo up; while :; do sleep 0.05; done"
    for flags, code in (((), 9), (("--sig-proxy=false",), 128 + 15)):
        command = [*COMMAND, "run", "--name", "box", *flags, "starter", "sh", "-c", script]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "up\n"
            client.terminate()
            assert client.wait(30) == code
            assert client.stdout.read() == ("got\n" if not flags else "")
        assert ok("ps", "-q") == "" or bool(flags)
        ok("rm", "-f", "box")


def test_how_long_a_stop_waits_is_the_containers_own() -> None:
    ok("run", "-d", "--name", "deaf", "--stop-timeout", "0", "starter", "sh", "-c", "trap '' TERM; sleep 1000")
    began = time.monotonic()
    ok("stop", "deaf")
    assert time.monotonic() - began < 8
    assert ok("inspect", "-f", "{{.Config.StopTimeout}} {{.State.ExitCode}}", "deaf") == "0 137"
    assert ok("stop", "deaf") == "deaf", "one that is stopped is no error"


def test_waiting() -> None:
    ok("run", "-d", "--name", "one", "starter", "sh", "-c", "exit 3")
    ok("run", "-d", "--name", "two", "starter", "sh", "-c", "sleep 0.3; exit 4")
    assert ok("wait", "two", "one").split() == ["4", "3"]
    assert ok("wait", "one") == "3", "again, long after its end"


def test_several_at_once() -> None:
    for name in ("a1", "b2", "c3"):
        ok("create", "--name", name, "starter", "sleep", "1000")
    assert ok("start", "a1", "b2", "c3").split() == ["a1", "b2", "c3"]
    assert ok("kill", "a1", "b2").split() == ["a1", "b2"]
    ok("wait", "a1", "b2")
    result = cloche("rm", "a1", "c3", "b2")
    assert (result.code, result.out.split()) == (1, ["a1", "b2"])
    assert ok("rm", "-f", "c3") == "c3"


def test_ids_by_prefix() -> None:
    idents = [ok("create", "starter", "true") for _ in range(3)]
    assert ok("inspect", "-f", "{{.Id}}", idents[0][:12]) == idents[0]
    while len({ident[0] for ident in idents}) == len(idents):
        idents.append(ok("create", "starter", "true"))
    first = next(i[0] for i in idents if sum(other[0] == i[0] for other in idents) > 1)
    several = cloche("start", first)
    assert (several.code, "more than one id begins so" in several.err) == (1, True)
    name = ok("inspect", "-f", "{{.Name}}", idents[0])
    assert re.fullmatch("/[a-z]+_[a-z]+", name)
    assert ok("inspect", "-f", "{{.Id}}", name) == idents[0], "with the slash that inspect shows"


def test_logs_since_and_times() -> None:
    ok("run", "--name", "talk", "starter", "sh", "-c", "echo early; sleep 1.2; echo late")
    stamps = [line.split()[0] for line in ok("logs", "-t", "talk").splitlines()]
    assert stamps == sorted(stamps)
    assert ok("logs", "--since", stamps[1], "talk") == "late"
    assert ok("logs", "--since", "1h", "talk").split() == ["early", "late"]
    assert ok("logs", "--since", "0.0001s", "talk") == ""
    assert ok("logs", "-n", "1", "talk") == "late"
    assert ok("logs", "-f", "talk").split() == ["early", "late"], "of one that has ended, it ends at once"
    ok("create", "--name", "silent", "starter", "true")
    assert ok("logs", "silent") == ""


def test_lines_without_an_end_and_bytes_that_are_no_text() -> None:
    ok("run", "--name", "raw", "starter", "printf", "a\\nb")
    assert cloche("logs", "raw").out == "a\nb"
    done = subprocess.run([*COMMAND, "run", "--rm", "starter", "printf", "\\377\\000x"], capture_output=True)
    assert done.stdout == b"\xff\0x"


def test_every_filter_of_ps() -> None:
    first = ok("run", "-d", "--name", "first", "--label", "k=1", "starter", "sh", "-c", "exit 3")
    ok("wait", "first")
    second = ok("run", "-d", "--name", "second", "--label", "k=2", "--network", "host", "starter", "sleep", "1000")

    def names(*filters: str) -> list[str]:
        words = [word for text in filters for word in ("--filter", text)]
        return sorted(ok("ps", "-a", *words, "--format", "{{.Names}}").split())

    assert names("label=k") == ["first", "second"]
    assert names("label=k=1") == names("exited=3") == names("status=exited") == names(f"id={first[:10]}") == ["first"]
    assert names("name=sec") == names("network=host") == names("since=first") == ["second"]
    assert names("before=second") == names(f"before={second[:12]}") == ["first"]
    assert names("status=running", "status=exited") == ["first", "second"], "several of one kind widen"
    assert names("status=running", "label=k=1") == [], "several kinds narrow"
    assert names("ancestor=starter") == names("ancestor=starter:latest") == ["first", "second"]
    assert names("ancestor=other") == []
    assert ok("ps", "-n", "1", "--format", "{{.Names}}") == "second"
    assert ok("ps", "--format", "{{.Names}}") == "second"
    assert ok("ps", "-a", "--format", '{{.Label "k"}}').split() == ["2", "1"]
    table = ok("ps", "-a", "--format", "table {{.Names}}\t{{.State}}").splitlines()
    assert [row.split() for row in table] == [["NAMES", "STATE"], ["second", "running"], ["first", "exited"]]


def test_paths_of_inspect_that_scripts_use(tmp_path: Path) -> None:
    file = tmp_path / "id"
    flags = ["-m", "64m", "-e", "A=b", "-v", f"{tmp_path}:/x:ro", "--tmpfs", "/t", "--pids-limit", "9", "--init"]
    more = ["--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN", "-h", "bell", "--ulimit", "nofile=9:99", "-w", "/tmp"]
    ident = ok("run", "-d", "--name", "box", "--cidfile", str(file), *flags, *more, "starter", "sleep", "1000")
    found = json.loads(ok("inspect", "box"))[0]
    assert found["Id"] == ident == file.read_text()
    state, host, config = found["State"], found["HostConfig"], found["Config"]
    assert (state["Status"], state["Running"], state["ExitCode"], state["OOMKilled"]) == ("running", True, 0, False)
    assert Path(f"/proc/{state['Pid']}").exists()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", state["StartedAt"])
    assert state["FinishedAt"] == "0001-01-01T00:00:00Z"
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"], host["Init"]) == (64 << 20, 128 << 20, 9, True)
    assert host["Binds"] == [f"{tmp_path}:/x:ro"]
    assert (host["CapAdd"], host["CapDrop"]) == (["CAP_NET_ADMIN"], ["CAP_CHOWN"])
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 9, "Hard": 99}]
    assert host["ContainerIDFile"] == str(file)
    assert "/proc/kcore" in host["MaskedPaths"]
    assert (config["Hostname"], config["WorkingDir"], config["Cmd"]) == ("bell", "/tmp", ["sleep", "1000"])
    assert "A=b" in config["Env"]
    mounts = {m["Destination"]: (m["Type"], m["Source"], m["Mode"], m["RW"]) for m in found["Mounts"]}
    assert mounts["/x"] == ("bind", str(tmp_path), "ro", False)
    assert ok("inspect", "-f", "{{range .Mounts}}{{.Destination}} {{end}}", "box").split() == ["/x", "/t"]
    assert Path(found["GraphDriver"]["Data"]["UpperDir"]).is_dir()
    ok("kill", "box")
    ok("wait", "box")
    assert ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}", "box") == "exited 137 0"


def test_what_people_see() -> None:
    """Names and values in columns; nothing of it is empty."""
    assert cloche("run", "--name", "gone", "starter", "sh", "-c", "exit 2").code == 2
    ok("run", "-d", "--name", "there", "starter", "sleep", "1000")
    facts = ok("info").splitlines()
    assert facts[0] == "Containers   2: 1 running, 1 not"
    assert all(line == "" or line[:13].rstrip() != line.rstrip() for line in facts)
    assert any(line.startswith("Keeper       process ") for line in facts)
    header, *rows = ok("ps", "-a").splitlines()
    assert header.split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert rows[0].rstrip().endswith("there")
    assert "Exited (2)" in rows[1]
    starts = [header.index(word) for word in ("IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES")]
    assert all(row[start - 1] == " " and row[start] != " " for row in rows for start in starts)
    assert ok("version", "-f", "{{.Client.Version}}") == json.loads(ok("info", "-f", "json"))["ServerVersion"]
    for verb in ("run", "ps", "logs", "exec"):
        assert ok(verb, "--help").startswith(f"Usage: cloche {verb} ")
    assert ok("--help").startswith("Usage: cloche ")


def test_a_plan_says_why_and_runs_nothing() -> None:
    ok("run", "--rm", "starter", "true")
    shown = ok("plan", "-m", "64m", "starter", "true").splitlines()
    steps = json.loads(ok("plan", "-m", "64m", "--format", "json", "starter", "true"))
    assert shown[-1] == f"{len(steps)} steps; none was done"
    numbered = [line for line in shown if line[:3].strip().isdigit() and line[3:5] == "  "]
    assert [int(line[:3]) for line in numbered] == [step["step"] for step in steps]
    for line, step in zip(numbered, steps, strict=True):
        assert line[5:11].strip() == step["actor"]
        assert line[12:] == step["call"]
        assert f"{'':12}{step['why']}" in shown
    assert any("memory" in step["call"] and "67108864" in step["call"] for step in steps)
    assert ok("ps", "-aq") == ""
