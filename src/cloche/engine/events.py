"""events: what happened to containers and images, the newest 10,000, in the order in which it was recorded.

The database's own triggers write most of them: in the transaction that changes the state, whoever changes it, so that
no killed process loses one. What changes no row (a signal, a limit) is recorded by who does it. Who follows waits for
writes to the database's log (inotify(7)).
"""

from __future__ import annotations

import os
from time import time_ns

from cloche.document import dumps, loads
from cloche.engine.sqlite import sqlite3
from cloche.errors import Invalid
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from cloche.engine.containers import Engine
    from cloche.engine.courses import Stream

    Filters: TypeAlias = Sequence[tuple[str, str]]

KEPT = 10_000
FILTERS = ("container", "event", "image", "label", "type")
_AGAIN = (0.001, 0.01, 0.1)  # seconds after a write when it is looked again: it is seen a moment after it was written


class Event(Value):
    """One thing that happened. kind: `container` or `image`; attributes: Docker's, labels among them; time: ns."""

    number: int
    time: int
    kind: str
    action: str
    actor: str
    attributes: dict[str, str]


def record(db: sqlite3.Connection, ident: str, action: str, **attributes: str) -> None:
    """Something that a container did or suffered, and that changes no row of it. It has happened: a disk that has no
    room for its event does not make it fail."""
    try:
        db.execute(*statement(ident, action, attributes))
    except sqlite3.Error:
        return


def record_image(db: sqlite3.Connection, ident: str, action: str, name: str) -> None:
    """The same of an image, `name` being what Docker says of it."""
    text = "INSERT INTO events (time, kind, action, actor, name, image, labels, attributes) VALUES"
    try:
        db.execute(text + " (?, 'image', ?, ?, ?, '', NULL, '')", (time_ns(), action, ident, name))
    except sqlite3.Error:
        return


def statement(ident: str, action: str, attributes: dict[str, str]) -> tuple[str, tuple[object, ...]]:
    """The same as a statement of a transaction; of a container that is gone, nothing is recorded."""
    text = (
        "INSERT INTO events (time, kind, action, actor, name, image, labels, attributes)"
        " SELECT ?, 'container', ?, id, name, image, NULL, ? FROM containers WHERE id=?"
    )
    return text, (time_ns(), action, dumps(attributes), ident)


def _event(row: sqlite3.Row, labels: dict[str, str]) -> Event:
    attributes = dict(labels)
    attributes |= {"image": row["image"]} if row["image"] else {}
    attributes |= {"name": row["name"]} if row["name"] else {}
    attributes |= loads(row["attributes"]) if row["attributes"] else {}
    return Event(row["number"], row["time"], row["kind"], row["action"], row["actor"], attributes)


def _labels(db: sqlite3.Connection, actor: str) -> dict[str, str]:
    """A container's labels, from its record, or from the event of its making when it is gone."""
    row = db.execute(
        "SELECT json_extract(config, '$.labels') AS labels FROM containers WHERE id=?1 AND json_valid(config) UNION ALL"
        " SELECT labels FROM events WHERE actor=?1 AND labels IS NOT NULL LIMIT 1",
        (actor,),
    ).fetchone()
    return dict(loads(row["labels"])) if row and row["labels"] else {}


def read(db: sqlite3.Connection, after: int = 0) -> list[Event]:
    """Those with a higher number, oldest first. Raises sqlite3.Error."""
    rows = db.execute("SELECT * FROM events WHERE number > ? ORDER BY number", (after,)).fetchall()
    known: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["kind"] == "container" and row["actor"] not in known:
            known[row["actor"]] = _labels(db, row["actor"])
    return [_event(row, known.get(row["actor"], {})) for row in rows]


def last(db: sqlite3.Connection) -> int:
    """The newest one's number."""
    return int(db.execute("SELECT max(number) FROM events").fetchone()[0] or 0)


def following(engine: Engine, after: int, since: int = 0, until: int = 0, filters: Filters = ()) -> Stream[Event]:
    """Those with a higher number as they come, from and to a moment (nanoseconds since 1970; 0: for ever). Raises
    OSError."""
    from cloche.engine.courses import Wait
    from cloche.kernel.inotify import IN_MODIFY, add_watch, clear, inotify_init

    db = engine.db
    found = read(db, after)  # the log is there from the first reading on, and as long as we are
    fd = inotify_init()
    try:
        add_watch(fd, engine.store.root + "/db-wal", IN_MODIFY)
        waits: list[float] = list(_AGAIN)  # one may have come between reading and watching
        while True:
            after = found[-1].number if found else after
            if given := tuple(e for e in found if since <= e.time <= (until or e.time) and is_meant(e, filters)):
                yield given
            left = (until - time_ns()) / 1e9 if until else None
            if (found and until and found[-1].time > until) or (left is not None and left <= 0):
                return
            wait = waits.pop(0) if waits else left
            wait = min(wait, left) if wait is not None and left is not None else wait
            if (yield Wait((fd,), seconds=wait)).fds:
                clear(fd)
                waits = list(_AGAIN)
            found = read(db, after)
    finally:
        os.close(fd)


def check_filters(filters: Filters) -> None:
    """Raises Invalid for one that there is not."""
    for name, value in filters:
        if name not in FILTERS:
            raise Invalid(f"filter {name}={value}", "invalid filter", f"one of {', '.join(FILTERS)}")


def is_meant(event: Event, filters: Filters) -> bool:
    """Whether the filters let it through: of each name, one."""
    names = {name for name, _ in filters}
    return all(any(_matches(event, n, v) for n, v in filters if n == name) for name in names)


def _matches(event: Event, name: str, value: str) -> bool:
    if name == "type":
        return event.kind == value
    if name == "event":
        return event.action == value or event.action.partition(":")[0] == value
    if name == "label":
        key, given, wanted = value.partition("=")
        return key in event.attributes and (not given or event.attributes[key] == wanted)
    if name == "container":
        known = event.attributes.get("name")
        return event.kind == "container" and (event.actor.startswith(value) or known == value.lstrip("/"))
    familiar = event.attributes.get("image", "") or event.attributes.get("name", "")
    return value in (familiar, familiar.rpartition("/")[2], familiar.rpartition("/")[2].partition(":")[0], event.actor)
