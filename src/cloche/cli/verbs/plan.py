"""plan: what `run` would ask of the kernel, step by step; nothing is run."""

from __future__ import annotations

from cloche.cli.verbs.run import request_of
from cloche.engine.containers import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche plan --help`."""
    plan = Engine(parsed.root or None).dry_plan(request_of(parsed))
    if parsed.text("format", "text") == "json":
        from json import dumps

        print(dumps(plan.data(), indent=2))
    else:
        from cloche.cli.explaining import show

        show(plan)
    return 0
