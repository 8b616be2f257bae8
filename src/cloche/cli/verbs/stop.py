"""stop: the container's stop signal, then SIGKILL."""

from __future__ import annotations

from cloche.cli.each import at_once
from cloche.engine.containers import Engine
from cloche.engine.stopping import stopping
from cloche.kernel.signalnames import signal_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed
    from cloche.engine.containers import Container
    from cloche.engine.courses import Course


def main(parsed: Parsed) -> int:
    """See `cloche stop --help`."""
    engine = Engine(parsed.root or None)
    number = signal_number(parsed.text("signal")) if parsed.text("signal") else 0

    def stop(container: Container) -> Course[None]:
        if number:
            container = container.replace(config=container.config.replace(stop_signal=number))
        return stopping(engine, container, parsed.number("timeout"))

    return at_once(engine, parsed.arguments, stop)
