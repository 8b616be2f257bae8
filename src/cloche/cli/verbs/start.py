"""start: execute the plan of containers that exist; with -a go along."""

from __future__ import annotations

from cloche.cli.attaching import console_size, follow
from cloche.cli.each import each
from cloche.cli.verbs.run import note
from cloche.engine.containers import Engine
from cloche.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche start --help`."""
    engine = Engine(parsed.root or None)
    engine.notify = note
    names = parsed.arguments
    if parsed.on("attach") or parsed.on("interactive"):
        if len(names) > 1:
            raise Invalid(
                "start and attach",
                "you cannot start and attach multiple containers at once",
                "start one, or leave out -a and -i",
            )
        container = engine.find(names[0])
        if container.status == "running":
            from cloche.cli.verbs.attach import attach_to

            return attach_to(
                engine,
                container,
                sig_proxy=True,
                detach_keys=parsed.text("detach-keys"),
                stdin=parsed.on("interactive"),
            )
        console = console_size(container.config.request.process.tty)
        keys, stdin = parsed.text("detach-keys"), parsed.on("interactive")
        return follow(engine, container, console, None, True, keys, stdin)

    def start(name: str) -> str:
        container = engine.find(name)
        if container.state != "running":
            engine.start(container)
        return name

    return each(names, start)
