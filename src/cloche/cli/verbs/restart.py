"""restart: stop containers and start them again."""

from __future__ import annotations

from cloche.cli.each import each
from cloche.engine.containers import Engine
from cloche.engine.signals import signal_number
from cloche.engine.stopping import restart

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche restart --help`."""
    engine = Engine(parsed.root or None)
    number = signal_number(parsed.text("signal")) if parsed.text("signal") else 0

    def again(name: str) -> str:
        container = engine.find(name)
        if number:
            container = container.replace(config=container.config.replace(stop_signal=number))
        restart(engine, container, parsed.number("timeout"))
        return name

    return each(parsed.arguments, again)
