"""Which containers are started after a boot: those whose policy says so, and that nobody had stopped."""

from __future__ import annotations

from cloche.engine.database import EXITED, UNKNOWN_EXIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.containers import Container, Engine


def to_restore(engine: Engine) -> list[Container]:
    """Oldest first. `always`: also what was stopped, as Docker does; `on-failure`: what the boot has ended."""
    found = []
    for container in reversed(engine.containers()):
        if container.status != EXITED:
            continue
        policy = container.config.request.restart
        stopped = engine.db.execute("SELECT stopped FROM containers WHERE id=?", (container.id,)).fetchone()["stopped"]
        fell = policy == "on-failure" and container.exit_code == UNKNOWN_EXIT
        if policy == "always" or (not stopped and (policy == "unless-stopped" or fell)):
            found.append(container)
    return found
