"""Control groups as the kernel shows them, and what each setting of a configuration must come to on this machine.

On version 1 settings are files of their controllers; on version 2 those that have a counterpart are converted. The
hybrid layout is version 1: its `unified` tree is not asked about.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import probes
from conformance.harness import Bundle, cgroup

V2 = probes.layout() == "v2"
MIB = 1 << 20
UNLIMITED = "max" if V2 else "9223372036854771712"  # what the memory controller says, in whole pages

VERSION_1 = pytest.mark.skipif(V2, reason="needs cgroup version 1")


def on_version(number: int, difference: pytest.MarkDecorator) -> pytest.MarkDecorator:
    """A difference that a runtime shows on one version of control groups only."""
    return difference if number == (2 if V2 else 1) else pytest.mark.differs("no runtime", "")


def hierarchies() -> list[Path]:
    """Where each hierarchy is mounted that takes containers."""
    mounts = probes.cgroup_mounts()
    return sorted({Path(place) for name, place in mounts.items() if V2 or name != "unified"})


def groups_of(pid: int) -> dict[Path, Path]:
    """A process's group in each of these hierarchies, by where that is mounted."""
    found = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        place = probes.cgroup_mounts().get(names.split(",")[0] or "unified")
        if place and Path(place) in hierarchies():
            found[Path(place)] = Path(place + path)
    return found


def read(pid: int, controller: str, name: str) -> str:
    """A file of a process's group, with single blanks between its words."""
    return " ".join((cgroup(pid, controller) / name).read_text().split())


@contextmanager
def made(path: str) -> Iterator[list[Path]]:
    """Makes a group of this path in every hierarchy; removes what is left of it."""
    folders = [place / path.lstrip("/") for place in hierarchies()]
    for folder in folders:
        folder.mkdir()
        for name in ("cpuset.cpus", "cpuset.mems"):  # on version 1 they begin empty, and such a group takes nobody
            if not V2 and (folder / name).exists():
                (folder / name).write_text((folder.parent / name).read_text())
    try:
        yield folders
    finally:
        for folder in folders:
            if folder.exists():
                folder.rmdir()


@functools.cache
def has(name: str) -> bool:
    """Whether a group of this kernel has a file of that name."""
    with made(f"/cf{os.getpid()}-probe") as folders:
        return any((folder / name).exists() for folder in folders)


def require(*names: str) -> None:
    """Skips the test where groups do not have all these files."""
    if lacking := [name for name in names if not has(name)]:
        pytest.skip(f"needs {', '.join(lacking)} in control groups")


def resources(bundle: Bundle, **settings: Any) -> None:
    bundle.linux["resources"].update(settings)
