"""pack: an image of programs of this host and just the libraries and data that they need."""

from __future__ import annotations

import sys

from cloche.engine.containers import Engine
from cloche.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche pack --help`."""
    from cloche.engine.units import human_size
    from cloche.image.pack import create
    from cloche.image.packing import collect

    if not parsed.text("tag"):
        raise Invalid("pack", "the image needs a name", "cloche pack -t NAME PROGRAM...")
    engine = Engine(parsed.root or None)
    packing = collect(parsed.arguments, parsed.every("add"))
    for note in packing.notes:
        print(f"cloche: note: {note}", file=sys.stderr)
    image = create(engine.changing_images(), parsed.text("tag"), packing)
    print(
        f"{parsed.text('tag')}: {len(packing.programs)} programs, "
        f"{len(packing.entries)} files, {human_size(image.size)}"
    )
    print(image.id)
    return 0
