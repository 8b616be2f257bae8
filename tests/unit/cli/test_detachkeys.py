"""Detach keys: Docker's grammar, and a matcher that passes on whatever does not complete."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from cloche.cli.detachkeys import DEFAULT, DetachKeys, parse_detach_keys
from cloche.errors import Invalid


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (DEFAULT, b"\x10\x11"),
        ("ctrl-@", b"\0"),
        ("ctrl-a,ctrl-z", b"\x01\x1a"),
        ("ctrl-[", b"\x1b"),
        ("ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x1c\x1d\x1e\x1f"),
        ("a,b", b"ab"),
        ("DEL", b"\x7f"),
        ("", b""),
    ],
)
def test_the_grammar_is_dockers(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize(
    "text", ["ctrl-", "ctrl-A", "ctrl-1", "Ctrl-a", "ab", "a,", ",", "a,,b", "é", "\x1b[0m", "del"]
)
def test_other_keys_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_detach_keys(text)
    assert "\x1b" not in str(refused.value)


def test_a_beginning_is_held_back_until_it_is_clear() -> None:
    keys = DetachKeys(b"\x10\x11")
    assert keys.feed(b"ls\x10") == (b"ls", False)
    assert keys.held == b"\x10"
    assert keys.feed(b"x") == (b"\x10x", False)
    assert keys.feed(b"\x10") == (b"", False)
    assert keys.feed(b"\x10") == (b"\x10", False)  # the first one is passed on, the second may begin the keys
    assert keys.feed(b"\x11lost") == (b"", True)


def test_keys_in_the_middle_of_one_read_detach() -> None:
    assert DetachKeys(b"\x10\x11").feed(b"ab\x10\x11cd") == (b"ab", True)


@given(some.text("abc", min_size=1, max_size=4), some.lists(some.text("abc", max_size=5), max_size=8))
def test_nothing_is_lost_and_the_first_match_detaches(keys: str, reads: list[str]) -> None:
    matcher, passed, detached = DetachKeys(keys.encode()), b"", False
    for read in reads:
        if not detached:
            found, detached = matcher.feed(read.encode())
            passed += found
    typed = "".join(reads).encode()
    at = typed.find(keys.encode())
    assert detached == (at >= 0)
    assert passed + matcher.held == (typed[:at] if detached else typed)
    assert keys.encode().startswith(matcher.held)


def test_without_keys_nothing_detaches() -> None:
    assert DetachKeys(b"").feed(b"\x10\x11") == (b"\x10\x11", False)
