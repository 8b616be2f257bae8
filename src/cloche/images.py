"""Images, for the SDK: `Client(...).images`.

image = client.images.pull("redis:alpine")
client.run(image.id, detach=True)
"""

from __future__ import annotations

from cloche.display import Table, card, image_facts
from cloche.engine import notation
from cloche.oci.reference import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from typing import Any, BinaryIO

    from cloche.engine.containers import Engine
    from cloche.engine.pruning import Pruned
    from cloche.image.pull import Progress, Stop
    from cloche.image.removal import Removal
    from cloche.image.store import Image as Record
    from cloche.options import Filters


class Image:
    """An image, by its id."""

    def __init__(self, engine: Engine, record: Record) -> None:
        self._engine, self._record = engine, record
        self.id = record.id

    def __repr__(self) -> str:
        return f"<cloche.Image {', '.join(self.tags) or self.id.removeprefix('sha256:')[:12]}>"

    def _row_(self) -> dict[str, str]:
        return image_facts(self._record)

    def _repr_html_(self) -> str:
        facts = image_facts(self._record)
        return card(facts.pop("tags"), facts)

    @property
    def tags(self) -> list[str]:
        """Its names with a tag, short."""
        return [parse(name).familiar() for name in self._record.references if "@" not in name]

    @property
    def digests(self) -> list[str]:
        """Its names with a digest: where it was pulled from."""
        return [parse(name).familiar() for name in self._record.references if "@" in name]

    @property
    def labels(self) -> dict[str, str]:
        """What its configuration says about it."""
        return dict(self._record.config.config.labels)

    @property
    def size(self) -> int:
        """Bytes of the files in all its layers."""
        return self._record.size

    def inspect(self) -> dict[str, Any]:
        """All that is known, in the shape of Docker's API."""
        from cloche.engine.inspection import image

        return image(self._engine, self._engine.images.resolve(self.id))

    def tag(self, name: str) -> None:
        """One name more; taken from the image that had it. Raises Invalid, NotFound."""
        self._record = self._engine.images.tag(self.id, name)

    def remove(self, force: bool = False) -> Removal:
        """The image with its names. Raises Conflict when a container uses it, NotFound."""
        return self._engine.remove_image(self.id, force)


class Images:
    """The images of a client's store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list(self) -> Table[Image]:
        """All, the one built last first."""
        return Table(Image(self._engine, record) for record in self._engine.images.images())

    def get(self, name: str) -> Image:
        """By name, id, or the beginning of an id. Raises NotFound, Conflict, Invalid."""
        return Image(self._engine, self._engine.image(name))

    def pull(self, name: str, platform: str = "", progress: Callable[[Progress], None] = lambda _: None) -> Image:
        """Fetch an image from its registry. progress: is told of each layer, by several threads; what it raises ends
        the pull. Raises NotFound, Invalid, Unsupported, Error."""
        return self._pull(name, platform, progress)

    def _pull(self, name: str, platform: str, progress: Callable[[Progress], None], stop: Stop | None = None) -> Image:
        from cloche.image.pull import pull

        wanted = notation.platform(platform) if platform else None
        return Image(self._engine, pull(self._engine.changing_images(), name, wanted, progress, stop=stop).image)

    def save(self, *names: str) -> Iterator[bytes]:
        """Images as one archive, in chunks, which `load`, docker, podman and skopeo read. Raises NotFound, Conflict,
        Invalid, Error."""
        from cloche.engine.exchange import save

        return save(self._engine, names)

    def push(self, name: str, progress: Callable[[Progress], None] = lambda _: None) -> str:
        """Give an image to the registry that its name says; returns its digest there. progress: as of `pull`. Raises
        NotFound, Invalid, Error."""
        from cloche.engine.exchange import push

        return push(self._engine, name, progress).digest

    def load(self, source: str | os.PathLike[str] | BinaryIO, platform: str = "") -> Table[Image]:
        """The images of an archive, as `docker save` writes it, or of an OCI layout: a file, a folder, a stream.

        Raises NotFound, Invalid, Unsupported, Error.
        """
        from cloche.image.load import load

        wanted = notation.platform(platform) if platform else None
        return Table(Image(self._engine, r) for r in load(self._engine.changing_images(), source, wanted))

    def tag(self, source: str, name: str) -> Image:
        """Give an image one name more. Raises NotFound, Conflict, Invalid."""
        return Image(self._engine, self._engine.images.tag(source, name))

    def remove(self, name: str, force: bool = False) -> Removal:
        """Take this name away; with its last one goes the image. Raises NotFound, Conflict."""
        return self._engine.remove_image(name, force)

    def prune(self, all: bool = False, filters: Filters | None = None) -> Pruned:
        """Remove those without a name that no container uses; with `all` also those with one. Raises Invalid."""
        from cloche.engine.pruning import prune_images
        from cloche.options import filter_pairs

        return prune_images(self._engine, all, filter_pairs(filters))
