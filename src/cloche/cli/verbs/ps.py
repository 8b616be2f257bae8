"""ps: list containers."""

from __future__ import annotations

from time import time

from cloche.cli.table import command_text, ellipsis, label_heading, listing, short_id
from cloche.engine import ports
from cloche.engine.containers import Engine
from cloche.engine.database import RESTARTING, RUNNING
from cloche.engine.units import human_duration, human_size, status
from cloche.errors import Conflict, Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloche.cli.arguments import Parsed
    from cloche.engine.containers import Container
    from cloche.image.store import Image

DEFAULT = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
HEADINGS = {
    "ID": "CONTAINER ID",
    "Names": "NAMES",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Ports": "PORTS",
    "State": "STATE",
    "Status": "STATUS",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "Networks": "NETWORKS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Size": "SIZE",
    "Label": label_heading,
}
FILTERS = ("id", "name", "label", "status", "exited", "ancestor", "before", "since", "network", "volume", "health")


def row(container: Container, now: float, whole: bool) -> dict[str, Any]:
    """The cells of the usual table, with Docker's names."""
    state = status(
        container.state,
        container.started / 1e9,
        container.finished / 1e9,
        now=now,
        code=None if container.exit_code < 0 else container.exit_code,
        out_of_memory=container.oom,
        health=container.health,
    )
    return {
        "ID": short_id(container.id, whole),
        "Names": container.name,
        "Image": container.image,
        "Command": command_text(container.config.args, whole),
        "RunningFor": human_duration(now - container.created / 1e9) + " ago",
        "Ports": ports.shown(container.ports, container.config.exposed) if container.status == RUNNING else "",
        "Status": state,
    }


def more(container: Container, whole: bool, networks: list[str], size: str) -> dict[str, Any]:
    """The other cells, for `--format`. size: of what it has written, where that is asked for."""
    from time import localtime, strftime

    labels = dict(container.config.labels)
    return {
        "CreatedAt": strftime("%Y-%m-%d %H:%M:%S %z %Z", localtime(container.created / 1e9)),
        "State": container.state,
        "Labels": ",".join(f"{k}={v}" for k, v in labels.items()),
        "Mounts": ",".join(m.source if whole else ellipsis(m.source, 15) for m in container.config.mounts if m.source),
        "Networks": ",".join(networks),
        "LocalVolumes": str(sum(m.kind == "volume" for m in container.config.mounts)),
        "Size": size,
        "Label": lambda key: labels.get(key, ""),
    }


def networks_of(container: Container, joined: dict[str, list[str]]) -> list[str]:
    """The names of its networks; the mode of one that has none (host, none, container:ID)."""
    return joined.get(container.id) or [container.config.request.network]


def _sizes(engine: Engine, containers: list[Container]) -> dict[str, str]:
    from cloche.engine.pruning import sizes_of

    found = sizes_of(engine, containers)
    return {ident: f"{human_size(own)} (virtual {human_size(whole)})" for ident, (own, whole) in found.items()}


def matches(container: Container, name: str, value: str, everything: list[Container]) -> bool:
    """Whether one filter lets it through. Raises Invalid."""
    labels = dict(container.config.labels)
    if name == "label":
        key, given, wanted = value.partition("=")
        return key in labels and (not given or labels[key] == wanted)
    if name == "name":
        from re import error, search

        try:
            return search(value, container.name) is not None or search(value, "/" + container.name) is not None
        except error as problem:
            raise Invalid(f"filter name={value}", f"not a regular expression ({problem})") from None
    if name == "exited":
        return container.status == "exited" and str(container.exit_code) == value
    if name in ("before", "since"):
        other = next((c for c in everything if value in (c.name, c.id) or c.id.startswith(value)), None)
        if other is None:
            raise Invalid(f"filter {name}={value}", "there is no such container")
        return container.created < other.created if name == "before" else container.created > other.created
    if name == "volume":
        return any(value in (m.source, m.target) for m in container.config.mounts if m.kind != "tmpfs")
    if name == "health":
        return (container.health or "none") == value
    if name == "status":
        return container.state == value
    return container.id.startswith(value)


def descends(container: Container, ancestor: Image | None) -> bool:
    """Whether its image is this one, or stands on its layers."""
    if ancestor is None:
        return False
    layers = ancestor.layers
    return container.image_id == ancestor.id or bool(layers and container.config.layers[: len(layers)] == layers)


def select(parsed: Parsed, engine: Engine) -> list[Container]:
    """Those that the flags ask for, newest first. Raises Invalid for a filter that is none."""
    everything = engine.containers()
    filters = parsed.filters()
    for name, value in filters:
        if name not in FILTERS:
            raise Invalid(f"filter {name}={value}", "invalid filter", f"one of {', '.join(FILTERS)}")
        if name == "status" and value not in (
            "created",
            "running",
            "exited",
            "paused",
            "restarting",
            "removing",
            "dead",
        ):
            raise Invalid(f"filter status={value}", "there is no such status", "created, running or exited")
        if name == "health" and value not in ("starting", "healthy", "unhealthy", "none"):
            raise Invalid(f"filter health={value}", "there is no such health", "starting, healthy, unhealthy or none")
    last = 1 if parsed.on("latest") else parsed.number("last")
    if last is not None and last > 0:
        found = everything[:last]
    elif parsed.on("all") or any(name in ("status", "exited") for name, _ in filters):
        found = everything
    else:
        found = [c for c in everything if c.status in (RUNNING, RESTARTING)]
    names = {name for name, _ in filters}
    for name in names:  # several of one kind widen, several kinds narrow; labels always narrow
        values = [v for n, v in filters if n == name]
        if name == "ancestor":
            images = [_image(engine, value) for value in values]
            found = [c for c in found if any(descends(c, image) for image in images)]
            continue
        if name == "network":
            ids = {n.id: n.name for n in engine.networks.all()}
            wanted = {ids.get(value, next((ids[i] for i in ids if i[:12] == value), value)) for value in values}
            joined = engine.networks.names_of_all()
            found = [c for c in found if not wanted.isdisjoint(networks_of(c, joined))]
            continue
        test = all if name == "label" else any
        found = [c for c in found if test(matches(c, name, v, everything) for v in values)]
    return found


def _image(engine: Engine, name: str) -> Image | None:
    try:
        return engine.images.resolve(name)
    except (NotFound, Conflict):
        return None


def main(parsed: Parsed) -> int:
    """See `cloche ps --help`."""
    engine = Engine(parsed.root or None)
    found = select(parsed, engine)
    whole, now, form = parsed.on("no-trunc"), time(), parsed.text("format")
    if parsed.on("quiet") and not form:
        for container in found:
            print(short_id(container.id, whole))
        return 0
    joined = engine.networks.names_of_all() if form else {}
    sized = parsed.on("size") or ".Size" in form
    sizes = _sizes(engine, found) if sized else {}
    rows = [row(c, now, whole) for c in found]
    if form or sized:
        others = [more(c, whole, networks_of(c, joined), sizes.get(c.id, "0B")) for c in found]
        rows = [usual | other for usual, other in zip(rows, others, strict=True)]
    print(listing(form, DEFAULT + "\t{{.Size}}" * sized, HEADINGS, rows), end="")
    return 0
