"""Mounts of type `cgroup`: a container finds its own control groups there, and nobody else's, on every layout."""

from __future__ import annotations

from pathlib import Path

import pytest

import probes
from conformance.groups import V2, VERSION_1
from conformance.harness import Bundle
from conformance.mounttable import mounts_in
from probes import requires

PLACE = "/sys/fs/cgroup"
SCOPES = [pytest.param(True, marks=requires("cgroupns"), id="own"), pytest.param(False, id="the runtime's")]


def prepare(bundle: Bundle, own: bool, *options: str) -> None:
    """With a cgroup namespace of its own or without; `options` are those of the mount."""
    if not own:
        bundle.without_namespace("cgroup")
    bundle.linux["cgroupsPath"] = f"/{bundle.id}"
    next(entry for entry in bundle.config["mounts"] if entry["destination"] == PLACE)["options"] = list(options)


def folder(bundle: Bundle, own: bool = True) -> str:
    """Where the container's own group is found, in a hierarchy that every layout has.

    On version 2 without a cgroup namespace, the whole hierarchy is mounted, and /proc/self/cgroup says where in it.
    """
    if not V2:
        return f"{PLACE}/pids"
    return PLACE if own else f"{PLACE}/{bundle.id}"


@pytest.mark.parametrize("own", SCOPES)
def test_a_container_finds_its_own_group(bundle: Bundle, own: bool) -> None:
    prepare(bundle, own, "ro")
    assert "1" in bundle.says(f"cat {folder(bundle, own)}/cgroup.procs").split()


@pytest.mark.parametrize("own", SCOPES[:1] if V2 else SCOPES)
def test_no_other_group_is_found(bundle: Bundle, own: bool) -> None:
    prepare(bundle, own, "ro")
    other = Bundle(bundle.runtime, bundle.runtime.folder / "other")
    with other.running():
        assert not [name for name in bundle.says(f"find {PLACE} -type d").split() if bundle.runtime.mark in name]


@pytest.mark.parametrize("own", SCOPES)
def test_a_read_only_group_cannot_be_changed(bundle: Bundle, own: bool) -> None:
    prepare(bundle, own, "ro", "nosuid", "noexec", "nodev")
    assert bundle.says(f"mkdir {folder(bundle, own)}/made 2>/dev/null || echo no") == "no"


@pytest.mark.parametrize("own", SCOPES)
def test_a_writable_group_can_be_divided(bundle: Bundle, own: bool) -> None:
    prepare(bundle, own, "nosuid", "noexec", "nodev")
    place = f"{folder(bundle, own)}/made"
    bundle.says(f"mkdir {place} && [ -e {place}/cgroup.procs ]")


@pytest.mark.parametrize("own", SCOPES)
def test_the_options_are_those_that_are_asked_for(bundle: Bundle, own: bool) -> None:
    prepare(bundle, own, "ro", "nosuid", "noexec", "nodev")
    found = [mount for mount in mounts_in(bundle).values() if mount.type.startswith("cgroup")]
    assert found
    for mount in found:
        assert {"nosuid", "noexec", "nodev", "ro"} <= mount.options


@requires("cgroupns")
def test_a_group_is_the_root_of_its_own_namespace(bundle: Bundle) -> None:
    prepare(bundle, True, "ro")
    paths = {line.split(":", 2)[2] for line in bundle.says("cat /proc/self/cgroup").splitlines()}
    assert "/" in paths
    assert not [path for path in paths if bundle.id in path]


def test_a_group_has_its_whole_path_without_a_namespace(bundle: Bundle) -> None:
    prepare(bundle, False, "ro")
    assert f"/{bundle.id}" in {line.split(":", 2)[2] for line in bundle.says("cat /proc/self/cgroup").splitlines()}


@VERSION_1
@pytest.mark.parametrize("own", SCOPES)
def test_each_hierarchy_is_a_folder(bundle: Bundle, own: bool) -> None:
    prepare(bundle, own, "ro")
    hierarchies = {Path(place).name for name, place in probes.cgroup_mounts().items() if name != "unified"}
    assert hierarchies <= set(bundle.says(f"ls {PLACE}").split())


@requires("cgroup:v2")
@pytest.mark.parametrize("own", SCOPES)
def test_the_unified_hierarchy_is_mounted_itself(bundle: Bundle, own: bool) -> None:
    prepare(bundle, own, "ro")
    assert mounts_in(bundle)[PLACE].type == "cgroup2"


def test_an_executed_process_is_found_in_the_group(bundle: Bundle) -> None:
    prepare(bundle, True, "ro")
    with bundle.running():
        assert len(bundle.sh(f"cat {folder(bundle)}/cgroup.procs").split()) >= 2


@requires("userns", "cgroupns")
def test_a_group_is_found_in_a_user_namespace(bundle: Bundle) -> None:
    prepare(bundle, True, "ro", "nosuid", "noexec", "nodev")
    bundle.namespace("user")
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.runtime.folder.chmod(0o711)
    assert "1" in bundle.says(f"cat {folder(bundle)}/cgroup.procs").split()
