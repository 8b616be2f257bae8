"""How a method of the SDK becomes one of `cloche.aio`: the same name, arguments and result, awaited or iterated."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from typing import Any, Concatenate, ParamSpec, TypeVar

    from cloche import sdk
    from cloche.aio import Client

    P = ParamSpec("P")
    T = TypeVar("T")


def awaited(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """A method of the SDK, awaited."""

    async def call(self: Face, /, *args: Any, **options: Any) -> T:
        return await self._client._call(method, self._inner, *args, **options)

    _name(call, method)
    return call


def aside(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """The same of one that may be long at it: with a thread and an engine of its own."""

    async def call(self: Face, /, *args: Any, **options: Any) -> T:
        return await self._client._aside(lambda client: method(self._of(client), *args, **options))

    _name(call, method)
    return call


def iterated(method: Callable[Concatenate[Any, P], Iterator[T]]) -> Callable[Concatenate[Any, P], AsyncIterator[T]]:
    """A method of the SDK that gives one thing after the other."""

    def call(self: Face, /, *args: Any, **options: Any) -> AsyncIterator[T]:
        return self._client._each(method, self._inner, *args, **options)

    _name(call, method)
    return call


def piecewise(
    method: Callable[Concatenate[Any, P], Iterator[bytes]],
) -> Callable[Concatenate[Any, P], AsyncIterator[bytes]]:
    """One that gives a stream of bytes: with a thread and an engine of its own."""

    def call(self: Face, /, *args: Any, **options: Any) -> AsyncIterator[bytes]:
        return self._client._pieces(lambda client: method(self._of(client), *args, **options))

    _name(call, method)
    return call


def asked(getter: property, kind: type[T]) -> Callable[[Any], Coroutine[Any, Any, T]]:
    """A property of the SDK as a method."""

    async def call(self: Face, /) -> T:
        return await self._client._call(getter.__get__, self._inner)

    _name(call, getter.fget)
    return call


def _name(call: Any, method: Any) -> None:
    for name in ("__name__", "__doc__"):
        setattr(call, name, getattr(method, name))
    call.__wrapped__ = method


class Face:
    """Something of a client's, whose methods are those of an object of the SDK."""

    _client: Client
    _inner: Any

    def __repr__(self) -> str:
        return repr(self._inner).replace("<cloche.", "<cloche.aio.", 1)

    def _of(self, client: sdk.Client) -> Any:
        """The same thing for another client."""
        raise NotImplementedError
