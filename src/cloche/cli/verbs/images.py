"""images: list images, a row a name."""

from __future__ import annotations

from time import time

from cloche.cli.table import listing, short_id
from cloche.engine.containers import Engine
from cloche.engine.units import human_duration, human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cloche.cli.arguments import Parsed
    from cloche.engine.containers import Container
    from cloche.image.store import Image

DEFAULT = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
WITH_DIGESTS = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
HEADINGS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "Containers": "CONTAINERS",
    "VirtualSize": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
}
NONE = "<none>"
COUNTED = ("Containers", "SharedSize", "UniqueSize")


def names(image: Image) -> Iterator[tuple[str, str, str]]:
    """Repository, tag and digest of each name; one row of nothing for an image without."""
    from cloche.oci.reference import parse

    for reference in image.references:
        parsed = parse(reference)
        familiar = parsed.familiar().split("@")[0]
        tag = parsed.tag or ""
        yield familiar.removesuffix(":" + tag) if tag else familiar, tag or NONE, parsed.digest or NONE
    if not image.references:
        yield NONE, NONE, NONE


def rows(image: Image, now: float, whole: bool, more: dict[str, str]) -> Iterator[dict[str, Any]]:
    """An image's rows, with Docker's names of cells; more: those that are counted only where they are asked for."""
    from time import localtime, strftime

    created = image.created / (1e9 if image.created > 1e12 else 1)
    for repository, tag, digest in names(image):
        yield {
            "Repository": repository,
            "Tag": tag,
            "Digest": digest,
            "ID": image.id if whole else short_id(image.id.removeprefix("sha256:")),
            "CreatedSince": human_duration(now - created) + " ago" if created else "N/A",
            "CreatedAt": strftime("%Y-%m-%d %H:%M:%S %z %Z", localtime(created)) if created else "N/A",
            "Size": human_size(image.size),
            "VirtualSize": human_size(image.size),
            **more,
        }


def _counted(engine: Engine, image: Image, everything: list[Image], used: list[Container]) -> dict[str, str]:
    from cloche.engine.pruning import image_sizes

    sizes = [human_size(size) for size in image_sizes(engine, image, everything)]
    return dict(zip(COUNTED, (str(sum(c.image_id == image.id for c in used)), *sizes), strict=True))


def select(parsed: Parsed, engine: Engine) -> list[dict[str, Any]]:
    """The rows that are asked for. Raises Invalid for a filter that is none, NotFound for an image of one."""
    from cloche.engine.filtering import is_named, kept

    filters, now = parsed.filters(), time()
    found = kept(engine, engine.images.images(), filters)
    patterns = [value for name, value in filters if name == "reference"]
    wanted = parsed.arguments[:1]
    counting = any(word in parsed.text("format") for word in COUNTED)
    everything, used = (engine.images.images(), engine.containers()) if counting else ([], [])
    out = []
    for image in found:
        more = _counted(engine, image, everything, used) if counting else dict.fromkeys(COUNTED, "N/A")
        for row in rows(image, now, parsed.on("no-trunc"), more):
            repository, tag = row["Repository"], row["Tag"]
            if all(is_named(some, repository, tag) for some in (patterns, wanted) if some):
                out.append(row)
    return out


def main(parsed: Parsed) -> int:
    """See `cloche images --help`."""
    found = select(parsed, Engine(parsed.root or None))
    if parsed.on("quiet") and not parsed.text("format"):
        for ident in dict.fromkeys(row["ID"] for row in found):
            print(ident)
        return 0
    default = WITH_DIGESTS if parsed.on("digests") else DEFAULT
    print(listing(parsed.text("format"), default, HEADINGS, found), end="")
    return 0
