"""The frozen-value base, and pure functions whose results are kept."""

from __future__ import annotations

import copy
import pickle

import pytest

from cloche.value import _KEPT, Value, decode, encode, plain, remembered


class Point(Value):
    x: int
    y: int = 0


class Named(Point):
    name: str = "p"
    inside: tuple[Point, ...] = ()


def test_values_are_what_their_fields_are() -> None:
    assert Point(1) == Point(1, 0) == Point(x=1)
    assert Point(1) != Point(2)
    assert Point(1) != (1, 0)
    assert Named(1) != Point(1), "another class"
    assert len({Point(1), Point(1, 0), Point(2)}) == 2
    assert repr(Named(1, 2, "q")) == "Named(x=1, y=2, name='q', inside=())"
    assert Named(1).fields() == {"x": 1, "y": 0, "name": "p", "inside": ()}
    assert Named(1).replace(y=5) == Named(1, 5)
    assert pickle.loads(pickle.dumps(Named(1, 2))) == copy.deepcopy(Named(1, 2)) == Named(1, 2)


def test_values_do_not_change_and_take_no_other_fields() -> None:
    point = Point(1)
    for change in (lambda: setattr(point, "x", 2), lambda: delattr(point, "x"), lambda: setattr(point, "z", 2)):
        with pytest.raises(AttributeError, match="frozen"):
            change()
    for wrong in (lambda: Point(), lambda: Point(1, 2, 3), lambda: Point(1, z=3), lambda: point.replace(z=1)):  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            wrong()


def test_values_become_json_and_come_back() -> None:
    value = Named(1, 2, "n", (Point(3), Point(4)))
    assert plain(value) == {"x": 1, "y": 2, "name": "n", "inside": [{"x": 3, "y": 0}, {"x": 4, "y": 0}]}
    assert decode(encode(value), {"Named": Named, "Point": Point}) == value
    with pytest.raises((KeyError, ValueError)):
        decode(encode(value), {"Named": Named})


def test_what_is_remembered_is_made_once_and_not_for_ever() -> None:
    made: list[int] = []

    @remembered
    def double(n: int) -> tuple[int, ...]:
        made.append(n)
        if n < 0:
            raise ValueError(n)
        return (2 * n,)

    assert double(1) is double(1)
    assert made == [1]
    for _ in range(2):
        with pytest.raises(ValueError, match="-1"):
            double(-1)
    assert made == [1, -1, -1], "no error is kept"
    first = double(1)
    for n in range(2, _KEPT + 2):
        double(n)
    assert double(1) == first
    assert len(made) == _KEPT + 4, "when there are too many, all are forgotten"
