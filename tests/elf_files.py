"""Small ELF files made with struct: headers, a loader's name, a dynamic section. They can be read, not run."""

from __future__ import annotations

from pathlib import Path
from struct import pack

BASE = 0x10000  # the address at which the file is mapped: no address is a file offset by chance


def build_elf(
    *,
    bits: int = 64,
    little: bool = True,
    machine: int = 62,
    kind: int = 3,
    interpreter: str | None = None,
    needed: tuple[str, ...] = (),
    soname: str | None = None,
    rpath: str | None = None,
    runpath: str | None = None,
    flags_1: int = 0,
    strings: tuple[str, ...] = (),
    dynamic: bool | None = None,
) -> bytes:
    """An ELF file that says just this. `strings` are more texts (symbols) for the string table."""
    mark = "<" if little else ">"
    wide = bits == 64
    table = b"\0"
    tags: list[tuple[int, int]] = []
    for tag, text in [(1, n) for n in needed] + [(14, soname), (15, rpath), (29, runpath)] + [(0, s) for s in strings]:
        if text is not None:
            if tag:
                tags.append((tag, len(table)))
            table += text.encode() + b"\0"
    if flags_1:
        tags.append((0x6FFFFFFB, flags_1))
    has_dynamic = bool(tags) if dynamic is None else dynamic
    header_size, segment_size = (64, 56) if wide else (52, 32)
    name = interpreter.encode() + b"\0" if interpreter is not None else b""
    count = 1 + bool(name) + has_dynamic
    at_name = header_size + segment_size * count
    at_table = at_name + len(name)
    at_dynamic = at_table + len(table)
    tags += [(5, BASE + at_table), (10, len(table)), (0, 0)]
    section = b"".join(pack(mark + ("QQ" if wide else "II"), *t) for t in tags) if has_dynamic else b""
    size = at_dynamic + len(section)

    def segment(type_: int, at: int, length: int) -> bytes:
        if wide:
            return pack(mark + "IIQQQQQQ", type_, 4, at, BASE + at, BASE + at, length, length, 8)
        return pack(mark + "8I", type_, at, BASE + at, BASE + at, length, length, 4, 4)

    segments = segment(1, 0, size)
    segments += segment(3, at_name, len(name)) if name else b""
    segments += segment(2, at_dynamic, len(section)) if has_dynamic else b""
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if little else 2, 1]) + bytes(9)
    layout = mark + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH")
    header = pack(layout, kind, machine, 1, 0, header_size, 0, 0, header_size, segment_size, count, 0, 0, 0)
    return ident + header + segments + name + table + section


def write_elf(path: Path, mode: int = 0o755, **facts: object) -> Path:
    """Such a file at `path`, its folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(build_elf(**facts))  # type: ignore[arg-type]
    path.chmod(mode)
    return path
