"""logout: forget who we are to a registry."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche logout --help`."""
    from cloche.cli.verbs.login import server
    from cloche.image import credentials

    host = server(parsed)
    there = credentials.forget(credentials.path(os.environ), host)
    print(f"Removing login credentials for {host}" if there else f"Not logged in to {host}")
    return 0
