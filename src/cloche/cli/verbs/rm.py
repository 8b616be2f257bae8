"""rm: remove containers, their files and their logs."""

from __future__ import annotations

from cloche.cli.each import at_once
from cloche.engine.containers import Engine
from cloche.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed
    from cloche.engine.containers import Container
    from cloche.engine.courses import Course


def main(parsed: Parsed) -> int:
    """See `cloche rm --help`."""
    engine = Engine(parsed.root or None)
    force = parsed.on("force")

    def remove(container: Container) -> Course[None]:
        return engine.removing(container, force, parsed.on("volumes"))

    # Docker's: what is not there need not be removed by force
    return at_once(engine, parsed.arguments, remove, NotFound if force else None)
