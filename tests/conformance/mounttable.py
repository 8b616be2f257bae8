"""What is mounted in a container, as its own mountinfo says, and mounts of the test's to bind into it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import probes
from conformance.harness import Bundle


class Mounted(NamedTuple):
    """One line of mountinfo: `data` are the options of the file system, `options` those of this mount of it."""

    root: str
    options: frozenset[str]
    propagation: frozenset[str]
    type: str
    source: str
    data: frozenset[str]

    @property
    def shared(self) -> bool:
        return any(field.startswith("shared:") for field in self.propagation)

    @property
    def slave(self) -> bool:
        return any(field.startswith("master:") for field in self.propagation)


def parse(text: str) -> dict[str, Mounted]:
    """The topmost mount of each place."""
    found = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        _, _, _, root, place, options, *fields = before.split()
        kind, source, data = after.split(" ")
        found[_plain(place)] = Mounted(
            _plain(root), frozenset(options.split(",")), frozenset(fields), kind, source, frozenset(data.split(","))
        )
    return found


def _plain(text: str) -> str:
    return re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), text)


def mounts_in(bundle: Bundle) -> dict[str, Mounted]:
    """What is mounted in the container of a bundle, which is run for it."""
    return parse(bundle.says("cat /proc/self/mountinfo"))


def mounts_of(pid: int | str) -> dict[str, Mounted]:
    """What is mounted for a process, with paths as it sees them."""
    return parse(Path(f"/proc/{pid}/mountinfo").read_text())


def tmpfs(place: Path, flags: int = 0, data: str = "mode=755") -> Path:
    """Mounts a tmpfs; the caller unmounts it."""
    place.mkdir(parents=True, exist_ok=True)
    probes.mount("tmpfs", str(place), "tmpfs", flags, data)
    return place


def unmount(place: Path) -> None:
    probes.libc.umount2(str(place).encode(), probes.MNT_DETACH)
