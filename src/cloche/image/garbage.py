"""Taking away layers and content that nothing needs, and what killed processes left half made.

Both are done with the lock alone (see image/staging), so that nothing vanishes under who makes an image; while
somebody does, they do nothing. Rows go first and files after them: what is killed in between is found here the next
time.
"""

from __future__ import annotations

import fcntl
import os

from cloche.image.staging import lock
from cloche.image.store import Changing
from cloche.storage.content import ContentStore
from cloche.storage.trash import discard

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable

    from cloche.image.store import Use


def collect(root: str, db: sqlite3.Connection, in_use: Callable[[], Iterable[Use]]) -> bool:
    """Discard layers and content that no image and no container needs. False: somebody is adding images. Raises
    Error."""
    fd = _alone(root)
    if fd is None:
        return False
    try:
        with Changing(db):
            layers = {number for use in in_use() for number in use.layers}
            blobs: set[str] = set()
            for row in db.execute("SELECT layers, blobs FROM images"):
                layers.update(map(int, row[0].split()))
                blobs.update(row[1].split())
            rows = [row[0] for row in db.execute("SELECT number FROM layers")]
            unused = [number for number in rows if number not in layers]
            db.executemany("DELETE FROM layers WHERE number = ?", [(number,) for number in unused])
        for number in unused:
            discard(root, f"{root}/layers/{number}")
        content = ContentStore(root)
        for digest in content.digests():
            if digest not in blobs:
                content.remove(digest)
    finally:
        os.close(fd)
    return True


def recover(root: str, db: sqlite3.Connection) -> bool:
    """Discard what is aside, and layers that no row knows. False: somebody is adding images. Raises Error."""
    fd = _alone(root)
    if fd is None:
        return False
    try:
        for name in os.listdir(root + "/aside"):
            if name != "lock":
                discard(root, f"{root}/aside/{name}")
        known = {str(row[0]) for row in db.execute("SELECT number FROM layers")}
        for name in os.listdir(root + "/layers"):
            if name not in known:
                discard(root, f"{root}/layers/{name}")
    finally:
        os.close(fd)
    return True


def _alone(root: str) -> int | None:
    for name in ("aside", "layers"):
        os.makedirs(f"{root}/{name}", 0o700, exist_ok=True)
    try:
        return lock(root, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
