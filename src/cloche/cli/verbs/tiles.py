"""tiles: all running containers as a live heat map; without a terminal one frame as text."""

from __future__ import annotations

import os
import select
import sys
from time import monotonic, sleep

from cloche.cli.tiles import depth, frame, grid, moved
from cloche.engine.containers import Engine
from cloche.engine.meters import Meters
from cloche.errors import Invalid
from cloche.kernel.signals import HUP, INT, TERM, WINCH, Caught
from cloche.kernel.terminal import RawMode, window_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed

KEYS = {b"c": "cpu", b"m": "memory", b"n": "network"}
ARROWS = {b"A": "up", b"B": "down", b"C": "right", b"D": "left"}  # behind ESC [ or ESC O
QUITS = (b"q", b"Q", b"\x03", b"\x04", b"\x1b")
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
NEAREST = 0.1  # seconds between frames


def main(parsed: Parsed) -> int:
    """See `cloche tiles --help`."""
    kind = parsed.text("by", "cpu")
    every = _interval(parsed.text("interval", "1s"))
    engine = Engine(parsed.root or None)
    meters = Meters(engine, kind)
    if not (os.isatty(0) and os.isatty(1)):
        meters.look()
        if kind != "memory":
            sleep(every)  # what is counted a second needs two looks
        readings = meters.look()
        lines = max(4, len(readings) // 80 + 4)
        print("\n".join(line for line in frame(kind, readings, 80, lines, 0)[1:] if line))
        return 0
    return _live(engine, kind, every)


def _interval(text: str) -> float:
    from cloche.engine.units import seconds

    value = seconds(text)
    if not NEAREST <= value <= 3600:
        raise Invalid(f"look every {text}", "from 100ms to 1h", "--interval 1s")
    return value


def _live(engine: Engine, kind: str, every: float) -> int:
    meters, colours, chosen = Meters(engine, kind), depth(os.environ), ""
    with Caught((INT, TERM, HUP, WINCH)) as caught, RawMode(0):
        _write(ENTER)
        try:
            readings, due = meters.look(), 0.0
            while True:
                if monotonic() >= due:
                    readings, due = meters.look(), monotonic() + every
                size = window_size(1)
                columns, rows = max(size.columns, 10), max(size.rows, 5)
                lines = frame(kind, readings, columns, rows, colours, chosen)
                _write("\x1b[H" + "".join(line + "\x1b[K\r\n" for line in lines[:-1]) + lines[-1] + "\x1b[K\x1b[J")
                poll = select.poll()
                poll.register(0, select.POLLIN)
                poll.register(caught.fileno(), select.POLLIN)
                ready = {fd for fd, _ in poll.poll(max(0, due - monotonic()) * 1000)}
                ends = [number for number in caught.read() if number != WINCH]
                if ends:
                    return 128 + ends[0]
                key = _key() if 0 in ready else None
                if key in QUITS or key == b"":
                    return 0
                if key and key[:2] in (b"\x1b[", b"\x1bO") and (arrow := ARROWS.get(key[2:3])):
                    at = next((n for n, r in enumerate(readings) if r.id == chosen), -1)
                    at = moved(at, arrow, grid(len(readings), columns, rows, colours))
                    chosen = readings[at].id if at >= 0 else ""
                elif key in KEYS and KEYS[key] != kind:
                    kind, due = KEYS[key], 0.0
                    meters = Meters(engine, kind)
        finally:
            _write(LEAVE)


def _key() -> bytes:
    """One key's bytes; b"" at the end. What an arrow sends comes at once, Escape comes alone."""
    key = os.read(0, 1)
    if key == b"\x1b" and select.select([0], [], [], 0)[0]:
        key += os.read(0, 2)
    return key


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
