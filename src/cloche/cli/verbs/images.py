"""images: list images, a row a name."""

from __future__ import annotations

from time import time

from cloche.cli.table import listing, short_id
from cloche.engine.containers import Engine
from cloche.engine.units import human_duration, human_size
from cloche.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cloche.cli.arguments import Parsed
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
}
NONE = "<none>"


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


def rows(image: Image, now: float, whole: bool) -> Iterator[dict[str, Any]]:
    """An image's rows, with Docker's names of cells."""
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
        }


def select(parsed: Parsed, found: list[Image]) -> list[dict[str, Any]]:
    """The rows that are asked for. Raises Invalid for a filter that is none."""
    now, wanted = time(), parsed.arguments[0] if parsed.arguments else ""
    out = []
    for name, value in parsed.filters():
        if name == "dangling":
            found = [i for i in found if (not i.references) == (value in ("true", "1"))]
        elif name == "label":
            key, given, text = value.partition("=")
            found = [
                i
                for i in found
                if key in dict(i.config.config.labels) and (not given or dict(i.config.config.labels)[key] == text)
            ]
        elif name == "reference":
            wanted = value
        else:
            raise Invalid(f"filter {name}={value}", "invalid filter", "dangling, label or reference")
    for image in found:
        for row in rows(image, now, parsed.on("no-trunc")):
            if not wanted or _matches(wanted, row["Repository"], row["Tag"]):
                out.append(row)
    return out


def _matches(wanted: str, repository: str, tag: str) -> bool:
    from fnmatch import fnmatchcase

    return fnmatchcase(repository, wanted) or fnmatchcase(f"{repository}:{tag}", wanted)


def main(parsed: Parsed) -> int:
    """See `cloche images --help`."""
    found = select(parsed, Engine(parsed.root or None).images.images())
    if parsed.on("quiet") and not parsed.text("format"):
        for ident in dict.fromkeys(row["ID"] for row in found):
            print(ident)
        return 0
    default = WITH_DIGESTS if parsed.on("digests") else DEFAULT
    print(listing(parsed.text("format"), default, HEADINGS, found), end="")
    return 0
