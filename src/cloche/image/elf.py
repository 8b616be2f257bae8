"""ELF files as a loader reads them: what kind of object, which loader, which libraries, where they are looked for.

Not its business: finding the libraries (see `libraries`), sections, symbols, relocations. Nothing is mapped (a file
that shrinks under a mapping kills the reader) and nothing of the file is believed: each offset and size is checked
against the file's size before it is read. Source: elf(5), System V gABI chapters 4 and 5, linux/fs/binfmt_elf.c.
"""

from __future__ import annotations

import os
from stat import S_ISREG
from struct import Struct

from cloche.errors import Error, Invalid
from cloche.value import Value

MAGIC = b"\x7fELF"
ET_EXEC, ET_DYN = 2, 3
EM_386, EM_PPC64, EM_S390, EM_ARM, EM_X86_64, EM_AARCH64, EM_RISCV, EM_LOONGARCH = 3, 21, 22, 40, 62, 183, 243, 258

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 10, 14, 15, 29
_DT_FLAGS_1 = 0x6FFFFFFB
_DF_1_NODEFLIB, _DF_1_PIE = 0x800, 0x08000000

_PATH_MAX = 4096
_HEADERS_MAX = 65536  # binfmt_elf.c, load_elf_phdrs(): more than 64 KiB of program headers is not executed
_DYNAMIC_MAX = 1 << 20  # 64k entries; the largest real ones have a few hundred
_STRINGS_MAX = 64 << 20


class Elf(Value):
    """What a loader wants to know of an object. rpath and runpath are None where there is no such tag: "" counts.

    strings: where the dynamic string table lies in the file, offset and size.
    """

    bits: int
    little: bool
    machine: int
    type: int
    interpreter: str = ""
    needed: tuple[str, ...] = ()
    soname: str = ""
    rpath: str | None = None
    runpath: str | None = None
    nodeflib: bool = False
    pie: bool = False
    strings: tuple[int, int] = (0, 0)

    @property
    def static(self) -> bool:
        """Nothing has to be there for it but itself: static, or static and position independent."""
        return not self.interpreter and not self.needed

    def fits(self, other: Elf) -> bool:
        """Whether a loader would take both into one process: same class, byte order and machine."""
        return (self.bits, self.little, self.machine) == (other.bits, other.little, other.machine)


def read(path: str) -> Elf:
    """The ELF file at `path`, or Invalid (not ELF, malformed, not a regular file) or Error (cannot be opened)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as e:
        raise Error(f"open {path}", e.errno or "") from None
    try:
        return parse(fd, path)
    finally:
        os.close(fd)


def parse(fd: int, name: str) -> Elf:
    """The ELF file open as `fd`; `name` is for messages. Raises Invalid."""
    file = _File(fd, name)
    ident = file.at(0, 16, "the header")
    if ident[:4] != MAGIC or ident[4] not in (1, 2) or ident[5] not in (1, 2) or ident[6] != 1:
        raise file.invalid("not an ELF file of a known class, byte order and version")
    layout = _LAYOUTS[ident[4], ident[5]]
    kind, machine, _, _, phoff, _, _, _, phentsize, phnum, *_ = layout.header.unpack(
        file.at(16, layout.header.size, "the header")
    )
    if kind not in (ET_EXEC, ET_DYN):
        raise file.invalid(f"neither an executable nor a shared object (type {kind})")
    segments = _segments(file, layout, phoff, phentsize, phnum)
    interpreter = next((_interpreter(file, s) for s in segments if s.type == _PT_INTERP), "")
    dynamic = next((s for s in segments if s.type == _PT_DYNAMIC), None)
    base = Elf(layout.bits, ident[5] == 1, machine, kind, interpreter)
    return base if dynamic is None else _read_dynamic(file, layout, base, segments, dynamic)


def strings(fd: int, elf: Elf, name: str) -> bytes:
    """The dynamic string table: every library and symbol that the object names, each between two zero bytes."""
    offset, size = elf.strings
    return _File(fd, name).at(offset, size, "the string table")


class _Layout(Value):
    bits: int
    header: Struct  # after the 16 bytes of e_ident
    segment: Struct
    order: tuple[int, int, int, int]  # where p_type, p_offset, p_vaddr, p_filesz stand in a program header
    entry: Struct


_LAYOUTS = {
    (size, data): _Layout(
        32 * size,
        Struct(mark + ("HHIIIIIHHHHHH" if size == 1 else "HHIQQQIHHHHHH")),
        Struct(mark + ("8I" if size == 1 else "IIQQQQQQ")),
        (0, 1, 2, 4) if size == 1 else (0, 2, 3, 5),
        Struct(mark + ("II" if size == 1 else "QQ")),
    )
    for size in (1, 2)
    for data, mark in ((1, "<"), (2, ">"))
}


class _Segment(Value):
    type: int
    offset: int
    address: int
    size: int


class _File:
    """A file read by position, never beyond its end."""

    def __init__(self, fd: int, name: str) -> None:
        self.fd, self.name = fd, name
        status = os.fstat(fd)
        if not S_ISREG(status.st_mode):
            raise self.invalid("not a regular file")
        self.size = status.st_size

    def at(self, offset: int, length: int, what: str) -> bytes:
        if offset + length > self.size:
            raise self.invalid(f"{what} lies beyond the end of the file")
        try:
            data = os.pread(self.fd, length, offset)
        except OSError as e:
            raise Error(f"read {self.name}", e.errno or "") from None
        if len(data) < length:
            raise self.invalid("the file became shorter while it was read")
        return data

    def invalid(self, cause: str) -> Invalid:
        return Invalid(f"read ELF file {self.name}", cause)


def _segments(file: _File, layout: _Layout, offset: int, entry_size: int, count: int) -> tuple[_Segment, ...]:
    if count == 0:
        return ()
    if entry_size != layout.segment.size or entry_size * count > _HEADERS_MAX:
        raise file.invalid(f"{count} program headers of {entry_size} bytes are not what the kernel would load")
    table = file.at(offset, entry_size * count, "the program header table")
    return tuple(_Segment(*(fields[i] for i in layout.order)) for fields in layout.segment.iter_unpack(table))


def _interpreter(file: _File, segment: _Segment) -> str:
    if not 2 <= segment.size <= _PATH_MAX:
        raise file.invalid(f"the loader's name has {segment.size} bytes")
    name = file.at(segment.offset, segment.size, "the loader's name")
    if name[-1]:
        raise file.invalid("the loader's name has no end")
    return os.fsdecode(name.partition(b"\0")[0])


def _read_dynamic(file: _File, layout: _Layout, base: Elf, segments: tuple[_Segment, ...], dynamic: _Segment) -> Elf:
    """`base` with what the dynamic section says."""
    size = dynamic.size - dynamic.size % layout.entry.size
    if size > _DYNAMIC_MAX:
        raise file.invalid(f"a dynamic section of {size} bytes")
    tags: dict[int, int] = {}
    needed: list[int] = []
    for tag, value in layout.entry.iter_unpack(file.at(dynamic.offset, size, "the dynamic section")):
        if tag == _DT_NULL:
            break
        if tag == _DT_NEEDED:
            needed.append(value)
        tags[tag] = value
    flags = tags.get(_DT_FLAGS_1, 0)
    facts = {"nodeflib": bool(flags & _DF_1_NODEFLIB), "pie": bool(flags & _DF_1_PIE)}
    if _DT_STRTAB not in tags:
        if needed or tags.keys() & {_DT_SONAME, _DT_RPATH, _DT_RUNPATH}:
            raise file.invalid("the dynamic section names strings, but there is no string table")
        return base.replace(**facts)
    table = (_file_offset(file, segments, tags[_DT_STRTAB]), tags.get(_DT_STRSZ, 0))
    if table[1] > _STRINGS_MAX or sum(table) > file.size:
        raise file.invalid("the string table lies beyond the end of the file")

    def text(tag: int) -> str | None:
        return _string(file, table, tags[tag]) if tag in tags else None

    return base.replace(
        needed=tuple(dict.fromkeys(_string(file, table, at) for at in needed)),
        soname=text(_DT_SONAME) or "",
        rpath=text(_DT_RPATH),
        runpath=text(_DT_RUNPATH),
        strings=table,
        **facts,
    )


def _file_offset(file: _File, segments: tuple[_Segment, ...], address: int) -> int:
    for s in segments:
        if s.type == _PT_LOAD and s.address <= address < s.address + s.size:
            return address - s.address + s.offset
    raise file.invalid(f"no segment holds the string table's address {address:#x}")


def _string(file: _File, table: tuple[int, int], at: int) -> str:
    start, size = table
    if at >= size:
        raise file.invalid(f"string {at} lies beyond the string table")
    text, end, _ = file.at(start + at, min(size - at, _PATH_MAX), "a string").partition(b"\0")
    if not end:
        raise file.invalid(f"string {at} has no end")
    return os.fsdecode(text)
