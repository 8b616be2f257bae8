"""A container's lines: those that are there, and those that come until it ends. Read from its log, as all output is."""

from __future__ import annotations

import os

from cloche.engine.database import RESTARTING, RUNNING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from cloche.engine.containers import Container, Engine
    from cloche.engine.courses import Stream
    from cloche.runtime.loglines import Line

    T = TypeVar("T")


def lines(
    engine: Engine,
    container: Container,
    shown: Callable[[Line], T],
    follow: bool = False,
    since: int | None = None,
    until: int | None = None,
    tail: int | None = None,
) -> Stream[T]:
    """The last `tail` of them, from and to a moment (nanoseconds since 1970); with `follow` it goes on while the
    container runs, or until that moment is past. shown: what is made of each. Raises NotFound, Error."""
    from time import time_ns

    from cloche.engine.logdrivers import readable
    from cloche.runtime.loglines import read

    readable(container)

    if follow and container.status in (RUNNING, RESTARTING) and (until is None or until > time_ns()):
        yield from _following(engine, container, shown, since, until, tail)
        return
    found: list[T] = []
    for line in read(engine.log_directory(container), since, until, tail):
        found.append(shown(line))
        if len(found) == 1000:
            yield tuple(found)
            found = []
    yield tuple(found)


def _following(
    engine: Engine,
    container: Container,
    shown: Callable[[Line], T],
    since: int | None,
    until: int | None,
    tail: int | None,
) -> Stream[T]:
    """The follower's lock is on the directory, which stays until we are done, whoever removes the container."""
    from time import time_ns

    from cloche.engine.client import Keeper
    from cloche.engine.courses import Wait
    from cloche.engine.removal import follow
    from cloche.engine.waiting import Waiting
    from cloche.runtime.loglines import LineFollower
    from cloche.runtime.logview import Woken

    directory, keeper = follow(engine.log_directory(container)), Keeper(engine.store)
    try:
        with LineFollower(f"/proc/self/fd/{directory}", since, until, tail, Woken) as coming:
            ending, ended = Waiting(keeper, container.id, wake=coming.fileno()), False
            while True:
                while found := coming.read():
                    yield tuple(map(shown, found))
                left = None if until is None else (until - time_ns()) / 1e9
                if ended or (left is not None and left <= 0):
                    break
                told = ending.fileno()
                ready = (yield Wait((coming.fileno(), told), seconds=left)).fds
                ended = told in ready and ending.result() is not None
            yield tuple(map(shown, coming.rest()))
    finally:
        keeper.close()
        os.close(directory)
