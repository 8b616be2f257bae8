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
    quiet, engine = parsed.on("quiet"), Engine(parsed.root or None)
    if parsed.on("all-tags"):
        return _every(engine, name, parsed.text("platform"), quiet)
    reference = parse(name)
    if not quiet and reference.tag and ":" not in name.rpartition("/")[2]:
        print(f"Using default tag: {reference.tag}", flush=True)
    _pull(engine, name, parsed.text("platform"), quiet)
    return 0


def _pull(engine: Engine, name: str, platform: str, quiet: bool) -> None:
    from cloche.oci.reference import parse

    reference = parse(name)
    if not quiet:
        print(f"{reference.tag or reference.digest}: Pulling from {reference.path}", flush=True)
    pulled = fetch(engine, name, platform, quiet)
    if not quiet:
        _tell(pulled)
    print(parse(pulled.reference))


def _every(engine: Engine, name: str, platform: str, quiet: bool) -> int:
    """All tags of a repository; it ends with the first that cannot be had. Raises Error."""
    from cloche.errors import Invalid
    from cloche.image.pull import tags

    if "@" in name or ":" in name.rpartition("/")[2]:
        raise Invalid(f"pull -a {name}", "tag can't be used with --all-tags/-a", "name the repository alone")
    for each in tags(name):
        _pull(engine, each, platform, quiet)
    return 0
