"""--help: a screen a verb, every flag named, two examples that can be typed."""

from __future__ import annotations

import re
import shlex

import pytest

from cloche.cli.arguments import parse
from cloche.cli.flags import VERBS, verb
from cloche.cli.nouns import NOUNS
from cloche.cli.usage import usage

TABLES = [*(name for name in VERBS if name not in NOUNS), *(f"{noun} {w}" for noun in NOUNS for w in NOUNS[noun][1])]


@pytest.mark.parametrize("name", TABLES)
def test_help_is_one_screen_and_names_every_flag(name: str) -> None:
    text = usage(name)
    lines = text.splitlines()
    assert len(lines) <= (90 if name in ("run", "create", "plan") else 50) and max(map(len, lines)) <= 108
    assert lines[0].startswith(f"Usage: cloche {name}")
    for row in verb(name).rows().values():
        assert f"--{row[0]}" in text
        if row[1]:
            assert f"-{row[1]}, --{row[0]}" in text


@pytest.mark.parametrize("name", TABLES)
def test_examples_are_two_and_can_be_typed(name: str) -> None:
    examples = verb(name).examples
    assert len(examples) == 2
    for example in examples:
        ours = next(part for part in example.split(" | ") if part.startswith("cloche"))
        words = shlex.split(re.sub(r"\$\(.*\)", "x", ours))
        assert parse(words[1:]).verb in (*VERBS, *TABLES)


def test_the_overview_names_every_verb() -> None:
    text = usage()
    assert set(VERBS) <= set(text.split())
    assert len(text.splitlines()) <= 48


def test_a_verb_that_is_not_there() -> None:
    with pytest.raises(KeyError):
        usage("frobnicate")
