"""stats: what containers use, again and again."""

from __future__ import annotations

import sys
from time import sleep

from cloche.cli.table import listing, short_id
from cloche.engine.containers import Engine
from cloche.engine.database import RUNNING
from cloche.engine.units import binary_size, human_size
from cloche.engine.usage import Usage, look
from cloche.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloche.cli.arguments import Parsed
    from cloche.engine.containers import Container

DEFAULT = "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"
HEADINGS = {
    "Container": "CONTAINER",
    "ID": "CONTAINER ID",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}
PERIOD = 1.0  # seconds between two looks


def row(container: Container, now: Usage, before: Usage, name: str, whole: bool) -> dict[str, Any]:
    """A container's cells, with Docker's names."""
    cells: dict[str, Any] = {
        "BlockIO": f"{human_size(now.read)} / {human_size(now.written)}",
        "CPUPerc": f"{now.cpu_percent(before):.2f}%",
        "Container": name or short_id(container.id, whole),
        "ID": short_id(container.id, whole),
        "MemPerc": f"{now.memory_percent():.2f}%",
        "MemUsage": f"{binary_size(now.memory)} / {binary_size(now.memory_limit)}",
        "Name": container.name,
        "NetIO": f"{human_size(now.received)} / {human_size(now.sent)}",
        "PIDs": str(now.processes),
    }
    return cells | ({"Pressure": dict(now.pressure)} if now.pressure else {})


def main(parsed: Parsed) -> int:
    """See `cloche stats --help`."""
    engine = Engine(parsed.root or None)
    names = parsed.arguments

    def wanted() -> list[tuple[Container, str]]:
        if names:
            return [(engine.find(name), name) for name in names]
        return [(c, "") for c in engine.containers() if parsed.on("all") or c.status == RUNNING]

    redraws = sys.stdout.isatty() and not parsed.on("no-stream") and parsed.text("format")[:5] in ("", "table")
    before = {c.id: look(engine, c) for c, _ in wanted()}
    while True:
        sleep(PERIOD)
        try:
            found = wanted()
        except NotFound:
            if parsed.on("no-stream"):
                raise
            return 0  # what was looked at is gone
        now = {c.id: look(engine, c) for c, _ in found}
        rows = [row(c, now[c.id], before.get(c.id, Usage()), name, parsed.on("no-trunc")) for c, name in found]
        text = listing(parsed.text("format"), DEFAULT, HEADINGS, rows)
        print(_redrawn(text) if redraws else text, end="", flush=True)
        if parsed.on("no-stream"):
            return 0
        before = now


def _redrawn(text: str) -> str:
    """From the top of the screen, each line cleared to its end, the rest of the screen too."""
    return "\033[H" + text.replace("\n", "\033[K\n") + "\033[J"
