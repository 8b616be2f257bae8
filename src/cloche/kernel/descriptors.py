"""unix(7), SCM_RIGHTS: an open descriptor given to whoever listens at a socket."""

from __future__ import annotations

import os

_PATH_MOST = 107  # bytes of sun_path


def send_descriptor(path: str, descriptor: int, message: bytes) -> None:
    """Connect to the stream socket at `path`, send the message with the descriptor, and close. Raises OSError."""
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
        peer.sendall(message[peer.sendmsg([message], [rights]) :])
    finally:
        peer.close()
        if folder >= 0:
            os.close(folder)
