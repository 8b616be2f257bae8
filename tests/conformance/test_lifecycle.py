"""Runtime and lifecycle (runtime.md): create, start, state, kill, delete, in each status, and what is an error.

"Generating an error MUST leave the state of the environment as if the operation were never attempted".
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from conformance.harness import Bundle, Runtime, alive, differs, eventually, wait_for_end
from conformance.schemas import problems

ENDED = "process already finished|container not running|no such process"  # what containerd looks for after `kill`
NOT_THERE = differs("crun", "`delete` says that a folder cannot be opened, where containerd looks for `does not exist`")


def test_nothing_of_the_program_runs_before_start(bundle: Bundle) -> None:
    """`create`: "the user-specified program MUST NOT be run at this time"."""
    with bundle.created("sh", "-c", "echo ran > /ran; sleep 1000") as pid:
        assert bundle.status() == "created"
        assert not (bundle.rootfs / "ran").exists()
        bundle.start()
        eventually((bundle.rootfs / "ran").exists, "the program runs")
        assert bundle.pid() == pid


def test_a_container_is_created_then_running_then_stopped(bundle: Bundle) -> None:
    assert bundle.create("true").code == 0
    assert bundle.status() == "created"
    bundle.start()
    bundle.ended()
    assert bundle.status() == "stopped"
    assert bundle.delete().code == 0
    assert bundle.status() == "missing"


def test_it_is_running_as_soon_as_start_returns(bundle: Bundle) -> None:
    """`start`: "This operation MUST run the user-specified program"."""
    with bundle.running() as pid:
        assert bundle.status() == "running"
        eventually(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", "the pid is the program's")


@pytest.mark.parametrize("status", ["created", "running", "stopped"])
def test_the_state_has_what_the_specification_asks(bundle: Bundle, status: str) -> None:
    bundle.config["annotations"] = {"org.example.key": "value", "empty": ""}
    with bundle.created() as pid:
        if status != "created":
            bundle.start()
        if status == "stopped":
            bundle.kill("KILL")
            wait_for_end(pid)
        state = bundle.state()
        assert problems("state", state) == []
        assert state["ociVersion"].startswith("1.")
        assert (state["id"], state["status"], state["bundle"]) == (bundle.id, status, str(bundle.path))
        assert state.get("pid", 0) == (0 if status == "stopped" else pid)
        assert state["annotations"] == {"org.example.key": "value", "empty": ""}


def test_a_state_without_annotations_has_none(bundle: Bundle) -> None:
    with bundle.created():
        assert not bundle.state().get("annotations")


def test_the_first_process_is_the_pid_of_the_state(bundle: Bundle) -> None:
    """ "pid is the ID of the container process", as the host sees it."""
    with bundle.running() as pid:
        status = Path(f"/proc/{pid}/status").read_text()
        assert re.search(rf"^NSpid:\t{pid}\t1$", status, re.MULTILINE)
        assert bundle.sh("cat /proc/1/comm") == "sleep"


@pytest.mark.parametrize("flags", [(), ("--bundle", "."), ("-b", ".")], ids=["none", "long", "short"])
def test_the_bundle_is_the_current_folder_unless_named_and_absolute_in_the_state(
    bundle: Bundle, flags: tuple[str, ...]
) -> None:
    bundle.argv("sleep", "1000")
    bundle.write()
    out = bundle.runtime.output()
    bundle.runtime.ok("create", *flags, bundle.id, cwd=bundle.path, out=out)
    assert bundle.state()["bundle"] == str(bundle.path)


def test_changes_of_the_configuration_after_create_have_no_effect(bundle: Bundle) -> None:
    """ "Any changes made to the config.json file after this operation will not have an effect on the container."""
    bundle.process["env"].append("WHO=first")
    assert bundle.create("sh", "-c", "echo $WHO").code == 0
    bundle.process["env"][-1] = "WHO=second"
    bundle.write()
    bundle.start()
    bundle.ended()
    assert bundle.output() == "first\n"


def test_the_configuration_is_not_needed_after_create(bundle: Bundle) -> None:
    with bundle.created() as pid:
        (bundle.path / "config.json").unlink()
        bundle.start()
        assert bundle.kill("KILL").code == 0
        wait_for_end(pid)
        assert bundle.status() == "stopped"


@differs("runc", "looks for defaults of the process in the bundle's config.json again; nothing in the state needs it")
def test_exec_does_not_need_the_configuration_either(bundle: Bundle) -> None:
    with bundle.running():
        (bundle.path / "config.json").unlink()
        assert bundle.sh("echo here") == "here"


def test_an_id_that_is_taken_is_an_error_and_the_first_container_goes_on(bundle: Bundle) -> None:
    """ "If the ID provided is not unique ..., the implementation MUST generate an error and a new container MUST NOT be
    created"."""
    with bundle.running() as pid:
        assert bundle.runtime.fails("create", "--bundle", str(bundle.path), bundle.id)
        assert bundle.runtime.fails("run", "--bundle", str(bundle.path), bundle.id)
        assert bundle.pid() == pid
        assert bundle.status() == "running"
        assert bundle.runtime.ids() == [bundle.id]
        assert bundle.sh("echo here") == "here"


def test_of_two_creates_of_one_id_at_once_one_succeeds(bundle: Bundle) -> None:
    bundle.argv("sleep", "1000")
    bundle.write()
    out = bundle.runtime.output()
    both = [
        bundle.runtime.spawn("create", "--bundle", str(bundle.path), bundle.id, stdout=out.fd, stderr=out.fd)
        for _ in range(2)
    ]
    codes = [process.wait(20) for process in both]
    assert sorted(bool(code) for code in codes) == [False, True], out.read()
    assert bundle.status() == "created"
    bundle.start()
    bundle.end(bundle.pid())
    assert bundle.runtime.settled() == []


def test_an_id_can_be_used_again_after_delete(bundle: Bundle) -> None:
    for _ in range(2):
        with bundle.running():
            assert bundle.status() == "running"


@pytest.mark.parametrize(
    "form",
    ["{}", "{}_underscore", "{}+plus", "{}.dot", "{}-dash-", "{}-UPPER", "{:0<64}"],
    ids=["mark", "underscore", "plus", "dot", "dash", "upper", "64"],
)
def test_ids_of_letters_digits_and_a_few_marks_are_valid(bundle: Bundle, form: str) -> None:
    bundle.id = form.format(bundle.runtime.mark)
    with bundle.created():
        assert bundle.runtime.ids() == [bundle.id]
        assert bundle.state()["id"] == bundle.id


@pytest.mark.parametrize("id", ["", ".", "..", "/", "../up", "a/b", "/etc"])
def test_an_id_that_would_be_a_path_is_an_error(bundle: Bundle, id: str) -> None:
    bundle.id = id
    bundle.write()
    before = sorted(path.name for path in bundle.runtime.folder.iterdir() if not path.name.startswith("log"))
    assert bundle.runtime.fails("create", "--bundle", str(bundle.path), id)
    after = sorted(path.name for path in bundle.runtime.folder.iterdir() if not path.name.startswith("log"))
    assert set(after) - set(before) <= {"root"}
    assert not bundle.runtime.root.exists() or not list(bundle.runtime.root.iterdir())


@pytest.mark.parametrize("id", ["{} blank", "{}\nline", "{}\x1b[2J", "{}é", "{}:colon", "{}*"], ids=ascii)
def test_an_id_with_other_characters_is_an_error(bundle: Bundle, id: str) -> None:
    """ "... or is not valid in any other way": an id is part of paths, of names of cgroups and of what is printed."""
    bundle.id = id.format(bundle.runtime.mark)
    bundle.refused("true")


@pytest.mark.parametrize(
    "command", ["create", "run", "start", "state", "kill", "delete", "exec", "pause", "resume", "ps"]
)
def test_a_command_without_an_id_is_an_error(bundle: Bundle, command: str) -> None:
    bundle.write()
    assert bundle.runtime.call(command, cwd=bundle.path).code != 0
    assert bundle.runtime.settled() == []


@pytest.mark.parametrize(
    "command",
    ["start", "state", "kill", pytest.param("delete", marks=NOT_THERE), "pause", "resume", "ps", "update"],
)
def test_a_command_for_a_container_that_is_not_there_is_an_error(runtime: Runtime, command: str) -> None:
    """containerd tells such an error by "does not exist"."""
    flags = ("--pids-limit", "10") if command == "update" else ()
    assert "does not exist" in runtime.fails(command, *flags, f"{runtime.mark}-nobody")


def test_another_root_does_not_know_the_container(bundle: Bundle) -> None:
    with bundle.created():
        other = bundle.runtime.folder / "other"
        assert bundle.runtime.call("--root", str(other), "state", bundle.id, bare=True).code != 0
        assert bundle.runtime.call("--root", str(other), "list", "-q", bare=True).out == ""


# Start


def test_starting_twice_is_an_error_and_has_no_effect(bundle: Bundle) -> None:
    """`start`: "Attempting to start a container that is not created MUST have no effect on the container and MUST
    generate an error"."""
    with bundle.running() as pid:
        assert bundle.runtime.fails("start", bundle.id)
        assert (bundle.status(), bundle.pid()) == ("running", pid)


def test_starting_a_stopped_container_is_an_error(bundle: Bundle) -> None:
    with bundle.running("true") as pid:
        wait_for_end(pid)
        assert bundle.runtime.fails("start", bundle.id)
        assert bundle.status() == "stopped"


def test_a_created_container_whose_process_was_killed_is_stopped(bundle: Bundle) -> None:
    with bundle.created() as pid:
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)
        assert bundle.status() == "stopped"
        assert bundle.runtime.fails("start", bundle.id)


def test_a_process_that_nobody_has_reaped_yet_is_stopped(bundle: Bundle) -> None:
    """ "stopped: the container process has exited": whether its parent has looked is not the container's matter."""
    with bundle.running("true") as pid:
        eventually(lambda: not alive(pid), "the program has ended")
        assert Path(f"/proc/{pid}").exists()
        assert bundle.status() == "stopped"


def test_the_exit_code_is_the_programs(bundle: Bundle) -> None:
    """The container's process is a child that the caller inherits, and tells it how it ended."""
    assert bundle.create("sh", "-c", "exit 23").code == 0
    bundle.start()
    assert bundle.ended() == 23


# Kill

TRAP = "trap 'exit 7' {}; echo ready; sleep 1000 & wait"


@pytest.mark.parametrize(
    ("signals", "trapped"),
    [
        ((), "TERM"),
        (("TERM",), "TERM"),
        (("SIGTERM",), "TERM"),
        (("15",), "TERM"),
        (("SIGHUP",), "HUP"),
        (("2",), "INT"),
        (("USR1",), "USR1"),
        (("37",), "37"),
    ],
    ids=["none", "TERM", "SIGTERM", "15", "SIGHUP", "2", "USR1", "37"],
)
def test_kill_sends_the_signal_by_name_or_number_and_sigterm_by_default(
    bundle: Bundle, signals: tuple[str, ...], trapped: str
) -> None:
    with bundle.running("sh", "-c", TRAP.format(trapped)) as pid:
        eventually(lambda: "ready" in bundle.output(), "the program is ready")
        done = bundle.kill(*signals)
        assert done.code == 0, done
        assert wait_for_end(pid) == 7
        assert bundle.status() == "stopped"


@pytest.mark.parametrize("name", ["SIGNONSENSE", "1000", "-1", "TERM "])
def test_a_signal_that_does_not_exist_is_an_error_and_nothing_is_sent(bundle: Bundle, name: str) -> None:
    with bundle.running():
        assert bundle.runtime.fails("kill", bundle.id, name)
        assert bundle.status() == "running"


def test_kill_ends_a_created_container(bundle: Bundle) -> None:
    """Only of a container that is "neither created nor running" is a signal an error."""
    with bundle.created() as pid:
        assert bundle.kill("KILL").code == 0
        assert wait_for_end(pid) == -signal.SIGKILL
        assert bundle.status() == "stopped"


def test_kill_of_a_stopped_container_is_an_error(bundle: Bundle) -> None:
    """`kill`: "Attempting to send a signal to a container that is neither created nor running MUST ... generate an
    error", which containerd knows by one of three texts."""
    with bundle.running("true") as pid:
        wait_for_end(pid)
        assert re.search(ENDED, bundle.runtime.fails("kill", bundle.id, "KILL"), re.IGNORECASE)


def test_kill_all_of_a_container_without_a_pid_namespace_ends_each_of_its_processes(bundle: Bundle) -> None:
    bundle.without_namespace("pid")
    with bundle.running("sh", "-c", "sleep 1001 & sleep 1002 & echo ready; wait"):
        eventually(lambda: "ready" in bundle.output(), "the program is ready")
        pids = _processes(bundle)
        assert len(pids) == 3
        bundle.runtime.ok("kill", "--all", bundle.id, "KILL")
        eventually(lambda: not any(map(alive, pids)), "all have ended")


def test_kill_all_reaches_processes_that_outlived_the_first_one(bundle: Bundle) -> None:
    """containerd's shim calls it when the first process of a shared pid namespace has ended."""
    bundle.without_namespace("pid")
    with bundle.running("sh", "-c", "sleep 1001 & echo ready; sleep 0.1") as pid:
        eventually(lambda: "ready" in bundle.output(), "the program is ready")
        pids = _processes(bundle)
        wait_for_end(pid)
        bundle.runtime.call("kill", "--all", bundle.id, "KILL")
        eventually(lambda: not any(map(alive, pids)), "all have ended")


def test_delete_ends_processes_that_outlived_the_first_one(bundle: Bundle) -> None:
    """Without a pid namespace they go on when the first process has ended; `delete` "MUST delete the resources that
    were created during the create step", and the cgroup is one."""
    bundle.without_namespace("pid")
    with bundle.running("sh", "-c", "sleep 1001 & echo ready; sleep 0.1") as pid:
        eventually(lambda: "ready" in bundle.output(), "the program is ready")
        pids = _processes(bundle)
        wait_for_end(pid)
        assert bundle.status() == "stopped"
        assert bundle.delete().code == 0
        eventually(lambda: not any(map(alive, pids)), "all have ended")
        assert bundle.runtime.settled() == []


def _processes(bundle: Bundle) -> list[int]:
    return [int(pid) for pid in bundle.runtime.ok("ps", "--format", "json", bundle.id).strip("[]\n").split(",")]


# Delete


def test_delete_of_a_running_container_is_an_error_and_has_no_effect(bundle: Bundle) -> None:
    """`delete`: "Attempting to delete a container that is not stopped MUST have no effect on the container and MUST
    generate an error"."""
    with bundle.running() as pid:
        assert bundle.runtime.fails("delete", bundle.id)
        assert (bundle.status(), bundle.pid()) == ("running", pid)
        assert bundle.sh("echo here") == "here"


def test_a_created_container_can_be_deleted_without_start(bundle: Bundle) -> None:
    """Here callers go before the specification ("not stopped MUST ... generate an error"): containerd's shim deletes
    what it has created and not started, without force, and both runc and crun do it."""
    assert bundle.create("true").code == 0
    assert bundle.delete().code == 0
    assert bundle.runtime.settled() == []


@pytest.mark.parametrize("flag", ["--force", "-f"])
@pytest.mark.parametrize("started", [False, True], ids=["created", "running"])
def test_delete_by_force_ends_what_runs(bundle: Bundle, started: bool, flag: str) -> None:
    assert bundle.create("sleep", "1000").code == 0
    if started:
        bundle.start()
    assert bundle.delete(flag).code == 0
    assert bundle.runtime.settled() == []


def test_delete_by_force_of_a_container_that_is_not_there_succeeds(runtime: Runtime) -> None:
    assert runtime.call("delete", "--force", f"{runtime.mark}-nobody").code == 0


@NOT_THERE
def test_deleting_twice_is_an_error(bundle: Bundle) -> None:
    assert bundle.create("true").code == 0
    assert bundle.delete("--force").code == 0
    assert "does not exist" in bundle.runtime.fails("delete", bundle.id)


def test_delete_removes_all_that_create_made_and_nothing_else(bundle: Bundle) -> None:
    """ "Note that resources associated with the container, but not created by this container, MUST NOT be deleted"."""
    (bundle.rootfs / "kept").write_text("kept")
    before = sorted(str(path) for path in bundle.path.rglob("*"))
    with bundle.running():
        assert any("cgroup" in line for line in bundle.runtime.left_behind())
    assert bundle.runtime.settled() == []
    assert sorted(str(path) for path in bundle.path.rglob("*")) == sorted([*before, str(bundle.path / "config.json")])
    assert (bundle.rootfs / "kept").read_text() == "kept"


def test_a_container_can_be_deleted_after_its_bundle(bundle: Bundle) -> None:
    """Engines remove a container's files whenever they must; the runtime's state may not depend on them."""
    assert bundle.create("true").code == 0
    bundle.start()
    bundle.ended()
    shutil.rmtree(bundle.path)
    assert bundle.status() == "stopped"
    assert bundle.delete().code == 0
    assert bundle.runtime.settled() == []


def test_many_containers_at_once_do_not_disturb_each_other(bundle: Bundle) -> None:
    bundle.argv("true")
    bundle.write()
    runtime = bundle.runtime
    out = runtime.output()

    def each(*args: str) -> list[int]:
        calls = [runtime.spawn(*args, name, stdout=out.fd, stderr=out.fd) for name in ids]
        return [call.wait(20) for call in calls]

    ids = [runtime.new_id() for _ in range(4)]
    assert each("create", "--bundle", str(bundle.path)) == [0] * 4, out.read()
    assert sorted(runtime.ids()) == sorted(ids)
    pids = [runtime.state(name)["pid"] for name in ids]
    assert each("start") == [0] * 4, out.read()
    assert [wait_for_end(pid) for pid in pids] == [0] * 4
    assert each("delete") == [0] * 4, out.read()
    assert runtime.ids() == []
