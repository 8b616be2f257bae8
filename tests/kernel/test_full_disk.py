"""A disk that is full at each stage: one clear line, nothing half made, and all is well once there is room again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import leftovers
import probes
from archives import docker_files, files_tar, member, tar_of
from commands import Result, cloche, ok
from registries import Made, Server, layer

pytestmark = [
    pytest.mark.one_lane,
    pytest.mark.requires("root", "overlay"),
    pytest.mark.usefixtures("private_mounts"),
    pytest.mark.timeout(180),
]
ROOMS = (0, 20, 100, 700)  # KiB that are left
BIG = os.urandom(1 << 20)


@pytest.fixture
def small(store: Path) -> Iterator[Path]:
    """A store of 100 MiB with the starter image in it, a container that ran, and a keeper."""
    probes.mount("tmpfs", str(store), "tmpfs", 0, "size=100m,mode=755")
    try:
        ok("run", "-d", "--name", "witness", "--network", "none", "starter", "sleep", "1000")
        yield store
        assert ok("exec", "witness", "echo", "alive") == "alive"
    finally:
        leftovers.end_store(store)
        probes.libc.umount2(str(store).encode(), probes.MNT_DETACH)


@contextmanager
def full(store: Path, room: int) -> Iterator[None]:
    """So many KiB are left."""
    status = os.statvfs(store)
    size = status.f_bavail * status.f_frsize - (room << 10)
    filler = store / "filler"
    try:
        with open(filler, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
        yield
    finally:
        filler.unlink()


def there(store: Path) -> set[str]:
    """What there is of files, beside those that are used up and thrown away."""
    folders = ("aside", "layers", "content/sha256", "containers", "run/plans")
    found = {f"{f}/{n}" for f in folders if (store / f).exists() for n in os.listdir(store / f)}
    return {name for name in found if "~" not in name and name != "aside/lock"}


def says_so(result: Result) -> None:
    """One line that a person understands."""
    assert result.code in (1, 125), result
    assert result.err.count("\n") == 1 and result.err[:-1].isprintable(), result
    assert "ENOSPC" in result.err or "disk is full" in result.err or "disk full" in result.err, result.err


def stage(store: Path, *command: str, undo: tuple[str, ...], code: int = 0) -> None:
    """A command on a full disk, with a little more room each time; then with enough."""
    failed = 0
    for room in ROOMS:
        before = there(store)
        with full(store, room):
            result = cloche(*command)
        if result.code != code:
            failed += 1
            says_so(result)
            deadline = time.monotonic() + 5
            while left := there(store) - before:
                assert time.monotonic() < deadline, (room, left)
                time.sleep(0.02)
        else:
            cloche(*undo)
    assert failed, "the disk was never full"
    done = cloche(*command)
    assert done.code == code, done
    cloche(*undo)


def test_create(small: Path) -> None:
    stage(small, "create", "--name", "box", "--network", "none", "starter", "true", undo=("rm", "-f", "box"))


def test_run(small: Path) -> None:
    command = ("run", "--rm", "--name", "box", "--network", "none", "starter", "sh", "-c", "exit 7")
    stage(small, *command, undo=("rm", "-f", "box"), code=7)
    assert ok("ps", "-a", "--format", "{{.Names}}") == "witness"


def test_start(small: Path) -> None:
    ok("create", "--name", "box", "--network", "none", "starter", "sleep", "1000")
    stage(small, "start", "box", undo=("kill", "box"))


def test_load(small: Path, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    archive.write_bytes(files_tar(docker_files([tar_of(member("big", BIG)), tar_of(member("b", b"x"))], ["big:1"])))
    stage(small, "load", "-i", str(archive), undo=("rmi", "-f", "big:1"))


def test_pack(small: Path) -> None:
    stage(small, "pack", "-t", "packed", "sh", "ls", undo=("rmi", "-f", "packed"))


def test_pull(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with Server(Made([layer({"big": BIG}), layer({"b": b"x"})])) as server:
        stage(small, "pull", "-q", f"{server.host}/big", undo=("rmi", "-f", f"{server.host}/big"))


def test_bombs(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that unpacks to a thousand times its size ends where the disk does."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for compress in ("gzip", "zstd"):
        with Server(Made([layer({"bomb": bytes(160 << 20)})], compress=compress)) as server:
            before = there(small)
            says_so(cloche("pull", "-q", f"{server.host}/bomb"))
            assert there(small) == before
    ok("run", "--rm", "--network", "none", "starter", "true")


def test_filling_a_volume(small: Path, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    archive.write_bytes(files_tar(docker_files([tar_of(member("data/big", BIG))], ["big:1"])))
    ok("load", "-i", str(archive))
    command = ("create", "--name", "box", "--network", "none", "-v", "filled:/data", "big:1", "true")
    stage(small, *command, undo=("rm", "-f", "box"))
    ok("create", "--name", "box", "--network", "none", "-v", "filled:/data", "big:1", "true")
    assert (small / "volumes/filled/_data/big").read_bytes() == BIG, "a try that failed half-way is no filled volume"
    ok("rm", "-f", "box")
    ok("volume", "rm", "filled")


def test_making_things_in_the_database(small: Path) -> None:
    """More than there is room for in what the database has of the disk already."""
    labels = [word for n in range(20) for word in ("--label", f"l{n}=" + "x" * 100_000)]
    stage(small, "volume", "create", *labels, "vol", undo=("volume", "rm", "-f", "vol"))


def test_copying_in(small: Path, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(BIG)
    for box in ("witness", "still"):
        if box == "still":
            ok("create", "--name", "still", "--network", "none", "starter", "true")
        with full(small, 100):
            says_so(cloche("cp", str(tmp_path / "big"), f"{box}:/big"))
        ok("cp", str(tmp_path / "big"), f"{box}:/big")


@pytest.mark.parametrize("words", [("save", "starter"), ("export", "witness")])
def test_archives(small: Path, words: tuple[str, str]) -> None:
    """A file that is there under its name is whole."""
    verb, what = words
    for room in ROOMS:
        with full(small, room):
            says_so(cloche(verb, "-o", str(small / "made.tar"), what))
        assert not list(small.glob("made.tar*"))
    ok(verb, "-o", str(small / "made.tar"), what)
    assert [path.name for path in small.glob("made.tar*")] == ["made.tar"]


def test_commit(small: Path, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(BIG)
    ok("cp", str(tmp_path / "big"), "witness:/big")
    stage(small, "commit", "witness", "made:1", undo=("rmi", "-f", "made:1"))


def test_ends_that_cannot_be_recorded_yet(small: Path) -> None:
    """A container that ends while nothing can be written: its code is known once something can."""
    ok("run", "-d", "--name", "box", "--network", "none", "starter", "sh", "-c", "sleep 1; exit 9")
    with full(small, 0):
        time.sleep(2.5)
        assert cloche("ps").code in (0, 1)
    assert ok("wait", "box") == "9"


def test_logs(small: Path) -> None:
    """Output waits for room; nothing of it is lost, and others go on."""
    script = (
        "i=0; while [ $i -lt 3000 ]; do echo line $i of many that are written while there is no room; i=$((i+1)); done"
    )
    ok("create", "--name", "box", "--network", "none", "starter", "sh", "-c", "sleep 1; " + script)
    ok("start", "box")
    with full(small, 0):
        time.sleep(2.5)
        assert ok("inspect", "-f", "{{.State.Running}}", "witness") == "true"
    assert ok("wait", "box") == "0"
    lines = ok("logs", "box").splitlines()
    assert [line.split()[1] for line in lines] == [str(n) for n in range(3000)]
