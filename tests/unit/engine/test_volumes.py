"""Volumes as rows and directories: who has them, when they go, what killed processes leave; which mounts win."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche.engine import filling
from cloche.engine.database import connect
from cloche.engine.mounting import merge
from cloche.engine.removal import remove_container, sweep_forsaken
from cloche.engine.request import FileMount
from cloche.engine.store import Store, locate, prepare
from cloche.engine.volumes import Volumes, check_driver, release, sweep_volumes
from cloche.errors import Conflict, Invalid, NotFound, Unsupported

A, B = "a" * 64, "b" * 64
DATA = FileMount("volume", "/data", "data")
OWN = FileMount("volume", "/own", "f" * 64, anonymous=True)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = locate(str(tmp_path / "store"))
    prepare(store)
    return store


@pytest.fixture
def db(store: Store) -> Iterator[sqlite3.Connection]:
    db = connect(store)
    yield db
    db.close()


@pytest.fixture
def volumes(store: Store, db: sqlite3.Connection) -> Volumes:
    return Volumes(store, db)


def names(volumes: Volumes) -> list[str]:
    return [v.name for v in volumes.all()]


def record(db: sqlite3.Connection, ident: str, name: str) -> None:
    columns = "id, name, image, image_id, created, config, remove"
    db.execute(f"INSERT INTO containers ({columns}) VALUES (?, ?, '', '', 0, '', 0)", (ident, name))


def test_a_volume_is_a_directory_and_a_row(volumes: Volumes) -> None:
    made = volumes.create("data", (("k", "v"),))
    assert (made.name, made.labels, made.anonymous) == ("data", (("k", "v"),), False)
    assert oct(os.stat(volumes.mountpoint("data")).st_mode)[-3:] == "755"
    assert oct(os.stat(os.path.dirname(volumes.mountpoint("data"))).st_mode)[-3:] == "701"
    assert volumes.create("data", (("other", ""),)) == made, "who asks again gets it as it is"
    nameless = volumes.create()
    assert len(nameless.name) == 64 and nameless.anonymous
    with pytest.raises(NotFound, match="get nope: no such volume"):
        volumes.find("nope")
    for wrong in ("a", "../x", "a/b", ".", "-x", "x" * 256, "a\n", "é1"):
        with pytest.raises(Invalid):
            volumes.create(wrong)


def test_what_is_in_use_is_not_removed(volumes: Volumes, db: sqlite3.Connection, store: Store) -> None:
    volumes.claim(A, (DATA, OWN))
    record(db, A, "web")
    with pytest.raises(Conflict, match=r"volume is in use - \[web\]"):
        volumes.remove(volumes.find("data"))
    assert volumes.users("data") == ["web"] and volumes.used() == {"data", OWN.source}
    remove_container(store, db, A)
    assert names(volumes) == ["data", OWN.source], "without -v all stay"
    Path(volumes.mountpoint("data"), "file").touch()
    volumes.remove(volumes.find("data"))
    assert not os.path.exists(store.volume("data")) and not os.listdir(store.root + "/trash")
    with pytest.raises(NotFound):
        volumes.remove(volumes.all()[0].replace(name="data"))


def test_anonymous_ones_go_with_the_last_container(volumes: Volumes, db: sqlite3.Connection, store: Store) -> None:
    volumes.claim(A, (DATA, OWN))
    volumes.claim(B, (OWN,))
    remove_container(store, db, A, volumes=True)
    assert names(volumes) == ["data", OWN.source]
    remove_container(store, db, B, volumes=True)
    assert names(volumes) == ["data"] and not os.path.exists(store.volume(OWN.source))


def test_a_failed_create_takes_back_what_it_made(volumes: Volumes, db: sqlite3.Connection, store: Store) -> None:
    volumes.create("before")
    mounts = (DATA, DATA.replace(target="/again"), OWN, DATA.replace(source="before", target="/before"))
    volumes.claim(A, mounts)
    Path(volumes.mountpoint("data"), "of the image").touch()
    remove_container(store, db, A, failed=True)
    assert names(volumes) == ["before"]
    volumes.claim(A, (DATA,))
    volumes.claim(B, (DATA,))
    remove_container(store, db, B)
    remove_container(store, db, A, failed=True)
    assert names(volumes) == ["before", "data"], "somebody else has had it meanwhile"


def test_what_a_killed_create_left_is_swept(volumes: Volumes, db: sqlite3.Connection, store: Store) -> None:
    full = DATA.replace(source="full", target="/full")
    volumes.claim(A, (DATA, OWN, full))
    Path(volumes.mountpoint("full"), "file").touch()
    os.mkdir(store.container(A))
    sweep_forsaken(store, db)
    assert names(volumes) == ["data", OWN.source, "full"], "it is young"
    os.utime(store.container(A), (0, 0))
    sweep_forsaken(store, db)
    assert names(volumes) == ["full"], "what has a name and something in it may be wanted"
    assert not volumes.used()


def test_directories_and_rows_that_are_alone(volumes: Volumes, db: sqlite3.Connection, store: Store) -> None:
    for name in ("empty", "lost", "torn"):
        volumes.create(name)
    Path(volumes.mountpoint("lost"), "file").write_text("precious")
    db.execute("DELETE FROM volumes WHERE name IN ('empty', 'lost')")
    os.rename(store.volume("torn"), store.root + "/elsewhere")
    sweep_volumes(store, db)
    assert names(volumes) == [] and os.listdir(store.root + "/volumes") == ["lost"]
    volumes.create("lost")
    assert Path(volumes.mountpoint("lost"), "file").read_text() == "precious"


def test_a_release_is_all_or_nothing(volumes: Volumes, db: sqlite3.Connection, store: Store) -> None:
    volumes.claim(A, (OWN,))
    with pytest.raises(sqlite3.Error):
        release(store, db, A, True, also=(("DELETE FROM nowhere", ()),))
    assert volumes.used() == {OWN.source} and not db.in_transaction


def test_what_was_copied_whole_is_moved_in_by_whoever_comes_next(volumes: Volumes, store: Store) -> None:
    volumes.create("data")
    place = Path(store.volume("data"))
    (place / "_ready/folder").mkdir(parents=True)
    os.chmod(place / "_ready", 0o1777)
    for name in ("new", "theirs", "folder/file"):
        (place / "_ready" / name).write_text("image's")
    (place / "_data/theirs").write_text("a container's")
    (place / "_data/old").touch()  # moved before the kill
    before = os.stat(place / "_data").st_ino
    filling.finish(store, "data")
    filling.finish(store, "data")
    assert sorted(os.listdir(place)) == ["_data"]
    assert sorted(os.listdir(place / "_data")) == ["folder", "new", "old", "theirs"]
    assert (place / "_data/theirs").read_text() == "a container's"
    assert os.stat(place / "_data").st_ino == before and oct(os.stat(place / "_data").st_mode)[-4:] == "1777"


def test_only_directories_of_the_store() -> None:
    check_driver("local", {})
    with pytest.raises(Unsupported, match="volume driver nfs is not there yet"):
        check_driver("nfs", {})
    with pytest.raises(Unsupported, match="volume option type is not there yet"):
        check_driver("local", {"type": "tmpfs"})
    with pytest.raises(Invalid, match="invalid option: foo"):
        check_driver("local", {"foo": "x"})


def test_which_mount_wins() -> None:
    numbers = iter("123456789")
    asked = (FileMount("bind", "/a/", "/src"), FileMount("volume", "/b"), FileMount("tmpfs", "/t"))
    others = (FileMount("volume", "/a", "theirs"), FileMount("volume", "/c", "shared"))
    image = ("/a", "/b/", "/t", "//c/./x", "/d", "relative", "/../../etc")
    found = {m.target: (m.kind, m.source, m.origin) for m in merge(asked, others, image, lambda: next(numbers))}
    assert found == {
        "/a/": ("bind", "/src", ""),
        "/c": ("volume", "shared", ""),
        "/b": ("volume", "1", ""),
        "/t": ("tmpfs", "", ""),
        "/c/x": ("volume", "2", "image"),
        "/d": ("volume", "3", "image"),
        "/relative": ("volume", "4", "image"),
        "/etc": ("volume", "5", "image"),
    }


@pytest.mark.parametrize("path", ["/", "", "/..", "/x\0y"])
def test_images_with_volumes_that_cannot_be(path: str) -> None:
    with pytest.raises(Invalid, match="of the image: invalid specification"):
        merge((), (), (path,), lambda: "x")


def test_an_image_with_very_many_volumes() -> None:
    with pytest.raises(Invalid, match="more than 1000"):
        merge((), (), tuple(f"/{n}" for n in range(1001)), lambda: "x")
