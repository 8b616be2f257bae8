"""export: write a container's files as a tar archive."""

from __future__ import annotations

from cloche.cli.archives import write
from cloche.engine import copying
from cloche.engine.containers import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche export --help`."""
    engine = Engine(parsed.root or None)
    write("export", copying.export(engine, engine.find(parsed.arguments[0])), parsed.text("output"))
    return 0
