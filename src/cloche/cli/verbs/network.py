"""network: make, list, inspect and remove networks; put containers on them."""

from __future__ import annotations

import sys

from cloche.cli.each import each
from cloche.cli.table import label_heading, listing, short_id
from cloche.engine import connecting
from cloche.engine.containers import Engine
from cloche.errors import Error, Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloche.cli.arguments import Parsed
    from cloche.network.model import Network

DEFAULT = "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}"
HEADINGS = {
    "ID": "NETWORK ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "IPv6": "IPV6",
    "IPv4": "IPV4",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
    "CreatedAt": "CREATED AT",
    "Label": label_heading,
}
FILTERS = ("driver", "id", "label", "name", "scope", "type", "dangling")
PREDEFINED = ("bridge", "host", "none")


def main(parsed: Parsed) -> int:
    """See `cloche network --help`."""
    return {
        "create": create,
        "ls": ls,
        "inspect": inspect,
        "rm": rm,
        "prune": prune,
        "connect": connect,
        "disconnect": disconnect,
    }[parsed.verb.partition(" ")[2]](parsed)


def create(parsed: Parsed) -> int:
    """See `cloche network create --help`."""
    from cloche.engine.notation import pair

    wanted = connecting.NetworkRequest(
        parsed.arguments[0],
        parsed.text("driver", "bridge"),
        parsed.every("subnet"),
        parsed.every("gateway"),
        parsed.every("ip-range"),
        parsed.on("ipv6"),
        parsed.on("internal"),
        tuple(dict(pair(text, "option") for text in parsed.every("opt")).items()),
        tuple(dict(pair(text) for text in parsed.every("label")).items()),
    )
    print(connecting.create(Engine(parsed.root or None), wanted).id)
    return 0


def _row(network: Network, whole: bool) -> dict[str, Any]:
    from time import localtime, strftime

    labels = dict(network.labels)
    return {
        "ID": short_id(network.id, whole),
        "Name": network.name,
        "Driver": network.driver,
        "Scope": "local",
        "IPv6": str(any(s.range.wide for s in network.subnets)).lower(),
        "IPv4": str(any(not s.range.wide for s in network.subnets)).lower(),
        "Internal": str(network.internal).lower(),
        "Labels": ",".join(f"{k}={v}" for k, v in labels.items()),
        "CreatedAt": strftime("%Y-%m-%d %H:%M:%S %z %Z", localtime(network.created / 1e9)),
        "Label": lambda key: labels.get(key, ""),
    }


def _matches(engine: Engine, network: Network, name: str, value: str) -> bool:
    if name == "label":
        key, given, wanted = value.partition("=")
        labels = dict(network.labels)
        return key in labels and (not given or labels[key] == wanted)
    if name == "type":
        return (value == "builtin") == (network.name in PREDEFINED)
    if name == "dangling":
        unused = network.name not in PREDEFINED and not connecting.users(engine, network)
        return unused == (value in ("true", "1"))
    if name == "name":
        return value in network.name
    if name == "id":
        return network.id.startswith(value)
    return {"driver": network.driver, "scope": "local"}[name] == value


def ls(parsed: Parsed) -> int:
    """See `cloche network ls --help`."""
    engine = Engine(parsed.root or None)
    engine.networks.default()
    everything = sorted((*engine.networks.all(), *engine.networks.without_links()), key=lambda n: n.name)
    for name, value in parsed.filters():
        if name not in FILTERS:
            raise Invalid(f"filter {name}={value}", "invalid filter", f"one of {', '.join(FILTERS)}")
        everything = [n for n in everything if _matches(engine, n, name, value)]
    whole = parsed.on("no-trunc")
    if parsed.on("quiet") and not parsed.text("format"):
        for network in everything:
            print(short_id(network.id, whole))
        return 0
    print(listing(parsed.text("format"), DEFAULT, HEADINGS, [_row(n, whole) for n in everything]), end="")
    return 0


def inspect(parsed: Parsed) -> int:
    """See `cloche network inspect --help`."""
    from cloche.cli.rendering import json_text, shown
    from cloche.engine.netinspection import network

    engine, found, code = Engine(parsed.root or None), [], 0
    for name in parsed.arguments:
        try:
            found.append(network(engine, engine.networks.look_up(name)))
        except Error as error:
            print(f"cloche: {error}", file=sys.stderr)
            code = 1
    form = parsed.text("format")
    if not form:
        print(json_text(found, 4))
    for document in found if form else ():
        print(shown(form, document))
    return code


def rm(parsed: Parsed) -> int:
    """See `cloche network rm --help`."""
    engine = Engine(parsed.root or None)

    def one(name: str) -> str:
        connecting.remove(engine, engine.networks.find(name))
        return name

    return each(parsed.arguments, one, NotFound if parsed.on("force") else None)


def prune(parsed: Parsed) -> int:
    """See `cloche network prune --help`."""
    if not parsed.on("force"):
        print("WARNING! This will remove all custom networks not used by at least one container.", file=sys.stderr)
        print("Are you sure you want to continue? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return 0
    engine = Engine(parsed.root or None)
    gone = []
    for network in engine.networks.all():
        fits = all(_matches(engine, network, name, value) for name, value in parsed.filters())
        if fits and network.name not in PREDEFINED and not connecting.users(engine, network):
            connecting.remove(engine, network)
            gone.append(network.name)
    if gone:
        print("Deleted Networks:", *gone, "", sep="\n")
    return 0


def connect(parsed: Parsed) -> int:
    """See `cloche network connect --help`."""
    from cloche.engine.request import Connection

    engine = Engine(parsed.root or None)
    name, container = parsed.arguments
    wanted = Connection(name, parsed.text("ip"), parsed.text("ip6"), parsed.every("alias"))
    connecting.connect(engine, engine.networks.find(name), engine.find(container), wanted)
    return 0


def disconnect(parsed: Parsed) -> int:
    """See `cloche network disconnect --help`."""
    engine = Engine(parsed.root or None)
    connecting.disconnect(engine, parsed.arguments[0], engine.find(parsed.arguments[1]), parsed.on("force"))
    return 0
