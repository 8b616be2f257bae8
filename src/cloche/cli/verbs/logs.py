"""logs: what a container wrote; -f goes on until it ends."""

from __future__ import annotations

import sys
from time import time_ns

from cloche.engine.containers import Engine
from cloche.engine.courses import batches
from cloche.engine.logdrivers import details
from cloche.engine.output import lines
from cloche.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed
    from cloche.runtime.loglines import Line


def tail_of(text: str) -> int | None:
    """--tail: a number of lines, all without one. Raises Invalid."""
    if text in ("", "all"):
        return None
    try:
        number = int(text)
    except ValueError:
        raise Invalid("logs --tail", f"'{text}' is not a number", "a number of lines, or all") from None
    return number if number >= 0 else None


def main(parsed: Parsed) -> int:
    """See `cloche logs --help`."""
    from cloche.runtime.timestamp import format_time, parse_time

    engine = Engine(parsed.root or None)
    container = engine.find(parsed.arguments[0])
    since = parse_time(parsed.text("since"), time_ns()) if parsed.text("since") else None
    until = parse_time(parsed.text("until"), time_ns()) if parsed.text("until") else None
    tail, stamps = tail_of(parsed.text("tail")), parsed.on("timestamps")
    said = details(container.config).encode() + b" " if parsed.on("details") else b""

    def show(line: Line) -> None:
        out = sys.stderr.buffer if line.stream == 2 else sys.stdout.buffer
        stamp = format_time(line.time).encode() + b" " if stamps and line.begins else b""
        out.write(stamp + (said if line.begins else b"") + line.data)

    shown = lines(engine, container, lambda line: line, parsed.on("follow"), since, until, tail)
    for batch in batches(engine.store, shown):
        for line in batch:
            show(line)
        sys.stdout.flush()
        sys.stderr.flush()
    return 0
