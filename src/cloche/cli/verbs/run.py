"""run: create a container, start it, and go along with it until it ends."""

from __future__ import annotations

import os
import sys

from cloche.cli.attaching import console_size, follow
from cloche.cli.requests import run_request
from cloche.engine.containers import Engine
from cloche.errors import Conflict, Error, Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed
    from cloche.engine.request import RunRequest


def read_file(path: str) -> bytes:
    """A file's content. Raises OSError."""
    with open(path, "rb") as file:
        return file.read()


def request_of(parsed: Parsed) -> RunRequest:
    """The request that was typed; a terminal must be one."""
    return run_request(parsed, os.getcwd(), os.environ, read_file)


def write_cidfile(path: str, ident: str) -> None:
    """The id, for scripts; an existing file is somebody else's. Raises Conflict, Error."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise Conflict(
            f"write the id to {path}", "the file exists", "remove it, or make sure that no other container runs"
        ) from None
    except OSError as error:
        raise Error(f"write the id to {path}", error.errno or 5) from error
    with open(fd, "w", encoding="ascii") as file:
        file.write(ident)


def prepare_image(engine: Engine, parsed: Parsed) -> None:
    """Fetch the image where `--pull` says so, or it is not here."""
    policy, platform = parsed.text("pull", "missing"), parsed.text("platform")
    if policy == "missing" and not platform:
        try:
            engine.image(parsed.arguments[0])
            return  # the way of nearly every run: nothing more is imported
        except NotFound:
            pass
    from cloche.cli.verbs.pull import fetch_for_run

    fetch_for_run(engine, parsed.arguments[0], policy, platform, parsed.on("quiet"))


def note(text: str) -> None:
    """Something that the user should know."""
    print(f"cloche: note: {text}", file=sys.stderr, flush=True)


def main(parsed: Parsed) -> int:
    """See `cloche run --help`."""
    request = request_of(parsed)
    if request.process.tty and not request.detach and request.process.interactive and not os.isatty(0):
        raise Invalid("run with -t", "the input device is not a TTY", "leave out -t, or use a terminal")
    if request.cidfile and os.path.lexists(request.cidfile):
        raise Conflict(f"write the id to {request.cidfile}", "the file exists", "remove it, or use another name")
    engine = Engine(parsed.root or None)
    engine.notify = note
    prepare_image(engine, parsed)
    container = engine.create(request)
    try:
        if request.cidfile:
            write_cidfile(request.cidfile, container.id)
        console = console_size(request.process.tty and not request.detach)
        explainer = None
        if parsed.on("explain"):
            from cloche.cli.explaining import Explainer

            explainer = Explainer()
        if request.detach:
            started = engine.start(container, console=console, explain=explainer)
            if explainer:
                explainer.show(started.records)
            print(container.id)
            return 0
        shown = tuple(number for number, name in ((1, "stdout"), (2, "stderr")) if request.attached(name))
        if not shown:
            print(container.id, flush=True)
        keys, stdin = request.detach_keys, request.attached("stdin")
        return follow(engine, container, console, explainer, request.sig_proxy, keys, stdin, shown)
    except (Error, KeyboardInterrupt):
        if request.remove:
            try:
                engine.remove(engine.find(container.id), force=True)
            except NotFound:
                pass  # it has ended, and removed itself
        raise
