"""pause, resume, update, ps, events: a container's control groups while it runs."""

from __future__ import annotations

import sys

from cloche.document import dumps
from cloche.errors import Conflict, Error, Invalid, Unsupported
from cloche.kernel import freezer
from cloche.kernel.cgroups import processes as inside
from cloche.kernel.pidfd import open_process
from cloche.oci.resources import parse_resources
from cloche.oci.runtime import IntelRdt, Resources
from cloche.plan.cgroups import directories, limits
from cloche.runtime.limits import Refused, change
from cloche.runtime.oci.bundle import settle_resources
from cloche.runtime.oci.state import CREATED, PAUSED, RUNNING, STOPPED, Directory
from cloche.step.host import probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.runtime.oci.call import Call
    from cloche.runtime.oci.options import Given
    from cloche.runtime.oci.state import Record
    from cloche.step.host import Host

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_ALIVE = (CREATED, RUNNING, PAUSED)


def _alive(call: Call, place: Directory, what: str) -> str:
    """Its status. Raises NotFound, Conflict."""
    status = place.status()
    if status not in _ALIVE:
        raise Conflict(f"{what} container {call.id}", "container not running")
    return status


def _freezer(call: Call, place: Directory, what: str) -> str:
    group = place.freezer()
    if not group:
        raise Unsupported(f"{what} container {call.id}", "this host has no freezer cgroup controller")
    return group


def pause(call: Call) -> None:
    """Everybody stands still when this returns. Raises Conflict, Unsupported, Error."""
    with Directory(call.root, call.id) as place:
        if _alive(call, place, "pause") == PAUSED:
            raise Conflict(f"pause container {call.id}", "container already paused")
        group = _freezer(call, place, "pause")
        try:
            freezer.freeze(group)
        except OSError as error:
            raise Error(f"pause container {call.id}", error.errno or 5, "a process waits in the kernel") from error


def resume(call: Call) -> None:
    """They go on. Raises Conflict, Unsupported, Error."""
    with Directory(call.root, call.id) as place:
        if _alive(call, place, "resume") != PAUSED:
            raise Conflict(f"resume container {call.id}", "container not paused")
        try:
            freezer.thaw(_freezer(call, place, "resume"))
        except OSError as error:
            raise Error(f"resume container {call.id}", error.errno or 5) from error


def update(call: Call) -> None:
    """Other limits; all or none of them. Raises Invalid, Conflict, Unsupported, Error."""
    wanted = settle_resources(_wanted(call.given), call.warn)
    host = probe(all_controllers=True)
    with Directory(call.root, call.id) as place:
        _alive(call, place, "update")
        record = place.record()
        if wanted.check_before_update and wanted.memory_limit and wanted.memory_limit > 0:
            _check_memory(record, host, wanted.memory_limit)
        if host.cgroups.version == 2 and wanted.cpu_period and wanted.cpu_quota is None:
            wanted = wanted.replace(cpu_quota=_quota(record, host))
        steps = limits(record.cgroups_path, wanted, host)
        try:
            change(steps)
        except Refused as error:
            hint = "it uses more than that now" if error.errno == 16 else ""
            raise Error(f"update container {call.id}: {error.step.name()}", error.errno or 5, hint) from error


def _check_memory(record: Record, host: Host, limit: int) -> None:
    group = directories(record.cgroups_path, host).get("memory", "")
    name = "memory.current" if host.cgroups.version == 2 else "memory.usage_in_bytes"
    with open(f"{group}/{name}", "rb") as file:
        used = int(file.read())
    if used > limit:
        raise Conflict(f"limit memory to {limit} bytes", f"the container uses {used}", "without checkBeforeUpdate")


def _quota(record: Record, host: Host) -> int | None:
    """What the container has. Version 2 has both in one file, and a period alone would lift the quota."""
    group = directories(record.cgroups_path, host).get("cpu")
    if group is None:
        return None
    with open(f"{group}/cpu.max", "rb") as file:
        quota = file.read().split()[0]
    return None if quota == b"max" else int(quota)


def _wanted(given: Given) -> Resources:
    source = given.text("resources")
    if source:
        if source == "-":
            content = sys.stdin.buffer.read()
        else:
            try:
                with open(source, "rb") as file:
                    content = file.read()
            except OSError as error:
                raise Error(f"read {source}", error.errno or 5) from error
        return parse_resources(content)
    if given.text("l3-cache-schema") or given.text("mem-bw-schema"):
        raise Unsupported("update Intel RDT", f"{IntelRdt.__name__} groups are not built yet")
    return Resources(
        memory_limit=_bytes(given, "memory"),
        memory_swap=_bytes(given, "memory-swap"),
        memory_reservation=_bytes(given, "memory-reservation"),
        cpu_shares=_whole(given, "cpu-share"),
        cpu_quota=_whole(given, "cpu-quota"),
        cpu_period=_whole(given, "cpu-period"),
        cpu_burst=_whole(given, "cpu-burst"),
        cpu_idle=_whole(given, "cpu-idle"),
        cpu_rt_period=_whole(given, "cpu-rt-period"),
        cpu_rt_runtime=_whole(given, "cpu-rt-runtime"),
        cpuset_cpus=given.text("cpuset-cpus"),
        cpuset_mems=given.text("cpuset-mems"),
        kernel_memory=_bytes(given, "kernel-memory"),
        kernel_memory_tcp=_bytes(given, "kernel-memory-tcp"),
        pids_limit=_whole(given, "pids-limit"),
        blkio_weight=_whole(given, "blkio-weight"),
    )


def _whole(given: Given, name: str) -> int | None:
    text = given.text(name)
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise Invalid(f"--{name} {text}", "expected a whole number") from None


def _bytes(given: Given, name: str) -> int | None:
    text = given.text(name).lower()
    if not text:
        return None
    number = text.rstrip("bkmgt")
    unit = text[len(number) :].removesuffix("b") if text[len(number) :] != "b" else ""
    if unit not in _UNITS or not number.removeprefix("-").isdecimal():
        raise Invalid(f"--{name} {text}", "expected bytes, or a number with k, m, g")
    return int(number) * _UNITS[unit]


def ps(call: Call) -> None:
    """Pids as JSON, or what ps(1) shows of them. Raises NotFound, Invalid, Error."""
    host = probe(all_controllers=True)
    place = Directory(call.root, call.id)
    record = place.record()
    groups = [h.path + record.cgroups_path for h in host.cgroups.hierarchies] if record.cgroups_path else []
    pids = sorted(set(inside(groups[0]) if groups else [place.process()[0]]))
    form = call.given.text("format", "table")
    if form == "json":
        print(dumps(pids))
        return
    if form != "table":
        raise Invalid(f"--format {form}", "invalid format option", "table or json")
    import subprocess

    wanted = call.given.arguments[1:] or ("-ef",)
    done = subprocess.run(["ps", *wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Error("run ps", done.stderr.strip() or f"exit status {done.returncode}")
    head, *lines = done.stdout.splitlines()
    if "PID" not in head.split():
        raise Invalid(f"ps {' '.join(wanted)}", "its table has no column PID")
    at = head.split().index("PID")
    print("\n".join([head, *(line for line in lines if _number(line.split(None, at + 1)[at : at + 1]) in pids)]))


def _number(words: list[str]) -> int:
    """The pid of a line; arguments with blanks in them, in a column before it, make that another word."""
    return int(words[0]) if words and words[0].isdecimal() else 0


def events(call: Call) -> None:
    """A line of JSON with what it uses: once, or again and again until it ends. Raises NotFound, Conflict."""
    from cloche.runtime.oci.statistics import statistics

    host = probe(all_controllers=True)
    place = Directory(call.root, call.id)
    _alive(call, place, "tell of")
    record = place.record()
    every = _seconds(call.given.text("interval", "5s"))
    if call.given.flag("stats"):
        print(dumps({"type": "stats", "id": call.id, "data": statistics(record.cgroups_path, host)}))
        return
    import select

    try:
        handle = open_process(*place.process())
    except ProcessLookupError:
        return  # it has ended meanwhile
    end = select.poll()
    end.register(handle, select.POLLIN)
    while place.status() != STOPPED:
        print(dumps({"type": "stats", "id": call.id, "data": statistics(record.cgroups_path, host)}), flush=True)
        if end.poll(every * 1000):
            return


def _seconds(text: str) -> float:
    for unit, factor in (("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600)):
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdecimal() and float(number) > 0:
            return float(number) * factor
    raise Invalid(f"--interval {text}", "duration interval must be greater than 0", "such as 5s")


COMMANDS = {"pause": pause, "resume": resume, "update": update, "ps": ps, "events": events}
