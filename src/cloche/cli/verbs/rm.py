"""rm: remove containers, their files and their logs."""

from __future__ import annotations

from cloche.cli.each import each
from cloche.engine.containers import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche rm --help`."""
    engine = Engine(parsed.root or None)

    def remove(name: str) -> str:
        engine.remove(engine.find(name), parsed.on("force"))
        return name

    return each(parsed.arguments, remove)
