"""What a store left behind on the host: processes, mounts, cgroups and interfaces, found by looking everywhere.

The `store` fixture ends with it, and tests of failing creates compare two `census()` takes. Everything is looked for by
the store's marks, so several runs on one machine do not see each other's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from errno import EINVAL, ESRCH
from pathlib import Path

from probes import MNT_DETACH, cgroup_mounts, libc


def marks(root: Path) -> tuple[str, ...]:
    """What a name outside the store (of a cgroup, an interface, a mount) bears when it belongs to the store.

    The engine's part: it knows how such names are made; `root` itself always counts.
    """
    from cloche.engine.store import locate

    return (str(root), root.name, locate(str(root)).parent)


def end_store(root: Path) -> None:
    """Asks the engine to remove every container of the store and ends its keeper and holder.

    The engine's part: whatever is still there afterwards is a left-over, and the test fails.
    """
    if importlib.util.find_spec("cloche.cli.main") is None or not any(root.iterdir()):
        return
    if names := cloche("ps", "-a", "-q", "--no-trunc").split():
        cloche("rm", "-f", *names)
    facts = json.loads(cloche("info", "--format", "json"))
    if facts["KeeperPid"]:
        from cloche.engine.containers import Engine

        pidfd = os.pidfd_open(facts["HolderPid"])
        engine = Engine(str(root))
        engine.keeper.ask({"op": "end"})
        engine.close()
        select.select([pidfd], [], [], 10)
        os.close(pidfd)


def cloche(*arguments: str) -> str:
    """What the command line says on stdout; raises CalledProcessError."""
    start = "import sys; from cloche.cli.main import program; program()"
    command = [sys.executable, "-c", start, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


def processes(root: Path) -> dict[int, str]:
    """Processes that work for the store or hold something of it open, with a word on why each is counted."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid() and (why := _tie(f"/proc/{entry}", str(root))):
            found[int(entry)] = why
    return found


def _tie(proc: str, root: str) -> str:
    try:
        name = Path(f"{proc}/comm").read_text().strip()
        if f"CLOCHE_ROOT={root}\0".encode() in Path(f"{proc}/environ").read_bytes() + b"\0":
            return f"{name}: has CLOCHE_ROOT in its environment"
        if root.encode() in Path(f"{proc}/cmdline").read_bytes():
            return f"{name}: names the store in its arguments"
        links = [f"{proc}/cwd", f"{proc}/root", *(f"{proc}/fd/{fd}" for fd in os.listdir(f"{proc}/fd"))]
        held = next((target for target in map(_target, links) if target.startswith(root)), "")
        return f"{name}: holds {held}" if held else ""
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended, or it is another user's
        return ""


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def mounts(found: tuple[str, ...], proc: str = "/proc/self") -> list[str]:
    """Mount points of which the line in mountinfo has one of the marks, in the order they were made."""
    return [line.split()[4] for line in Path(f"{proc}/mountinfo").read_text().splitlines() if _has(line, found)]


def mount_ids() -> dict[str, str]:
    """Every mount point of the caller's namespace by its mount's id."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {line.split()[0]: line.split()[4] for line in lines}


def cgroups(found: tuple[str, ...]) -> list[str]:
    """Cgroup folders of every hierarchy with one of the marks in their path, children first."""
    return [path for tree in sorted(set(cgroup_mounts().values())) for path in _below(tree) if _has(path, found)]


def _below(tree: str) -> Iterator[str]:
    for folder, _, _ in os.walk(tree, topdown=False):
        yield folder


def _has(path: str, found: tuple[str, ...]) -> bool:
    return any(mark in path for mark in found)


def interfaces(found: tuple[str, ...]) -> list[str]:
    """Interfaces whose name or alias has one of the marks."""
    names = []
    for link in Path("/sys/class/net").iterdir():
        try:
            alias = (link / "ifalias").read_text()
        except OSError:  # it is gone meanwhile, or a file that is no link
            continue
        if _has(f"{link.name} {alias}", found):
            names.append(link.name)
    return names


def tables(found: tuple[str, ...]) -> list[str]:
    """Tables of nf_tables whose name has one of the marks."""
    from cloche.kernel import nftables

    try:
        names = {chain.table for chain in nftables.chains(nftables.host())}
    except OSError:  # a kernel without nf_tables, or a user who may not look
        return []
    return sorted(name for name in names if _has(name, found))


def traces(root: Path) -> list[str]:
    """One line for each thing of the store that still is on the host, outside the store's folder."""
    found = marks(root)
    return [
        *(f"process {pid} ({why})" for pid, why in processes(root).items()),
        *(f"mount {path}" for path in mounts(found)),
        *(f"cgroup {path}" for path in cgroups(found)),
        *(f"interface {name}" for name in interfaces(found)),
        *(f"nf_tables table {name}" for name in tables(found)),
    ]


def sweep(root: Path) -> None:
    """Takes away by force what `traces` would list, so that one test's left-overs fail one test."""
    found = marks(root)
    end_processes(list(processes(root)), signal.SIGKILL)
    for path in reversed(mounts(found)):
        libc.umount2(path.encode(), MNT_DETACH)
    for name in interfaces(found):
        subprocess.run(["ip", "link", "delete", name], check=False)
    for path in cgroups(found):
        try:
            os.rmdir(path)
        except OSError as error:
            print(f"remove cgroup {path}: {error}", file=sys.stderr)


def open_pid(pid: int) -> int:
    """A pidfd. Raises ProcessLookupError when the process is gone, also where the kernel (6.1) says EINVAL because its
    number is that of a session or a group still."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno != EINVAL:
            raise
        raise ProcessLookupError(ESRCH, os.strerror(ESRCH)) from None


def end_processes(pids: list[int], number: int, seconds: float = 10) -> None:
    """Signals each process by a pidfd and waits until all have ended. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    for pid in pids:
        try:
            fd = open_pid(pid)
        except ProcessLookupError:
            continue
        try:
            signal.pidfd_send_signal(fd, number)
            if not select.select([fd], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"process {pid} did not end within {seconds} s of signal {number}")
        except ProcessLookupError:
            continue
        finally:
            os.close(fd)


def census(*found: str) -> dict[str, set[str]]:
    """What there is now, by kind: the caller's descriptors, children, mounts; cgroups and interfaces with a mark."""
    me = f"/proc/self/task/{os.getpid()}/children"
    return {
        "descriptors": {f"{fd} -> {_target(f'/proc/self/fd/{fd}')}" for fd in os.listdir("/proc/self/fd")},
        "children": set(Path(me).read_text().split()) if Path(me).exists() else set(),
        "mounts": set(Path("/proc/self/mountinfo").read_text().splitlines()),
        "cgroups": set(cgroups(found)),
        "interfaces": set(interfaces(found)),
    }


def grown(before: dict[str, set[str]], after: dict[str, set[str]]) -> list[str]:
    """What is in the second census only, one line each."""
    return [f"{kind}: {thing}" for kind in before for thing in sorted(after[kind] - before[kind])]
