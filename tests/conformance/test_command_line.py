"""The command line that engines drive a runtime by: the log, descriptors, what it says of itself, ps, pause, update."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

import probes
from conformance.harness import Bundle, Runtime, alive, cgroup, differs, eventually, wait_for_end
from conformance.schemas import problems
from probes import requires

LENIENT = differs("crun", "takes what it cannot read for nothing to do")
NO_EVENTS = differs("crun", "has no command `events`")

# What it says of itself


@pytest.mark.parametrize("flag", ["--version", "-v"])
def test_the_version_names_the_program_and_the_specification(runtime: Runtime, flag: str) -> None:
    """containerd, podman and docker show it, and read its lines by these words."""
    done = runtime.call(flag, bare=True)
    first, *rest = done.out.splitlines()
    assert done.code == 0
    assert re.fullmatch(r"\S+ version \d+\.\d+\S*", first)
    said = dict(line.split(": ", 1) for line in rest if ": " in line)
    assert said["commit"]
    assert re.match(r"\d+\.\d+\.\d+", said["spec"])


def test_features_are_what_the_schema_says(runtime: Runtime) -> None:
    assert problems("features", json.loads(runtime.ok("features", bare=True))) == []


def test_features_name_the_hooks_namespaces_and_mount_options_that_all_can_rely_on(runtime: Runtime) -> None:
    features = runtime.features()
    stages = {"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}
    assert set(features["hooks"]) == stages
    assert set(features["linux"]["namespaces"]) >= {"mount", "pid", "network", "ipc", "uts", "user", "cgroup"}
    assert set(features["mountOptions"]) >= {"bind", "rbind", "ro", "rw", "nosuid", "noexec", "nodev", "rprivate"}
    assert "CAP_SYS_ADMIN" in features["linux"]["capabilities"]


def test_the_versions_that_features_name_are_accepted(bundle: Bundle) -> None:
    """ "The runtime MUST accept this value as the `ociVersion` property"; the last is not less than the first."""
    features = bundle.runtime.features()
    first, last = features["ociVersionMin"], features["ociVersionMax"]
    numbers = [[int(part) for part in version.split("-")[0].split("+")[0].split(".")] for version in (first, last)]
    assert numbers == sorted(numbers)
    for version in (first, last):
        bundle.config["ociVersion"] = version
        assert bundle.run("true").code == 0


def test_the_features_of_the_specification_are_all_named(runtime: Runtime) -> None:
    """ "MAY either be absent": but who reads them takes what is absent for what is missing."""
    linux = runtime.features()["linux"]
    assert set(linux) >= {"namespaces", "capabilities", "cgroup", "seccomp", "apparmor", "selinux"}
    assert {"SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY"} <= set(linux["seccomp"]["actions"])
    assert isinstance(linux["cgroup"]["v1"], bool)
    assert isinstance(linux["cgroup"]["v2"], bool)


def test_features_need_no_root_folder(runtime: Runtime) -> None:
    runtime.ok("features")
    assert not runtime.root.exists()


@pytest.mark.parametrize("named", [False, True], ids=["here", "bundle"])
def test_spec_writes_a_configuration_that_the_schema_allows(runtime: Runtime, named: bool) -> None:
    where = runtime.folder / "new"
    where.mkdir()
    runtime.ok("spec", *(("--bundle", str(where)) if named else ()), cwd=runtime.folder if named else where)
    config = json.loads((where / "config.json").read_text())
    assert problems("config", config) == []
    assert config["process"]["terminal"] is True
    assert config["root"] == {"path": "rootfs", "readonly": True}


def test_spec_does_not_write_over_a_configuration(bundle: Bundle) -> None:
    bundle.write()
    before = (bundle.path / "config.json").read_text()
    bundle.runtime.fails("spec", cwd=bundle.path)
    assert (bundle.path / "config.json").read_text() == before


def test_a_container_of_specs_configuration_runs(bundle: Bundle) -> None:
    bundle.runtime.ok("spec", cwd=bundle.path)
    bundle.config = json.loads((bundle.path / "config.json").read_text())
    bundle.process["terminal"] = False
    if not probes.available("mqueue"):
        bundle.config["mounts"] = [entry for entry in bundle.config["mounts"] if entry["type"] != "mqueue"]
    assert bundle.says("echo hello") == "hello"


def test_spec_without_root_has_a_user_namespace(runtime: Runtime) -> None:
    runtime.root.mkdir()
    runtime.ok("spec", "--rootless", cwd=runtime.root)
    config = json.loads((runtime.root / "config.json").read_text())
    assert "user" in {entry["type"] for entry in config["linux"]["namespaces"]}
    (runtime.root / "config.json").unlink()


@pytest.mark.parametrize("args", [("nonsense",), ("--nonsense", "list"), ("list", "--nonsense")], ids=" ".join)
def test_what_is_not_known_is_an_error(runtime: Runtime, args: tuple[str, ...]) -> None:
    assert runtime.call(*args).code != 0


@pytest.mark.parametrize("args", [("--help",), ("create", "--help"), ("exec", "--help")], ids=" ".join)
def test_help_is_no_error(runtime: Runtime, args: tuple[str, ...]) -> None:
    done = runtime.call(*args, bare=True)
    assert done.code == 0
    assert done.out


def test_a_root_is_made_with_its_parents(bundle: Bundle) -> None:
    root = bundle.runtime.folder / "deep/deeper/root"
    bundle.argv("echo", "hello")
    bundle.write()
    done = bundle.runtime.call("--root", str(root), "run", "--bundle", str(bundle.path), bundle.id, bare=True)
    assert (done.code, done.out) == (0, "hello\n")
    assert root.is_dir()


# The log


def test_errors_are_records_in_the_log_and_lines_on_stderr(runtime: Runtime) -> None:
    done = runtime.call("state", f"{runtime.mark}-nobody")
    assert done.code != 0
    assert done.out == ""
    record = done.log[-1]
    assert record["level"] == "error"
    assert record["msg"]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", record["time"])


def test_an_error_without_a_log_is_on_stderr(runtime: Runtime) -> None:
    done = runtime.call("--root", str(runtime.root), "state", f"{runtime.mark}-nobody", bare=True)
    assert done.code != 0
    assert "does not exist" in done.err


def test_the_log_is_added_to(runtime: Runtime) -> None:
    """containerd's shim gives every call for one container the same file."""
    log = runtime.folder / "shared"
    for name in ("one", "two"):
        flags = ("--root", str(runtime.root), "--log", str(log), "--log-format", "json")
        runtime.call(*flags, "state", f"{runtime.mark}-{name}", bare=True)
    text = log.read_text()
    assert len(re.findall(r'"level": ?"error"', text)) == 2


@pytest.mark.parametrize("form", [("--log-format", "text"), ("--log-format=text",), ()], ids=["text", "equals", "none"])
def test_the_log_is_text_unless_json_is_asked_for(runtime: Runtime, form: tuple[str, ...]) -> None:
    log = runtime.folder / "text"
    flags = (f"--root={runtime.root}", f"--log={log}", *form)
    assert runtime.call(*flags, "state", f"{runtime.mark}-nobody", bare=True).code != 0
    assert "does not exist" in log.read_text()
    assert not log.read_text().startswith("{")


def test_an_unknown_format_of_the_log_is_an_error(runtime: Runtime) -> None:
    assert runtime.call("--log-format", "nonsense", "list", bare=True).code != 0


def test_a_log_that_cannot_be_written_is_an_error(runtime: Runtime) -> None:
    assert runtime.call("--log", str(runtime.folder / "missing/log"), "list", bare=True).code != 0


def test_debugging_says_more_in_the_log_and_nothing_on_stdout(bundle: Bundle) -> None:
    bundle.argv("sh", "-c", "echo hello")
    bundle.write()
    done = bundle.runtime.call("--debug", "run", "--bundle", str(bundle.path), bundle.id)
    assert (done.code, done.out) == (0, "hello\n")
    assert [record for record in done.log if record["level"] == "debug"]


def test_a_call_that_succeeds_writes_no_errors(bundle: Bundle) -> None:
    done = bundle.run("true")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert not [record for record in done.log if record["level"] in ("warning", "error")]


# What the program inherits


def test_the_program_has_the_very_streams_of_create(bundle: Bundle) -> None:
    with bundle.created() as pid:
        bundle.start()
        assert bundle.written
        ours = os.fstat(bundle.written.fd)
        eventually(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", "the program runs")
        for fd in (1, 2):
            theirs = os.stat(f"/proc/{pid}/fd/{fd}")
            assert (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


SHOW = "cd /proc/self/fd; echo *"


def holding(*numbers: int) -> tuple[str, ...]:
    """Executes a command with these descriptors open on /dev/zero."""
    return ("sh", "-c", "exec " + " ".join(f"{number}</dev/zero" for number in numbers) + '; exec "$@"', "sh")


def test_no_other_descriptor_reaches_the_program(bundle: Bundle) -> None:
    assert bundle.says(SHOW, through=holding(3, 4, 7)) in ("0 1 2", "0 1 2 3")  # the shell's own to read the folder


def test_no_descriptor_reaches_the_program_of_a_created_container(bundle: Bundle) -> None:
    with bundle.running(through=holding(3, 5)) as pid:
        eventually(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", "the program runs")
        assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]


@pytest.mark.parametrize("command", ["run", "create"])
def test_as_many_descriptors_as_asked_for_reach_the_program(bundle: Bundle, command: str) -> None:
    """--preserve-fds N: "stdio + $LISTEN_FDS + N in total"."""
    script = "for fd in 3 4 5; do readlink /proc/self/fd/$fd || echo none; done"
    flags = ("--preserve-fds", "2")
    if command == "run":
        said = bundle.says(script, flags=flags, through=holding(3, 4, 5))
    else:
        with bundle.running("sh", "-c", script, flags=flags, through=holding(3, 4, 5)):
            bundle.ended()
            said = bundle.output()
    assert said.split() == ["/dev/zero", "/dev/zero", "none"]


def test_exec_keeps_descriptors_too(bundle: Bundle) -> None:
    with bundle.running():
        script = "for fd in 3 4; do readlink /proc/self/fd/$fd || echo none; done"
        assert bundle.sh(script, ("--preserve-fds", "1"), through=holding(3, 4)).split() == ["/dev/zero", "none"]


@differs("runc", "is an error, and leaves the container's folder")
@differs("crun", "gives the program those that are there")
def test_descriptors_that_are_asked_for_and_not_open_are_an_error(bundle: Bundle) -> None:
    bundle.refused("true", flags=("--preserve-fds", "200"))


ACTIVATED = ("sh", "-c", 'exec 3</dev/zero 4</dev/zero 5</dev/zero; LISTEN_FDS=2 LISTEN_PID=$$ exec "$@"', "sh")


def test_sockets_of_socket_activation_reach_the_program(bundle: Bundle) -> None:
    """LISTEN_FDS (sd_listen_fds(3)): so many descriptors from 3 on."""
    script = "for fd in 3 4 5; do readlink /proc/self/fd/$fd || echo none; done"
    assert bundle.says(script, through=ACTIVATED).split() == ["/dev/zero", "/dev/zero", "none"]


@differs("crun", "sets LISTEN_PID, and leaves LISTEN_FDS to the configuration")
def test_the_program_is_told_of_sockets_of_socket_activation(bundle: Bundle) -> None:
    assert bundle.says("echo $LISTEN_FDS $LISTEN_PID", through=ACTIVATED) == "2 1"


def test_nothing_of_the_callers_environment_reaches_the_program(bundle: Bundle) -> None:
    bundle.process["env"] = ["PATH=/bin", "ONLY=this"]
    said = bundle.run("env", env={"SECRET": "x"}).out
    assert sorted({line.split("=")[0] for line in said.splitlines()} - {"HOME"}) == [
        "ONLY",
        "PATH",
    ]  # HOME is of the user, when nobody has set it


def test_the_first_process_becomes_the_callers_child(bundle: Bundle) -> None:
    """A monitor that is a subreaper inherits it and learns how it ends."""
    with bundle.running() as pid:
        assert f"PPid:\t{os.getpid()}\n" in Path(f"/proc/{pid}/status").read_text()


def test_create_without_pivot_root_works_too(bundle: Bundle) -> None:
    assert bundle.says("cat /proc/1/comm; test -e /rootfs || echo outside is away", flags=("--no-pivot",)) == (
        "sh\noutside is away"
    )


# Processes


def test_ps_as_json_has_the_pids_as_the_host_sees_them(bundle: Bundle) -> None:
    with bundle.running("sh", "-c", "sleep 1001 & echo ready; wait") as pid:
        eventually(lambda: "ready" in bundle.output(), "the program is ready")
        for flag in ("--format", "-f"):
            pids = json.loads(bundle.runtime.ok("ps", flag, "json", bundle.id))
            assert len(pids) == 2
            assert pid in pids
            assert all(map(alive, pids))


@requires("ps")
def test_ps_is_a_table_of_the_systems_own_ps(bundle: Bundle) -> None:
    with bundle.running() as pid:
        for args in ((), ("--format", "table")):
            head, *lines = bundle.runtime.ok("ps", *args, bundle.id).splitlines()
            assert "PID" in head.split()
            assert [line for line in lines if str(pid) in line.split()]


@differs("crun", "shows pids only, and knows no options of ps")
@requires("program:ps")
def test_ps_gives_its_further_arguments_to_the_systems_own_ps(bundle: Bundle) -> None:
    with bundle.running() as pid:
        head, line = bundle.runtime.ok("ps", bundle.id, "-o", "pid,comm").splitlines()
        assert head.split() == ["PID", "COMMAND"]
        assert line.split() == [str(pid), "sleep"]


# Pause and resume

FREEZER = requires("cgroup:freezer") if probes.layout() != "v2" else requires("cgroup:v2")


@FREEZER
def test_pause_stops_all_processes_until_resume(bundle: Bundle) -> None:
    with bundle.running("sh", "-c", "while :; do echo >> /ticks; usleep 2000; done") as pid:
        ticks = bundle.rootfs / "ticks"
        eventually(ticks.exists, "it ticks")
        bundle.runtime.ok("pause", bundle.id)
        try:
            assert bundle.status() == "paused"
            assert bundle.pid() == pid
            before = ticks.stat().st_size
            assert bundle.status() == "paused"  # a call takes longer than a tick
            assert ticks.stat().st_size == before
        finally:
            bundle.runtime.ok("resume", bundle.id)
        assert bundle.status() == "running"
        eventually(lambda: ticks.stat().st_size > before, "it ticks again")


@FREEZER
def test_resume_of_a_container_that_is_not_paused_changes_nothing(bundle: Bundle) -> None:
    """An error to runc, none to crun; nobody relies on either."""
    with bundle.running():
        bundle.runtime.call("resume", bundle.id)
        assert bundle.status() == "running"


@FREEZER
def test_pause_of_a_stopped_container_is_an_error(bundle: Bundle) -> None:
    with bundle.running("true") as pid:
        wait_for_end(pid)
        assert bundle.runtime.fails("pause", bundle.id)


@FREEZER
def test_nothing_is_executed_in_a_paused_container(bundle: Bundle) -> None:
    with bundle.running():
        bundle.runtime.ok("pause", bundle.id)
        assert bundle.runtime.fails("exec", bundle.id, "true")
        bundle.runtime.ok("resume", bundle.id)


@FREEZER
def test_a_paused_container_is_deleted_by_force_only(bundle: Bundle) -> None:
    assert bundle.create("sleep", "1000").code == 0
    bundle.start()
    bundle.runtime.ok("pause", bundle.id)
    assert bundle.delete().code != 0
    assert bundle.status() == "paused"
    assert bundle.delete("--force").code == 0
    assert bundle.runtime.settled() == []


# Update (what it changes is another file's: test_updates.py) and events


def limit(pid: int, controller: str, v1: str, v2: str) -> str:
    """What a limit of the process's cgroup is now, by its file in each version."""
    folder = cgroup(pid, controller)
    return (folder / (v1 if (folder / v1).exists() else v2)).read_text().strip()


@requires("cgroup:pids", "cgroup:memory")
@pytest.mark.parametrize("where", ["-", "file"])
@pytest.mark.parametrize("flag", ["--resources", "-r"])
def test_update_takes_resources_as_the_configuration_has_them(bundle: Bundle, where: str, flag: str) -> None:
    """containerd's shim writes them to stdin. What is not named stays."""
    bundle.linux["resources"]["memory"] = {"limit": 64 << 20}
    text = json.dumps({"pids": {"limit": 44}})
    file = bundle.path / "resources.json"
    file.write_text(text)
    with bundle.running() as pid:
        named = ("-",) if where == "-" else (str(file),)
        bundle.runtime.ok("update", flag, *named, bundle.id, input=text if where == "-" else None)
        assert limit(pid, "pids", "pids.max", "pids.max") == "44"
        assert limit(pid, "memory", "memory.limit_in_bytes", "memory.max") == str(64 << 20)


@requires("cgroup:pids")
def test_update_works_before_the_program_runs(bundle: Bundle) -> None:
    with bundle.created() as pid:
        bundle.runtime.ok("update", "--pids-limit", "55", bundle.id)
        assert limit(pid, "pids", "pids.max", "pids.max") == "55"


@pytest.mark.parametrize(
    "text",
    ["", "{]", pytest.param("[]", marks=LENIENT), pytest.param('{"pids": {"limit": "many"}}', marks=LENIENT)],
    ids=["empty", "broken", "list", "wrong-type"],
)
def test_update_with_resources_that_are_none_is_an_error(bundle: Bundle, text: str) -> None:
    with bundle.running():
        assert bundle.runtime.fails("update", "--resources", "-", bundle.id, input=text)
        assert bundle.status() == "running"


@differs("crun", "succeeds, with no cgroup to change")
def test_update_of_a_stopped_container_is_an_error(bundle: Bundle) -> None:
    with bundle.running("true") as pid:
        wait_for_end(pid)
        assert bundle.runtime.fails("update", "--pids-limit", "10", bundle.id)


@NO_EVENTS
@requires("cgroup:memory", "cgroup:pids")
def test_events_give_one_record_of_what_the_container_uses(bundle: Bundle) -> None:
    with bundle.running():
        record: dict[str, Any] = json.loads(bundle.runtime.ok("events", "--stats", bundle.id))
        assert (record["type"], record["id"]) == ("stats", bundle.id)
        assert record["data"]["pids"]["current"] == 1
        assert record["data"]["memory"]["usage"]["usage"] > 0
        assert "usage" in record["data"]["cpu"]


def test_events_of_a_stopped_container_are_an_error(bundle: Bundle) -> None:
    with bundle.running("true") as pid:
        wait_for_end(pid)
        assert bundle.runtime.call("events", "--stats", bundle.id).code != 0
