"""One thing done to each of several containers: all are tried, each problem is a line, the exit code says whether all
went well."""

from __future__ import annotations

import sys

from cloche.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from cloche.engine.containers import Container, Engine
    from cloche.engine.courses import Course


def each(names: Iterable[str], do: Callable[[str], str], forgiven: type[Error] | None = None) -> int:
    """Print what `do` returns for each name, unless it is empty; 1 when one failed, 0 when none did.

    forgiven: a kind of error that is said, but is no failure.
    """
    code = 0
    for name in names:
        try:
            code |= _say(do(name), forgiven)
        except Error as error:
            code |= _say(error, forgiven)
    return code


def at_once(
    engine: Engine,
    names: Sequence[str],
    course: Callable[[Container], Course[Any]],
    forgiven: type[Error] | None = None,
) -> int:
    """The same with what takes its time, of all at once; names are printed in the order in which they were given."""
    from cloche.engine.courses import finish_all

    results: dict[int, str | Error] = {}
    code = said = 0

    def done(number: int, result: object) -> None:
        nonlocal code, said
        results[number] = result if isinstance(result, Error) else names[number]
        while said in results:
            code |= _say(results.pop(said), forgiven)
            said += 1

    def courses() -> Iterable[tuple[int, Course[Any]]]:
        for number, name in enumerate(names):
            try:
                yield number, course(engine.find(name))
            except Error as error:
                done(number, error)

    finish_all(engine.store, courses(), done)
    return code


def _say(result: str | Error, forgiven: type[Error] | None) -> int:
    if isinstance(result, Error):
        print(f"cloche: {result}", file=sys.stderr)
        return int(forgiven is None or not isinstance(result, forgiven))
    if result:
        print(result, flush=True)
    return 0
