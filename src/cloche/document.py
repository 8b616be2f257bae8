"""JSON by the C scanner and encoder of the standard library's json, without the rest of it.

`import json` costs a start 5 ms, most of it for regular expressions that only its pure-Python fallback uses; this costs
nothing.
"""

from __future__ import annotations

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Context:
    """What the scanner asks for, as json.JSONDecoder has it."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float = float
    parse_int = int

    @staticmethod
    def parse_constant(name: str) -> None:
        raise ValueError(f"{name} is no JSON value")

    memo: dict[str, str] = {}  # noqa: RUF012 (the scanner's own)


def _refuse(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} is no JSON")


_scan = _json.make_scanner(_Context)  # type: ignore[arg-type]  # typeshed knows it by json's own context only
_encode = _json.make_encoder(None, _refuse, _json.encode_basestring_ascii, None, ":", ",", False, False, True)


def dumps(value: Any) -> str:
    """One line, ASCII, no spaces. Raises TypeError."""
    return "".join(_encode(value, 0))


def loads(text: str | bytes) -> Any:
    """One document. Raises ValueError for anything else, also NaN and Infinity; RecursionError for one nested too
    deep."""
    string = (text.decode() if isinstance(text, bytes) else text).strip(" \t\r\n")
    try:
        value, end = _scan(string, 0)
    except StopIteration as error:
        raise ValueError(f"no JSON at character {error.value}") from None
    except SystemError:  # CPython's scanner finds the exception to raise only where json.decoder was imported before
        import json.decoder

        value, end = json.decoder.JSONDecoder().raw_decode(string)
    if end != len(string):
        raise ValueError(f"more than one JSON document at character {end}")
    return value
