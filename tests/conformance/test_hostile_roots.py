"""Root file systems that are made to lead a runtime astray: nothing outside of them may be reached, made or changed.

A runtime may refuse such a root or cope with it. What it must not do is believe it.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import probes
from conformance.console import Master, reception
from conformance.harness import Bundle
from conformance.mounttable import mounts_in

RENAME_EXCHANGE = 2


@pytest.fixture
def outside(bundle: Bundle) -> Iterator[Path]:
    """A folder of the host's beside the bundle, which must be the same after the test."""
    place = bundle.runtime.folder / "outside"
    place.mkdir()
    (place / "secret").write_text("secret\n")
    (place / "below").mkdir()
    before = listed(place)
    yield place
    assert listed(place) == before
    assert (place / "secret").read_text() == "secret\n"


def listed(place: Path) -> list[tuple[str, int, int]]:
    return sorted((str(path), path.lstat().st_mode, path.lstat().st_ino) for path in place.rglob("*"))


def leads(outside: Path) -> list[str]:
    """Targets of links that lead there for who follows them by the host's rules."""
    return [str(outside), f"../../../../../../../..{outside}"]


def says_or_is_refused(bundle: Bundle, script: str) -> str | None:
    """What a script says in the container; None when there is none."""
    done = bundle.run("sh", "-c", script)
    assert done.code == 0 or done.error, done
    return done.out if done.code == 0 else None


def without_dev(bundle: Bundle) -> None:
    """/dev is as the image has it."""
    bundle.config["mounts"] = [
        entry for entry in bundle.config["mounts"] if not entry["destination"].startswith("/dev")
    ]


# Mounts


@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize("kind", ["tmpfs", "bind", "proc", "sysfs"])
def test_a_link_in_a_destination_leads_nowhere_outside(bundle: Bundle, outside: Path, kind: str, way: int) -> None:
    (bundle.rootfs / "link").symlink_to(leads(outside)[way])
    bundle.mount("/link/made", kind, str(bundle.rootfs / "etc"), ["bind"] if kind == "bind" else [])
    says_or_is_refused(bundle, "true")


@pytest.mark.parametrize("way", [0, 1])
def test_a_link_as_destination_leads_nowhere_outside(bundle: Bundle, outside: Path, way: int) -> None:
    (bundle.rootfs / "link").symlink_to(leads(outside)[way])
    bundle.mount("/link", "tmpfs")
    says_or_is_refused(bundle, "touch /link/made")


@pytest.mark.parametrize("way", [0, 1])
def test_a_file_bound_over_a_link_leads_nowhere_outside(bundle: Bundle, outside: Path, way: int) -> None:
    (bundle.rootfs / "link").symlink_to(f"{leads(outside)[way]}/secret")
    bundle.mount("/link", source=str(bundle.rootfs / "etc/passwd"), options=["bind"])
    says_or_is_refused(bundle, "true")


def test_a_link_in_a_bound_folder_leads_nowhere_outside(bundle: Bundle, outside: Path) -> None:
    """What containers write to a volume is no more to be trusted than their roots."""
    volume = bundle.path / "volume"
    volume.mkdir()
    (volume / "link").symlink_to(outside)
    bundle.mount("/volume", source=str(volume), options=["bind"])
    bundle.mount("/volume/link/made", "tmpfs")
    says_or_is_refused(bundle, "true")


@contextmanager
def exchanging(first: Path, second: Path) -> Iterator[None]:
    """Exchanges two names over and over (CVE-2021-30465)."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            probes.libc.renameat2(-100, str(first).encode(), -100, str(second).encode(), ctypes.c_uint(RENAME_EXCHANGE))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_folder_that_becomes_a_link_leads_nowhere_outside(bundle: Bundle, outside: Path) -> None:
    volume = bundle.path / "volume"
    (volume / "a/below").mkdir(parents=True)
    (volume / "b").symlink_to(outside)
    bundle.mount("/volume", source=str(volume), options=["bind"])
    bundle.mount("/volume/a/below", "tmpfs", options=["mode=700"])
    bundle.mount("/volume/a/made", "tmpfs")
    with exchanging(volume / "a", volume / "b"):
        for _ in range(10):
            bundle.run("true")


def test_a_copy_into_a_tmpfs_follows_no_link(bundle: Bundle, outside: Path) -> None:
    if "tmpcopyup" not in bundle.runtime.features().get("mountOptions", []):
        pytest.skip("needs a runtime with tmpcopyup")
    (bundle.rootfs / "data").mkdir()
    (bundle.rootfs / "data/link").symlink_to(outside / "secret")
    (bundle.rootfs / "folder").symlink_to(outside)
    bundle.mount("/data", "tmpfs", options=["tmpcopyup"])
    bundle.mount("/folder", "tmpfs", options=["tmpcopyup"])
    said = says_or_is_refused(bundle, "cat /data/link /folder/secret 2>/dev/null; true")
    assert not said


@pytest.mark.parametrize("way", [0, 1])
def test_a_device_is_not_made_outside(bundle: Bundle, outside: Path, way: int) -> None:
    (bundle.rootfs / "link").symlink_to(leads(outside)[way])
    bundle.linux["devices"] = [{"path": "/link/made", "type": "c", "major": 1, "minor": 3}]
    says_or_is_refused(bundle, "true")


@pytest.mark.parametrize("path", ["/../../../../../../..{}/made", "/dev/../../../../../../../..{}/made"])
def test_dots_in_a_path_make_no_device_outside(bundle: Bundle, outside: Path, path: str) -> None:
    bundle.linux["devices"] = [{"path": path.format(outside), "type": "c", "major": 1, "minor": 3}]
    says_or_is_refused(bundle, "true")


# /dev


@pytest.mark.parametrize("name", ["dev", "proc", "sys", "tmp"])
def test_a_link_in_the_place_of_a_folder_leads_nowhere_outside(bundle: Bundle, outside: Path, name: str) -> None:
    (bundle.rootfs / name).rmdir()
    (bundle.rootfs / name).symlink_to(outside)
    bundle.mount("/tmp/more", "tmpfs")
    says_or_is_refused(bundle, "true")


def test_a_null_that_is_a_link_hides_what_is_masked_nevertheless(bundle: Bundle, outside: Path) -> None:
    """CVE-2025-31133: what a masked path is covered with must be the null device."""
    without_dev(bundle)
    (bundle.rootfs / "etc/target").write_text("target\n")
    (bundle.rootfs / "etc/secret").write_text("secret\n")
    (bundle.rootfs / "dev/null").symlink_to("/etc/target")
    bundle.linux["maskedPaths"] = ["/etc/secret", "/proc/version"]
    said = says_or_is_refused(bundle, "cat /etc/secret /proc/version; echo written >/etc/secret; true")
    assert not said
    assert (bundle.rootfs / "etc/target").read_text() == "target\n"
    assert (bundle.rootfs / "etc/secret").read_text() == "secret\n"


@pytest.mark.parametrize("kind", ["file", "folder", "another device"])
def test_a_null_that_is_none_hides_what_is_masked_nevertheless(bundle: Bundle, kind: str) -> None:
    without_dev(bundle)
    null = bundle.rootfs / "dev/null"
    if kind == "file":
        null.write_text("false\n")
    elif kind == "folder":
        null.mkdir()
    else:
        os.mknod(null, 0o20666, os.makedev(1, 9))
    (bundle.rootfs / "etc/secret").write_text("secret\n")
    bundle.linux["maskedPaths"] = ["/etc/secret"]
    assert not says_or_is_refused(bundle, "head -c 10 /etc/secret; true")


def test_a_masked_path_that_is_a_link_cannot_be_read(bundle: Bundle) -> None:
    (bundle.rootfs / "etc/real").write_text("secret\n")
    (bundle.rootfs / "etc/secret").symlink_to("/etc/real")
    bundle.linux["maskedPaths"] = ["/etc/secret"]
    assert not says_or_is_refused(bundle, "cat /etc/secret")


def test_a_masked_folder_that_is_a_link_cannot_be_read(bundle: Bundle) -> None:
    (bundle.rootfs / "etc/real/below").mkdir(parents=True)
    (bundle.rootfs / "etc/secret").symlink_to("real")
    bundle.linux["maskedPaths"] = ["/etc/secret"]
    assert not says_or_is_refused(bundle, "ls /etc/secret/")


@pytest.mark.parametrize("way", [0, 1])
def test_masks_and_read_only_paths_lead_nowhere_outside(bundle: Bundle, outside: Path, way: int) -> None:
    (bundle.rootfs / "link").symlink_to(leads(outside)[way])
    bundle.linux["maskedPaths"] = ["/link/secret", "/link/below"]
    bundle.linux["readonlyPaths"] = ["/link/secret", "/link/below"]
    says_or_is_refused(bundle, "true")
    (outside / "secret").write_text("secret\n")


@pytest.mark.parametrize("target", ["/etc/target", "../etc/target"])
def test_a_console_that_is_a_link_covers_nothing_else(bundle: Bundle, target: str) -> None:
    """CVE-2025-52565."""
    without_dev(bundle)
    (bundle.rootfs / "etc/target").write_text("target\n")
    (bundle.rootfs / "dev/console").symlink_to(target)
    bundle.mount("/dev/pts", "devpts", "devpts", ["newinstance", "ptmxmode=0666"])
    bundle.process["terminal"] = True
    with reception(bundle.runtime.folder) as waiting:
        script = "[ -f /etc/target ] && echo not covered; [ -c /etc/target ] && echo covered"
        done = bundle.create("sh", "-c", script, flags=("--console-socket", str(waiting.path)))
        if done.code:
            return
        pid = bundle.pid()
        with Master(waiting.receive()) as master:
            bundle.start()
            shown = master.rest()
        bundle.end(pid)
    assert "not covered" in shown


@pytest.mark.parametrize("name", ["ptmx", "pts/ptmx"])
def test_a_terminal_that_is_none_is_not_taken_for_one(bundle: Bundle, name: str) -> None:
    """Where a terminal is opened must be a terminal file system; the image's own files are none."""
    without_dev(bundle)
    (bundle.rootfs / "dev/pts").mkdir()
    (bundle.rootfs / "dev" / name).write_text("")
    bundle.process["terminal"] = True
    with reception(bundle.runtime.folder) as waiting:
        done = bundle.create("true", flags=("--console-socket", str(waiting.path)))
        if done.code:
            return
        fd = waiting.receive()
        try:
            assert os.isatty(fd)
        finally:
            os.close(fd)
        bundle.end(bundle.pid())


def test_links_that_are_made_in_dev_are_made_in_the_root(bundle: Bundle, outside: Path) -> None:
    without_dev(bundle)
    (bundle.rootfs / "dev").rmdir()
    (bundle.rootfs / "dev").symlink_to(outside)
    says_or_is_refused(bundle, "true")


def test_a_root_of_links_to_itself_ends(bundle: Bundle) -> None:
    (bundle.rootfs / "loop").symlink_to("loop")
    bundle.mount("/loop/below", "tmpfs")
    bundle.refused()


def test_a_mount_below_a_mount_of_the_same_container_stays_inside(bundle: Bundle, outside: Path) -> None:
    """A link that a mount brings is followed inside the root as well."""
    volume = bundle.path / "volume"
    volume.mkdir()
    (volume / "up").symlink_to("../../../../../../../../..")
    bundle.mount("/a/b/c", source=str(volume), options=["bind"])
    bundle.mount(f"/a/b/c/up{outside}/made", "tmpfs")
    if says_or_is_refused(bundle, "true") is not None:
        assert f"{outside}/made" in mounts_in(bundle)
