"""system: what nobody uses any more, the room that all takes; what runs after a boot (cli.boot)."""

from __future__ import annotations

from cloche.cli.confirming import confirmed
from cloche.cli.table import align, listing, short_id
from cloche.engine import pruning
from cloche.engine.containers import Engine
from cloche.engine.units import human_size
from cloche.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloche.cli.arguments import Parsed
    from cloche.engine.pruning import Use

DEFAULT = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"
HEADINGS = {
    "Type": "TYPE",
    "TotalCount": "TOTAL",
    "Active": "ACTIVE",
    "Size": "SIZE",
    "Reclaimable": "RECLAIMABLE",
}


def main(parsed: Parsed) -> int:
    """See `cloche system --help`."""
    from cloche.cli.boot import install, restore

    return {"prune": prune, "df": df, "restore": restore, "install": install}[parsed.verb.partition(" ")[2]](parsed)


def prune(parsed: Parsed) -> int:
    """See `cloche system prune --help`."""
    images = "images without a container" if parsed.on("all") else "dangling images"
    volumes = ", all volumes without a name that no container has" if parsed.on("volumes") else ""
    warning = f"This will remove all stopped containers, all networks without a container, all {images}{volumes}."
    if volumes and any(name == "until" for name, _ in parsed.filters()):
        raise Invalid('The "until" filter is not supported with "--volumes"', "", "volumes have no age")
    if not confirmed(warning, parsed.on("force")):
        return 0
    engine, filters = Engine(parsed.root or None), parsed.filters()
    containers = pruning.prune_containers(engine, filters)
    networks = pruning.prune_networks(engine, filters)
    emptied = _prune_volumes(engine, filters) if volumes else pruning.Pruned()
    gone = pruning.prune_images(engine, parsed.on("all"), filters)
    for title, names in (
        ("Deleted Containers", containers.removed),
        ("Deleted Networks", networks),
        ("Deleted Volumes", emptied.removed),
        ("Deleted Images", gone.removed),
    ):
        if names:
            print(f"{title}:", *names, "", sep="\n")
    print(f"Total reclaimed space: {human_size(containers.size + emptied.size + gone.size, 4)}")
    return 0


def _prune_volumes(engine: Engine, filters: Iterable[tuple[str, str]]) -> pruning.Pruned:
    from cloche.engine.volumes import Volumes

    volumes = Volumes(engine.store, engine.db)
    found = [v for v in volumes.all() if pruning.matches(dict(v.labels), 0, filters)]
    return pruning.prune_volumes(volumes, found)


def row(use: Use) -> dict[str, str]:
    """A line's cells, with Docker's names."""
    part = f" ({use.reclaimable * 100 // use.size}%)" if use.size else ""
    return {
        "Active": str(use.active),
        "Reclaimable": human_size(use.reclaimable) + part,
        "Size": human_size(use.size),
        "TotalCount": str(use.total),
        "Type": use.kind,
    }


def df(parsed: Parsed) -> int:
    """See `cloche system df --help`."""
    engine = Engine(parsed.root or None)
    if not parsed.on("verbose"):
        rows = [row(use) for use in pruning.disk_usage(engine)]
        print(listing(parsed.text("format"), DEFAULT, HEADINGS, rows), end="")
        return 0
    if parsed.text("format"):
        raise Invalid("system df -v", "a format is for the short form only", "leave out -v or --format")
    from cloche.engine.volumes import Volumes

    images, containers = engine.images.images(), engine.containers()
    lines = ["REPOSITORY:TAG\tIMAGE ID\tSIZE\tSHARED SIZE\tUNIQUE SIZE\tCONTAINERS"]
    for image in images:
        shared, unique = pruning.image_sizes(engine, image, images)
        name = image.references[0].removeprefix("docker.io/library/") if image.references else "<none>"
        count = sum(c.image_id == image.id for c in containers)
        cells = (name, short_id(image.id), human_size(image.size), human_size(shared), human_size(unique), str(count))
        lines.append("\t".join(cells))
    print("Images space usage:\n\n" + align(lines))
    lines = ["CONTAINER ID\tIMAGE\tSIZE\tSTATUS\tNAMES"]
    for c in containers:
        room = human_size(pruning.size_of(engine, c))
        lines.append("\t".join((short_id(c.id), c.image, room, c.state, c.name)))
    print("Containers space usage:\n\n" + align(lines))
    lines = ["VOLUME NAME\tLINKS\tSIZE"]
    volumes = Volumes(engine.store, engine.db)
    for volume in volumes.all():
        lines.append(f"{volume.name}\t{len(volumes.users(volume.name))}\t{human_size(volumes.size(volume))}")
    print("Local Volumes space usage:\n\n" + align(lines), end="")
    return 0
