"""events: what happens to containers and images, as it happens."""

from __future__ import annotations

from datetime import datetime
from time import time

from cloche.cli.rendering import shown
from cloche.engine import events
from cloche.engine.containers import Engine
from cloche.engine.courses import each
from cloche.engine.units import moment
from cloche.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloche.cli.arguments import Parsed
    from cloche.engine.events import Event


def document(event: Event) -> dict[str, Any]:
    """As Docker's API has it."""
    container = event.kind == "container"
    return {
        "status": event.action,
        "id": event.actor,
        **({"from": event.attributes.get("image", "")} if container else {}),
        "Type": event.kind,
        "Action": event.action,
        "Actor": {"ID": event.actor, "Attributes": event.attributes},
        "scope": "local",
        "time": event.time // 10**9,
        "timeNano": event.time,
    }


def line(event: Event) -> str:
    """`TIME TYPE ACTION ID (name=value, ...)`; the time is local, with nanoseconds."""
    whole = datetime.fromtimestamp(event.time // 10**9).astimezone().isoformat()
    stamp = f"{whole[:19]}.{event.time % 10**9:09}{'Z' if whole[19:] == '+00:00' else whole[19:]}"
    pairs = ", ".join(f"{key}={value}" for key, value in sorted(event.attributes.items()))
    return printable(f"{stamp} {event.kind} {event.action} {event.actor}" + (f" ({pairs})" if pairs else ""))


def main(parsed: Parsed) -> int:
    """See `cloche events --help`."""
    filters = parsed.filters()
    events.check_filters(filters)
    since = moment(parsed.text("since"), time()) if parsed.text("since") else 0
    until = moment(parsed.text("until"), time()) if parsed.text("until") else 0
    engine = Engine(parsed.root or None)
    after = 0 if since or until else events.last(engine.db)
    form = parsed.text("format")
    for event in each(engine.store, events.following(engine, after, since, until, filters)):
        print(shown(form, document(event)) if form else line(event), flush=True)
    return 0
