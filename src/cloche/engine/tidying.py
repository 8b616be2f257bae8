"""When the keeper tidies up: deleting on a disk holds up those who make there, so it waits until nobody wants anything.

Not its business: how a thing is removed (removal, storage.trash).
"""

from __future__ import annotations

from time import monotonic

from cloche.engine.database import EXITED
from cloche.engine.holder import note
from cloche.engine.removal import discard_log, remove_container, sweep, sweep_forsaken
from cloche.engine.sqlite import sqlite3
from cloche.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.engine.store import Store

FIRST = 0.5  # seconds after a removal until the trash is looked into: its clients have read the log by then
QUIET = 0.1  # seconds without a request before it is emptied
AGAIN = 0.5  # seconds until what could not be removed is removed
BACKLOG = 256  # containers in it that wait for no quiet
KEPT_EXITS = 4096


class Tidying:
    """The trash, what killed creates left, old exits. `asked`: when a client last wanted something; the keeper says."""

    def __init__(
        self, store: Store, db: sqlite3.Connection, after: Callable[[float, Callable[[], None]], None]
    ) -> None:
        self._store, self._db, self._after = store, db, after
        self.asked = 0.0
        self._removed = 0  # containers since the trash was empty
        self._sweeping = False

    def note_removal(self) -> None:
        """One more is in the trash."""
        if not self._removed:
            self._after(FIRST, self.tidy)
        self._removed += 1

    def remove(self, ident: str) -> None:
        """--rm: the row, the directory; only of what has ended (a container that could not be started is its
        client's)."""
        try:
            row = self._db.execute("SELECT status FROM containers WHERE id=? AND remove=1", (ident,)).fetchone()
            if row is None or row["status"] != EXITED:
                return
            remove_container(self._store, self._db, ident, volumes=True)
        except (Error, OSError, sqlite3.Error) as error:
            note(f"remove {ident}: {error}")
            self._after(AGAIN, lambda: self.remove(ident))
            return
        self.note_removal()

    def throw_log_away(self, ident: str) -> None:
        """Of a container whose log driver keeps nothing: what has passed."""
        try:
            discard_log(self._store, ident)
        except (Error, OSError) as error:
            note(f"throw away the log of {ident}: {error}")
        self.note_removal()

    def tidy(self) -> None:
        """Begin now; what is being followed in the trash is looked at again after the next removal."""
        if not self._sweeping:
            self._sweeping = True
            self._sweep()
        try:
            sweep_forsaken(self._store, self._db)
            self._db.execute("DELETE FROM exits WHERE rowid <= (SELECT max(rowid) FROM exits) - ?", (KEPT_EXITS,))
        except (Error, OSError, sqlite3.Error) as error:
            note(f"tidy: {error}")

    def _sweep(self) -> None:
        """One slice, then the next."""
        if monotonic() - self.asked < QUIET and self._removed < BACKLOG:
            self._after(QUIET, self._sweep)
            return
        try:
            done = sweep(self._store)
        except (Error, OSError) as error:
            note(f"empty the trash: {error}")
            done = True  # until the next removal
        if done:
            self._removed, self._sweeping = 0, False
            self._checkpoint()
        else:
            self._after(0, self._sweep)

    def _checkpoint(self) -> None:
        """Copy the database's log into it, as far as nobody reads there: else a client would have to, while it is
        waited for."""
        try:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            note(f"checkpoint: {error}")
