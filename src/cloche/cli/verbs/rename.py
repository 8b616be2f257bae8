"""rename: give a container another name."""

from __future__ import annotations

from cloche.engine.containers import Engine
from cloche.engine.renaming import rename

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche rename --help`."""
    engine = Engine(parsed.root or None)
    name, new = parsed.arguments
    rename(engine, engine.find(name), new)
    return 0
