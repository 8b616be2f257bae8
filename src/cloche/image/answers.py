"""What a registry says where it refuses, and what a connection says that failed: in words for a person, harmless on a
terminal."""

from __future__ import annotations

CONNECT, READ = 15.0, 30.0  # seconds until a connection, and an answer, are given up


def cause(error: Exception) -> str:
    """What a person can use of an exception of urllib3's; "" for a body that ended too early."""
    from http.client import RemoteDisconnected

    from urllib3.exceptions import (
        ConnectTimeoutError,
        IncompleteRead,
        NameResolutionError,
        NewConnectionError,
        ReadTimeoutError,
    )

    inner = getattr(error, "reason", None) or error
    inner = next((each for each in inner.args if isinstance(each, Exception)), inner)
    if isinstance(inner, IncompleteRead):
        return ""
    if isinstance(inner, RemoteDisconnected):
        return "the connection was closed without an answer"
    if isinstance(inner, NameResolutionError):
        return "there is no host of this name"
    if isinstance(inner, ConnectTimeoutError) and not isinstance(inner, NewConnectionError):
        return f"no connection within {CONNECT:g} s"
    if isinstance(inner, ReadTimeoutError):
        return f"no answer within {READ:g} s"
    text = str(inner)
    if "Errno" in text and "]" in text:
        text = text.partition("]")[2].strip()
    return shown(text.rpartition(": ")[2] if text.startswith("<") or "object at 0x" in text else text)


def shown(text: str) -> str:
    """A stranger's words: short, and without what a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:300])


def complaint(data: bytes) -> tuple[str, str]:
    """Code and message of a registry's error; empty where it says none."""
    from json import loads

    try:
        first = loads(data)["errors"][0]
        return shown(str(first.get("code", ""))).lower().replace("_", " "), shown(str(first.get("message", "")))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        try:
            found = loads(data)
            return "", shown(str(found.get("details") or found.get("message") or ""))
        except (ValueError, AttributeError, RecursionError):
            return "", ""
