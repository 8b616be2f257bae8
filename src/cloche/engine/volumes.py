"""Volumes of a store and who has them mounted: made, found, claimed, released, removed.

    ROOT/volumes/NAME/_data    the files

Directory, row and claim are made under the database's lock, the directory first; removed the other way round, by one
rename. So a directory without a row is what a killed create left, empty, or what a lost database knew: it is adopted by
who asks for its name, swept only when it is empty. A volume is claimed by each container that has it, running or not,
from before its row is there until after it is gone. Not its business: what is in volumes (filling).
"""

from __future__ import annotations

import os

from cloche.document import dumps, loads
from cloche.engine.validation import check_volume_name
from cloche.errors import Conflict, Invalid, NotFound
from cloche.transaction import Transaction
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloche.engine.request import FileMount
    from cloche.engine.sqlite import sqlite3
    from cloche.engine.store import Store

_EMPTIED = 1 << 20  # entries of the trash at once
ANONYMOUS = ("com.docker.volume.anonymous", "")  # the label of those that nobody named


class Volume(Value):
    """A volume. created: nanoseconds since 1970."""

    name: str
    created: int
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def anonymous(self) -> bool:
        """Whether nobody gave it its name."""
        return ANONYMOUS[0] in dict(self.labels)


class Volumes:
    """The store's volumes. Not for several threads at once."""

    def __init__(self, store: Store, db: sqlite3.Connection) -> None:
        self._store, self._db = store, db

    def all(self) -> list[Volume]:
        """Every volume, by name."""
        return [_volume(row) for row in self._db.execute("SELECT * FROM volumes ORDER BY name").fetchall()]

    def find(self, name: str) -> Volume:
        """By its whole name. Raises NotFound."""
        row = self._db.execute("SELECT * FROM volumes WHERE name=?", (name,)).fetchone()
        if row is None:
            raise NotFound(f"get {name}: no such volume", "", "`cloche volume ls` lists them")
        return _volume(row)

    def mountpoint(self, name: str) -> str:
        """Where its files are."""
        return self._store.volume(name) + "/_data"

    def users(self, name: str) -> list[str]:
        """The names of the containers that have it, also of those that do not run; ids of those being made."""
        rows = self._db.execute(
            "SELECT DISTINCT m.container, c.name FROM mounted m LEFT JOIN containers c ON c.id = m.container"
            " WHERE m.volume=? ORDER BY c.name",
            (name,),
        ).fetchall()
        return [row["name"] or row["container"][:12] for row in rows]

    def used(self) -> set[str]:
        """The names of all that a container has."""
        return {row["volume"] for row in self._db.execute("SELECT DISTINCT volume FROM mounted")}

    def create(self, name: str = "", labels: tuple[tuple[str, str], ...] = ()) -> Volume:
        """Make a volume; one that is there already is given as it is. Without a name it gets one. Raises Invalid."""
        if name:
            check_volume_name(name)
        else:
            name, labels = new_name(), (*labels, ANONYMOUS)
        with Transaction(self._db):
            self._ensure(name, labels)
        return self.find(name)

    def claim(self, ident: str, mounts: tuple[FileMount, ...]) -> None:
        """A container has these volumes from now on; what is missing is made. Raises OSError, sqlite3.Error."""
        with Transaction(self._db):
            done: set[str] = set()
            for mount in mounts:
                if mount.kind != "volume":
                    continue
                if mount.source not in done:
                    self._ensure(mount.source, (*mount.labels, *([ANONYMOUS] if mount.anonymous else ())))
                    done.add(mount.source)
                values = (ident, mount.source, mount.target, mount.anonymous)
                self._db.execute("INSERT INTO mounted VALUES (?, ?, ?, ?)", values)

    def _ensure(self, name: str, labels: tuple[tuple[str, str], ...]) -> None:
        """`taken` counts how often somebody asked for it: what only one ever has is gone when that one fails."""
        from time import time_ns

        place = self._store.volume(name)
        for path, mode in ((os.path.dirname(place), 0o701), (place, 0o701), (place + "/_data", 0o755)):
            try:
                os.mkdir(path, mode)
                os.chmod(path, mode)
            except FileExistsError:
                pass
        self._db.execute(
            "INSERT INTO volumes (name, created, labels) VALUES (?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET taken=taken+1",
            (name, time_ns(), dumps([list(pair) for pair in dict(labels).items()])),
        )

    def remove(self, volume: Volume) -> None:
        """Remove it with all that is in it. Raises NotFound, Conflict, Error, OSError."""
        from cloche.engine.removal import is_followed, sweep_forsaken
        from cloche.storage.trash import empty_trash

        if self.users(volume.name):  # a create that failed of a full disk could not take its claim back
            sweep_forsaken(self._store, self._db)
            if not self._db.execute("SELECT 1 FROM volumes WHERE name=?", (volume.name,)).fetchone():
                return  # it was made for that one alone
        with Transaction(self._db):
            self.find(volume.name)
            if users := self.users(volume.name):
                raise Conflict(
                    f"remove volume {volume.name}",
                    f"volume is in use - [{', '.join(users)}]",
                    f"remove them before: cloche rm {users[0]}",
                )
            _drop(self._store, self._db, volume.name)
        empty_trash(self._store.root, _EMPTIED, is_followed)  # who removes a volume wants the room

    def size(self, volume: Volume) -> int:
        """How many bytes its files have, those with several names once."""
        total = 0
        seen: set[tuple[int, int]] = set()
        for _, folders, files, fd in os.fwalk(self.mountpoint(volume.name)):
            for name in (*folders, *files):
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    total += status.st_size
        return total


def new_name() -> str:
    """Of an anonymous volume."""
    return os.urandom(32).hex()


def _volume(row: sqlite3.Row) -> Volume:
    return Volume(row["name"], row["created"], tuple((k, v) for k, v in loads(row["labels"] or "[]")))


def _drop(store: Store, db: sqlite3.Connection, name: str) -> None:
    from cloche.storage.trash import discard

    discard(store.root, store.volume(name))
    db.execute("DELETE FROM volumes WHERE name=?", (name,))


def release(
    store: Store,
    db: sqlite3.Connection,
    ident: str,
    anonymous: bool,
    failed: bool = False,
    swept: bool = False,
    also: tuple[tuple[str, tuple[object, ...]], ...] = (),
) -> None:
    """A container that goes gives up its volumes; its own are removed, if it should be so and nobody else has them.
    `also`: statements of the same moment.

    failed: it never came to be, so those that were made for it alone go, too; when that is found out much later
    (`swept`), somebody may have put something into them, and only empty ones go. Raises Error, sqlite3.Error.
    """
    query = "SELECT volume, max(anonymous) AS own FROM mounted WHERE container=? GROUP BY volume"
    with Transaction(db):
        mine = db.execute(query, (ident,)).fetchall()
        db.execute("DELETE FROM mounted WHERE container=?", (ident,))
        for row in mine:
            name = row["volume"]
            if db.execute("SELECT 1 FROM mounted WHERE volume=?", (name,)).fetchone():
                continue
            found = db.execute("SELECT taken FROM volumes WHERE name=?", (name,)).fetchone()
            made = failed and found and found["taken"] == 1 and not (swept and _has_files(store, name))
            if made or (row["own"] and (anonymous or failed)):
                _drop(store, db, name)
        for statement, values in also:
            db.execute(statement, values)


def _has_files(store: Store, name: str) -> bool:
    try:
        return bool(os.listdir(store.volume(name) + "/_data"))
    except FileNotFoundError:
        return False


def sweep_volumes(store: Store, db: sqlite3.Connection) -> None:
    """Put right what a process that was killed in the middle has left: a directory that has no row, a row that has no
    directory. Raises OSError, sqlite3.Error."""
    query = "SELECT name FROM volumes"
    if _directories(store) == {row["name"] for row in db.execute(query)}:
        return
    with Transaction(db):
        there = _directories(store)  # once more: nobody makes one now, somebody may have meanwhile
        known = {row["name"] for row in db.execute(query)}
        for name in there - known:
            for path in (store.volume(name) + "/_data", store.volume(name)):
                try:
                    os.rmdir(path)
                except OSError:
                    continue  # it has something in it that somebody may want
        for name in known - there:
            if not db.execute("SELECT 1 FROM mounted WHERE volume=?", (name,)).fetchone():
                db.execute("DELETE FROM volumes WHERE name=?", (name,))


def _directories(store: Store) -> set[str]:
    try:
        return set(os.listdir(store.root + "/volumes"))
    except FileNotFoundError:
        return set()  # the first volume has not been made


def check_driver(driver: str, options: dict[str, str]) -> None:
    """Only directories of the store. Raises Invalid, Unsupported."""
    from cloche.errors import Unsupported

    if driver != "local":
        raise Unsupported(f"volume driver {driver} is not there yet", "", "local")
    for key in options:
        if key not in ("type", "o", "device", "size"):
            raise Invalid(f"invalid option: {key}", "", "the local driver has type, o, device and size")
        raise Unsupported(f"volume option {key} is not there yet", "", "bind a directory: -v /DIRECTORY:/TARGET")


def document(volumes: Volumes, found: Volume) -> dict[str, Any]:
    """docker volume inspect."""
    from cloche.engine.inspection import moment

    return {
        "CreatedAt": moment(found.created).partition(".")[0].rstrip("Z") + "Z",
        "Driver": "local",
        "Labels": dict(found.labels) or None,
        "Mountpoint": volumes.mountpoint(found.name),
        "Name": found.name,
        "Options": None,
        "Scope": "local",
    }
