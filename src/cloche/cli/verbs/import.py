"""import: an image of the files in a tar archive."""

from __future__ import annotations

import sys

from cloche.engine.containers import Engine
from cloche.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche import --help`."""
    from cloche.engine.exchange import import_files
    from cloche.engine.notation import platform as read_platform

    path = parsed.arguments[0]
    if path == "-" and sys.stdin.isatty():
        raise Invalid(
            "import from standard input", "it is a terminal", "give an archive: cloche import FILE, or < FILE"
        )
    image = import_files(
        Engine(parsed.root or None),
        sys.stdin.buffer if path == "-" else path,
        parsed.arguments[1] if len(parsed.arguments) > 1 else "",
        parsed.text("message"),
        parsed.every("change"),
        read_platform(parsed.text("platform")) if parsed.text("platform") else None,
    )
    print(image.id)
    return 0
