"""create: a container that is not started yet."""

from __future__ import annotations

from cloche.cli.verbs.run import prepare_image, request_of, write_cidfile
from cloche.engine.containers import Engine
from cloche.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche create --help`."""
    request = request_of(parsed)
    engine = Engine(parsed.root or None)
    prepare_image(engine, parsed)
    container = engine.create(request)
    try:
        if request.cidfile:
            write_cidfile(request.cidfile, container.id)
    except Error:
        engine.remove(container)
        raise
    print(container.id)
    return 0
