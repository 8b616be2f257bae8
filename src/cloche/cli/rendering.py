"""Go templates, as Docker's users type them after `--format`: executing them on plain data (dicts, lists, text).

Strings of the data are hostile (labels, commands, names): their control characters are escaped where they are shown;
text of the template's own is shown as it is. A dict may have callables, called as methods: `{{.Label "x"}}`.
Source: Go's text/template/exec, docker/cli templates.
"""

from __future__ import annotations

from cloche.cli.template import Text, fail, parse
from cloche.errors import Invalid, printable

TYPE_CHECKING = False  # importing typing would cost a start 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from cloche.cli.template import Node

# Go's maps in Docker's documents: a name that is not there is no mistake, as it is in what Go has as a struct
MAPS = frozenset(
    "Annotations ExposedPorts Labels Networks Options PortBindings Ports StorageOpt Sysctls Tmpfs Volumes".split()
)


def render(template: tuple[Node, ...], data: Any, headings: bool = False) -> str:
    """The template's text for `data`. Raises Invalid.

    headings: data is a table's headings: functions leave them as they are, and what they cannot do ends the text.
    """
    running = _Running(data, headings)
    try:
        running.execute(template, data)
    except RecursionError:
        _fault("it is nested too deeply")
    except Invalid:
        if not headings:
            raise
    return "".join(running.out)


def shown(form: str, data: Any) -> str:
    """One object as `--format` asks: `json`, or a template. Raises Invalid."""
    return json_text(data) if form == "json" else render(parse(form), data)


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON on one line (or indented), safe for a terminal; callables are left out."""
    from json import dumps

    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {str(k): plain(v) for k, v in item.items() if not callable(v)}
        return [plain(v) for v in item] if isinstance(item, (list, tuple)) else item

    separators = (",", ":") if indent is None else (",", ": ")
    text = dumps(plain(value), ensure_ascii=False, separators=separators, indent=indent)
    if text.isprintable() or (indent is not None and text.replace("\n", "").isprintable()):
        return text
    return "".join(c if c.isprintable() or c == "\n" else dumps(c)[1:-1] for c in text)


def quoted(text: str) -> str:
    """A string in double quotes with Go's escapes, strconv.Quote."""
    named = {
        "\a": "\\a",
        "\b": "\\b",
        "\f": "\\f",
        "\n": "\\n",
        "\r": "\\r",
        "\t": "\\t",
        "\v": "\\v",
        "\\": "\\\\",
        '"': '\\"',
    }
    return '"' + "".join(named.get(c) or (c if c.isprintable() else printable(c)) for c in text) + '"'


def show(value: Any, nothing: str = "<nil>") -> str:
    """A value as Go's %v prints it; what is not the template's own text is escaped."""
    if isinstance(value, str):
        return value if isinstance(value, Text) else printable(value)
    if value is None:
        return nothing
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dict):
        pairs = sorted((show(k), show(v)) for k, v in value.items() if not callable(v))
        return f"map[{' '.join(f'{k}:{v}' for k, v in pairs)}]"
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(map(show, value))}]"
    return printable(value)


def _number(value: float) -> str:
    if value - value != 0:
        return {"inf": "+Inf", "-inf": "-Inf"}.get(repr(value), "NaN")
    return str(int(value)) if value == int(value) and abs(value) < 1e21 else repr(value)


def _fault(cause: str, at: int = -1) -> NoReturn:
    fail(cause, at, 1)


def _kind(value: Any) -> str:
    if value is None:
        return "<nil>"
    for kind, name in ((bool, "bool"), (int, "int"), (float, "float64"), (str, "string"), (dict, "map")):
        if isinstance(value, kind):
            return name
    return "slice"


def _plain_field(pipe: Node, dot: Any) -> str | None:
    """`{{.Field}}` of a text, which nearly all cells of lists are, as it is shown; None for anything else."""
    names, _, commands = pipe
    if names or len(commands) != 1 or len(commands[0]) != 1 or type(dot) is not dict:
        return None
    operand = commands[0][0]
    value = dot.get(operand[2]) if operand[0] == "field" and operand[1] == ("dot",) else None
    return value if type(value) is str and value.isprintable() else None


class _Running:
    """One execution: variables, output."""

    def __init__(self, data: Any, headings: bool) -> None:
        self.out: list[str] = []
        self.scope: list[list[Any]] = [["$", data]]
        self.maps: set[int] = set()
        self.functions = {**FUNCTIONS, **_HEADINGS} if headings else FUNCTIONS

    def execute(self, nodes: tuple[Node, ...], dot: Any) -> str:
        """Write the nodes; "break" or "continue" when one of these was met."""
        for node in nodes:
            kind = node[0]
            if kind == "text":
                self.out.append(node[1])
            elif kind == "print":
                value = _plain_field(node[1], dot)
                if value is not None:
                    self.out.append(value)
                    continue
                value = self.pipe(node[1], dot)
                if not node[1][0]:
                    self.out.append(show(value, "<no value>"))
            elif kind in ("break", "continue"):
                return str(kind)
            elif stop := self.block(node, dot):
                return stop
        return ""

    def block(self, node: Node, dot: Any) -> str:
        kind, pipe, body, other, _ = node
        known = len(self.scope)
        if kind == "range":
            stop = self.loop(node, dot)
        else:
            value = self.pipe(pipe, dot)
            stop = self.execute(body if value else other, value if kind == "with" and value else dot)
        del self.scope[known:]
        return stop

    def loop(self, node: Node, dot: Any) -> str:
        """range; what is returned is for the loop around this one, from its else."""
        _, (names, declares, commands), body, other, at = node
        known = len(self.scope)
        value = self.pipe(((), False, commands), dot)
        if isinstance(value, dict):
            items: Any = sorted((i for i in value.items() if not callable(i[1])), key=lambda item: str(item[0]))
        elif isinstance(value, (list, tuple)):
            items = enumerate(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            items = ((i, i) for i in range(value))
        elif value is None:
            items = ()
        else:
            _fault(f"range can't iterate over {show(value)}", at)
        empty = True
        for key, item in items:
            empty = False
            pair = (key, item) if len(names) == 2 else (item,)
            for name, part in zip(names, pair, strict=False):
                self.assign(name, part, declares)
            stop = self.execute(body, item)
            del self.scope[known:]
            if stop == "break":
                break
        return self.execute(other, dot) if empty else ""

    def assign(self, name: str, value: Any, declares: bool) -> None:
        if declares:
            self.scope.append([name, value])
        else:
            next(entry for entry in reversed(self.scope) if entry[0] == name)[1] = value

    def pipe(self, pipe: Node, dot: Any) -> Any:
        names, declares, commands = pipe
        value: Any = None
        for number, command in enumerate(commands):
            value = self.command(command, dot, (value,) if number else ())
        for name in names:
            self.assign(name, value, declares)
        return value

    def command(self, command: Node, dot: Any, piped: tuple[Any, ...]) -> Any:
        first, rest = command[0], command[1:]
        if first[0] == "call":
            return self.call(first, rest, dot, piped)
        if first[0] == "field":
            return self.field(first, dot, (*(self.operand(o, dot) for o in rest), *piped))
        if rest or piped:
            _fault(f"can't give argument to non-function {first[0]}")
        if first[0] == "nil":
            _fault("nil is not a command")
        return self.operand(first, dot)

    def operand(self, operand: Node, dot: Any) -> Any:
        kind = operand[0]
        if kind == "dot":
            return dot
        if kind == "var":
            return next(entry[1] for entry in reversed(self.scope) if entry[0] == operand[1])
        if kind == "const":
            return operand[1]
        if kind == "nil":
            return None
        if kind == "pipe":
            return self.pipe(operand[1], dot)
        if kind == "field":
            return self.field(operand, dot, ())
        return self.call(operand, (), dot, ())

    def field(self, operand: Node, dot: Any, arguments: tuple[Any, ...]) -> Any:
        _, of, name, at = operand
        holder = self.operand(of, dot)
        if holder is None:
            _fault(f"nil pointer evaluating interface {{}}.{name}", at)
        if not isinstance(holder, dict):
            _fault(f"can't evaluate field {name} in type {_kind(holder)}", at)
        if name not in holder and id(holder) not in self.maps:
            _fault(f'map has no entry for key "{name}"', at)
        value = holder.get(name)
        if callable(value):
            try:
                return value(*arguments)
            except TypeError:
                _fault(f"wrong arguments for {name}", at)
        if arguments:
            _fault(f"{name} has arguments but cannot be invoked as function", at)
        if name in MAPS and isinstance(value, dict):
            self.maps.add(id(value))
        return value

    def call(self, operand: Node, rest: tuple[Node, ...], dot: Any, piped: tuple[Any, ...]) -> Any:
        _, name, at = operand
        if name in ("and", "or"):
            return self.either(name, rest, dot, piped, at)
        if name not in self.functions:
            fail(f'function "{name}" not defined', at)
        function, least, most = self.functions[name]
        arguments = (*(self.operand(o, dot) for o in rest), *piped)
        if len(arguments) < least or len(arguments) > most >= 0:
            wanted = f"at least {least}" if most < 0 else str(least)
            _fault(f"wrong number of args for {name}: want {wanted} got {len(arguments)}", at)
        return function(*arguments)

    def either(self, name: str, rest: tuple[Node, ...], dot: Any, piped: tuple[Any, ...], at: int) -> Any:
        """and, or: the first that decides; what comes after it is not evaluated."""
        if not rest and not piped:
            _fault(f"wrong number of args for {name}: want at least 1 got 0", at)
        value: Any = None
        for operand in rest:
            value = self.operand(operand, dot)
            if bool(value) == (name == "or"):
                return value
        return piped[0] if piped else value


def _string(value: Any, name: str) -> str:
    if not isinstance(value, str):
        _fault(f"wrong type of value for {name}; expected string; got {_kind(value)}")
    return value


def _integer(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        _fault(f"wrong type of value for {name}; expected int; got {_kind(value)}")
    return value


def _like(text: str, changed: str) -> str:
    """`changed` is as trusted as `text`."""
    return Text(changed) if isinstance(text, Text) else changed


def _split(text: Any, by: Any) -> list[str]:
    text, by = _string(text, "split"), _string(by, "split")
    return [_like(text, part) for part in (text.split(by) if by else list(text))]


def _join(items: Any, by: Any) -> str:
    if not isinstance(items, (list, tuple, type(None))):
        _fault(f"wrong type of value for join; expected []string; got {_kind(items)}")
    return Text(show(_string(by, "join")).join(show(item) for item in items or ()))


def _title(text: Any) -> str:
    text = _string(text, "title")
    before = " " + text
    return _like(text, "".join(c if before[i].isalnum() or before[i] == "_" else c.upper() for i, c in enumerate(text)))


def _pad(text: Any, before: Any, after: Any) -> str:
    text = _string(text, "pad")
    spaces = [" " * min(max(_integer(n, "pad"), 0), 1000) for n in (before, after)]
    return _like(text, spaces[0] + text + spaces[1]) if text else text


def _truncate(text: Any, length: Any) -> str:
    text = _string(text, "truncate")
    return _like(text, text[: max(_integer(length, "truncate"), 0)])


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if not isinstance(value, (list, tuple, dict)):
        _fault(f"error calling len: len of type {_kind(value)}")
    return len(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            # what Go has as map[string]string says "" for a name that is not there
            value = value.get(_string(key, "index"), "" if all(isinstance(v, str) for v in value.values()) else None)
        elif isinstance(value, (list, tuple, str)):
            value = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
            if not 0 <= _integer(key, "index") < len(value):
                _fault(f"error calling index: index out of range: {key}")
            value = value[key]
        else:
            _fault(f"error calling index: index of {'untyped nil' if value is None else 'type ' + _kind(value)}")
    return value


def _slice(value: Any, *bounds: Any) -> Any:
    if not isinstance(value, (list, tuple, str)):
        _fault(f"error calling slice: can't slice item of type {_kind(value)}")
    ends = [*(_integer(b, "slice") for b in bounds), *(0, len(value))[len(bounds) :]]
    if not 0 <= ends[0] <= ends[1] <= len(value):
        _fault("error calling slice: index out of range")
    if isinstance(value, str):
        return _like(value, value[ends[0] : ends[1]])
    return value[ends[0] : ends[1]]


def _print(*values: Any) -> str:
    """fmt.Sprint: spaces between operands when neither is a string."""
    text = ""
    for i, value in enumerate(values):
        apart = i and not isinstance(value, str) and not isinstance(values[i - 1], str)
        text += (" " if apart else "") + show(value)
    return Text(text)


def _println(*values: Any) -> str:
    return Text(" ".join(map(show, values)) + "\n")


def _printf(form: Any, *values: Any) -> str:
    from cloche.cli.printf import sprintf

    return Text(sprintf(_string(form, "printf"), values))


def _group(value: Any) -> str:
    kind = "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else _kind(value)
    if kind in ("map", "slice"):
        _fault(f"non-comparable type {kind}")
    return kind


def _equal(first: Any, *others: Any) -> bool:
    for other in others:
        if first is not None and other is not None and _group(first) != _group(other):
            _fault("incompatible types for comparison")
    return any(first == other for other in others)


def _less(one: Any, two: Any) -> bool:
    if _group(one) != _group(two) or _group(one) not in ("number", "string"):
        _fault("incompatible types for comparison")
    return bool(one < two)


# name: (function, fewest and most arguments)
FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "json": (lambda value: Text(json_text(value)), 1, 1),
    "split": (_split, 2, 2),
    "join": (_join, 2, 2),
    "title": (_title, 1, 1),
    "lower": (lambda text: _like(text, _string(text, "lower").lower()), 1, 1),
    "upper": (lambda text: _like(text, _string(text, "upper").upper()), 1, 1),
    "pad": (_pad, 3, 3),
    "truncate": (_truncate, 2, 2),
    "len": (_length, 1, 1),
    "index": (_index, 1, -1),
    "slice": (_slice, 1, 3),
    "print": (_print, 0, -1),
    "println": (_println, 0, -1),
    "printf": (_printf, 1, -1),
    "not": (lambda value: not value, 1, 1),
    "eq": (_equal, 2, -1),
    "ne": (lambda one, two: not _equal(one, two), 2, 2),
    "lt": (_less, 2, 2),
    "le": (lambda one, two: _less(one, two) or _equal(one, two), 2, 2),
    "gt": (lambda one, two: not (_less(one, two) or _equal(one, two)), 2, 2),
    "ge": (lambda one, two: not _less(one, two), 2, 2),
}
_HEADINGS: dict[str, tuple[Callable[..., Any], int, int]] = {
    name: (lambda text, *_: text, FUNCTIONS[name][1], FUNCTIONS[name][2])
    for name in ("json", "split", "join", "title", "lower", "upper", "truncate")
}
