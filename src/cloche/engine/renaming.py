"""rename: a container's other name. What was told the old one (its own environment) keeps it."""

from __future__ import annotations

from cloche.engine.sqlite import sqlite3
from cloche.engine.validation import check_name
from cloche.errors import Conflict, Error, Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.containers import Container, Engine


def rename(engine: Engine, container: Container, name: str) -> None:
    """Give it the name `name`. Raises Invalid, Conflict (it is taken, or its own), NotFound, Error."""
    what = f"rename container {container.name}"
    if not name:
        raise Invalid(what, "neither old nor new names may be empty")
    check_name(name)
    name = name.removeprefix("/")
    if name == container.name:
        raise Conflict(what, "it has that name already", "give another one")
    try:
        done = engine.db.execute("UPDATE containers SET name=? WHERE id=?", (name, container.id))
    except sqlite3.IntegrityError:
        owner = engine.db.execute("SELECT id FROM containers WHERE name=?", (name,)).fetchone()
        cause = f"the name {name} is in use by container {owner['id'][:12] if owner else ''}"
        raise Conflict(what, cause, "remove that one, or use another name") from None
    except sqlite3.Error as error:
        raise Error(what, str(error), "is the disk full?") from error
    if not done.rowcount:
        raise NotFound(f"No such container: {container.name}")
