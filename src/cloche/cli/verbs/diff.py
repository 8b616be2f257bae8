"""diff: list what a container changed in its image's files."""

from __future__ import annotations

import os

from cloche.engine.changes import changes
from cloche.engine.containers import Engine
from cloche.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche diff --help`."""
    engine = Engine(parsed.root or None)
    for change in changes(engine, engine.find(parsed.arguments[0])):
        print(change.kind, printable(os.fsdecode(change.path)))
    return 0
