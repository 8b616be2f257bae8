"""rmi: take names from images, and images away."""

from __future__ import annotations

from cloche.cli.each import each
from cloche.engine.containers import Engine
from cloche.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche rmi --help`."""
    from cloche.oci.reference import parse

    engine = Engine(parsed.root or None)
    force = parsed.on("force")

    def remove(name: str) -> str:
        removal = engine.remove_image(name, force)
        untagged = [f"Untagged: {parse(reference).familiar()}" for reference in removal.untagged]
        return "\n".join([*untagged, *(f"Deleted: {ident}" for ident in removal.deleted)])

    # Docker's: what is not there need not be removed by force
    return each(parsed.arguments, remove, NotFound if force else None)
