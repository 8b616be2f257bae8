"""Messages between processes of one store: JSON over SOCK_SEQPACKET, descriptors beside them (unix(7), SCM_RIGHTS).

    client -> keeper   {"op": "start" | "wait" | "attach" | "exec" | "info" | "handover" | "end", "id": ..., ...}
    keeper -> client   {"ok": true, ...}, {"error": ..., ...}, or {"older": its version} to a newer client's plan;
                       a wait is answered when the end has been recorded, with the id: many may go by one connection
    keeper -> holder   put (descriptors by name), close (one of them), drop, status, handover, end; see engine.holder

A peer may be killed at any moment. Requests name containers by id and starts by attempt, so that asking again is
harmless.
"""

from __future__ import annotations

import _socket
import os
from struct import pack, unpack

from cloche.document import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

VERSION = 6  # raised when a keeper could not obey a client of before: other messages, plans, records for bell
MOST = 1 << 17
DONTWAIT = _socket.MSG_DONTWAIT
_FDS = 64


def send(sock: _socket.socket, message: dict[str, Any], fds: Sequence[int] = (), flags: int = 0) -> None:
    """Send one message. Raises OSError when the peer is gone; BlockingIOError with DONTWAIT when it does not read."""
    data = dumps(message).encode()
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack(f"{len(fds)}i", *fds))] if fds else []
    sock.sendmsg([data], rights, _socket.MSG_NOSIGNAL | flags)


def receive(sock: _socket.socket, flags: int = 0) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message with its descriptors, or None at the end.

    Raises OSError (BlockingIOError with DONTWAIT), ValueError (cut, not JSON, not an object): no descriptor stays open.
    """
    space = _socket.CMSG_SPACE(4 * _FDS)
    while True:
        try:
            data, ancillary, found, _ = sock.recvmsg(MOST, space, _socket.MSG_CMSG_CLOEXEC | flags)
            break
        except ConnectionResetError:
            continue  # it died with bytes unread; what it had sent is queued behind this error
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds += unpack(f"{len(payload) // 4}i", payload[: len(payload) // 4 * 4])
    try:
        return _message(data, found), fds
    except ValueError:
        for fd in fds:
            os.close(fd)
        raise


def _message(data: bytes, flags: int) -> dict[str, Any] | None:
    if not data:
        return None
    if flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
        raise ValueError("a message was cut")
    try:
        message = loads(data)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(message, dict):
        raise ValueError("not an object")
    return message


def end(sock: _socket.socket) -> None:
    """No more goes either way; what has been sent is still read. One whose peer is gone has ended already."""
    try:
        sock.shutdown(_socket.SHUT_RDWR)
    except OSError:
        pass


def pair() -> tuple[_socket.socket, _socket.socket]:
    """Two connected ends."""
    import socket

    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)


def maker(end: _socket.socket) -> int:
    """The process that made a pair, whether it lives or not (SO_PEERCRED, unix(7))."""
    return int.from_bytes(end.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 4), "little")


def connect(path: str) -> _socket.socket:
    """A connection to the one who listens at `path`. Raises OSError."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock
