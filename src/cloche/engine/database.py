"""The one database of a store, SQLite in WAL mode: containers and their states, exits, id ranges; images in their own
tables.

synchronous=NORMAL: a commit costs 0.01 ms; a power loss may forget the last start, never corrupt. Every statement
commits by
itself; what must happen together says BEGIN. Times are nanoseconds since 1970, 0 when not yet.
"""

from __future__ import annotations

from cloche.engine.sqlite import sqlite3
from cloche.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.store import Store

VERSION = 1
CREATED, RUNNING, EXITED = "created", "running", "exited"
UNKNOWN_EXIT = -1

SCHEMA = """
CREATE TABLE IF NOT EXISTS containers (
  id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, image TEXT NOT NULL, image_id TEXT NOT NULL, created INTEGER NOT NULL,
  config TEXT NOT NULL, remove INTEGER NOT NULL, status TEXT NOT NULL DEFAULT 'created', attempt TEXT NOT NULL DEFAULT
  '',
  pid INTEGER NOT NULL DEFAULT 0, start_time INTEGER NOT NULL DEFAULT 0, boot TEXT NOT NULL DEFAULT '',
  outputs TEXT NOT NULL DEFAULT '', started INTEGER NOT NULL DEFAULT 0, finished INTEGER NOT NULL DEFAULT 0,
  exit_code INTEGER NOT NULL DEFAULT 0, oom INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS exits (
  id TEXT PRIMARY KEY, attempt TEXT NOT NULL DEFAULT '', code INTEGER NOT NULL, error TEXT NOT NULL DEFAULT '', time
  INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS ranges (container TEXT PRIMARY KEY, first INTEGER NOT NULL UNIQUE, size INTEGER NOT NULL);
"""


def connect(store: Store) -> sqlite3.Connection:
    """Open the store's database, made where it is missing. Raises Error."""
    path = store.root + "/db"
    try:
        db = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            from cloche.image.store import SCHEMA as IMAGES

            db.execute("PRAGMA journal_mode=WAL")
            db.executescript("BEGIN IMMEDIATE;" + SCHEMA + IMAGES + f"PRAGMA user_version={VERSION};COMMIT;")
        elif version > VERSION:
            raise Error(
                f"open {path}",
                f"it is of a newer cloche (version {version}, this one knows {VERSION})",
                "update cloche",
            )
        db.execute("PRAGMA synchronous=NORMAL")
    except sqlite3.Error as error:
        raise Error(f"open {path}", str(error), "is the disk full, or the file damaged?") from error
    db.row_factory = sqlite3.Row
    return db


def together(db: sqlite3.Connection, *statements: tuple[str, tuple[object, ...]]) -> None:
    """All of these or none. Raises sqlite3.Error."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for statement, values in statements:
            db.execute(statement, values)
        db.execute("COMMIT")
    except sqlite3.Error:
        if db.in_transaction:  # some errors have ended it already
            db.execute("ROLLBACK")
        raise
