"""Compiled seccomp filters, kept by a name of what they were compiled from: libseccomp takes milliseconds for each.

Not its business: which profile, what its name is made of (but the library is a part of it).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Filter = tuple[bytes, int]  # the program, the flags for seccomp(2)


def library(machine: str) -> str:
    """libseccomp's version, as its file is named (libseccomp.so.2.5.4), found without loading it; "" if it is
    elsewhere."""
    for directory in (f"/usr/lib/{machine}-linux-gnu", "/usr/lib64", "/usr/lib"):
        try:
            return os.path.basename(os.readlink(directory + "/libseccomp.so.2"))
        except OSError:
            pass
    return ""


def kept(path: str, make: Callable[[], Filter]) -> Filter:
    """What is in the file, or what is made, which is written there. Its directory is for its owner alone."""
    try:
        with open(path, "rb") as file:
            content = file.read()
        if len(content) > 8 and len(content) % 8 == 0:
            return content[8:], int.from_bytes(content[:8], "little")
    except FileNotFoundError:
        pass
    from _thread import get_ident

    program, flags = make()
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    aside = f"{path}.{os.getpid()}.{get_ident()}"  # several threads of a process may want it at once
    with open(aside, "wb") as file:
        file.write(flags.to_bytes(8, "little") + program)
    os.rename(aside, path)
    return program, flags
