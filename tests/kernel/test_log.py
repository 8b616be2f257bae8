"""A container's log on a disk that is really full: nothing is lost, and it goes on when there is room."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import probes
from cloche.errors import Error
from cloche.runtime.log import STDERR, STDOUT, LogWriter, Stalled
from cloche.runtime.logview import Reader
from probes import requires

pytestmark = requires("root")


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path, private_mounts: None) -> Iterator[Path]:
    """A file system of 256 KiB (ext4: some more) with a log's directory on it."""
    place = tmp_path / "disk"
    place.mkdir()
    if request.param == "tmpfs":
        probes.mount("tmpfs", str(place), "tmpfs", 0, "size=256k")
    else:
        mount_ext4(tmp_path / "image", place)
    (place / "log").mkdir()
    yield place
    probes.libc.umount2(str(place).encode(), 0)


def mount_ext4(image: Path, place: Path) -> None:
    import shutil
    import subprocess

    if not shutil.which("mkfs.ext4"):
        pytest.skip("needs program:mkfs.ext4")
    with image.open("wb") as file:
        file.truncate(2 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", str(image)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(image), str(place)], capture_output=True).returncode:
        pytest.skip("needs a loop device")


def fill(place: Path) -> None:
    with (place / "filler").open("ab", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                pass


def test_a_full_disk_stalls_and_loses_nothing_however_often_it_fills(disk: Path) -> None:
    chance = random.Random(3)
    said: dict[int, bytes] = {STDOUT: b"", STDERR: b""}
    pipes = {stream: os.pipe() for stream in said}
    for out, _ in pipes.values():
        os.set_blocking(out, False)
    stalls = 0
    with LogWriter(str(disk / "log"), 30_000, 1000) as writer:
        for turn in range(60):
            for stream, (_, into) in pipes.items():
                data = b"%d " % turn + bytes(chance.randrange(256) for _ in range(chance.randrange(1500)))
                said[stream] += data
                os.write(into, data)
            if turn % 3 == 0:
                fill(disk)
            while any(pending(out) for out, _ in pipes.values()):
                for stream, (out, _) in pipes.items():
                    try:
                        writer.take(out, stream)
                    except BlockingIOError:
                        pass
                    except Stalled as stalled:
                        stalls += 1
                        assert "ENOSPC" in str(stalled)
                        make_room(disk, chance.choice([1, 100, 4096, 10_000]))
            if stalls and turn % 7 == 0:  # a later keeper opens it anew
                writer.close()
                writer.__init__(str(disk / "log"), 30_000, 1000)  # type: ignore[misc]
    assert stalls > 10, "the disk was full"
    got: dict[int, bytes] = {STDOUT: b"", STDERR: b""}
    with Reader(str(disk / "log")) as reader:
        for pieces in reader.drain():
            for stream, data in pieces:
                got[stream] += data
    assert got == said
    for out, into in pipes.values():
        os.close(out)
        os.close(into)


def pending(fd: int) -> bool:
    import select

    asked = select.poll()
    asked.register(fd, select.POLLIN)
    return bool(asked.poll(0))


def make_room(disk: Path, count: int) -> None:
    filler = disk / "filler"
    size = filler.stat().st_size if filler.exists() else 0
    if size > count:
        os.truncate(filler, size - count)
    elif size:
        filler.unlink()
    else:
        pytest.fail("the log alone fills the disk: the test writes too much")


def test_a_log_that_cannot_be_made_for_want_of_inodes_says_so(tmp_path: Path, private_mounts: None) -> None:
    probes.mount("tmpfs", str(tmp_path), "tmpfs", 0, "nr_inodes=3")  # the root, the log's directory, one file
    (tmp_path / "log").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    try:
        with pytest.raises(Error, match="ENOSPC"):
            LogWriter(str(tmp_path / "log"), 1 << 20, 3)
        assert len(os.listdir("/proc/self/fd")) == before
        (tmp_path / "log" / "log.1.idx").unlink()
    finally:
        probes.libc.umount2(str(tmp_path).encode(), 0)
