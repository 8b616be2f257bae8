"""Handing over descriptors: a terminal or a pidfd to a unix socket of the caller's, the caller's own to the program."""

from __future__ import annotations

import os

from cloche.errors import Error, Invalid, Unsupported
from cloche.kernel.descriptors import send_descriptor
from cloche.step.base import Ref
from cloche.step.flat import flatten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.runtime.oci.options import Given
    from cloche.step.base import Plan

_PASSED_MOST = 200  # of what one plan can name


def send(path: str, descriptor: int, name: str) -> None:
    """To the socket of a caller's, with its name as data. Raises Error."""
    try:
        send_descriptor(path, descriptor, name.encode())
    except OSError as error:
        hint = "is somebody listening there?"
        raise Error(f"send a descriptor to the socket {path}", error.errno or 5, hint) from error


def listening(environment: dict[str, str]) -> int:
    """How many sockets were passed to us, sd_listen_fds(3): what was meant for another process is not ours."""
    text = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID") != str(os.getpid()) or not (text.isascii() and text.isdigit() and len(text) < 4):
        return 0
    return int(text)


def count(given: Given, environment: dict[str, str], inherited: frozenset[int]) -> int:
    """How many descriptors from 3 on the program gets: LISTEN_FDS and --preserve-fds. Raises Invalid where one of them
    was not open when we began: by now its number may be one of our own."""
    number = listening(environment) + given.number("preserve-fds")
    if number > _PASSED_MOST:
        raise Unsupported(f"pass {number} descriptors", f"{_PASSED_MOST} are the most")
    for at in range(number):
        if 3 + at not in inherited:
            raise Invalid(f"pass {number} descriptors", f"descriptor {3 + at} is not open", "--preserve-fds")
    return number


def flat(whole: Plan) -> bytes:
    """The plan as bell reads it. Raises Unsupported when it needs more descriptors at once than there are."""
    try:
        return flatten(whole)
    except OverflowError as error:
        raise Unsupported("make the container", str(error), "fewer bind mounts, or fewer descriptors") from None


def variables(environment: dict[str, str]) -> tuple[str, ...]:
    """What tells the program of the sockets that it was passed; its pid is 1, as runc has it."""
    if not listening(environment):
        return ()
    names = environment.get("LISTEN_FDNAMES")
    told = (f"LISTEN_FDS={environment['LISTEN_FDS']}", "LISTEN_PID=1")
    return (*told, f"LISTEN_FDNAMES={names}") if names else told


def passed(number: int) -> dict[Ref, int]:
    """Copies of the caller's descriptors from 3 on, which count() has found open, by the refs of a plan."""
    import fcntl

    return {Ref(f"passed.{at}"): fcntl.fcntl(3 + at, fcntl.F_DUPFD_CLOEXEC, 16) for at in range(number)}


def write_pid(path: str, pid: int) -> None:
    """The pid file, whole or not at all. Raises Error."""
    if not path:
        return
    draft = f"{os.path.dirname(path) or '.'}/.{os.path.basename(path)}.{os.getpid()}"
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            try:
                os.write(fd, str(pid).encode())
            finally:
                os.close(fd)
            os.rename(draft, path)
        except OSError:
            os.unlink(draft)
            raise
    except OSError as error:
        raise Error(f"write the pid file {path}", error.errno or 5) from error
