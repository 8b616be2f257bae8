"""The trash is emptied in slices, however deep it is, and nothing outside of it is touched."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche.errors import Error
from cloche.storage.trash import discard, empty_trash, remove_tree


def fill(folder: Path, outside: Path) -> None:
    folder.mkdir()
    for name in "abc":
        (folder / name).mkdir()
        (folder / name / "file").write_text(name)
        (folder / name / "empty").mkdir()
        (folder / name / "link").symlink_to(outside)
        (folder / name / "dangling").symlink_to("nowhere")
        os.mkfifo(folder / name / "pipe")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside"
    path.mkdir()
    (path / "precious").write_text("still here")
    return path


def test_discarding_is_one_rename_and_may_be_repeated(tmp_path: Path, outside: Path) -> None:
    fill(tmp_path / "thing", outside)
    discard(str(tmp_path), str(tmp_path / "thing"))
    discard(str(tmp_path), str(tmp_path / "thing"))
    (name,) = os.listdir(tmp_path / "trash")
    assert sorted(os.listdir(tmp_path / "trash" / name)) == ["a", "b", "c"]
    assert empty_trash(str(tmp_path)) and os.listdir(tmp_path / "trash") == []
    assert (outside / "precious").read_text() == "still here"


def test_there_may_be_no_trash_yet(tmp_path: Path) -> None:
    assert empty_trash(str(tmp_path))
    discard(str(tmp_path), str(tmp_path / "nothing"))
    assert os.listdir(tmp_path) == []


def test_files_and_links_can_be_discarded_too(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "file").write_text("x")
    for name in ("link", "file"):
        discard(str(tmp_path), str(tmp_path / name))
    assert empty_trash(str(tmp_path)) and os.listdir(tmp_path / "trash") == []
    assert (outside / "precious").exists()


def test_what_cannot_be_renamed_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "trash").write_text("not a folder")
    (tmp_path / "thing").mkdir()
    with pytest.raises(Error, match=r"remove .*thing: not a directory"):
        discard(str(tmp_path), str(tmp_path / "thing"))


def test_slices_are_bounded_and_end(tmp_path: Path, outside: Path) -> None:
    fill(tmp_path / "thing", outside)
    entries = sum(len(folders) + len(files) for _, folders, files in os.walk(tmp_path / "thing"))
    discard(str(tmp_path), str(tmp_path / "thing"))
    slices = 0
    while not empty_trash(str(tmp_path), 2):
        slices += 1
        assert slices < 5 * entries
    assert slices >= entries // 3
    assert os.listdir(tmp_path / "trash") == []


def make_deep(folder: Path, depth: int) -> None:
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d" * 100, dir_fd=fd)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


@pytest.fixture
def abyss() -> Iterator[Path]:
    """A folder for trees of any depth. Not tmp_path: a run that is killed leaves it, and pytest's own removal of old
    folders recurses, so every later run would fail at its end."""
    path = Path(tempfile.mkdtemp(prefix="cloche-abyss-"))
    yield path
    subprocess.run(["rm", "-rf", "--one-file-system", str(path)], check=True)


def test_nesting_deeper_than_any_path_is_no_obstacle(abyss: Path) -> None:
    for name in ("one", "two"):
        (abyss / name).mkdir()
        make_deep(abyss / name, 2000)
    discard(str(abyss), str(abyss / "one"))
    assert empty_trash(str(abyss)) and os.listdir(abyss / "trash") == []
    fd = os.open(abyss, os.O_RDONLY)
    remove_tree(fd, b"two")
    os.close(fd)
    assert sorted(os.listdir(abyss)) == ["trash"]


def test_a_trash_that_is_a_link_is_not_followed(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "trash").symlink_to(outside)
    with pytest.raises(OSError):
        empty_trash(str(tmp_path))
    assert (outside / "precious").exists()
