"""Where glibc's and musl's loaders are told to look for libraries: ld.so.cache, ld.so.conf, ld-musl-ARCH.path.

Reads the cache's present format (glibc-ld.so.cache1.1, alone or behind the old one) and writes it, because an image
with a library outside of the loader's own folders needs a cache of its own: the loader never reads ld.so.conf.
Source: ldconfig(8), glibc sysdeps/generic/dl-cache.h; musl's ldso/dynlink.c for its path file.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import TYPE_CHECKING

from cloche.errors import Error, Invalid, NotFound
from cloche.value import Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloche.image.tree import Tree

_MAGIC = b"glibc-ld.so.cache1.1"
_OLD_MAGIC = b"ld.so-1.7.0"
_FILE_MAX = 64 << 20


class CacheEntry(Value):
    """One library. `flags`: its ABI, a number for each machine. `hwcap`: not 0 where it needs a special CPU."""

    name: str
    path: str
    flags: int
    hwcap: int = 0


def parse_cache(data: bytes) -> tuple[CacheEntry, ...]:
    """The libraries that an ld.so.cache lists, in its order. Raises Invalid."""
    start = _start_of_new(data)
    view = data[start:]
    for mark, code in (("<", 2), (">", 3)):
        count, _, flags = Struct(mark + "IIB").unpack_from(view.ljust(48, b"\0"), 20)
        table = Struct(mark + "iIIIQ")
        if flags & 3 in (0, code) and 48 + count * table.size <= len(view):
            break
    else:
        raise Invalid("read ld.so.cache", "its table lies beyond the end of the file")
    entries = table.iter_unpack(view[48 : 48 + count * table.size])
    return tuple(CacheEntry(_text(view, k), _text(view, v), kind, hwcap) for kind, k, v, _, hwcap in entries)


def _start_of_new(data: bytes) -> int:
    """Where the new table starts: an old one for glibc before 2.2 may stand before it, padded to 8 bytes."""
    if data.startswith(_OLD_MAGIC):
        for mark in "<>":
            count = int.from_bytes(data[12:16], "little" if mark == "<" else "big")
            start = (16 + 12 * count + 7) & ~7
            if data[start : start + len(_MAGIC)] == _MAGIC:
                return start
    elif data.startswith(_MAGIC):
        return 0
    raise Invalid("read ld.so.cache", "not a cache of the format glibc-ld.so.cache1.1")


def _text(data: bytes, at: int) -> str:
    end = data.find(b"\0", at)
    if not 48 <= at < end:
        raise Invalid("read ld.so.cache", f"string {at} lies beyond the end of the file")
    return os.fsdecode(data[at:end])


def format_cache(entries: Iterable[CacheEntry], little: bool = True) -> bytes:
    """An ld.so.cache with these libraries, in the order in which the loader's binary search wants them."""
    mark = "<" if little else ">"
    ordered = sorted(set(entries), key=lambda e: (_search_key(e.name), e.flags, e.path), reverse=True)
    names = b"".join(os.fsencode(s) + b"\0" for e in ordered for s in (e.name, e.path))
    head = Struct(mark + "20sIIB3xI12x").pack(_MAGIC, len(ordered), len(names), 2 if little else 3, 0)
    row = Struct(mark + "iIIIQ")
    at = len(head) + row.size * len(ordered)
    rows = []
    for e in ordered:
        value = at + len(os.fsencode(e.name)) + 1
        rows.append(row.pack(e.flags, at, value, 0, e.hwcap))
        at = value + len(os.fsencode(e.path)) + 1
    return head + b"".join(rows) + names


def _search_key(name: str) -> list[tuple[int, int]]:
    """Orders names as dl-cache.c's _dl_cache_libcmp() does: numbers by value, and after any other character."""
    key: list[tuple[int, int]] = []
    number = False
    for c in os.fsencode(name):
        digit = 48 <= c <= 57
        if digit and number:
            key[-1] = (1, key[-1][1] * 10 + c - 48)
        else:
            key.append((1, c - 48) if digit else (0, c))
        number = digit
    return key


def read_cache(tree: Tree) -> dict[str, list[CacheEntry]] | None:
    """The host's cache by library name, or None where there is none or, as for the loader, it is not one."""
    try:
        entries = parse_cache(tree.read("/etc/ld.so.cache", _FILE_MAX))
    except (NotFound, Invalid):
        return None
    by_name: dict[str, list[CacheEntry]] = {}
    for entry in entries:
        by_name.setdefault(entry.name, []).append(entry)
    return by_name


def read_conf(tree: Tree, path: str = "/etc/ld.so.conf") -> tuple[str, ...]:
    """The folders that ld.so.conf and the files it includes name, as ldconfig would read them."""
    return tuple(dict.fromkeys(_conf_folders(tree, path, set())))


def _conf_folders(tree: Tree, path: str, seen: set[str]) -> Iterator[str]:
    if path in seen:
        return
    seen.add(path)
    try:
        lines = os.fsdecode(tree.read(path, _FILE_MAX)).splitlines()
    except NotFound:
        return
    for line in lines:
        words = line.partition("#")[0].split()
        if words[:1] == ["include"]:
            for pattern in words[1:]:
                for file in _glob(tree, os.path.join(os.path.dirname(path), pattern)):
                    yield from _conf_folders(tree, file, seen)
        elif words and words[0].startswith("/"):
            yield words[0].partition("=")[0].rstrip("/") or "/"


def _glob(tree: Tree, pattern: str) -> list[str]:
    from fnmatch import fnmatchcase

    found = ["/"]
    for part in pattern.strip("/").split("/"):
        if not any(c in part for c in "*?["):
            found = [os.path.join(f, part) for f in found]
            continue
        folders = [(f, way.path) for f in found if (way := tree.find(f)) is not None]
        found = [os.path.join(f, n) for f, real in folders for n in _names(tree, real) if fnmatchcase(n, part)]
    return [f for f in found if tree.find(f) is not None]


def _names(tree: Tree, folder: str) -> list[str]:
    try:
        return [n for n in tree.names(folder) if not n.startswith(".")]
    except NotFound:
        return []


def read_musl_path(tree: Tree, loader: str, arch: str) -> tuple[str, tuple[str, ...]]:
    """The file that tells musl's `loader` where to look ("" if there is none) and the folders, in order."""
    prefix = os.path.dirname(os.path.dirname(loader)).rstrip("/")
    file = f"{prefix}/etc/ld-musl-{arch}.path"
    try:
        text = os.fsdecode(tree.read(file, _FILE_MAX))
    except NotFound:
        return "", ("/lib", "/usr/local/lib", "/usr/lib")
    except Error:
        return "", ()  # dynlink.c: a file that is there and cannot be read stands for no folders
    return file, tuple(f for f in text.replace("\n", ":").split(":") if f.startswith("/"))
