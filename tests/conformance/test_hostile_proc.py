"""A /proc that is not what it claims to be, from an image, a volume or a container that has changed its own.

What a runtime writes to proc must reach the kernel, or be an error; what it reads there must come from the kernel.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conformance.harness import Bundle, alive, eventually
from conformance.mounttable import mounts_of

FORWARD = "net/ipv4/ip_forward"


@pytest.fixture
def fake(bundle: Bundle) -> Iterator[Path]:
    """A folder that looks like proc, with the files that runtimes write to; none may be changed."""
    place = bundle.path / "fake"
    for name in (f"sys/{FORWARD}", "sys/kernel/hostname", "sys/kernel/cap_last_cap", "version", "sysrq-trigger"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("0\n")
    for process in ("self", "thread-self", "1"):
        for name in ("oom_score_adj", "timerslack_ns", "attr/exec", "attr/apparmor/exec", "attr/current", "uid_map"):
            (place / process / name).parent.mkdir(parents=True, exist_ok=True)
            (place / process / name).write_text("0\n")
        (place / process / "fd").mkdir()
    before = contents(place)
    yield place
    assert contents(place) == before


def contents(place: Path) -> dict[str, str]:
    return {str(path): path.read_text() for path in place.rglob("*") if path.is_file()}


def forwarding(pid: int) -> str:
    """The parameter in the network namespace of a process, by a proc of the host's."""
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", "cat", f"/proc/sys/{FORWARD}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def set_all(bundle: Bundle) -> None:
    """Settings that a runtime makes by writing to proc."""
    bundle.linux["sysctl"] = {FORWARD.replace("/", "."): "1"}
    bundle.process["oomScoreAdj"] = 77
    bundle.linux["maskedPaths"], bundle.linux["readonlyPaths"] = ["/proc/version"], []


def are_set_or_refused(bundle: Bundle) -> None:
    if bundle.create("sleep", "1000").code:
        return
    pid = bundle.pid()
    try:
        bundle.start()
        assert forwarding(pid) == "1"
        assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "77"
    finally:
        bundle.end(pid)


def test_settings_reach_the_kernel(bundle: Bundle) -> None:
    set_all(bundle)
    with bundle.running() as pid:
        assert forwarding(pid) == "1"
        assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "77"
        assert "/proc/version" in mounts_of(pid)


def test_a_volume_in_the_place_of_proc_takes_no_settings(bundle: Bundle, fake: Path) -> None:
    """CVE-2019-16884."""
    set_all(bundle)
    bundle.config["mounts"] = bundle.config["mounts"][1:]
    bundle.mount("/proc", source=str(fake), options=["bind"])
    are_set_or_refused(bundle)


def test_a_volume_over_proc_takes_no_settings(bundle: Bundle, fake: Path) -> None:
    set_all(bundle)
    bundle.mount("/proc", source=str(fake), options=["bind"])
    are_set_or_refused(bundle)


@pytest.mark.parametrize("place", ["sys", "sys/net", "sys/net/ipv4", f"sys/{FORWARD}", "self"])
def test_a_volume_below_proc_takes_no_settings(bundle: Bundle, fake: Path, place: str) -> None:
    """CVE-2025-52881."""
    set_all(bundle)
    bundle.mount(f"/proc/{place}", source=str(fake / place), options=["bind"])
    are_set_or_refused(bundle)


@pytest.mark.parametrize("source", ["/proc/sysrq-trigger", "/proc/sys/kernel/panic"])
def test_a_file_of_the_hosts_proc_in_the_place_of_a_setting_is_not_written_to(bundle: Bundle, source: str) -> None:
    """The value is one that does no harm to either."""
    before = Path("/proc/sys/kernel/panic").read_text()
    bundle.linux["sysctl"] = {FORWARD.replace("/", "."): before.strip()}
    bundle.mount(f"/proc/sys/{FORWARD}", source=source, options=["bind", "ro"])
    if bundle.create("sleep", "1000").code == 0:
        pid = bundle.pid()
        assert forwarding(pid) == before.strip()
        bundle.end(pid)


@pytest.mark.parametrize("target", ["/fake", "fake", "/sys"])
def test_a_proc_that_is_a_link_is_none(bundle: Bundle, fake: Path, target: str) -> None:
    """CVE-2019-19921, CVE-2023-27561."""
    set_all(bundle)
    fake.rename(bundle.rootfs / "fake")
    (bundle.rootfs / "proc").rmdir()
    (bundle.rootfs / "proc").symlink_to(target)
    before = contents(bundle.rootfs / "fake")
    try:
        done = bundle.create("sh", "-c", "cat /proc/version; exec sleep 1000")
        if done.code == 0:
            pid = bundle.pid()
            bundle.start()
            assert forwarding(pid) == "1"
            eventually(lambda: Path(f"/proc/{pid}/cmdline").read_text().startswith("sleep"), "the program")
            assert bundle.output() == ""
            bundle.end(pid)
        assert contents(bundle.rootfs / "fake") == before
    finally:
        (bundle.rootfs / "fake").rename(fake)


def test_files_of_proc_in_the_image_take_no_settings(bundle: Bundle, fake: Path) -> None:
    """They lie below the mount of the real one."""
    set_all(bundle)
    (bundle.rootfs / "proc").rmdir()
    fake.rename(bundle.rootfs / "proc")
    try:
        are_set_or_refused(bundle)
    finally:
        (bundle.rootfs / "proc").rename(fake)


# What a container has done to its own


def may_mount(bundle: Bundle) -> None:
    for names in bundle.process["capabilities"].values():
        names.extend(["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"])


@contextmanager
def having_done(bundle: Bundle, script: str) -> Iterator[None]:
    """A container that goes on after a script of its own."""
    with bundle.running("sh", "-c", f"{script}; touch /tmp/done; exec sleep 1000"):
        eventually((bundle.rootfs / "tmp/done").exists, "what the container does")
        yield


def executed(bundle: Bundle) -> int | None:
    """The pid of a process that is executed in the container, None when that was refused."""
    file = bundle.path / "pid"
    done = bundle.exec("sleep", "1000", flags=("--detach", "--pid-file", str(file)))
    if done.code:
        return None
    pid = int(file.read_text())
    eventually(lambda: not alive(pid) or Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep"), "the program")
    return pid if alive(pid) else None


@pytest.mark.parametrize(
    "script", ["umount /proc", "umount /proc; mount --bind /fake /proc", "mount --bind /fake /proc"]
)
def test_nothing_leaks_to_what_is_executed_in_a_container_without_its_proc(
    bundle: Bundle, fake: Path, script: str
) -> None:
    bundle.mount("/fake", source=str(fake), options=["bind"])
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
    may_mount(bundle)
    with having_done(bundle, script):
        pid = executed(bundle)
        if pid:
            assert set(os.listdir(f"/proc/{pid}/fd")) <= {"0", "1", "2"}


def test_a_null_that_a_container_has_replaced_is_not_opened(bundle: Bundle) -> None:
    """Standard streams that a runtime opens itself are the null device, not what the container calls so."""
    with having_done(bundle, "rm /dev/null && mkfifo /dev/null"):
        assert bundle.exec("true").code in (0, 1)
