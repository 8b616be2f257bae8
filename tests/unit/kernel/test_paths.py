"""openat2(2) keeps to the directory that it is given."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche.kernel.paths import RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, openat2


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root/sub").mkdir(parents=True)
    (tmp_path / "root/sub/file").write_text("inside")
    (tmp_path / "outside").write_text("outside")
    (tmp_path / "root/link").symlink_to("/sub/file")
    (tmp_path / "root/up").symlink_to("../outside")
    fd = os.open(tmp_path / "root", os.O_PATH)
    yield fd
    os.close(fd)


def read(fd: int) -> str:
    with open(fd) as file:
        return file.read()


def test_links_are_taken_from_the_root_that_was_given(root: int) -> None:
    assert read(openat2(root, "link", os.O_RDONLY, 0, RESOLVE_IN_ROOT)) == "inside"
    assert read(openat2(root, b"/../../sub/./file", os.O_RDONLY, 0, RESOLVE_IN_ROOT)) == "inside"
    with pytest.raises(FileNotFoundError):
        openat2(root, "up", os.O_RDONLY, 0, RESOLVE_IN_ROOT)


@pytest.mark.parametrize(
    ("path", "resolve", "number"),
    [
        ("link", RESOLVE_BENEATH, errno.EXDEV),
        ("up", RESOLVE_BENEATH, errno.EXDEV),
        ("../outside", RESOLVE_BENEATH, errno.EXDEV),
        ("/sub/file", RESOLVE_BENEATH, errno.EXDEV),
        ("link", RESOLVE_NO_SYMLINKS, errno.ELOOP),
        ("sub/none", RESOLVE_BENEATH, errno.ENOENT),
        ("sub", 1 << 40, errno.EINVAL),
    ],
)
def test_what_leads_out_or_through_links_is_refused(root: int, path: str, resolve: int, number: int) -> None:
    with pytest.raises(OSError) as caught:
        openat2(root, path, os.O_RDONLY, 0, resolve)
    assert caught.value.errno == number


def test_files_are_made_and_descriptors_close_on_exec(root: int) -> None:
    fd = openat2(root, "sub/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, RESOLVE_BENEATH)
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert os.stat("sub/new", dir_fd=root).st_mode & 0o777 == 0o600


def test_a_path_is_not_cut_at_a_zero_byte(root: int) -> None:
    with pytest.raises(ValueError, match="null byte"):
        openat2(root, "sub/file\0/../../..", os.O_RDONLY)
