"""Environment variables as users give them: `K=V`, `K` for the caller's own, and files of such lines.

A `K` that the caller does not have stays `K`: the container shall not have it either, whatever its image says.
Source: docker/cli opts/env.go, pkg/kvfile. Not its business: reading files.
"""

from __future__ import annotations

from cloche.errors import Invalid

TYPE_CHECKING = False  # importing typing would cost a start 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_BLANK = " \t"


def variable(text: str, environ: Mapping[str, str]) -> str:
    """One `K=V`, or `K` with the caller's value. Raises Invalid for one without a name or with a NUL byte."""
    name, equals, _ = text.partition("=")
    if not name:
        raise Invalid("invalid environment variable", text or "''", "a name, =, a value")
    if "\0" in text:
        raise Invalid("invalid environment variable", f"{name} has a NUL byte in it")
    if equals or name not in environ:
        return text
    return f"{name}={environ[name]}"


def variables(texts: Iterable[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Several, in order. Raises Invalid."""
    return tuple(variable(text, environ) for text in texts)


def read_variables(content: bytes, source: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The variables of a file: a line each, `#` begins a comment line, no quotes, no escapes, values kept as they are.

    Raises Invalid with the line's number.
    """
    found: list[str] = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        where = f"read the environment file {source}, line {number}"
        try:
            text = line.removesuffix(b"\r").decode().lstrip()
        except UnicodeDecodeError:
            raise Invalid(where, "invalid utf8 bytes") from None
        if not text or text[0] == "#":
            continue
        name, equals, value = text.partition("=")
        if not equals:
            name = text = text.strip()
        if not name:
            raise Invalid(where, f"no variable name on line '{text}'")
        if any(blank in name for blank in _BLANK):
            raise Invalid(where, f"variable '{name}' contains whitespaces")
        if "\0" in text:
            raise Invalid(where, f"variable '{name}' has a NUL byte in it")
        found.append(f"{name}={value}" if equals else variable(name, environ))
    return tuple(found)


def merge(base: Iterable[str], changes: Iterable[str]) -> tuple[str, ...]:
    """The variables of an image with those of a request over them: each name once, in the order of first appearance."""
    merged: dict[str, str] = {}
    for text in (*base, *changes):
        name, equals, _ = text.partition("=")
        if equals:
            merged[name] = text
        else:
            merged.pop(name, None)
    return tuple(merged.values())
