"""Removing a container's record and directory: one statement, one rename to the trash, which is emptied in slices.

Who follows a container's output has a shared lock on its log's directory (flock(2)); it ends with the follower. Until
then a removed container's directory stays in the trash.
"""

from __future__ import annotations

import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3

    from cloche.engine.store import Store

SLICE = 16  # directory entries: about half a millisecond
FORSAKEN = 60.0  # seconds without a row after which a directory's maker is dead: a create takes milliseconds


def follow(directory: str) -> int:
    """A descriptor of a log's directory with the follower's lock. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def is_followed(container: str) -> bool:
    """Whether somebody still reads the log below this directory."""
    try:
        fd = os.open(container + "/log", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False  # there is no log: a container that never ran, or a layer
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def remove_container(
    store: Store, db: sqlite3.Connection, ident: str, volumes: bool = False, failed: bool = False
) -> None:
    """Remove; harmless when it is gone already. volumes: also those that nobody named; failed: of a create, also others
    that it made. Raises Error, OSError, sqlite3.Error."""
    from cloche.engine.database import together
    from cloche.storage.trash import discard

    discard(store.root, store.container(ident))
    rows = (
        ("DELETE FROM ranges WHERE container=?", (ident,)),
        ("UPDATE networks SET cursor=0 WHERE id IN (SELECT network FROM connections WHERE container=?)", (ident,)),
        ("DELETE FROM connections WHERE container=?", (ident,)),
        ("DELETE FROM containers WHERE id=?", (ident,)),
    )
    if db.execute("SELECT 1 FROM mounted WHERE container=?", (ident,)).fetchone():
        from cloche.engine.volumes import release

        release(store, db, ident, volumes, failed, also=rows)
    else:
        together(db, *rows)


def discard_log(store: Store, ident: str) -> None:
    """Throw a container's log away; who still reads it reads on. Raises Error, OSError."""
    from cloche.storage.trash import discard

    place = store.container(ident)
    aside = f"{place}/gone"
    os.makedirs(aside, 0o700, exist_ok=True)  # an earlier one may have been left by a kill
    try:
        os.rename(place + "/log", aside + "/log")
    except FileNotFoundError:
        pass
    os.makedirs(place + "/log", 0o700, exist_ok=True)
    discard(store.root, aside)


def sweep(store: Store) -> bool:
    """Delete a bounded part of the trash; True when nothing is left that can go now."""
    from cloche.storage.trash import empty_trash

    return empty_trash(store.root, SLICE, is_followed)


def sweep_forsaken(store: Store, db: sqlite3.Connection) -> None:
    """Discard what a client that was killed in the middle of a create has left: a directory, a range of ids, addresses,
    volumes.

    A create makes the directory, takes range and addresses, writes the row; here they are read the other way round, so
    that none is taken for forsaken while it is being made. What has ever run is left alone: if it has no row, the
    database was lost, and its files may be all that somebody still has. Raises Error, OSError, sqlite3.Error.
    """
    from time import time

    from cloche.storage.trash import discard

    query = "SELECT container FROM ranges UNION SELECT container FROM connections UNION SELECT container FROM mounted"
    claims = {row["container"] for row in db.execute(query)}
    there = os.listdir(store.root + "/containers")
    known = {row["id"] for row in db.execute("SELECT id FROM containers")}
    young = set()
    for ident in there:
        path = store.container(ident)
        try:
            if ident not in known and time() - os.stat(path).st_mtime > FORSAKEN and not _has_run(path):
                discard(store.root, path)
            else:
                young.add(ident)
        except FileNotFoundError:
            continue
    from cloche.engine.volumes import release, sweep_volumes

    for ident in claims - known - young:
        release(store, db, ident, anonymous=True, failed=True, swept=True)
        db.execute("DELETE FROM ranges WHERE container=?", (ident,))
        db.execute("DELETE FROM connections WHERE container=?", (ident,))
    sweep_volumes(store, db)


def _has_run(container: str) -> bool:
    try:
        return bool(os.listdir(container + "/log"))
    except FileNotFoundError:
        return False
