"""The loop: an event is for who watched when it came, never for who has the same descriptor number now."""

from __future__ import annotations

import os
from collections.abc import Callable

from cloche.engine.loop import Loop


def nothing() -> None: ...


def test_an_event_of_a_descriptor_that_was_replaced_meanwhile_is_dropped() -> None:
    loop, said = Loop(), list[str]()
    first, second = os.pipe(), os.pipe()

    def replace() -> None:
        loop.unwatch(second[0])
        os.close(second[0])
        again = os.dup(first[0])
        assert again == second[0]
        loop.watch(again, lambda: said.append("spurious"))

    loop.watch(first[0], replace)
    loop.watch(second[0], nothing)
    loop.call_ready([(first[0], 1), (second[0], 1)])
    assert said == []
    for fd in (*first, *second):
        os.close(fd)
    loop.poll.close()


def test_what_is_due_is_called_once_and_may_ask_for_more() -> None:
    loop, said = Loop(), list[int]()

    def call(number: int) -> Callable[[], None]:
        return lambda: said.append(number)

    loop.after(0, call(1))
    loop.after(60, call(2))
    loop.after(0, lambda: loop.after(0, call(3)))
    loop.call_due()
    assert said == [1]
    loop.call_due()
    assert said == [1, 3]
    assert len(loop.later) == 1
    loop.poll.close()


def test_watching_twice_replaces_and_unwatching_twice_is_harmless() -> None:
    loop, said = Loop(), list[str]()
    reading, writing = os.pipe()
    os.write(writing, b"x")
    loop.watch(reading, lambda: said.append("old"))
    loop.watch(reading, lambda: said.append("new"))
    loop.call_ready(loop.poll.poll(0))
    loop.unwatch(reading)
    loop.unwatch(reading)
    assert (said, loop.poll.poll(0)) == (["new"], [])
    os.close(reading)
    os.close(writing)
    loop.poll.close()
