"""Terminals: window size (ioctl_tty(2)) and line settings (termios(3)) as values, read, changed and given back."""

from __future__ import annotations

from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class WindowSize(Value):
    """In characters, and in pixels where the terminal says so."""

    rows: int
    columns: int
    x_pixels: int = 0
    y_pixels: int = 0


class Attributes(Value):
    """struct termios. `control` is c_cc: bytes of length one; VMIN and VTIME are numbers when not in canonical mode."""

    input: int
    output: int
    flags: int
    local: int
    input_speed: int
    output_speed: int
    control: tuple[bytes | int, ...]


def window_size(fd: int) -> WindowSize:
    """TIOCGWINSZ. Raises OSError (ENOTTY when `fd` is no terminal)."""
    from fcntl import ioctl
    from struct import unpack
    from termios import TIOCGWINSZ

    return WindowSize(*unpack("HHHH", ioctl(fd, TIOCGWINSZ, bytes(8))))


def set_window_size(fd: int, size: WindowSize) -> None:
    """TIOCSWINSZ, on either side of a pair; a change sends SIGWINCH to the foreground there. Raises OSError."""
    from fcntl import ioctl
    from struct import pack
    from termios import TIOCSWINSZ

    ioctl(fd, TIOCSWINSZ, pack("HHHH", *size))


def attributes(fd: int) -> Attributes:
    """tcgetattr(3). Raises OSError (ENOTTY when `fd` is no terminal)."""
    import termios

    try:
        values: list[Any] = termios.tcgetattr(fd)
    except termios.error as problem:
        raise OSError(*problem.args) from None
    values[6] = tuple(values[6])
    return Attributes(*values)


def set_attributes(fd: int, new: Attributes) -> None:
    """tcsetattr(3), at once. From a background process it stops the caller with SIGTTOU. Raises OSError."""
    import errno
    import termios

    values: list[Any] = [*new]
    values[6] = list(new.control)
    while True:
        try:
            return termios.tcsetattr(fd, termios.TCSANOW, values)
        except termios.error as problem:
            if problem.args[0] != errno.EINTR:  # stopped and continued: now we are in the foreground
                raise OSError(*problem.args) from None


def raw(now: Attributes) -> Attributes:
    """`now` with nothing interpreted on the way in or out, as cfmakeraw(3) does it: control keys become bytes."""
    import termios as t

    control = list(now.control)
    control[t.VMIN], control[t.VTIME] = 1, 0
    return now.replace(
        input=now.input & ~(t.IGNBRK | t.BRKINT | t.PARMRK | t.ISTRIP | t.INLCR | t.IGNCR | t.ICRNL | t.IXON),
        output=now.output & ~t.OPOST,
        flags=now.flags & ~(t.CSIZE | t.PARENB) | t.CS8,
        local=now.local & ~(t.ECHO | t.ECHONL | t.ICANON | t.ISIG | t.IEXTEN),
        control=tuple(control),
    )


class RawMode:
    """A terminal in raw mode while entered; `leave` gives it back exactly as it was found, and may be called twice.

    What is killed with SIGKILL cannot give it back; `stty sane` does.
    """

    def __init__(self, fd: int) -> None:
        """Raises OSError when `fd` is no terminal."""
        self.fd = fd
        self.found = attributes(fd)

    def __enter__(self) -> RawMode:
        self.enter()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def enter(self) -> None:
        """Set raw mode. Raises OSError."""
        set_attributes(self.fd, raw(self.found))

    def leave(self) -> None:
        """Give it back, also from the background (SIGTTOU is blocked meanwhile); a terminal that hung up stays so."""
        from cloche.kernel.signals import TTOU, Blocked

        with Blocked(TTOU):
            try:
                set_attributes(self.fd, self.found)
            except OSError:
                pass
