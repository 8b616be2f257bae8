"""Lists as Docker prints them: columns three spaces apart, whole or short ids, `--format` for every row.

Cells are shown escaped: what they hold comes from images and containers. Source: docker/cli formatter, Go's tabwriter.
"""

from __future__ import annotations

from cloche.cli.rendering import json_text, quoted, render
from cloche.cli.template import parse
from cloche.errors import Invalid

TYPE_CHECKING = False  # importing typing would cost a start 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

_NARROWEST, _APART = 10, 3


def listing(form: str, default: str, headings: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as `--format` asks; "" and `table` are the `default` template with headings. Raises Invalid.

    form: `table`, `table TEMPLATE`, `json` (a document a row), or a template, in which `\\t` and `\\n` may stand.
    """
    if form == "json":
        return "".join(json_text(row) + "\n" for row in rows)
    is_table = form[:5] == "table" or not form
    source = (form[5:].strip(" ") or default) if is_table else form
    try:
        template = parse(source, escapes=True)
    except Invalid as problem:
        problem.exit_code = 1  # as docker's: 64 only where one object is formatted
        raise
    lines = [render(template, dict(row)) for row in rows]
    if is_table:
        return align([render(template, dict(headings), headings=True), *lines])
    return "".join(line + "\n" for line in lines)


def align(lines: Iterable[str]) -> str:
    """Lines of cells with tabs between, each column as wide as its widest cell in lines that follow one another."""
    cells = [line.split("\t") for text in lines for line in text.split("\n")]
    if len({len(row) for row in cells}) == 1:  # as nearly always: the columns go from top to bottom
        columns = [max(_NARROWEST, max(map(width, column)) + _APART) for column in zip(*cells, strict=True)][:-1]
        return "".join([_line(row, columns) for row in cells])
    widths: list[list[int]] = [[] for _ in cells]
    for column in range(max((len(row) for row in cells), default=1) - 1):
        start = 0
        while start < len(cells):
            end = start
            while end < len(cells) and column < len(cells[end]) - 1:
                end += 1
            block = range(start, end)
            widest = max((width(cells[i][column]) + _APART for i in block), default=0)
            for i in block:
                widths[i].append(max(widest, _NARROWEST))
            start = end + 1
    return "".join([_line(row, spaces) for row, spaces in zip(cells, widths, strict=True)])


def _line(row: list[str], spaces: list[int]) -> str:
    padded = [
        cell.ljust(space) if cell.isascii() else cell + " " * (space - width(cell))
        for cell, space in zip(row, spaces, strict=False)
    ]
    return "".join(padded) + row[-1] + "\n"


def width(text: str) -> int:
    """How many columns of a terminal a text takes: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def ellipsis(text: str, most: int) -> str:
    """`text` in at most `most` columns, cut with `…`."""
    if width(text) <= most:
        return text
    kept, used = "", 0
    for c in text:
        used += width(c)
        if used > most - 1:
            break
        kept += c
    return kept + "…" if most > 1 else kept or text[: max(most, 0)]


def short_id(ident: str, whole: bool = False) -> str:
    """The first twelve digits of an id, without its algorithm; all of it where `whole`."""
    return ident if whole else ident.partition(":")[2][:12] if ":" in ident else ident[:12]


def label_heading(name: str) -> str:
    """The heading of `{{.Label "com.example.my-name"}}`: its last part, `my name`."""
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


def command_text(words: Iterable[str], whole: bool = False) -> str:
    """A command as `ps` lists it: `"sleep 1000"`, cut unless `whole`."""
    text = " ".join(words)
    return quoted(text if whole else ellipsis(text, 20))
