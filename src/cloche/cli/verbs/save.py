"""save: images as one archive."""

from __future__ import annotations

from cloche.cli.archives import write
from cloche.engine.containers import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche save --help`."""
    from cloche.engine.exchange import save
    from cloche.engine.notation import platform as read_platform

    platform = read_platform(parsed.text("platform")) if parsed.text("platform") else None
    write("save", save(Engine(parsed.root or None), parsed.arguments, platform), parsed.text("output"))
    return 0
