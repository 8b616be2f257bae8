"""The frozen-value base: small slotted classes with equality, hashing, a repr and JSON-ready fields.

Not its business: validation, conversion, behaviour. Sixty dataclasses cost a start 55 ms and sixty of these 1 ms, so
everything
that a start imports is built on this base and never on `dataclasses`, `enum` or a schema library.

    class Point(Value):
        x: int
        y: int = 0

Fields are the annotations, in order, base classes first; defaults must be immutable. Values compare by class and
fields.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

    _Pure = TypeVar("_Pure", bound=Callable[..., Any])
else:

    def dataclass_transform(**_: Any) -> Any:
        return lambda cls: cls


_KEPT = 1024  # results of one function
_NESTED = (list, dict)


class _ValueType(type):
    """Turns a class body's annotations into slots and keeps the defaults aside."""

    _fields: tuple[str, ...]
    _defaults: dict[str, Any]
    _setters: tuple[Any, ...]

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> _ValueType:
        own = tuple(k for k, hint in body.get("__annotations__", {}).items() if not str(hint).startswith("ClassVar"))
        fields: list[str] = []
        defaults: dict[str, Any] = {}
        for base in reversed(bases):
            fields += [f for f in getattr(base, "_fields", ()) if f not in fields]
            defaults.update(getattr(base, "_defaults", {}))
        for field in own:
            if field in body:
                defaults[field] = body.pop(field)
        body["__slots__"] = tuple(f for f in own if f not in fields)
        body["_fields"] = (*fields, *(f for f in own if f not in fields))
        body["_defaults"] = defaults
        made = super().__new__(mcs, name, bases, body)
        # the slots' own setters: half the time of object.__setattr__, which looks each name up
        made._setters = tuple(getattr(made, field).__set__ for field in made._fields)
        return made


@dataclass_transform(frozen_default=True)
class Value(metaclass=_ValueType):
    """A frozen record. Subclass it with annotated fields; positional and keyword arguments both work."""

    if TYPE_CHECKING:
        _fields: ClassVar[tuple[str, ...]]
        _setters: ClassVar[tuple[Any, ...]]
        _defaults: ClassVar[dict[str, Any]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        fields, setters = self._fields, self._setters
        given = len(args)
        if given > len(fields):
            raise TypeError(f"{type(self).__name__} takes {len(fields)} fields, got {given}")
        for setter, value in zip(setters, args):  # noqa: B905 (fewer arguments than fields is meant)
            setter(self, value)
        if given == len(fields) and not kwargs:
            return
        defaults = self._defaults
        found = 0
        for at in range(given, len(fields)):
            field = fields[at]
            if field in kwargs:
                setters[at](self, kwargs[field])
                found += 1
            elif field in defaults:
                setters[at](self, defaults[field])
            else:
                raise TypeError(f"{type(self).__name__} is missing the field {field!r}")
        if found < len(kwargs):
            kwargs = {name: value for name, value in kwargs.items() if name not in fields[given:]}
            raise TypeError(f"{type(self).__name__} has no field {next(iter(kwargs))!r} to set")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: cannot delete {name!r}")

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, f) for f in self._fields)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash((type(self), *self))

    def __repr__(self) -> str:
        shown = ", ".join(f"{f}={getattr(self, f)!r}" for f in self._fields)
        return f"{type(self).__name__}({shown})"

    def __getstate__(self) -> tuple[Any, ...]:
        return tuple(self)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        for field, value in zip(self._fields, state, strict=True):
            object.__setattr__(self, field, value)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        fields = self.fields()
        unknown = next((k for k in changes if k not in fields), None)
        if unknown is not None:
            raise TypeError(f"{type(self).__name__} has no field {unknown!r}")
        return type(self)(**{**fields, **changes})

    def fields(self) -> dict[str, Any]:
        """The fields by name, in order; nested values stay values."""
        return {f: getattr(self, f) for f in self._fields}


def remembered(call: _Pure) -> _Pure:
    """For a pure function of a few hashable values: what it gave before is given again, the same object.

    Whoever starts one container after the other does not make the parts anew that all of them have.
    """
    kept: dict[Any, Any] = {}

    def again(*args: Any) -> Any:
        result = kept.get(args)
        if result is None:
            if len(kept) >= _KEPT:
                kept.clear()
            result = kept[args] = call(*args)
        return result

    return again  # type: ignore[return-value]


def plain(value: Any) -> Any:
    """`value` as JSON can write it: values become dicts, tuples become lists, bytes become latin-1 text."""
    if isinstance(value, Value):
        return {f: plain(getattr(value, f)) for f in value._fields}
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value


def encode(value: Any) -> Any:
    """`value` for JSON so that decode() gives it back: values are {"_": class, field: ...}, bytes {"b": latin-1}.

    Fields that have their defaults are left out: most have, and reading what is not there takes no time. So a default
    may never be changed of a class whose values are kept.
    """
    if isinstance(value, Value):
        kept: dict[str, Any] = {"_": type(value).__name__}
        defaults = value._defaults
        for field in value._fields:
            each = getattr(value, field)
            if field in defaults:
                default = defaults[field]
                if each is default or (type(each) is type(default) and each == default):
                    continue
            kept[field] = encode(each)
        return kept
    if isinstance(value, tuple):
        return [encode(v) for v in value]
    if isinstance(value, bytes):
        return {"b": value.decode("latin-1")}
    return value


def decode(data: Any, kinds: dict[str, type[Value]]) -> Any:
    """What encode() was given; only the named classes can come out. Raises KeyError, TypeError for anything else."""
    if isinstance(data, list):
        return tuple([decode(v, kinds) if type(v) in _NESTED else v for v in data])
    if isinstance(data, dict):
        if "b" in data:
            return data["b"].encode("latin-1")
        return _decode_value(kinds[data["_"]], data, kinds)
    return data


def _decode_value(kind: type[Value], data: dict[str, Any], kinds: dict[str, type[Value]]) -> Value:
    """What `kind(**fields)` gives, without a call and a dictionary between: a list of containers is mostly this."""
    made, defaults, found = object.__new__(kind), kind._defaults, 1
    for field, setter in zip(kind._fields, kind._setters, strict=True):
        if field in data:
            each = data[field]
            setter(made, decode(each, kinds) if type(each) in _NESTED else each)
            found += 1
        elif field in defaults:
            setter(made, defaults[field])
        else:
            raise TypeError(f"{kind.__name__} is missing the field {field!r}")
    if found < len(data):
        raise TypeError(f"{kind.__name__} has no field {next(k for k in data if k != '_' and k not in kind._fields)!r}")
    return made
