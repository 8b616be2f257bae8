"""Mounts that show other ids than the file system has: the options `idmap` and `ridmap`, and a mount's own mappings.

A mapping's `containerID` is the id that the file system has, its `hostID` what is seen through the mount, as
mount_setattr(2) has it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.harness import Bundle
from conformance.mounttable import mounts_in, tmpfs, unmount
from probes import requires

pytestmark = requires("idmap")


@pytest.fixture
def source(bundle: Bundle) -> Iterator[Path]:
    """A folder with files of user 0 and 5, group 0 and 6, and such a file system below it."""
    place = bundle.path / "source"
    place.mkdir()
    below = tmpfs(place / "below")
    for folder in (place, below):
        for name, user, group in (("root", 0, 0), ("other", 5, 6)):
            (folder / name).touch()
            os.chown(folder / name, user, group)
    yield place
    unmount(below)


def mapping(inside: int, outside: int, size: int = 65536) -> list[dict[str, int]]:
    return [{"containerID": inside, "hostID": outside, "size": size}]


def mapped(bundle: Bundle, source: Path, *options: str, **mappings: list[dict[str, int]]) -> None:
    (bundle.rootfs / "mnt").mkdir()
    bundle.mount("/mnt", source=str(source), options=options)
    bundle.config["mounts"][-1].update(mappings)


def map_ids(bundle: Bundle) -> None:
    """A user namespace in which root is 100000 outside."""
    bundle.namespace("user")
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = mapping(0, 100000)
    bundle.runtime.folder.chmod(0o711)


def owners(*names: str) -> str:
    return f"stat -c %u:%g {' '.join(f'/mnt/{name}' for name in names)}"


def test_a_mount_shows_mapped_ids(bundle: Bundle, source: Path) -> None:
    mapped(bundle, source, "bind", "idmap", uidMappings=mapping(0, 1000), gidMappings=mapping(0, 2000))
    assert bundle.says(owners("root", "other")).split() == ["1000:2000", "1005:2006"]


def test_what_is_made_in_it_is_mapped_back(bundle: Bundle, source: Path) -> None:
    source.chmod(0o777)
    mapped(bundle, source, "bind", "idmap", uidMappings=mapping(0, 1000), gidMappings=mapping(0, 2000))
    bundle.process["user"] = {"uid": 1007, "gid": 2008}
    bundle.says("touch /mnt/made")
    made = (source / "made").stat()
    assert (made.st_uid, made.st_gid) == (7, 8)


def test_files_keep_their_owners_outside(bundle: Bundle, source: Path) -> None:
    mapped(bundle, source, "bind", "idmap", uidMappings=mapping(0, 1000), gidMappings=mapping(0, 1000))
    bundle.says("true")
    assert (source / "other").stat().st_uid == 5


def test_an_id_that_is_not_mapped_is_nobodys(bundle: Bundle, source: Path) -> None:
    mapped(bundle, source, "bind", "idmap", uidMappings=mapping(0, 1000, 2), gidMappings=mapping(0, 1000, 2))
    assert bundle.says(owners("root", "other")).split() == ["1000:1000", "65534:65534"]


def test_several_ranges_are_mapped(bundle: Bundle, source: Path) -> None:
    ranges = mapping(0, 1000, 1) + mapping(1, 3000, 100)
    mapped(bundle, source, "bind", "idmap", uidMappings=ranges, gidMappings=ranges)
    assert bundle.says(owners("root", "other")).split() == ["1000:1000", "3004:3005"]


def test_a_mount_with_the_ids_of_the_user_namespace_shows_those_of_the_file_system(
    bundle: Bundle, source: Path
) -> None:
    map_ids(bundle)
    mapped(bundle, source, "rbind", "idmap", uidMappings=mapping(0, 100000), gidMappings=mapping(0, 100000))
    assert bundle.says(f"{owners('root', 'other')}; touch /mnt/made").split() == ["0:0", "5:6"]
    assert (source / "made").stat().st_uid == 0


def test_a_mount_has_other_mappings_than_the_user_namespace(bundle: Bundle, source: Path) -> None:
    map_ids(bundle)
    mapped(bundle, source, "rbind", "idmap", uidMappings=mapping(0, 100010), gidMappings=mapping(0, 100020))
    assert bundle.says(owners("root", "other")).split() == ["10:20", "15:26"]


@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_a_mount_without_mappings_has_those_of_the_user_namespace(bundle: Bundle, source: Path, option: str) -> None:
    """'The runtime MAY use the container's user namespace mapping, otherwise an error MUST be returned.'"""
    map_ids(bundle)
    mapped(bundle, source, "rbind", option)
    done = bundle.run("sh", "-c", owners("root", "other"))
    assert done.code != 0 or done.out.split() == ["0:0", "5:6"]


@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_a_mount_without_any_mappings_is_an_error(bundle: Bundle, option: str) -> None:
    mapped(bundle, bundle.path, "rbind", option)
    bundle.refused()


@pytest.mark.parametrize("name", ["uidMappings", "gidMappings"])
def test_a_mount_with_mappings_of_one_kind_is_an_error(bundle: Bundle, name: str) -> None:
    mapped(bundle, bundle.path, "bind", "idmap", **{name: mapping(0, 1000)})
    bundle.refused()


def test_the_mappings_of_a_recursive_bind_are_those_of_its_first_mount(bundle: Bundle, source: Path) -> None:
    mapped(bundle, source, "rbind", "idmap", uidMappings=mapping(0, 1000), gidMappings=mapping(0, 1000))
    assert bundle.says(owners("other", "below/other")).split() == ["1005:1006", "5:6"]


def test_mappings_can_be_recursive(bundle: Bundle, source: Path) -> None:
    mapped(bundle, source, "rbind", "ridmap", uidMappings=mapping(0, 1000), gidMappings=mapping(0, 1000))
    assert bundle.says(owners("other", "below/other")).split() == ["1005:1006", "1005:1006"]


def test_a_mapped_mount_has_other_options_too(bundle: Bundle, source: Path) -> None:
    mapped(bundle, source, "rbind", "idmap", "ro", "nosuid", uidMappings=mapping(0, 7), gidMappings=mapping(0, 7))
    assert {"ro", "nosuid", "idmapped"} <= mounts_in(bundle)["/mnt"].options


def test_a_file_is_mapped(bundle: Bundle, source: Path) -> None:
    bundle.mount("/mnt", source=str(source / "other"), options=["bind", "idmap"])
    bundle.config["mounts"][-1].update(uidMappings=mapping(0, 1000), gidMappings=mapping(0, 1000))
    assert bundle.says("stat -c %u:%g /mnt") == "1005:1006"


def test_what_cannot_be_mapped_is_an_error(bundle: Bundle) -> None:
    """proc is mounted by whoever reads it."""
    mapped(bundle, Path("/proc/fs"), "bind", "idmap", uidMappings=mapping(0, 7), gidMappings=mapping(0, 7))
    bundle.refused()


def test_two_mounts_of_a_folder_are_mapped_apart(bundle: Bundle, source: Path) -> None:
    for number in (1, 2):
        bundle.mount(f"/mnt{number}", source=str(source), options=["bind", "idmap"])
        ids = mapping(0, number * 1000)
        bundle.config["mounts"][-1].update(uidMappings=ids, gidMappings=ids)
    bundle.mount("/mnt3", source=str(source), options=["bind"])
    assert bundle.says("stat -c %u /mnt1/other /mnt2/other /mnt3/other").split() == ["1005", "2005", "5"]
