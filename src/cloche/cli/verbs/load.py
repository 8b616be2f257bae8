"""load: images from an archive or a folder."""

from __future__ import annotations

import sys

from cloche.engine.containers import Engine
from cloche.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche load --help`."""
    from cloche.engine.notation import platform as read_platform
    from cloche.image.load import load
    from cloche.oci.reference import parse

    path = parsed.text("input")
    if not path and sys.stdin.isatty():
        raise Invalid("load from standard input", "it is a terminal", "give an archive: cloche load -i FILE, or < FILE")
    platform = read_platform(parsed.text("platform")) if parsed.text("platform") else None
    for image in load(Engine(parsed.root or None).changing_images(), path or sys.stdin.buffer, platform):
        names = [parse(r).familiar() for r in image.references]
        for name in () if parsed.on("quiet") else names or [image.id]:
            print(f"Loaded image{'' if names else ' ID'}: {name}")
    return 0
