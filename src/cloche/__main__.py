"""`python -m cloche` is `cloche`."""

from __future__ import annotations

from cloche.cli.main import program

if __name__ == "__main__":
    program()
