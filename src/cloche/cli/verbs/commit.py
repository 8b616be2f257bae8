"""commit: an image of what a container changed."""

from __future__ import annotations

from cloche.engine.containers import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche commit --help`."""
    from cloche.engine.committing import commit

    engine = Engine(parsed.root or None)
    name = parsed.arguments[1] if len(parsed.arguments) > 1 else ""
    image = commit(
        engine,
        engine.find(parsed.arguments[0]),
        name,
        parsed.text("author"),
        parsed.text("message"),
        parsed.every("change"),
        parsed.on("pause", True),
    )
    print(image.id)
    return 0
