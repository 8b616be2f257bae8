"""The attached client on real pseudo-terminals: the caller's terminal is given back however it ends."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import termios
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloche.cli.terminal import Streams, attach
from cloche.errors import Error
from cloche.kernel.terminal import (
    Attributes,
    WindowSize,
    attributes,
    raw,
    set_attributes,
    set_window_size,
    window_size,
)
from cloche.runtime.log import STDOUT, LogWriter
from cloche.runtime.logview import Follower

SECONDS = 10.0


class Done:
    def __init__(self) -> None:
        self.out, self.into = os.pipe()

    def fileno(self) -> int:
        return self.out

    def result(self) -> int:
        return os.read(self.out, 1)[0]


class Room:
    """A person at a terminal, a client in its own process, a container on another pseudo-terminal, and its keeper."""

    def __init__(self, directory: Path) -> None:
        self.directory = str(directory)
        self.keyboard, self.terminal = os.openpty()
        self.master, self.slave = os.openpty()
        set_window_size(self.terminal, WindowSize(24, 80))
        set_attributes(self.slave, raw(attributes(self.slave)))
        self.found = attributes(self.terminal)
        self.pipe = os.pipe()
        self.done = Done()
        self.writer = LogWriter(self.directory, 1 << 20, 100)
        self.report, self.reports = os.pipe()
        self.client = 0

    def attach(self, send_signal: Callable[[int], None] = lambda _: None, **named: object) -> None:
        """Start the client and wait until it has made the terminal raw (or is to be in its loop)."""
        self.client = os.fork()
        if self.client:
            os.close(self.reports)
            return
        try:
            os.setsid()
            fcntl.ioctl(self.terminal, termios.TIOCSCTTY, 0)
            os.close(self.keyboard)
            for fd in (0, 1, 2):
                os.dup2(self.terminal, fd)
            with Follower(self.directory) as follower:
                streams = Streams(follower, self.done, self.master, self.master, send_signal=send_signal)
                outcome = attach(streams, **{"tty": True, **named})  # type: ignore[arg-type]
            os.write(self.reports, repr(outcome).encode())
            os._exit(0)
        except Error as problem:
            os.write(self.reports, str(problem).encode())
            os._exit(1)
        except BaseException:  # noqa: BLE001 - the child of a fork must not return into pytest
            os.write(self.reports, traceback.format_exc().encode())
            os._exit(2)

    def say(self, data: bytes) -> None:
        os.write(self.pipe[1], data)
        while data:
            data = data[self.writer.take(self.pipe[0], STDOUT) :]

    def wait(self, true: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not true():
            assert time.monotonic() < deadline, f"{what}; the client says {self.said()!r}"
            time.sleep(0.002)

    def raw(self) -> bool:
        return not attributes(self.terminal).local & termios.ICANON

    def given_back(self) -> bool:
        return attributes(self.terminal) == self.found

    def said(self) -> bytes:
        return os.read(self.report, 65536) if select.select([self.report], [], [], 0)[0] else b""

    def ended(self) -> str:
        """Wait for the client, and return what it reports."""
        text = b""
        while data := os.read(self.report, 65536):
            text += data
        os.waitpid(self.client, 0)
        self.client = 0
        return text.decode()

    def close(self) -> None:
        if self.client:
            os.kill(self.client, signal.SIGKILL)
            os.waitpid(self.client, 0)
        self.writer.close()
        for fd in (self.keyboard, self.terminal, self.master, self.slave, *self.pipe, self.done.out, self.done.into):
            try:
                os.close(fd)
            except OSError:
                pass
        os.close(self.report)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    made.close()


def read(fd: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        assert select.select([fd], [], [], SECONDS)[0], f"only {data!r}"
        data += os.read(fd, count - len(data))
    return data


def attached(room: Room, **named: object) -> Room:
    room.attach(**named)  # type: ignore[arg-type]
    room.wait(room.raw, "the terminal becomes raw")
    return room


def test_keys_and_output_pass_unchanged_and_the_terminal_is_given_back(room: Room) -> None:
    attached(room)
    os.write(room.keyboard, b"ls\r\x03\x1a\x04\x13")  # ctrl-c, ctrl-z, ctrl-d and ctrl-s are the container's
    assert read(room.slave, 7) == b"ls\r\x03\x1a\x04\x13"
    room.say(b"a\nb\r\n\x1b[31m")
    assert read(room.keyboard, 10) == b"a\nb\r\n\x1b[31m"
    os.write(room.done.into, b"\x07")
    assert room.ended() == "Outcome(how='exited', result=7, signal=0)"
    assert room.given_back()


def test_detach_keys_leave_and_a_beginning_of_them_is_passed_on(room: Room) -> None:
    attached(room)
    os.write(room.keyboard, b"\x10x")
    assert read(room.slave, 2) == b"\x10x"
    os.write(room.keyboard, b"\x10")
    time.sleep(0.02)
    os.write(room.keyboard, b"\x11")
    assert room.ended() == "Outcome(how='detached', result=None, signal=0)"
    assert room.given_back()


def test_the_size_is_the_containers_from_the_start_and_after_each_change(room: Room) -> None:
    attached(room)
    room.wait(lambda: window_size(room.slave) == WindowSize(24, 80), "the first size")
    for size in (WindowSize(50, 132, 800, 600), WindowSize(10, 20)):
        set_window_size(room.keyboard, size)
        room.wait(lambda size=size: window_size(room.slave) == size, "the new size")
    os.write(room.done.into, b"\0")
    assert "exited" in room.ended()


def test_a_terminal_without_a_size_changes_nothing(room: Room) -> None:
    set_window_size(room.slave, WindowSize(7, 7))
    set_window_size(room.terminal, WindowSize(0, 0))
    attached(room)
    room.say(b"x")
    read(room.keyboard, 1)
    assert window_size(room.slave) == WindowSize(7, 7)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_that_ends_the_client_gives_the_terminal_back(room: Room, number: int) -> None:
    attached(room)
    os.kill(room.client, number)
    assert room.ended() == f"Outcome(how='interrupted', result=None, signal={number})"
    assert room.given_back()


def test_an_error_gives_the_terminal_back(room: Room) -> None:
    room.done.result = lambda: broken()  # type: ignore[method-assign]

    def broken() -> int:
        raise Error("ask the keeper", "it is gone")

    attached(room)
    os.write(room.done.into, b"x")
    assert room.ended() == "ask the keeper: it is gone"
    assert room.given_back()


def test_a_slip_in_the_code_gives_the_terminal_back(room: Room) -> None:
    room.done.result = lambda: 1 // 0  # type: ignore[method-assign]
    attached(room)
    os.write(room.done.into, b"x")
    assert "ZeroDivisionError" in room.ended()
    assert room.given_back()


def test_a_terminal_that_hangs_up_ends_the_client_and_leaves_the_container(room: Room) -> None:
    attached(room)
    os.close(room.terminal)
    os.close(room.keyboard)
    assert room.ended() == f"Outcome(how='interrupted', result=None, signal={int(signal.SIGHUP)})"
    os.write(room.slave, b"alive")
    assert read(room.master, 5) == b"alive"


def test_stopped_from_outside_it_gives_the_terminal_back_and_takes_it_again(room: Room) -> None:
    attached(room)
    os.kill(room.client, signal.SIGTSTP)
    _, status = os.waitpid(room.client, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    assert room.given_back()
    set_window_size(room.keyboard, WindowSize(33, 99))
    os.kill(room.client, signal.SIGCONT)
    room.wait(room.raw, "raw again")
    room.wait(lambda: window_size(room.slave) == WindowSize(33, 99), "the size that changed meanwhile")
    os.write(room.keyboard, b"still here")
    assert read(room.slave, 10) == b"still here"
    os.write(room.done.into, b"\0")
    assert "exited" in room.ended()
    assert room.given_back()


def test_continued_after_sigstop_the_terminal_is_raw_again(room: Room) -> None:
    attached(room)
    os.kill(room.client, signal.SIGSTOP)
    os.waitpid(room.client, os.WUNTRACED)
    set_attributes(room.terminal, room.found)  # as a shell does
    os.kill(room.client, signal.SIGCONT)
    room.wait(room.raw, "raw again")


def test_a_terminal_that_does_not_read_stops_nothing_else(room: Room) -> None:
    attached(room)
    for _ in range(20):
        room.say(b"x" * 65536)  # far more than a pseudo-terminal holds
    os.write(room.keyboard, b"typed")
    assert read(room.slave, 5) == b"typed"
    set_window_size(room.keyboard, WindowSize(11, 22))
    room.wait(lambda: window_size(room.slave) == WindowSize(11, 22), "the new size")
    os.write(room.done.into, b"\0")
    assert read(room.keyboard, 20 * 65536) == b"x" * (20 * 65536)
    assert "exited" in room.ended()


def test_a_container_that_does_not_read_can_be_left_by_its_keys(room: Room) -> None:
    attached(room)
    os.set_blocking(room.keyboard, False)
    sent = 0
    while sent < 100_000 and select.select([], [room.keyboard], [], 1)[1]:
        sent += os.write(room.keyboard, b"y" * 1000)
    assert sent >= 100_000
    os.write(room.keyboard, b"\x10\x11")
    assert "detached" in room.ended()
    assert room.given_back()


def test_redraw_is_always_a_change_of_size(room: Room) -> None:
    set_window_size(room.slave, WindowSize(24, 80))
    before = fcntl.ioctl  # the sizes that are set, in order

    sizes: list[bytes] = []

    def noted(fd: int, request: int, argument: bytes = b"") -> bytes:
        if request == termios.TIOCSWINSZ:
            sizes.append(argument)
            os.write(room.reports, repr(WindowSize(*memoryview(argument).cast("H"))).encode() + b"\n")
        return before(fd, request, argument)

    fcntl.ioctl = noted  # type: ignore[assignment]
    try:
        room.attach(redraw=True)
    finally:
        fcntl.ioctl = before
    os.write(room.done.into, b"\0")
    first, second, _ = room.ended().split("\n")
    assert (first, second) == (repr(WindowSize(25, 81)), repr(WindowSize(24, 80)))


def test_raw_mode_is_what_the_c_library_makes(room: Room) -> None:
    import tty

    other_master, other = os.openpty()
    set_attributes(other, room.found)
    tty.setraw(other)
    ours = raw(room.found)
    theirs = attributes(other)
    assert ours.local == theirs.local
    assert ours.control == theirs.control
    assert ours.flags == theirs.flags
    assert not ours.output & termios.OPOST
    assert not ours.input & (termios.ICRNL | termios.IXON | termios.ISTRIP | termios.BRKINT | termios.IGNBRK)
    set_attributes(other, ours)
    assert attributes(other) == ours
    os.close(other)
    os.close(other_master)


def test_what_is_no_terminal_says_enotty() -> None:
    with open("/dev/null", "rb") as null:
        for ask in (attributes, window_size):
            with pytest.raises(OSError) as refused:
                ask(null.fileno())
            assert refused.value.errno == 25
        with pytest.raises(OSError) as refused:
            set_attributes(null.fileno(), Attributes(0, 0, 0, 0, 0, 0, (b"\0",) * 32))
        assert refused.value.errno == 25


def test_a_pty_is_moved_into_a_pipe_without_being_looked_at() -> None:
    """splice(2) from a master: what the keeper does for a log of a container with a terminal."""
    master, slave = os.openpty()
    out, into = os.pipe()
    os.set_blocking(master, False)
    set_attributes(slave, raw(attributes(slave)))
    os.write(slave, b"from the terminal")
    assert os.splice(master, into, 65536, flags=os.SPLICE_F_NONBLOCK) == 17
    assert os.read(out, 100) == b"from the terminal"
    with pytest.raises(BlockingIOError):
        os.splice(master, into, 65536, flags=os.SPLICE_F_NONBLOCK)
    os.close(slave)
    with pytest.raises(OSError, match=os.strerror(5)):  # EIO: nobody has it open
        os.splice(master, into, 65536, flags=os.SPLICE_F_NONBLOCK)
    for fd in (master, out, into):
        os.close(fd)
