"""The entries of a layer made from a host's files, and their deterministic tar.

The same entries and the same content give the same bytes: sorted names, no owner but root, one time for all. Setuid and
setgid bits, extended attributes and file capabilities are never written. Not its business: which entries (see `pack`).
"""

from __future__ import annotations

import os
from stat import S_ISREG
from typing import TYPE_CHECKING

from cloche.errors import Error, Invalid
from cloche.value import Value

if TYPE_CHECKING:
    from collections.abc import Sequence
    from tarfile import TarFile, TarInfo
    from typing import BinaryIO

    from cloche.image.tree import Tree

FILE, DIRECTORY, SYMLINK, HARDLINK = "file", "directory", "symlink", "hardlink"


class Entry(Value):
    """One name in a layer. `path` has no leading slash. A file's content is `source` (a host's path without links) or
    `data`; a link's end is `target`, for a hard link the `path` of another entry. `why` is for people."""

    path: str
    kind: str
    mode: int
    source: str = ""
    data: bytes = b""
    target: str = ""
    size: int = 0
    why: str = ""


def is_secret(path: str) -> bool:
    """Whether this is a file of password hashes (shadow(5), gshadow(5), their copies and locks), in whatever /etc."""
    folder, name = os.path.split(path)
    parent = os.path.basename(folder)
    if parent == "security":
        return name.startswith("opasswd")
    return parent == "etc" and name.partition(".")[0].strip("-+") in ("shadow", "gshadow")


def epoch() -> int:
    """The time that all entries get: SOURCE_DATE_EPOCH (seconds) if it is set, or 0. Raises Invalid."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "").strip()
    if text and not (text.isascii() and text.isdigit() and len(text) <= 11):
        raise Invalid(f"read SOURCE_DATE_EPOCH={text}", "not a number of seconds")
    return int(text or 0)


def write_layer(entries: Sequence[Entry], out: BinaryIO, tree: Tree | None = None, mtime: int | None = None) -> None:
    """Write the tar of `entries` to `out`. Raises Error (unreadable, changed meanwhile, disk full), Invalid."""
    import tarfile

    from cloche.image.tree import Tree

    tree = tree or Tree()
    time = epoch() if mtime is None else mtime
    doing = "start"
    try:
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
            for entry in sorted(entries, key=lambda e: os.fsencode(e.path)):
                doing = f"write /{entry.path} into"
                _write(tar, entry, tree, time)
            doing = "end"
    except OSError as e:  # tarfile says so too, without a number, where a file ends early
        raise Error(f"{doing} the layer", e.errno or str(e)) from None


def _write(tar: TarFile, entry: Entry, tree: Tree, mtime: int) -> None:
    from io import BytesIO

    head = _head(entry, mtime)
    if entry.kind != FILE:
        tar.addfile(head)
    elif not entry.source:
        head.size = len(entry.data)
        tar.addfile(head, BytesIO(entry.data))
    else:
        with open(tree.open(entry.source), "rb") as file:
            status = os.fstat(file.fileno())
            if not S_ISREG(status.st_mode) or status.st_size != entry.size:
                raise Error(f"pack {entry.source}", "it changed while it was packed", "do it again")
            head.size = entry.size
            tar.addfile(head, file)


def _head(entry: Entry, mtime: int) -> TarInfo:
    import tarfile

    head = tarfile.TarInfo(entry.path)
    head.type = {
        FILE: tarfile.REGTYPE,
        DIRECTORY: tarfile.DIRTYPE,
        SYMLINK: tarfile.SYMTYPE,
        HARDLINK: tarfile.LNKTYPE,
    }[entry.kind]
    head.mode = entry.mode & 0o1777
    head.mtime = mtime
    head.linkname = entry.target
    return head
