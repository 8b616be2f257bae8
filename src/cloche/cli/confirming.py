"""Asking before much is removed at once. Whoever does not type, as a script does not, has said no."""

from __future__ import annotations

import sys


def confirmed(warning: str, force: bool) -> bool:
    """Whether to go on: by force, or because somebody typed y."""
    if force:
        return True
    print(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() == "y"
