"""bell as a process: its sealed copy in memory, how it is started, what it reports. The program itself is bell.c.

control (SOCK_SEQPACKET)   bell -> here: reports so far, the last one a token or a failure, with a descriptor
                           here -> bell: one byte opens a gate; end-of-file makes it give up
status  (pipe)             bell -> here, behind the gate: reports, a failure; end-of-file means that exec succeeded
"""

from __future__ import annotations

import fcntl
import os
from errno import ECHILD
from struct import iter_unpack, pack

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


class Bell:
    """A process of bell's that makes the others, each on one plan: it forks itself, so nothing is executed, and who
    asks is not copied, however many descriptors it holds. They are children of who asks (CLONE_PARENT).

    It is started by the first `spawn`, and again by the next one after somebody has killed it.
    """

    def __init__(self) -> None:
        """Raises Unsupported where it has not been built."""
        self._program = sealed(binary())
        self._pid, self._sock = 0, -1

    def close(self) -> None:
        """It ends by that."""
        self._end()
        os.close(self._program)

    def spawn(self, flat: bytes, stdio: tuple[int, int, int], control: int, status: int, passed: Sequence[int]) -> int:
        """Start bell on a flat plan; returns its pid, of a child of ours. It gets these descriptors and no others, no
        environment, default signals. Raises OSError."""
        plan = os.memfd_create("plan", os.MFD_CLOEXEC)
        try:
            os.write(plan, flat)
            wanted = (*stdio, control, status, plan, *passed)
            try:
                return self._ask(wanted)
            except (BrokenPipeError, ConnectionResetError):  # it died before it read what we asked
                self._end()
                return self._ask(wanted)
        finally:
            os.close(plan)

    def _ask(self, fds: Sequence[int]) -> int:
        import _socket

        if self._sock < 0:
            self._begin()
        peer = _socket.socket(fileno=self._sock)
        try:
            rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack(f"{len(fds)}i", *fds))
            peer.sendmsg([b"x"], [rights], _socket.MSG_NOSIGNAL)
            answer = peer.recv(4)
        finally:
            peer.detach()
        if len(answer) < 4:
            self._end()
            raise ChildProcessError(ECHILD, os.strerror(ECHILD))  # whether it has made one, nobody knows
        pid = int.from_bytes(answer, "little", signed=True)
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid

    def _begin(self) -> None:
        import _socket

        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        # moved up first, so that no dup2 overwrites it
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16) for fd in (theirs.fileno(), self._program)]
        try:
            self._pid = os.posix_spawn(
                f"/proc/self/fd/{high[1]}",
                ["bell", "serve"],
                {},
                file_actions=[(os.POSIX_SPAWN_DUP2, high[0], 3)],
                setsigmask=[],
                setsigdef=range(1, 32),
            )
            self._sock = ours.detach()
        finally:
            for fd in high:
                os.close(fd)
            theirs.close()

    def _end(self) -> None:
        if self._sock >= 0:
            os.close(self._sock)
            self._sock = -1
            try:
                os.waitpid(self._pid, 0)
            except ChildProcessError:
                pass  # whoever reaps all children has reaped it


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
