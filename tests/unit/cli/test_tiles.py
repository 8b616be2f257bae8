"""The heat map as text: what fits, what is said, shades that grow, names that are strangers'."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.cli.tiles import STEPS, amount, depth, frame, grid, level, moved
from cloche.engine.meters import Reading

KINDS = ("cpu", "memory", "network")


def plain(line: str) -> str:
    return re.sub("\x1b\\[[0-9;]*m", "", line)


def some(*values: float) -> list[Reading]:
    return [Reading(f"{n:064x}", f"box{n}", value) for n, value in enumerate(values)]


@pytest.mark.parametrize("kind", KINDS)
@given(values=st.lists(st.floats(0, 1e15), min_size=2, max_size=20).map(sorted))
def test_more_is_never_colder(kind: str, values: list[float]) -> None:
    steps = [level(kind, value) for value in values]
    assert steps == sorted(steps) and set(steps) <= set(range(STEPS))
    assert all((step == 0) == (value <= 0) for step, value in zip(steps, values, strict=True))


def test_shades() -> None:
    assert [level("cpu", value) for value in (0, 0.001, 0.25, 1, 8)] == [0, 1, 4, 9, 9]
    assert level("memory", 2**34) == 9 and level("network", 2**26) == 9
    assert (amount("cpu", 0.5), amount("memory", 64e6), amount("network", 1500)) == ("50%", "64MB", "1.5kB/s")


@pytest.mark.parametrize("colours", [0, 8, 24])
@pytest.mark.parametrize("number", [0, 1, 7, 100, 4000])
@given(columns=st.integers(10, 250), lines=st.integers(5, 80))
def test_a_frame_fits(colours: int, number: int, columns: int, lines: int) -> None:
    made = frame("cpu", some(*[n / 100 for n in range(number)]), columns, lines, colours)
    assert len(made) == lines
    room = lines - 3
    assert all(len(plain(line)) <= columns for line in made[1 : 1 + room])
    assert len(plain(made[0])) <= columns and len(plain(made[-1])) <= columns
    assert sum(len(plain(line)) for line in made[1 : 1 + room]) >= min(number, columns * room)


@given(
    number=st.integers(0, 5000),
    columns=st.integers(10, 250),
    lines=st.integers(5, 80),
    keys=st.lists(st.sampled_from(("up", "down", "left", "right"))),
)
def test_arrows_never_leave_what_is_shown(number: int, columns: int, lines: int, keys: list[str]) -> None:
    laid, chosen = grid(number, columns, lines, 8), -1
    for key in keys:
        chosen = moved(chosen, key, laid)
        assert 0 <= chosen < laid.shown or (chosen, laid.shown) == (-1, 0)


def test_arrows_go_where_they_point() -> None:
    laid = grid(10, 80, 24, 0)
    assert (laid.wide, laid.across) == (2, 40)
    laid = grid(10, 80, 24, 8)
    assert (laid.wide, laid.high, laid.across) == (24, 4, 3)
    assert [moved(4, key, laid) for key in ("left", "right", "up", "down")] == [3, 5, 1, 7]
    assert [moved(9, key, laid) for key in ("right", "down")] == [9, 9]


def test_few_have_their_names_in_their_cells_and_names_are_strangers() -> None:
    made = frame("cpu", [Reading("a" * 64, "web", 0.5), Reading("b" * 64, "hot\x1b[2J and long of name", 0)], 80, 24, 8)
    assert plain(made[1]).split() == ["web", "hot\\x1b[2J", "and", "long", "…"]
    assert plain(made[2]).split() == ["50%", "0%"]


@pytest.mark.parametrize("number", [2, 300])
@pytest.mark.parametrize("colours", [0, 8])
def test_the_one_that_is_chosen_is_told_of(number: int, colours: int) -> None:
    readings = some(*[0.25] * number)
    made = frame("cpu", readings, 80, 24, colours, readings[1].id)
    assert made[-1] == "000000000000 box1 25%"
    assert "".join(made).count("\x1b[30;107m" if colours else "X") >= 1


def test_what_does_not_fit_is_counted() -> None:
    made = frame("cpu", some(*[1.0] * 500), 100, 5, 0)
    assert made[0].startswith("500 containers by cpu, 300 more do not fit")
    assert made[1:3] == ["@" * 100] * 2


def test_the_busiest_are_named_and_their_names_are_strangers() -> None:
    readings = [Reading("1", "calm", 0.1), Reading("2", "hot\x1b[2J", 0.9), Reading("3", "idle", 0)]
    last = frame("cpu", readings, 80, 5, 24)[-1]
    assert last == "busiest: hot\\x1b[2J 90%, calm 10%"
    assert frame("cpu", some(0, 0), 80, 5, 0)[-1] == "nobody uses any"


def test_colours_of_terminals() -> None:
    assert depth({"TERM": "xterm-256color", "COLORTERM": "truecolor"}) == 24
    assert depth({"TERM": "xterm-256color"}) == 8
    assert depth({"TERM": "xterm", "NO_COLOR": "1"}) == depth({"TERM": "dumb"}) == depth({}) == 0
