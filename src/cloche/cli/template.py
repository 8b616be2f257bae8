"""Go templates, as Docker's users type them after `--format`: parsing. Executing them is `rendering`'s business.

    {{.Field.Sub}} {{range $k, $v := .X}}..{{else}}..{{end}} {{if}} {{with}} {{index .X "k"}} {{.X | json}} {{- cut -}}

A template is a tuple of nodes, each a tuple whose first element is its kind. Source: Go's text/template/parse.
"""

from __future__ import annotations

from cloche.errors import Invalid

TYPE_CHECKING = False  # importing typing would cost a start 8 ms
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Node = tuple[Any, ...]

# node: ("text", str) ("print", pipe, at) ("if"|"with"|"range", pipe, body, other, at) ("break",) ("continue",)
# pipe: (names, declares, commands); command: a tuple of operands
# operand: ("dot",) ("var", name) ("const", value) ("nil",) ("call", name) ("pipe", pipe) ("field", operand, name, at)

_DEEPEST = 50
_SPACE = " \t\r\n"
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", "'": "'", '"': '"'}
_HEX = {"x": 2, "u": 4, "U": 8}


class Text(str):
    """Text that the template itself has written: shown as it is. Any other string is data, and escaped when shown."""

    __slots__ = ()


def fail(cause: str, at: int = -1, code: int = 64) -> NoReturn:
    """Raise Invalid for a template. Exit codes are Docker's: 64 when it cannot be read, 1 when not executed."""
    where = f"at character {at + 1}: " if at >= 0 else ""
    error = Invalid("template parsing error", where + cause)
    error.exit_code = code
    raise error


def parse(source: str, escapes: bool = False) -> tuple[Node, ...]:
    """The nodes of a template. Raises Invalid. escapes: `\\t` and `\\n` in its text are a tab and a newline."""
    reading = _Reading(_split(source, escapes))
    nodes, end = reading.nodes(0)
    if end:
        fail(f"unexpected {{{{{end}}}}}", reading.at)
    return tuple(nodes)


def _split(source: str, escapes: bool) -> list[tuple[bool, str, int]]:
    """Texts and actions (True) with where they begin; trimming done, comments gone."""
    parts: list[tuple[bool, str, int]] = []
    at, trim = 0, False
    while True:
        begin = source.find("{{", at)
        text = source[at : begin if begin >= 0 else len(source)]
        text = text.replace("\\t", "\t").replace("\\n", "\n") if escapes else text
        text = text.lstrip(_SPACE) if trim else text
        inside = begin + 2
        trimmed = begin >= 0 and source[inside : inside + 1] == "-" and source[inside + 1 : inside + 2] in tuple(_SPACE)
        text = text.rstrip(_SPACE) if trimmed else text
        if text:
            parts.append((False, text, at))
        if begin < 0:
            return parts
        inside += 2 * trimmed
        end = _action_end(source, inside)
        body, at = source[inside:end], end + 2
        trim = len(body) > 1 and body[-1] == "-" and body[-2] in _SPACE
        body = body[:-2] if trim else body
        if not body.lstrip(_SPACE).startswith("/*"):
            parts.append((True, body, inside))


def _action_end(source: str, start: int) -> int:
    """Where the `}}` of an action is; quotes and comments may have one in them."""
    at = start
    if source[at:].lstrip(_SPACE).startswith("/*"):
        end = source.find("*/", at)
        if end < 0:
            fail("unclosed comment", start)
        at = end + 2
        rest = source[at:].lstrip(_SPACE)
        if not rest.startswith(("}}", "-}}")):
            fail("comment ends before closing delimiter", start)
    while at < len(source):
        if source.startswith("}}", at):
            return at
        if source[at] in "\"'`":
            at = _quote_end(source, at)
        at += 1
    fail("unclosed action", start)


def _quote_end(source: str, at: int) -> int:
    quote, begin = source[at], at
    at += 1
    while at < len(source) and source[at] != quote:
        if source[at] == "\n" and quote != "`":
            break
        at += 2 if source[at] == "\\" and quote != "`" else 1
    if at >= len(source) or source[at] != quote:
        fail("unterminated quoted string", begin)
    return at


def _tokens(body: str, start: int) -> list[tuple[str, str, int]]:
    """(kind, text, position): `space`, `field`, `var`, `name`, `number`, `string`, `char`, `.` and punctuation."""
    tokens: list[tuple[str, str, int]] = []
    at = 0
    while at < len(body):
        begin, c = at, body[at]
        if c in _SPACE:
            at += len(body[at:]) - len(body[at:].lstrip(_SPACE))
            tokens.append(("space", " ", start + begin))
            continue
        if c in "\"'`":
            at = _quote_end(body, at) + 1
            kind = "char" if c == "'" else "string"
        elif body.startswith(":=", at):
            kind, at = ":=", at + 2
        elif c in "().$":
            at += 1
            word = _word(body, at)
            if (c == "." and (word[:1].isalpha() or word[:1] == "_")) or c == "$":
                kind, at = ("field" if c == "." else "var"), at + len(word)
            elif c == "." and word[:1].isdigit():
                kind, at = "number", at + len(word)
            else:
                kind = c
        elif c in "|,=":
            kind, at = c, at + 1
        elif c.isdigit() or (c in "+-" and body[at + 1 : at + 2].isdigit()):
            at += 1
            while at < len(body) and (body[at].isalnum() or body[at] in "._" or body[at - 1 : at + 1] in ("e-", "e+")):
                at += 1
            kind = "number"
        elif c.isalpha() or c == "_":
            kind, at = "name", at + len(_word(body, at))
        else:
            fail(f"unexpected {c!r} in action", start + at)
        tokens.append((kind, body[begin:at], start + begin))
    return tokens


def _word(body: str, at: int) -> str:
    end = at
    while end < len(body) and (body[end].isalnum() or body[end] == "_"):
        end += 1
    return body[at:end]


class _Reading:
    """One pass over a template's parts."""

    def __init__(self, parts: list[tuple[bool, str, int]]) -> None:
        self.parts = iter(parts)
        self.tokens: list[tuple[str, str, int]] = []
        self.next = 0
        self.at = 0
        self.names = ["$"]
        self.loops = 0

    def nodes(self, depth: int) -> tuple[list[Node], str]:
        """Nodes until an `end` or `else`, which is left to the caller, or the end of the template ("")."""
        if depth > _DEEPEST:
            fail("it is nested too deeply", self.at)
        found: list[Node] = []
        for is_action, text, at in self.parts:
            self.at = at
            if not is_action:
                found.append(("text", Text(text)))
                continue
            self.tokens = _tokens(text, at)
            self.next = 0
            word = self._keyword()
            if word in ("end", "else"):
                return found, word
            if word in ("if", "with", "range"):
                found.append(self._block(word, depth))
            elif word in ("break", "continue"):
                self._done(word)
                if not self.loops:
                    fail(f"{{{{{word}}}}} outside {{{{range}}}}", at)
                found.append((word,))
            elif word in ("define", "template", "block"):
                fail(f"{{{{{word}}}}} is not there yet", at)
            else:
                found.append(("print", self._pipe("", depth), at))
                self._done("command")
        return found, ""

    def _block(self, word: str, depth: int) -> Node:
        at, known = self.at, len(self.names)
        pipe = self._pipe(word, depth)
        self._done(word)
        self.loops += word == "range"
        body, end = self.nodes(depth + 1)
        self.loops -= word == "range"
        other: list[Node] = []
        if end == "else":
            chained = self._keyword()
            if chained and (chained != word or word == "range"):
                fail(f"unexpected {chained!r} in else", self.at)
            if chained:
                other = [self._block(chained, depth + 1)]
                del self.names[known:]
                return (word, pipe, tuple(body), tuple(other), at)
            self._done("else")
            other, end = self.nodes(depth + 1)
        if end != "end":
            fail(f"unexpected {'{{else}}' if end else 'EOF'}, expected {{{{end}}}}", at if not end else self.at)
        self._done("end")
        del self.names[known:]
        return (word, pipe, tuple(body), tuple(other), at)

    def _keyword(self) -> str:
        """The action's first word, taken if it is one of the language's."""
        self._skip()
        kind, text, _ = self._peek()
        words = ("if", "else", "end", "range", "with", "break", "continue", "define", "template", "block")
        if kind == "name" and text in words:
            self.next += 1
            return text
        return ""

    def _peek(self) -> tuple[str, str, int]:
        return self.tokens[self.next] if self.next < len(self.tokens) else ("", "", self.at)

    def _skip(self) -> None:
        while self._peek()[0] == "space":
            self.next += 1

    def _done(self, context: str) -> None:
        self._skip()
        kind, text, at = self._peek()
        if kind:
            fail(f"unexpected {text!r} in {context}", at)

    def _pipe(self, context: str, depth: int) -> Node:
        """[$a[, $b] :=|=] command {| command}"""
        if depth > _DEEPEST:
            fail("it is nested too deeply", self.at)
        names, declares = self._assigned(context)
        commands: list[Node] = []
        while True:
            command = self._command(depth)
            if not command:
                fail(f"missing value for {context or 'command'}", self.at)
            if commands and command[0][0] not in ("call", "field"):
                fail("non executable command in pipeline", self.at)
            commands.append(command)
            if self._peek()[0] != "|":
                break
            self.next += 1
        if declares:
            self.names += names
        return (names, declares, tuple(commands))

    def _assigned(self, context: str) -> tuple[tuple[str, ...], bool]:
        start, names = self.next, []
        while True:
            self._skip()
            kind, text, _ = self._peek()
            if kind != "var":
                break
            names.append(text)
            self.next += 1
            self._skip()
            kind, text, at = self._peek()
            if kind in (":=", "="):
                self.next += 1
                if kind == "=" and any(n not in self.names for n in names):
                    fail(f"undefined variable {names[0]!r}", at)
                return tuple(names), kind == ":="
            if kind != "," or context != "range" or len(names) > 1:
                break
            self.next += 1
        self.next = start
        return (), False

    def _command(self, depth: int) -> Node:
        """Operands up to `|`, `)` or the end; there are spaces between them."""
        operands: list[Node] = []
        spaced = True
        while True:
            kind, text, at = self._peek()
            if kind == "space":
                self.next, spaced = self.next + 1, True
                continue
            if kind in ("", "|", ")"):
                return tuple(operands)
            if not spaced:
                fail(f"unexpected {text!r} in operand", at)
            operands.append(self._operand(depth))
            spaced = False

    def _operand(self, depth: int) -> Node:
        kind, text, at = self._peek()
        self.next += 1
        operand: Node
        if kind == "field":
            self.next -= 1
            operand = ("dot",)
        elif kind == ".":
            operand = ("dot",)
        elif kind == "var":
            if text not in self.names:
                fail(f"undefined variable {text!r}", at)
            operand = ("var", text)
        elif kind == "(":
            operand = ("pipe", self._pipe("parenthesized pipeline", depth + 1))
            self._skip()
            if self._peek()[0] != ")":
                fail("unclosed left paren", at)
            self.next += 1
        elif kind == "name":
            operand = {"true": ("const", True), "false": ("const", False), "nil": ("nil",)}.get(
                text, ("call", text, at)
            )
        elif kind in ("string", "char", "number"):
            operand = ("const", _constant(kind, text, at))
        else:
            fail(f"unexpected {text!r} in operand", at)
        while self._peek()[0] == "field":
            if operand[0] in ("const", "nil", "call"):
                fail(f"unexpected {self._peek()[1]!r} after {text!r}", at)
            operand = ("field", operand, self._peek()[1][1:], self._peek()[2])
            self.next += 1
        return operand


def _constant(kind: str, text: str, at: int) -> object:
    if kind == "number":
        for read in (_integer, float):
            try:
                return read(text)
            except ValueError:
                continue
        fail(f"bad number syntax: {text!r}", at)
    if text[0] == "`":
        return Text(text[1:-1])
    value = _unquote(text[1:-1], at)
    if kind == "char":
        if len(value) != 1:
            fail(f"malformed character constant: {text}", at)
        return ord(value)
    return Text(value)


def _integer(text: str) -> int:
    return int(text, 0)


def _unquote(body: str, at: int) -> str:
    """Go's escapes: the letters, three octal digits, x, u, U."""
    out: list[str] = []
    i = 0
    while i < len(body):
        c = body[i]
        i += 1
        if c != "\\":
            out.append(c)
            continue
        letter = body[i : i + 1]
        if letter in _ESCAPES:
            out.append(_ESCAPES[letter])
            i += 1
            continue
        base, length = (16, _HEX[letter]) if letter in _HEX else (8, 3)
        i += letter in _HEX
        digits = body[i : i + length]
        try:
            number = int(digits, base) if len(digits) == length and digits.isalnum() else -1
            out.append(chr(-1 if 0xD800 <= number < 0xE000 else number))
        except (ValueError, OverflowError):
            fail(f"bad escape in string: \\{letter}{digits}", at)
        i += length
    return "".join(out)
