"""The blocking face of a course: what the SDK's methods are made of.

A method that waits is written as a course; `waits` makes of it a method that returns when it is done, `streams` one
that returns an iterator. `course_of` gives back what was written, for who waits in another way (cloche.aio).
"""

from __future__ import annotations

from cloche.engine.courses import each, finish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar

    from cloche.engine.containers import Engine
    from cloche.engine.courses import Course, Stream

    class OfEngine(Protocol):
        """Who has such methods."""

        @property
        def engine(self) -> Engine: ...

    P = ParamSpec("P")
    S = TypeVar("S", bound=OfEngine)
    T = TypeVar("T")
    Waits: TypeAlias = Course[T]  # of a method that waits, and then gives a T
    Streams: TypeAlias = Stream[T]  # of a method whose Ts come one after the other


def waits(method: Callable[Concatenate[S, P], Course[T]]) -> Callable[Concatenate[S, P], T]:
    """A method that returns when its course is done."""

    def call(self: S, /, *args: P.args, **options: P.kwargs) -> T:
        return finish(self.engine.store, method(self, *args, **options))

    _name(call, method)
    return call


def streams(method: Callable[Concatenate[S, P], Stream[T]]) -> Callable[Concatenate[S, P], Iterator[T]]:
    """A method that returns an iterator over what its stream gives."""

    def call(self: S, /, *args: P.args, **options: P.kwargs) -> Iterator[T]:
        return each(self.engine.store, method(self, *args, **options))

    _name(call, method)
    return call


def _name(call: Any, method: Any) -> None:
    """As functools.wraps does, which brings 2 ms of modules."""
    for name in ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__"):
        setattr(call, name, getattr(method, name))
    call.__wrapped__ = call.course = method


def course_of(method: Callable[..., Any]) -> Callable[..., Any] | None:
    """What a method was written as; None of one that does not wait."""
    return getattr(method, "course", None)
