"""Health checks as values: what is settled, when one is due, what a result changes; histories agree with a model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.engine import healthchecks
from cloche.engine.health import read_state
from cloche.engine.healthchecks import HEALTHY, SECOND, STARTING, UNHEALTHY, Result, State, after, due, filled, settle
from cloche.engine.request import Health
from cloche.engine.units import status
from cloche.errors import Invalid

IMAGE = json.dumps({"Test": ["CMD", "curl", "-f", "localhost"], "Interval": 5 * SECOND, "Retries": 7})
SHELL = ("CMD-SHELL", "exit 0")


def test_what_the_user_does_not_say_is_the_images() -> None:
    assert settle(Health(), IMAGE) == Health(("CMD", "curl", "-f", "localhost"), 5 * SECOND, retries=7)
    asked = Health(SHELL, timeout=SECOND, retries=2, on_failure="kill")
    assert settle(asked, IMAGE) == asked.replace(interval=5 * SECOND)
    assert settle(Health(interval=SECOND), IMAGE).interval == SECOND
    assert settle(Health(SHELL), "") == Health(SHELL)


@pytest.mark.parametrize("image", ["", IMAGE, '{"Test":["NONE"]}'])
def test_none_is_none(image: str) -> None:
    assert settle(Health(("NONE",)), image) == Health(("NONE",))


def test_an_image_may_say_none_and_its_user_something() -> None:
    assert not healthchecks.is_on(settle(Health(), '{"Test":["NONE"]}'))
    assert settle(Health(SHELL), '{"Test":["NONE"], "Interval": 5000000}').test == SHELL


def test_an_image_that_gives_times_alone_checks_nothing() -> None:
    assert not healthchecks.is_on(settle(Health(), '{"Interval": 5000000}'))
    assert healthchecks.is_on(settle(Health(SHELL), '{"Interval": 5000000}'))


@pytest.mark.parametrize("asked", [Health(interval=SECOND), Health(on_failure="kill"), Health(retries=3)])
@pytest.mark.parametrize("image", ["", '{"Test":["NONE"]}', "{}"])
def test_what_would_check_nothing_is_refused(asked: Health, image: str) -> None:
    with pytest.raises(Invalid, match="has a command"):
        settle(asked, image)


@pytest.mark.parametrize(
    "text",
    [
        '{"Test":["RUN","x"]}',
        '{"Test":["CMD"]}',
        '{"Test":"CMD x"}',
        '{"Test":[1]}',
        '{"Interval":-1}',
        '{"Interval":"5s"}',
        '{"Test":["CMD","x"],"Interval":1}',
        '{"Retries":1e9}',
        '{"Timeout":99999999999999999999}',
    ],
)
def test_an_images_nonsense_is_refused_and_can_be_switched_off(text: str) -> None:
    with pytest.raises(Invalid):
        settle(Health(), text)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Health(("NONE",), interval=SECOND), "conflicts"),
        (Health(("NONE",), on_failure="kill"), "conflicts"),
        (Health(("RUN", "x")), "invalid test RUN"),
        (Health(("CMD",)), "invalid test CMD"),
        (Health(("CMD-SHELL", "a", "b")), "one text"),
        (Health(SHELL, interval=999_999), "less than 1ms"),
        (Health(SHELL, start_period=-1), "less than 1ms"),
        (Health(SHELL, timeout=1 << 63), "less than 1ms"),
        (Health(SHELL, retries=-1), "retries"),
        (Health(SHELL, on_failure="reboot"), "no action reboot"),
    ],
)
def test_what_cannot_be_meant(asked: Health, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        healthchecks.check(asked)


def test_the_command() -> None:
    assert healthchecks.command(Health(SHELL), ()) == ("/bin/sh", "-c", "exit 0")
    assert healthchecks.command(Health(SHELL), ("/bin/bash", "-ec")) == ("/bin/bash", "-ec", "exit 0")
    assert healthchecks.command(Health(("CMD", "a", "b")), ("/bin/bash", "-ec")) == ("a", "b")


def test_as_inspect_shows_it() -> None:
    assert healthchecks.document(Health()) is None
    assert healthchecks.document(Health(SHELL, 3 * SECOND)) == {"Test": ["CMD-SHELL", "exit 0"], "Interval": 3 * SECOND}


def test_when_the_next_is_due() -> None:
    check = filled(Health(SHELL, start_period=20 * SECOND))
    assert due(check, State(), 100 * SECOND, 101 * SECOND) == 105 * SECOND, "the start interval, while it starts"
    assert due(check, State(HEALTHY), 100 * SECOND, 101 * SECOND) == 130 * SECOND
    assert due(check, State(), 100 * SECOND, 121 * SECOND) == 130 * SECOND
    last = Result(100 * SECOND, 107 * SECOND, 1, "")
    assert due(check, State(log=(last,)), 100 * SECOND, 108 * SECOND) == 112 * SECOND, "from the last one's end on"


@given(
    results=st.lists(st.tuples(st.booleans(), st.integers(0, 100)), max_size=30),
    retries=st.integers(1, 5),
    period=st.integers(0, 60),
)
def test_histories(results: list[tuple[bool, int]], retries: int, period: int) -> None:
    """As Docker's documentation says it, told once more."""
    check = filled(Health(SHELL, start_period=period * SECOND, retries=retries))
    state, at, ever, row = State(), 0, False, 0
    for good, pause in results:
        at += pause
        state = after(check, state, Result(at * SECOND, at * SECOND, 0 if good else 1, "x"), 0)
        ever, counts = ever or good, ever or at >= period or state.status == UNHEALTHY
        row = 0 if good else row + counts
        assert state.streak == row
        assert (state.status == UNHEALTHY) == (row >= retries)
        assert (state.status == STARTING) == (not ever and row < retries)
        assert len(state.log) <= healthchecks.KEPT and state.log[-1].start == at * SECOND
    from cloche.document import dumps
    from cloche.value import encode

    assert read_state(dumps(encode(state))) == state, "as the database keeps it"


def test_what_is_kept_of_the_output() -> None:
    assert healthchecks.written(b"x" * 4096) == "x" * 4096
    assert healthchecks.written(b"x" * 4097) == "x" * 4096 + "..."
    assert healthchecks.written(b"\xff\n") == "�\n"


@pytest.mark.parametrize(
    ("health", "shown"),
    [("", "Up 5 seconds"), (STARTING, "Up 5 seconds (health: starting)"), (HEALTHY, "Up 5 seconds (healthy)")],
)
def test_as_ps_shows_it(health: str, shown: str) -> None:
    more: dict[str, Any] = {"health": health}
    assert status("running", 10, now=15, **more) == shown
    assert status("paused", 10, now=15, **more) == "Up 5 seconds (Paused)"
