"""A copied tree is the same tree, whatever is in it; nothing outside is read or written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from stat import S_IMODE, S_ISCHR, S_ISFIFO

import pytest

from cloche.storage.copying import copy_tree
from probes import requires


def copied(source: Path, target: Path, check: Callable[[], None] = lambda: None) -> int:
    target.mkdir()
    fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (source, target)]
    try:
        return copy_tree(*fds, check)
    finally:
        for fd in fds:
            os.close(fd)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir(mode=0o751)
    return path


def test_everything_is_kept(source: Path, tmp_path: Path) -> None:
    (source / "deep/er").mkdir(parents=True)
    (source / "deep/er/file").write_bytes(b"x" * 100_000)
    os.chmod(source / "deep/er/file", 0o4751)
    os.chmod(source / "deep", 0o1555)
    (source / "link").symlink_to("/etc/passwd")
    (source / "up").symlink_to("../../..")
    os.link(source / "deep/er/file", source / "again")
    os.link(source / "link", source / "linked", follow_symlinks=False)
    os.mkfifo(source / "pipe")
    os.chmod(source / "pipe", 0o620)
    os.utime(source / "deep", ns=(1, 1_234_567_890_123_456_789))
    os.utime(source / "link", ns=(1, 999_000_000_001), follow_symlinks=False)
    os.utime(source, ns=(1, 5_000_000_007))
    assert copied(source, tmp_path / "target") == 8
    target = tmp_path / "target"
    assert (target / "deep/er/file").read_bytes() == b"x" * 100_000
    assert S_IMODE(os.stat(target / "deep/er/file").st_mode) == 0o4751
    assert S_IMODE(os.stat(target / "deep").st_mode) == 0o1555
    assert os.stat(target / "deep").st_mtime_ns == 1_234_567_890_123_456_789
    assert os.readlink(target / "link") == "/etc/passwd" and os.readlink(target / "up") == "../../.."
    assert os.lstat(target / "link").st_mtime_ns == 999_000_000_001
    assert os.stat(target / "again").st_ino == os.stat(target / "deep/er/file").st_ino
    assert os.lstat(target / "linked").st_ino == os.lstat(target / "link").st_ino
    assert S_ISFIFO(os.stat(target / "pipe").st_mode) and S_IMODE(os.stat(target / "pipe").st_mode) == 0o620
    assert S_IMODE(os.stat(target).st_mode) == 0o751 and os.stat(target).st_mtime_ns == 5_000_000_007
    os.chmod(target / "deep", 0o755)
    os.chmod(source / "deep", 0o755)


def test_names_that_are_no_text(source: Path, tmp_path: Path) -> None:
    name = os.fsencode(source) + b"/\xff\n"
    os.mkdir(name)
    open(name + b"/-rf", "w").close()
    copied(source, tmp_path / "target")
    assert os.listdir(os.fsencode(tmp_path / "target")) == [b"\xff\n"]


def test_holes_stay_holes(source: Path, tmp_path: Path) -> None:
    with open(source / "sparse", "wb") as file:
        file.seek(5 << 20)
        file.write(b"middle")
        file.truncate(64 << 20)
    copied(source, tmp_path / "target")
    status = os.stat(tmp_path / "target/sparse")
    assert status.st_size == 64 << 20 and status.st_blocks * 512 < 2 << 20
    with open(tmp_path / "target/sparse", "rb") as file:
        file.seek(5 << 20)
        assert file.read(7) == b"middle\0"


def test_a_deep_tree_takes_few_descriptors(source: Path, tmp_path: Path) -> None:
    """Not deeper than what tidies up temporary folders can go."""
    deep = source
    for _ in range(300):
        deep = deep / "d"
        os.mkdir(deep)
    before = len(os.listdir("/proc/self/fd"))
    most: list[int] = []
    copied(source, tmp_path / "target", lambda: most.append(len(os.listdir("/proc/self/fd"))))
    assert len(most) == 300 and max(most) < before + 8
    assert len(os.listdir("/proc/self/fd")) == before


def test_it_ends_when_nobody_waits(source: Path, tmp_path: Path) -> None:
    def check() -> None:
        raise InterruptedError

    (source / "file").touch()
    with pytest.raises(InterruptedError):
        copied(source, tmp_path / "target", check)
    assert not os.listdir(tmp_path / "target")


@requires("root")
def test_owners_devices_and_attributes_are_kept(source: Path, tmp_path: Path) -> None:
    (source / "file").touch()
    os.chown(source / "file", 1234, 5678)
    os.chmod(source / "file", 0o6755)
    os.setxattr(source / "file", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.mknod(source / "null", 0o20600, os.makedev(1, 3))
    os.chmod(source / "null", 0o666)
    os.symlink("x", source / "link")
    os.chown(source / "link", 7, 8, follow_symlinks=False)
    os.chown(source, 9, 10)
    copied(source, tmp_path / "target")
    target = tmp_path / "target"
    status = os.stat(target / "file")
    assert (status.st_uid, status.st_gid, S_IMODE(status.st_mode)) == (1234, 5678, 0o6755)
    assert os.getxattr(target / "file", "security.capability") == os.getxattr(source / "file", "security.capability")
    null = os.stat(target / "null")
    assert S_ISCHR(null.st_mode) and null.st_rdev == os.makedev(1, 3) and S_IMODE(null.st_mode) == 0o666
    assert os.lstat(target / "link").st_uid == 7 and os.stat(target).st_gid == 10
