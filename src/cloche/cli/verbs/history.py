"""history: how an image came to be, the last thing first."""

from __future__ import annotations

from time import time

from cloche.cli.table import listing, short_id
from cloche.engine.containers import Engine
from cloche.engine.units import human_duration, human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloche.cli.arguments import Parsed
    from cloche.image.history import Made

DEFAULT = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
EXACT = "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
HEADINGS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}
MISSING = "<missing>"
_LONGEST = 45  # characters of a command


def _row(made: Made, now: float, whole: bool, human: bool) -> dict[str, Any]:
    from time import gmtime, strftime

    command = made.created_by.replace("\t", " ")
    short = command if whole or len(command) <= _LONGEST else command[: _LONGEST - 1] + "…"
    ident = made.id if whole else short_id(made.id.removeprefix("sha256:"))
    return {
        "ID": ident or MISSING,
        "CreatedSince": human_duration(now - made.created / 1e9) + " ago" if made.created else "N/A",
        "CreatedAt": strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(made.created // 10**9)) if made.created else "N/A",
        "CreatedBy": short,
        "Size": human_size(made.size) if human else str(made.size),
        "Comment": made.comment,
    }


def main(parsed: Parsed) -> int:
    """See `cloche history --help`."""
    from cloche.engine.exchange import check_platform
    from cloche.engine.notation import platform as read_platform
    from cloche.image.history import history

    engine = Engine(parsed.root or None)
    image = engine.image(parsed.arguments[0])
    wanted = read_platform(parsed.text("platform")) if parsed.text("platform") else None
    check_platform(image, wanted, f"show the history of {parsed.arguments[0]}")
    whole, human, now = parsed.on("no-trunc"), parsed.on("human", True), time()
    rows = [_row(made, now, whole, human) for made in history(engine.images, image)]
    if parsed.on("quiet") and not parsed.text("format"):
        for row in rows:
            print(row["ID"])
        return 0
    print(listing(parsed.text("format"), DEFAULT if human else EXACT, HEADINGS, rows), end="")
    return 0
