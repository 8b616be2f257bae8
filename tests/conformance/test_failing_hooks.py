"""Hooks that fail, or that cannot be: what is an error, what of the container is left, whose hooks still run.

runtime.md, "Lifecycle": up to `poststart` the runtime MUST "generate an error, stop the container, and continue the
lifecycle at step 12", which destroys the container and calls the `poststop` hooks; of those only a warning is logged.
"""

from __future__ import annotations

from typing import Any

import pytest

from conformance.harness import Bundle, differs
from conformance.test_hooks import CREATING, EARLY, STAGES, add, hook, note, order

BROKEN = differs(
    "crun", "may be ended by SIGPIPE: nobody takes the state of a hook that cannot be executed", always=False
)
FAILURES = {
    "exit-code": hook("exit 3"),
    "signal": hook("kill -KILL $$"),
    "missing": {"path": "/missing/program"},
    "not-executable": {"path": "/etc/passwd"},
}
NOT_PROGRAMS = ("missing", "not-executable")


@pytest.mark.parametrize("failure", ["exit-code", "signal", *(pytest.param(x, marks=BROKEN) for x in NOT_PROGRAMS)])
@pytest.mark.parametrize("stage", CREATING)
def test_a_hook_of_create_that_fails_is_an_error_and_leaves_nothing(bundle: Bundle, stage: str, failure: str) -> None:
    add(bundle, stage, FAILURES[failure])
    bundle.refused("true")
    assert bundle.status() == "missing"


@pytest.mark.parametrize("stage", CREATING)
def test_after_a_hook_of_create_that_fails_no_other_is_called(bundle: Bundle, stage: str) -> None:
    add(bundle, stage, note(bundle, stage, "before"), hook("exit 3"), note(bundle, stage, "after"))
    for later in STAGES[STAGES.index(stage) + 1 : -1]:
        add(bundle, later, note(bundle, later))
    bundle.refused("true")
    assert order(bundle) == ["before"]


@differs("crun", 'forgets them: "continue the lifecycle at step 12", of which step 13 are the `poststop` hooks')
@pytest.mark.parametrize("stage", CREATING)
def test_after_a_hook_of_create_that_fails_those_of_delete_are_called(bundle: Bundle, stage: str) -> None:
    add(bundle, stage, hook("exit 3"))
    add(bundle, "poststop", note(bundle, "poststop"))
    bundle.refused("true")
    assert order(bundle) == ["poststop"]


@differs("crun", "a hook's stderr goes nowhere unless an annotation names a file")
@pytest.mark.parametrize("stage", CREATING)
def test_what_a_failing_hook_complains_of_is_said(bundle: Bundle, stage: str) -> None:
    add(bundle, stage, hook("echo the disk is full >&2; exit 3"))
    done = bundle.create("true")
    assert done.code != 0
    assert "the disk is full" in done.err + done.error


def test_a_start_container_hook_that_fails_keeps_the_program_from_running(bundle: Bundle) -> None:
    add(bundle, "startContainer", hook("exit 3"))
    assert bundle.create("sh", "-c", "echo ran > /ran").code == 0
    bundle.runtime.call("start", bundle.id)
    bundle.ended()
    assert bundle.status() in ("stopped", "missing")
    assert not (bundle.rootfs / "ran").exists()


@differs("runc", "`start` returns before the hook is called")
@differs("crun", "`start` returns before the hook is called")
def test_a_start_container_hook_that_fails_is_an_error_of_start(bundle: Bundle) -> None:
    add(bundle, "startContainer", hook("exit 3"))
    assert bundle.create("true").code == 0
    assert bundle.runtime.fails("start", bundle.id)


@differs("runc", "leaves the container stopped")
@differs("crun", "leaves the container stopped")
def test_a_start_container_hook_that_fails_ends_with_the_container_deleted(bundle: Bundle) -> None:
    add(bundle, "startContainer", hook("exit 3"))
    add(bundle, "poststop", note(bundle, "poststop"))
    assert bundle.create("true").code == 0
    bundle.runtime.call("start", bundle.id)
    bundle.ended()
    assert bundle.status() == "missing"
    assert order(bundle) == ["poststop"]
    assert bundle.runtime.settled() == []


@EARLY
def test_a_poststart_hook_that_fails_is_an_error_of_start(bundle: Bundle) -> None:
    add(bundle, "poststart", hook("exit 3"))
    assert bundle.create("sleep", "1000").code == 0
    assert bundle.runtime.fails("start", bundle.id)


@EARLY
def test_a_poststart_hook_that_fails_ends_with_the_container_deleted(bundle: Bundle) -> None:
    """Since version 1.3; until then it was logged and the container went on."""
    add(bundle, "poststart", hook("exit 3"), note(bundle, "poststart", "after"))
    add(bundle, "poststop", note(bundle, "poststop"))
    assert bundle.create("sleep", "1000").code == 0
    bundle.runtime.call("start", bundle.id)
    assert bundle.status() == "missing"
    assert order(bundle) == ["poststop"]
    assert bundle.runtime.settled() == []


@differs("runc", 'fails, and calls no other: "the remaining hooks and lifecycle continue"')
@pytest.mark.parametrize("failure", ["exit-code", "signal", *(pytest.param(x, marks=BROKEN) for x in NOT_PROGRAMS)])
def test_a_poststop_hook_that_fails_is_a_warning_and_the_others_are_called(bundle: Bundle, failure: str) -> None:
    """ "If any `poststop` hook fails, the runtime MUST log a warning, but the remaining hooks and lifecycle continue
    as if the hook had succeeded"."""
    add(bundle, "poststop", FAILURES[failure], note(bundle, "poststop"))
    assert bundle.create("true").code == 0
    done = bundle.delete("--force")
    assert done.code == 0, done
    assert order(bundle) == ["poststop"]
    assert bundle.status() == "missing"
    assert bundle.runtime.settled() == []


def test_a_poststop_hook_that_fails_is_logged(bundle: Bundle) -> None:
    add(bundle, "poststop", hook("exit 3"))
    assert bundle.create("true").code == 0
    done = bundle.delete("--force")
    assert [record for record in done.log if record["level"] in ("warning", "error")] or done.err


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "relative": {"path": "bin/true"},
    "empty": {"path": ""},
    "no-path": {"args": ["true"]},
    "timeout-0": hook("sleep 0.1", timeout=0),
    "timeout-negative": hook("sleep 0.1", timeout=-1),
}


def impossible() -> list[Any]:
    """Each of them in each stage, with what peers accept."""
    cases = []
    for stage in STAGES:
        for kind, entry in IMPOSSIBLE.items():
            marks = []
            if stage in ("startContainer", "poststop") or (stage, kind) == ("createContainer", "relative"):
                marks.append(
                    differs("runc", "looks at a hook when it calls it, and then not for whether it is absolute")
                )
            if kind == "timeout-0" or (stage not in CREATING and kind != "no-path"):
                marks.append(differs("crun", "looks at a hook when it calls it, and takes a timeout of 0 for none"))
            elif kind in ("relative", "empty"):
                marks.append(BROKEN)
            cases.append(pytest.param(stage, entry, marks=marks, id=f"{stage}-{kind}"))
    return cases


@pytest.mark.parametrize(("stage", "entry"), impossible())
def test_a_hook_that_cannot_be_is_an_error_of_create(bundle: Bundle, stage: str, entry: dict[str, Any]) -> None:
    """ "`path` MUST be absolute", and is REQUIRED; "If set, `timeout` MUST be greater than zero"."""
    add(bundle, stage, entry)
    bundle.refused("true")


def test_a_stage_that_there_is_not_is_ignored(bundle: Bundle) -> None:
    """It is an unknown property."""
    bundle.config["hooks"] = {"nonsense": [hook("exit 3")]}
    assert bundle.says("echo hello") == "hello"
