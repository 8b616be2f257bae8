"""cgroups(7): where the hierarchies are, who is in a group, ending everybody in it, its counters. Versions 1, 2 and
both at once.

Not its business: which groups containers get and with which limits (that is plan()).
"""

from __future__ import annotations

import os
from errno import EBUSY, ENOENT

from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

KNOWN = ("cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer", "blkio", "hugetlb")
# what an engine's containers do without, each hierarchy costing a start its part, and an OCI runtime's do not
MORE = ("net_cls", "net_prio", "perf_event", "rdma", "misc", "name=systemd")


class Hierarchy(Value):
    """One mounted tree of groups: its controllers, and the directory that is the root as this process sees it."""

    controllers: tuple[str, ...]
    path: str


class Layout(Value):
    """How this host mounts cgroups. Version 2 is used only where it has the controllers; a hybrid counts as version
    1."""

    version: int
    hierarchies: tuple[Hierarchy, ...]
    hybrid: bool = False


def _mounts() -> Iterator[tuple[str, str, list[str]]]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mountinfo:
        for line in mountinfo:
            left, _, right = line.rstrip("\n").partition(" - ")
            kind, _, options = right.split(" ", 2)  # the source between them may be empty
            if kind in ("cgroup", "cgroup2"):
                yield kind, left.split()[4], options.split(",")


def probe_layout(all_of_them: bool = False) -> Layout:
    """Read the layout from mountinfo, of those controllers that are used, or of all.

    A host without cgroups has version 0 and no hierarchies. Raises OSError.
    """
    known = KNOWN + MORE if all_of_them else KNOWN
    old: list[Hierarchy] = []
    new: list[Hierarchy] = []
    for kind, path, options in _mounts():
        if kind == "cgroup2":
            with open(path + "/cgroup.controllers", "rb") as file:  # as text it would bring a codec: 0.2 ms of a start
                new.append(Hierarchy(tuple(file.read().decode().split()), path))
        else:
            controllers = tuple(c for c in known if c in options)
            if controllers and not any(h.controllers == controllers for h in old):
                old.append(Hierarchy(controllers, path))
    if old:
        return Layout(1, tuple(old), hybrid=bool(new))
    if new:
        used = ("cpu", "cpuset", "io", "memory", "pids", "hugetlb", *(MORE if all_of_them else ()))
        usable = tuple(c for c in new[0].controllers if c in used)
        return Layout(2, (Hierarchy(usable, new[0].path),))
    return Layout(0, ())


def processes(path: str) -> list[int]:
    """The pids in a group and in all groups below it; empty when it does not exist."""
    found: list[int] = []
    for directory, _, _ in os.walk(path):
        try:
            with open(directory + "/cgroup.procs", encoding="ascii") as file:
                found += [int(line) for line in file]
        except OSError as error:
            if error.errno not in (ENOENT, 19, 95):  # gone meanwhile; a threaded group (EOPNOTSUPP)
                raise
    return found


def habitable(layout: Layout, group: str, first: int) -> str:
    """The group (`/cloche/ID`) for one process more of the container whose first is `first`: its own, unless it has
    handed controllers down, for then version 2 takes no process there; that of the first in this case."""
    if layout.version != 2 or not group:
        return group
    try:
        with open(f"{layout.hierarchies[0].path}{group}/cgroup.subtree_control", "rb") as file:
            if not file.read().strip():
                return group
        with open(f"/proc/{first}/cgroup", "rb") as file:
            inner = os.fsdecode(file.read()).strip().removeprefix("0::")
    except OSError:  # the container is ending; who joins is told
        return group
    return inner if inner.startswith(group + "/") else group


def kill_all(path: str) -> None:
    """Kill every process in a group and wait until they are gone. Raises OSError."""
    import select
    import signal

    from cloche.kernel.pidfd import open_pid

    if os.path.exists(path + "/cgroup.kill"):
        fd = os.open(path + "/cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"1")
        finally:
            os.close(fd)
    for _ in range(100):  # each round kills all there are; only a group that forks faster than that survives several
        handles = []
        for pid in processes(path):
            try:
                fd = open_pid(pid)
            except ProcessLookupError:
                continue
            handles.append(fd)
            if pid in processes(path):  # after opening: still the process that was listed
                try:
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        if not handles:
            return
        poll = select.poll()
        for fd in handles:
            poll.register(fd, select.POLLIN)
        poll.poll(1000)
        for fd in handles:
            os.close(fd)
    raise OSError(EBUSY, os.strerror(EBUSY), path)


def remove_tree(path: str) -> None:
    """Remove a group and the groups below it, deepest first. Raises OSError when one is still in use."""
    for directory, _, _ in list(os.walk(path, topdown=False)):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            continue


def read_counter(path: str, key: str) -> int | None:
    """The number behind `key` in a flat-keyed file such as memory.events; None when file or key is not there."""
    try:
        with open(path, encoding="ascii") as file:
            for line in file:
                name, _, value = line.partition(" ")
                if name == key:
                    return int(value)
    except OSError as error:
        if error.errno not in (ENOENT, 19):
            raise
    return None
