"""Verbs of two words: `network create`, and Docker's second spelling of others (`container ls` is `ps`), as data.

Rows are as in `flags`. A noun's own verbs live in one module, `cli.verbs.NOUN`.
"""

from __future__ import annotations

from cloche.cli.flags import FILTER, HELP, LISTING, NO_TRUNC, QUIET, TEMPLATE, Row, Verb

Entry = tuple[str, str, int, int, tuple[Row, ...], tuple[str, ...], str]

_FORCE: Row = ("force", "f", "bool", "", "do not ask")
_PRUNED: Row = ("filter", "", "filter", "NAME=VALUE", "label=, label!= or until=; may be given again")

# noun: (what it is about, verb: (summary, usage, fewest and most arguments, rows, examples, missing))
NOUNS: dict[str, tuple[str, dict[str, Entry]]] = {
    "container": (
        "containers: prune, and all verbs that have no noun",
        {
            "prune": (
                "remove all containers that do not run",
                "",
                0,
                0,
                (_FORCE, _PRUNED, HELP),
                ("cloche container prune", "cloche container prune -f --filter until=24h"),
                "",
            ),
        },
    ),
    "image": (
        "images: prune, ls, rm, pull, push, save, load, import, history, tag",
        {
            "prune": (
                "remove images that nobody uses",
                "",
                0,
                0,
                (("all", "a", "bool", "", "also those that have a name"), _FORCE, _PRUNED, HELP),
                ("cloche image prune", "cloche image prune -a -f --filter label=test"),
                "",
            ),
        },
    ),
    "system": (
        "all of it: df, prune, restore, install, info, events",
        {
            "prune": (
                "remove stopped containers, networks and images that nobody uses",
                "",
                0,
                0,
                (
                    ("all", "a", "bool", "", "also images that have a name"),
                    ("volumes", "", "bool", "", "also volumes without a name that no container has"),
                    _FORCE,
                    _PRUNED,
                    HELP,
                ),
                ("cloche system prune", "cloche system prune -af --volumes"),
                "",
            ),
            "df": (
                "print the room that images, containers and volumes take",
                "",
                0,
                0,
                (LISTING, ("verbose", "v", "bool", "", "a line each"), HELP),
                ("cloche system df", "cloche system df -v"),
                "",
            ),
            "restore": (
                "start what its restart policy wants to run, after a boot",
                "",
                0,
                0,
                (HELP,),
                ("cloche system restore", "cloche --root /srv/cloche system restore"),
                "",
            ),
            "install": (
                "write a systemd unit that restores at boot",
                "",
                0,
                0,
                (("path", "", "text", "FILE", "where (/etc/systemd/system/cloche.service)"), HELP),
                ("cloche system install", "cloche system install --path /tmp/cloche.service"),
                "",
            ),
        },
    ),
    "network": (
        "networks: create, ls, inspect, rm, prune, connect, disconnect",
        {
            "create": (
                "make a network",
                "NETWORK",
                1,
                1,
                (
                    ("driver", "d", "choice", "bridge|macvlan", "a switch of the host's own, or its neighbours' wire"),
                    ("subnet", "", "list", "ADDRESS/BITS", "its addresses (IPv4: one that is free)"),
                    ("gateway", "", "list", "ADDRESS", ""),
                    ("ip-range", "", "list", "ADDRESS/BITS", "the host's address; those given to containers"),
                    ("ipv6", "", "bool", "", "also IPv6, with a subnet of its own"),
                    ("internal", "", "bool", "", "without a way out"),
                    ("opt", "o", "list", "K=V", "parent=eth0 of a macvlan; Docker's names"),
                    ("label", "", "list", "K=V", "data about it"),
                    HELP,
                ),
                ("cloche network create --internal back", "cloche network create -d macvlan -o parent=eth0 lan"),
                "attachable aux-address config-from config-only ingress ipam-driver ipam-opt scope ipv4",
            ),
            "ls": (
                "list networks",
                "",
                0,
                0,
                (FILTER, LISTING, NO_TRUNC, QUIET, HELP),
                ("cloche network ls", "cloche network ls --filter driver=bridge -q"),
                "",
            ),
            "inspect": (
                "print all that is known of networks, as JSON",
                "NETWORK [NETWORK...]",
                1,
                -1,
                (TEMPLATE, HELP),
                ("cloche network inspect bridge", "cloche network inspect -f '{{json .IPAM.Config}}' back"),
                "verbose|v",
            ),
            "rm": (
                "remove networks that no container uses",
                "NETWORK [NETWORK...]",
                1,
                -1,
                (("force", "f", "bool", "", "one that is not there is no error"), HELP),
                ("cloche network rm back", "cloche network rm -f back front"),
                "",
            ),
            "prune": (
                "remove all networks that no container uses",
                "",
                0,
                0,
                (("force", "f", "bool", "", "do not ask"), ("filter", "", *FILTER[2:]), HELP),
                ("cloche network prune", "cloche network prune -f --filter label=test"),
                "",
            ),
            "connect": (
                "put a container on one more network",
                "NETWORK CONTAINER",
                2,
                2,
                (
                    ("alias", "", "list", "NAME", "another name of it there"),
                    ("ip", "", "text", "ADDRESS", ""),
                    ("ip6", "", "text", "ADDRESS", "its addresses there"),
                    HELP,
                ),
                ("cloche network connect back web", "cloche network connect --alias db --ip 172.18.0.9 back store"),
                "driver-opt link link-local-ip gw-priority",
            ),
            "disconnect": (
                "take a container off a network",
                "NETWORK CONTAINER",
                2,
                2,
                (("force", "f", "bool", "", "also when the network is gone"), HELP),
                ("cloche network disconnect back web", "cloche network disconnect -f back web"),
                "",
            ),
        },
    ),
    "volume": (
        "files that outlive containers: create, ls, inspect, rm, prune",
        {
            "create": (
                "make a volume",
                "[VOLUME]",
                0,
                1,
                (
                    ("driver", "d", "text", "NAME", "local, a directory of the store"),
                    ("opt", "o", "list", "K=V", "options of the driver (there is none yet)"),
                    ("label", "", "list", "K=V", "data about it"),
                    HELP,
                ),
                ("cloche volume create data", "cloche volume create --label team=db"),
                (
                    "availability group limit-bytes required-bytes scope secret sharing topology-preferred "
                    "topology-required type"
                ),
            ),
            "ls": (
                "list volumes",
                "",
                0,
                0,
                (FILTER, LISTING, ("quiet", "q", "bool", "", "only names"), HELP),
                ("cloche volume ls", "cloche volume ls -q --filter dangling=true"),
                "cluster",
            ),
            "inspect": (
                "print all that is known of volumes, as JSON",
                "VOLUME [VOLUME...]",
                1,
                -1,
                (TEMPLATE, HELP),
                ("cloche volume inspect data", "cloche volume inspect -f '{{.Mountpoint}}' data"),
                "",
            ),
            "rm": (
                "remove volumes that no container has",
                "VOLUME [VOLUME...]",
                1,
                -1,
                (("force", "f", "bool", "", "one that is not there is no error"), HELP),
                ("cloche volume rm data", "cloche volume rm -f data logs"),
                "",
            ),
            "prune": (
                "remove all volumes without a name that no container has",
                "",
                0,
                0,
                (
                    ("all", "a", "bool", "", "also those with a name"),
                    ("force", "f", "bool", "", "do not ask"),
                    ("filter", "", *FILTER[2:]),
                    HELP,
                ),
                ("cloche volume prune", "cloche volume prune -af --filter label=test"),
                "",
            ),
        },
    ),
}
_OF_CONTAINERS = (
    "run create start stop kill rm wait exec attach logs port "
    "restart rename pause unpause top update diff cp export commit stats"
)
SPELLINGS = {  # what Docker's users type too
    "network list": "network ls",
    "network remove": "network rm",
    "volume list": "volume ls",
    "volume remove": "volume rm",
    "container ls": "ps",
    "container list": "ps",
    "container ps": "ps",
    "image ls": "images",
    "image list": "images",
    "image rm": "rmi",
    "image remove": "rmi",
    **{f"image {verb}": verb for verb in "history import load pull push save tag".split()},
    "system info": "info",
    "system events": "events",
    **{f"container {verb}": verb for verb in _OF_CONTAINERS.split()},
}


def two_words(noun: str, word: str) -> str:
    """The verb that two words mean; "" when they mean none."""
    name = f"{noun} {word}"
    name = SPELLINGS.get(name, name)
    return name if " " not in name or (noun in NOUNS and name.partition(" ")[2] in NOUNS[noun][1]) else ""


def is_noun(word: str) -> bool:
    """Whether a second word is expected behind this one."""
    return word in NOUNS or any(name.partition(" ")[0] == word for name in SPELLINGS)


def words_of(noun: str) -> tuple[str, ...]:
    """The second words that a noun takes."""
    own = NOUNS[noun][1] if noun in NOUNS else {}
    return (*own, *(name.partition(" ")[2] for name in SPELLINGS if name.partition(" ")[0] == noun))


def verb(name: str) -> Verb:
    """The table of a verb of two words. Raises KeyError."""
    noun, _, word = name.partition(" ")
    summary, usage, least, most, rows, examples, missing = NOUNS[noun][1][word]
    return Verb(name, usage, summary, (("Options", rows),), least, most, False, examples, missing)
