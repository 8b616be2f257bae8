"""export: write a container's files as a tar archive."""

from __future__ import annotations

import os

from cloche.engine import copying
from cloche.engine.containers import Engine
from cloche.errors import Error, Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.cli.arguments import Parsed


def write_all(chunks: Iterator[bytes], fd: int) -> None:
    """Raises OSError."""
    for chunk in chunks:
        data = memoryview(chunk)
        while data:
            data = data[os.write(fd, data) :]


def main(parsed: Parsed) -> int:
    """See `cloche export --help`."""
    engine = Engine(parsed.root or None)
    path = parsed.text("output")
    chunks = copying.export(engine, engine.find(parsed.arguments[0]))
    if not path:
        if os.isatty(1):
            raise Invalid("export", "refusing to write an archive to a terminal", "use -o, or redirect it")
        write_all(chunks, 1)
        return 0
    _to_file(chunks, path)
    return 0


def _to_file(chunks: Iterator[bytes], path: str) -> None:
    """There under its name when it is whole, or not at all."""
    aside = f"{path}.{os.getpid()}.part"
    try:
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_all(chunks, fd)
        finally:
            os.close(fd)
        os.rename(aside, path)
    except BaseException as error:
        try:
            os.unlink(aside)
        except OSError:
            pass
        if isinstance(error, OSError):
            raise Error(f"export to {path}", error.errno or 5) from error
        raise
