"""ld.so.cache, ld.so.conf and musl's path file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.errors import Invalid
from cloche.image import ldcache
from cloche.image.ldcache import CacheEntry, format_cache, parse_cache
from cloche.image.tree import Tree

SOME = (
    CacheEntry("libb.so.1", "/usr/lib/libb.so.1", 0x303),
    CacheEntry("liba.so.10", "/opt/liba.so.10", 0x303),
    CacheEntry("liba.so.9", "/opt/liba.so.9", 0x303),
    CacheEntry("liba.so.9", "/opt/special/liba.so.9", 0x303, 1 << 62),
)


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize("little", [True, False])
def test_a_cache_comes_back_as_it_was_written(little: bool) -> None:
    assert set(parse_cache(format_cache(SOME, little))) == set(SOME)


def test_numbers_in_names_are_ordered_by_value_from_the_greatest() -> None:
    names = [e.name for e in parse_cache(format_cache(SOME))]
    assert names == ["libb.so.1", "liba.so.10", "liba.so.9", "liba.so.9"]


def test_a_cache_behind_one_of_the_old_format_is_found() -> None:
    old = b"ld.so-1.7.0\0" + (3).to_bytes(4, "little") + bytes(36)
    data = old + bytes(-len(old) % 8) + format_cache(SOME)
    assert set(parse_cache(data)) == set(SOME)


GOOD = format_cache(SOME)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"glibc-ld.so.cache1.1",
        b"glibc-ld.so.cache1.0" + GOOD[20:],
        b"ld.so-1.7.0\0\xff\xff\xff\x7f",
        GOOD[:60],
        GOOD[:20] + b"\xff\xff\xff\xff" + GOOD[24:],
        GOOD[:52] + b"\xff\xff\xff\xff" + GOOD[56:],
        GOOD[:52] + b"\0\0\0\0" + GOOD[56:],
        GOOD[:-1],
    ],
)
def test_a_damaged_cache_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid, match=r"read ld\.so\.cache"):
        parse_cache(data)


@given(st.binary(max_size=200), st.integers(0, len(GOOD)))
def test_any_damage_is_read_or_refused(noise: bytes, at: int) -> None:
    try:
        parse_cache(GOOD[:at] + noise + GOOD[at + len(noise) :])
    except Invalid:
        pass


def test_the_hosts_cache_is_read_as_ldconfig_prints_it() -> None:
    ldconfig = shutil.which("ldconfig", path="/usr/sbin:/sbin")
    if ldconfig is None or not Path("/etc/ld.so.cache").exists():
        pytest.skip("this host has no ld.so.cache")
    printed = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=True).stdout
    wanted = [(words[0], words[-1]) for line in printed.splitlines() if "=>" in line and (words := line.split())]
    found = parse_cache(Path("/etc/ld.so.cache").read_bytes())
    assert [(e.name, e.path) for e in found] == wanted


def test_conf_files_include_others_once(tmp_path: Path) -> None:
    write(
        tmp_path,
        "etc/ld.so.conf",
        "# first\n/one/  # why\ninclude ld.so.conf.d/*.conf\ninclude /etc/ld.so.conf\n/two\n",
    )
    write(tmp_path, "etc/ld.so.conf.d/b.conf", "/b\n/one\nhwcap 0 nosegneg\n")
    write(tmp_path, "etc/ld.so.conf.d/a.conf", "\t/a=libc6\nrelative/folder\n")
    write(tmp_path, "etc/ld.so.conf.d/.hidden.conf", "/hidden\n")
    assert ldcache.read_conf(Tree(str(tmp_path))) == ("/one", "/a", "/b", "/two")


def test_without_files_there_is_nothing(tmp_path: Path) -> None:
    tree = Tree(str(tmp_path))
    assert ldcache.read_cache(tree) is None
    assert ldcache.read_conf(tree) == ()


def test_musls_path_file_has_lines_or_colons(tmp_path: Path) -> None:
    write(tmp_path, "etc/ld-musl-x86_64.path", "/a:/b\n/c\n\n")
    found = ldcache.read_musl_path(Tree(str(tmp_path)), "/lib/ld-musl-x86_64.so.1", "x86_64")
    assert found == ("/etc/ld-musl-x86_64.path", ("/a", "/b", "/c"))
    none = ldcache.read_musl_path(Tree(str(tmp_path)), "/lib/ld-musl-i386.so.1", "i386")
    assert none == ("", ("/lib", "/usr/local/lib", "/usr/lib"))
