"""volume: make, list, inspect and remove volumes."""

from __future__ import annotations

import sys

from cloche.cli.each import each
from cloche.cli.table import label_heading, listing
from cloche.engine.containers import Engine
from cloche.engine.volumes import Volumes, check_driver, document
from cloche.errors import Error, Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloche.cli.arguments import Parsed
    from cloche.engine.volumes import Volume

DEFAULT = "{{.Driver}}\t{{.Name}}"
HEADINGS = {
    "Name": "VOLUME NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "Mountpoint": "MOUNTPOINT",
    "Labels": "LABELS",
    "Links": "LINKS",
    "Size": "SIZE",
    "Status": "STATUS",
    "Availability": "AVAILABILITY",
    "Group": "GROUP",
    "Label": label_heading,
}
FILTERS = ("dangling", "driver", "label", "name")
PRUNING = ("all", "label", "label!")


def main(parsed: Parsed) -> int:
    """See `cloche volume --help`."""
    engine = Engine(parsed.root or None)
    volumes = Volumes(engine.store, engine.db)
    verbs = {"create": create, "ls": ls, "inspect": inspect, "rm": rm, "prune": prune}
    return verbs[parsed.verb.partition(" ")[2]](parsed, volumes)


def create(parsed: Parsed, volumes: Volumes) -> int:
    """See `cloche volume create --help`."""
    from cloche.engine.notation import pair

    check_driver(parsed.text("driver", "local"), dict(pair(text, "option") for text in parsed.every("opt")))
    labels = tuple(dict(pair(text) for text in parsed.every("label")).items())
    print(volumes.create(parsed.arguments[0] if parsed.arguments else "", labels).name)
    return 0


def _row(volumes: Volumes, volume: Volume) -> dict[str, Any]:
    labels = dict(volume.labels)
    return {
        "Name": volume.name,
        "Driver": "local",
        "Scope": "local",
        "Mountpoint": volumes.mountpoint(volume.name),
        "Labels": ",".join(f"{k}={v}" for k, v in labels.items()),
        **dict.fromkeys(("Links", "Size", "Status", "Availability", "Group"), "N/A"),
        "Label": lambda key: labels.get(key, ""),
    }


def _has_label(volume: Volume, value: str) -> bool:
    key, given, wanted = value.partition("=")
    labels = dict(volume.labels)
    return key in labels and (not given or labels[key] == wanted)


def _matches(volume: Volume, name: str, value: str, used: set[str]) -> bool:
    if name == "label":
        return _has_label(volume, value)
    if name == "label!":
        return not _has_label(volume, value)
    if name == "dangling":
        from cloche.engine.notation import truth

        return (volume.name not in used) == truth(value)
    if name == "driver":
        return value == "local"
    from re import error, search

    try:
        return search(value, volume.name) is not None
    except error as problem:
        raise Invalid(f"filter name={value}", f"not a regular expression ({problem})") from None


def _select(parsed: Parsed, volumes: Volumes, known: tuple[str, ...]) -> list[Volume]:
    """Those that all kinds of filters let through: of labels each one, of others any. Raises Invalid."""
    filters, found, used = parsed.filters(), volumes.all(), volumes.used()
    for name, value in filters:
        if name not in known:
            raise Invalid(f"filter {name}={value}", "invalid filter", f"one of {', '.join(known)}")
    for name in {name for name, _ in filters} - {"all"}:
        values = [v for n, v in filters if n == name]
        test = all if name[:5] == "label" else any
        found = [v for v in found if test(_matches(v, name, value, used) for value in values)]
    return found


def ls(parsed: Parsed, volumes: Volumes) -> int:
    """See `cloche volume ls --help`."""
    found = _select(parsed, volumes, FILTERS)
    if parsed.on("quiet") and not parsed.text("format"):
        for volume in found:
            print(volume.name)
        return 0
    print(listing(parsed.text("format"), DEFAULT, HEADINGS, [_row(volumes, v) for v in found]), end="")
    return 0


def inspect(parsed: Parsed, volumes: Volumes) -> int:
    """See `cloche volume inspect --help`."""
    from cloche.cli.rendering import json_text, shown

    found, code, form = [], 0, parsed.text("format")
    for name in parsed.arguments:
        try:
            found.append(document(volumes, volumes.find(name)))
        except Error as error:
            print(f"cloche: {error}", file=sys.stderr)
            code = 1
    if not form:
        print(json_text(found, 4))
    for each_one in found if form else ():
        print(shown(form, each_one))
    return code


def rm(parsed: Parsed, volumes: Volumes) -> int:
    """See `cloche volume rm --help`."""

    def one(name: str) -> str:
        try:
            volumes.remove(volumes.find(name))
        except NotFound:
            if not parsed.on("force"):
                raise
        return name

    return each(parsed.arguments, one)


def prune(parsed: Parsed, volumes: Volumes) -> int:
    """See `cloche volume prune --help`."""
    from cloche.engine.notation import truth
    from cloche.engine.pruning import prune_volumes
    from cloche.engine.units import human_size

    asked = [truth(value) for name, value in parsed.filters() if name == "all"]
    everything = parsed.on("all") or any(asked)
    found = _select(parsed, volumes, PRUNING)
    if not parsed.on("force"):
        which = "all volumes" if everything else "all volumes without a name"
        print(f"This removes {which} that no container has, with what is in them.", file=sys.stderr)
        print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return 0
    done = prune_volumes(volumes, found, everything)
    if done.removed:
        print("Deleted Volumes:", *done.removed, "", sep="\n")
    print(f"Total reclaimed space: {human_size(done.size)}")
    return 0
