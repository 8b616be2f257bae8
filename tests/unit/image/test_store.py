"""Images are found, named, removed by Docker's rules; what is killed in between leaves nothing or everything."""

from __future__ import annotations

import fcntl
import gzip
import io
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archives import config_of, folder, member, tar_of
from cloche.errors import Conflict, Error, Invalid, NotFound, Unsupported
from cloche.image.load import create_image
from cloche.image.staging import Staging, lock
from cloche.image.store import SCHEMA, Image, ImageStore, Use
from cloche.oci import manifest as image_manifest
from cloche.oci.digest import chain_ids, digest_of
from cloche.oci.image import Config, ImageConfig
from cloche.oci.manifest import Manifest
from cloche.storage.layers import Limits
from cloche.storage.overlay import layer_folder

BASE = tar_of(folder("bin"), member("bin/sh", b"shell" * 100))
TOP = tar_of(member("app", b"app"))
OTHER = tar_of(member("other", b"o" * 1000))


def connect(root: Path) -> sqlite3.Connection:
    db = sqlite3.connect(root / "db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.executescript(SCHEMA)
    return db


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    db = connect(tmp_path)
    yield ImageStore(str(tmp_path), db)
    db.close()


def add(store: ImageStore, *names: str, layers: tuple[bytes, ...] = (BASE, TOP), **config: object) -> Image:
    return store.add(config_of(layers, **config), None, [io.BytesIO(layer) for layer in layers], names)


def there(store: ImageStore) -> dict[str, list[str]]:
    """What the store's directory holds, by kind."""
    return {
        kind: sorted(name for name in os.listdir(Path(store.root, kind)) if name != "lock")
        for kind in ("layers", "content/sha256", "aside", "trash")
        if Path(store.root, kind).exists()
    }


def consistent(store: ImageStore) -> None:
    """Every row has its files and every file its row."""
    numbers = [str(row[0]) for row in store.db.execute("SELECT number FROM layers")]
    assert there(store).get("layers", []) == sorted(numbers)
    for image in store.images():
        assert len(image.layers) == len(image.config.diff_ids)
        assert all(os.path.isdir(layer_folder(store.root, number)) for number in image.layers)
        parsed = image_manifest.parse(store.manifest(image.id))
        assert isinstance(parsed, Manifest)
        for layer in parsed.layers:
            path = Path(store.root, "content/sha256", layer.digest[7:])
            assert digest_of(path.read_bytes()) == layer.digest and path.stat().st_size == layer.size
    assert there(store).get("aside", []) == []


def test_an_image_is_added_and_found(store: ImageStore) -> None:
    added = add(store, "app:1", "team/app")
    assert added.id == digest_of(config_of((BASE, TOP)))
    assert added.references == ("docker.io/library/app:1", "docker.io/team/app:latest")
    assert added.config.config.cmd == ("/bin/sh",)
    assert (added.size, added.created) == (503, 1_714_979_289_500_000_000)
    digits = added.id[7:]
    for text in (
        "app:1",
        "docker.io/library/app:1",
        "team/app",
        added.id,
        digits,
        digits[:12],
        "sha256:" + digits[:5],
        digits[0],
    ):
        assert store.resolve(text) == added
    assert store.images() == [added]
    assert Path(layer_folder(store.root, added.layers[0]), "bin/sh").read_bytes() == b"shell" * 100
    consistent(store)


@pytest.mark.parametrize("text", ["gone", "app:2", "0" * 64, "sha256:" + "0" * 64, "zzz", f"app@sha256:{'0' * 64}"])
def test_what_is_not_there_is_named(store: ImageStore, text: str) -> None:
    add(store, "app:1")
    with pytest.raises(NotFound, match=f"^No such image: {text}; hint: "):
        store.resolve(text)


def test_what_is_no_name_is_invalid(store: ImageStore) -> None:
    for text in ("", "App", "a b", "sha256:", ":x"):
        with pytest.raises(Invalid):
            store.resolve(text)


def test_ids_that_begin_alike_are_a_conflict(store: ImageStore) -> None:
    images = [add(store, author=str(n)) for n in range(17)]
    first = [image.id[7] for image in images]
    twice = next(digit for digit in first if first.count(digit) > 1)
    with pytest.raises(Conflict, match="several ids"):
        store.resolve(twice)
    assert store.resolve(images[0].id[7:40]) == images[0]


def test_a_name_goes_before_an_id(store: ImageStore) -> None:
    first, second = add(store, "one"), add(store, author="x")
    store.tag("one", second.id[7:19])
    assert store.resolve(second.id[7:19]).id == first.id
    assert store.resolve(second.id[7:20]).id == second.id


def test_names_with_a_digest_are_kept_and_found(store: ImageStore) -> None:
    name = f"app@sha256:{'1' * 64}"
    image = add(store, name, "app:1")
    assert store.resolve(name).id == store.resolve(f"app:9@sha256:{'1' * 64}").id == image.id


def test_layers_are_shared_by_chain(store: ImageStore) -> None:
    one, two = add(store, "one"), add(store, "two", layers=(BASE, OTHER))
    three = add(store, "three", layers=(OTHER, BASE))
    assert one.layers[0] == two.layers[0] and len({*one.layers, *two.layers, *three.layers}) == 5
    chains = [row[0] for row in store.db.execute("SELECT chain FROM layers ORDER BY number")]
    assert chains[:2] == list(chain_ids([digest_of(BASE), digest_of(TOP)]))
    assert len(there(store)["content/sha256"]) == 3
    consistent(store)


def test_the_same_image_again_only_gets_its_names(store: ImageStore) -> None:
    first = add(store, "one")
    packed = [io.BytesIO(gzip.compress(layer, 9)) for layer in (BASE, TOP)]
    again = store.add(config_of((BASE, TOP)), None, packed, ["two"])
    assert again == first.replace(references=("docker.io/library/one:latest", "docker.io/library/two:latest"))
    consistent(store)
    assert len(there(store)["content/sha256"]) == 2


def test_create_image_fills_in_the_layers(store: ImageStore) -> None:
    config = ImageConfig("amd64", "linux", Config(cmd=("/app",)))
    image = create_image(store, [io.BytesIO(BASE), io.BytesIO(gzip.compress(TOP))], config, ["made"])
    assert image.config == config.replace(diff_ids=(digest_of(BASE), digest_of(TOP)))
    parsed = image_manifest.parse(store.manifest(image.id))
    assert isinstance(parsed, Manifest) and parsed.config.digest == image.id
    assert [layer.media_type.rpartition(".")[2] for layer in parsed.layers] == ["tar", "tar+gzip"]
    assert (
        create_image(store, [io.BytesIO(BASE), io.BytesIO(gzip.compress(TOP, 1))], config, ["made"]).layers
        == image.layers
    )
    consistent(store)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"os": "windows"}, Unsupported),
        ({"rootfs": {"type": "layers", "diff_ids": [digest_of(TOP), digest_of(BASE)]}}, Invalid),
        ({"rootfs": {"type": "layers", "diff_ids": [digest_of(BASE)]}}, Invalid),
        ({"rootfs": {"type": "layers", "diff_ids": []}}, Invalid),
        ({"config": []}, Invalid),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_stays(
    store: ImageStore, change: dict[str, object], error: type[Error]
) -> None:
    with pytest.raises(error):
        add(store, "app", **change)
    assert store.images() == [] and not any(there(store).values())


@pytest.mark.parametrize("name", ["App", "sha256:abc", "a b", "x" * 300])
def test_bad_names_are_refused_and_nothing_stays(store: ImageStore, name: str) -> None:
    with pytest.raises(Invalid):
        add(store, "good", name)
    assert store.images() == [] and not any(there(store).values())


def test_an_image_of_no_layers_is_refused(store: ImageStore) -> None:
    with pytest.raises(Unsupported, match="no layers"):
        add(store, "empty", layers=())


@pytest.mark.parametrize(
    ("created", "wanted"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("2015-10-31T22:22:56.015925234Z", 1446330176_015925234),
        ("2015-10-31T22:22:56.015925234999+02:00", 1446322976_015925234),
        ("0001-01-01T00:00:00Z", 0),
        ("9999-12-31T23:59:59Z", 0),
        ("1969-01-01T00:00:00Z", 0),
        ("yesterday", 0),
        ("", 0),
        (None, 0),
    ],
)
def test_times_of_building(store: ImageStore, created: str | None, wanted: int) -> None:
    image = add(store, created=created)
    assert image.created == wanted


# Names


def test_a_name_is_given_and_taken_from_who_had_it(store: ImageStore) -> None:
    one, two = add(store, "one"), add(store, "two", author="x")
    assert store.tag("one", "host:5000/x:1").references == ("docker.io/library/one:latest", "host:5000/x:1")
    store.tag(two.id[:20], "one")
    assert store.resolve("one").id == two.id and store.resolve(one.id).references == ("host:5000/x:1",)


@pytest.mark.parametrize("target", [f"a@sha256:{'0' * 64}", "sha256", "sha256:abc", "A", "", "0" * 64])
def test_what_cannot_be_a_name_is_refused(store: ImageStore, target: str) -> None:
    add(store, "one")
    with pytest.raises(Invalid):
        store.tag("one", target)
    with pytest.raises(NotFound):
        store.tag("gone", "two")
    assert len(store.resolve("one").references) == 1


# Removing

D1, D2 = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"


def used(image: Image, running: bool) -> Callable[[], list[Use]]:
    return lambda: [Use("c" * 64, "sha256:" + "9" * 64, True, ()), Use("f" * 64, image.id, running, image.layers)]


def test_the_last_name_takes_the_image_with_it(store: ImageStore) -> None:
    image = add(store, "one:1", "one:2")
    kept = add(store, "kept", layers=(BASE, OTHER))
    first = store.remove("one:1")
    assert (first.untagged, first.deleted) == (("one:1",), ())
    second = store.remove("one:2")
    assert (second.untagged, second.deleted) == (("one:2",), (image.id,))
    assert there(store)["layers"] == sorted(map(str, kept.layers))
    assert there(store)["content/sha256"] == sorted([digest_of(BASE)[7:], digest_of(OTHER)[7:]])
    consistent(store)
    with pytest.raises(NotFound):
        store.remove("one:2")


def test_by_id_an_image_goes_with_its_one_name(store: ImageStore) -> None:
    image = add(store, "one", f"one@{D1}")
    removal = store.remove(image.id[7:19])
    assert sorted(removal.untagged) == ["one:latest", f"one@{D1}"] and removal.deleted == (image.id,)
    assert store.images() == [] and there(store)["layers"] == []


@pytest.mark.parametrize("names", [("one", "two"), ("one:1", "one:2"), ("one", f"two@{D1}")])
def test_by_id_several_names_need_force(store: ImageStore, names: tuple[str, ...]) -> None:
    image = add(store, *names)
    with pytest.raises(Conflict, match="several repositories"):
        store.remove(image.id)
    assert len(store.resolve(image.id).references) == 2
    assert store.remove(image.id, force=True).deleted == (image.id,)


def test_an_image_without_names_goes_by_id(store: ImageStore) -> None:
    image = add(store)
    removal = store.remove(image.id[7:15])
    assert (removal.untagged, removal.deleted) == ((), (image.id,))


def test_with_the_last_tag_of_a_repository_go_its_digests(store: ImageStore) -> None:
    image = add(store, "one:1", f"one@{D1}", f"one@{D2}", "two")
    removal = store.remove("one:1")
    assert sorted(removal.untagged) == ["one:1", f"one@{D1}", f"one@{D2}"] and removal.deleted == ()
    assert store.resolve(image.id).references == ("docker.io/library/two:latest",)


def test_a_digest_goes_alone(store: ImageStore) -> None:
    image = add(store, "one:1", f"one@{D1}")
    assert store.remove(f"one@{D1}").untagged == (f"one@{D1}",)
    assert store.resolve(image.id).references == ("docker.io/library/one:1",)


@pytest.mark.parametrize("running", [True, False])
def test_what_a_container_uses_keeps_its_last_name(store: ImageStore, running: bool) -> None:
    image = add(store, "one", "two")
    assert store.remove("two", in_use=used(image, running)).deleted == ()
    with pytest.raises(Conflict, match="container ffffffffffff uses"):
        store.remove("one", in_use=used(image, running))
    with pytest.raises(Conflict, match="container ffffffffffff uses"):
        store.remove(image.id, in_use=used(image, running))
    assert store.resolve("one").id == image.id


def test_force_takes_the_name_but_not_what_runs(store: ImageStore) -> None:
    image = add(store, "one")
    removal = store.remove("one", force=True, in_use=used(image, True))
    assert (removal.untagged, removal.deleted) == (("one:latest",), ())
    with pytest.raises(Conflict, match="cannot be forced"):
        store.remove(image.id, force=True, in_use=used(image, True))
    assert store.resolve(image.id).references == ()


def test_force_takes_the_image_of_a_stopped_container_but_not_its_layers(store: ImageStore) -> None:
    image = add(store, "one")
    assert store.remove("one", force=True, in_use=used(image, False)).deleted == (image.id,)
    assert there(store)["layers"] == sorted(map(str, image.layers))
    assert store.collect(tuple)
    assert there(store)["layers"] == []
    consistent(store)


def test_a_number_of_a_layer_is_never_used_again(store: ImageStore) -> None:
    first = add(store, "one")
    store.remove("one")
    assert min(add(store, "one").layers) > max(first.layers)


# Others at the same time, and those that were killed


def test_nothing_is_collected_while_an_image_is_made(store: ImageStore) -> None:
    image = add(store, "one")
    with Staging(store.root, store.db):
        assert not store.recover()
        assert store.remove("one").deleted == (image.id,)
        assert there(store)["layers"] == ["1", "2"]
        assert not store.collect(tuple)
    assert store.collect(tuple) and store.recover()
    assert there(store)["layers"] == [] and there(store)["content/sha256"] == []


def test_a_layer_that_was_there_at_first_stays_until_the_end(store: ImageStore) -> None:
    add(store, "one")
    with store.staging() as staging:
        layers = [staging.layer([], staging.blob(io.BytesIO(BASE)).digest, digest_of(BASE))]
        assert layers[0].number == 1
        store.remove("one")
        staging.image(config_of((BASE,)), None, layers, ["two"])
        (image,) = staging.commit()
    assert image.layers == (1,)
    store.collect(tuple)
    consistent(store)


def test_two_who_make_the_same_layers_share_them(store: ImageStore) -> None:
    with store.staging() as one, store.staging() as two:
        for staging, name in ((one, "one"), (two, "two")):
            layers = [staging.layer([], staging.blob(io.BytesIO(BASE)).digest, digest_of(BASE))]
            staging.image(config_of((BASE,), author=name), None, layers, [name])
        assert one.commit()[0].layers == two.commit()[0].layers
    consistent(store)


def test_many_at_once(store: ImageStore, tmp_path: Path) -> None:
    def work(number: int) -> None:
        own = sqlite3.connect(tmp_path / "db", isolation_level=None, timeout=30)
        try:
            mine = ImageStore(store.root, own)
            for turn in range(5):
                add(mine, f"image{number}", author=f"{number} {turn}")
                mine.remove(f"image{number}")
        finally:
            own.close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.images() == []
    assert store.collect(tuple) and there(store)["layers"] == []
    consistent(store)


def test_a_lost_directory_is_made_anew_under_its_number(store: ImageStore) -> None:
    image = add(store, "one")
    os.rename(Path(store.root, "layers", str(image.layers[0])), Path(store.root, "lost"))
    assert add(store, "one").layers == image.layers
    consistent(store)


def test_leftovers_of_the_killed_are_found(store: ImageStore) -> None:
    image = add(store, "one")
    for path in ("aside/abc/layers/1/diff", "layers/77/diff", "layers/junk"):
        os.makedirs(Path(store.root, path))
    assert store.recover()
    consistent(store)
    assert store.resolve("one") == image and len(there(store)["trash"]) == 3
    again = there(store)
    assert store.recover() and there(store) == again


def test_a_number_that_a_killed_process_left_is_free(store: ImageStore) -> None:
    os.makedirs(Path(store.root, "layers/1/diff/old"))
    image = add(store, "one")
    assert image.layers == (1, 2) and not Path(store.root, "layers/1/diff/old").exists()


def test_a_full_disk_leaves_nothing(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store, "one", layers=(BASE,))
    before = there(store)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("rename", "mkdir", "fsync", "fchmod", "utime"):
        with monkeypatch.context() as patch, pytest.raises(Error, match=r"no space left on device \(ENOSPC\)"):
            patch.setattr(os, name, full)
            add(store, "two", layers=(BASE, TOP))
        store.collect(tuple)
        after = there(store)
        assert {**after, "trash": []} == {**before, "trash": []}, name
        consistent(store)


def killed_after(root: Path, steps: int) -> bool:
    """Whether a child that adds an image dies before its `steps`th change to the file system or the database."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            left = steps

            def counted(function: Callable[..., object]) -> Callable[..., object]:
                def call(*arguments: object, **options: object) -> object:
                    nonlocal left
                    left -= 1
                    if left < 0:
                        os._exit(9)
                    return function(*arguments, **options)

                return call

            for name in ("rename", "mkdir", "unlink", "rmdir", "fsync", "write", "utime"):
                setattr(os, name, counted(getattr(os, name)))
            db = sqlite3.connect(root / "db", isolation_level=None, factory=_counting(counted))
            add(ImageStore(str(root), db), "new", "old", layers=(BASE, OTHER))
            status = 0
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9)
    return code == 9


def _counting(counted: Callable[[Callable[..., object]], Callable[..., object]]) -> type[sqlite3.Connection]:
    class Connection(sqlite3.Connection):
        def execute(self, *arguments: object) -> sqlite3.Cursor:  # type: ignore[override]
            return counted(super().execute)(*arguments)  # type: ignore[return-value]

    return Connection


def test_whoever_is_killed_leaves_nothing_or_everything(store: ImageStore, tmp_path: Path) -> None:
    old = add(store, "old", layers=(BASE, TOP))
    steps = 0
    while killed_after(tmp_path, steps):
        new = [image for image in store.images() if image.id != old.id]
        if not new:
            assert store.resolve("old").id == old.id, "names move together with the image"
        assert store.recover() and store.collect(tuple)
        consistent(store)
        assert len(there(store)["layers"]) == (3 if new else 2), "layers that nobody knows are gone"
        steps += 1
        if new:
            store.tag(old.id, "old")
            store.remove("new", force=True)
            assert len(there(store)["layers"]) == 2
    assert steps > 20
    assert store.resolve("new").id == store.resolve("old").id != old.id
    consistent(store)


def test_the_lock_is_gone_with_its_holder(store: ImageStore) -> None:
    add(store, "one")
    fd = lock(store.root, fcntl.LOCK_SH)
    assert not store.recover()
    os.close(fd)
    assert store.recover()


def test_limits_are_those_of_each_layer(store: ImageStore) -> None:
    with (
        pytest.raises(Invalid, match="larger than 1000 bytes"),
        Staging(store.root, store.db, Limits(bytes=1000)) as staging,
    ):
        staging.blob(io.BytesIO(BASE))
    assert not any(there(store).values())


def test_looking_up_imports_little() -> None:
    code = "import cloche.image.store, cloche.storage.overlay; print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert not {"sqlite3", "ctypes", "tarfile", "hashlib", "zstandard", "subprocess", "fcntl", "datetime"} & set(loaded)
