"""Mounts: their order, where they go, what they are made of. Options are the business of test_mount_options.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.harness import Bundle
from conformance.mounttable import mounts_in, tmpfs, unmount
from probes import requires


@pytest.fixture
def source(bundle: Bundle) -> Iterator[Path]:
    """A folder with a file, and another file system below it with another file."""
    place = bundle.path / "source"
    place.mkdir()
    (place / "file").write_text("here\n")
    below = tmpfs(place / "below")
    (below / "file").write_text("below\n")
    yield place
    unmount(below)


def test_mounts_are_made_in_the_order_in_which_they_are_listed(bundle: Bundle) -> None:
    bundle.mount("/mnt", "tmpfs")
    bundle.mount("/mnt/below", "tmpfs")
    bundle.mount("/over/below", "tmpfs")
    bundle.mount("/over", "tmpfs")
    listed = bundle.says("cat /proc/self/mountinfo").splitlines()
    places = [line.split()[4] for line in listed]
    assert [place for place in places if place.startswith(("/mnt", "/over"))] == [
        *("/mnt", "/mnt/below"),
        *("/over/below", "/over"),
    ]


def test_a_mount_covers_what_was_mounted_there_before(bundle: Bundle) -> None:
    for name in ("first", "second"):
        (bundle.path / name).mkdir()
        (bundle.path / name / "name").write_text(name)
        bundle.mount("/mnt", source=str(bundle.path / name), options=["bind"])
    assert bundle.says("cat /mnt/name") == "second"


def test_a_bind_shows_a_folder_of_the_host(bundle: Bundle, source: Path) -> None:
    bundle.mount("/mnt", source=str(source), options=["bind"])
    assert bundle.says("cat /mnt/file; echo changed >/mnt/file") == "here"
    assert (source / "file").read_text() == "changed\n"


def test_a_bind_is_without_what_is_mounted_below_it(bundle: Bundle, source: Path) -> None:
    bundle.mount("/mnt", source=str(source), options=["bind"])
    assert bundle.says("ls /mnt/below") == ""


def test_a_recursive_bind_is_with_what_is_mounted_below_it(bundle: Bundle, source: Path) -> None:
    bundle.mount("/mnt", source=str(source), options=["rbind"])
    assert bundle.says("cat /mnt/below/file") == "below"


@pytest.mark.parametrize("option", ["bind", "rbind"])
@pytest.mark.parametrize("kind", ["none", "bind", "ext4", None])
def test_options_make_a_bind_and_not_the_type(bundle: Bundle, source: Path, option: str, kind: str | None) -> None:
    """A mount is a bind mount if it has either bind or rbind in the options; the type is a dummy."""
    bundle.mount("/mnt", source=str(source), options=[option])
    bundle.config["mounts"][-1]["type"] = kind
    if kind is None:
        del bundle.config["mounts"][-1]["type"]
    assert bundle.says("cat /mnt/file") == "here"


def test_a_relative_source_is_one_of_the_bundle(bundle: Bundle, source: Path) -> None:
    bundle.mount("/mnt", source="source", options=["bind"])
    assert bundle.says("cat /mnt/file", cwd="/") == "here"


def test_a_file_is_bound_to_a_file(bundle: Bundle, source: Path) -> None:
    bundle.mount("/etc/passwd", source=str(source / "file"), options=["bind"])
    assert bundle.says("cat /etc/passwd") == "here"
    assert (bundle.rootfs / "etc/passwd").read_text().startswith("root")


def test_a_place_for_a_folder_is_made(bundle: Bundle, source: Path) -> None:
    bundle.mount("/new/folder", source=str(source), options=["bind"])
    assert bundle.says("cat /new/folder/file") == "here"


def test_a_place_for_a_file_is_made(bundle: Bundle, source: Path) -> None:
    bundle.mount("/new/folder/file", source=str(source / "file"), options=["bind"])
    assert bundle.says("cat /new/folder/file") == "here"


def test_a_place_for_a_file_system_is_made(bundle: Bundle) -> None:
    bundle.mount("/new/folder", "tmpfs")
    assert mounts_in(bundle)["/new/folder"].type == "tmpfs"


def test_a_place_below_another_mount_is_made_there(bundle: Bundle) -> None:
    bundle.mount("/mnt", "tmpfs")
    bundle.mount("/mnt/a/b", "tmpfs")
    assert mounts_in(bundle)["/mnt/a/b"].type == "tmpfs"
    assert not list((bundle.rootfs / "mnt").iterdir())


def test_a_socket_is_bound(bundle: Bundle) -> None:
    os.mkfifo(bundle.path / "pipe")
    bundle.mount("/new/pipe", source=str(bundle.path / "pipe"), options=["bind"])
    bundle.says("[ -p /new/pipe ]")


def test_a_folder_on_a_file_is_an_error(bundle: Bundle) -> None:
    bundle.mount("/etc/passwd", source=str(bundle.path), options=["bind"])
    bundle.refused()


def test_a_file_on_a_folder_is_an_error(bundle: Bundle) -> None:
    bundle.mount("/etc", source=str(bundle.rootfs / "etc/passwd"), options=["bind"])
    bundle.refused()


def test_a_source_that_is_not_there_is_an_error(bundle: Bundle) -> None:
    bundle.mount("/mnt", source=str(bundle.path / "nothing"), options=["bind"])
    bundle.refused()
    assert not (bundle.path / "nothing").exists()


def test_a_file_system_that_there_is_not_is_an_error(bundle: Bundle) -> None:
    bundle.mount("/mnt", "weatherfs")
    bundle.refused()


def test_a_relative_destination_is_relative_to_the_root(bundle: Bundle) -> None:
    bundle.process["cwd"] = "/tmp"
    bundle.mount("relative/place", "tmpfs")
    assert mounts_in(bundle)["/relative/place"].type == "tmpfs"


def test_dots_in_a_destination_stay_inside_the_root(bundle: Bundle) -> None:
    bundle.mount("/tmp/../../../place", "tmpfs")
    assert mounts_in(bundle)["/place"].type == "tmpfs"


@pytest.mark.parametrize("target", ["/real", "real", "../../../../real"])
def test_a_link_in_a_destination_is_followed_inside_the_root(bundle: Bundle, target: str) -> None:
    (bundle.rootfs / "real").mkdir()
    (bundle.rootfs / "link").symlink_to(target)
    bundle.mount("/link/below", "tmpfs")
    assert mounts_in(bundle)["/real/below"].type == "tmpfs"


def test_a_link_to_the_destination_is_followed(bundle: Bundle, source: Path) -> None:
    (bundle.rootfs / "etc/real").touch()
    (bundle.rootfs / "etc/link").symlink_to("/etc/real")
    bundle.mount("/etc/link", source=str(source / "file"), options=["bind"])
    assert bundle.says("cat /etc/real") == "here"


def test_a_link_as_source_is_followed_on_the_host(bundle: Bundle, source: Path) -> None:
    (bundle.path / "link").symlink_to(source)
    bundle.mount("/mnt", source=str(bundle.path / "link"), options=["bind"])
    assert bundle.says("cat /mnt/file") == "here"


def test_a_destination_with_odd_characters_is_taken_as_it_is(bundle: Bundle) -> None:
    name = "/a b\\c\td%s,e=f"
    bundle.mount(name, "tmpfs")
    assert mounts_in(bundle)[name].type == "tmpfs"


def test_a_tmpfs_is_empty_and_of_its_size_and_mode(bundle: Bundle) -> None:
    (bundle.rootfs / "mnt").mkdir()
    (bundle.rootfs / "mnt/hidden").touch()
    bundle.mount("/mnt", "tmpfs", options=["size=64k", "mode=715", "uid=5", "gid=6", "nr_inodes=77"])
    assert bundle.says("stat -c '%a %u %g' /mnt; ls /mnt") == "715 5 6"
    assert {"size=64k", "nr_inodes=77"} <= mounts_in(bundle)["/mnt"].data


def test_a_tmpfs_is_not_larger_than_it_may_be(bundle: Bundle) -> None:
    bundle.mount("/mnt", "tmpfs", options=["size=64k"])
    assert bundle.run("dd", "if=/dev/zero", "of=/mnt/file", "bs=1k", "count=100").code != 0


def test_options_that_nobody_knows_go_to_the_file_system(bundle: Bundle) -> None:
    """Which refuses them: a tmpfs has no such option."""
    bundle.mount("/mnt", "tmpfs", options=["nosuid", "weather=fine"])
    bundle.refused()


def test_a_tmpfs_copies_what_it_covers(bundle: Bundle) -> None:
    if "tmpcopyup" not in bundle.runtime.features().get("mountOptions", []):
        pytest.skip("needs a runtime with tmpcopyup")
    (bundle.rootfs / "mnt/below").mkdir(parents=True)
    (bundle.rootfs / "mnt/file").write_text("copied\n")
    (bundle.rootfs / "mnt/file").chmod(0o646)
    os.chown(bundle.rootfs / "mnt/file", 3, 4)
    (bundle.rootfs / "mnt/below/link").symlink_to("../file")
    bundle.mount("/mnt", "tmpfs", options=["tmpcopyup"])
    assert bundle.says("cat /mnt/below/link; stat -c '%a %u %g' /mnt/file; echo new >/mnt/file") == "copied\n646 3 4"
    assert (bundle.rootfs / "mnt/file").read_text() == "copied\n"


@requires("overlay")
def test_an_overlay_is_mounted(bundle: Bundle) -> None:
    base = tmpfs(bundle.path / "layers")
    try:
        for name in ("lower", "upper", "work"):
            (base / name).mkdir()
        (base / "lower/file").write_text("lower\n")
        options = [f"lowerdir={base}/lower", f"upperdir={base}/upper", f"workdir={base}/work"]
        bundle.mount("/mnt", "overlay", options=options)
        assert bundle.says("cat /mnt/file; echo upper >/mnt/file") == "lower"
        assert (base / "lower/file").read_text() == "lower\n"
        assert (base / "upper/file").read_text() == "upper\n"
    finally:
        unmount(base)


@requires("mqueue")
def test_message_queues_are_those_of_the_container(bundle: Bundle) -> None:
    bundle.mount("/dev/mqueue", "mqueue", options=["nosuid", "noexec", "nodev"])
    assert bundle.says("ls /dev/mqueue; touch /dev/mqueue/made; ls /dev/mqueue") == "made"
    assert not Path("/dev/mqueue/made").exists()


def test_terminals_are_those_of_the_container(bundle: Bundle) -> None:
    assert bundle.says("ls /dev/pts") == "ptmx"
    assert bundle.says("stat -c '%a %g' /dev/pts; stat -c %a /dev/pts/ptmx").split()[-1] == "666"


def test_proc_is_that_of_the_container(bundle: Bundle) -> None:
    assert bundle.says("cat /proc/1/comm") == "cat"


def test_proc_hides_processes_of_others_when_asked_to(bundle: Bundle) -> None:
    bundle.config["mounts"][0]["options"] = ["nosuid", "noexec", "nodev", "hidepid=2"]
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    mounted = mounts_in(bundle)["/proc"]
    assert mounted.data & {"hidepid=2", "hidepid=invisible"}
    assert {"nosuid", "noexec", "nodev"} <= mounted.options


def test_a_file_of_proc_can_be_covered(bundle: Bundle, source: Path) -> None:
    """As lxcfs does it."""
    bundle.mount("/proc/meminfo", source=str(source / "file"), options=["bind"])
    assert bundle.says("cat /proc/meminfo") == "here"


def test_a_folder_of_dev_is_bound(bundle: Bundle, source: Path) -> None:
    bundle.mount("/dev/source", source=str(source), options=["bind"])
    assert bundle.says("cat /dev/source/file; [ -c /dev/null ]") == "here"


def test_nodes_of_a_dev_that_is_a_folder_of_the_host_stay_as_they_are(bundle: Bundle) -> None:
    dev = bundle.path / "dev"
    dev.mkdir()
    for minor, name in ((3, "null"), (5, "zero"), (7, "full"), (8, "random"), (9, "urandom")):
        os.mknod(dev / name, 0o20600, os.makedev(1, minor))
    os.mknod(dev / "tty", 0o20600, os.makedev(5, 0))
    before = {path.name: path.stat() for path in dev.iterdir()}
    bundle.config["mounts"] = [
        entry for entry in bundle.config["mounts"] if not entry["destination"].startswith("/dev")
    ]
    bundle.mount("/dev", source=str(dev), options=["bind"])
    bundle.says("[ -c /dev/null ]")
    for name, node in before.items():
        after = (dev / name).stat()
        assert (after.st_ino, after.st_mode, after.st_uid) == (node.st_ino, node.st_mode, node.st_uid), name


def test_hundred_mounts_are_made(bundle: Bundle) -> None:
    for number in range(100):
        bundle.mount(f"/mnt/{number}", "tmpfs", options=["size=4k"])
    assert sum(place.startswith("/mnt/") for place in mounts_in(bundle)) == 100


def test_no_mount_of_a_container_reaches_the_host(bundle: Bundle) -> None:
    bundle.mount("/mnt", "tmpfs")
    with bundle.running():
        assert not [
            line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(bundle.rootfs) in line
        ]


def test_no_mount_of_the_host_is_left_in_a_container(bundle: Bundle) -> None:
    listed = {place for place in mounts_in(bundle) if not place.startswith(("/proc", "/dev", "/sys"))}
    assert listed == {"/"}
