"""history: how an image came to be, the last thing first, with what each layer takes. Pure but for sizes of layers."""

from __future__ import annotations

from cloche.image.staging import nanoseconds
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.image.store import Image, ImageStore
    from cloche.oci.image import ImageConfig


class Made(Value):
    """One thing that was done. id: the image's for the last one, else "". created: nanoseconds since 1970, 0: unknown.
    size: bytes of the layer's files, 0 where none was made."""

    id: str
    created: int
    created_by: str
    size: int
    comment: str
    tags: tuple[str, ...]


def history(store: ImageStore, image: Image) -> list[Made]:
    """The last thing first. Layers of which the image does not say how they were made are in it too."""
    rows = store.db.execute("SELECT number, size FROM layers").fetchall()
    known = {row[0]: row[1] for row in rows}
    sizes = [known.get(number, 0) for number in image.layers]
    found = _entries(image.config, sizes)[::-1]
    tags = tuple(name for name in image.references if "@" not in name)
    return [found[0].replace(id=image.id, tags=tags), *found[1:]]


def _entries(config: ImageConfig, sizes: list[int]) -> list[Made]:
    """The first thing first."""
    said = [entry for entry in config.history if not entry.empty_layer]
    unsaid = max(len(sizes) - len(said), 0)
    found = [Made("", 0, "", size, "", ()) for size in sizes[:unsaid]]
    left = iter(sizes[unsaid:])
    for entry in config.history:
        size = 0 if entry.empty_layer else next(left, 0)
        found.append(Made("", nanoseconds(entry.created), entry.created_by, size, entry.comment, ()))
    return found
