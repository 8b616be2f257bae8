"""A client in the foreground: output from the log as the keeper writes it, input straight into the container.

What going along needs is imported while the keeper is at work: a millisecond that nobody waits for.
"""

from __future__ import annotations

import os

from cloche.engine.removal import follow as lock_log
from cloche.errors import Conflict, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.explaining import Explainer
    from cloche.cli.terminal import Outcome, Streams
    from cloche.engine.containers import Container, Engine, Started
    from cloche.runtime.logview import Woken

DEFAULT_KEYS = "ctrl-p,ctrl-q"
BROKEN = 141


def console_size(tty: bool) -> tuple[int, int]:
    """Rows and columns of our terminal, (0, 0) where there is none or none is wanted."""
    if tty:
        for fd in (0, 1, 2):
            if os.isatty(fd):
                size = os.get_terminal_size(fd)
                return size.lines, size.columns
    return 0, 0


def follow(
    engine: Engine,
    container: Container,
    console: tuple[int, int],
    explainer: Explainer | None,
    sig_proxy: bool,
    detach_keys: str,
    stdin: bool = True,
    shown: tuple[int, ...] = (1, 2),
) -> int:
    """Start and go along. The log's directory is ours to read before anything is written to it, whatever is removed
    when. What it wrote when it ran before is passed over."""
    directory = lock_log(engine.log_directory(container))
    followers: list[Woken] = []

    def meanwhile() -> None:
        import cloche.cli.terminal  # noqa: F401

        if not followers:
            followers.append(follower(directory))

    try:
        if container.started:
            followers.append(follower(directory, from_now=True))
        started = engine.start(
            container,
            attach=True,
            console=console,
            explain=explainer,
            meanwhile=meanwhile,
        )
        if explainer:
            explainer.show(started.records)
        return go_along(
            engine,
            container,
            started,
            followers[0],
            sig_proxy=sig_proxy,
            detach_keys=detach_keys,
            stdin=0 if stdin else None,
            shown=shown,
        )
    finally:
        for output in followers:
            output.close()
        os.close(directory)


def follower(directory: int, from_now: bool = False) -> Woken:
    """Reads the log in this directory as it grows, wherever the directory is moved."""
    from cloche.runtime.logview import Woken, end

    path = f"/proc/self/fd/{directory}"
    return Woken(path, end(path) if from_now else None, hold=True)


def go_along(
    engine: Engine,
    container: Container,
    started: Started,
    output: Woken,
    *,
    sig_proxy: bool,
    detach_keys: str,
    redraw: bool = False,
    stdin: int | None = 0,
    shown: tuple[int, ...] = (1, 2),
) -> int:
    """Pass output, input and signals until the end or until detached; returns the exit code."""
    from cloche.cli.terminal import attach

    streams = streams_of(engine, container, started, output)
    outcome = attach(
        streams,
        stdin=stdin if streams.input is not None else None,
        tty=container.config.request.process.tty,
        detach_keys=detach_keys or DEFAULT_KEYS,
        sig_proxy=sig_proxy,
        redraw=redraw,
        shown=shown,
    )
    return exit_code(outcome)


def streams_of(engine: Engine, container: Container, started: Started, output: Woken) -> Streams:
    """What connects us with the container."""
    from cloche.cli.terminal import Streams
    from cloche.engine.waiting import Waiting

    master, pipe = started.fds.get("master"), started.fds.get("input")
    interactive = container.config.request.process.interactive

    ending = Waiting(engine.keeper, container.id, attached=True, wake=output.fileno())

    def end_input() -> None:
        if pipe is not None:
            os.close(started.fds.pop("input"))
            ending.end_input()

    def send_signal(number: int) -> None:
        try:
            engine.signal(engine.find(container.id), number)
        except Conflict:
            return  # it has just ended
        except Error:
            return  # and was removed

    taken = (master if interactive else None) if master is not None else pipe
    return Streams(output, ending, taken, master, end_input, send_signal)


def exit_code(outcome: Outcome) -> int:
    """Docker's: the container's own; 0 when detached."""
    if outcome.how == "exited":
        from cloche.engine.waiting import Ending

        result = outcome.result
        assert isinstance(result, Ending)
        code, reason = result
        if code < 0:
            raise Error("wait for the container", reason or "its exit status is unknown")
        return code
    if outcome.how == "interrupted":
        return 128 + outcome.signal
    return BROKEN if outcome.how == "broken" else 0
