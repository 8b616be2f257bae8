"""The database module is whole without what it usually brings along, and leaves nothing of the stand-in behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

USE = """
import sys
from cloche.engine.sqlite import sqlite3
assert "collections" not in sys.modules, "not worth its name"
db = sqlite3.connect(":memory:", isolation_level=None)
db.execute("CREATE TABLE t (a, b)")
for n in range(300):
    db.execute("INSERT INTO t VALUES (?, ?)", (n, str(n)))
    assert db.execute(f"SELECT b FROM t WHERE a = {n}").fetchone() == (str(n),)  # more statements than are cached
try:
    db.execute("no statement")
except sqlite3.Error:
    pass
else:
    raise SystemExit("no error")
import functools
assert functools.wraps and functools.lru_cache(None)(len)("abc") == 3
import sqlite3 as whole
assert whole.connect is sqlite3.connect and whole.connect(":memory:").execute("SELECT 1").fetchone() == (1,)
"""


@pytest.mark.parametrize("before", ["", "import functools\n", "import sqlite3\n", "sys.modules['_functools'] = None\n"])
def test_it_works_whatever_was_imported_before(before: str) -> None:
    use = USE if not before else USE.replace('assert "collections"', '# assert "collections"')
    path = "import sys; sys.path[:0] = " + repr([p for p in sys.path if p]) + "\n"
    subprocess.run([sys.executable, "-I", "-S", "-c", path + before + use], check=True)
