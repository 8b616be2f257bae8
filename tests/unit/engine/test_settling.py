"""What is undone a moment later: control groups of many that end at once, in slices, and by whoever is first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cloche.engine import settling
from cloche.engine.settling import MANY, SLICE, Settling
from cloche.step.stored import StoredPlan


class Plan:
    """One with a group; what was asked of it."""

    lingers = False

    def __init__(self) -> None:
        self.groups = [SimpleNamespace(path="/group")]
        self.asked: list[str] = []

    def undo(self, later: bool | None = None, groups: bool = True) -> list[OSError]:
        self.asked.append("all" if groups else "without its groups")
        return []


class Room:
    """A Settling whose time is the test's."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.later = 100.0, list[Callable[[], None]]()
        self.inside: list[int] = []
        monkeypatch.setattr(settling, "monotonic", lambda: self.now)
        monkeypatch.setattr(settling, "processes", lambda _: self.inside)
        store = SimpleNamespace(plan=lambda key: str(folder / key))
        self.settling = Settling(cast("Any", store), lambda _, call: self.later.append(call))
        self.plans = [Plan() for _ in range(3 * MANY)]
        for number in range(len(self.plans)):
            (folder / f"c{number}").touch()
        self.folder = folder

    def end(self, number: int) -> None:
        self.settling.ended(f"c{number}", cast("StoredPlan", self.plans[number]))

    def go_on(self, seconds: float) -> None:
        self.now += seconds
        calls, self.later = self.later, []
        for call in calls:
            call()

    def asked(self) -> list[list[str]]:
        return [plan.asked for plan in self.plans]


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    return Room(tmp_path, monkeypatch)


def test_a_few_are_undone_at_once(room: Room) -> None:
    for number in range(MANY - 1):
        room.end(number)
    room.now += 2
    for number in range(MANY - 1, 2 * MANY):
        room.now += 0.1
        room.end(number)
    assert room.asked()[: 2 * MANY] == [["all"]] * (2 * MANY)
    assert room.later == []


def test_groups_of_many_wait_until_no_more_end(room: Room) -> None:
    for number in range(2 * MANY):
        room.end(number)
    waiting = 2 * MANY - (MANY - 1)
    assert room.asked()[MANY - 1 : 2 * MANY] == [["without its groups"]] * waiting
    room.now += 0.3
    room.end(2 * MANY)
    room.go_on(0.3)
    assert len(room.later) == 1 and "all" not in room.asked()[MANY], "one has just ended"
    room.go_on(1)
    assert sum(asked[-1:] == ["all"] for asked in room.asked()[MANY - 1 :]) == SLICE
    for _ in range(10):
        room.go_on(0)
    assert room.later == [] and all(
        asked == ["without its groups", "all"] for asked in room.asked()[MANY - 1 : 2 * MANY]
    )
    assert sorted(p.name for p in room.folder.iterdir()) == sorted(f"c{n}" for n in range(2 * MANY + 1, 3 * MANY))


def test_one_that_starts_again_is_undone_before_and_all_at_the_end(room: Room) -> None:
    for number in range(MANY + 10):
        room.end(number)
    room.settling.hurry(f"c{MANY + 3}")
    room.settling.hurry("nobody")
    assert room.plans[MANY + 3].asked == ["without its groups", "all"]
    room.settling.end()
    assert all(plan.asked[-1] == "all" for plan in room.plans[: MANY + 10])
    room.go_on(1)
    assert room.later == []


def test_what_still_has_a_process_is_ended_now(room: Room) -> None:
    room.inside = [4711]
    for number in range(2 * MANY):
        room.end(number)
    assert room.asked()[: 2 * MANY] == [["all"]] * (2 * MANY)
