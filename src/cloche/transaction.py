"""All of some statements or none, in a database that other processes use too."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3


class Transaction:
    """A context manager: nobody else's statements come between these. Whoever leaves by an exception, an interrupt at
    any moment too, has changed nothing and holds nobody up. Raises sqlite3.Error."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self._execute("COMMIT")
        else:
            self._roll_back()

    def _execute(self, statement: str) -> None:
        try:
            self._db.execute(statement)
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self._db.in_transaction:  # some errors have ended it already
            self._db.execute("ROLLBACK")
