"""The command line of runc: global options, a command, its options and arguments. A table, and how it is read.

`--name value`, `--name=value`, `-n value`; one dash does for two, as Go's programs take it. `exec` ends its options at
the first argument, for what follows is another program's command line.
"""

from __future__ import annotations

from cloche.errors import Invalid
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

TEXT, FLAG, MANY = "text", "flag", "many"


class Option(Value):
    """One option; names beginning with the long one. `what` is its line of help."""

    names: tuple[str, ...]
    kind: str
    what: str


class Command(Value):
    """One command: its arguments as help shows them, how many it takes, and its options."""

    arguments: str
    what: str
    options: tuple[Option, ...] = ()
    few: int = 1
    many: int = 1
    rest: bool = False  # options end at the first argument


class Given(Value):
    """What was read: texts, flags and lists by the option's long name."""

    texts: dict[str, str]
    flags: dict[str, bool]
    lists: dict[str, tuple[str, ...]]
    arguments: tuple[str, ...] = ()

    def text(self, name: str, default: str = "") -> str:
        return self.texts.get(name, default)

    def flag(self, name: str) -> bool:
        return self.flags.get(name, False)

    def many(self, name: str) -> tuple[str, ...]:
        return self.lists.get(name, ())

    def number(self, name: str, default: int = 0) -> int:
        """A whole number that is not negative. Raises Invalid."""
        text = self.texts.get(name, "")
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise Invalid(f"--{name} {text}", "expected a whole number")
        return int(text)


def _text(names: str, what: str) -> Option:
    return Option(tuple(names.split()), TEXT, what)


def _flag(names: str, what: str) -> Option:
    return Option(tuple(names.split()), FLAG, what)


def _many(names: str, what: str) -> Option:
    return Option(tuple(names.split()), MANY, what)


GLOBAL = (
    _flag("debug", "log what is done as well"),
    _text("log", "the file that errors and warnings are written to"),
    _text("log-format", "text or json"),
    _text("root", "the directory of the containers' states"),
    _text("criu", "ignored: criu is found in PATH"),
    _flag("systemd-cgroup", "cgroupsPath is slice:prefix:name, and systemd makes the group"),
    _text("rootless", "true, false or auto: whether cgroups may be out of reach"),
    _flag("help h", "show help"),
    _flag("version v", "show the version"),
)
_CREATE = (
    _text("bundle b", "the directory with config.json; the present one"),
    _text("console-socket", "a unix socket that gets the terminal's other end"),
    _text("pidfd-socket", "a unix socket that gets a descriptor of the first process"),
    _text("pid-file", "a file that gets the pid"),
    _flag("no-pivot", "move the root instead of pivot_root, for initial RAM file systems"),
    _flag("no-new-keyring", "keep the caller's session keyring"),
    _text("preserve-fds", "how many descriptors from 3 on the container gets"),
)
_LIMITS = (
    _text("resources r", "a file of JSON, - for stdin"),
    _text("blkio-weight", "10 to 1000"),
    _text("cpu-period", "microseconds"),
    _text("cpu-quota", "microseconds in a period, -1 for no limit"),
    _text("cpu-burst", "microseconds"),
    _text("cpu-share", "shares, 1024 is usual"),
    _text("cpu-rt-period", "microseconds"),
    _text("cpu-rt-runtime", "microseconds"),
    _text("cpuset-cpus", "such as 0-3,7"),
    _text("cpuset-mems", "such as 0"),
    _text("cpu-idle", "0 or 1"),
    _text("memory", "bytes, or with k, m, g"),
    _text("memory-reservation", "bytes"),
    _text("memory-swap", "bytes of memory and swap together, -1 for no limit"),
    _text("kernel-memory", "ignored, as by kernels from 5.4 on"),
    _text("kernel-memory-tcp", "ignored, as by cgroup v2"),
    _text("pids-limit", "processes and threads, -1 for no limit"),
    _text("l3-cache-schema", "of Intel RDT"),
    _text("mem-bw-schema", "of Intel RDT"),
)
COMMANDS: dict[str, Command] = {
    "create": Command("ID", "make a container that waits to be started", _CREATE),
    "start": Command("ID", "execute the program of a created container"),
    "run": Command(
        "ID",
        "create, start, wait, delete",
        (
            *_CREATE,
            _flag("detach d", "do not wait"),
            _flag("keep", "do not delete it when it has ended"),
            _flag("no-subreaper", "do not become the reaper of its orphans"),
        ),
    ),
    "exec": Command(
        "ID COMMAND [ARG...]",
        "execute one more process in a running container",
        (
            _text("process p", "a file of JSON: the process as in config.json"),
            _text("console-socket", "a unix socket that gets the terminal's other end"),
            _text("pidfd-socket", "a unix socket that gets a descriptor of the process"),
            _text("pid-file", "a file that gets the pid"),
            _text("cwd", "its working directory"),
            _many("env e", "NAME=VALUE"),
            _flag("tty t", "give it a terminal"),
            _text("user u", "UID[:GID]"),
            _many("additional-gids g", "groups"),
            _flag("detach d", "do not wait"),
            _text("process-label", "of SELinux"),
            _text("apparmor", "the profile"),
            _flag("no-new-privs", "no setuid program can give more rights"),
            _many("cap c", "one more capability"),
            _text("preserve-fds", "how many descriptors from 3 on it gets"),
            _many("cgroup", "a group below the container's: PATH, or CONTROLLERS:PATH"),
            _flag("ignore-paused", "wait where the container is paused, instead of an error"),
        ),
        few=1,
        many=1 << 20,
        rest=True,
    ),
    "state": Command("ID", "tell a container's state as JSON"),
    "kill": Command("ID [SIGNAL]", "send a signal, TERM", (_flag("all a", "to every process of it"),), many=2),
    "delete": Command("ID", "remove a container that has ended", (_flag("force f", "kill it first"),)),
    "list": Command(
        "",
        "tell all containers of this root",
        (_text("format f", "table or json"), _flag("quiet q", "ids only")),
        0,
        0,
    ),
    "ps": Command(
        "ID [PS OPTION...]", "tell the processes", (_text("format f", "table or json"),), many=1 << 20, rest=True
    ),
    "pause": Command("ID", "make all processes of it stand still"),
    "resume": Command("ID", "let them go on"),
    "update": Command("ID", "change limits", _LIMITS),
    "events": Command(
        "ID",
        "tell what it uses, as JSON lines",
        (_text("interval", "how often, 5s"), _flag("stats", "once, and end")),
    ),
    "spec": Command(
        "", "write a config.json", (_text("bundle b", "where"), _flag("rootless", "for an ordinary user")), 0, 0
    ),
    "features": Command("", "tell what this runtime can do, as JSON", (), 0, 0),
    "checkpoint": Command("ID", "freeze a container into files (CRIU)"),
    "restore": Command("ID", "bring it back (CRIU)"),
}


def _find(options: tuple[Option, ...], name: str, command: str) -> Option:
    for option in options:
        if name in option.names:
            return option
    where = f"{command}: " if command else ""
    raise Invalid(f"{where}unknown option {name!r}", "", f"see cloche-oci {command + ' ' if command else ''}--help")


def _truth(name: str, text: str) -> bool:
    if text in ("true", "1", "t", "T", "TRUE", "True"):
        return True
    if text in ("false", "0", "f", "F", "FALSE", "False"):
        return False
    raise Invalid(f"--{name}={text}", "expected true or false")


def _read(words: Sequence[str], options: tuple[Option, ...], command: str, rest: bool) -> tuple[Given, list[str]]:
    """What the options say, and the arguments. With `rest` these begin at the first word that is no option."""
    texts: dict[str, str] = {}
    flags: dict[str, bool] = {}
    lists: dict[str, tuple[str, ...]] = {}
    arguments: list[str] = []
    left = list(reversed(words))
    while left:
        word = left.pop()
        if word == "--":
            arguments += reversed(left)
            break
        if word[:1] != "-" or word == "-":
            arguments.append(word)
            if rest:
                arguments += reversed(left)
                break
            continue
        name, equals, value = word.lstrip("-").partition("=")
        option = _find(options, name, command)
        key = option.names[0]
        if option.kind == FLAG:
            flags[key] = _truth(name, value) if equals else True
            continue
        if not equals:
            if not left:
                raise Invalid(f"option {word}", "its value is missing")
            value = left.pop()
        if option.kind == TEXT:
            texts[key] = value
        else:
            lists[key] = (*lists.get(key, ()), value)
    return Given(texts, flags, lists), arguments


def parse_global(words: Sequence[str]) -> tuple[Given, str, list[str]]:
    """Global options, the command ("" for none), and the words behind it. Raises Invalid."""
    given, left = _read(words, GLOBAL, "", rest=True)
    return given, left[0] if left else "", left[1:]


def parse_command(name: str, words: Sequence[str]) -> Given:
    """A command's own. Raises Invalid."""
    command = COMMANDS.get(name)
    if command is None:
        raise Invalid(f"there is no command {name!r}", "", "see cloche-oci --help")
    options = (*command.options, GLOBAL[7])
    given, arguments = _read(words, options, name, command.rest)
    if not given.flag("help") and not command.few <= len(arguments) <= command.many:
        hint = f"cloche-oci {name} [OPTION...] {command.arguments}".rstrip()
        raise Invalid(f"{name}: {len(arguments)} arguments", "", hint)
    return given.replace(arguments=tuple(arguments))


def help_of(name: str = "") -> str:
    """A page of help."""

    def line(option: Option) -> str:
        names = ", ".join(("--" if len(n) > 1 else "-") + n for n in option.names)
        return f"  {names + (' VALUE' if option.kind != FLAG else ''):30} {option.what}"

    if not name:
        usage = "cloche-oci [OPTION...] COMMAND [OPTION...] [ID]: an OCI runtime\n\nCommands:\n"
        commands = "\n".join(f"  {n:12} {c.what}" for n, c in COMMANDS.items())
        return f"{usage}{commands}\n\nOptions:\n" + "\n".join(line(o) for o in GLOBAL)
    command = COMMANDS[name]
    usage = f"cloche-oci {name} [OPTION...] {command.arguments}".rstrip()
    return f"{usage}\n\n{command.what}\n" + "".join("\n" + line(o) for o in command.options)
