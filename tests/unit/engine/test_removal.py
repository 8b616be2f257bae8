"""What a killed create leaves is swept; nothing that somebody may still want is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloche.engine.database import connect
from cloche.engine.removal import sweep_forsaken
from cloche.engine.store import locate, prepare

OLD = (0, 0)


@pytest.mark.parametrize(
    ("row", "old", "ran", "swept"),
    [
        (False, True, False, True),
        (True, True, False, False),
        (False, False, False, False),
        (False, True, True, False),
    ],
    ids=["killed", "recorded", "being made", "of a lost database"],
)
def test_only_what_is_forsaken_is_swept(tmp_path: Path, row: bool, old: bool, ran: bool, swept: bool) -> None:
    store = locate(str(tmp_path / "store"))
    prepare(store)
    db = connect(store)
    ident = "a" * 64
    place = Path(store.container(ident))
    (place / "log").mkdir(parents=True)
    if ran:
        (place / "log/log.1.raw").touch()
    db.execute("INSERT INTO ranges VALUES (?, 1048576, 65536)", (ident,))
    if row:
        columns, values = "id, name, image, image_id, created, config, remove", "?, 'n', '', '', 0, '', 0"
        db.execute(f"INSERT INTO containers ({columns}) VALUES ({values})", (ident,))
    if old:
        os.utime(place, OLD)
    sweep_forsaken(store, db)
    assert place.exists() != swept
    assert bool(db.execute("SELECT 1 FROM ranges").fetchone()) != swept
    db.close()


def test_a_range_whose_directory_is_gone_is_free_again(tmp_path: Path) -> None:
    store = locate(str(tmp_path / "store"))
    prepare(store)
    db = connect(store)
    db.execute("INSERT INTO ranges VALUES (?, 1048576, 65536)", ("b" * 64,))
    sweep_forsaken(store, db)
    assert db.execute("SELECT 1 FROM ranges").fetchone() is None
    db.close()
