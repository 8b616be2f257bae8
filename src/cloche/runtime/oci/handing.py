"""Handing over descriptors: a terminal or a pidfd to a unix socket of the caller's, the caller's own to the program."""

from __future__ import annotations

import os

from cloche.errors import Error, Invalid, Unsupported
from cloche.step.base import Ref
from cloche.step.flat import flatten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.runtime.oci.options import Given
    from cloche.step.base import Plan

_PASSED_MOST = 200  # of what one plan can name
_PATH_MOST = 107  # bytes of sun_path, unix(7)


def send(path: str, descriptor: int, name: str) -> None:
    """Connect to a socket and send one descriptor (SCM_RIGHTS), with its name as data. Raises Error."""
    import _socket

    peer = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    folder = -1
    try:
        where = path
        if len(os.fsencode(path)) > _PATH_MOST:  # a shorter name for the same place
            folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            where = f"/proc/self/fd/{folder}/{os.path.basename(path)}"
        peer.connect(where)
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptor.to_bytes(4, "little"))
        peer.sendmsg([name.encode()], [rights])
    except OSError as error:
        raise Error(f"send a descriptor to the socket {path}", error.errno or 5) from error
    finally:
        peer.close()
        if folder >= 0:
            os.close(folder)


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


def passed(number: int, inherited: frozenset[int]) -> dict[Ref, int]:
    """Copies of the caller's descriptors from 3 on, by the refs of a plan. Raises Invalid."""
    assert all(3 + at in inherited for at in range(number))
    import fcntl

    refs: dict[Ref, int] = {}
    for at in range(number):
        try:
            refs[Ref(f"passed.{at}")] = fcntl.fcntl(3 + at, fcntl.F_DUPFD_CLOEXEC, 16)
        except OSError as error:
            for fd in refs.values():
                os.close(fd)
            raise Invalid(f"pass {number} descriptors", f"descriptor {3 + at} is not open", "--preserve-fds") from error
    return refs


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
