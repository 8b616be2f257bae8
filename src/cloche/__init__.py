"""cloche: a complete container engine that you can see through, as a library with no daemon.

    import cloche
    print(cloche.run("starter", ["echo", "hi"], remove=True).output)

Everything here is loaded when it is first used; `import cloche` itself costs nothing. See `cloche.sdk`, and for asyncio
`cloche.aio`.
"""

from __future__ import annotations

from cloche.version import VERSION as __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.errors import (
        CommandNotFound,
        Conflict,
        Error,
        Invalid,
        NotExecutable,
        NotFound,
        TimedOut,
        Unsupported,
    )
    from cloche.sdk import Client, Container, ExecResult, containers, create, get, pull, run

_SDK = ("Client", "Container", "ExecResult", "containers", "create", "get", "pull", "run")
_ERRORS = ("CommandNotFound", "Conflict", "Error", "Invalid", "NotExecutable", "NotFound", "TimedOut", "Unsupported")

__all__ = [
    "Client",
    "CommandNotFound",
    "Conflict",
    "Container",
    "Error",
    "ExecResult",
    "Invalid",
    "NotExecutable",
    "NotFound",
    "TimedOut",
    "Unsupported",
    "__version__",
    "containers",
    "create",
    "get",
    "pull",
    "run",
]


def __getattr__(name: str) -> object:
    """PEP 562: the name's module is imported when the name is first used."""
    if name in _SDK or name in _ERRORS:
        from importlib import import_module

        value = getattr(import_module("cloche.sdk" if name in _SDK else "cloche.errors"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'cloche' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
