"""Hooks (config.md, "POSIX-platform Hooks"): when each is called, where it runs, what it is given.

What a hook that fails does is another file's: test_failing_hooks.py.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conformance.harness import Bundle, differs, eventually
from conformance.schemas import problems
from probes import cgroup_mounts

CREATING = ("prestart", "createRuntime", "createContainer")
STAGES = (*CREATING, "startContainer", "poststart", "poststop")
INSIDE = ("createContainer", "startContainer")
INSIDE_PID = '"For hooks executed in the container namespace, it is the pid as seen by the container"'
INHERITED = '"the same semantics as ... `environ`", and no variable is in it'


def peers(stages: Sequence[str], *known: tuple[str, Sequence[str], str]) -> list[Any]:
    """The stages as parameters: of `known` each says of a runtime in which of them it differs, and how."""
    return [
        pytest.param(stage, id=stage, marks=[differs(runtime, why) for runtime, where, why in known if stage in where])
        for stage in stages
    ]


EARLY = differs("runc", 'calls it in create: "MUST be called after the user-specified process is executed"')


def but(*stages: str) -> list[str]:
    """All other stages."""
    return [stage for stage in STAGES if stage not in stages]


def hook(script: str, reads: bool = False, **entry: Any) -> dict[str, Any]:
    """A shell script, of the machine's shell or in the container of its own. The state is read first, unless the script
    does it."""
    return {"path": "/bin/sh", "args": ["sh", "-c", script if reads else f"cat > /dev/null; {script}"], **entry}


def add(bundle: Bundle, stage: str, *entries: dict[str, Any]) -> None:
    bundle.config.setdefault("hooks", {}).setdefault(stage, []).extend(entries)


def place(bundle: Bundle, stage: str, name: str) -> str:
    """A file of the root, as a hook of this stage must name it."""
    return f"/{name}" if stage == "startContainer" else str(bundle.rootfs / name)


def note(bundle: Bundle, stage: str, text: str = "") -> dict[str, Any]:
    """A hook that adds a line to the file `order` in the root."""
    return hook(f"echo {text or stage} >> {place(bundle, stage, 'order')}")


def order(bundle: Bundle) -> list[str]:
    file = bundle.rootfs / "order"
    return file.read_text().split() if file.exists() else []


@contextmanager
def begun(bundle: Bundle, **options: Any) -> Iterator[int]:
    """A container whose program has begun, and before it what start calls: not everyone waits for that."""
    with bundle.running("sh", "-c", "echo begun; exec sleep 1000", **options) as pid:
        eventually(lambda: "begun" in bundle.output(), "the program has begun")
        yield pid


# When


def test_hooks_are_called_in_order_each_as_part_of_its_operation(bundle: Bundle) -> None:
    """ "Hooks MUST be called in the listed order"; those of create before it returns, that of start before the program,
    those of delete before it returns."""
    for stage in (*CREATING, "startContainer", "poststop"):
        add(bundle, stage, note(bundle, stage, f"{stage}-1"), note(bundle, stage, f"{stage}-2"))
    creating = [f"{stage}-{number}" for stage in CREATING for number in (1, 2)]
    assert bundle.create("sh", "-c", "echo program >> /order").code == 0
    assert order(bundle) == creating
    bundle.start()
    bundle.ended()
    running = [*creating, "startContainer-1", "startContainer-2", "program"]
    assert order(bundle) == running
    assert bundle.delete().code == 0
    assert order(bundle) == [*running, "poststop-1", "poststop-2"]


@EARLY
def test_hooks_after_start_are_called_before_start_returns(bundle: Bundle) -> None:
    add(bundle, "poststart", note(bundle, "poststart", "1"), note(bundle, "poststart", "2"))
    with bundle.created():
        assert order(bundle) == []
        bundle.start()
        assert order(bundle) == ["1", "2"]


def test_run_calls_all_hooks(bundle: Bundle) -> None:
    for stage in STAGES:
        add(bundle, stage, note(bundle, stage))
    assert bundle.run("true").code == 0
    assert [line for line in order(bundle) if line != "poststart"] == [x for x in STAGES if x != "poststart"]
    assert order(bundle).count("poststart") == 1


@pytest.mark.parametrize("started", [False, True], ids=["created", "running"])
def test_hooks_of_delete_are_called_when_force_is_used(bundle: Bundle, started: bool) -> None:
    add(bundle, "poststop", note(bundle, "poststop"))
    assert bundle.create("sleep", "1000").code == 0
    if started:
        bundle.start()
    assert bundle.delete("--force").code == 0
    assert bundle.delete("--force").code == 0
    assert order(bundle) == ["poststop"]


def test_the_container_is_away_when_the_hooks_of_delete_are_called(bundle: Bundle) -> None:
    """ "The `poststop` hooks MUST be called after the container is deleted"."""
    shown = bundle.path / "cgroups"
    trees = " ".join(sorted(set(cgroup_mounts().values())))
    add(bundle, "poststop", hook(f"find {trees} -name '*{bundle.id}*' > {shown} 2>/dev/null; true"))
    with bundle.running("true"):
        bundle.ended()
    assert shown.read_text() == ""


def test_an_empty_list_of_hooks_is_none(bundle: Bundle) -> None:
    bundle.config["hooks"] = {stage: [] for stage in STAGES}
    assert bundle.says("echo hello") == "hello"


# Where

KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "uts")


def namespaces(pid: int | str) -> dict[str, str]:
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in KINDS}


@pytest.mark.parametrize("stage", STAGES)
def test_a_hook_runs_in_the_namespaces_of_its_stage(bundle: Bundle, stage: str) -> None:
    """`prestart`, `createRuntime`, `poststart` and `poststop` "MUST be executed in the runtime namespace",
    `createContainer` and `startContainer` in the container's."""
    script = f"for kind in {' '.join(KINDS)}; do readlink /proc/self/ns/$kind; done"
    add(bundle, stage, hook(f"({script}) > {place(bundle, stage, 'found')}"))
    with begun(bundle) as pid:
        wanted = namespaces(pid if stage in INSIDE else "self")
    found = dict(zip(KINDS, (bundle.rootfs / "found").read_text().split(), strict=True))
    assert found == wanted


@pytest.mark.parametrize("stage", STAGES)
def test_a_hooks_path_is_that_of_the_runtime_but_for_start_container(bundle: Bundle, stage: str) -> None:
    """ "The value of `path` MUST resolve in the runtime namespace", for `startContainer` in the container's."""
    program = (bundle.rootfs if stage == "startContainer" else bundle.path) / "program"
    program.write_text(f"#!/bin/sh\ncat > /dev/null\necho $0 > {place(bundle, stage, 'found')}\n")
    program.chmod(0o755)
    named = "/program" if stage == "startContainer" else str(program)
    add(bundle, stage, {"path": named})
    with begun(bundle):
        pass
    assert (bundle.rootfs / "found").read_text() == f"{named}\n"


@pytest.mark.parametrize("stage", CREATING)
def test_the_mounts_are_there_and_the_root_is_not_yet_changed_in_hooks_of_create(bundle: Bundle, stage: str) -> None:
    """ "... after the runtime environment has been created ... but before the `pivot_root` or any equivalent"."""
    shown = bundle.path / "mounts"
    pid = "self" if stage in INSIDE else "$(tr -d ' \\n' | sed 's/.*\"pid\"://; s/[^0-9].*//')"
    add(bundle, stage, hook(f"cat /proc/{pid}/mountinfo > {shown}", reads=True))
    with bundle.created():
        assert f" {bundle.rootfs}/proc " in shown.read_text()


def test_what_a_hook_mounts_in_the_containers_namespace_the_program_sees(bundle: Bundle) -> None:
    (bundle.rootfs / "mnt").mkdir()
    place = bundle.rootfs / "mnt"
    add(bundle, "createContainer", hook(f"mount -t tmpfs hook {place} && echo mounted > {place}/file"))
    with begun(bundle):
        assert bundle.sh("cat /mnt/file") == "mounted"
        assert not list(place.iterdir())


def test_a_start_container_hook_changes_files_before_the_program_reads_them(bundle: Bundle) -> None:
    add(bundle, "startContainer", hook("echo prepared > /file"))
    assert bundle.run("cat", "/file").out == "prepared\n"


# What it is given

STATUS = {
    "prestart": "creating",
    "createRuntime": "creating",
    "createContainer": "creating",
    "startContainer": "created",
    "poststart": "running",
    "poststop": "stopped",
}


def given(bundle: Bundle, stage: str) -> tuple[dict[str, Any], int]:
    """The state that a hook of this stage reads, and the container's pid."""
    add(bundle, stage, hook(f"cat > {place(bundle, stage, 'state')}", reads=True))
    with begun(bundle) as pid:
        pass
    return json.loads((bundle.rootfs / "state").read_text()), pid


@pytest.mark.parametrize(
    "stage", peers(STAGES, ("crun", ["startContainer"], "a status `starting`, which the schema does not have"))
)
def test_a_hook_reads_the_state_on_stdin(bundle: Bundle, stage: str) -> None:
    """ "The state of the container MUST be passed to hooks over stdin"."""
    bundle.config["annotations"] = {"org.example.key": "value"}
    state, _ = given(bundle, stage)
    assert problems("state", state) == []
    assert (state["id"], state["bundle"]) == (bundle.id, str(bundle.path))
    assert state["annotations"] == {"org.example.key": "value"}
    assert state["ociVersion"].startswith("1.")


@pytest.mark.parametrize(
    "stage",
    peers(
        STAGES,
        ("runc", ["poststart"], "calls it in create, before the container runs"),
        ("crun", CREATING, '`created`: "the runtime has finished the create operation", and hooks are part of it'),
        ("crun", ["startContainer"], "`starting`, which the specification does not have"),
    ),
)
def test_the_state_that_a_hook_reads_has_the_status_of_its_stage(bundle: Bundle, stage: str) -> None:
    assert given(bundle, stage)[0]["status"] == STATUS[stage]


@pytest.mark.parametrize("stage", [stage for stage in but("poststop") if stage not in INSIDE])
def test_the_state_that_a_hook_outside_reads_has_the_pid_as_the_runtime_sees_it(bundle: Bundle, stage: str) -> None:
    state, pid = given(bundle, stage)
    assert state["pid"] == pid


@pytest.mark.parametrize("stage", peers(INSIDE, ("crun", INSIDE, f"0: {INSIDE_PID}")))
def test_the_state_that_a_hook_inside_reads_has_the_pid_as_the_container_sees_it(bundle: Bundle, stage: str) -> None:
    assert given(bundle, stage)[0]["pid"] == 1


@pytest.mark.parametrize("stage", STAGES)
def test_a_hook_has_the_arguments_and_the_environment_that_are_written_and_no_more(bundle: Bundle, stage: str) -> None:
    script = f'cat > /dev/null; (echo "$0|$1|$2"; env) > {place(bundle, stage, "found")}'
    entry = {
        "path": "/bin/sh",
        "args": ["sh", "-c", script, "zero", "", "a b"],
        "env": ["ONE=1", "PATH=/bin:/usr/bin"],
    }
    add(bundle, stage, entry)
    with begun(bundle, env={"SECRET": "x"}):
        pass
    first, *rest = (bundle.rootfs / "found").read_text().splitlines()
    assert first == "zero||a b"
    # what a shell itself adds
    assert {line for line in rest if line.split("=")[0] not in ("PWD", "SHLVL", "_", "OLDPWD")} == set(entry["env"])


@pytest.mark.parametrize(
    "stage",
    peers(
        STAGES,
        ("runc", but(*INSIDE), f"lends it the runtime's: {INHERITED}"),
        ("crun", but("startContainer"), f"lends it the runtime's: {INHERITED}"),
    ),
)
def test_a_hook_without_an_environment_has_none(bundle: Bundle, stage: str) -> None:
    add(bundle, stage, hook(f"env > {place(bundle, stage, 'found')}"))
    secret: dict[str, Any] = {"env": {"SECRET": "x"}}
    assert bundle.create("true", **secret).code == 0
    bundle.runtime.ok("start", bundle.id, **secret)
    bundle.ended()
    bundle.runtime.ok("delete", bundle.id, **secret)
    assert "SECRET" not in (bundle.rootfs / "found").read_text()


def test_the_first_argument_of_a_hook_is_as_written(bundle: Bundle) -> None:
    shown = bundle.path / "found"
    add(
        bundle,
        "createRuntime",
        {"path": "/bin/sh", "args": ["other", "-c", f"cat > /dev/null; head -c 5 /proc/$$/cmdline > {shown}"]},
    )
    with bundle.created():
        assert shown.read_text() == "other"


@differs("crun", "is ended by SIGPIPE")
def test_a_hook_need_not_read_the_state(bundle: Bundle) -> None:
    """However long it is: nobody is ended by a pipe that nobody reads."""
    bundle.config["annotations"] = {f"key{number}": "x" * 1000 for number in range(200)}
    for stage in STAGES:
        add(bundle, stage, {"path": "/bin/true"})
    assert bundle.create("true").code == 0
    bundle.start()
    bundle.ended()
    assert bundle.delete().code == 0


def test_a_hook_reads_all_of_a_long_state(bundle: Bundle) -> None:
    bundle.config["annotations"] = {f"key{number}": "x" * 1000 for number in range(200)}
    state, _ = given(bundle, "createRuntime")
    assert state["annotations"] == bundle.config["annotations"]


# How long


def test_a_hook_may_take_its_time_up_to_its_timeout(bundle: Bundle) -> None:
    add(bundle, "createRuntime", hook("sleep 0.1", timeout=5))
    with bundle.created():
        pass


@pytest.mark.parametrize("stage", ["createRuntime", "createContainer"])
def test_a_hook_that_goes_on_after_its_timeout_is_ended_and_has_failed(bundle: Bundle, stage: str) -> None:
    """ "`timeout` is the number of seconds before aborting the hook"."""
    add(bundle, stage, {"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1})
    before = time.monotonic()
    bundle.refused("true")
    assert 0.9 < time.monotonic() - before < 5


def test_hooks_path_files_are_not_needed_before_their_stage(bundle: Bundle) -> None:
    program = Path(bundle.path / "late")
    add(bundle, "poststop", {"path": str(program)})
    with begun(bundle):
        program.write_text(f"#!/bin/sh\ncat > /dev/null\necho late > {bundle.rootfs}/found\n")
        program.chmod(0o755)
    assert (bundle.rootfs / "found").read_text() == "late\n"
