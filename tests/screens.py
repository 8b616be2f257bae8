"""A terminal as a test has one: it holds the master of a pseudo-terminal whose other side is the client's."""

from __future__ import annotations

import fcntl
import os
import re
import select
import subprocess
import termios
import time
from collections.abc import Callable

from cloche.kernel.terminal import WindowSize, attributes, set_window_size
from commands import COMMAND

PROMPT = "ready> "
SECONDS = max(30.0, float(os.environ.get("CLOCHE_TEST_LIMIT", "0")) / 2)


def eventually(holds: Callable[[], bool], what: str) -> None:
    """For what only another process can be asked about."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class Screen:
    """A terminal of 24 lines and 80 columns, and one client at a time that has it as its controlling terminal."""

    def __init__(self) -> None:
        self.keyboard, self.terminal = os.openpty()
        os.set_blocking(self.keyboard, False)
        self.resize(24, 80)
        settings = termios.tcgetattr(self.terminal)
        settings[0] |= termios.IXANY  # nobody's default, so giving back a default is not giving back
        settings[6][termios.VERASE] = b"\x08"
        termios.tcsetattr(self.terminal, termios.TCSANOW, settings)
        self.found = attributes(self.terminal)
        self.shown = b""
        self.client: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        """A client as the leader of a session with this terminal."""
        assert self.client is None
        self.client = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=self.terminal,
            stdout=self.terminal,
            stderr=self.terminal,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads here
        )

    def signal(self, number: int) -> None:
        assert self.client
        self.client.send_signal(number)

    def attach(self, *arguments: str) -> None:
        """A client that joins what runs: it is awaited until it has made the terminal raw. Typed before, keys would
        show twice, as under a shell."""
        self.start(*arguments)
        eventually(lambda: attributes(self.terminal) != self.found, "the terminal is raw")

    def resize(self, rows: int, columns: int) -> None:
        """As a terminal's window does it; the kernel sends SIGWINCH to the client."""
        set_window_size(self.keyboard, WindowSize(rows, columns))

    def type(self, keys: bytes | str) -> None:
        """All of it, however slowly it is taken."""
        data = memoryview(keys.encode() if isinstance(keys, str) else keys)
        while data:
            assert select.select([], [self.keyboard], [], SECONDS)[1], f"{len(data)} bytes are not taken"
            try:
                data = data[os.write(self.keyboard, data) :]
            except BlockingIOError:
                continue

    def look(self) -> None:
        """Wait for more on the screen."""
        assert select.select([self.keyboard], [], [], SECONDS)[0], f"nothing more after {self.shown[-2000:]!r}"
        self.shown += os.read(self.keyboard, 1 << 16)

    def until(self, pattern: str) -> bytes:
        """Wait for it; all that was shown up to its end. The screen goes on after it."""
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(pattern.encode(), self.shown, re.DOTALL)):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.shown[-2000:]!r}"
            self.look()
        before, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return before

    def ask(self, line: str) -> str:
        """What a shell at its prompt answers to a line."""
        self.type(line + "\r")
        echo, _, answer = self.until(f"\r\n.*?{PROMPT}").decode().partition("\r\n")
        assert echo.endswith(line), echo
        return answer.removesuffix(PROMPT).replace("\r\n", "\n").rstrip("\n")

    def ended(self) -> int:
        """The client's exit code; the terminal must be exactly as it was found. The screen is read meanwhile."""
        assert self.client is not None
        handle = os.pidfd_open(self.client.pid)
        deadline = time.monotonic() + SECONDS
        try:
            while handle not in (ready := select.select([self.keyboard, handle], [], [], SECONDS)[0]):
                assert ready and time.monotonic() < deadline, f"the client goes on; {self.shown[-2000:]!r}"
                self.look()
        finally:
            os.close(handle)
        while select.select([self.keyboard], [], [], 0)[0]:
            self.look()
        code = self.client.wait()
        self.client = None
        assert attributes(self.terminal) == self.found
        assert b"Traceback" not in self.shown
        return code

    def clear(self) -> None:
        """What was shown is not looked at any more."""
        self.shown = b""

    def close(self) -> None:
        if self.client:
            self.client.kill()
            self.client.wait()
        for fd in (self.keyboard, self.terminal):
            if fd >= 0:
                os.close(fd)
