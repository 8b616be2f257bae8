"""prune and df: what nobody uses goes, what somebody uses stays."""

from __future__ import annotations

import pytest

from commands import cloche, ok
from probes import requires

pytestmark = [requires("root", "overlay"), pytest.mark.usefixtures("store")]


def make(name: str, *flags: str, script: str = "true") -> str:
    ok("run", "-d", "--name", name, "--network", "none", *flags, "starter", "sh", "-c", script)
    return ok("inspect", "-f", "{{.Id}}", name)


def test_containers_that_do_not_run_go() -> None:
    make("runs", script="sleep 1000")
    gone = make("gone", script="dd if=/dev/zero of=/f bs=1M count=3")
    kept = make("kept", "--label", "keep=1")
    ok("wait", "gone", "kept")
    asked = cloche("container", "prune", input="n\n")
    assert asked.code == 0 and "WARNING!" in asked.out and "Deleted" not in asked.out
    said = ok("container", "prune", "-f", "--filter", "label!=keep").splitlines()
    assert said[0] == "Deleted Containers:" and said[1:] == [gone, "", said[-1]]
    assert said[-1].startswith("Total reclaimed space: 3.1")
    assert ok("container", "prune", "-f", "--filter", "until=1h") == "Total reclaimed space: 0B"
    assert kept in ok("container", "prune", input="y\n")
    assert ok("ps", "-a", "--format", "{{.Names}}") == "runs"
    wrong = cloche("container", "prune", "-f", "--filter", "name=x")
    assert wrong.code == 1 and "invalid filter" in wrong.err


def test_images_that_nobody_uses_go() -> None:
    make("runs", script="sleep 1000")
    assert ok("image", "prune", "-f") == "Total reclaimed space: 0B"
    ok("pack", "-t", "other", "true")
    assert ok("image", "prune", "-f") == "Total reclaimed space: 0B", "it has a name"
    said = ok("image", "prune", "-af").splitlines()
    assert said[0] == "Deleted Images:" and "untagged: other:latest" in said
    assert ok("images", "--format", "{{.Repository}}") == "starter", "a container uses it"


def test_all_that_nobody_uses_goes() -> None:
    make("gone")
    ok("wait", "gone")
    said = ok("system", "prune", "-af")
    assert "Deleted Containers:" in said and "untagged: starter:latest" in said
    assert ok("images", "-q") == ok("ps", "-aq") == ""
    assert "there yet" in cloche("system", "prune", "--volumes").err


def test_df() -> None:
    make("box", script="dd if=/dev/zero of=/f bs=1M count=3")
    ok("wait", "box")
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in ok(
        "system", "df", "--format", "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"
    ).splitlines()}  # fmt: skip
    assert rows["Images"][:2] == ["1", "1"] and rows["Images"][3].startswith("0B")
    assert rows["Containers"][:2] == ["1", "0"] and rows["Containers"][2].startswith("3.1")
    assert rows["Containers"][3].endswith("(100%)")
    long = ok("system", "df", "-v")
    assert "starter" in long and "box" in long
    assert ok("system", "df").splitlines()[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert ok("container", "ls", "-aq") == ok("ps", "-aq")
