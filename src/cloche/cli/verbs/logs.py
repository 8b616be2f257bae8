"""logs: what a container wrote; -f goes on until it ends."""

from __future__ import annotations

import sys
from time import time_ns

from cloche.engine.containers import Engine
from cloche.engine.database import RESTARTING, RUNNING
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
    from cloche.runtime.loglines import LineFollower, read
    from cloche.runtime.timestamp import format_time, parse_time

    engine = Engine(parsed.root or None)
    container = engine.find(parsed.arguments[0])
    since = parse_time(parsed.text("since"), time_ns()) if parsed.text("since") else None
    tail, stamps = tail_of(parsed.text("tail")), parsed.on("timestamps")

    def show(line: Line) -> None:
        out = sys.stderr.buffer if line.stream == 2 else sys.stdout.buffer
        out.write((format_time(line.time).encode() + b" " if stamps and line.begins else b"") + line.data)

    directory = engine.log_directory(container)
    if not (parsed.on("follow") and container.status in (RUNNING, RESTARTING)):
        for line in read(directory, since=since, tail=tail):
            show(line)
        return 0
    import select

    from cloche.engine.waiting import Waiting

    with LineFollower(directory, since=since, tail=tail) as lines:
        ending = Waiting(engine.keeper, container.id)
        while True:
            while found := lines.read():
                for line in found:
                    show(line)
            sys.stdout.flush()
            sys.stderr.flush()
            poll = select.poll()
            poll.register(lines.fileno(), select.POLLIN)
            poll.register(ending.fileno(), select.POLLIN)
            if any(fd == ending.fileno() for fd, _ in poll.poll()) and ending.result() is not None:
                for line in lines.rest():
                    show(line)
                return 0
