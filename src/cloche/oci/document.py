"""JSON documents from strangers, read field by field: each error says which field it was, `config.Env[3]`.

Field names are compared exactly, unknown ones are ignored as the specification asks. Text with zero bytes, or that is
no Unicode, is refused: it could be no argument, path or environment of a process.
"""

from __future__ import annotations

from cloche.document import loads
from cloche.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

SIZE_MAX = 16 << 20  # bytes; registries take 4 MiB of manifest, build caches make image configs of one
NUMBER_MAX = (1 << 63) - 1
NUMBER_MIN = -1 << 63
UINT16_MAX, UINT32_MAX, UINT64_MAX = (1 << 16) - 1, (1 << 32) - 1, (1 << 64) - 1


class Object:
    """One JSON object and where it stands in its document. A field that is null is a field that is not there."""

    __slots__ = ("data", "path", "what")

    def __init__(self, what: str, data: dict[str, Any], path: str = "") -> None:
        self.what, self.data, self.path = what, data, path

    def wrong(self, key: str, cause: str) -> Invalid:
        """The error that names a field of this object."""
        return Invalid(self.what, f"{self.at(key)}: {cause}")

    def at(self, key: str) -> str:
        """Where a field stands in the document."""
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        return self.data.get(key) is not None

    def text(self, key: str, default: str | None = "") -> str:
        """A string; `default` where there is none, an error if that is None."""
        value = self.data.get(key)
        if value is None:
            if default is None:
                raise self.wrong(key, "it is missing")
            return default
        return self._text(key, value)

    def number(self, key: str, default: int | None = 0) -> int:
        """A whole number that is not negative."""
        value = self.data.get(key, default)
        if value is None:
            raise self.wrong(key, "it is missing")
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= NUMBER_MAX:
            raise self.wrong(key, f"expected a whole number from 0 on, not {_kind(value)}")
        return value

    def bounded(self, key: str, low: int, high: int) -> int:
        """A whole number that must be there, from `low` to `high`."""
        value = self.data.get(key)
        if value is None:
            raise self.wrong(key, "it is missing")
        return self._bounded(key, value, low, high)

    def optional(self, key: str, low: int, high: int) -> int | None:
        """A whole number from `low` to `high`; None where there is none."""
        value = self.data.get(key)
        return None if value is None else self._bounded(key, value, low, high)

    def flag(self, key: str) -> bool:
        """true or false; false where there is none."""
        value = self.data.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(key, f"expected true or false, not {_kind(value)}")
        return bool(value)

    def texts(self, key: str) -> tuple[str, ...]:
        """An array of strings."""
        found = self._array(key)
        for i, value in enumerate(found):
            if not isinstance(value, str) or "\0" in value:  # where it stands is put in words for an error only
                self._text(f"{key}[{i}]", value)
        return tuple(found)

    def numbers(self, key: str, low: int, high: int) -> tuple[int, ...]:
        """An array of whole numbers from `low` to `high`."""
        return tuple([self._bounded(f"{key}[{i}]", v, low, high) for i, v in enumerate(self._array(key))])

    def choice(self, key: str, known: tuple[str, ...], default: str | None = "") -> str:
        """One of the known words; `default` where there is none, an error if that is None."""
        value = self.text(key, default)
        if value not in known and self.has(key):
            raise self.wrong(key, _unknown(value, known))
        return value

    def choices(self, key: str, known: tuple[str, ...]) -> tuple[str, ...]:
        """An array of known words."""
        found = self.texts(key)
        for i, value in enumerate(found):
            if value not in known:
                raise self.wrong(f"{key}[{i}]", _unknown(value, known))
        return found

    def absolute(self, key: str, default: str | None = "") -> str:
        """A path from the root on; `default` where there is none, or an empty one, an error if that is None."""
        value = self.text(key, default)
        if value[:1] != "/" and (value or default is None):
            raise self.wrong(key, "expected an absolute path")
        return value or default or ""

    def absolutes(self, key: str) -> tuple[str, ...]:
        """An array of paths from the root on."""
        found = self.texts(key)
        for i, value in enumerate(found):
            if value[:1] != "/":
                raise self.wrong(f"{key}[{i}]", "expected an absolute path")
        return found

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """An object whose values are strings."""
        value = self._map(key)
        return tuple((self._text(key, k), self._text(f"{key}.{k}", v)) for k, v in value.items())

    def keys(self, key: str) -> tuple[str, ...]:
        """The names in an object that is used as a set."""
        return tuple(self._text(key, k) for k in self._map(key))

    def part(self, key: str) -> Object:
        """An object; an empty one where there is none."""
        return Object(self.what, self._map(key), self.at(key))

    def parts(self, key: str) -> Iterator[Object]:
        """An array of objects."""
        for i, value in enumerate(self._array(key)):
            if not isinstance(value, dict):
                raise self.wrong(f"{key}[{i}]", f"expected an object, not {_kind(value)}")
            yield Object(self.what, value, self.at(f"{key}[{i}]"))

    def named_parts(self, key: str) -> Iterator[tuple[str, Object]]:
        """An object whose values are objects."""
        for name, value in self._map(key).items():
            if not isinstance(value, dict):
                raise self.wrong(f"{key}.{name}", f"expected an object, not {_kind(value)}")
            yield self._text(key, name), Object(self.what, value, self.at(f"{key}.{name}"))

    def _bounded(self, key: str, value: object, low: int, high: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.wrong(key, f"expected a whole number from {low} to {high}, not {_kind(value)}")
        return value

    def _text(self, key: str, value: object) -> str:
        if not isinstance(value, str):
            raise self.wrong(key, f"expected a string, not {_kind(value)}")
        if "\0" in value:
            raise self.wrong(key, "it has a zero byte in it")
        return value

    def _array(self, key: str) -> list[Any]:
        value = self.data.get(key)
        if value is not None and not isinstance(value, list):
            raise self.wrong(key, f"expected an array, not {_kind(value)}")
        return value or []

    def _map(self, key: str) -> dict[str, Any]:
        value = self.data.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(key, f"expected an object, not {_kind(value)}")
        return value or {}


def parse_json(data: bytes | str, what: str) -> Any:
    """Any JSON value. `what` is what an error says was done: `read the image config`. Raises Invalid."""
    if len(data) > SIZE_MAX:
        raise Invalid(what, f"it is larger than {SIZE_MAX >> 20} MiB")
    try:
        if isinstance(data, str):
            text = data
            text.encode()  # a lone surrogate is no Unicode, see below
        else:
            text = data.decode()  # json would take UTF-16 and 32 too
        value = loads(text)
        if "\\ud" in text.lower():  # \ud800 alone is fine JSON and no Unicode: it could be neither stored nor shown
            write_json(value)
    except RecursionError:
        raise Invalid(what, "it is nested too deep") from None
    except ValueError as error:
        raise Invalid(what, f"it is not JSON: {error}") from None
    return value


def parse_object(data: bytes | str, what: str) -> Object:
    """A document that is one JSON object. Raises Invalid."""
    value = parse_json(data, what)
    if not isinstance(value, dict):
        raise Invalid(what, f"expected an object, not {_kind(value)}")
    return Object(what, value)


def write_json(value: Any) -> bytes:
    """`value` as JSON without blanks; the same value gives the same bytes."""
    import json

    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def said(fields: dict[str, Any]) -> dict[str, Any]:
    """`fields` without those that say nothing: None, false, empty strings, arrays and objects. 0 is a number."""
    return {k: v for k, v in fields.items() if v or (v == 0 and v is not False)}


def _unknown(value: str, known: tuple[str, ...]) -> str:
    return f"expected one of {', '.join(known)}, not {value[:40] or 'an empty string'}"


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), f"the number {str(value)[:40]}")
