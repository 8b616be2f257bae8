"""Courses: what takes its time, written once, for those who may block and for those who may not.

A course is a generator that does its work step by step and yields what it waits for. Whoever drives it decides how to
wait: `finish` by poll(2) in the caller's thread, the asynchronous SDK by its loop. What goes wrong while it waits
(KeyboardInterrupt, a cancellation) is thrown into it where it stands, and it may wait again while it cleans up.

A stream is a course that also gives tuples of what it finds. Not its business: what is waited for.
"""

from __future__ import annotations

from heapq import heappop, heappush
from time import monotonic

from cloche.engine.waiting import Ending, Endings
from cloche.errors import Error, NotFound
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from typing import Any, TypeAlias, TypeVar

    from cloche.engine.containers import Container, Engine
    from cloche.engine.store import Store

    K = TypeVar("K")
    T = TypeVar("T")
    Course: TypeAlias = Generator["Wait", "Ready", T]
    Stream: TypeAlias = Generator["Wait | tuple[T, ...]", "Ready", None]


class Wait(Value):
    """What a course waits for: any one of these. reads, writes: descriptors; end: of the container with this id;
    seconds: at most that long."""

    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()
    end: str = ""
    seconds: float | None = None


class Ready(Value):
    """What has come: descriptors that can be read or written, the end of the container; nothing, when time is up."""

    fds: tuple[int, ...] = ()
    ended: Ending | None = None


NOTHING = Ready()
CHECKPOINT = Wait(seconds=0.0)  # something was made: who has been interrupted meanwhile takes it back


class Polling:
    """The blocking way to wait. A context manager."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._endings: Endings | None = None

    def __enter__(self) -> Polling:
        return self

    def __exit__(self, *_: object) -> None:
        if self._endings:
            self._endings.close()

    def wait(self, wanted: Wait) -> Ready:
        """Until something of it is there. Raises Error when no keeper can tell of an end."""
        import select

        poll = select.poll()
        for fd in wanted.reads:
            poll.register(fd, select.POLLIN)
        for fd in wanted.writes:
            poll.register(fd, select.POLLOUT)
        due = None if wanted.seconds is None else monotonic() + wanted.seconds
        if not wanted.end:
            return Ready(tuple(fd for fd, _ in poll.poll(_left(due))))
        endings = self._endings = self._endings or Endings(self._store)
        found = endings.exchange(wanted.end)
        while True:
            told = endings.fileno()  # another one when the keeper is
            poll.register(told, select.POLLIN)
            ready = [fd for fd, _ in poll.poll(0 if wanted.end in found else _left(due))]
            poll.unregister(told)
            fds = tuple(fd for fd in ready if fd != told)
            if told in ready:
                found |= endings.exchange()
            if fds or wanted.end in found or (due is not None and monotonic() >= due):
                return Ready(fds, found.get(wanted.end))


def _left(due: float | None) -> float | None:
    """Milliseconds, for poll(2), rounded up."""
    return None if due is None else max(0.0, due - monotonic()) * 1000 + (0.999 if due > monotonic() else 0)


def finish(store: Store, course: Course[T]) -> T:
    """Drive it to its end, in this thread; what it returns."""
    with Polling(store) as driver:
        try:
            wanted = next(course)
            while True:
                wanted = _advance(driver, course, wanted)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def finish_all(store: Store, courses: Iterable[tuple[K, Course[T]]], done: Callable[[K, T | Error], None]) -> None:
    """Drive many at once, in this thread; `done` hears of each at its end, with what it returned or raised."""
    several = _Several(store, done)
    try:
        for key, course in courses:
            several.go_on(key, course, None)
        while several.waiting:
            several.wait()
    finally:
        several.close()


class _Several:
    """Courses that wait, by what they wait for. The k-th of them is called k."""

    def __init__(self, store: Store, done: Callable[[Any, Any], None]) -> None:
        self._endings, self._done = Endings(store), done
        self.waiting: dict[int, tuple[Any, Course[Any], Wait]] = {}
        self._by_end: dict[str, list[int]] = {}
        self._by_fd: dict[int, list[int]] = {}
        self._due: list[tuple[float, int]] = []
        self._number = 0

    def close(self) -> None:
        for _, course, _ in self.waiting.values():
            course.close()
        self._endings.close()

    def go_on(self, key: Any, course: Course[Any], ready: Ready | None) -> None:
        """From where it waits (None: from its beginning) to where it waits next, or to its end."""
        try:
            wanted = next(course) if ready is None else course.send(ready)
        except StopIteration as end:
            self._done(key, end.value)
            return
        except Error as error:
            self._done(key, error)
            return
        self._number += 1
        self.waiting[self._number] = (key, course, wanted)
        if wanted.end:
            self._by_end.setdefault(wanted.end, []).append(self._number)
        for fd in (*wanted.reads, *wanted.writes):
            self._by_fd.setdefault(fd, []).append(self._number)
        if wanted.seconds is not None:
            heappush(self._due, (monotonic() + wanted.seconds, self._number))

    def _wake(self, number: int, ready: Ready) -> None:
        if found := self.waiting.pop(number, None):
            key, course, wanted = found
            for fd in (*wanted.reads, *wanted.writes):
                self._by_fd[fd].remove(number)
                if not self._by_fd[fd]:
                    del self._by_fd[fd]
            if wanted.end and number in self._by_end.get(wanted.end, ()):
                self._by_end[wanted.end].remove(number)
            self.go_on(key, course, ready)

    def wait(self) -> None:
        """Until something of what they wait for is there. Raises Error when no keeper can tell of an end."""
        import select

        found: dict[str, Ending] = {}
        for ident in [ident for ident, numbers in self._by_end.items() if numbers and ident not in self._endings]:
            found |= self._endings.exchange(ident)
        poll = select.poll()
        for fd, numbers in self._by_fd.items():
            writes = any(fd in self.waiting[n][2].writes for n in numbers)
            poll.register(fd, select.POLLOUT if writes else select.POLLIN)
        if (told := self._endings.fileno()) >= 0:
            poll.register(told, select.POLLIN)
        while self._due and self._due[0][1] not in self.waiting:
            heappop(self._due)
        left = _left(self._due[0][0] if self._due else None)
        ready = [fd for fd, _ in poll.poll(0 if found else left)]
        if told in ready:
            found |= self._endings.exchange()
        for ident, ended in found.items():
            for number in self._by_end.pop(ident, []):
                self._wake(number, Ready((), ended))
        for fd in ready:
            for number in list(self._by_fd.get(fd, ())):
                self._wake(number, Ready((fd,)))
        while self._due and self._due[0][0] <= monotonic():
            self._wake(heappop(self._due)[1], NOTHING)


def each(store: Store, stream: Stream[T]) -> Iterator[T]:
    """What it gives, one by one, in this thread."""
    found = batches(store, stream)
    try:
        for batch in found:
            yield from batch
    finally:
        found.close()


def batches(store: Store, stream: Stream[T]) -> Generator[tuple[T, ...], None, None]:
    """What it gives, as it comes, in this thread."""
    with Polling(store) as driver:
        try:
            found = next(stream)
            while True:
                if isinstance(found, Wait):
                    found = _advance(driver, stream, found)
                else:
                    yield found
                    found = stream.send(NOTHING)
        except StopIteration:
            return
        finally:
            stream.close()


def _advance(driver: Polling, course: Generator[Any, Ready, Any], wanted: Wait) -> Any:
    try:
        ready = driver.wait(wanted)
    except BaseException as error:  # noqa: BLE001 - it is thrown on
        return course.throw(error)
    return course.send(ready)


def ending(engine: Engine, container: Container) -> Course[tuple[int, str]]:
    """Until it has ended: the exit code, and "" or why it is not known (then the code is -1). Raises NotFound."""
    ended = None
    while ended is None:
        ended = (yield Wait(end=container.id)).ended
    return recorded(engine, container, ended)


def recorded(engine: Engine, container: Container, ended: Ending) -> tuple[int, str]:
    """The end that a keeper has told of; of one that it does not know, what the database says. Raises NotFound."""
    from cloche.engine.database import RESTARTING, RUNNING
    from cloche.engine.waiting import NOT_KNOWN

    if ended is not NOT_KNOWN:
        return ended
    query = "SELECT status, exit_code, error FROM containers WHERE id=?"
    row = engine.db.execute(query, (container.id,)).fetchone()
    if row is None or row["status"] in (RUNNING, RESTARTING):
        raise NotFound(f"No such container: {container.name}")
    return row["exit_code"], row["error"]
