"""The one database of a store, SQLite in WAL mode: containers and their states, exits, id ranges; images in their own
tables.

synchronous=NORMAL: a commit costs 0.01 ms; a power loss may forget the last start, never corrupt. Every statement
commits by
itself; what must happen together says BEGIN. Times are nanoseconds since 1970, 0 when not yet.
"""

from __future__ import annotations

from cloche.engine.sqlite import sqlite3
from cloche.errors import Error
from cloche.transaction import Transaction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.store import Store

VERSION = 7
CREATED, RUNNING, EXITED, RESTARTING = "created", "running", "exited", "restarting"
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
_NOW = "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER) * 1000000"
_INSERT = "INSERT INTO events (time, kind, action, actor, name, image, labels, attributes) VALUES"


def _trigger(name: str, when: str, row: str, time: str, action: str, attributes: str = "''") -> str:
    """An event of a container, written in the transaction that changes its row."""
    labels = "NULL"
    if name == "create":  # only there: an image's may be long
        labels = f"CASE WHEN json_valid({row}.config) THEN json_extract({row}.config, '$.labels') END"
    values = f"{time}, 'container', '{action}', {row}.id, {row}.name, {row}.image, {labels}, {attributes}"
    return f"CREATE TRIGGER event_{name} {when} BEGIN {_INSERT} ({values}); END;\n"


_CHANGED = "AFTER UPDATE OF {0} ON containers WHEN NEW.{0} IS NOT OLD.{0} AND NEW.{0} = {1}"
_EVENTS = (
    """
CREATE TABLE events (
  number INTEGER PRIMARY KEY, time INTEGER NOT NULL, kind TEXT NOT NULL, action TEXT NOT NULL, actor TEXT NOT NULL,
  name TEXT NOT NULL, image TEXT NOT NULL, labels TEXT, attributes TEXT NOT NULL
);
CREATE TRIGGER events_bounded AFTER INSERT ON events WHEN NEW.number % 100 = 0 BEGIN
  DELETE FROM events WHERE number <= NEW.number - 10000; END;
"""
    + _trigger("create", "AFTER INSERT ON containers", "NEW", "NEW.created", "create")
    + _trigger("start", _CHANGED.format("status", "'running'"), "NEW", "NEW.started", "start")
    + _trigger("oom", _CHANGED.format("oom", "1"), "NEW", "NEW.finished", "oom")
    + _trigger(
        "die",
        "AFTER UPDATE OF status ON containers WHEN OLD.status = 'running' AND NEW.status IN ('exited', 'restarting')",
        "NEW",
        "NEW.finished",
        "die",
        "json_object('exitCode', CAST(NEW.exit_code AS TEXT), 'execDuration',"
        " CAST((NEW.finished - NEW.started) / 1000000000 AS TEXT))",
    )
    + _trigger("pause", _CHANGED.format("paused", "1"), "NEW", _NOW, "pause")
    + _trigger("unpause", _CHANGED.format("paused", "0"), "NEW", _NOW, "unpause")
    + _trigger(
        "rename",
        "AFTER UPDATE OF name ON containers WHEN NEW.name IS NOT OLD.name",
        "NEW",
        _NOW,
        "rename",
        "json_object('oldName', '/' || OLD.name)",
    )
    + _trigger("destroy", "AFTER DELETE ON containers", "OLD", _NOW, "destroy")
    + "".join(
        f"CREATE TRIGGER event_image_{action} AFTER {change} BEGIN"
        f" {_INSERT} ({_NOW}, 'image', '{action}', {row}, {name}, '', NULL, ''); END;\n"
        for action, change, row, name in (
            ("create", "INSERT ON images", "NEW.id", "NEW.id"),
            ("delete", "DELETE ON images", "OLD.id", "OLD.id"),
            ("tag", "INSERT ON tags", "NEW.image", "NEW.reference"),
            ("untag", "DELETE ON tags", "OLD.image", "OLD.reference"),
        )
    )
)
# what each version has added to the one before
ADDED = {
    2: """
CREATE TABLE networks (
  id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created INTEGER NOT NULL, config TEXT NOT NULL,
  cursor INTEGER NOT NULL
);
CREATE TABLE connections (
  container TEXT NOT NULL, network TEXT NOT NULL, position INTEGER NOT NULL, ip4 TEXT, ip6 TEXT, mac TEXT NOT NULL,
  aliases TEXT NOT NULL DEFAULT '', PRIMARY KEY (container, network), UNIQUE (network, ip4), UNIQUE (network, ip6)
);
ALTER TABLE containers ADD COLUMN ports TEXT NOT NULL DEFAULT '';
""",
    3: """
ALTER TABLE containers ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
""",
    4: """
ALTER TABLE containers ADD COLUMN restarts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE containers ADD COLUMN stopped INTEGER NOT NULL DEFAULT 0;
""",
    5: _EVENTS,
    6: """
CREATE TABLE volumes (
  name TEXT PRIMARY KEY, created INTEGER NOT NULL, labels TEXT NOT NULL DEFAULT '', taken INTEGER NOT NULL DEFAULT 1
);
CREATE TABLE mounted (
  container TEXT NOT NULL, volume TEXT NOT NULL, target TEXT NOT NULL, anonymous INTEGER NOT NULL,
  PRIMARY KEY (container, target)
);
CREATE INDEX mounted_volume ON mounted (volume);
""",
    7: f"""
ALTER TABLE containers ADD COLUMN health TEXT NOT NULL DEFAULT '';
ALTER TABLE containers ADD COLUMN checks TEXT NOT NULL DEFAULT '';
CREATE TRIGGER event_health AFTER UPDATE OF health ON containers
  WHEN NEW.health IS NOT OLD.health AND NEW.health IN ('healthy', 'unhealthy') BEGIN
  {_INSERT} (json_extract(NEW.checks, '$.log[#-1].end'), 'container', 'health_status: ' || NEW.health, NEW.id, NEW.name,
  NEW.image, NULL, ''); END;
""",
}

# of the log until whoever commits must copy it into the database, which takes milliseconds: the keeper does it before,
# when all is quiet
_PAGES = 4000


def connect(store: Store) -> sqlite3.Connection:
    """Open the store's database, made where it is missing. Raises Error."""
    path = store.root + "/db"
    try:
        db = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version < VERSION:
            _bring_up_to_date(db)
        elif version > VERSION:
            raise Error(
                f"open {path}",
                f"it is of a newer cloche (version {version}, this one knows {VERSION})",
                "update cloche",
            )
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute(f"PRAGMA wal_autocheckpoint={_PAGES}")
    except sqlite3.Error as error:
        raise Error(f"open {path}", str(error), "is the disk full, or the file damaged?") from error
    db.row_factory = sqlite3.Row
    return db


def _bring_up_to_date(db: sqlite3.Connection) -> None:
    """Make the tables, or add what newer versions have. Several processes may want to: one does."""
    from cloche.image.store import SCHEMA as IMAGES

    db.execute("PRAGMA journal_mode=WAL")
    with Transaction(db):
        version = db.execute("PRAGMA user_version").fetchone()[0]
        scripts = [SCHEMA, IMAGES] if version == 0 else []
        scripts += [text for number, text in ADDED.items() if number > version]
        statement = ""
        for part in "".join(scripts).split(";"):
            statement += part + ";"  # a trigger has several in it
            if statement.strip(" \n;") and sqlite3.complete_statement(statement):
                db.execute(statement)
                statement = ""
        db.execute(f"PRAGMA user_version={VERSION}")


def together(db: sqlite3.Connection, *statements: tuple[str, tuple[object, ...]]) -> None:
    """All of these or none. Raises sqlite3.Error."""
    with Transaction(db):
        for statement, values in statements:
            db.execute(statement, values)
