"""WWW-Authenticate: what a registry wants to be told. Pure.

Source: RFC 9110 section 11.6.1; distribution-spec and Docker's "Token Authentication Specification".
"""

from __future__ import annotations

from cloche.value import Value

_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_MOST = 8192


class Challenge(Value):
    """One way that is offered: its scheme in lower case, its parameters."""

    scheme: str
    parameters: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str:
        """A parameter, or an empty string."""
        return next((value for key, value in self.parameters if key == name), "")


def challenges(header: str) -> list[Challenge]:
    """Those of a header, as far as they can be read: what is malformed ends the list."""
    found: list[Challenge] = []
    rest = header[:_MOST].strip()
    while rest:
        scheme, rest = _word(rest)
        if not scheme:
            break
        parameters: list[tuple[str, str]] = []
        rest = rest.lstrip(" \t")
        while rest:
            name, after = _word(rest)
            after = after.lstrip(" \t")
            if not name or after[:1] != "=":
                break  # the next scheme
            value, rest = _value(after[1:].lstrip(" \t"))
            parameters.append((name.lower(), value))
            rest = rest.lstrip(" \t,")
        found.append(Challenge(scheme.lower(), tuple(parameters)))
        rest = rest.lstrip(" \t,")
    return found


def _word(text: str) -> tuple[str, str]:
    end = 0
    while end < len(text) and text[end] in _TOKEN:
        end += 1
    return text[:end], text[end:]


def _value(text: str) -> tuple[str, str]:
    if text[:1] != '"':
        return _word(text)
    out, at = "", 1
    while at < len(text) and text[at] != '"':
        if text[at] == "\\" and at + 1 < len(text):
            at += 1
        out += text[at]
        at += 1
    return out, text[at + 1 :]
