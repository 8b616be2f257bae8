"""What can go wrong, as few classes. Each has one HTTP status (Docker's API) and one exit code (Docker's command line).

Every message is one line: verb, object, value, cause, and one hint: `mount proc on /proc: operation not permitted
(EPERM);
hint: ...`. Text from images, containers and registries is hostile: it is escaped here, once, where messages are made.
"""

from __future__ import annotations

import errno as _errno
from os import strerror


def printable(text: object) -> str:
    """`text` on one line with control characters escaped, safe for a terminal."""
    whole = str(text)
    if whole.isprintable():
        return whole
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in whole)


def cause_of(number: int) -> str:
    """An errno as people read it: `operation not permitted (EPERM)`."""
    words = strerror(number)
    return f"{words[:1].lower()}{words[1:]} ({_errno.errorcode.get(number, number)})"


def said(error: Exception) -> str:
    """Any exception in such words."""
    return cause_of(error.errno) if isinstance(error, OSError) and error.errno else str(error)


class Error(Exception):
    """The base of all errors that cloche raises on purpose: the engine could not do what was asked.

    what: verb, object and value ("mount proc on /proc"). cause: why, or an errno. hint: what to do about it.
    """

    status = 500
    exit_code = 125

    def __init__(self, what: str, cause: str | int = "", hint: str = "") -> None:
        super().__init__(what, cause, hint)
        self.what = printable(what)
        self.errno = cause if isinstance(cause, int) else 0
        self.cause = cause_of(cause) if isinstance(cause, int) else printable(cause)
        self.hint = printable(hint)

    def __str__(self) -> str:
        line = f"{self.what}: {self.cause}" if self.cause else self.what
        return f"{line}; hint: {self.hint}" if self.hint else line


class Invalid(Error):
    """What was asked for is malformed: a flag, a reference, a document."""

    status = 400


class NotFound(Error):
    """The container, image or file that was named does not exist."""

    status = 404


class Conflict(Error):
    """It cannot be done in the present state: a name taken, a container running."""

    status = 409


class Unsupported(Error):
    """This host or this version cannot do it; nothing weaker was done in its place."""

    status = 501


class NotExecutable(Error):
    """The command was found but could not be executed."""

    status = 400
    exit_code = 126


class CommandNotFound(Error):
    """The command does not exist inside the container."""

    status = 400
    exit_code = 127


class TimedOut(Error, TimeoutError):  # type: ignore[misc]  # here errno is 0 where there is none
    """What was waited for has not come in the time that was given."""

    status = 504
