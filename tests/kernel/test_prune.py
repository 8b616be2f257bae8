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


def test_volumes_without_a_name_go_with_the_system_where_that_is_asked_for() -> None:
    ok("volume", "create", "named")
    nameless, labelled = ok("volume", "create"), ok("volume", "create", "--label", "keep=1")
    make("box", "-v", "/data", script="dd if=/dev/zero of=/data/f bs=1M count=3; sleep 1000")
    line = ok("system", "df").splitlines()[3].split()
    assert line[:5] == ["Local", "Volumes", "4", "1", line[4]] and line[4].startswith("3.1"), line
    assert "named" in ok("system", "df", "-v") and nameless in ok("system", "df", "-v")
    refused = cloche("system", "prune", "-f", "--volumes", "--filter", "until=1h")
    assert refused.code == 1 and '"until" filter is not supported' in refused.err
    assert nameless not in ok("system", "prune", "-f")
    said = ok("system", "prune", "-f", "--volumes", "--filter", "label!=keep").splitlines()
    assert said[:2] == ["Deleted Volumes:", nameless]
    assert labelled in ok("system", "prune", "-f", "--volumes")
    assert len(ok("volume", "ls", "-q").splitlines()) == 2, "named, and the one that runs with box"


def test_sizes_of_containers() -> None:
    make("box", script="dd if=/dev/zero of=/f bs=1M count=3; sleep 1000")
    make("idle", script="sleep 1000")
    (line,) = [line for line in ok("ps", "-s", "-f", "name=box").splitlines() if "box" in line]
    assert "3.1" in line and "(virtual " in line and ok("ps", "-s").splitlines()[0].split()[-1] == "SIZE"
    assert ok("ps", "-f", "name=idle", "--format", "{{.Size}}").startswith("0B (virtual ")
    assert '"Size":"0B"' in ok("ps", "-f", "name=idle", "--format", "json")
    own, everything = ok("inspect", "-s", "-f", "{{.SizeRw}} {{.SizeRootFs}}", "box").split()
    assert 3 << 20 <= int(own) < int(everything)
    assert "SizeRw" not in ok("inspect", "box")


@requires("nf_tables", "bridge")
def test_what_docker_lists_of_networks_volumes_and_images() -> None:
    ok("network", "create", "back")
    ok("network", "create", "front")
    ok("run", "-d", "--name", "box", "--network", "back", "-v", "data:/data", "starter", "sleep", "1000")
    ok("network", "connect", "front", "box")
    assert ok("ps", "--format", "{{.Networks}} {{.LocalVolumes}}") == "back,front 1"
    for name in ("front", ok("network", "inspect", "-f", "{{.Id}}", "front")):
        assert ok("ps", "-q", "-f", f"network={name}")
    assert ok("ps", "-q", "-f", "network=bridge") == ""
    assert ok("inspect", "-f", "{{.Driver}} {{.Name}}", "front", "none") == "bridge front\nnull none"
    assert cloche("inspect", "--type", "network", "box").code == 1
    assert "true" in ok("network", "ls", "-f", "name=back", "--format", "{{.IPv4}} {{.IPv6}}")
    counted = ok("images", "--format", "{{.Containers}} {{.SharedSize}} {{.UniqueSize}} {{.VirtualSize}}").split()
    assert counted[:2] == ["1", "0B"] and counted[2] == counted[3]


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
