"""netlink(7): messages, attributes, and a socket that sends them and reads the kernel's answers.

Attributes are written as in the kernel's headers: two bytes length, two bytes type, the value, padding to four bytes.
Not its business: what messages mean (rtnetlink, nftables).
"""

from __future__ import annotations

import os
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

ROUTE, NETFILTER = 0, 12

# linux/netlink.h
REQUEST, MULTI, ACK = 0x1, 0x2, 0x4
EXCL, CREATE, APPEND = 0x200, 0x400, 0x800
DUMP = 0x300
_CAPPED, _TLVS = 0x100, 0x200
_ERROR, _DONE = 2, 3
NESTED, _TYPE = 0x8000, 0x3FFF
_SOL_NETLINK, _EXT_ACK, _CAP_ACK = 270, 11, 10
_SPACE = 1 << 18

_HEADER = Struct("=IHHII")
_ATTRIBUTE = Struct("=HH")
_U32 = Struct("=I")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")

Message = tuple[int, int, bytes]  # type, flags, body


class Refused(OSError):
    """What the kernel refused, with the sentence that it gave beside the errno, where it gave one.

    `index`: which of the messages sent together it was.
    """

    def __init__(self, errno: int, sentence: str, index: int = 0) -> None:
        super().__init__(errno, os.strerror(errno))
        self.sentence, self.index = sentence, index


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute."""
    size = len(value)
    return _ATTRIBUTE.pack(size + 4, kind) + value + _PADDING[size & 3]


def text(kind: int, value: str) -> bytes:
    """A string, ended by a zero byte."""
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    """A number of 32 bits, in the machine's byte order."""
    return attribute(kind, _U32.pack(value))


def nest(kind: int, *attributes: bytes) -> bytes:
    """Attributes within an attribute."""
    return attribute(kind | NESTED, b"".join(attributes))


def attributes(data: bytes, at: int = 0) -> dict[int, bytes]:
    """The attributes in `data` from `at` on, by type; of several of one type the last. Raises ValueError."""
    found: dict[int, bytes] = {}
    while at + 4 <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if size < 4 or at + size > len(data):
            raise ValueError("a netlink attribute is longer than its message")
        found[kind & _TYPE] = data[at + 4 : at + size]
        at += (size + 3) & ~3
    return found


def frame(messages: tuple[Message, ...], sequence: int) -> bytes:
    """The messages as one datagram; the first has the number `sequence`, the others follow."""
    parts = []
    for number, (kind, flags, body) in enumerate(messages, sequence):
        padded = len(body) + 16
        parts.append(_HEADER.pack(padded, kind, flags | REQUEST, number, 0) + body + _PADDING[padded & 3])
    return b"".join(parts)


class Netlink:
    """A netlink socket. It belongs to the network namespace in which it was made, whoever uses it later."""

    def __init__(self, protocol: int) -> None:
        """Raises OSError."""
        import _socket

        self._socket = _socket.socket(16, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, protocol)  # 16: AF_NETLINK
        self._prepare()

    @classmethod
    def of(cls, fd: int) -> Self:
        """Take over a descriptor of a netlink socket."""
        import _socket

        made = cls.__new__(cls)
        made._socket = _socket.socket(fileno=fd)
        made._begin()
        return made

    def _begin(self) -> None:
        from _thread import allocate_lock

        self._sequence = 0
        self._asking = allocate_lock()  # several threads may ask by the one that is shared

    def _prepare(self) -> None:
        self._begin()
        for option in (_EXT_ACK, _CAP_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """The descriptor."""
        return self._socket.fileno()

    def detach(self) -> int:
        """Give the descriptor away."""
        return self._socket.detach()

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def ask(self, *messages: Message) -> list[bytes]:
        """Send messages in one datagram and read until the last that wants it is acknowledged; the bodies of answers.

        Raises Refused for the first that the kernel did not do; the others have been done or not, as its kind says.
        """
        with self._asking:
            return self._ask(messages)

    def _ask(self, messages: tuple[Message, ...]) -> list[bytes]:
        first = self._sequence + 1
        self._sequence += len(messages)
        self._socket.send(frame(messages, first))
        awaited = {first + i for i, (_, flags, _) in enumerate(messages) if flags & (ACK | DUMP)}
        bodies: list[bytes] = []
        problem: Refused | None = None
        while awaited:
            for number, error, body in _answers(self._socket.recv(_SPACE)):
                if number < first:
                    continue  # of an earlier request that was given up
                if error is None:
                    bodies.append(body)
                    continue
                awaited.discard(number)
                if error and problem is None:
                    problem = Refused(error, _sentence(body), number - first)
                if error and not awaited & {number}:
                    awaited = _still(awaited, number, messages, first)
        if problem:
            raise problem
        return bodies


_shared: dict[int, tuple[int, Netlink]] = {}


def shared(protocol: int) -> Netlink:
    """This process's socket of a protocol, made once and kept: closing one of NETFILTER that has deleted something
    waits for a grace period of the kernel, 7 to 25 ms. Raises OSError."""
    pid, socket = _shared.get(protocol, (0, None))
    if socket is None or pid != os.getpid():  # its port is of the process that made it
        socket = Netlink(protocol)
        _shared[protocol] = os.getpid(), socket
    return socket


def close_shared() -> None:
    """Close those of shared(); they are made again when they are needed."""
    for _, socket in _shared.values():
        socket.close()
    _shared.clear()


def _still(awaited: set[int], failed: int, messages: tuple[Message, ...], first: int) -> set[int]:
    """What is still answered after a refusal: messages sent together are each tried, but for nftables' batches, of
    which nothing more is heard."""
    if messages[failed - first][0] >> 8 == 10 or messages[0][0] == 16:  # NFNL_SUBSYS_NFTABLES, NFNL_MSG_BATCH_BEGIN
        return set()
    return awaited


def _answers(data: bytes) -> Iterator[tuple[int, int | None, bytes]]:
    """(sequence, errno or None for content, body) of each message in a datagram."""
    at = 0
    while at + 16 <= len(data):
        size, kind, flags, number, _ = _HEADER.unpack_from(data, at)
        if size < 16:
            break
        body = data[at + 16 : at + size]
        if kind == _ERROR:
            skip = 4 + (16 if flags & _CAPPED else int.from_bytes(body[4:8], "little"))
            yield number, -int.from_bytes(body[:4], "little", signed=True), body[skip:] if flags & _TLVS else b""
        elif kind == _DONE:
            error = int.from_bytes(body[:4], "little", signed=True) if len(body) >= 4 else 0
            yield number, -error, b""
        else:
            yield number, None, body
        at += (size + 3) & ~3


def _sentence(tlvs: bytes) -> str:
    """The kernel's extended acknowledgement, NLMSGERR_ATTR_MSG."""
    try:
        return attributes(tlvs).get(1, b"").rstrip(b"\0").decode("ascii", "replace")
    except ValueError:
        return ""
