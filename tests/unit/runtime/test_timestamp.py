"""Moments as text, both ways."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as some

from cloche.errors import Invalid
from cloche.runtime.timestamp import SECOND, format_time, format_time_short, parse_duration, parse_time

NOW = 1_704_164_645 * SECOND  # 2024-01-02T03:04:05Z


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (NOW + 123_456_789, "2024-01-02T03:04:05.123456789Z"),
        (NOW, "2024-01-02T03:04:05.000000000Z"),
        (0, "1970-01-01T00:00:00.000000000Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
    ],
)
def test_a_moment_is_written_with_nine_digits(moment: int, text: str) -> None:
    assert format_time(moment) == text
    assert parse_time(text, 0) == moment


@pytest.mark.parametrize(
    ("rest", "text"),
    [(123_456_789, ".123456789"), (120_000_000, ".12"), (7_000, ".000007"), (0, ""), (100, ".0000001")],
)
def test_in_documents_without_zeros_at_its_end_as_go_writes_it(rest: int, text: str) -> None:
    assert format_time_short(NOW + rest) == f"2024-01-02T03:04:05{text}Z"


@given(some.integers(-(2**62), 2**62))
def test_what_is_written_is_read_back(moment: int) -> None:
    assert parse_time(format_time(moment), 0) == parse_time(format_time_short(moment), 0) == moment


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("10m", NOW - 600 * SECOND),
        ("1h30m", NOW - 5400 * SECOND),
        ("1.5s", NOW - 1_500_000_000),
        (".5s", NOW - 500_000_000),
        ("1h0.25m3ms", NOW - 3615 * SECOND - 3_000_000),
        ("-10s", NOW + 10 * SECOND),
        ("5µs", NOW - 5000),
        ("0s", NOW),
        ("0", 0),
        ("1704164645", NOW),
        ("1704164645.25", NOW + 250_000_000),
        ("1704164645.000000001", NOW + 1),
        ("-1", -SECOND),
        ("2024-01-02T03:04:05Z", NOW),
        ("2024-01-02T03:04:05.5Z", NOW + 500_000_000),
        ("2024-01-02T05:04:05+02:00", NOW),
        ("2024-01-01T22:34:05-04:30", NOW),
        ("2024-01-02T03:04Z", NOW - 5 * SECOND),
        ("2024-01-02T03Z", NOW - 245 * SECOND),
        ("2024-01-02Z", NOW - 11_045 * SECOND),
    ],
)
def test_docker_shapes_are_read(text: str, moment: int) -> None:
    assert parse_time(text, NOW) == moment


@pytest.mark.parametrize("zone", ["UTC", "EST5EDT", "<+0545>-05:45"])
def test_a_date_without_a_zone_is_local(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for text in ("2024-01-02T03:04:05.000000007", "2024-07-02T03:04:05.000000007"):
            seconds = time.mktime(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))
            assert parse_time(text, NOW) == int(seconds) * SECOND + 7
        assert parse_time("2024-01-02", NOW) == int(time.mktime((2024, 1, 2, 0, 0, 0, 0, 0, -1))) * SECOND
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "m", "10x", ".s", "1h 30m", "yesterday", "1e9", "--1", "1.2.3", "٣", "９９", "nan", "0x10", "1\n"),
        *("2024-13-01", "2024-02-30", "2024-01-02T25:00:00Z", "2024-01-02T03:04:05.1234567890Z", "2024-01-02 03:04:05"),
        *("2024-01-02T03:04:05+25:00", "2024-01-02T03:04:05+01:60", "2024-01-02T03:04:05+0100", "2024-01-02\n"),
        *("1" * 40, "9" * 90 + "h", "\x1b[31m"),
    ],
)
def test_other_text_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_time(text, NOW)
    assert "\n" not in str(refused.value)
    assert "\x1b" not in str(refused.value)


@given(some.text(max_size=20) | some.text("0123456789.hmsuµn-+TZ:", max_size=30))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        assert isinstance(parse_time(text, NOW), int)
    except Invalid:
        pass


def test_what_is_no_duration_is_none() -> None:
    assert [parse_duration(text) for text in ("", "1", "h", "1h1", "1 h")] == [None] * 5
