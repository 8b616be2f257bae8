"""Reading ELF files, good ones and hostile ones."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloche.errors import Error, Invalid
from cloche.image import elf
from elf_files import BASE, build_elf, write_elf


def read_bytes(tmp_path: Path, data: bytes) -> elf.Elf:
    file = tmp_path / "object"
    file.write_bytes(data)
    return elf.read(str(file))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("little", [True, False])
def test_everything_is_read_in_both_classes_and_byte_orders(tmp_path: Path, bits: int, little: bool) -> None:
    data = build_elf(
        bits=bits,
        little=little,
        machine=21,
        interpreter="/lib/ld.so.1",
        needed=("liba.so.1", "libb.so.2"),
        soname="libself.so",
        rpath="/old",
        runpath="$ORIGIN/../lib:/new",
        flags_1=0x800 | 0x08000000,
    )
    found = read_bytes(tmp_path, data)
    assert (found.bits, found.little, found.machine, found.type) == (bits, little, 21, elf.ET_DYN)
    assert found.interpreter == "/lib/ld.so.1"
    assert found.needed == ("liba.so.1", "libb.so.2")
    assert (found.soname, found.rpath, found.runpath) == ("libself.so", "/old", "$ORIGIN/../lib:/new")
    assert found.nodeflib and found.pie and not found.static


def test_static_programs_need_nothing(tmp_path: Path) -> None:
    assert read_bytes(tmp_path, build_elf(kind=elf.ET_EXEC)).static
    pie = read_bytes(tmp_path, build_elf(flags_1=0x08000000))
    assert pie.static and pie.pie
    assert not read_bytes(tmp_path, build_elf(needed=("libc.so.6",))).static


def test_an_absent_search_list_is_not_an_empty_one(tmp_path: Path) -> None:
    assert read_bytes(tmp_path, build_elf(needed=("a",))).runpath is None
    assert read_bytes(tmp_path, build_elf(needed=("a",), runpath="")).runpath == ""


def test_only_the_same_class_order_and_machine_fit(tmp_path: Path) -> None:
    one = read_bytes(tmp_path, build_elf())
    assert one.fits(read_bytes(tmp_path, build_elf(needed=("x",))))
    for other in ({"bits": 32}, {"little": False}, {"machine": 183}):
        assert not one.fits(read_bytes(tmp_path, build_elf(**other)))  # type: ignore[arg-type]


def test_symbols_are_in_the_string_table(tmp_path: Path) -> None:
    file = write_elf(tmp_path / "a", needed=("libc.so.6",), strings=("pthread_exit",))
    fd = os.open(file, os.O_RDONLY)
    try:
        assert b"\0pthread_exit\0" in elf.strings(fd, elf.parse(fd, "a"), "a")
    finally:
        os.close(fd)


GOOD = build_elf(interpreter="/lib/ld.so", needed=("libc.so.6",), soname="me", runpath="/lib")


def patched(at: int, layout: str, *values: int) -> bytes:
    data = bytearray(GOOD)
    struct.pack_into("<" + layout, data, at, *values)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "beyond the end"),
        (b"\x7fELF", "beyond the end"),
        (b"#!/bin/sh\n" + bytes(80), "not an ELF file"),
        (patched(4, "B", 9), "not an ELF file"),
        (patched(16, "H", 4), "type 4"),  # a core dump
        (patched(32, "Q", 2**64 - 1), "program header table"),
        (patched(54, "H", 57), "program headers"),
        (patched(56, "H", 65535), "program headers"),
        (patched(64 + 56 + 32, "Q", 1), "loader's name has 1 bytes"),
        (patched(64 + 56 + 32, "Q", 2**63), "loader's name has"),
        (patched(64 + 56 + 8, "Q", 2**64 - 2), "loader's name lies beyond"),
        (patched(64 + 56 + 32, "Q", 5), "no end"),
        (patched(64 + 112 + 32, "Q", 2**40), "dynamic section of"),
        (patched(64 + 112 + 8, "Q", 2**60), "dynamic section lies beyond"),
        (patched(64 + 16, "Q", 2**60), "no segment holds"),
        (GOOD.replace(struct.pack("<Q", BASE + 243), struct.pack("<Q", 1)), "no segment holds"),
        (GOOD.replace(struct.pack("<QQ", 14, 11), struct.pack("<QQ", 14, 2**62)), "beyond the string table"),
        (GOOD[:-16], "dynamic section lies beyond"),
    ],
)
def test_hostile_files_are_refused_with_a_cause(tmp_path: Path, data: bytes, cause: str) -> None:
    assert data != GOOD
    with pytest.raises(Invalid, match=cause):
        read_bytes(tmp_path, data)


def test_a_string_without_an_end_is_refused(tmp_path: Path) -> None:
    long = build_elf(needed=("x" * 5000,))
    with pytest.raises(Invalid, match="no end"):
        read_bytes(tmp_path, long)


def test_folders_pipes_and_absent_files_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("", "pipe"):
        with pytest.raises(Invalid, match="regular file"):
            elf.read(str(tmp_path / name))
    with pytest.raises(Error, match="ENOENT"):
        elf.read(str(tmp_path / "absent"))


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=6), cut=st.integers(0, 60)
)
def test_any_damage_is_read_or_refused(tmp_path: Path, changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    try:
        read_bytes(tmp_path, bytes(data[: len(data) - cut]))
    except Invalid as e:
        assert str(tmp_path) in str(e)
