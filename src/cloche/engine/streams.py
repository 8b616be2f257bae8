"""The standard streams of a new process: which ends it gets, which stay with keeper and holder."""

from __future__ import annotations

import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def open_streams(notes: dict[str, Any], is_exec: bool) -> tuple[tuple[int, int, int], dict[str, int]]:
    """The process's 0, 1, 2, to be closed by the caller once it has them; and our ends by name.

    out, err: reading ends of its output; of a terminal `out` and `pump` are the pipe that what it shows goes through.
    input: the writing end of its stdin. Output pipes are opened for reading too: a container whose every reader is dead
    waits, instead of dying of SIGPIPE. An exec's output is read by its client, who waits: it may block there.
    """
    room = min(notes["log_buffer"], _most()) if notes.get("log_buffer") else 0
    ours: dict[str, int] = {}
    stdin = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    if notes["tty"] or notes["detached"]:
        outs = [os.dup(stdin), os.dup(stdin)]
        if notes["tty"] and not is_exec:
            ours["out"], ours["pump"] = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            if room:
                fcntl.fcntl(ours["out"], fcntl.F_SETPIPE_SZ, room)
    else:
        outs = []
        for name in ("out", "err"):
            ours[name], writing = os.pipe2(os.O_CLOEXEC | (0 if is_exec else os.O_NONBLOCK))
            outs.append(os.open(f"/proc/self/fd/{writing}", os.O_RDWR | os.O_CLOEXEC))
            os.close(writing)
            if room:
                fcntl.fcntl(ours[name], fcntl.F_SETPIPE_SZ, room)
    if notes["stdin"] and not notes["tty"]:
        os.close(stdin)
        stdin, ours["input"] = os.pipe2(os.O_CLOEXEC)
    return (stdin, outs[0], outs[1]), ours


def _most() -> int:
    """Bytes that a pipe may have without a privilege, pipe(7)."""
    with open("/proc/sys/fs/pipe-max-size", encoding="ascii") as file:
        return int(file.read())
