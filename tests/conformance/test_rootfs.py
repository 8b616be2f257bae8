"""The root file system as a container finds it: read-only or not, masked and read-only paths, what is there anyway."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from conformance.harness import Bundle
from conformance.mounttable import mounts_in, tmpfs, unmount


@pytest.fixture
def secrets(bundle: Bundle) -> Path:
    """Files and folders to be hidden or protected."""
    folder = bundle.rootfs / "secrets"
    (folder / "below").mkdir(parents=True)
    (folder / "file").write_text("secret\n")
    (folder / "below/file").write_text("secret\n")
    return folder


def test_the_root_can_be_written_to(bundle: Bundle) -> None:
    bundle.says("echo made >/made")
    assert (bundle.rootfs / "made").read_text() == "made\n"


def test_a_read_only_root_cannot_be_written_to(bundle: Bundle) -> None:
    bundle.config["root"]["readonly"] = True
    assert bundle.says("touch /made 2>/dev/null || echo no") == "no"
    assert "ro" in mounts_in(bundle)["/"].options


def test_a_root_is_read_only_for_the_container_alone(bundle: Bundle) -> None:
    bundle.config["root"]["readonly"] = True
    with bundle.running():
        (bundle.rootfs / "made").write_text("made\n")
        assert bundle.sh("cat /made") == "made"


def test_mounts_of_a_read_only_root_can_be_written_to(bundle: Bundle) -> None:
    bundle.config["root"]["readonly"] = True
    bundle.mount("/mnt", "tmpfs")
    bundle.says("touch /mnt/made /dev/shm/made")


def test_places_of_mounts_are_made_in_a_read_only_root(bundle: Bundle) -> None:
    bundle.config["root"]["readonly"] = True
    bundle.mount("/new/place", "tmpfs")
    assert "/new/place" in mounts_in(bundle)


def test_the_root_is_relative_to_the_bundle(bundle: Bundle) -> None:
    bundle.rootfs.rename(bundle.path / "elsewhere")
    bundle.config["root"]["path"] = "elsewhere"
    assert bundle.says("echo hello", cwd="/") == "hello"


def test_the_root_is_anywhere(bundle: Bundle) -> None:
    elsewhere = bundle.runtime.folder / "elsewhere"
    bundle.rootfs.rename(elsewhere)
    bundle.config["root"]["path"] = str(elsewhere)
    assert bundle.says("echo hello") == "hello"


def test_a_root_that_is_not_there_is_an_error(bundle: Bundle) -> None:
    """A directory MUST exist at the path declared by the field."""
    bundle.config["root"]["path"] = "nothing"
    bundle.refused()


def test_a_root_that_is_a_file_is_an_error(bundle: Bundle) -> None:
    bundle.config["root"]["path"] = "config.json"
    bundle.refused()


def test_nothing_above_the_root_is_reached(bundle: Bundle) -> None:
    assert bundle.says("ls /..").split() == bundle.says("ls /").split()
    assert "config.json" not in bundle.says("ls /.. /../..")


def test_a_masked_file_is_empty(bundle: Bundle, secrets: Path) -> None:
    bundle.linux["maskedPaths"] = ["/secrets/file"]
    assert bundle.says("cat /secrets/file /secrets/below/file") == "secret"


def test_a_masked_folder_is_empty_and_cannot_be_filled(bundle: Bundle, secrets: Path) -> None:
    bundle.linux["maskedPaths"] = ["/secrets"]
    assert bundle.says("ls -A /secrets; touch /secrets/made 2>/dev/null || echo no") == "no"


def test_what_is_written_to_a_masked_file_reaches_nobody(bundle: Bundle, secrets: Path) -> None:
    bundle.linux["maskedPaths"] = ["/secrets/file"]
    bundle.run("sh", "-c", "echo changed >/secrets/file")
    assert (secrets / "file").read_text() == "secret\n"


def test_a_mask_is_there_for_executed_processes(bundle: Bundle, secrets: Path) -> None:
    bundle.linux["maskedPaths"] = ["/secrets/file"]
    with bundle.running():
        assert bundle.sh("cat /secrets/file") == ""


def test_what_is_mounted_is_masked(bundle: Bundle, secrets: Path) -> None:
    bundle.mount("/mnt", source=str(secrets), options=["bind"])
    bundle.linux["maskedPaths"] = ["/mnt/file", "/mnt/below"]
    assert bundle.says("cat /mnt/file; ls /mnt/below") == ""


def test_files_of_proc_and_sys_are_masked(bundle: Bundle) -> None:
    bundle.linux["maskedPaths"] = ["/proc/version", "/proc/tty", "/sys/kernel/mm"]
    assert bundle.says("cat /proc/version; ls /proc/tty /sys/kernel/mm").split() == ["/proc/tty:", "/sys/kernel/mm:"]


def test_a_masked_path_need_not_be_there(bundle: Bundle) -> None:
    bundle.linux["maskedPaths"] = ["/nothing", "/proc/nothing"]
    assert bundle.says("[ -e /nothing ] || echo no") == "no"


def test_hundred_folders_are_masked(bundle: Bundle) -> None:
    for number in range(100):
        (bundle.rootfs / f"secrets/{number}/file").mkdir(parents=True)
    bundle.linux["maskedPaths"] = [f"/secrets/{number}" for number in range(100)]
    assert bundle.says("find /secrets -name file") == ""


def test_a_read_only_path_cannot_be_written_to(bundle: Bundle, secrets: Path) -> None:
    bundle.linux["readonlyPaths"] = ["/secrets/below", "/secrets/file"]
    tries = "/secrets/below/file /secrets/below/made /secrets/file /secrets/made"
    script = f"cat /secrets/file; for path in {tries}; do touch $path 2>/dev/null || echo no; done"
    assert bundle.says(script).split() == ["secret", "no", "no", "no"]
    assert (secrets / "made").exists()


def test_what_is_mounted_below_a_read_only_path_stays_there(bundle: Bundle, secrets: Path) -> None:
    bundle.mount("/secrets/mounted", source=str(bundle.rootfs / "etc"), options=["bind"])
    bundle.linux["readonlyPaths"] = ["/secrets"]
    assert "root" in bundle.says("cat /secrets/mounted/passwd")


def test_a_read_only_path_is_so_for_the_container_alone(bundle: Bundle, secrets: Path) -> None:
    bundle.linux["readonlyPaths"] = ["/secrets"]
    with bundle.running():
        (secrets / "file").write_text("changed\n")
        assert bundle.sh("cat /secrets/file") == "changed"


def test_a_read_only_path_need_not_be_there(bundle: Bundle) -> None:
    bundle.linux["readonlyPaths"] = ["/nothing", "/proc/nothing"]
    assert bundle.says("[ -e /nothing ] || echo no") == "no"


def test_a_read_only_path_keeps_the_other_options_of_its_mount(bundle: Bundle) -> None:
    bundle.config["mounts"][0]["options"] = ["nosuid", "nodev", "noexec"]
    bundle.mount("/mnt", "tmpfs", options=["nosuid"])
    bundle.linux["readonlyPaths"] = ["/mnt", "/proc/sys"]
    found = mounts_in(bundle)
    assert {"ro", "nosuid"} <= found["/mnt"].options
    assert {"ro", "nosuid", "nodev", "noexec"} <= found["/proc/sys"].options


def test_settings_of_the_kernel_are_read_only(bundle: Bundle) -> None:
    assert bundle.says("echo test 2>/dev/null >/proc/sys/kernel/hostname || echo no") == "no"


@pytest.mark.parametrize(
    ("place", "kind"), [("/proc", "proc"), ("/sys", "sysfs"), ("/dev/pts", "devpts"), ("/dev/shm", "tmpfs")]
)
def test_a_file_system_that_programs_expect_is_there(bundle: Bundle, place: str, kind: str) -> None:
    assert mounts_in(bundle)[place].type == kind


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ],
)
def test_a_link_of_dev_leads_to_a_descriptor(bundle: Bundle, link: str, target: str) -> None:
    assert bundle.says(f"readlink /dev/{link}") == target


def test_links_of_dev_are_there_without_a_dev_of_its_own(bundle: Bundle) -> None:
    """They are made 'if the source file exists after processing mounts'."""
    bundle.config["mounts"] = [entry for entry in bundle.config["mounts"] if entry["destination"] == "/proc"]
    assert bundle.says("readlink /dev/fd; readlink /dev/stdin") == "/proc/self/fd\n/proc/self/fd/0"


def test_links_of_dev_that_are_there_already_are_no_error(bundle: Bundle) -> None:
    os.symlink("/proc/self/fd", bundle.rootfs / "dev/fd")
    bundle.config["mounts"] = [entry for entry in bundle.config["mounts"] if entry["destination"] == "/proc"]
    assert bundle.says("readlink /dev/fd") == "/proc/self/fd"


def test_a_root_file_system_may_be_a_mount_itself(bundle: Bundle) -> None:
    moved = bundle.path / "moved"
    bundle.rootfs.rename(moved)
    place = tmpfs(bundle.rootfs)
    try:
        shutil.copytree(moved, place, symlinks=True, dirs_exist_ok=True)
        assert mounts_in(bundle)["/"].type == "tmpfs"
    finally:
        unmount(place)
