"""completion: print what makes a shell complete command lines of cloche."""

from __future__ import annotations

from cloche.cli.completing import SCRIPTS
from cloche.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche completion --help`."""
    shell = parsed.arguments[0]
    if shell not in SCRIPTS:
        raise Invalid(f"complete in {shell}", "this shell is not known", "bash, zsh or fish")
    print(SCRIPTS[shell], end="")
    return 0
