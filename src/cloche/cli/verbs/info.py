"""info: facts about this host and its store."""

from __future__ import annotations

from cloche.cli.rendering import shown
from cloche.engine.containers import Engine
from cloche.engine.inspection import info
from cloche.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cloche.cli.arguments import Parsed

LIMITS = {
    "MemoryLimit": "memory",
    "SwapLimit": "swap",
    "CpuCfsQuota": "cpus",
    "CPUSet": "cpuset",
    "PidsLimit": "processes",
}


def lines(facts: dict[str, Any]) -> Iterator[str]:
    """What people want to know, the most wanted first: a name, a value."""
    running, stopped = facts["ContainersRunning"], facts["ContainersStopped"]
    paused = f", {facts['ContainersPaused']} paused" if facts["ContainersPaused"] else ""
    yield f"Containers   {facts['Containers']}: {running} running{paused}, {stopped} not"
    yield f"Images       {facts['Images']}"
    yield f"Store        {facts['DockerRootDir']}, file systems by {facts['Driver']}"
    if facts["KeeperPid"]:
        yield f"Keeper       process {facts['KeeperPid']}, its holder {facts['HolderPid']}"
    else:
        yield "Keeper       none; the first container starts it"
    yield f"Version      {facts['ServerVersion']}"
    yield ""
    yield f"Host         {facts['Name']}: {facts['OperatingSystem']}, Linux {facts['KernelVersion']}"
    yield f"Machine      {facts['Architecture']}, {facts['NCPU']} CPUs, {facts['MemTotal'] / 2**30:.1f} GiB of memory"
    yield f"Limits       {_limits(facts)}"
    version = f"version {facts['CgroupVersion']}" if facts["CgroupHierarchies"] else "none on this host"
    yield f"Cgroups      {version}{', version 2 beside it' if facts['CgroupHybrid'] else ''}"
    for path, controllers in facts["CgroupHierarchies"].items():
        yield f"             {path}: {' '.join(controllers)}"


def _limits(facts: dict[str, Any]) -> str:
    have = ", ".join(word for name, word in LIMITS.items() if facts[name])
    lack = ", ".join(word for name, word in LIMITS.items() if not facts[name])
    return (have or "none") + (f"; not on this host: {lack}" if lack else "")


def main(parsed: Parsed) -> int:
    """See `cloche info --help`."""
    facts = info(Engine(parsed.root or None))
    form = parsed.text("format")
    print(shown(form, facts) if form else "\n".join(map(printable, lines(facts))))
    return 0
