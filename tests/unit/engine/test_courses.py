"""Courses: driven to their end, interrupted where they wait, cleaned up by the same lines in every way of waiting."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

import pytest

from cloche.awaiting import Driver, Worker
from cloche.engine.courses import CHECKPOINT, NOTHING, Wait, batches, each, finish
from cloche.engine.store import Store

if TYPE_CHECKING:
    from cloche.engine.courses import Course, Stream

NOWHERE = cast("Store", None)  # nobody waits for an end here


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def awaiting(test: Any) -> Any:
    """In a loop, with a driver."""

    async def main() -> Any:
        worker = Worker()
        try:
            return await test(Driver(worker, cast(Any, None)), worker)
        finally:
            worker.close()

    return asyncio.run(main())


def finished(course: Any, how: str) -> Any:
    if how == "poll":
        return finish(NOWHERE, course)
    return awaiting(lambda driver, worker: driver.finish(worker.put(lambda: course)))


HOW = pytest.mark.parametrize("how", ["poll", "loop"])


@HOW
def test_descriptors_and_time(pipe: tuple[int, int], how: str) -> None:
    reading, writing = pipe

    def course() -> Course[list[object]]:
        seen: list[object] = []
        began = monotonic()
        seen.append((yield Wait((reading,), seconds=0.05)) == NOTHING)
        seen.append(monotonic() - began >= 0.05)
        seen.append((yield Wait((reading,), (writing,))).fds == (writing,))
        os.write(writing, b"x")
        seen.append((yield Wait((reading,))).fds == (reading,))
        seen.append((yield CHECKPOINT) == NOTHING)
        return seen

    assert finished(course(), how) == [True] * 5


@HOW
def test_its_error_is_the_callers(how: str) -> None:
    def course() -> Course[None]:
        yield CHECKPOINT
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        finished(course(), how)


@HOW
def test_an_interruption_is_thrown_in_and_the_clean_up_may_wait(pipe: tuple[int, int], how: str) -> None:
    reading, writing = pipe
    seen: list[str] = []

    def course() -> Course[None]:
        try:
            yield Wait((reading,))
        except BaseException as error:
            seen.append(type(error).__name__)
            assert (yield Wait(writes=(writing,))).fds == (writing,)
            seen.append("cleaned")
            raise

    if how == "poll":
        from cloche.engine import courses

        class Interrupted(courses.Polling):
            def wait(self, wanted: Wait) -> courses.Ready:
                if wanted.reads:
                    raise KeyboardInterrupt
                return super().wait(wanted)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(courses, "Polling", Interrupted)
            with pytest.raises(KeyboardInterrupt):
                finish(NOWHERE, course())
        assert seen == ["KeyboardInterrupt", "cleaned"]
    else:

        async def cancelled(driver: Driver, worker: Worker) -> None:
            task = asyncio.ensure_future(driver.finish(worker.put(course)))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        awaiting(cancelled)
        assert seen == ["CancelledError", "cleaned"]


def test_a_cancellation_during_a_step_comes_at_the_checkpoint() -> None:
    made, undone = [], []

    def course() -> Course[str]:
        os.read(gate[0], 1)  # a step that takes its time
        made.append(1)
        try:
            yield CHECKPOINT
        except BaseException:
            undone.append(1)
            raise
        return "made"

    async def cancelled(driver: Driver, worker: Worker) -> None:
        task = asyncio.ensure_future(driver.finish(worker.put(course)))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.sleep(0.05)
        assert not task.done(), "the step under way is not left alone"
        os.write(gate[1], b"x")
        with pytest.raises(asyncio.CancelledError):
            await task

    gate = os.pipe()
    awaiting(cancelled)
    for fd in gate:
        os.close(fd)
    assert (made, undone) == ([1], [1])


def stream(closed: list[int]) -> Stream[int]:
    try:
        yield 1, 2
        yield CHECKPOINT
        yield ()
        yield (3,)
    finally:
        closed.append(1)


def test_streams() -> None:
    closed: list[int] = []
    assert list(each(NOWHERE, stream(closed))) == [1, 2, 3]
    assert list(batches(NOWHERE, stream(closed))) == [(1, 2), (), (3,)]
    assert next(iter(each(NOWHERE, stream(closed)))) == 1
    assert len(closed) == 3, "one that is let go is closed"

    async def iterated(driver: Driver, worker: Worker) -> list[int]:
        found = [n async for n in driver.each(worker.put(stream, closed))]
        early = driver.each(worker.put(stream, closed))
        async for n in early:
            found.append(n)
            break
        await early.aclose()
        return found

    assert awaiting(iterated) == [1, 2, 3, 1]
    assert len(closed) == 5
