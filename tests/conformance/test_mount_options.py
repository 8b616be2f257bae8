"""Options of mounts: the table of the specification's config.md, "Linux mount options", but propagation and id maps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import probes
from conformance.harness import Bundle, differs
from conformance.mounttable import Mounted, mounts_in, tmpfs, unmount
from probes import requires

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_NOSYMFOLLOW, MS_NODIRATIME = 1, 2, 4, 8, 32, 256, 2048
TABLE = "'Runtimes MUST/SHOULD/MAY implement the following option strings for Linux'"
UNKNOWN = differs("crun", f"does not know it; {TABLE}")
INVALID = differs("crun", f"the kernel refuses what it makes of it, an invalid mount_setattr(2); {TABLE}")
FIRST = differs("crun", "opposites do not undo each other; 'The MUST options correspond to mount(8)'")
DATA = differs("runc", f"takes it for data of the file system; {TABLE}")

SEEN = [
    *("ro", "nosuid", "nodev", "noexec", "nodiratime", "noatime", "relatime"),
    pytest.param("nosymfollow", marks=UNKNOWN),
]
UNSEEN = [
    *("async", "atime", "dev", "diratime", "exec", "nolazytime", "norelatime", "nostrictatime", "rw", "strictatime"),
    "suid",
    pytest.param("defaults", marks=DATA),
    *(pytest.param(name, marks=UNKNOWN) for name in ("iversion", "loud", "noiversion", "silent", "symfollow")),
]
OF_THE_FILE_SYSTEM = ["dirsync", "lazytime", "sync"]
OPPOSITES = [
    *(("ro", "rw"), ("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec"), ("nodiratime", "diratime")),
    ("noatime", "atime"),
]
RECURSIVE = [
    *(("rro", "ro"), ("rnosuid", "nosuid"), ("rnodev", "nodev"), ("rnoexec", "noexec")),
    *(pytest.param(name, name[1:], marks=INVALID) for name in ("rnodiratime", "rnoatime")),
    pytest.param("rnosymfollow", "nosymfollow", marks=UNKNOWN),
]
CLEARING = [
    *(("rrw", "ro", MS_RDONLY), ("rsuid", "nosuid", MS_NOSUID), ("rdev", "nodev", MS_NODEV)),
    ("rexec", "noexec", MS_NOEXEC),
    pytest.param("rdiratime", "nodiratime", MS_NODIRATIME, marks=INVALID),
    pytest.param("rsymfollow", "nosymfollow", MS_NOSYMFOLLOW, marks=UNKNOWN),
]
MUST = (
    "async atime bind defaults dev diratime dirsync exec iversion lazytime loud noatime nodev nodiratime noexec "
    "noiversion nolazytime norelatime nostrictatime nosuid private rbind relatime remount ro rprivate rshared rslave "
    "runbindable rw shared silent slave strictatime suid sync unbindable"
)


@pytest.fixture
def source(bundle: Bundle) -> Iterator[Path]:
    """A file system of the host's, and one below it, each with a file."""
    place = tmpfs(bundle.path / "source")
    below = tmpfs(place / "below")
    for folder in (place, below):
        (folder / "file").write_text("here\n")
        (folder / "program").write_text("#!/bin/sh\necho executed\n")
        (folder / "program").chmod(0o755)
        (folder / "link").symlink_to("file")
    yield place
    unmount(below)
    unmount(place)


def bound(bundle: Bundle, source: Path, *options: str) -> tuple[Mounted, Mounted | None]:
    """The mount of a bind with these options, and what is mounted below it."""
    bundle.mount("/mnt", source=str(source), options=options)
    found = mounts_in(bundle)
    return found["/mnt"], found.get("/mnt/below")


@pytest.mark.parametrize("option", SEEN)
def test_a_file_system_is_mounted_with_the_option(bundle: Bundle, option: str) -> None:
    bundle.mount("/mnt", "tmpfs", options=[option])
    assert option in mounts_in(bundle)["/mnt"].options


@pytest.mark.parametrize("option", OF_THE_FILE_SYSTEM)
def test_a_file_system_has_the_option_itself(bundle: Bundle, option: str) -> None:
    bundle.mount("/mnt", "tmpfs", options=[option])
    assert option in mounts_in(bundle)["/mnt"].data


@pytest.mark.parametrize("option", UNSEEN)
def test_an_option_that_changes_no_new_mount_is_known(bundle: Bundle, option: str) -> None:
    """Unknown options go to the file system, and a tmpfs refuses what it does not know."""
    bundle.mount("/mnt", "tmpfs", options=[option])
    mounted = mounts_in(bundle)["/mnt"]
    assert not mounted.options & {"ro", "nosuid", "nodev", "noexec", "nodiratime", "noatime", "nosymfollow"}
    assert ("relatime" in mounted.options) == (option != "strictatime")


@FIRST
@pytest.mark.parametrize(("option", "opposite"), [*OPPOSITES, ("nosymfollow", "symfollow")])
def test_the_last_of_two_opposites_holds(bundle: Bundle, option: str, opposite: str) -> None:
    bundle.mount("/first", "tmpfs", options=[option, opposite])
    bundle.mount("/second", "tmpfs", options=[opposite, option])
    found = mounts_in(bundle)
    assert option not in found["/first"].options
    assert option in found["/second"].options


@pytest.mark.parametrize("option", SEEN)
def test_a_bind_has_the_option(bundle: Bundle, source: Path, option: str) -> None:
    mounted, _ = bound(bundle, source, "bind", option)
    assert option in mounted.options


@FIRST
@pytest.mark.parametrize(("option", "opposite"), OPPOSITES)
def test_the_last_of_two_opposites_holds_for_a_bind(bundle: Bundle, source: Path, option: str, opposite: str) -> None:
    mounted, _ = bound(bundle, source, "bind", option, opposite)
    assert option not in mounted.options


@pytest.mark.parametrize("option", ["ro", "nosuid", "nodev", "noexec"])
def test_an_option_of_a_recursive_bind_is_not_recursive(bundle: Bundle, source: Path, option: str) -> None:
    mounted, below = bound(bundle, source, "rbind", option)
    assert below
    assert option in mounted.options
    assert option not in below.options


@pytest.mark.parametrize(("option", "flag"), RECURSIVE)
def test_a_recursive_option_is_set_on_all_mounts_of_a_bind(
    bundle: Bundle, source: Path, option: str, flag: str
) -> None:
    mounted, below = bound(bundle, source, "rbind", option)
    assert below
    assert flag in mounted.options
    assert flag in below.options


@pytest.mark.parametrize(("option", "name", "flag"), CLEARING)
def test_a_recursive_option_is_taken_from_all_mounts_of_a_bind(
    bundle: Bundle, option: str, name: str, flag: int
) -> None:
    place = tmpfs(bundle.path / "source")
    below = tmpfs(place / "below")
    for one in (place, below):
        probes.mount("", str(one), "", probes.MS_BIND | MS_REMOUNT | flag)
    try:
        mounted, inner = bound(bundle, place, "rbind", option)
        assert inner
        assert name not in mounted.options | inner.options
    finally:
        unmount(below)
        unmount(place)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        *(("rrelatime", "relatime"), ("rnorelatime", None)),
        pytest.param("rnostrictatime", "relatime", marks=INVALID),
        pytest.param("rstrictatime", None, marks=INVALID),
        pytest.param("ratime", None, marks=INVALID),
    ],
)
def test_a_recursive_option_changes_when_times_are_written(
    bundle: Bundle, source: Path, option: str, expected: str | None
) -> None:
    """What the kernel takes for `not noatime`, `not relatime` is its own business; that the option is known is not."""
    mounted, below = bound(bundle, source, "rbind", option)
    assert below
    for one in (mounted, below):
        assert "noatime" not in one.options
        if expected:
            assert expected in one.options


def test_recursive_and_other_options_go_together(bundle: Bundle, source: Path) -> None:
    mounted, below = bound(bundle, source, "rbind", "nosuid", "rro", "rnoexec")
    assert below
    assert {"nosuid", "ro", "noexec"} <= mounted.options
    assert {"ro", "noexec"} <= below.options
    assert "nosuid" not in below.options


def test_a_recursive_option_is_for_a_bind_that_is_not_recursive_too(bundle: Bundle, source: Path) -> None:
    mounted, below = bound(bundle, source, "bind", "rro")
    assert "ro" in mounted.options
    assert not below


def test_a_read_only_mount_cannot_be_written_to(bundle: Bundle, source: Path) -> None:
    bundle.mount("/mnt", source=str(source), options=["rbind", "rro"])
    assert bundle.says("touch /mnt/new 2>/dev/null || echo no; touch /mnt/below/new 2>/dev/null || echo no") == "no\nno"


def test_the_source_of_a_read_only_bind_stays_writable(bundle: Bundle, source: Path) -> None:
    bundle.mount("/mnt", source=str(source), options=["rbind", "rro"])
    with bundle.running():
        (source / "below/new").write_text("")


def test_nothing_is_executed_where_it_must_not_be(bundle: Bundle, source: Path) -> None:
    bundle.mount("/mnt", source=str(source), options=["bind", "noexec"])
    bundle.mount("/with", source=str(source), options=["bind"])
    assert bundle.says("/with/program; /mnt/program 2>/dev/null || echo no") == "executed\nno"


@UNKNOWN
def test_no_link_is_followed_where_it_must_not_be(bundle: Bundle, source: Path) -> None:
    bundle.mount("/mnt", source=str(source), options=["bind", "nosymfollow"])
    assert bundle.says("cat /mnt/file; cat /mnt/link 2>/dev/null || echo no") == "here\nno"


@differs("crun", "clears it; 'For Linux, the parameters are as documented in mount(2)', and that is what it says")
def test_a_bind_has_the_options_of_what_is_bound(bundle: Bundle, source: Path) -> None:
    """mount(2), MS_BIND: 'The bind mount has the same mount options as the underlying mount.'"""
    probes.mount("", str(source), "", probes.MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODIRATIME)
    mounted, _ = bound(bundle, source, "bind")
    assert {"ro", "nosuid", "nodiratime"} <= mounted.options


def test_a_mount_is_changed_by_a_remount(bundle: Bundle) -> None:
    bundle.mount("/mnt", "tmpfs", options=["size=64k"])
    bundle.mount("/mnt", "tmpfs", options=["remount", "ro", "nosuid"])
    script = "cat /proc/self/mountinfo"
    listed = [line for line in bundle.says(script).splitlines() if line.split()[4] == "/mnt"]
    assert len(listed) == 1
    assert {"ro", "nosuid"} <= set(listed[0].split()[5].split(","))


@pytest.mark.parametrize("options", [["mand"], ["nomand"]])
def test_options_that_the_kernel_has_given_up_are_no_data_of_the_file_system(
    bundle: Bundle, options: list[str]
) -> None:
    known = bundle.runtime.features().get("mountOptions", [])
    if not set(options) <= set(known):
        pytest.skip("needs a runtime that knows mand, which it MAY")
    bundle.mount("/mnt", "tmpfs", options=options)
    assert mounts_in(bundle)["/mnt"].type == "tmpfs"


@requires("userns")
def test_flags_that_a_user_namespace_cannot_take_away_stay(bundle: Bundle) -> None:
    """A mount from outside keeps nosuid and the like (mount_namespaces(7)); a read-only bind of it must be made."""
    bundle.namespace("user")
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.runtime.folder.chmod(0o711)
    (bundle.rootfs / "mnt").mkdir()
    place = tmpfs(bundle.path / "source", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    try:
        bundle.mount("/mnt", source=str(place), options=["rbind", "ro"])
        assert {"ro", "nosuid", "nodev", "noexec"} <= mounts_in(bundle)["/mnt"].options
    finally:
        unmount(place)


@UNKNOWN
def test_the_runtime_says_that_it_knows_every_option_that_it_must(bundle: Bundle) -> None:
    assert not set(MUST.split()) - set(bundle.runtime.features()["mountOptions"])
