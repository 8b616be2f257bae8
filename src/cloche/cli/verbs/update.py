"""update: change the limits of containers."""

from __future__ import annotations

from cloche.cli.each import each
from cloche.cli.requests import limits, restart
from cloche.engine.containers import Engine
from cloche.engine.updating import update
from cloche.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche update --help`."""
    if not parsed.values:
        raise Invalid("update a container", "no limit is given", "see 'cloche update --help'")
    wanted = limits(parsed)
    if "pids-limit" in parsed.values and not wanted.pids:
        wanted = wanted.replace(pids=-1)  # Docker's: 0 is any number, too
    policy = restart(parsed) if "restart" in parsed.values else None
    engine = Engine(parsed.root or None)

    def change(name: str) -> str:
        update(engine, engine.find(name), wanted, policy)
        return name

    return each(parsed.arguments, change)
