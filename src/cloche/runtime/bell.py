"""bell as a process: its sealed copy in memory, how it is started, what it reports. The program itself is bell.c.

control (SOCK_SEQPACKET)   bell -> here: reports so far, the last one a token or a failure, with a descriptor
                           here -> bell: one byte opens a gate; end-of-file makes it give up
status  (pipe)             bell -> here, behind the gate: reports, a failure; end-of-file means that exec succeeded
"""

from __future__ import annotations

import fcntl
import os
from struct import iter_unpack

from cloche.errors import Unsupported
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

RawRecord = tuple[int, int, int, int, int]  # kind, actor, number of the step, errno or pid, monotonic nanoseconds

DONE, FAILED, TOKEN, STARTED, ABORTED = 1, 2, 3, 4, 5
_RECORD = "=BBHiQ"
_SIZE = 16
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class Failure(Value):
    """A step that the kernel refused: its number in the plan, errno, and what more bell could say."""

    number: int
    errno: int
    detail: str = ""


def binary() -> str:
    """The path of the built program. Raises Unsupported."""
    path = os.path.join(os.path.dirname(__file__), "bell")
    if not os.path.exists(path):
        raise Unsupported("find bell", f"{path} has not been built", "run make bell")
    return path


def sealed(path: str) -> int:
    """A descriptor of a copy of the program in memory that nobody can ever write (memfd_create(2), F_ADD_SEALS)."""
    copy = os.memfd_create("bell", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(path, "rb") as source:
            os.write(copy, source.read())
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(copy)
        raise
    return copy


def spawn(bell: int, flat: bytes, stdio: tuple[int, int, int], control: int, status: int, passed: Sequence[int]) -> int:
    """Start bell on a flat plan; returns its pid. It gets these descriptors and no others, no environment, default
    signals."""
    plan = os.memfd_create("plan", os.MFD_CLOEXEC)
    try:
        os.write(plan, flat)
        wanted = (*stdio, control, status, plan, *passed)
        # moved up first, so that no dup2 overwrites a descriptor that is still to be moved
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64 + len(wanted)) for fd in (*wanted, bell)]
        try:
            actions = [(os.POSIX_SPAWN_DUP2, fd, place) for place, fd in enumerate(high[:-1])]
            return os.posix_spawn(
                f"/proc/self/fd/{high[-1]}", ["bell"], {}, file_actions=actions, setsigmask=[], setsigdef=range(1, 32)
            )
        finally:
            for fd in high:
                os.close(fd)
    finally:
        os.close(plan)


def parse(message: bytes) -> tuple[tuple[RawRecord, ...], Failure | None]:
    """Reports of one message or of the status pipe's content, as (kind, actor, step, errno or pid, nanoseconds).

    What follows a failure is its text. Raises ValueError for bytes that bell never writes.
    """
    whole = len(message) - len(message) % _SIZE
    records = tuple(iter_unpack(_RECORD, message[:whole]))
    for at, (kind, _, number, errno, length) in enumerate(records):
        if kind == FAILED:
            text = message[(at + 1) * _SIZE :][:length]
            return records[:at], Failure(number, errno, text.decode("utf-8", "backslashreplace"))
    if whole != len(message):
        raise ValueError(f"{len(message) - whole} stray bytes in a report")
    return records, None


def peek(pipe: int) -> bytes:
    """What is in a pipe, left where it is (tee(2)); at most 64 KiB. Raises OSError."""
    from cloche.kernel.pipes import tee

    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        count = tee(pipe, writing, 1 << 16)
        return os.read(reading, count) if count else b""
    except BlockingIOError:
        return b""
    finally:
        os.close(reading)
        os.close(writing)
