"""config.json, whatever it is: what the specification allows is read, what its schema refuses is refused, and an error
names the member that was wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloche.errors import Invalid, printable
from cloche.oci.config import PROPAGATIONS, parse, parse_process, parse_resources
from cloche.oci.runtime import Spec
from configs import ABSENT, FULL, SCHEMA, TEXT, U64, Way, documents, reached, shown, ways, with_value


def parsed(document: Any) -> Spec:
    return parse(json.dumps(document))


@settings(max_examples=100, deadline=None)
@given(documents())
def test_whatever_the_specification_allows_is_read(document: Any) -> None:
    assert isinstance(parsed(document), Spec)
    assert not SCHEMA.refuses(document)


SCALARS = [True, False, 0, 1, -1, 1.5, 1e300, 2**64, -(2**63) - 1, 10**4000, "", "x", "/", "a\x1b"]
OTHERS = st.sampled_from([*SCALARS, [], {}, [[]], [{}], [0], ["x"], {"x": 1}, {"path": []}, {"x": {"x": "x"}}])
BASES = st.just(FULL) | documents()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_member_of_another_type_is_taken_or_named(data: st.DataObject) -> None:
    document = data.draw(BASES)
    way = data.draw(st.sampled_from(list(ways(document))))
    before = reached(document, way)
    value = data.draw(OTHERS.filter(lambda other: type(other) is not type(before)))
    try:
        parsed(with_value(document, way, value))
    except Invalid as error:
        assert f": {printable(shown(way))}" in str(error)


def test_any_member_of_the_full_document_of_another_type_is_taken_or_named() -> None:
    refused = 0
    for way in ways(FULL):
        for value in (True, 3, 1.5, "x", [], {}, [3], {"x": 3}):
            if type(value) is not type(reached(FULL, way)):
                try:
                    parsed(with_value(FULL, way, value))
                except Invalid as error:
                    assert f": {shown(way)}" in str(error)
                    refused += 1
    assert refused > 1500


def excused(way: Way, value: Any) -> bool:
    """What the schema refuses and parse() takes; test_config.py says of each that it does, and why. Null members are
    the first of these, and there are none here."""
    match way[-1]:
        case "pids":  # without a limit
            return isinstance(value, dict)
        case "limit":
            return value is ABSENT and way[-2] == "pids"
        case "fileMode":  # set-user-id and the like, and the device's own type
            return isinstance(value, int) and 0o777 < value < 1 << 16
        case "rootfsPropagation":
            return value in PROPAGATIONS
        case "valueTwo":  # cloche.oci.seccomp takes what is empty for what is not there,
            return not value
        case _:  # and names without libseccomp's prefixes
            return "seccomp" in way and isinstance(value, str) and value.isupper()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_what_the_specifications_schema_refuses_is_refused(data: st.DataObject) -> None:
    document = data.draw(BASES)
    way = data.draw(st.sampled_from(list(ways(document))))
    value = data.draw(OTHERS | st.just(ABSENT) | TEXT | U64)
    made = with_value(document, way, value)
    if SCHEMA.refuses(made) and not excused(way, value):
        with pytest.raises(Invalid):
            parsed(made)


@given(st.binary(max_size=60) | st.text(max_size=60) | st.recursive(st.none() | TEXT, st.lists).map(json.dumps))
def test_anything_is_read_or_an_error(data: Any) -> None:
    for each in (parse, parse_process, parse_resources):
        try:
            each(data)
        except Invalid:
            pass
