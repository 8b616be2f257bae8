"""kill: a signal to the first process of containers."""

from __future__ import annotations

from cloche.cli.each import each
from cloche.engine.containers import Engine
from cloche.kernel.signalnames import signal_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche kill --help`."""
    engine = Engine(parsed.root or None)
    number = signal_number(parsed.text("signal", "KILL"))

    def kill(name: str) -> str:
        engine.signal(engine.find(name), number)
        return name

    return each(parsed.arguments, kill)
