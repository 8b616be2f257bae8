"""What a container's control groups count, in the form of runc's `events`; cgroups v1 and v2."""

from __future__ import annotations

import os

from cloche.plan.cgroups import directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloche.step.host import Host

_NO_LIMIT = (1 << 64) - 1
_THROTTLED = {"ioServiceBytesRecursive": "io_service_bytes_recursive", "ioServicedRecursive": "io_serviced_recursive"}


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""  # this kernel does not have it, or the group is gone


def _number(path: str) -> int:
    text = _text(path)
    return int(text) if text.lstrip("-").isdigit() else _NO_LIMIT if text == "max" else 0


def _keyed(path: str) -> dict[str, int]:
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def statistics(path: str, host: Host) -> dict[str, Any]:
    """cpu, memory, pids, blkio, hugetlb. Times in nanoseconds, sizes in bytes."""
    where = directories(path, host)
    unified = host.cgroups.version == 2
    return {
        "cpu": _cpu_new(where) if unified else _cpu_old(where),
        "cpuset": _cpuset(where.get("cpuset", "")),
        "memory": _memory_new(where.get("memory", "")) if unified else _memory_old(where.get("memory", "")),
        "pids": {
            "current": _number(where.get("pids", "") + "/pids.current"),
            "limit": _number(where.get("pids", "") + "/pids.max"),
        },
        "blkio": _io_new(where.get("io", "")) if unified else _io_old(where.get("blkio", "")),
        "hugetlb": _hugetlb(where.get("hugetlb", ""), unified),
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _cpu_old(where: dict[str, str]) -> dict[str, Any]:
    place = where.get("cpuacct", "")
    times, throttled = _keyed(place + "/cpuacct.stat"), _keyed(where.get("cpu", "") + "/cpu.stat")
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return {
        "usage": {
            "total": _number(place + "/cpuacct.usage"),
            "percpu": [int(word) for word in _text(place + "/cpuacct.usage_percpu").split()],
            "kernel": times.get("system", 0) * tick,
            "user": times.get("user", 0) * tick,
        },
        "throttling": {
            "periods": throttled.get("nr_periods", 0),
            "throttledPeriods": throttled.get("nr_throttled", 0),
            "throttledTime": throttled.get("throttled_time", 0),
        },
    }


def _cpu_new(where: dict[str, str]) -> dict[str, Any]:
    found = _keyed((where.get("cpu") or next(iter(where.values()), "")) + "/cpu.stat")
    return {
        "usage": {
            "total": found.get("usage_usec", 0) * 1000,
            "kernel": found.get("system_usec", 0) * 1000,
            "user": found.get("user_usec", 0) * 1000,
        },
        "throttling": {
            "periods": found.get("nr_periods", 0),
            "throttledPeriods": found.get("nr_throttled", 0),
            "throttledTime": found.get("throttled_usec", 0) * 1000,
        },
    }


def _cpuset(place: str) -> dict[str, Any]:
    return {"cpus": _text(place + "/cpuset.cpus"), "mems": _text(place + "/cpuset.mems")} if place else {}


def _counter(place: str, name: str) -> dict[str, int]:
    base = f"{place}/memory.{name}"
    names = ("limit_in_bytes", "usage_in_bytes", "max_usage_in_bytes", "failcnt")
    return dict(zip(("limit", "usage", "max", "failcnt"), (_number(f"{base}{n}") for n in names), strict=True))


def _memory_old(place: str) -> dict[str, Any]:
    raw = _keyed(place + "/memory.stat")
    return {
        "cache": raw.get("cache", 0),
        "usage": _counter(place, ""),
        "swap": _counter(place, "memsw."),
        "kernel": _counter(place, "kmem."),
        "kernelTCP": _counter(place, "kmem.tcp."),
        "raw": raw,
    }


def _memory_new(place: str) -> dict[str, Any]:
    raw = _keyed(place + "/memory.stat")
    used, swapped = _number(place + "/memory.current"), _number(place + "/memory.swap.current")
    limit, swap_limit = _number(place + "/memory.max"), _number(place + "/memory.swap.max")
    failed = _keyed(place + "/memory.events").get("max", 0)
    return {
        "cache": raw.get("file", 0),
        "usage": {"limit": limit, "usage": used, "max": _number(place + "/memory.peak"), "failcnt": failed},
        "swap": {"limit": min(swap_limit + limit, _NO_LIMIT), "usage": used + swapped, "failcnt": 0},
        "kernel": {"failcnt": 0},
        "kernelTCP": {"failcnt": 0},
        "raw": raw,
    }


def _io_old(place: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, file in _THROTTLED.items():
        entries = []
        for line in _text(f"{place}/blkio.throttle.{file}").splitlines():
            device, _, rest = line.partition(" ")
            kind, _, value = rest.partition(" ")
            major, _, minor = device.partition(":")
            if value.isdigit() and major.isdigit() and minor.isdigit():
                entries.append({"major": int(major), "minor": int(minor), "op": kind, "value": int(value)})
        found[name] = entries
    return found


def _io_new(place: str) -> dict[str, Any]:
    sizes: list[dict[str, Any]] = []
    counts: list[dict[str, Any]] = []
    names = {"rbytes": ("Read", sizes), "wbytes": ("Write", sizes), "rios": ("Read", counts), "wios": ("Write", counts)}
    for line in _text(place + "/io.stat").splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        for key, _, value in (pair.partition("=") for pair in pairs):
            if key in names and value.isdigit():
                kind, entries = names[key]
                entries.append({"major": int(major), "minor": int(minor), "op": kind, "value": int(value)})
    return {"ioServiceBytesRecursive": sizes, "ioServicedRecursive": counts}


def _hugetlb(place: str, unified: bool) -> dict[str, Any]:
    ending = ".current" if unified else ".usage_in_bytes"
    try:
        names = [n for n in os.listdir(place) if n[:8] == "hugetlb." and n.endswith(ending)] if place else []
    except OSError:
        names = []  # the group is gone
    sizes = [n[8 : -len(ending)] for n in names if ".rsvd" not in n]
    return {size: {"usage": _number(f"{place}/hugetlb.{size}{ending}"), "failcnt": 0} for size in sizes}
