"""attach: connect this terminal to a running container."""

from __future__ import annotations

import os

from cloche.cli.attaching import follower, go_along
from cloche.engine.containers import Container, Engine
from cloche.engine.removal import follow
from cloche.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def attach_to(engine: Engine, container: Container, *, sig_proxy: bool, detach_keys: str, stdin: bool) -> int:
    """Go along with a container that runs already, from now on."""
    directory = follow(engine.log_directory(container))
    try:
        with follower(directory, from_now=True) as output:
            return go_along(
                engine,
                container,
                engine.attach(container),
                output,
                sig_proxy=sig_proxy,
                detach_keys=detach_keys,
                redraw=True,
                stdin=0 if stdin else None,
            )
    finally:
        os.close(directory)


def main(parsed: Parsed) -> int:
    """See `cloche attach --help`."""
    engine = Engine(parsed.root or None)
    container = engine.running(parsed.arguments[0])
    if container.config.request.process.tty and not parsed.on("no-stdin") and not os.isatty(0):
        raise Invalid("attach to a terminal", "the input device is not a TTY", "add --no-stdin, or use a terminal")
    return attach_to(
        engine,
        container,
        sig_proxy=parsed.on("sig-proxy", True),
        detach_keys=parsed.text("detach-keys"),
        stdin=not parsed.on("no-stdin"),
    )
