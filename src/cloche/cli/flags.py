"""Every verb's flags, as data: what is there, what Docker has and is not there yet, and what `--help` says.

A row is (long name, short name, kind, placeholder, help). Kinds: `bool`, `text`, `int`, `list` (given again, it adds),
`choice` (one of the placeholder's), `filter` (NAME=VALUE, adds). In `--help`, a row without help shares the next line.
Rows are plain constants: they come from the compiled file at no cost, and a start looks at few of them.
"""

from __future__ import annotations

from cloche.value import Value

Row = tuple[str, str, str, str, str]
Group = tuple[str, tuple[Row, ...]]


class Verb(Value):
    """A verb of the command line. `most` is -1 for any number of arguments; flags end at the first one if `leading`.

    missing: Docker's flags that are refused by name, as words `name` or `name|s`.
    """

    name: str
    usage: str
    summary: str
    groups: tuple[Group, ...]
    least: int = 0
    most: int = 0
    leading: bool = False
    examples: tuple[str, ...] = ()
    missing: str = ""

    def rows(self) -> dict[str, Row]:
        """The rows by long name."""
        return {row[0]: row for _, group in self.groups for row in group}


_PROCESS: tuple[Row, ...] = (
    ("interactive", "i", "bool", "", ""),
    ("tty", "t", "bool", "", "keep standard input open; allocate a terminal"),
    ("env", "e", "list", "K[=V]", ""),
    ("env-file", "", "list", "FILE", "variables; a K without a value is the caller's"),
    ("user", "u", "text", "USER[:GROUP]", ""),
    ("group-add", "", "list", "GROUP", "who it is; more groups"),
    ("workdir", "w", "text", "DIR", ""),
    ("entrypoint", "", "text", "PROGRAM", "where it starts; what is run instead of the image's"),
    ("init", "", "bool", "", ""),
    ("stop-signal", "", "text", "SIGNAL", ""),
    ("stop-timeout", "", "int", "SECONDS", "a small PID 1; how it is stopped"),
)
_CONTAINER: tuple[Row, ...] = (
    ("name", "", "text", "NAME", ""),
    ("hostname", "h", "text", "NAME", "the container's name, its host name"),
    ("label", "l", "list", "K=V", ""),
    ("annotation", "", "list", "K=V", "data about it, for you and for runtimes"),
    ("cidfile", "", "text", "FILE", ""),
    ("rm", "", "bool", "", "write its id to a file; remove it when it ends"),
    ("restart", "", "text", "no|on-failure[:N]|always|unless-stopped", "what follows its end"),
)
_PULL: tuple[Row, ...] = (
    ("pull", "", "choice", "missing|always|never", ""),
    ("platform", "", "text", "OS/ARCH[/VARIANT]", ""),
    ("quiet", "q", "bool", "", "whether it is fetched; for which machine; silently"),
)
_FOREGROUND: tuple[Row, ...] = (
    ("detach", "d", "bool", "", ""),
    ("detach-keys", "", "text", "KEYS", "in the background; the keys that leave it"),
    ("sig-proxy", "", "bool", "", "pass signals on (on unless --sig-proxy=false)"),
    ("explain", "", "bool", "", "print each step as it is executed, with its time"),
)
_RESOURCES: tuple[Row, ...] = (
    ("memory", "m", "text", "SIZE", ""),
    ("memory-swap", "", "text", "SIZE", "64m, 1g; together with swap, -1: any"),
    ("cpus", "", "text", "N", ""),
    ("cpu-shares", "c", "int", "N", ""),
    ("cpuset-cpus", "", "text", "0-3,5", "how many CPUs (0.5), which weight, which ones"),
    ("pids-limit", "", "int", "N", ""),
    ("ulimit", "", "list", "NAME=SOFT[:HARD]", "processes; limits of each process"),
    ("memory-reservation", "", "text", "SIZE", ""),
    ("shm-size", "", "text", "SIZE", "a soft limit; of /dev/shm"),
    ("oom-score-adj", "", "int", "N", "-1000 to 1000, more is killed sooner"),
)
_FILES: tuple[Row, ...] = (
    ("volume", "v", "list", "SRC:DST[:ro,rshared,...]", "a directory or file of the host"),
    ("mount", "", "list", "type=bind|tmpfs,source=,target=,...", "the same, in long form"),
    ("tmpfs", "", "list", "DST[:size=64m,...]", ""),
    ("read-only", "", "bool", "", "files in memory; the root cannot be written"),
    ("device", "", "list", "SRC[:DST[:rwm]]", "a device of the host"),
)
_NETWORK: tuple[Row, ...] = (
    ("network", "", "list", "NAME|none|host|container:ID", "CLOCHE_NETWORK, or bridge; NAME,alias=A"),
    ("publish", "p", "list", "[[ADDRESS:]HOST:]PORT[/udp]", ""),
    ("publish-all", "P", "bool", "", "lead ports of the host to it; all that are exposed"),
    ("expose", "", "list", "PORT[-PORT][/udp]", ""),
    ("network-alias", "", "list", "NAME", "ports that -P publishes; other names on its network"),
    ("ip", "", "text", "ADDRESS", ""),
    ("ip6", "", "text", "ADDRESS", ""),
    ("mac-address", "", "text", "ADDRESS", "its own addresses"),
    ("add-host", "", "list", "NAME:ADDRESS", "a line of /etc/hosts; host-gateway is the host"),
    ("dns", "", "list", "ADDRESS", ""),
    ("dns-search", "", "list", "DOMAIN", ""),
    ("dns-option", "", "list", "OPTION", "whom it asks for names"),
)
_ISOLATION: tuple[Row, ...] = (
    ("pid", "", "text", "host|container:ID", ""),
    ("uts", "", "text", "host", "whose processes, whose host name it sees"),
    ("ipc", "", "text", "host|private|shareable|container:ID", "whose semaphores, queues, shared memory"),
    ("cgroupns", "", "text", "host|private", ""),
    ("userns", "", "text", "host|auto|MAP", "MAP: CONTAINER:HOST:SIZE[,...]"),
    ("cap-add", "", "list", "CAP", ""),
    ("cap-drop", "", "list", "CAP", "capabilities: NET_ADMIN, ALL, ..."),
    ("security-opt", "", "list", "OPT", "seccomp=FILE|unconfined, no-new-privileges"),
    ("privileged", "", "bool", "", ""),
    ("sysctl", "", "list", "K=V", "all rights; kernel parameters"),
)
_RUN_MISSING = (
    "attach|a blkio-weight blkio-weight-device cgroup-parent cpu-count cpu-percent cpu-period cpu-quota "
    "cpu-rt-period cpu-rt-runtime cpuset-mems device-cgroup-rule device-read-bps device-read-iops "
    "device-write-bps device-write-iops disable-content-trust domainname gpus health-cmd health-interval "
    "health-retries health-start-interval health-start-period health-timeout io-maxbandwidth io-maxiops isolation "
    "kernel-memory label-file link link-local-ip log-driver log-opt memory-swappiness no-healthcheck "
    "oom-kill-disable runtime storage-opt use-api-socket volume-driver volumes-from step timings"
)
_CREATE: tuple[Group, ...] = (
    ("Process", _PROCESS),
    ("Container", _CONTAINER),
    ("Resources", _RESOURCES),
    ("Files", _FILES),
    ("Network", _NETWORK),
    ("Isolation", _ISOLATION),
    ("Image", _PULL),
)
_KEYS: Row = ("detach-keys", "", "text", "KEYS", "the keys that leave it running (ctrl-p,ctrl-q)")
FILTER: Row = ("filter", "f", "filter", "NAME=VALUE", "only those that match; may be given again")
LISTING: Row = ("format", "", "text", "FORMAT", "table, table TEMPLATE, json or a Go template")
TEMPLATE: Row = ("format", "f", "text", "FORMAT", "json or a Go template")
NO_TRUNC: Row = ("no-trunc", "", "bool", "", "whole ids and commands")
QUIET: Row = ("quiet", "q", "bool", "", "only ids")

GLOBAL: tuple[Row, ...] = (
    ("root", "", "text", "DIR", "the store (CLOCHE_ROOT; /var/lib/cloche)"),
    ("debug", "D", "bool", "", "show where an error came from (CLOCHE_DEBUG=1)"),
    ("help", "", "bool", "", ""),
    ("version", "v", "bool", "", "print this; print the version"),
)
ALIASES = {
    "net": "network",
    "time": "timeout",
    "dns-opt": "dns-option",
    "net-alias": "network-alias",
}  # spellings that Docker still takes
HELP: Row = ("help", "", "bool", "", "print this")

VERBS: dict[str, tuple[str, str]] = {  # name: (group, summary), in the order of `cloche --help`
    "run": ("Containers", "make a container of an image and run a command in it"),
    "create": ("Containers", "make a container without starting it"),
    "start": ("Containers", "start containers"),
    "stop": ("Containers", "stop containers: a signal, then SIGKILL"),
    "restart": ("Containers", "stop containers and start them again"),
    "kill": ("Containers", "send containers a signal"),
    "update": ("Containers", "change the limits of containers"),
    "pause": ("Containers", "let all processes of containers stand still"),
    "unpause": ("Containers", "let paused containers go on"),
    "rename": ("Containers", "give a container another name"),
    "rm": ("Containers", "remove containers"),
    "wait": ("Containers", "wait for containers to end and print their exit codes"),
    "exec": ("Containers", "run a command in a running container"),
    "attach": ("Containers", "connect this terminal to a running container"),
    "logs": ("Containers", "print what a container wrote"),
    "ps": ("Containers", "list containers"),
    "diff": ("Containers", "list what a container changed in its image's files"),
    "cp": ("Containers", "copy files between a container and this host"),
    "export": ("Containers", "write a container's files as a tar archive"),
    "stats": ("Containers", "print what containers use, again and again"),
    "top": ("Containers", "list the processes of a container"),
    "events": ("See through", "print what happens to containers and images, as it happens"),
    "plan": ("See through", "print what `run` would ask of the kernel, and run nothing"),
    "inspect": ("See through", "print all that is known of containers and images, as JSON"),
    "info": ("See through", "print facts about this host and its store"),
    "version": ("See through", "print versions"),
    "system": ("See through", "all of it: df, prune, restore, install, info, events"),
    "network": ("Networks", "networks: create, ls, inspect, rm, prune, connect, disconnect"),
    "port": ("Networks", "print which ports of the host lead to a container"),
    "pull": ("Images", "fetch an image from a registry"),
    "pack": ("Images", "make an image of programs of this host"),
    "load": ("Images", "load images from an archive or folder"),
    "images": ("Images", "list images"),
    "tag": ("Images", "give an image another name"),
    "rmi": ("Images", "remove images"),
    "login": ("Images", "log in to a registry"),
    "logout": ("Images", "log out of a registry"),
}
OWN_NOUNS = ("container", "image", "network", "system")  # behind these stands a second word: cli.nouns
MISSING_VERBS = (
    "build builder buildx checkpoint commit compose config context history import manifest node "
    "plugin push save search secret service stack swarm trust volume"
)  # Docker's, refused by name


def verb(name: str) -> Verb:
    """A verb's table. Raises KeyError."""
    if " " in name:
        from cloche.cli import nouns

        return nouns.verb(name)
    summary = VERBS[name][1]
    if name in ("run", "create", "plan"):
        return _making(name, summary)
    usage, least, most, rows, examples, missing = _REST[name]
    groups: tuple[Group, ...] = (("Options", (*rows, HELP)),)
    return Verb(name, usage, summary, groups, least, most, name in ("exec", "top"), examples, missing)


def _making(name: str, summary: str) -> Verb:
    """run, create and plan: the same flags but for how the caller goes along."""
    groups = _CREATE
    missing = _RUN_MISSING
    examples: tuple[str, ...]
    if name == "create":
        examples = ("cloche create --name web -m 64m starter sleep 1000", "cloche start web")
        missing += " detach|d sig-proxy detach-keys explain"
        groups = (*groups, ("Options", (HELP,)))
    elif name == "plan":
        groups = groups[:-1]  # nothing is fetched
        missing += " pull platform quiet|q"
        form: Row = ("format", "", "choice", "text|json", "for people, or as data")
        groups = (*groups, ("Foreground", _FOREGROUND[:-1]), ("Options", (form, HELP)))
        missing += " explain"
        examples = ("cloche plan -m 64m starter true", "cloche plan --format json --userns auto starter sh | less")
    else:
        groups = (*groups, ("Foreground", (*_FOREGROUND, HELP)))
        examples = (
            "cloche run -it --rm starter sh",
            "cloche run --rm -m 64m --cpus 0.5 -v ./data:/data:ro starter ls /data",
        )
    return Verb(name, "IMAGE [COMMAND] [ARG...]", summary, groups, 1, -1, True, examples, missing)


# name: (usage, fewest and most arguments, rows, examples, missing)
_REST: dict[str, tuple[str, int, int, tuple[Row, ...], tuple[str, ...], str]] = {
    "start": (
        "CONTAINER [CONTAINER...]",
        1,
        -1,
        (
            ("attach", "a", "bool", "", "connect its output and pass signals on"),
            ("interactive", "i", "bool", "", "connect standard input"),
            _KEYS,
        ),
        ("cloche start web", "cloche start -ai web"),
        "checkpoint checkpoint-dir",
    ),
    "stop": (
        "CONTAINER [CONTAINER...]",
        1,
        -1,
        (
            ("signal", "s", "text", "SIGNAL", "the signal (the container's own, or SIGTERM)"),
            ("timeout", "t", "int", "SECONDS", "how long to wait before SIGKILL (10; -1: for ever)"),
        ),
        ("cloche stop web", "cloche stop -t 0 web db"),
        "",
    ),
    "restart": (
        "CONTAINER [CONTAINER...]",
        1,
        -1,
        (
            ("signal", "s", "text", "SIGNAL", "the signal (the container's own, or SIGTERM)"),
            ("timeout", "t", "int", "SECONDS", "how long to wait before SIGKILL (10; -1: for ever)"),
        ),
        ("cloche restart web", "cloche restart -t 0 web db"),
        "",
    ),
    "update": (
        "CONTAINER [CONTAINER...]",
        1,
        -1,
        (
            *(row for row in _RESOURCES[:6] if row[0] != "ulimit"),
            ("memory-reservation", "", "text", "SIZE", "processes, -1: any; a soft limit"),
        ),
        ("cloche update -m 256m --memory-swap 512m web", "cloche update --cpus 1.5 --pids-limit 100 web db"),
        "blkio-weight cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpuset-mems restart",
    ),
    "diff": ("CONTAINER", 1, 1, (), ("cloche diff web", "cloche diff web | grep ^A"), ""),
    "cp": (
        "CONTAINER:PATH PATH|-  or  PATH|- CONTAINER:PATH",
        2,
        2,
        (
            ("archive", "a", "bool", "", "keep owners (root's inside, yours outside)"),
            ("follow-link", "L", "bool", "", "what a link at the source leads to"),
            ("quiet", "q", "bool", "", "say nothing"),
        ),
        ("cloche cp web:/etc/passwd .", "cloche cp ./site/. web:/srv"),
        "",
    ),
    "export": (
        "CONTAINER",
        1,
        1,
        (("output", "o", "text", "FILE", "a file (standard output)"),),
        ("cloche export -o web.tar web", "cloche export web | tar t"),
        "",
    ),
    "stats": (
        "[CONTAINER...]",
        0,
        -1,
        (
            ("all", "a", "bool", "", "also those that do not run"),
            LISTING,
            ("no-stream", "", "bool", "", "only once"),
            NO_TRUNC,
        ),
        ("cloche stats", "cloche stats --no-stream --format json web"),
        "",
    ),
    "top": ("CONTAINER [PS OPTION...]", 1, -1, (), ("cloche top web", "cloche top web -o pid,user,args"), ""),
    "pause": ("CONTAINER [CONTAINER...]", 1, -1, (), ("cloche pause web", "cloche pause web db"), ""),
    "unpause": ("CONTAINER [CONTAINER...]", 1, -1, (), ("cloche unpause web", "cloche unpause web db"), ""),
    "rename": ("CONTAINER NEW_NAME", 2, 2, (), ("cloche rename web old-web", "cloche rename web web.1"), ""),
    "kill": (
        "CONTAINER [CONTAINER...]",
        1,
        -1,
        (("signal", "s", "text", "SIGNAL", "the signal (SIGKILL)"),),
        ("cloche kill web", "cloche kill -s HUP web"),
        "",
    ),
    "rm": (
        "CONTAINER [CONTAINER...]",
        1,
        -1,
        (("force", "f", "bool", "", "kill those that run"),),
        ("cloche rm web", "cloche rm -f $(cloche ps -aq)"),
        "link|l volumes|v",
    ),
    "wait": ("CONTAINER [CONTAINER...]", 1, -1, (), ("cloche wait web", "cloche wait web db"), ""),
    "exec": (
        "CONTAINER COMMAND [ARG...]",
        2,
        -1,
        (
            ("interactive", "i", "bool", "", ""),
            ("tty", "t", "bool", "", "keep standard input open; allocate a terminal"),
            ("detach", "d", "bool", "", ""),
            ("detach-keys", "", "text", "KEYS", "in the background; the keys that leave it"),
            ("env", "e", "list", "K[=V]", ""),
            ("env-file", "", "list", "FILE", "variables"),
            ("user", "u", "text", "USER[:GROUP]", ""),
            ("workdir", "w", "text", "DIR", "who it is; where it starts"),
            ("privileged", "", "bool", "", "all rights"),
        ),
        ("cloche exec -it web sh", "cloche exec -u nobody -e LANG=C web env"),
        "",
    ),
    "attach": (
        "CONTAINER",
        1,
        1,
        (
            _KEYS,
            ("no-stdin", "", "bool", "", "do not connect standard input"),
            ("sig-proxy", "", "bool", "", "pass signals on (on unless --sig-proxy=false)"),
        ),
        ("cloche attach web", "cloche attach --no-stdin web"),
        "",
    ),
    "logs": (
        "CONTAINER",
        1,
        1,
        (
            ("follow", "f", "bool", "", "go on until the container ends"),
            ("since", "", "text", "TIME", "from then on: 2013-01-02T13:23:37Z, or 42m ago"),
            ("tail", "n", "text", "N|all", "only the last lines"),
            ("timestamps", "t", "bool", "", "when each was written"),
        ),
        ("cloche logs -f web", "cloche logs -t --since 10m --tail 100 web"),
        "details until",
    ),
    "ps": (
        "",
        0,
        0,
        (
            ("all", "a", "bool", "", "also those that do not run"),
            FILTER,
            LISTING,
            ("last", "n", "int", "N", "the last N that were created"),
            ("latest", "l", "bool", "", "the last one that was created"),
            NO_TRUNC,
            QUIET,
        ),
        ("cloche ps -a", "cloche ps --filter status=exited --format '{{.Names}}: {{.Status}}'"),
        "size|s",
    ),
    "inspect": (
        "NAME|ID [NAME|ID...]",
        1,
        -1,
        (TEMPLATE, ("type", "", "choice", "container|image", "only of this kind")),
        ("cloche inspect web", "cloche inspect -f '{{.State.ExitCode}}' web"),
        "size|s",
    ),
    "load": (
        "",
        0,
        0,
        (
            ("input", "i", "text", "PATH", "an archive or folder (standard input)"),
            ("quiet", "q", "bool", "", "say nothing"),
        ),
        ("cloche load -i image.tar", "docker save alpine | cloche load"),
        "platform",
    ),
    "images": (
        "[REPOSITORY[:TAG]]",
        0,
        1,
        (
            ("all", "a", "bool", "", "all images, also those without a name"),
            ("digests", "", "bool", "", "also digests"),
            FILTER,
            LISTING,
            NO_TRUNC,
            QUIET,
        ),
        ("cloche images", "cloche images --format '{{.Repository}}:{{.Tag}} {{.Size}}'"),
        "tree",
    ),
    "pull": (
        "NAME[:TAG|@DIGEST]",
        1,
        1,
        (
            ("platform", "", "text", "OS/ARCH[/VARIANT]", "for another machine than this"),
            ("quiet", "q", "bool", "", "say only its name"),
        ),
        ("cloche pull alpine", "cloche pull --platform linux/arm64 localhost:5000/team/app:1.0"),
        "all-tags|a disable-content-trust",
    ),
    "login": (
        "[SERVER]",
        0,
        1,
        (
            ("username", "u", "text", "NAME", ""),
            ("password", "p", "text", "PASSWORD", ""),
            ("password-stdin", "", "bool", "", "who you are; it is read from standard input"),
        ),
        ("cloche login registry.example.org", "cat secret | cloche login -u me --password-stdin"),
        "",
    ),
    "logout": ("[SERVER]", 0, 1, (), ("cloche logout", "cloche logout localhost:5000"), ""),
    "port": (
        "CONTAINER [PORT[/PROTOCOL]]",
        1,
        2,
        (),
        ("cloche port web", "cloche port web 80/tcp"),
        "",
    ),
    "rmi": (
        "IMAGE [IMAGE...]",
        1,
        -1,
        (("force", "f", "bool", "", "also when it has other names"),),
        ("cloche rmi starter", "cloche rmi $(cloche images -q)"),
        "no-prune platform",
    ),
    "tag": ("SOURCE[:TAG] TARGET[:TAG]", 2, 2, (), ("cloche tag starter base", "cloche tag starter tools:1"), ""),
    "pack": (
        "PROGRAM [PROGRAM...]",
        1,
        -1,
        (
            ("tag", "t", "text", "NAME[:TAG]", "the image's name"),
            ("add", "", "list", "PATH", "a file or folder to pack too"),
        ),
        ("cloche pack -t tools sh ls cat", "cloche pack -t py --add /usr/lib/python3.11 python3"),
        "",
    ),
    "events": (
        "",
        0,
        0,
        (
            FILTER,
            ("format", "", "text", "FORMAT", "json or a Go template"),
            ("since", "", "text", "TIME", "from then on: 2013-01-02T13:23:37Z, or 42m ago"),
            ("until", "", "text", "TIME", "end there"),
        ),
        ("cloche events", "cloche events --since 10m --until 0s --filter event=die"),
        "",
    ),
    "version": ("", 0, 0, (TEMPLATE,), ("cloche version", "cloche version -f json"), ""),
    "info": ("", 0, 0, (TEMPLATE,), ("cloche info", "cloche info -f '{{.KeeperPid}}'"), ""),
}
