"""What notebooks show: small, and whatever a name, a label or a command holds, only text."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.display import Table, card, cut
from cloche.volumes import Volume


class Reader(HTMLParser):
    """Tags and texts; every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert {name for name, _ in attrs} <= {"style"}
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


class Row:
    def __init__(self, **cells: str) -> None:
        self.cells = cells

    def _row_(self) -> dict[str, str]:
        return self.cells


@given(st.text(), st.text(), st.text())
def test_every_text_is_text(title: str, name: str, value: str) -> None:
    for html in (
        card(title, {name: value, "status": value}),
        Table([Row(n=title, status=value)])._repr_html_(),
    ):
        read = Reader(html)
        assert set(read.tags) <= {"div", "b", "table", "thead", "tbody", "tr", "th", "td", "i"}
        assert html.isprintable()


def test_hostile_names() -> None:
    html = card(
        "</b><script>alert(1)</script>", {"image": '"><img src=x onerror=alert(1)>', "command": "\x1b[31m\n\u202e"}
    )
    assert "<script" not in html and "<img" not in html
    assert "&lt;script&gt;" in html and "\\x1b[31m\\n\\u202e" in html


def test_tables() -> None:
    assert Table[Row]()._repr_html_() == "<i>none</i>"
    table = Table(Row(name=str(n), status="running") for n in range(150))
    html = table._repr_html_()
    assert isinstance(table, list) and len(table) == 150
    assert html.count("<tr>") == 101 and "and 50 more" in html
    assert "color:#2e7d32" in html
    assert len(html) < 50_000
    assert Reader(html).texts[:4] == ["name", "status", "0", "running"]


@pytest.mark.parametrize(("text", "shown"), [("a" * 60, "a" * 60), ("a" * 61, "a" * 59 + "…")])
def test_long_texts_are_cut(text: str, shown: str) -> None:
    assert cut(text) == shown


def test_everything_of_the_sdk_has_a_row() -> None:
    from cloche.images import Image
    from cloche.networks import Network
    from cloche.sdk import Container

    for kind in (Container, Image, Network, Volume):
        assert hasattr(kind, "_row_") and hasattr(kind, "_repr_html_")
