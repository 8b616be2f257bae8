"""Sizes, CPUs, durations, moments, and what `ps` says of a container."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.engine import units
from cloche.errors import Invalid

NOW = 1_700_000_000.0


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("1024", 1024),
        ("64m", 64 << 20),
        ("64M", 64 << 20),
        ("64mb", 64 << 20),
        ("64MiB", 64 << 20),
        ("64 MiB", 64 << 20),
        ("1.5g", 3 << 29),
        ("0.5k", 512),
        ("32b", 32),
        ("32 b", 32),
        ("1t", 1 << 40),
        ("1P", 1 << 50),
        ("7i", 7),
    ],
)
def test_sizes(text: str, count: int) -> None:
    assert units.size(text) == count


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "-1",
        "+1",
        "1x",
        "1mm",
        "1 2",
        "1  m",
        " 1",
        "1.",
        ".5m",
        "1.2.3k",
        "1e3",
        "٣m",
        "9" * 50,
        "9999999p",
        "m",
    ],
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(Invalid, match="invalid size"):
        units.size(text)


@pytest.mark.parametrize(
    ("text", "nano"), [("0.5", 5 * 10**8), ("2", 2 * 10**9), (".25", 25 * 10**7), ("1.500000000000", 1_500_000_000)]
)
def test_cpus(text: str, nano: int) -> None:
    assert units.cpus(text) == nano


@pytest.mark.parametrize("text", ["", "x", "-1", "1/2", "1.", ".", "0.0000000001", "9" * 30, "1e3", "٣"])
def test_what_is_no_number_of_cpus(text: str) -> None:
    with pytest.raises(Invalid):
        units.cpus(text)


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("-1", -1), ("+5", 5), (str(2**63 - 1), 2**63 - 1), (str(-(2**63)), -(2**63))]
)
def test_whole_numbers(text: str, number: int) -> None:
    assert units.whole_number(text) == number


@pytest.mark.parametrize("text", ["", "-", "1.0", "0x10", "1_0", " 1", "٣", str(2**63), "9" * 5000])
def test_what_is_no_whole_number(text: str) -> None:
    with pytest.raises(Invalid, match="invalid number"):
        units.whole_number(text)


@pytest.mark.parametrize(
    ("text", "span"),
    [("0", 0), ("42m", 2520), ("1h30m", 5400), ("1.5s", 1.5), ("250ms", 0.25), ("1h1m1s", 3661), (".5h", 1800)],
)
def test_durations(text: str, span: float) -> None:
    assert units.seconds(text) == pytest.approx(span)


@pytest.mark.parametrize("text", ["", "42", "m", "1d", "-1m", "1.2.3s", ".m", "1h ", "٣m", "9" * 40 + "s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(Invalid, match="invalid duration"):
        units.seconds(text)


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("1136073600", 1136073600 * 10**9),
        ("1136073600.000000001", 1136073600 * 10**9 + 1),
        ("2013-01-02T13:23:37Z", 1357133017 * 10**9),
        ("2013-01-02T13:23:37.5Z", 1357133017 * 10**9 + 5 * 10**8),
        ("2013-01-02T13:23:37.123456789+01:00", 1357129417 * 10**9 + 123456789),
        ("2013-01-02T13:23:37", 1357133017 * 10**9),
        ("2013-01-02T13:23", 1357132980 * 10**9),
        ("2013-01-02T13", 1357131600 * 10**9),
        ("2013-01-02", 1357084800 * 10**9),
        ("10m", int((NOW - 600) * 1e9)),
    ],
)
def test_moments(text: str, nano: int) -> None:
    assert units.moment(text, NOW) == nano


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2013-13-01", "2013-01-02T25", "2013-01-02T13:23:37.Z", "2013-01-02Tx", "-5m"]
)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(Invalid, match=r"invalid (date|duration)"):
        units.moment(text, NOW)


@given(st.text(max_size=30))
def test_whatever_is_typed_only_errors_of_ours_are_raised(text: str) -> None:
    for reading in (units.size, units.cpus, units.seconds, units.whole_number, lambda t: units.moment(t, NOW)):
        try:
            assert reading(text) is not None
        except Invalid as error:
            assert str(error).isprintable()


@pytest.mark.parametrize(
    ("count", "precision", "text"),
    [
        (0, 3, "0B"),
        (999, 3, "999B"),
        (1000, 3, "1kB"),
        (1234567, 3, "1.23MB"),
        (77_800_000, 3, "77.8MB"),
        (2746 * 10**6, 4, "2.746GB"),
        (10**24, 4, "1YB"),
    ],
)
def test_sizes_as_people_read_them(count: int, precision: int, text: str) -> None:
    assert units.human_size(count, precision) == text


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (-5, "Less than a second"),
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (5399, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (13 * 86400, "13 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (729 * 86400, "24 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_durations_as_people_read_them(span: float, text: str) -> None:
    assert units.human_duration(span) == text


def test_status() -> None:
    assert units.status("running", NOW - 3, now=NOW) == "Up 3 seconds"
    assert units.status("paused", NOW - 90, now=NOW) == "Up About a minute (Paused)"
    assert units.status("exited", NOW - 500, NOW - 120, now=NOW, code=0) == "Exited (0) 2 minutes ago"
    killed = units.status("exited", NOW - 500, NOW - 120, now=NOW, code=137, out_of_memory=True)
    assert killed == "Exited (137) 2 minutes ago (out of memory)"
    assert units.status("exited", NOW - 500, NOW - 120, now=NOW, code=None) == "Exited (unknown) 2 minutes ago"
    assert units.status("created", now=NOW) == "Created"
    assert units.status("dead", now=NOW) == "Dead"
    assert units.status("removing", now=NOW) == "Removal In Progress"
