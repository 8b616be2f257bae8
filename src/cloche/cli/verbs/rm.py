"""rm: remove containers, their files and their logs."""

from __future__ import annotations

from cloche.cli.each import each
from cloche.engine.containers import Engine
from cloche.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche rm --help`."""
    engine = Engine(parsed.root or None)
    force = parsed.on("force")

    def remove(name: str) -> str:
        engine.remove(engine.find(name), force)
        return name

    # Docker's: what is not there need not be removed by force
    return each(parsed.arguments, remove, NotFound if force else None)
