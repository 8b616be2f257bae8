"""tag: one more name for an image."""

from __future__ import annotations

from cloche.engine.containers import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche tag --help`."""
    source, target = parsed.arguments
    engine = Engine(parsed.root or None)
    engine.image(source)
    engine.images.tag(source, target)
    return 0
