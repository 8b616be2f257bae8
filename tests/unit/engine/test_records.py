"""What happens together in the database happens, or none of it."""

from __future__ import annotations

import sqlite3

import pytest

from cloche.engine.database import together


def test_statements_that_belong_together_are_all_done_or_none() -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.execute("CREATE TABLE t (a INTEGER UNIQUE)")
    together(db, ("INSERT INTO t VALUES (?)", (1,)), ("INSERT INTO t VALUES (?)", (2,)))
    with pytest.raises(sqlite3.IntegrityError):
        together(db, ("INSERT INTO t VALUES (?)", (3,)), ("INSERT INTO t VALUES (?)", (1,)))
    assert not db.in_transaction
    together(db, ("INSERT INTO t VALUES (?)", (4,)))
    assert [row[0] for row in db.execute("SELECT a FROM t ORDER BY a")] == [1, 2, 4]
    db.close()
