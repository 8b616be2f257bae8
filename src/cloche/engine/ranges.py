"""The ids of user namespaces: an automatic range belongs to one container until its row is gone."""

from __future__ import annotations

import os

from cloche.transaction import Transaction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.request import RunRequest
    from cloche.engine.sqlite import sqlite3
    from cloche.oci.runtime import IdMapping

FIRST, SIZE = 1 << 20, 1 << 16  # of automatic user namespaces: above those of people and subuid(5)


def mapping(db: sqlite3.Connection, request: RunRequest, ident: str) -> tuple[IdMapping, ...]:
    """The ids that a container gets; an automatic range is taken for it."""
    from cloche.oci.runtime import IdMapping

    if request.namespaces.user == "map":
        return request.namespaces.user_map
    if request.namespaces.user != "auto":
        return ()
    with Transaction(db):
        taken = {row["first"] for row in db.execute("SELECT first FROM ranges")}
        first = next(f for f in range(FIRST, 1 << 31, SIZE) if f not in taken)
        db.execute("INSERT INTO ranges VALUES (?, ?, ?)", (ident, first, SIZE))
    return (IdMapping(0, first, SIZE),)


def give_to_root(path: str, mapped: tuple[IdMapping, ...]) -> None:
    """In a user namespace the container's root has another id outside; its root directory shall be its own."""
    owner = os.stat(path)
    for m in mapped:
        if m.container <= owner.st_uid < m.container + m.size:
            os.chown(path, owner.st_uid - m.container + m.host, owner.st_gid - m.container + m.host)
