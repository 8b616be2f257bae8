"""Archives that skopeo and podman make of an image are all the same image."""

from __future__ import annotations

import io
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_IMODE
from tempfile import TemporaryDirectory

import pytest

import probes
from archives import docker_files, files_tar, folder, member, symlink, tar_of
from cloche.image.load import create_image, load
from cloche.image.store import SCHEMA, Image, ImageStore
from cloche.oci.image import Config, ImageConfig
from cloche.plan.mounts import overlay_data
from cloche.step.rootfs import Overlay
from cloche.storage.overlay import prepare
from probes import requires

pytestmark = requires("root", "overlay")

ENVIRONMENT = {**os.environ, "TMPDIR": "/tmp", "HOME": "/tmp"}  # not /var/tmp, which may be read-only
NAME = "docker.io/library/app:1"
BASE = tar_of(
    folder("bin", owner=(0, 0)),
    member("bin/tool", b"tool" * 5000, mode=0o4755, owner=(0, 50)),
    folder("etc", owner=(0, 0)),
    member("etc/gone", b"x"),
    member("etc/stays", b"x"),
)
TOP = tar_of(member("etc/.wh.gone"), symlink("sbin", "bin"), member("etc/new", b"new", owner=(1000, 1000)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    root = tmp_path / "store"
    root.mkdir()
    db = sqlite3.connect(root / "db", isolation_level=None)
    db.executescript(SCHEMA)
    yield ImageStore(str(root), db)
    db.close()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """What the image starts its travels as."""
    path = tmp_path / "made.tar"
    path.write_bytes(files_tar(docker_files([BASE, TOP], [NAME])))
    return path


def skopeo(source: str, target: str, *flags: str) -> None:
    command = ["skopeo", "--insecure-policy", "--tmpdir", "/tmp", "copy", "--quiet", *flags, source, target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr


def shown(store: ImageStore, image: Image, place: Path) -> dict[str, tuple[object, ...]]:
    """What a container of the image sees."""
    (root,) = prepare(store.root, place.name, image.layers).mounts
    assert isinstance(root, Overlay)
    place.mkdir()
    before = os.getcwd()
    os.chdir(root.directory)
    probes.mount("overlay", str(place), "overlay", 0, overlay_data(root))
    os.chdir(before)
    try:
        found: dict[str, tuple[object, ...]] = {}
        for at, folders, files in os.walk(place):
            for name in folders + files:
                path = Path(at, name)
                s = path.lstat()
                content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
                found[str(path.relative_to(place))] = (oct(S_IMODE(s.st_mode)), s.st_uid, s.st_gid, content)
        return found
    finally:
        assert probes.libc.umount2(str(place).encode(), 0) == 0


def same(store: ImageStore, image: Image, source: Path | io.BufferedReader, name: str) -> None:
    """`source` holds the same image: nothing new is unpacked, or it is, and a container sees the same."""
    (again,) = load(store, source)
    assert (again.config.diff_ids, again.config.config) == (image.config.diff_ids, image.config.config)
    assert again.layers == image.layers
    assert store.resolve(name).id == again.id


@requires("program:skopeo")
@pytest.mark.usefixtures("private_mounts")
def test_what_skopeo_makes_of_an_image_is_the_same_image(store: ImageStore, archive: Path, tmp_path: Path) -> None:
    (image,) = load(store, archive)
    files = shown(store, image, tmp_path / "seen")
    assert sorted(files) == ["bin", "bin/tool", "etc", "etc/new", "etc/stays", "sbin"]
    assert files["bin/tool"] == ("0o4755", 0, 50, b"tool" * 5000) and files["etc/new"][1:3] == (1000, 1000)

    layout, packed, old = tmp_path / "layout", tmp_path / "layout.tar", tmp_path / "old.tar"
    skopeo(f"docker-archive:{archive}", f"oci:{layout}:team/app:2")
    same(store, image, layout, "team/app:2")
    skopeo(f"oci:{layout}:team/app:2", f"oci-archive:{packed}:app:3")
    same(store, image, packed, "app:3")
    with packed.open("rb") as stream:
        same(store, image, stream, "app:3")
    skopeo(f"oci-archive:{packed}:app:3", f"docker-archive:{old}:app:4")
    same(store, image, old, "app:4")
    zstd = tmp_path / "zstd"
    skopeo(f"docker-archive:{archive}", f"oci:{zstd}:app:5", "--dest-compress-format", "zstd")
    assert b"tar+zstd" in b"".join(path.read_bytes() for path in zstd.glob("blobs/sha256/*"))
    same(store, image, zstd, "app:5")


@requires("program:skopeo")
@pytest.mark.usefixtures("private_mounts")
def test_each_archive_alone_gives_the_same_files(archive: Path, tmp_path: Path) -> None:
    layout, zstd = tmp_path / "layout", tmp_path / "zstd"
    skopeo(f"docker-archive:{archive}", f"oci:{layout}:app:1")
    skopeo(f"docker-archive:{archive}", f"oci:{zstd}:app:1", "--dest-compress-format", "zstd")
    seen = []
    for number, source in enumerate((archive, layout, zstd)):
        root = tmp_path / f"store{number}"
        root.mkdir()
        db = sqlite3.connect(root / "db", isolation_level=None)
        db.executescript(SCHEMA)
        own = ImageStore(str(root), db)
        seen.append(shown(own, load(own, source)[0], tmp_path / f"seen{number}"))
        db.close()
    assert seen[0] == seen[1] == seen[2] and seen[0]


@requires("program:podman")
@pytest.mark.usefixtures("private_mounts")
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_what_podman_saves_is_loaded(store: ImageStore, archive: Path, tmp_path: Path, form: str) -> None:
    with TemporaryDirectory(dir="/tmp") as place:  # podman refuses run directories with long names
        podman = ["podman", "--root", f"{place}/root", "--runroot", f"{place}/run", "--storage-driver", "vfs"]
        podman += ["--network-config-dir", place]  # it locks a file there, and /etc may be read-only
        for words in (["load", "-i", archive], ["save", "--format", form, "-o", tmp_path / "saved", NAME]):
            done = subprocess.run([*podman, *words], capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
            assert done.returncode == 0, done.stderr
    (image,) = load(store, tmp_path / "saved")
    assert (image.config.config.cmd, image.references) == (("/bin/sh",), (NAME,))
    assert shown(store, image, tmp_path / "seen")["etc/new"] == ("0o644", 1000, 1000, b"new")


@requires("program:busybox")
@pytest.mark.usefixtures("private_mounts")
def test_a_program_runs_in_what_was_loaded(store: ImageStore, tmp_path: Path) -> None:
    program = Path("/bin/busybox").read_bytes()
    layer = tar_of(folder("bin"), member("bin/busybox", program, mode=0o755), symlink("bin/sh", "busybox"))
    more = tar_of(member("hello", b"hello from a layer\n"))
    config = ImageConfig("amd64", "linux", Config(cmd=("/bin/sh",)))
    image = create_image(store, [io.BytesIO(layer), io.BytesIO(more)], config, ["busybox"])
    (root,) = prepare(store.root, "c", image.layers).mounts
    assert isinstance(root, Overlay)
    merged = tmp_path / "merged"
    merged.mkdir()

    def enter(root: Overlay = root) -> None:
        probes.private_mount_namespace()
        os.chdir(root.directory)
        probes.mount("overlay", str(merged), "overlay", 0, overlay_data(root))
        os.chroot(merged)
        os.chdir("/")

    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
    done = run(
        ["/bin/sh", "-c", "busybox cat /hello; echo x > /new"],
        preexec_fn=enter,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.stdout, done.returncode) == ("hello from a layer\n", 0)
    assert os.listdir(f"{store.root}/containers/c/upper") == ["new"]
