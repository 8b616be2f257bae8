"""container prune: remove all containers that do not run."""

from __future__ import annotations

from cloche.cli.confirming import confirmed
from cloche.engine.containers import Engine
from cloche.engine.pruning import prune_containers
from cloche.engine.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche container prune --help`."""
    if not confirmed("This will remove all stopped containers.", parsed.on("force")):
        return 0
    pruned = prune_containers(Engine(parsed.root or None), parsed.filters())
    if pruned.removed:
        print("Deleted Containers:", *pruned.removed, "", sep="\n")
    print(f"Total reclaimed space: {human_size(pruned.size, 4)}")
    return 0
