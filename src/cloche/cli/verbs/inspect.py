"""inspect: all that is known of containers and images, in the shapes of Docker's API."""

from __future__ import annotations

import sys

from cloche.cli.rendering import json_text, shown
from cloche.engine import inspection
from cloche.engine.containers import Engine
from cloche.errors import Error, Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloche.cli.arguments import Parsed
    from cloche.engine.containers import Container


def look(engine: Engine, name: str, kind: str, sized: bool = False) -> dict[str, Any]:
    """A container of this name, else an image, else a network, else a volume. Raises NotFound."""
    if kind in ("", "container"):
        try:
            found = engine.find(name)
            return inspection.container(engine, found) | (_sizes(engine, found) if sized else {})
        except NotFound:
            if kind:
                raise
    if kind in ("", "image"):
        try:
            return inspection.image(engine, engine.images.resolve(name))
        except (NotFound, Invalid):
            if kind:
                raise
    if kind in ("", "network"):
        from cloche.engine.netinspection import network

        try:
            return network(engine, engine.networks.look_up(name))
        except NotFound:
            if kind:
                raise
    from cloche.engine.volumes import Volumes, document

    volumes = Volumes(engine.store, engine.db)
    try:
        return document(volumes, volumes.find(name))
    except NotFound:
        if kind:
            raise
    raise NotFound(f"No such object: {name}", "", "`cloche ps -a` and `cloche images` list what there is")


def _sizes(engine: Engine, found: Container) -> dict[str, int]:
    from cloche.engine.pruning import sizes_of

    return dict(zip(("SizeRw", "SizeRootFs"), sizes_of(engine, [found])[found.id], strict=True))


def main(parsed: Parsed) -> int:
    """See `cloche inspect --help`."""
    engine = Engine(parsed.root or None)
    form, found, code = parsed.text("format"), [], 0
    for name in parsed.arguments:
        try:
            found.append(look(engine, name, parsed.text("type"), parsed.on("size")))
        except Error as error:
            print(f"cloche: {error}", file=sys.stderr)
            code = 1
    if not form:
        print(json_text(found, 4))
    for document in found if form else ():
        print(shown(form, document))
    return code
