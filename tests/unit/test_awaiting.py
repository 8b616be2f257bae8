"""Courses in an asyncio loop: what a cancellation does at each moment."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from typing import Any, cast

from cloche.awaiting import Driver, Ends, Worker
from cloche.engine.courses import Ready, Wait

MOMENT = Wait(seconds=0)


class Made:
    """A course of two steps, which tells when the worker is in the second and goes on when it is told to."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.taken_back = False

    def course(self, more: bool) -> Generator[Any, Ready, str]:
        try:
            yield MOMENT
            self.begun.set()
            self.go_on.wait(10)
            if more:
                yield MOMENT
        except BaseException:
            self.taken_back = True
            raise
        return "made"


def cancelled_in_the_second_step(more: bool) -> tuple[Made, Any]:
    made, worker = Made(), Worker()

    async def main() -> Any:
        driver = Driver(worker, cast("Ends", None))
        task = asyncio.ensure_future(driver.finish(worker.put(made.course, more)))
        await asyncio.get_running_loop().run_in_executor(None, made.begun.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        made.go_on.set()
        return await task

    try:
        return made, asyncio.run(main())
    except asyncio.CancelledError as error:
        return made, error
    finally:
        worker.close()


def test_one_that_goes_on_takes_back_what_it_has_made() -> None:
    made, found = cancelled_in_the_second_step(more=True)
    assert isinstance(found, asyncio.CancelledError)
    assert made.taken_back


def test_in_its_last_step_it_is_too_late_and_what_was_made_is_not_lost() -> None:
    made, found = cancelled_in_the_second_step(more=False)
    assert (found, made.taken_back) == ("made", False)


class Counting(Worker):
    """It tells how much it has been given."""

    asked = 0

    def put(self, call: Any, *args: Any, **options: Any) -> Any:
        self.asked += 1
        return super().put(call, *args, **options)


def test_a_step_that_has_not_begun_is_no_reason_to_lose_what_the_one_before_has_made() -> None:
    worker, first, blocked, ended = Counting(), threading.Event(), threading.Event(), []

    def course() -> Generator[Any, Ready, None]:
        first.set()
        try:
            blocked.wait(10)
            yield MOMENT
            yield MOMENT
        except asyncio.CancelledError:
            ended.append("taken back")
            raise

    async def main() -> None:
        task = asyncio.ensure_future(Driver(worker, cast("Ends", None)).finish(worker.put(course)))
        await asyncio.get_running_loop().run_in_executor(None, first.wait, 10)
        hold = threading.Event()
        worker.put(hold.wait, 10)
        blocked.set()
        while worker.asked < 4:  # the course, its first step, what holds the worker, its second step
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        hold.set()
        await task

    try:
        asyncio.run(main())
    except asyncio.CancelledError:
        ended.append("cancelled")
    finally:
        worker.close()
    assert ended == ["taken back", "cancelled"]
