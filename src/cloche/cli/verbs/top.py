"""top: list the processes of a container."""

from __future__ import annotations

from cloche.cli.table import align
from cloche.engine.containers import Engine
from cloche.engine.processes import top
from cloche.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche top --help`."""
    engine = Engine(parsed.root or None)
    name, *options = parsed.arguments
    found = top(engine, engine.find(name), tuple(options))
    print(align("\t".join(map(printable, row)) for row in (found.titles, *found.processes)), end="")
    return 0
