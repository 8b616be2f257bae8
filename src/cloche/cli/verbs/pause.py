"""pause: let all processes of containers stand still."""

from __future__ import annotations

from cloche.cli.each import each
from cloche.engine.containers import Engine
from cloche.engine.pausing import pause

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche pause --help`."""
    engine = Engine(parsed.root or None)

    def still(name: str) -> str:
        pause(engine, engine.find(name))
        return name

    return each(parsed.arguments, still)
