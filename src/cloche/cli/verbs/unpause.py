"""unpause: let paused containers go on."""

from __future__ import annotations

from cloche.cli.each import each
from cloche.engine.containers import Engine
from cloche.engine.pausing import unpause

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche unpause --help`."""
    engine = Engine(parsed.root or None)

    def resume(name: str) -> str:
        unpause(engine, engine.find(name))
        return name

    return each(parsed.arguments, resume)
