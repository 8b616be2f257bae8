"""Lists: columns as docker 28.2 prints them, headings, hostile cells."""

from __future__ import annotations

import json

import pytest

from cloche.cli.table import align, command_text, ellipsis, label_heading, listing, short_id, width
from cloche.errors import Invalid

HEADINGS = {"ID": "CONTAINER ID", "Command": "COMMAND", "Status": "STATUS", "Ports": "PORTS", "Names": "NAMES"}
DEFAULT = "{{.ID}}\t{{.Command}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
ROWS = [
    {
        "ID": "4cd75e13c6b9",
        "Command": command_text(["sleep", "1000000000000000000000000"]),
        "Status": "Up 3 seconds",
        "Ports": "",
        "Names": "web",
    },
    {
        "ID": "5cd75e13c6b9",
        "Command": command_text(["日本語日本語日本語日本語日本語"]),
        "Status": "Exited (0) 2 minutes ago",
        "Ports": "",
        "Names": "a_much_longer_name",
    },
]


@pytest.mark.parametrize("form", ["", "table"])
def test_the_default_table(form: str) -> None:
    assert listing(form, DEFAULT, HEADINGS, ROWS) == (
        "CONTAINER ID   COMMAND                  STATUS                     PORTS     NAMES\n"
        '4cd75e13c6b9   "sleep 1000000000000…"   Up 3 seconds                         web\n'
        '5cd75e13c6b9   "日本語日本語日本語…"    Exited (0) 2 minutes ago             a_much_longer_name\n'
    )


def test_no_rows_is_a_heading_alone() -> None:
    assert listing("", DEFAULT, HEADINGS, []) == "CONTAINER ID   COMMAND   STATUS    PORTS     NAMES\n"
    assert listing("{{.ID}}", DEFAULT, HEADINGS, []) == ""


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("table {{.ID}}\\t{{.Names}}", "CONTAINER ID   NAMES\n4cd75e13c6b9   web\n5cd75e13c6b9   a_much_longer_name\n"),
        ("table {{upper .Names}}", "NAMES\nWEB\nA_MUCH_LONGER_NAME\n"),
        ("table {{json .ID}}", 'CONTAINER ID\n"4cd75e13c6b9"\n"5cd75e13c6b9"\n'),
        ("table{{.Names}}", "NAMES\nweb\na_much_longer_name\n"),
        ("{{.ID}}: {{.Names}}", "4cd75e13c6b9: web\n5cd75e13c6b9: a_much_longer_name\n"),
        ("{{.Names}}\\n", "web\n\na_much_longer_name\n\n"),
        ("{{truncate .ID 3}}", "4cd\n5cd\n"),
    ],
)
def test_formats(form: str, text: str) -> None:
    assert listing(form, DEFAULT, HEADINGS, ROWS) == text


def test_json_is_a_document_a_row() -> None:
    lines = listing("json", DEFAULT, HEADINGS, ROWS).splitlines()
    assert [json.loads(line) for line in lines] == ROWS


def test_headings_of_labels() -> None:
    rows = [{"Label": {"com.x.my-name": "v"}.get}]
    assert listing('table {{.Label "com.x.my-name"}}', "", {"Label": label_heading}, rows) == "my name\nv\n"


@pytest.mark.parametrize("form", ["{{", "table {{", "{{.Foo}}", "table {{.Foo}}"])
def test_wrong_templates_exit_as_docker_does(form: str) -> None:
    with pytest.raises(Invalid) as caught:
        listing(form, DEFAULT, HEADINGS, ROWS)
    assert caught.value.exit_code == 1


def test_hostile_cells_stay_cells() -> None:
    rows = [{"Names": "a\tb\nc\x1b[2J", "ID": "x"}]
    text = listing("table {{.Names}}\t{{.ID}}", DEFAULT, HEADINGS, rows)
    assert text == "NAMES            CONTAINER ID\na\\tb\\nc\\x1b[2J   x\n"


def test_columns_are_as_wide_as_in_lines_that_follow_one_another() -> None:
    lines = ["aaaaaaaaaaaa\tb", "a\tb", "none", "a\tb\tc"]
    assert align(lines) == "aaaaaaaaaaaa   b\na              b\nnone\na         b         c\n"
    assert align([]) == ""


@pytest.mark.parametrize(("text", "columns"), [("", 0), ("abc", 3), ("日本", 4), ("e\u0301", 1), ("…", 1)])
def test_width(text: str, columns: int) -> None:
    assert width(text) == columns


@pytest.mark.parametrize(
    ("text", "most", "cut"),
    [
        ("sleep", 5, "sleep"),
        ("sleep 1000", 5, "slee…"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日…"),
        ("abc", 1, "a"),
        ("abc", 0, ""),
        ("", 0, ""),
    ],
)
def test_ellipsis(text: str, most: int, cut: str) -> None:
    assert ellipsis(text, most) == cut


def test_ids_and_commands() -> None:
    digest = "sha256:" + "0123456789abcdef" * 4
    assert short_id(digest) == "0123456789ab"
    assert short_id(digest, whole=True) == digest
    assert short_id("0123456789abcdef") == "0123456789ab"
    assert command_text(["sleep", "1000"]) == '"sleep 1000"'
    assert command_text(["sh", "-c", 'echo "\x1b[2J"']) == '"sh -c echo \\"\\x1b[2J\\""'
    assert command_text(["x" * 30], whole=True) == '"' + "x" * 30 + '"'
