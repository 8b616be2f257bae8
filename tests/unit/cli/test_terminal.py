"""The attached client over pipes: every byte, every end, signals; the container is a thread and pipes."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloche.cli import terminal
from cloche.cli.terminal import Outcome, Streams, attach
from cloche.errors import Error, Invalid
from cloche.runtime.log import STDERR, STDOUT, LogWriter
from cloche.runtime.logview import Follower


class Ended:
    """Says that the container ended, with its exit code."""

    def __init__(self) -> None:
        self.out, self.into = os.pipe()
        self.code: int | None = None

    def fileno(self) -> int:
        return self.out

    def result(self) -> int | None:
        return self.code

    def end(self, code: int) -> None:
        self.code = code
        os.write(self.into, b"x")


class Container:
    """A log, a standard input, and what a test does in a thread beside the client."""

    def __init__(self, directory: Path) -> None:
        self.directory = str(directory)
        self.writer = LogWriter(self.directory, 1 << 20, 1000)
        self.pipe = os.pipe()
        self.stdin, self.input = os.pipe()
        self.done = Ended()
        self.signals: list[int] = []
        self.input_ended = 0

    def say(self, data: bytes, stream: int = STDOUT) -> None:
        for at in range(0, len(data), 32768):
            piece = data[at : at + 32768]
            os.write(self.pipe[1], piece)
            while piece:
                piece = piece[self.writer.take(self.pipe[0], stream) :]

    def end_input(self) -> None:
        self.input_ended += 1
        os.close(self.input)

    def attach(self, act: Callable[[], None] | None = None, **named: Any) -> Outcome:
        """Run the client here and `act` beside it."""
        problems: list[BaseException] = []

        def beside() -> None:
            try:
                if act:
                    act()
            except BaseException as problem:  # noqa: BLE001 - it is raised in the test below
                problems.append(problem)
                self.done.end(99)

        thread = threading.Thread(target=beside)
        with Follower(self.directory) as follower:
            streams = Streams(follower, self.done, self.input, None, self.end_input, self.signals.append)
            thread.start()
            try:
                outcome = attach(streams, **named)
            finally:
                thread.join()
        if problems:
            raise problems[0]
        return outcome


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    made = Container(tmp_path)
    yield made
    made.writer.close()
    ends = [*made.pipe, made.stdin, made.done.out, made.done.into] + ([] if made.input_ended else [made.input])
    for fd in ends:
        os.close(fd)


class Caller:
    """Our side: standard input, output and error as pipes."""

    def __init__(self) -> None:
        self.stdin, self.keys = os.pipe()
        self.screen, self.stdout = os.pipe()
        self.errors, self.stderr = os.pipe()

    def fds(self) -> dict[str, int]:
        return {"stdin": self.stdin, "stdout": self.stdout, "stderr": self.stderr}

    def shown(self, fd: int) -> bytes:
        """What there is without waiting."""
        os.set_blocking(fd, False)
        try:
            return os.read(fd, 1 << 20)
        except BlockingIOError:
            return b""


@pytest.fixture
def caller() -> Iterator[Caller]:
    made = Caller()
    yield made
    for fd in vars(made).values():
        try:
            os.close(fd)
        except OSError:
            pass


def test_output_of_both_streams_and_the_exit_code_arrive(container: Container, caller: Caller) -> None:
    container.say(b"before ")

    def act() -> None:
        container.say(b"out")
        container.say(b"err", STDERR)
        container.say(b" and last")
        container.done.end(0)

    assert container.attach(act, **caller.fds()) == Outcome("exited", 0)
    assert caller.shown(caller.screen) == b"before out and last"
    assert caller.shown(caller.errors) == b"err"


def test_input_arrives_whole_then_its_end(container: Container, caller: Caller) -> None:
    text = os.urandom(1 << 20)
    got = b""

    def act() -> None:
        nonlocal got
        feeder = threading.Thread(target=lambda: (write_all(caller.keys, text), os.close(caller.keys)))
        feeder.start()
        while data := os.read(container.stdin, 65536):
            got += data
        feeder.join()
        container.done.end(3)

    assert container.attach(act, **caller.fds()) == Outcome("exited", 3)
    assert got == text
    assert container.input_ended == 1


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def test_a_container_that_does_not_read_does_not_stop_its_output(container: Container, caller: Caller) -> None:
    feeder = threading.Thread(target=lambda: write_all(caller.keys, b"x" * 150_000), daemon=True)

    def act() -> None:
        feeder.start()
        time.sleep(0.05)  # the pipe to the container is full by now, or the test proves less
        container.say(b"still talking")
        assert wait_for(caller.screen) == b"still talking"
        container.done.end(0)

    assert container.attach(act, **caller.fds()).how == "exited"
    while feeder.is_alive():
        caller.shown(caller.stdin)


def wait_for(fd: int) -> bytes:
    assert select.select([fd], [], [], 10)[0]
    return os.read(fd, 65536)


def test_a_slow_reader_gets_every_byte_and_input_goes_on_meanwhile(container: Container, caller: Caller) -> None:
    text = os.urandom(1 << 20)
    got = b""

    def act() -> None:
        nonlocal got
        container.say(text)
        os.write(caller.keys, b"hello")
        assert wait_for(container.stdin) == b"hello"  # while nobody reads the output
        container.done.end(0)
        while len(got) < len(text):
            got += wait_for(caller.screen)

    assert container.attach(act, **caller.fds()) == Outcome("exited", 0)
    assert got == text


def test_the_callers_descriptors_stay_blocking(container: Container, caller: Caller) -> None:
    container.done.end(0)
    container.attach(**caller.fds())
    assert all(os.get_blocking(fd) for fd in caller.fds().values())


def test_input_that_the_container_closed_is_dropped_quietly(container: Container, caller: Caller) -> None:
    os.close(container.stdin)

    def act() -> None:
        os.write(caller.keys, b"nobody reads this")
        deadline = time.monotonic() + 10
        while not container.input_ended and time.monotonic() < deadline:
            time.sleep(0.001)
        container.say(b"alive")
        container.done.end(0)

    assert container.attach(act, **caller.fds()) == Outcome("exited", 0)
    assert container.input_ended == 1
    assert caller.shown(caller.screen) == b"alive"
    container.stdin = os.dup(caller.stdin)


def test_output_that_nobody_reads_ends_quietly(container: Container, caller: Caller) -> None:
    os.close(caller.screen)
    container.say(b"yes\n" * 1000)
    assert container.attach(**caller.fds()) == Outcome("broken", signal=signal.SIGPIPE)


def test_a_reader_that_goes_away_ends_quietly(container: Container, caller: Caller) -> None:
    def act() -> None:
        container.say(b"yes\n" * 100_000)
        wait_for(caller.screen)
        os.close(caller.screen)

    assert container.attach(act, **caller.fds()).how == "broken"


def test_a_full_disk_under_our_output_is_an_error(container: Container, caller: Caller) -> None:
    container.say(b"x")
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(Error, match="ENOSPC"):
        container.attach(**{**caller.fds(), "stdout": full})
    os.close(full)


def test_output_into_a_file_goes_where_its_offset_is(container: Container, caller: Caller, tmp_path: Path) -> None:
    with (tmp_path / "into").open("w+b", buffering=0) as file:
        file.write(b"before ")
        container.say(b"x" * 300_000)
        container.done.end(0)
        container.attach(**{**caller.fds(), "stdout": file.fileno()})
        file.write(b" after")
    assert (tmp_path / "into").read_bytes() == b"before " + b"x" * 300_000 + b" after"


def test_output_into_a_socket_works(container: Container, caller: Caller) -> None:
    ours, theirs = socket.socketpair()
    got = b""

    def act() -> None:
        nonlocal got
        container.say(b"y" * 500_000)
        container.done.end(0)
        while len(got) < 500_000:
            got += theirs.recv(65536)

    container.attach(act, **{**caller.fds(), "stdout": ours.fileno()})
    assert got == b"y" * 500_000
    ours.close()
    theirs.close()


def test_a_closed_output_is_said(container: Container) -> None:
    with pytest.raises(Error, match="closed"):
        container.attach(stdin=None, stdout=10_000)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGRTMIN + 3])
def test_signals_go_to_the_container(container: Container, caller: Caller, number: int) -> None:
    before = signal.getsignal(number)

    def act() -> None:
        container.say(b"up")
        wait_for(caller.screen)  # it is in its loop
        os.kill(os.getpid(), number)
        deadline = time.monotonic() + 10
        while not container.signals and time.monotonic() < deadline:
            time.sleep(0.001)
        container.done.end(128 + number)

    assert container.attach(act, **caller.fds()) == Outcome("exited", 128 + number)
    assert container.signals == [number]
    assert signal.getsignal(number) == before


def test_without_a_proxy_a_signal_ends_only_the_client(container: Container, caller: Caller) -> None:
    def act() -> None:
        container.say(b"up")
        wait_for(caller.screen)
        os.kill(os.getpid(), signal.SIGINT)

    assert container.attach(act, sig_proxy=False, **caller.fds()) == Outcome("interrupted", signal=signal.SIGINT)
    assert container.signals == []


def test_an_ignored_signal_stays_ignored(container: Container, caller: Caller) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def act() -> None:
        container.say(b"up")
        wait_for(caller.screen)
        os.kill(os.getpid(), signal.SIGHUP)
        container.done.end(0)

    try:
        assert container.attach(act, **caller.fds()) == Outcome("exited", 0)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert container.signals == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_wakeup_descriptor_is_given_back(container: Container, caller: Caller) -> None:
    out, into = os.pipe2(os.O_NONBLOCK)
    before = signal.set_wakeup_fd(into)
    try:
        container.done.end(0)
        container.attach(**caller.fds())
        assert signal.set_wakeup_fd(into) == into
    finally:
        signal.set_wakeup_fd(before)
        os.close(out)
        os.close(into)


def test_detach_keys_mean_nothing_without_a_terminal(container: Container, caller: Caller) -> None:
    def act() -> None:
        os.write(caller.keys, b"\x10\x11")
        assert wait_for(container.stdin) == b"\x10\x11"
        container.done.end(0)

    assert container.attach(act, **caller.fds()).how == "exited"


def test_bad_detach_keys_are_refused_before_anything_is_changed(container: Container, caller: Caller) -> None:
    with pytest.raises(Invalid):
        container.attach(tty=True, detach_keys="ctrl-ä", **caller.fds())


def test_an_error_from_the_keeper_comes_through_and_nothing_leaks(container: Container, caller: Caller) -> None:
    def lost() -> int:
        raise Error("ask the keeper", "it is gone")

    handlers = {number: signal.getsignal(number) for number in range(1, 32)}
    count = len(os.listdir("/proc/self/fd"))
    container.done.result = lost  # type: ignore[method-assign]
    container.done.end(0)
    with pytest.raises(Error, match="it is gone"):
        container.attach(**caller.fds())
    assert len(os.listdir("/proc/self/fd")) == count
    assert {number: signal.getsignal(number) for number in range(1, 32)} == handlers


def test_a_client_imports_nothing_slow() -> None:
    code = "import sys; sys.path.insert(0, %r); import cloche.value; before = set(sys.modules); "
    code += "import cloche.cli.terminal; "
    code += "print(*sorted(set(sys.modules) - before))"
    command = [sys.executable, "-I", "-S", "-c", code % str(Path(terminal.__file__).parents[2])]
    modules = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert not set(modules) & {"signal", "enum", "contextlib", "re", "ctypes", "threading", "subprocess", "termios"}
