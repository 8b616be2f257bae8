"""wait: until containers have ended; prints their exit codes."""

from __future__ import annotations

from cloche.cli.each import each
from cloche.engine.containers import Engine
from cloche.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche wait --help`."""
    engine = Engine(parsed.root or None)

    def wait(name: str) -> str:
        container = engine.find(name)
        if container.status == "exited":
            code, reason = container.exit_code, container.error
        else:
            code, reason = engine.wait(container)
        if code < 0:
            raise Error(f"wait for container {name}", reason)
        return str(code)

    return each(parsed.arguments, wait)
