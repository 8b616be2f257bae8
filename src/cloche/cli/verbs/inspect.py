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


def look(engine: Engine, name: str, kind: str) -> dict[str, Any]:
    """A container of this name, else an image. Raises NotFound."""
    if kind != "image":
        try:
            return inspection.container(engine, engine.find(name))
        except NotFound:
            if kind:
                raise
    try:
        return inspection.image(engine, engine.images.resolve(name))
    except (NotFound, Invalid):
        if kind:
            raise
    raise NotFound(f"No such object: {name}", "", "`cloche ps -a` and `cloche images` list what there is")


def main(parsed: Parsed) -> int:
    """See `cloche inspect --help`."""
    engine = Engine(parsed.root or None)
    form, found, code = parsed.text("format"), [], 0
    for name in parsed.arguments:
        try:
            found.append(look(engine, name, parsed.text("type")))
        except Error as error:
            print(f"cloche: {error}", file=sys.stderr)
            code = 1
    if not form:
        print(json_text(found, 4))
    for document in found if form else ():
        print(shown(form, document))
    return code
