"""stats: what a container uses, as its control groups and its network namespace count it; cgroups v1 and v2."""

from __future__ import annotations

import os
from time import monotonic_ns

from cloche.engine.database import RUNNING
from cloche.errors import NotFound
from cloche.kernel.cgroups import read_counter
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.containers import Container, Engine
    from cloche.engine.courses import Stream

_NO_LIMIT = 1 << 62  # cgroup v1 says "unlimited" with the largest number of whole pages


class Usage(Value):
    """One look. Times in nanoseconds, sizes in bytes, all since the start but memory and processes, which are now.

    memory: without the page cache that is easily dropped (inactive_file), as Docker counts. limits: 0 is none of its
    own. pressure: lines of the kernel's PSI files by resource, where a group has them.
    """

    at: int = 0
    cpu: int = 0
    memory: int = 0
    memory_limit: int = 0
    processes: int = 0
    processes_limit: int = 0
    received: int = 0
    sent: int = 0
    read: int = 0
    written: int = 0
    pressure: tuple[tuple[str, str], ...] = ()

    def cpu_percent(self, before: Usage) -> float:
        """Of one CPU, between two looks: 200 is two CPUs all of the time."""
        span = self.at - before.at
        return max(0, self.cpu - before.cpu) * 100 / span if span > 0 and before.at else 0.0

    def memory_percent(self) -> float:
        """Of the limit."""
        return self.memory * 100 / self.memory_limit if self.memory_limit else 0.0


def look(engine: Engine, container: Container) -> Usage:
    """What a container uses now; nothing, when it does not run."""
    if container.status != RUNNING:
        return Usage()
    layout = engine.host.cgroups
    group = engine.store.cgroup(container.id, container.config.request.cgroup_parent)
    where = {c: h.path + group for h in layout.hierarchies for c in h.controllers}
    if layout.version == 2:
        found = _new(layout.hierarchies[0].path + group)
    else:
        found = _old(where)
    received, sent = network_bytes(container.pid)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = found.memory_limit
    limit = total if not limit or limit > total else limit
    return found.replace(at=monotonic_ns(), received=received, sent=sent, memory_limit=limit)


def watching(engine: Engine, container: Container, every: float) -> Stream[Usage]:
    """A look every so many seconds, the first one now, until it has ended."""
    from cloche.engine.courses import Wait

    while True:
        yield (look(engine, container),)
        if (yield Wait(end=container.id, seconds=every)).ended:
            return
        try:
            container = engine.find(container.id)
        except NotFound:
            return


def number_in(path: str) -> int:
    """A file with one number; 0 for `max`, and where there is none."""
    try:
        with open(path, encoding="ascii") as file:
            text = file.read().strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def _resident(used: int, inactive: int | None) -> int:
    return used - inactive if inactive is not None and inactive < used else used


def _old(where: dict[str, str]) -> Usage:
    memory, pids, cpu, disk = (where.get(c, "") for c in ("memory", "pids", "cpuacct", "blkio"))
    limit = number_in(memory + "/memory.limit_in_bytes")
    inactive = read_counter(memory + "/memory.stat", "total_inactive_file")
    read = written = 0
    for line in _text(disk + "/blkio.throttle.io_service_bytes_recursive").splitlines():
        words = line.split()
        if len(words) == 3:
            read += int(words[2]) if words[1] == "Read" else 0
            written += int(words[2]) if words[1] == "Write" else 0
    return Usage(
        0,
        number_in(cpu + "/cpuacct.usage"),
        _resident(number_in(memory + "/memory.usage_in_bytes"), inactive),
        0 if limit >= _NO_LIMIT else limit,
        number_in(pids + "/pids.current"),
        number_in(pids + "/pids.max"),
        read=read,
        written=written,
    )


def _new(group: str) -> Usage:
    read = written = 0
    for line in _text(group + "/io.stat").splitlines():
        counts = dict(word.partition("=")[::2] for word in line.split()[1:])
        read += int(counts.get("rbytes", 0))
        written += int(counts.get("wbytes", 0))
    pressure = ((name, _text(f"{group}/{name}.pressure").strip()) for name in ("cpu", "memory", "io"))
    return Usage(
        0,
        (read_counter(group + "/cpu.stat", "usage_usec") or 0) * 1000,
        _resident(number_in(group + "/memory.current"), read_counter(group + "/memory.stat", "inactive_file")),
        number_in(group + "/memory.max"),
        number_in(group + "/pids.current"),
        number_in(group + "/pids.max"),
        read=read,
        written=written,
        pressure=tuple((name, text) for name, text in pressure if text),
    )


def network_bytes(pid: int) -> tuple[int, int]:
    """Bytes received and sent by all links but `lo`. Source: proc_pid_net(5)."""
    received = sent = 0
    for line in _text(f"/proc/{pid}/net/dev").splitlines()[2:]:
        name, _, numbers = line.partition(":")
        counts = numbers.split()
        if name.strip() != "lo" and len(counts) > 8:
            received, sent = received + int(counts[0]), sent + int(counts[8])
    return received, sent
