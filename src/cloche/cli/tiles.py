"""Containers as a heat map: a cell each, in the order of their making, the hotter the more it uses. Pure.

Shades grow with the square root of CPUs and the logarithm of bytes, so that little is told from nothing. Colours are
the terminal's: 24 bits, 256, or none, then characters are darker and lighter.
"""

from __future__ import annotations

from math import log2, sqrt

from cloche.cli.table import ellipsis, width
from cloche.engine.units import human_size
from cloche.errors import printable
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloche.engine.meters import Reading

STEPS = 10
_TRUE = ("26;30;46", "28;52;98", "24;82;128", "20;112;120", "36;140;92", "104;164;60", "176;176;44", "222;150;36")
TRUE_COLOURS = (*_TRUE, "232;98;34", "240;44;44")
COLOURS_256 = (235, 24, 31, 37, 35, 107, 142, 178, 208, 196)
CHARACTERS = " .:-=+*#%@"
SIZES = ((24, 4), (18, 3), (12, 2), (2, 1), (1, 1))  # of cells, largest first, gaps included
CHOSEN = "\x1b[30;107m"
_DARK = 4  # shades on which only light letters can be read
_BUSIEST = 3


def depth(environ: Mapping[str, str]) -> int:
    """How many bits of colour a terminal has: 24, 8 or 0."""
    term = environ.get("TERM", "dumb")
    if environ.get("NO_COLOR") or term in ("dumb", ""):
        return 0
    return 24 if environ.get("COLORTERM") in ("truecolor", "24bit") else 8


def level(kind: str, value: float) -> int:
    """The shade, from 0 for nothing to 9: a whole CPU; 16 GiB; 64 MiB a second."""
    if value <= 0:
        return 0
    if kind == "cpu":
        step = sqrt(value) * (STEPS - 1)
    else:
        low, high = (20, 34) if kind == "memory" else (7, 26)
        step = (log2(max(value, 1)) - low) * (STEPS - 1) / (high - low)
    return min(STEPS - 1, max(1, round(step)))


def amount(kind: str, value: float) -> str:
    """A value as people read it."""
    if kind == "cpu":
        return f"{value * 100:.0f}%"
    return human_size(value) + ("/s" if kind == "network" else "")


class Grid(Value):
    """How cells are laid out. wide, high: of one, its gaps included; across: how many side by side; shown: how many."""

    wide: int
    high: int
    across: int
    shown: int


def grid(number: int, columns: int, lines: int, colours: int) -> Grid:
    """The largest cells of which all fit: of few each has its name in it, where colours tell the rest."""
    room = max(1, lines - 3)
    for wide, high in SIZES:
        across = max(1, columns // wide)
        if columns >= wide and (high == 1 or colours) and number <= across * (room // high):
            return Grid(wide, high, across, number)
    return Grid(1, 1, columns, min(number, columns * room))


def moved(chosen: int, key: str, grid: Grid) -> int:
    """Which cell is chosen after an arrow key (`up`, `down`, `left`, `right`); the first of all when none was."""
    if not grid.shown:
        return -1
    if chosen < 0:
        return 0
    step = {"left": -1, "right": 1, "up": -grid.across, "down": grid.across}[key]
    return chosen + step if 0 <= chosen + step < grid.shown else chosen


def frame(
    kind: str, readings: Sequence[Reading], columns: int, lines: int, colours: int, chosen: str = ""
) -> list[str]:
    """The lines of one frame, not more than fit: a heading, the cells, a legend, the busiest or the one with the id
    that is chosen."""
    laid = grid(len(readings), columns, lines, colours)
    shown = readings[: laid.shown]
    hidden = len(readings) - len(shown)
    more = f", {hidden} more do not fit" if hidden else ""
    heading = f"{len(readings)} containers by {kind}{more}; q ends, c m n: cpu, memory, network; arrows choose one"
    cells = []
    for at in range(0, len(shown), laid.across):
        cells += _row(kind, shown[at : at + laid.across], laid, colours, chosen)
    cells += [""] * (max(1, lines - 3) - len(cells))
    told = next((r for r in shown if r.id == chosen), None)
    last = _chosen(kind, told, columns) if told else _busiest(kind, readings, columns)
    return [ellipsis(heading, columns), *cells, _legend(kind, colours), last]


def _row(kind: str, readings: Sequence[Reading], laid: Grid, colours: int, chosen: str) -> list[str]:
    """The lines of cells side by side."""
    if laid.high == 1:
        return [_line(kind, readings, laid.wide, colours, chosen)]
    lines = []
    for number in range(laid.high - 1):
        text = ""
        for reading in readings:
            said = (printable(reading.name), amount(kind, reading.value), "")[number]
            said = ellipsis(said, laid.wide - 3)
            shade = CHOSEN if reading.id == chosen else _escape(level(kind, reading.value), colours)
            text += f"{shade} {said}{' ' * (laid.wide - 2 - width(said))}\x1b[0m "
        lines.append(text)
    return [*lines, ""]


def _line(kind: str, readings: Sequence[Reading], wide: int, colours: int, chosen: str) -> str:
    """Cells of one line; those of one shade share their escape."""
    text, last = "", ""
    for reading in readings:
        step = level(kind, reading.value)
        if not colours:
            character = "X" if reading.id == chosen else CHARACTERS[step] if step else "."
            text += character * wide
            continue
        shade = CHOSEN if reading.id == chosen else _escape(step, colours)
        text += (shade if shade != last else "") + (" " if wide == 1 else " \u2595")
        last = shade
    return text + ("\x1b[0m" if colours else "")


def _escape(step: int, colours: int) -> str:
    ink = 97 if step < _DARK else 30
    if colours == 24:
        return f"\x1b[{ink};48;2;{TRUE_COLOURS[step]}m"
    return f"\x1b[{ink};48;5;{COLOURS_256[step]}m"


def _legend(kind: str, colours: int) -> str:
    least, most = {"cpu": ("0%", "100%"), "memory": ("1MB", "16GB"), "network": ("100B/s", "64MB/s")}[kind]
    if not colours:
        return f"{least} {CHARACTERS.strip()} {most}"
    return f"{least} " + "".join(_escape(step, colours) + "  " for step in range(STEPS)) + f"\x1b[0m {most}"


def _chosen(kind: str, reading: Reading, columns: int) -> str:
    return ellipsis(f"{reading.id[:12]} {printable(reading.name)} {amount(kind, reading.value)}", columns)


def _busiest(kind: str, readings: Sequence[Reading], columns: int) -> str:
    top = sorted(readings, key=lambda reading: -reading.value)[:_BUSIEST]
    said = ", ".join(f"{printable(r.name)} {amount(kind, r.value)}" for r in top if r.value > 0)
    return ellipsis(f"busiest: {said}" if said else "nobody uses any", columns)
