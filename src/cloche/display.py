"""How notebooks show containers, images and lists of them. Every text is escaped: names, labels and commands are
anybody's."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeVar

    from cloche.engine.containers import Container
    from cloche.image.store import Image

    T = TypeVar("T")

_MOST = 100  # rows
_LONGEST = 60  # characters of a cell
_CELL = "text-align:left;padding:2px 12px 2px 0;white-space:nowrap"
_COLORS = {"running": "#2e7d32", "paused": "#b26a00", "restarting": "#b26a00", "healthy": "#2e7d32"}


class Table(list["T"]):
    """A list that notebooks show as a table."""

    def _repr_html_(self) -> str:
        rows: list[dict[str, str]] = [each._row_() for each in self[:_MOST] if hasattr(each, "_row_")]
        more = f"<p>and {len(self) - _MOST} more</p>" if len(self) > _MOST else ""
        return (_rows(rows) if rows else "<i>none</i>") + more


def cut(text: str) -> str:
    """At most as much as a cell shows."""
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def escaped(text: object) -> str:
    """For HTML, on one line, without control characters."""
    from html import escape

    from cloche.errors import printable

    return escape(printable(text))


def _rows(rows: Iterable[dict[str, str]]) -> str:
    rows = list(rows)
    head = "".join(f'<th style="{_CELL}">{escaped(name)}</th>' for name in rows[0])
    body = "".join("<tr>" + "".join(_cell(name, text) for name, text in row.items()) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(name: str, text: str) -> str:
    color = _COLORS.get(text.partition(" ")[0], "#757575") if name == "status" else ""
    style = _CELL + (f";color:{color}" if color else "")
    return f'<td style="{style}">{escaped(cut(text))}</td>'


def card(title: str, facts: dict[str, str]) -> str:
    """One thing with what is known of it."""
    rows = "".join(
        f'<tr><th style="{_CELL};font-weight:normal;color:#757575">{escaped(name)}</th>{_cell(name, text)}</tr>'
        for name, text in facts.items()
        if text
    )
    return f"<div><b>{escaped(cut(title))}</b><table>{rows}</table></div>"


def container_facts(found: Container, state: str) -> dict[str, str]:
    """A container's cells; it is in this state now."""
    ended = f" ({found.exit_code})" if state == "exited" and found.exit_code >= 0 else ""
    ports = ", ".join(f"{p.address}:{p.port}->{p.inside}/{p.protocol}" for p in found.ports)
    return {
        "name": found.name,
        "id": found.id[:12],
        "image": found.image,
        "command": " ".join(found.config.args),
        "status": state + ended,
        "ports": ports if state == "running" else "",
    }


def image_facts(found: Image) -> dict[str, str]:
    """An image's cells."""
    from time import time

    from cloche.engine.units import human_duration, human_size
    from cloche.oci.reference import parse

    created = found.created / (1e9 if found.created > 1e12 else 1)
    names = [parse(name).familiar() for name in found.references if "@" not in name]
    return {
        "tags": ", ".join(names) or "<none>",
        "id": found.id.removeprefix("sha256:")[:12],
        "created": f"{human_duration(time() - created)} ago" if created else "",
        "size": human_size(found.size),
    }
