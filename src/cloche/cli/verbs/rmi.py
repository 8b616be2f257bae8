"""rmi: take names from images, and images away."""

from __future__ import annotations

import sys

from cloche.engine.containers import Engine
from cloche.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche rmi --help`."""
    from cloche.oci.reference import parse

    engine, code = Engine(parsed.root or None), 0
    for name in parsed.arguments:
        try:
            removal = engine.remove_image(name, parsed.on("force"))
        except Error as error:
            print(f"cloche: {error}", file=sys.stderr)
            code = 1
            continue
        for reference in removal.untagged:
            print(f"Untagged: {parse(reference).familiar()}")
        for ident in removal.deleted:
            print(f"Deleted: {ident}")
    return code
