"""One thing done to each of several containers: all are tried, each problem is a line, the exit code says whether all
went well."""

from __future__ import annotations

import sys

from cloche.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def each(names: Iterable[str], do: Callable[[str], str], forgiven: type[Error] | None = None) -> int:
    """Print what `do` returns for each name, unless it is empty; 1 when one failed, 0 when none did.

    forgiven: a kind of error that is said, but is no failure.
    """
    code = 0
    for name in names:
        try:
            done = do(name)
            if done:
                print(done, flush=True)
        except Error as error:
            print(f"cloche: {error}", file=sys.stderr)
            if forgiven is None or not isinstance(error, forgiven):
                code = 1
    return code
