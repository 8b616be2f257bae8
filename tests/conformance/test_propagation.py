"""Propagation of mounts between the host and a container: of binds, and of the root (`rootfsPropagation`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import probes
from conformance.harness import Bundle, differs
from conformance.mounttable import Mounted, mounts_of, tmpfs, unmount
from probes import MS_BIND

MS_SHARED, MS_PRIVATE = 0x100000, 0x40000
ADMIN = "CAP_SYS_ADMIN"
ALL_PRIVATE = "all mounts of a container are made private when rootfsPropagation is not set"
ROOT_PRIVATE = (
    "makes the mount of the root private before it is asked what it shall be; "
    "'the rootfs mount receives propagation events from the host'"
)


@pytest.fixture
def source(bundle: Bundle) -> Iterator[Path]:
    """A shared file system of the host's with another below it: what is mounted in it propagates."""
    place = tmpfs(bundle.path / "source")
    probes.mount("", str(place), "", MS_SHARED)
    below = tmpfs(place / "below")
    (place / "new").mkdir()
    (place / "made").mkdir()
    yield place
    for inner in ("made", "new", "below"):
        unmount(place / inner)
    assert below.parent == place
    unmount(place)


@pytest.fixture
def shared_root(bundle: Bundle) -> Iterator[Path]:
    """The root file system is a shared mount of the host's."""
    root = bundle.rootfs
    (root / "mnt").mkdir()
    probes.mount(str(root), str(root), "", MS_BIND)
    probes.mount("", str(root), "", MS_PRIVATE)
    probes.mount("", str(root), "", MS_SHARED)
    yield root
    unmount(root / "mnt")
    unmount(root)


def may_mount(bundle: Bundle) -> None:
    for names in bundle.process["capabilities"].values():
        names.append(ADMIN)


def bound(bundle: Bundle, source: Path, *options: str) -> tuple[Mounted, Mounted]:
    """A recursive bind, and what is mounted below it. As callers do, the root's propagation is said with it."""
    bundle.linux.setdefault("rootfsPropagation", "private")
    bundle.mount("/mnt", source=str(source), options=["rbind", *options])
    with bundle.running() as pid:
        found = mounts_of(pid)
    return found["/mnt"], found["/mnt/below"]


def test_a_private_bind_is_in_no_group(bundle: Bundle, source: Path) -> None:
    mounted, _ = bound(bundle, source, "private")
    assert not mounted.propagation


def test_a_bind_is_private_with_all_below_it(bundle: Bundle, source: Path) -> None:
    mounted, below = bound(bundle, source, "rprivate")
    assert not mounted.propagation
    assert not below.propagation


def test_a_slave_bind_has_a_master(bundle: Bundle, source: Path) -> None:
    mounted, _ = bound(bundle, source, "slave")
    assert mounted.slave
    assert not mounted.shared


def test_a_bind_is_a_slave_with_all_below_it(bundle: Bundle, source: Path) -> None:
    mounted, below = bound(bundle, source, "rslave")
    assert mounted.slave
    assert below.slave
    assert not (mounted.shared or below.shared)


def test_a_shared_bind_is_in_a_group(bundle: Bundle, source: Path) -> None:
    mounted, _ = bound(bundle, source, "shared")
    assert mounted.shared


def test_a_bind_is_shared_with_all_below_it(bundle: Bundle, source: Path) -> None:
    mounted, below = bound(bundle, source, "rshared")
    assert mounted.shared
    assert below.shared


@differs("crun", "makes it recursive; 'The MUST options correspond to mount(8)', which has runbindable for that")
def test_an_unbindable_bind_is_marked(bundle: Bundle, source: Path) -> None:
    mounted, below = bound(bundle, source, "unbindable")
    assert mounted.propagation == {"unbindable"}
    assert "unbindable" not in below.propagation


def test_a_bind_is_unbindable_with_all_below_it(bundle: Bundle, source: Path) -> None:
    mounted, below = bound(bundle, source, "runbindable")
    assert mounted.propagation == {"unbindable"}
    assert below.propagation == {"unbindable"}


@differs("crun", f"{ALL_PRIVATE}; the table of mount options has 'shared MUST' without a condition")
@pytest.mark.parametrize("option", ["shared", "rshared"])
def test_a_bind_is_shared_whatever_the_root_is(bundle: Bundle, source: Path, option: str) -> None:
    bundle.mount("/mnt", source=str(source), options=["rbind", option])
    with bundle.running() as pid:
        assert mounts_of(pid)["/mnt"].shared


def test_propagation_goes_together_with_other_options(bundle: Bundle, source: Path) -> None:
    mounted, _ = bound(bundle, source, "ro", "nosuid", "rslave")
    assert {"ro", "nosuid"} <= mounted.options
    assert mounted.slave


@pytest.mark.parametrize("option", ["private", "slave", "shared", "unbindable"])
def test_a_file_system_of_the_containers_own_has_a_propagation(bundle: Bundle, option: str) -> None:
    bundle.linux["rootfsPropagation"] = "private"
    bundle.mount("/mnt", "tmpfs", options=[option])
    with bundle.running() as pid:
        mounted = mounts_of(pid)["/mnt"]
    assert mounted.shared == (option == "shared")
    assert ("unbindable" in mounted.propagation) == (option == "unbindable")


@pytest.mark.parametrize(("option", "arrives"), [("rprivate", False), ("rslave", True), ("rshared", True)])
def test_what_the_host_mounts_arrives_in_a_bind(bundle: Bundle, source: Path, option: str, arrives: bool) -> None:
    bundle.linux["rootfsPropagation"] = "slave" if option == "rslave" else "shared"
    bundle.mount("/mnt", source=str(source), options=["rbind", option])
    with bundle.running() as pid:
        tmpfs(source / "new")
        assert ("/mnt/new" in mounts_of(pid)) == arrives


@pytest.mark.parametrize(("option", "arrives"), [("rprivate", False), ("rslave", False), ("rshared", True)])
def test_what_the_container_mounts_arrives_at_the_host(
    bundle: Bundle, source: Path, option: str, arrives: bool
) -> None:
    """For a shared bind the root must not be a slave: else all of the container is one."""
    bundle.linux["rootfsPropagation"] = "shared"
    bundle.mount("/mnt", source=str(source), options=["rbind", option])
    may_mount(bundle)
    bundle.says("mount -t tmpfs tmpfs /mnt/made")
    assert (str(source / "made") in mounts_of("self")) == arrives


@pytest.mark.parametrize("value", ["shared", "private", "unbindable"])
def test_the_root_has_the_propagation_that_is_asked_for(bundle: Bundle, shared_root: Path, value: str) -> None:
    bundle.linux["rootfsPropagation"] = value
    with bundle.running() as pid:
        root = mounts_of(pid)["/"]
    assert root.shared == (value == "shared")
    assert ("unbindable" in root.propagation) == (value == "unbindable")


@differs("runc", ROOT_PRIVATE)
@differs("crun", ROOT_PRIVATE)
def test_what_the_host_mounts_arrives_in_a_slave_root(bundle: Bundle, shared_root: Path) -> None:
    bundle.linux["rootfsPropagation"] = "slave"
    with bundle.running() as pid:
        tmpfs(shared_root / "mnt")
        found = mounts_of(pid)
    assert found["/"].slave
    assert "/mnt" in found


@pytest.mark.parametrize("value", ["private", "unbindable"])
def test_what_the_host_mounts_does_not_arrive_in_a_private_root(bundle: Bundle, shared_root: Path, value: str) -> None:
    bundle.linux["rootfsPropagation"] = value
    with bundle.running() as pid:
        tmpfs(shared_root / "mnt")
        assert "/mnt" not in mounts_of(pid)


@pytest.mark.parametrize("value", ["slave", "private", "shared"])
def test_what_the_container_mounts_in_its_root_stays_in_it(bundle: Bundle, value: str) -> None:
    """Also when it is shared: 'this does not mean that it's shared with the host'."""
    bundle.linux["rootfsPropagation"] = value
    (bundle.rootfs / "mnt").mkdir()
    may_mount(bundle)
    bundle.says("mount -t tmpfs tmpfs /mnt")
    assert not [place for place in mounts_of("self") if place.startswith(str(bundle.rootfs))]


def test_a_shared_root_propagates_to_its_copies(bundle: Bundle) -> None:
    bundle.linux["rootfsPropagation"] = "shared"
    (bundle.rootfs / "copy").mkdir()
    (bundle.rootfs / "mnt").mkdir()
    may_mount(bundle)
    script = "mount --bind / /copy; mount -t tmpfs tmpfs /mnt; grep -c /copy/mnt /proc/self/mountinfo"
    assert bundle.says(script) == "1"


def test_an_unbindable_root_cannot_be_bound(bundle: Bundle) -> None:
    bundle.linux["rootfsPropagation"] = "unbindable"
    (bundle.rootfs / "copy").mkdir()
    may_mount(bundle)
    assert bundle.says("mount --bind / /copy 2>/dev/null || echo no") == "no"


@differs(
    "crun",
    "ignores it; 'If the runtime cannot apply a property as specified in the configuration, it MUST generate an error'",
)
def test_a_propagation_that_there_is_not_is_an_error(bundle: Bundle) -> None:
    bundle.linux["rootfsPropagation"] = "contagious"
    bundle.refused()


def test_mounts_below_the_root_are_seen(bundle: Bundle) -> None:
    """What is mounted in the root file system before the container is made is part of it."""
    place = tmpfs(bundle.rootfs / "data")
    try:
        (place / "file").write_text("here\n")
        assert bundle.says("cat /data/file") == "here"
    finally:
        unmount(place)
