"""SQLite's C module without what it drags along: together 6 of the 25 ms that a short command takes.

The package around it brings adapters of dates (4 ms). The module itself asks `functools` for one thing, a cache, which
is C too; but `functools` brings `collections` (2 ms). So it finds that one thing in a stand-in, which is gone at once.
"""

from __future__ import annotations

import sys

__all__ = ["sqlite3"]


def _lean() -> bool:
    """Import with the stand-in; False where this Python has no such cache, or needs more than it."""
    try:
        from _functools import _lru_cache_wrapper  # type: ignore[import-not-found]
    except ImportError:
        return False
    functools = type(sys)("functools")
    functools.lru_cache = (  # type: ignore[attr-defined]
        lambda maxsize: lambda call: _lru_cache_wrapper(call, maxsize, False, tuple)
    )
    sys.modules["functools"] = functools
    try:
        import _sqlite3  # noqa: F401
    except (ImportError, AttributeError):  # what it misses there, the real one has
        return False
    finally:
        del sys.modules["functools"]
    return True


if "functools" not in sys.modules and "_sqlite3" not in sys.modules:
    _lean()

import _sqlite3 as sqlite3  # noqa: E402
