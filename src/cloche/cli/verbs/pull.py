"""pull: an image from a registry."""

from __future__ import annotations

import sys

from cloche.engine.containers import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed
    from cloche.image.pull import Pulled


def fetch(engine: Engine, name: str, platform: str, quiet: bool) -> Pulled:
    """Pull with its progress shown. Raises Error and its kinds."""
    from cloche.cli.progress import Display
    from cloche.engine.notation import platform as read_platform
    from cloche.image.pull import pull

    display = Display(quiet)
    try:
        return pull(engine.changing_images(), name, read_platform(platform) if platform else None, display.tell)
    finally:
        display.end()


def fetch_for_run(engine: Engine, name: str, policy: str, platform: str, quiet: bool) -> None:
    """What run and create do before: as `--pull` says, and as Docker does it, on standard error."""
    from cloche.errors import NotFound

    if policy == "never":
        return
    if policy == "missing":
        try:
            engine.image(name)
            return
        except NotFound:
            pass
        from cloche.oci.reference import parse

        if not quiet:
            print(f"Unable to find image '{parse(name).familiar()}' locally", file=sys.stderr, flush=True)
    stdout, sys.stdout = sys.stdout, sys.stderr  # what the container writes is not mixed with this
    try:
        pulled = fetch(engine, name, platform, quiet)
        if not quiet:
            _tell(pulled)
    finally:
        sys.stdout = stdout


def _tell(pulled: Pulled) -> None:
    from cloche.oci.reference import parse

    print(f"Digest: {pulled.digest}")
    name = parse(pulled.reference).familiar()
    print(f"Status: {'Downloaded newer image for' if pulled.changed else 'Image is up to date for'} {name}", flush=True)


def main(parsed: Parsed) -> int:
    """See `cloche pull --help`."""
    from cloche.oci.reference import parse

    name = parsed.arguments[0]
    quiet = parsed.on("quiet")
    reference = parse(name)
    if not quiet:
        if reference.tag and ":" not in name.rpartition("/")[2]:
            print(f"Using default tag: {reference.tag}", flush=True)
        print(f"{reference.tag or reference.digest}: Pulling from {reference.path}", flush=True)
    pulled = fetch(Engine(parsed.root or None), name, parsed.text("platform"), quiet)
    if not quiet:
        _tell(pulled)
    print(parse(pulled.reference))
    return 0
