"""exec: run a command in a running container."""

from __future__ import annotations

import os

from cloche.cli.attaching import DEFAULT_KEYS, console_size, exit_code
from cloche.cli.requests import exec_request
from cloche.cli.terminal import Streams, attach
from cloche.cli.verbs.run import read_file
from cloche.engine.containers import Engine
from cloche.engine.execs import execute
from cloche.engine.pipes import Pipes
from cloche.engine.waiting import Waiting
from cloche.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche exec --help`."""
    request = exec_request(parsed, os.getcwd(), os.environ, read_file)
    if request.tty and request.interactive and not request.detach and not os.isatty(0):
        raise Invalid("exec with -t", "the input device is not a TTY", "leave out -t, or use a terminal")
    engine = Engine(parsed.root or None)
    container = engine.running(request.container)
    made = execute(engine, container, request, console_size(request.tty and not request.detach))
    if request.detach:
        return 0
    fds = made.fds
    master = fds.get("master")
    pipe = fds.get("input")

    ending = Waiting(engine.keeper, made.id, attached=True)

    def end_input() -> None:
        if pipe is not None:
            os.close(fds.pop("input"))
            ending.end_input()

    output = Pipes({1: master} if master is not None else {1: fds["out"], 2: fds["err"]})
    taken = (master if request.interactive else None) if master is not None else pipe
    streams = Streams(output, ending, taken, master, end_input)
    outcome = attach(
        streams,
        stdin=0 if taken is not None else None,
        tty=request.tty,
        detach_keys=request.detach_keys or DEFAULT_KEYS,
        sig_proxy=False,
    )
    return exit_code(outcome)
