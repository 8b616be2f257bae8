"""All or none, whoever is interrupted when."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from cloche.transaction import Transaction


class Interrupted:
    """A connection in front of another: the n-th statement is executed, and then there is an interrupt."""

    def __init__(self, db: sqlite3.Connection, at: int) -> None:
        self.db, self.left = db, at

    @property
    def in_transaction(self) -> bool:
        return self.db.in_transaction

    def execute(self, *statement: Any) -> sqlite3.Cursor:
        done = self.db.execute(*statement)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return done


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(tmp_path / "db", isolation_level=None, timeout=0)
    made.execute("CREATE TABLE t (a UNIQUE)")
    yield made
    made.close()


def fill(db: sqlite3.Connection) -> None:
    with Transaction(db):
        db.execute("INSERT INTO t VALUES (1)")
        db.execute("INSERT INTO t VALUES (2)")


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_an_interrupt_behind_each_statement(db: sqlite3.Connection, tmp_path: Path, at: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        fill(cast("sqlite3.Connection", Interrupted(db, at)))
    assert not db.in_transaction
    assert db.execute("SELECT count(*) FROM t").fetchone()[0] == (2 if at == 4 else 0), "the fourth is the COMMIT"
    other = sqlite3.connect(tmp_path / "db", isolation_level=None, timeout=0)
    other.execute("INSERT INTO t VALUES (9)")
    other.close()


def test_an_error_of_the_database(db: sqlite3.Connection) -> None:
    fill(db)
    with pytest.raises(sqlite3.IntegrityError):
        fill(db)
    assert not db.in_transaction
    assert db.execute("SELECT count(*) FROM t").fetchone()[0] == 2
