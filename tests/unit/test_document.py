"""JSON without the json package: the same documents, the same refusals, also where json was never imported."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.document import dumps, loads

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
WRONG = ["", "{", "[1,", '{"a"', '"', "nul", "[1] 2", "NaN", "[Infinity]", "{]", '{"a":}', "\x00", "[1}"]


@given(documents)
def test_what_is_written_is_read_back_by_both(value: Any) -> None:
    assert loads(dumps(value)) == value
    assert json.loads(dumps(value)) == value
    assert loads(json.dumps(value, indent=2)) == value


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        loads(text)


def test_it_is_refused_also_where_json_was_never_imported() -> None:
    script = f"""
import sys
from cloche.document import loads
assert "json" not in sys.modules
for text in {WRONG!r}:
    try: loads(text)
    except ValueError: continue
    sys.exit(repr(text))
"""
    ran = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n" + script],
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
