"""`run`, which is create and start in one, in the foreground and detached; `list`; programs that cannot be run."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.harness import Bundle, Runtime, differs, eventually, wait_for_end

# Run


@pytest.mark.parametrize("code", [0, 1, 42, 125, 255])
def test_run_ends_with_the_programs_exit_code(bundle: Bundle, code: int) -> None:
    assert bundle.run("sh", "-c", f"exit {code}").code == code


@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV"])
def test_run_of_a_program_that_a_signal_ended_ends_with_128_and_the_signals_number(bundle: Bundle, name: str) -> None:
    bundle.without_namespace("pid")  # the first process of one is not ended by its own signals
    assert bundle.run("sh", "-c", f"kill -{name} $$").code == 128 + signal.Signals[f"SIG{name}"]


def test_run_gives_the_program_its_own_streams(bundle: Bundle) -> None:
    done = bundle.run("sh", "-c", "cat; echo out; echo err >&2", input="in\n")
    assert (done.code, done.out, done.err) == (0, "in\nout\n", "err\n")


def test_run_in_the_foreground_deletes_the_container_when_it_ends(bundle: Bundle) -> None:
    assert bundle.run("true").code == 0
    assert bundle.status() == "missing"
    assert bundle.runtime.settled() == []


@pytest.mark.parametrize("code", [0, 3])
def test_run_with_keep_leaves_a_stopped_container(bundle: Bundle, code: int) -> None:
    assert bundle.run("sh", "-c", f"exit {code}", flags=("--keep",)).code == code
    assert bundle.status() == "stopped"
    assert bundle.delete().code == 0


@pytest.mark.parametrize("flag", ["--detach", "-d"])
def test_run_detached_returns_when_the_program_runs(bundle: Bundle, flag: str) -> None:
    out = bundle.runtime.output()
    done = bundle.run("sh", "-c", "echo said; sleep 1000", flags=(flag,), out=out)
    assert done.code == 0, done
    assert bundle.status() == "running"
    eventually(lambda: out.read() == "said\n", "the program has the runtime's streams")
    bundle.end(bundle.pid())


def test_run_detached_leaves_a_stopped_container_when_the_program_ends(bundle: Bundle) -> None:
    pid_file = bundle.path / "pid"
    assert bundle.run("sh", "-c", "exit 4", flags=("--detach", "--pid-file", str(pid_file))).code == 0
    assert wait_for_end(int(pid_file.read_text())) == 4
    assert bundle.status() == "stopped"
    assert bundle.delete().code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_run_in_the_foreground_passes_signals_on(bundle: Bundle, number: signal.Signals) -> None:
    bundle.argv("sh", "-c", f"trap 'exit 9' {number.name[3:]}; echo ready; sleep 1000 & wait")
    bundle.write()
    out = bundle.runtime.output()
    with bundle.runtime.spawn("run", "--bundle", str(bundle.path), bundle.id, stdout=out.fd, stderr=out.fd) as process:
        eventually(lambda: "ready" in out.read(), "the program is ready")
        process.send_signal(number)
        assert process.wait(20) == 9
    assert bundle.status() == "missing"


def test_run_waits_for_the_first_process_only(bundle: Bundle) -> None:
    """What it has left behind in its pid namespace ends with it."""
    assert bundle.run("sh", "-c", "sleep 1000 & exit 6").code == 6
    assert bundle.runtime.settled() == []


# Pid files


@pytest.mark.parametrize("command", ["create", "run"])
def test_the_pid_file_has_the_pid_and_nothing_else(bundle: Bundle, command: str) -> None:
    """containerd and conmon read it as a number; no newline is in it."""
    pid_file = bundle.path / "pid"
    bundle.argv("sleep", "1000")
    bundle.write()
    flags = ("--detach",) if command == "run" else ()
    bundle.runtime.ok(command, "--bundle", str(bundle.path), *flags, "--pid-file", str(pid_file), bundle.id)
    assert pid_file.read_text() == str(bundle.pid())
    bundle.end(bundle.pid())


@differs("crun", "has gone into the bundle's folder when it writes the file")
def test_a_relative_pid_file_is_in_the_callers_folder(bundle: Bundle) -> None:
    bundle.argv("sleep", "1000")
    bundle.write()
    (bundle.runtime.folder / "here").mkdir()
    bundle.runtime.ok(
        "create", "--bundle", str(bundle.path), "--pid-file", "pid", bundle.id, cwd=bundle.runtime.folder / "here"
    )
    assert (bundle.runtime.folder / "here/pid").read_text() == str(bundle.pid())


def test_a_pid_file_that_cannot_be_written_is_an_error_and_leaves_nothing(bundle: Bundle) -> None:
    bundle.refused("true", flags=("--pid-file", str(bundle.path / "missing/pid")))


# List


def test_list_shows_a_line_for_each_container_under_a_head(bundle: Bundle) -> None:
    with bundle.running() as pid:
        head, line = bundle.runtime.ok("list").splitlines()
        assert set(head.split()) >= {"PID", "STATUS", "BUNDLE", "CREATED"}
        assert line.split()[:4] == [bundle.id, str(pid), "running", str(bundle.path)]


@pytest.mark.parametrize("flags", [("--format", "json"), ("--format=json",), ("-f", "json")], ids=" ".join)
def test_list_as_json_has_the_state_of_each_container(bundle: Bundle, flags: tuple[str, ...]) -> None:
    bundle.config["annotations"] = {"org.example.key": "value"}
    with bundle.running() as pid:
        (entry,) = json.loads(bundle.runtime.ok("list", *flags))
        found = {name: entry[name] for name in ("id", "pid", "status", "bundle")}
        assert found == {"id": bundle.id, "pid": pid, "status": "running", "bundle": str(bundle.path)}
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", entry["created"])


@pytest.mark.parametrize("flag", ["-q", "--quiet"])
def test_list_quietly_has_ids_only(bundle: Bundle, flag: str) -> None:
    with bundle.created():
        assert bundle.runtime.ok("list", flag) == bundle.id


def test_list_shows_created_and_stopped_containers_too(bundle: Bundle) -> None:
    other = Bundle(bundle.runtime, bundle.runtime.folder / "other")
    with bundle.created(), other.running("true") as pid:
        wait_for_end(pid)
        found = {entry["id"]: entry["status"] for entry in json.loads(bundle.runtime.ok("list", "--format", "json"))}
        assert found == {bundle.id: "created", other.id: "stopped"}


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(False, marks=differs("runc", "a --root that no container has been in yet is an error")),
        True,
    ],
    ids=["no-folder", "empty-folder"],
)
def test_list_of_an_empty_root_succeeds(runtime: Runtime, made: bool) -> None:
    if made:
        runtime.root.mkdir()
    assert runtime.ok("list", "-q") == ""
    assert json.loads(runtime.ok("list", "--format", "json")) in ([], None)
    assert len(runtime.ok("list").splitlines()) <= 1


def test_list_in_an_unknown_format_is_an_error(runtime: Runtime) -> None:
    runtime.fails("list", "--format", "nonsense")


# Programs that cannot be run: podman looks for these patterns to choose the exit code 126 or 127


def _folder(rootfs: Path) -> None:
    (rootfs / "prog").mkdir()


def _not_executable(rootfs: Path) -> None:
    (rootfs / "prog").write_text("#!/bin/sh\n")


def _no_interpreter(rootfs: Path) -> None:
    (rootfs / "prog").write_text("#!/missing\n")
    (rootfs / "prog").chmod(0o755)


def _nothing(_: Path) -> None:
    pass


NAMED = r"executable file .*not found in \$PATH"
DENIED = "permission denied|operation not permitted|is a directory"
MISSING = pytest.mark.parametrize("command", ["create", "run"])


@MISSING
@pytest.mark.parametrize(
    ("prepare", "argv", "said"),
    [
        (_nothing, "nonsense", NAMED),
        (_nothing, "/prog", "no such file or directory"),
        (_nothing, "./prog", "no such file or directory"),
        (_not_executable, "/prog", DENIED),
        (_folder, "/prog", DENIED),
    ],
    ids=["name", "path", "relative", "not-executable", "folder"],
)
def test_a_program_that_cannot_be_run_is_an_error_that_says_why_and_leaves_nothing(
    bundle: Bundle, command: str, prepare: Callable[[Path], None], argv: str, said: str
) -> None:
    prepare(bundle.rootfs)
    bundle.argv(argv)
    bundle.write()
    error = bundle.runtime.fails(command, "--bundle", str(bundle.path), bundle.id)
    assert re.search(said, error, re.IGNORECASE), error
    assert bundle.runtime.settled() == []


@differs("crun", "has the name between these words, or says `operation not permitted`; podman's patterns take that")
@pytest.mark.parametrize(
    ("prepare", "argv", "said"),
    [
        (_nothing, "nonsense", "executable file not found in $PATH"),
        (_not_executable, "/prog", "permission denied"),
    ],
    ids=["name", "not-executable"],
)
def test_a_program_that_cannot_be_run_is_an_error_in_the_words_docker_looks_for(
    bundle: Bundle, prepare: Callable[[Path], None], argv: str, said: str
) -> None:
    prepare(bundle.rootfs)
    assert said in bundle.refused(argv)


def test_a_script_without_its_interpreter_is_no_success(bundle: Bundle) -> None:
    """Nobody knows before the kernel has tried; then the error comes late, and is the process's."""
    _no_interpreter(bundle.rootfs)
    assert bundle.run("/prog").code != 0
    assert bundle.runtime.settled() == []


@pytest.mark.parametrize("field", ["no-entry", "empty-name"])
def test_args_without_a_program_are_an_error(bundle: Bundle, field: str) -> None:
    """ "at least one entry is REQUIRED"."""
    bundle.process["args"] = [] if field == "no-entry" else [""]
    bundle.refused()


def test_a_failed_create_can_be_tried_again_with_the_same_id(bundle: Bundle) -> None:
    bundle.refused("nonsense")
    with bundle.running():
        assert bundle.status() == "running"
