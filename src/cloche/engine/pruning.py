"""prune and df: what nobody uses any more, and how much room it takes."""

from __future__ import annotations

import os

from cloche.engine.database import RUNNING
from cloche.errors import Conflict, Invalid, NotFound
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloche.engine.containers import Container, Engine
    from cloche.engine.volumes import Volume, Volumes
    from cloche.image.store import Image

    Filters = Iterable[tuple[str, str]]


class Pruned(Value):
    """What was removed, by id or name, and the bytes that its files took."""

    removed: tuple[str, ...] = ()
    size: int = 0


def size_of(engine: Engine, container: Container) -> int:
    """The bytes on disk of what a container has written."""
    return disk_use(engine.store.container(container.id) + "/upper")


def sizes_of(engine: Engine, containers: Iterable[Container]) -> dict[str, tuple[int, int]]:
    """The bytes of what each has written, and of its whole root with the image's layers, by its id."""
    layers, found = _layers(engine), {}
    for container in containers:
        own = size_of(engine, container)
        found[container.id] = own, own + sum(layers.get(number, 0) for number in container.config.layers)
    return found


def disk_use(directory: str) -> int:
    """The bytes on disk of all files below; what vanishes meanwhile does not count. Links are not followed."""
    total, seen = 0, set()
    for _, _, names, fd in os.fwalk(directory):
        for name in names:
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError:
                continue
            if (key := (status.st_dev, status.st_ino)) not in seen:
                seen.add(key)
                total += status.st_blocks * 512
    return total


def matches(labels: dict[str, str], created: int, filters: Filters) -> bool:
    """Whether something is meant: older than `until`, with each `label`, without each `label!`."""
    from time import time

    from cloche.engine.units import moment

    for name, value in filters:
        key, given, wanted = value.partition("=")
        has = key in labels and (not given or labels[key] == wanted)
        if name == "until":
            if created >= moment(value, time()):
                return False
        elif has != (name == "label"):
            return False
    return True


def check_filters(filters: Filters) -> None:
    """Before anything is removed. Raises Invalid."""
    from time import time

    from cloche.engine.units import moment

    for name, value in filters:
        if name not in ("label", "label!", "until"):
            raise Invalid(f"filter {name}={value}", "invalid filter", "one of label, label!, until")
        if name == "until":
            moment(value, time())


def prune_containers(engine: Engine, filters: Filters = ()) -> Pruned:
    """Remove all containers that do not run. Raises Invalid, Error."""
    check_filters(filters)
    removed, size = [], 0
    for found in engine.containers():
        if found.status == RUNNING or not matches(dict(found.config.labels), found.created, filters):
            continue
        try:
            container = engine.find(found.id)  # it may have been started since it was listed
            room = size_of(engine, container)
            engine.remove(container)
        except (Conflict, NotFound):
            continue
        removed.append(container.id)
        size += room
    return Pruned(tuple(removed), size)


def prune_networks(engine: Engine, filters: Filters = ()) -> tuple[str, ...]:
    """Remove the networks that somebody made and no container is on; their names. Raises Invalid, Error."""
    from cloche.engine import connecting

    gone = []
    for network in engine.networks.all():
        fits = matches(dict(network.labels), network.created, filters)
        if fits and network.name not in ("bridge", "host", "none") and not connecting.users(engine, network):
            try:
                connecting.remove(engine, network)
            except (Conflict, NotFound):
                continue
            gone.append(network.name)
    return tuple(gone)


def prune_images(engine: Engine, everything: bool = False, filters: Filters = ()) -> Pruned:
    """Remove images without a name that no container uses; with `everything` also those with one. Raises Invalid."""
    check_filters(filters)
    removed: list[str] = []
    used = {use.image for use in engine.uses()}
    before = _layers(engine)
    for image in engine.images.images():
        labels = dict(image.config.config.labels)
        if image.id in used or (image.references and not everything) or not matches(labels, image.created, filters):
            continue
        try:
            removal = engine.remove_image(image.id, len(image.references) > 1)
        except (Conflict, NotFound):
            continue
        removed += [*(f"untagged: {_familiar(name)}" for name in removal.untagged)]
        removed += [f"deleted: {ident}" for ident in removal.deleted]
    after = _layers(engine)
    return Pruned(tuple(removed), sum(size for number, size in before.items() if number not in after))


def prune_volumes(volumes: Volumes, wanted: Iterable[Volume], everything: bool = False) -> Pruned:
    """Remove those of these that no container has and nobody named; with `everything` also those with a name."""
    gone, size = [], 0
    used = volumes.used()
    for volume in wanted:
        if volume.name not in used and (everything or volume.anonymous):
            room = volumes.size(volume)
            try:
                volumes.remove(volume)
            except (Conflict, NotFound):
                continue  # somebody else was faster
            gone.append(volume.name)
            size += room
    return Pruned(tuple(gone), size)


def _layers(engine: Engine) -> dict[int, int]:
    return {row["number"]: row["size"] for row in engine.db.execute("SELECT number, size FROM layers")}


def _familiar(name: str) -> str:
    from cloche.oci.reference import parse

    return parse(name).familiar()


class Use(Value):
    """A line of `system df`: how many there are, how many are in use, their bytes, and those that could be had back."""

    kind: str
    total: int = 0
    active: int = 0
    size: int = 0
    reclaimable: int = 0


def disk_usage(engine: Engine) -> tuple[Use, ...]:
    """Images, containers, volumes, build cache: the room that they take."""
    from cloche.engine.volumes import Volumes

    layers, images, containers = _layers(engine), engine.images.images(), engine.containers()
    used = {c.image_id for c in containers}
    held = {number for image in images if image.id in used for number in image.layers}
    held |= {number for c in containers for number in c.config.layers}
    sizes = {c.id: size_of(engine, c) for c in containers}
    volumes = Volumes(engine.store, engine.db)
    rooms = {volume.name: volumes.size(volume) for volume in volumes.all()}
    taken = volumes.used() & rooms.keys()
    free = sum(room for name, room in rooms.items() if name not in taken)
    return (
        Use(
            "Images",
            len(images),
            sum(image.id in used for image in images),
            sum(layers.values()),
            sum(size for number, size in layers.items() if number not in held),
        ),
        Use(
            "Containers",
            len(containers),
            sum(c.status == RUNNING for c in containers),
            sum(sizes.values()),
            sum(sizes[c.id] for c in containers if c.status != RUNNING),
        ),
        Use("Local Volumes", len(rooms), len(taken), sum(rooms.values()), free),
        Use("Build Cache"),
    )


def image_sizes(engine: Engine, image: Image, everything: Iterable[Image]) -> tuple[int, int]:
    """The bytes that an image shares with others, and those that are its alone."""
    layers = _layers(engine)
    others = {number for other in everything if other.id != image.id for number in other.layers}
    shared = sum(layers.get(number, 0) for number in image.layers if number in others)
    return shared, sum(layers.get(number, 0) for number in image.layers) - shared
