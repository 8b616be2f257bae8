"""cp: copy files between a container and this host, or a tar stream."""

from __future__ import annotations

import os
import sys

from cloche.cli.archives import write_all
from cloche.engine import copying
from cloche.engine.containers import Engine
from cloche.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.cli.arguments import Parsed


def split(text: str) -> tuple[str, str]:
    """(container, path); the container is "" in a path of the host, which begins with `/` or `.`, or has no colon."""
    container, colon, path = text.partition(":")
    return ("", text) if not colon or text[:1] in ("/", ".") else (container, path)


def main(parsed: Parsed) -> int:
    """See `cloche cp --help`."""
    (one, source), (other, destination) = map(split, parsed.arguments)
    follow, keep = parsed.on("follow-link"), parsed.on("archive")
    if one and other:
        raise Invalid(
            "copy", "copying between containers is not supported", "by way of the host: cp A:/x - | cp - B:/y"
        )
    if not one and not other:
        raise Invalid("copy", "must specify at least one container source", "CONTAINER:PATH on one side")
    engine = Engine(parsed.root or None)
    container = engine.find(one or other)
    if one and destination == "-":
        if os.isatty(1):
            raise Invalid("copy", "refusing to write an archive to a terminal", "redirect it")
        write_all(copying.read(engine, container, source, follow), 1)
    elif one:
        copying.copy_out(engine, container, source, destination, follow, keep)
    elif source == "-":
        copying.write(engine, container, _input(), destination)
    else:
        copying.copy_in(engine, container, source, destination, follow, keep)
    if not parsed.on("quiet") and sys.stderr.isatty() and "-" not in (source, destination):
        print(f"Successfully copied {parsed.arguments[0]} to {parsed.arguments[1]}", file=sys.stderr)
    return 0


def _input() -> Iterator[bytes]:
    """A plain or compressed archive on standard input."""
    from cloche.storage.compression import chunks

    with open(0, "rb", buffering=0, closefd=False) as stream:
        yield from chunks(stream, "copy from standard input")
