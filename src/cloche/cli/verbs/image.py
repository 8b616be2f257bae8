"""image prune: remove images that nobody uses."""

from __future__ import annotations

from cloche.cli.confirming import confirmed
from cloche.engine.containers import Engine
from cloche.engine.pruning import prune_images
from cloche.engine.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche image prune --help`."""
    which = "images without at least one container associated to them" if parsed.on("all") else "dangling images"
    if not confirmed(f"This will remove all {which}.", parsed.on("force")):
        return 0
    pruned = prune_images(Engine(parsed.root or None), parsed.on("all"), parsed.filters())
    if pruned.removed:
        print("Deleted Images:", *pruned.removed, "", sep="\n")
    print(f"Total reclaimed space: {human_size(pruned.size, 4)}")
    return 0
