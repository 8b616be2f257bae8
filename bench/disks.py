"""Disks for stores that are measured: ext4 with a journal, as nearly all machines have it.

Without one (it happens in VMs) ext4 passes over each inode that was freed in the last minutes, one by one
(`recently_deleted` in perf): behind a benchmark that deletes, that is all that is measured.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = 16 << 30  # bytes, of which few are ever written


def private_mounts() -> None:
    """What this process mounts from now on is its own and its children's, and ends with them. Raises OSError."""
    from cloche.kernel.mounts import MS_PRIVATE, MS_REC, mount
    from cloche.kernel.namespaces import NEWNS, unshare

    unshare(NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)


@contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """A new one, mounted at `folder`/disk. Raises CalledProcessError."""
    image, place = folder / "disk.img", folder / "disk"
    place.mkdir()
    with open(image, "wb") as file:
        file.truncate(SIZE)
    made_now = "lazy_itable_init=0,lazy_journal_init=0"
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", made_now, "-O", "has_journal", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
        image.unlink()
