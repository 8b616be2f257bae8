"""The verbs and their flags, as data: what is there, what Docker has and is not there yet, and what `--help` says.

Here are those that make containers; `catalogue` has the other verbs of one word, `nouns` those of two.

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
    ("domainname", "", "text", "NAME", ""),
    ("label-file", "", "list", "FILE", "its NIS domain; labels, a K=V a line"),
    ("label", "l", "list", "K=V", ""),
    ("annotation", "", "list", "K=V", "data about it, for you and for runtimes"),
    ("cidfile", "", "text", "FILE", ""),
    ("rm", "", "bool", "", "write its id to a file; remove it when it ends"),
    ("log-driver", "", "text", "json-file|local|none", ""),
    ("log-opt", "", "list", "max-size=10m", "how much of its output is kept; max-file, ..."),
    ("restart", "", "text", "no|on-failure[:N]|always|unless-stopped", "what follows its end"),
)
_HEALTH: tuple[Row, ...] = (
    ("health-cmd", "", "text", "COMMAND", ""),
    ("health-interval", "", "text", "30s", "what is executed in it to see if it is well"),
    ("health-timeout", "", "text", "30s", ""),
    ("health-retries", "", "int", "3", "how long it may take, how often fail in a row"),
    ("health-start-period", "", "text", "0s", ""),
    ("health-start-interval", "", "text", "5s", "how long failures do not count, how often then"),
    ("health-on-failure", "", "choice", "none|kill|restart|stop", "what is done with an unhealthy one"),
    ("no-healthcheck", "", "bool", "", "not the image's either"),
)
_PULL: tuple[Row, ...] = (
    ("pull", "", "choice", "missing|always|never", ""),
    ("platform", "", "text", "OS/ARCH[/VARIANT]", ""),
    ("quiet", "q", "bool", "", "whether it is fetched; for which machine; silently"),
)
_FOREGROUND: tuple[Row, ...] = (
    ("attach", "a", "list", "STREAM", "only stdin, stdout or stderr, each given once"),
    ("detach", "d", "bool", "", ""),
    ("detach-keys", "", "text", "KEYS", "in the background; the keys that leave it"),
    ("sig-proxy", "", "bool", "", "pass signals on (on unless --sig-proxy=false)"),
    ("explain", "", "bool", "", "print each step as it is executed, with its time"),
)
RESOURCES: tuple[Row, ...] = (
    ("memory", "m", "text", "SIZE", ""),
    ("memory-swap", "", "text", "SIZE", "64m, 1g; together with swap, -1: any"),
    ("cpus", "", "text", "N", ""),
    ("cpu-shares", "c", "int", "N", ""),
    ("cpuset-cpus", "", "text", "0-3,5", "how many CPUs (0.5), which weight, which ones"),
    ("pids-limit", "", "int", "N", ""),
    ("ulimit", "", "list", "NAME=SOFT[:HARD]", "processes; limits of each process"),
    ("memory-reservation", "", "text", "SIZE", ""),
    ("shm-size", "", "text", "SIZE", "a soft limit; of /dev/shm"),
    ("oom-score-adj", "", "int", "N", ""),
    ("oom-kill-disable", "", "bool", "", "-1000 to 1000, more is killed sooner; never (v1)"),
    ("memory-swappiness", "", "int", "0-100", ""),
    ("cpuset-mems", "", "text", "0-1", "how gladly it is swapped out (v1); memory nodes"),
    ("cpu-period", "", "int", "MICROSECONDS", ""),
    ("cpu-quota", "", "int", "MICROSECONDS", "how long of each period it may run, -1: any"),
    ("cpu-rt-period", "", "int", "MICROSECONDS", ""),
    ("cpu-rt-runtime", "", "int", "MICROSECONDS", "the same of its real-time processes (v1)"),
    ("blkio-weight", "", "int", "10-1000", ""),
    ("blkio-weight-device", "", "list", "DEVICE:WEIGHT", "its share of block I/O; of one device's"),
    ("device-read-bps", "", "list", "DEVICE:SIZE", ""),
    ("device-write-bps", "", "list", "DEVICE:SIZE", "bytes a second, such as /dev/sda:1mb"),
    ("device-read-iops", "", "list", "DEVICE:N", ""),
    ("device-write-iops", "", "list", "DEVICE:N", "operations a second"),
    ("cgroup-parent", "", "text", "GROUP", "the control group that its own is made in"),
)
_FILES: tuple[Row, ...] = (
    ("volume", "v", "list", "[SRC|NAME:]DST[:ro,...]", "a path of the host, a volume; its own volume"),
    ("mount", "", "list", "type=bind|volume|tmpfs,source=,target=,...", "the same, in long form"),
    ("volumes-from", "", "list", "CONTAINER[:ro]", ""),
    ("volume-driver", "", "choice", "local", "what another container has; of new volumes"),
    ("tmpfs", "", "list", "DST[:size=64m,...]", ""),
    ("read-only", "", "bool", "", "files in memory; the root cannot be written"),
    ("device", "", "list", "SRC[:DST[:rwm]]", "or a CDI device, VENDOR/CLASS=NAME"),
    ("gpus", "", "text", "all|N|device=N", "GPUs, by CDI documents of this host"),
    ("device-cgroup-rule", "", "list", "'c 13:* rwm'", "more devices that it may use"),
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
    ("runtime", "", "choice", "cloche", ""),
    ("isolation", "", "choice", "default", "there is one of each"),
)
_RUN_MISSING = (
    "cpu-count cpu-percent disable-content-trust io-maxbandwidth io-maxiops kernel-memory link "
    "link-local-ip storage-opt use-api-socket step timings"
)
_CREATE: tuple[Group, ...] = (
    ("Process", _PROCESS),
    ("Container", _CONTAINER),
    ("Health", _HEALTH),
    ("Resources", RESOURCES),
    ("Files", _FILES),
    ("Network", _NETWORK),
    ("Isolation", _ISOLATION),
    ("Image", _PULL),
)
KEYS: Row = ("detach-keys", "", "text", "KEYS", "the keys that leave it running (ctrl-p,ctrl-q)")
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
    "commit": ("Containers", "make an image of what a container changed"),
    "stats": ("Containers", "print what containers use, again and again"),
    "top": ("Containers", "list the processes of a container"),
    "events": ("See through", "print what happens to containers and images, as it happens"),
    "plan": ("See through", "print what `run` would ask of the kernel, and run nothing"),
    "inspect": ("See through", "print all that is known of containers, images, networks, volumes"),
    "info": ("See through", "print facts about this host and its store"),
    "version": ("See through", "print versions"),
    "tiles": ("See through", "watch all running containers as a heat map"),
    "completion": ("See through", "print what makes a shell complete command lines"),
    "system": ("See through", "all of it: df, prune, restore, install, info, events"),
    "network": ("Networks", "networks: create, ls, inspect, rm, prune, connect, disconnect"),
    "port": ("Networks", "print which ports of the host lead to a container"),
    "volume": ("Volumes", "files that outlive containers: create, ls, inspect, rm, prune"),
    "pull": ("Images", "fetch an image from a registry"),
    "push": ("Images", "give an image to a registry"),
    "pack": ("Images", "make an image of programs of this host"),
    "load": ("Images", "load images from an archive or folder"),
    "save": ("Images", "write images to an archive"),
    "import": ("Images", "make an image of the files in a tar archive"),
    "images": ("Images", "list images"),
    "history": ("Images", "print how an image came to be"),
    "tag": ("Images", "give an image another name"),
    "rmi": ("Images", "remove images"),
    "login": ("Images", "log in to a registry"),
    "logout": ("Images", "log out of a registry"),
}
OWN_NOUNS = ("container", "image", "network", "system", "volume")  # behind these stands a second word: cli.nouns
MISSING_VERBS = (
    "build builder buildx checkpoint compose config context manifest node "
    "plugin search secret service stack swarm trust"
)  # Docker's, refused by name


def verb(name: str) -> Verb:
    """A verb's table. Raises KeyError."""
    if " " in name:
        from cloche.cli import nouns

        return nouns.verb(name)
    summary = VERBS[name][1]
    if name in ("run", "create", "plan"):
        return _making(name, summary)
    from cloche.cli.catalogue import REST

    usage, least, most, rows, examples, missing = REST[name]
    groups: tuple[Group, ...] = (("Options", (*rows, HELP)),)
    return Verb(name, usage, summary, groups, least, most, name in ("exec", "top"), examples, missing)


def _making(name: str, summary: str) -> Verb:
    """run, create and plan: the same flags but for how the caller goes along."""
    groups = _CREATE
    missing = _RUN_MISSING
    examples: tuple[str, ...]
    if name == "create":
        examples = ("cloche create --name web -m 64m starter sleep 1000", "cloche start web")
        missing += " attach|a detach|d sig-proxy detach-keys explain"
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
