"""push: an image to its registry."""

from __future__ import annotations

from cloche.engine.containers import Engine
from cloche.errors import Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed
    from cloche.oci.reference import Reference


def main(parsed: Parsed) -> int:
    """See `cloche push --help`."""
    from cloche.oci.reference import parse

    engine, name, quiet = Engine(parsed.root or None), parsed.arguments[0], parsed.on("quiet")
    reference = parse(name)
    wanted = _every(engine, name) if parsed.on("all-tags") else [reference]
    if not quiet:
        if not parsed.on("all-tags") and ":" not in name.rpartition("/")[2]:
            print(f"Using default tag: {reference.tag}", flush=True)
        print(f"The push refers to repository [{reference.name}]", flush=True)
    for each in wanted:
        _push(engine, each, quiet)
    return 0


def _every(engine: Engine, name: str) -> list[Reference]:
    """All tags of a repository that are here. Raises Invalid, NotFound."""
    from cloche.image.save import tagged

    if "@" in name or ":" in name.rpartition("/")[2]:
        raise Invalid(f"push -a {name}", "tag can't be used with --all-tags/-a", "name the repository alone")
    found = [reference for _, reference in tagged(engine.images, name)]
    if not found:
        raise NotFound(f"An image does not exist locally with the tag: {name}", "", "name one: cloche tag")
    return found


def _push(engine: Engine, reference: Reference, quiet: bool) -> None:
    from cloche.cli.progress import Display
    from cloche.engine.exchange import push

    display = Display(quiet)
    try:
        done = push(engine, reference.familiar(), display.tell)
    finally:
        display.end()
    print(reference if quiet else f"{reference.tag}: digest: {done.digest} size: {done.size}", flush=True)
