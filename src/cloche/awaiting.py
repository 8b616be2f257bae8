"""Waiting in an asyncio loop for what courses wait for (cloche.engine.courses): no thread waits for a container.

The steps of courses are done by a worker, one thread that has an engine to itself; what they wait for (descriptors,
ends of containers, time) is waited for by the loop. A cancellation is told when the step under way is done: it is
thrown into the course, which takes back what it has made. Not its business: what the calls are (cloche.aio).
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from cloche.engine.courses import NOTHING, Ready, Wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from concurrent.futures import Future
    from typing import Any, TypeVar

    from cloche.engine.waiting import Endings

    T = TypeVar("T")
    Tell = Callable[[object], None]


class Worker:
    """One thread that does what it is given, in order, and whoever waits for it in a loop."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "cloche")

    def close(self) -> None:
        """End the thread, which has nothing left to do."""
        self._thread.shutdown()

    def put(self, call: Callable[..., T], *args: Any, **options: Any) -> Future[T]:
        """Something to do."""
        return self._thread.submit(call, *args, **options)

    async def do(self, call: Callable[..., T], *args: Any, owed: bool = False) -> tuple[T, BaseException | None]:
        """What it gives, and the cancellation that came meanwhile: it is the caller's to raise when all is in order.
        owed: as with `done`."""
        return await done(self.put(call, *args), owed=owed)


async def done(
    task: Future[T], stop: Callable[[], None] | None = None, owed: bool = False
) -> tuple[T, BaseException | None]:
    """What a thread's work gives, and the cancellation that came meanwhile. stop: makes it end sooner, by an error.
    owed: it is done also when the cancellation comes before it has begun, for it goes on with what has."""
    future, cancelled = asyncio.wrap_future(task), None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            if not owed and task.cancel():
                raise  # it had not begun
            cancelled = error
            if stop:
                stop()
    if cancelled and stop and future.exception():
        raise cancelled
    return future.result(), cancelled


class Ends:
    """Who waits for the ends of containers: any number of them, by one descriptor in the loop."""

    def __init__(self, worker: Worker, endings: Endings) -> None:
        self._worker, self._endings = worker, endings
        self._told: dict[str, list[Tell]] = {}
        self._watched = -1
        self._busy = 0

    async def add(self, ident: str, tell: Tell) -> None:
        """Have `tell` called with the Ending. Raises Error when no keeper can tell."""
        self._told.setdefault(ident, []).append(tell)
        await self._exchange(ident)

    def drop(self, ident: str, tell: Tell) -> None:
        """Not any more. When nobody waits for anything the keeper is let go, and forgets us."""
        tells = self._told.get(ident, [])
        if tell in tells:
            tells.remove(tell)
        if not tells:
            self._told.pop(ident, None)
        if not self._told:
            self._unwatch()
            self._worker.put(self._endings.close)

    async def _exchange(self, ident: str = "") -> None:
        """In the worker; the descriptor, which may be another one after it, is not watched meanwhile."""
        self._unwatch()
        self._busy += 1
        try:
            found, cancelled = await self._worker.do(self._endings.exchange, ident)
        finally:
            self._busy -= 1
            self._watch()
        for name, ending in found.items():
            for tell in self._told.pop(name, []):
                tell(ending)
        if cancelled:
            raise cancelled

    def _watch(self) -> None:
        if not self._busy and self._told and self._endings.fileno() >= 0:
            self._watched = self._endings.fileno()
            asyncio.get_running_loop().add_reader(self._watched, self._readable)

    def _unwatch(self) -> None:
        if self._watched >= 0:
            asyncio.get_running_loop().remove_reader(self._watched)
            self._watched = -1

    def _readable(self) -> None:
        self._unwatch()
        self._task = asyncio.ensure_future(self._hear())

    async def _hear(self) -> None:
        try:
            await self._exchange()
        except Exception as error:  # noqa: BLE001 - it is for those who wait
            told, self._told = self._told, {}
            for tells in told.values():
                for tell in tells:
                    tell(error)


class Driver:
    """Drives courses: their steps in a worker, their waits in the loop."""

    def __init__(self, worker: Worker, ends: Ends) -> None:
        self.worker, self._ends = worker, ends

    async def finish(self, made: Future[Generator[Any, Ready, T]]) -> T:
        """A course that the worker makes, to its end; what it returns."""
        course, cancelled = await done(made)
        if cancelled:
            raise cancelled
        ended, found = await self._advance(course, None)
        while not ended:
            ended, found = await self._wait_and_advance(course, found)
        return found  # type: ignore[no-any-return]

    async def each(self, made: Future[Generator[Any, Ready, None]]) -> AsyncGenerator[Any, None]:
        """What a stream that the worker makes gives, one by one."""
        stream, cancelled = await done(made)
        if cancelled:
            raise cancelled
        try:
            ended, found = await self._advance(stream, None)
            while not ended:
                if isinstance(found, Wait):
                    ended, found = await self._wait_and_advance(stream, found)
                else:
                    for one in found:
                        yield one
                    ended, found = await self._advance(stream, NOTHING)
        finally:
            _, cancelled = await self.worker.do(stream.close, owed=True)
            if cancelled:
                raise cancelled

    async def _wait_and_advance(self, course: Generator[Any, Ready, Any], wanted: Wait) -> tuple[bool, Any]:
        try:
            ready = await self._wait(wanted)
        except BaseException as error:  # noqa: BLE001 - it is thrown on
            return await self._advance(course, error)
        return await self._advance(course, ready)

    async def _advance(
        self, course: Generator[Any, Ready, Any], given: Ready | BaseException | None
    ) -> tuple[bool, Any]:
        """One step: whether that was the end, and what it gave. A cancellation meanwhile is thrown in behind it; after
        the end it comes too late, as for asyncio.wait_for of Python 3.11: what was made is the caller's, not lost."""
        (ended, found), cancelled = await self.worker.do(_step, course, given, owed=given is not None)
        while cancelled and not ended:
            (ended, found), cancelled = await self.worker.do(_step, course, cancelled, owed=True)
        return ended, found

    async def _wait(self, wanted: Wait) -> Ready:
        loop = asyncio.get_running_loop()
        come: asyncio.Future[object] = loop.create_future()

        def tell(what: object) -> None:
            if not come.done():
                come.set_result(what)

        if wanted.seconds == 0 and not (wanted.reads or wanted.writes or wanted.end):
            return NOTHING
        timer = None if wanted.seconds is None else loop.call_later(wanted.seconds, tell, None)
        for fd in wanted.reads:
            loop.add_reader(fd, tell, fd)
        for fd in wanted.writes:
            loop.add_writer(fd, tell, fd)
        try:
            if wanted.end:
                await self._ends.add(wanted.end, tell)
            what = await come
        finally:
            if wanted.end:
                self._ends.drop(wanted.end, tell)
            for fd in wanted.reads:
                loop.remove_reader(fd)
            for fd in wanted.writes:
                loop.remove_writer(fd)
            if timer:
                timer.cancel()
        if isinstance(what, Exception):
            raise what
        if isinstance(what, int):
            return Ready((what,))
        return Ready(ended=what)  # type: ignore[arg-type]  # an Ending, or nothing


def _step(course: Generator[Any, Ready, Any], given: Ready | BaseException | None) -> tuple[bool, Any]:
    """In the worker. StopIteration cannot be told through a future."""
    try:
        if isinstance(given, BaseException):
            return False, course.throw(given)
        return False, next(course) if given is None else course.send(given)
    except StopIteration as end:
        return True, end.value
