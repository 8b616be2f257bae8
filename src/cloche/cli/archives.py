"""Archives that a verb writes: to standard output, never a terminal, or to a file that is there whole or not at all."""

from __future__ import annotations

import os

from cloche.errors import Error, Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def write(verb: str, chunks: Iterator[bytes], path: str) -> None:
    """All of an archive, to the file `path`, or where that is empty to standard output. Raises Invalid, Error."""
    if path:
        _to_file(verb, chunks, path)
        return
    if os.isatty(1):
        raise Invalid(verb, "refusing to write an archive to a terminal", "use -o, or redirect it")
    write_all(chunks, 1)


def write_all(chunks: Iterator[bytes], fd: int) -> None:
    """Raises OSError."""
    for chunk in chunks:
        data = memoryview(chunk)
        while data:
            data = data[os.write(fd, data) :]


def _to_file(verb: str, chunks: Iterator[bytes], path: str) -> None:
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
            raise Error(f"{verb} to {path}", error.errno or 5) from error
        raise
