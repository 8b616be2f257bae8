"""info: facts about this host and its store."""

from __future__ import annotations

from cloche.cli.rendering import shown
from cloche.engine.containers import Engine
from cloche.engine.inspection import info

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche info --help`."""
    facts = info(Engine(parsed.root or None))
    form = parsed.text("format")
    if form:
        print(shown(form, facts))
        return 0
    for key, value in facts.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for name, rest in value.items():
                print(f"  {name}: {', '.join(rest)}")
        else:
            print(f"{key}: {value}")
    return 0
