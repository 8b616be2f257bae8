"""Signals by name and number, as this machine has them."""

from __future__ import annotations

import signal

import pytest

from cloche.errors import Invalid
from cloche.kernel.signalnames import signal_name, signal_number


@pytest.mark.parametrize("member", [s for s in signal.Signals if s.value < 32])
def test_names_and_numbers_are_this_machines(member: signal.Signals) -> None:
    for text in (member.name, member.name[3:], member.name.lower(), str(member.value)):
        assert signal_number(text) == member.value
    assert signal_name(member.value) == member.name


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("rtmax", 64),
        ("RTMAX-1", 63),
        ("POLL", 29),
        ("CLD", 17),
        ("IOT", 6),
        ("64", 64),
        ("32", 32),
    ],
)
def test_other_spellings(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "FOO",
        "0",
        "65",
        "-9",
        "9x",
        "RTMIN-1",
        "RTMAX+1",
        "RTMIN+99",
        "RTMINx3",
        "RTMIN+",
        "٣",
        "SIGSIGTERM",
        "99999999",
    ],
)
def test_what_is_no_signal(text: str) -> None:
    with pytest.raises(Invalid, match="invalid signal"):
        signal_number(text)


def test_names_of_realtime_signals() -> None:
    assert [signal_name(n) for n in (34, 37, 64, 32, 99)] == ["SIGRTMIN", "SIGRTMIN+3", "SIGRTMIN+30", "32", "99"]
