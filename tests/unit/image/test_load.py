"""Archives of every layout are loaded, whole or not at all."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
import zstandard

from archives import (
    Layout,
    blob_name,
    config_of,
    descriptor,
    docker_files,
    dumps,
    files_tar,
    folder,
    hardlink,
    member,
    symlink,
    tar_of,
)
from cloche.errors import Error, Invalid, NotFound, Unsupported
from cloche.image.files import TarFiles
from cloche.image.load import load
from cloche.image.store import SCHEMA, Image, ImageStore
from cloche.oci.digest import digest_of
from cloche.oci.platform import Platform
from cloche.storage.layers import Limits
from cloche.storage.overlay import layer_folder

BASE = tar_of(folder("bin"), member("bin/sh", b"shell" * 100))
TOP = tar_of(member("app", b"app"))
AMD = Platform("linux", "amd64")
Source = str | os.PathLike[str] | BinaryIO


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    root = tmp_path / "store"
    root.mkdir()
    db = sqlite3.connect(root / "db", isolation_level=None)
    db.executescript(SCHEMA)
    yield ImageStore(str(root), db)
    db.close()


class Pipe:
    """A stream that cannot be sought and gives what it likes."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(min(size, 777) if size > 0 else 777)


def as_pipe(files: dict[str, bytes], place: Path) -> Source:
    return cast("BinaryIO", Pipe(files_tar(files)))


def as_tar(files: dict[str, bytes], place: Path) -> Source:
    path = place / "archive.tar"
    path.write_bytes(files_tar(dict(reversed(files.items()))))
    return str(path)


def as_gzip(files: dict[str, bytes], place: Path) -> Source:
    path = place / "archive.tar.gz"
    path.write_bytes(gzip.compress(files_tar(files)))
    return path


def as_folder(files: dict[str, bytes], place: Path) -> Source:
    root = place / "archive"
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


WAYS = [as_pipe, as_tar, as_gzip, as_folder]


def docker() -> dict[str, bytes]:
    return docker_files([BASE, TOP], ["app:1", "team/app:2"])


def layout() -> dict[str, bytes]:
    made = Layout()
    document = made.image([BASE, TOP])
    made.point(document, "docker.io/library/app:1", annotations={"org.opencontainers.image.ref.name": "1"})
    made.point(document, "docker.io/team/app:2", annotations={"org.opencontainers.image.ref.name": "2"})
    return made.done()


def both() -> dict[str, bytes]:
    """What `docker save` writes since version 25: a layout that has the old documents too."""
    files = layout()
    config = config_of([BASE, TOP])
    names = [blob_name(layer) for layer in (gzip.compress(BASE, 1, mtime=0), gzip.compress(TOP, 1, mtime=0))]
    old = {"Config": blob_name(config), "RepoTags": ["app:1", "team/app:2"], "Layers": names}
    return {**files, "manifest.json": dumps([old]), "repositories": b"{}"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("made", [docker, layout, both])
def test_every_layout_is_loaded_in_every_way(
    store: ImageStore, tmp_path: Path, made: Callable[[], dict[str, bytes]], way: Callable[..., Source]
) -> None:
    (image,) = load(store, way(made(), tmp_path), AMD)
    assert image.id == digest_of(config_of([BASE, TOP]))
    assert image.references == ("docker.io/library/app:1", "docker.io/team/app:2")
    below, above = (Path(layer_folder(store.root, number)) for number in image.layers)
    assert (below / "bin/sh").read_bytes() == b"shell" * 100 and (above / "app").read_bytes() == b"app"
    assert store.resolve("app:1") == image
    assert os.listdir(store.root + "/aside") == ["lock"]


def test_the_manifest_of_a_layout_is_kept_byte_for_byte(store: ImageStore, tmp_path: Path) -> None:
    made = Layout()
    document = made.image([BASE])
    made.point(document)
    (image,) = load(store, as_pipe(made.done(), tmp_path))
    assert store.manifest(image.id) == document
    blobs = json.loads(document)["layers"]
    assert os.listdir(store.root + "/content/sha256") == [blob["digest"][7:] for blob in blobs]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["tar", "gzip", "zstd"])
def test_layers_may_be_compressed(store: ImageStore, tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    made = Layout()
    made.point(made.image([BASE, TOP], [pack(BASE), pack(TOP)]))
    (image,) = load(store, as_pipe(made.done(), tmp_path))
    files = docker_files([BASE, TOP], None)
    assert load(store, as_pipe({n: pack(d) if n.endswith("layer.tar") else d for n, d in files.items()}, tmp_path)) == [
        image
    ]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress, bz2.compress, lzma.compress])
def test_the_archive_may_be_compressed(store: ImageStore, pack: Callable[[bytes], bytes]) -> None:
    assert len(load(store, io.BytesIO(pack(files_tar(docker()))))) == 1


def test_several_images_share_what_they_have_in_common(store: ImageStore, tmp_path: Path) -> None:
    one, two = docker_files([BASE], ["one"]), docker_files([BASE, TOP], ["two"])
    documents = [json.loads(files["manifest.json"])[0] for files in (one, two)]
    images = load(store, as_pipe({**one, **two, "manifest.json": dumps(documents)}, tmp_path))
    assert [image.references for image in images] == [
        ("docker.io/library/one:latest",),
        ("docker.io/library/two:latest",),
    ]
    assert images[0].layers == images[1].layers[:1]


def test_equal_layers_may_be_links_to_each_other(store: ImageStore) -> None:
    config = config_of([BASE, TOP, BASE])
    entry = {"Config": "c.json", "RepoTags": None, "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"]}
    archive = tar_of(
        folder("a"),
        member("./a/layer.tar", BASE),
        hardlink("b/layer.tar", "d/other.tar"),
        member("d/other.tar", TOP),
        symlink("c/layer.tar", "../a/layer.tar"),
        member("c.json", config),
        member("manifest.json", dumps([entry])),
    )
    (image,) = load(store, io.BytesIO(archive))
    assert len(set(image.layers)) == 3 and image.references == ()


def test_links_in_a_folder_are_followed_inside_of_it_only(store: ImageStore, tmp_path: Path) -> None:
    files = docker()
    root = Path(cast("Path", as_folder(files, tmp_path)))
    name = next(name for name in files if name.endswith("layer.tar"))
    (root / name).rename(root / "moved.tar")
    (root / name).symlink_to("../moved.tar")
    assert len(load(store, root)) == 1
    (root / "moved.tar").rename(tmp_path / "outside.tar")
    for target in (tmp_path / "outside.tar", Path("../../outside.tar")):
        (root / name).unlink()
        (root / name).symlink_to(target)
        with pytest.raises(Invalid, match="outside of the archive"):
            load(store, root)
    (root / name).unlink()
    os.mkfifo(root / name)
    with pytest.raises(Invalid, match="it is not a file"):
        load(store, root)


# Platforms


def multi(*platforms: str) -> Layout:
    """One index for several platforms; each image says in its author which it is."""
    made = Layout()
    entries = []
    for text in platforms:
        kind, architecture, *variant = text.split("/")
        document = made.image([BASE], author=text, architecture=architecture)
        platform = {"os": kind, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
        entries.append(descriptor(f"{Layout.TYPE}manifest.v1+json", document, platform=platform))
    made.point(made.index(entries), "app")
    return made


def test_the_hosts_platform_is_taken(store: ImageStore, tmp_path: Path) -> None:
    made = multi("linux/arm64", "linux/amd64", "linux/arm/v6", "linux/arm/v7", "unknown/unknown")
    files = as_tar(made.done(), tmp_path)
    for platform, author in (
        (AMD, "linux/amd64"),
        (Platform("linux", "arm64", "v8"), "linux/arm64"),
        (Platform("linux", "arm", "v7"), "linux/arm/v7"),
        (Platform("linux", "arm", "v6"), "linux/arm/v6"),
    ):
        (image,) = load(store, files, platform)
        assert image.config.author == author
        assert store.resolve("app").id == image.id
    with pytest.raises(NotFound, match="no image for linux/s390x, but for linux/amd64, linux/arm/v6"):
        load(store, files, Platform("linux", "s390x"))


def test_only_the_files_of_the_chosen_platform_need_be_there(store: ImageStore, tmp_path: Path) -> None:
    made = multi("linux/arm64", "linux/amd64")
    other = config_of([BASE], author="linux/arm64", architecture="arm64")
    files = made.done()
    del files[blob_name(other)]
    assert load(store, as_pipe(files, tmp_path), AMD)[0].config.author == "linux/amd64"
    with pytest.raises(Invalid, match="is missing"):
        load(store, as_pipe(files, tmp_path), Platform("linux", "arm64", "v8"))


def test_manifests_side_by_side_in_the_index_are_chosen_from_too(store: ImageStore, tmp_path: Path) -> None:
    for name in ("", "app"):
        made = Layout()
        for architecture in ("arm64", "amd64"):
            document = made.image([BASE], architecture=architecture, author=name)
            made.point(document, name, platform={"os": "linux", "architecture": architecture})
        (image,) = load(store, as_pipe(made.done(), tmp_path), AMD)
        assert image.config.architecture == "amd64"


def test_several_images_without_names_are_all_loaded(store: ImageStore, tmp_path: Path) -> None:
    made = Layout()
    for author in ("one", "two"):
        made.point(made.image([BASE], author=author))
    assert len(load(store, as_pipe(made.done(), tmp_path), AMD)) == 2


def test_the_only_image_is_loaded_whatever_it_is_for(store: ImageStore, tmp_path: Path) -> None:
    made = Layout()
    made.point(made.image([BASE], architecture="s390x"), platform={"os": "linux", "architecture": "s390x"})
    assert load(store, as_pipe(made.done(), tmp_path), AMD)[0].config.architecture == "s390x"


@pytest.mark.parametrize("made", [docker_files([BASE], None, os="windows"), docker_files([BASE], None, os="")])
def test_images_for_other_systems_are_refused(store: ImageStore, tmp_path: Path, made: dict[str, bytes]) -> None:
    with pytest.raises(Unsupported, match="it is made for"):
        load(store, as_pipe(made, tmp_path))


# Names


@pytest.mark.parametrize(
    ("annotations", "references"),
    [
        ({"io.containerd.image.name": "docker.io/library/app:1"}, ("docker.io/library/app:1",)),
        ({"io.containerd.image.name": "app"}, ("docker.io/library/app:latest",)),
        ({"org.opencontainers.image.ref.name": "host:5000/team/app:1"}, ("host:5000/team/app:1",)),
        ({"org.opencontainers.image.ref.name": "app"}, ("docker.io/library/app:latest",)),
        ({"org.opencontainers.image.ref.name": "app:3.20"}, ("docker.io/library/app:3.20",)),
        ({"org.opencontainers.image.ref.name": "latest"}, ()),
        ({"org.opencontainers.image.ref.name": "3.20"}, ()),
        ({"org.opencontainers.image.ref.name": "v1.2"}, ()),
        ({"org.opencontainers.image.ref.name": "Some Ref/With+Signs"}, ()),
        ({}, ()),
    ],
)
def test_names_come_from_annotations(
    store: ImageStore, tmp_path: Path, annotations: dict[str, str], references: tuple[str, ...]
) -> None:
    made = Layout()
    made.point(made.image([BASE]), annotations=annotations)
    (image,) = load(store, as_pipe(made.done(), tmp_path))
    assert image.references == references


@pytest.mark.parametrize("name", ["App", "sha256:abc", "a\nb", "", "../../x"])
def test_names_that_are_none_are_refused(store: ImageStore, tmp_path: Path, name: str) -> None:
    refused(store, as_pipe(docker_files([BASE], ["good", name]), tmp_path))
    made = Layout()
    made.point(made.image([BASE]), "docker.io/library/good:latest")
    if name:
        made.point(made.image([BASE]), name)
        refused(store, as_pipe(made.done(), tmp_path))


def test_a_loaded_name_is_taken_from_who_had_it(store: ImageStore, tmp_path: Path) -> None:
    (old,) = load(store, as_pipe(docker_files([BASE], ["app"]), tmp_path))
    (new,) = load(store, as_pipe(docker_files([TOP], ["app"]), tmp_path))
    assert store.resolve("app") == new and store.resolve(old.id).references == ()


# Hostile and damaged ones


def left(store: ImageStore) -> list[str]:
    return [
        name
        for kind in ("layers", "content/sha256", "aside")
        if os.path.isdir(f"{store.root}/{kind}")
        for name in os.listdir(f"{store.root}/{kind}")
        if name != "lock"
    ]


def refused(store: ImageStore, source: Source, error: type[Error] = Invalid, match: str | None = None) -> None:
    """Loading is an error in one line, and nothing of it stays."""
    before = left(store)
    with pytest.raises(error, match=match) as caught:
        load(store, source, AMD)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000
    assert left(store) == before


def entry(**change: Any) -> dict[str, bytes]:
    files = docker()
    (document,) = json.loads(files["manifest.json"])
    return {**files, "manifest.json": dumps([{**document, **change}])}


HOSTILE: dict[str, Callable[[], dict[str, bytes]]] = {
    "no layer": lambda: entry(Layers=["gone/layer.tar", "gone/layer.tar"]),
    "too few layers": lambda: entry(Layers=json.loads(docker()["manifest.json"])[0]["Layers"][:1]),
    "layers in another order": lambda: entry(Layers=json.loads(docker()["manifest.json"])[0]["Layers"][::-1]),
    "no config": lambda: entry(Config="gone.json"),
    "a config outside": lambda: entry(Config="../../../../../../etc/passwd"),
    "an absolute config": lambda: entry(Config="/etc/passwd"),
    "config is a number": lambda: entry(Config=5),
    "layers are a string": lambda: entry(Layers="x"),
    "a layer is null": lambda: entry(Layers=[None]),
    "config is no config": lambda: {**entry(Config="c"), "c": b"[]"},
    "a layer is no tar": lambda: {**docker(), **{n: b"junk" * 999 for n in docker() if n.endswith("layer.tar")}},
    "manifest.json is no JSON": lambda: {"manifest.json": b"{"},
    "manifest.json is an object": lambda: {"manifest.json": b"{}"},
    "manifest.json is empty": lambda: {"manifest.json": b"[]"},
    "manifest.json is numbers": lambda: {"manifest.json": b"[1]"},
    "nothing": lambda: {"readme": b"hello"},
    "index.json without oci-layout": lambda: {k: v for k, v in layout().items() if k != "oci-layout"},
    "oci-layout without index.json": lambda: {k: v for k, v in layout().items() if k != "index.json"},
    "oci-layout of nothing": lambda: {**layout(), "oci-layout": b"{}"},
    "an empty index": lambda: {**layout(), "index.json": dumps({"schemaVersion": 2, "manifests": []})},
    "a manifest as index": lambda: {**layout(), "index.json": Layout().image([BASE])},
}


@pytest.mark.parametrize("made", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("way", [as_pipe, as_folder])
def test_wrong_archives_are_refused(
    store: ImageStore, tmp_path: Path, made: Callable[[], dict[str, bytes]], way: Callable[..., Source]
) -> None:
    refused(store, way(made(), tmp_path))


def test_every_blob_must_be_there_and_be_what_its_descriptor_says(store: ImageStore, tmp_path: Path) -> None:
    files = layout()
    for name in [name for name in files if name.startswith("blobs/")]:
        refused(store, as_pipe({k: v for k, v in files.items() if k != name}, tmp_path), match="is missing")
        refused(store, as_pipe({**files, name: files[name] + b" "}, tmp_path), match="its content is sha256:")
        changed = bytes([files[name][0] ^ 1]) + files[name][1:]
        refused(store, as_pipe({**files, name: changed}, tmp_path), match="its content is sha256:")


def test_a_layer_that_unpacks_to_something_else_is_refused(store: ImageStore, tmp_path: Path) -> None:
    made = Layout()
    made.point(made.image([BASE, TOP], [gzip.compress(BASE), gzip.compress(BASE)]))
    refused(store, as_pipe(made.done(), tmp_path), match="has the digest")


def test_a_document_is_what_its_descriptor_says(store: ImageStore, tmp_path: Path) -> None:
    made = Layout()
    document = made.image([BASE])
    made.manifests = [descriptor(f"{Layout.TYPE}index.v1+json", document)]
    refused(store, as_pipe(made.done(), tmp_path), match="announced as")
    made.manifests = [descriptor("text/plain", document)]
    refused(store, as_pipe(made.done(), tmp_path), Unsupported, match="text/plain")
    both_at_once = made.keep(dumps({**json.loads(document), "manifests": made.manifests}))
    made.manifests = [descriptor(f"{Layout.TYPE}manifest.v1+json", both_at_once)]
    refused(store, as_pipe(made.done(), tmp_path), match="manifest and index at once")


def test_indexes_in_indexes_have_an_end(store: ImageStore, tmp_path: Path) -> None:
    for depth, fine in ((3, True), (30, False)):
        made = Layout()
        document = made.image([BASE])
        for _ in range(depth):
            kind = "index" if b'"manifests"' in document else "manifest"
            document = made.index([descriptor(f"{Layout.TYPE}{kind}.v1+json", document)])
        made.point(document)
        if fine:
            assert len(load(store, as_pipe(made.done(), tmp_path))) == 1
        else:
            refused(store, as_pipe(made.done(), tmp_path), match="deep")


def test_one_bad_image_spoils_them_all(store: ImageStore, tmp_path: Path) -> None:
    one, two = docker_files([BASE], ["one"]), docker_files([TOP], ["two"], config=5)
    documents = [json.loads(files["manifest.json"])[0] for files in (one, two)]
    refused(store, as_pipe({**one, **two, "manifest.json": dumps(documents)}, tmp_path))
    with pytest.raises(NotFound):
        store.resolve("one")


def test_archives_cut_short_are_refused(store: ImageStore) -> None:
    data = files_tar(docker())
    for end in (1, 512, 700, len(data) // 2, len(data) // 2 + 300):
        refused(store, io.BytesIO(data[:end]))
    packed = gzip.compress(data)
    refused(store, io.BytesIO(packed[: len(packed) // 2]), match="ends too early")


@pytest.mark.parametrize("data", [b"", b"hello", b"\x1f\x8b", b"\x7fELF" + bytes(5000), bytes(10240)])
def test_what_is_no_archive_is_refused(store: ImageStore, data: bytes) -> None:
    refused(store, io.BytesIO(data))


def test_what_is_not_there_is_not_found(store: ImageStore, tmp_path: Path) -> None:
    refused(store, tmp_path / "gone.tar", NotFound, match=r"gone\.tar: there is no such file")


def test_hostile_members_of_the_archive_touch_nothing(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("still here")
    files = [member(name, data) for name, data in docker().items()]
    archive = tar_of(
        member("../../outside", b"over"),
        member("/../cloche-escaped", b"over"),
        symlink("dir", "/etc"),
        member("dir/passwd", b"over"),
        symlink("loop", "loop"),
        symlink("a", "b"),
        symlink("b", "a"),
        member("x", kind=tarfile.CHRTYPE, device=(1, 3)),
        *files,
    )
    assert len(load(store, io.BytesIO(archive))) == 1
    assert (tmp_path / "outside").read_text() == "still here" and not os.path.exists("/cloche-escaped")
    assert os.listdir(store.root + "/aside") == ["lock"]
    loops = tar_of(symlink("manifest.json", "a"), symlink("a", "b"), symlink("b", "a"))
    refused(store, io.BytesIO(loops))


def test_archives_are_bounded(store: ImageStore) -> None:
    bomb = gzip.compress(tar_of(member("zeros", bytes(30 << 20))))
    with store.staging() as staging, pytest.raises(Invalid, match="more than 1000000 bytes"):
        TarFiles(io.BytesIO(bomb), staging, Limits(1_000_000, 10))
    many = tar_of(*(member(f"f{n}") for n in range(20)))
    with store.staging() as staging, pytest.raises(Invalid, match="more than 10 entries"):
        TarFiles(io.BytesIO(many), staging, Limits(1_000_000, 10))
    assert left(store) == []


def test_an_archive_of_an_old_docker_is_named(store: ImageStore) -> None:
    refused(
        store, io.BytesIO(files_tar({"repositories": b"{}", "abc/json": b"{}"})), Unsupported, match="older than 1.10"
    )


def test_a_stream_that_breaks_leaves_nothing(store: ImageStore) -> None:
    class Broken(Pipe):
        count = 0

        def read(self, size: int = -1) -> bytes:
            self.count += 1
            if self.count > 5:
                raise OSError(5, "input/output error")
            return super().read(size)

    refused(store, cast("BinaryIO", Broken(files_tar(docker()))), Error, match="EIO")


def test_loading_twice_changes_nothing(store: ImageStore, tmp_path: Path) -> None:
    def loaded() -> list[Image]:
        return load(store, as_pipe(docker(), tmp_path))

    first, before = loaded(), left(store)
    assert loaded() == first and left(store) == before
