"""The freezer of cgroups(7): everybody in a group stops, and goes on as if nothing had been.

Version 1 has a hierarchy of its own (freezer.state), version 2 a file in each group (cgroup.freeze). On version 1 even
SIGKILL waits for the thaw. Source: Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst, cgroup-v2.rst.
"""

from __future__ import annotations

import os
from errno import EBUSY, ENODEV, ENOENT
from time import monotonic, sleep

from cloche.kernel.cgroups import read_counter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.kernel.cgroups import Layout

PATIENCE = 5.0  # seconds until a group that does not come to rest is thawed again


def freezer_of(layout: Layout, group: str) -> str:
    """The directory in which the group `group` (`/cloche/ID`) is frozen; "" on a host without a freezer."""
    for hierarchy in layout.hierarchies:
        if layout.version == 2 or "freezer" in hierarchy.controllers:
            return hierarchy.path + group
    return ""


def is_frozen(directory: str) -> bool:
    """Whether everybody in the group stands still. A group that is gone is not frozen. Raises OSError."""
    try:
        with open(directory + "/freezer.state", "rb") as file:
            return file.read().strip() == b"FROZEN"
    except OSError as error:
        if error.errno not in (ENOENT, ENODEV):
            raise
    return read_counter(directory + "/cgroup.events", "frozen") == 1


def freeze(directory: str, patience: float = PATIENCE) -> None:
    """Freeze everybody in the group; returns when all stand still. One that cannot be frozen runs on as before.

    Raises FileNotFoundError when there is no such group, OSError(EBUSY) when it does not come to rest.
    """
    try:
        if os.path.exists(directory + "/freezer.state"):
            _freeze_old(directory, patience)
        else:
            _freeze_new(directory, patience)
    except BaseException:
        thaw(directory)
        raise


def _freeze_old(directory: str, patience: float) -> None:
    """Asked again and again: a process that forked meanwhile leaves the group FREEZING until the next write."""
    end = monotonic() + patience
    pause = 0.0001
    while True:
        _write(directory + "/freezer.state", b"FROZEN")
        if is_frozen(directory):
            return
        if monotonic() > end:
            raise OSError(EBUSY, os.strerror(EBUSY), directory)
        sleep(pause)
        pause = min(pause * 2, 0.01)


def _freeze_new(directory: str, patience: float) -> None:
    """The kernel says when: cgroup.events changes, which poll(2) reports as POLLPRI."""
    import select

    end = monotonic() + patience
    fd = os.open(directory + "/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        _write(directory + "/cgroup.freeze", b"1")
        while b"frozen 1" not in os.pread(fd, 4096, 0):
            left = end - monotonic()
            if left <= 0:
                raise OSError(EBUSY, os.strerror(EBUSY), directory)
            poll.poll(left * 1000)
    finally:
        os.close(fd)


def thaw(directory: str) -> None:
    """Let everybody go on; a group that is gone, or was not frozen, is no matter. Raises OSError."""
    for name, content in (("freezer.state", b"THAWED"), ("cgroup.freeze", b"0")):
        try:
            _write(f"{directory}/{name}", content)
            return
        except OSError as error:
            if error.errno not in (ENOENT, ENODEV):
                raise


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)
