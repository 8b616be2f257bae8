"""The grammar of the command line: flags as Docker's users type them, each verb's from its table in `flags`.

    cloche [GLOBAL FLAGS] VERB [FLAGS] ARGUMENTS

`--name x`, `--name=x`, `-e K=V`, `-eK=V`, `-e=K=V`, `-it`, `--flag=false`, `--`. Flags of run, create, plan and exec
end at the image or container: what follows is the command's own. Not its business: what words mean (`requests`).
"""

from __future__ import annotations

from cloche.cli.flags import ALIASES, GLOBAL, HELP, MISSING_VERBS, OWN_NOUNS, VERBS, verb
from cloche.errors import Invalid, Unsupported
from cloche.value import Value

TYPE_CHECKING = False  # importing typing would cost a start 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, NoReturn

    from cloche.cli.flags import Row, Verb
    from cloche.errors import Error


class Parsed(Value):
    """What was typed. `verb` is "" where none was given; `help` asks for its usage. `values` holds given flags only."""

    verb: str
    arguments: tuple[str, ...]
    values: dict[str, Any]
    root: str = ""
    debug: bool = False
    help: bool = False

    def on(self, name: str, default: bool = False) -> bool:
        """A flag of kind bool."""
        return bool(self.values.get(name, default))

    def text(self, name: str, default: str = "") -> str:
        """A flag of kind text or choice."""
        return str(self.values.get(name, default))

    def number(self, name: str) -> int | None:
        """A flag of kind int; None where it was not given."""
        value = self.values.get(name)
        return None if value is None else int(value)

    def every(self, name: str) -> tuple[str, ...]:
        """A flag of kind list, in the order given."""
        return tuple(self.values.get(name, ()))

    def filters(self) -> tuple[tuple[str, str], ...]:
        """The `--filter`s as (name, value)."""
        return tuple(self.values.get("filter", ()))


def parse(argv: Sequence[str]) -> Parsed:
    """The words after the program's name. Raises Invalid; Unsupported for a flag of Docker's that is not there yet."""
    rows = {row[0]: row for row in GLOBAL}
    reading = _Reading("", rows, "h")
    words: Sequence[str] = reading.read(list(argv), leading=True)
    root, debug = str(reading.values.get("root", "")), bool(reading.values.get("debug"))
    if reading.values.get("version"):
        return Parsed("version", (), {}, root, debug)
    name = words[0] if words else ""
    if name == "help":
        name, words = (words[1] if len(words) > 1 else ""), ["", *words[2:], "--help"]
    elif not name or reading.values.get("help"):
        return Parsed("", (), {}, root, debug, True)
    if name in OWN_NOUNS or name in MISSING_VERBS.split():
        name, words = _two_words(name, words)
        if name in OWN_NOUNS:
            return Parsed(name, (), {}, root, debug, True)
    if name in MISSING_VERBS.split():
        raise Unsupported(f"cloche {name} is not there yet", "", _see(""))
    if name and " " not in name and name not in VERBS:
        near = _near(name, VERBS)
        raise Invalid("unknown command", f"cloche {name}", f"did you mean 'cloche {near}'?" if near else _see(""))
    if not name:
        return Parsed("", (), {}, root, debug, True)
    table = verb(name)
    reading = _Reading(name, table.rows(), "" if name in ("run", "create", "plan") else "h", table.missing)
    arguments = reading.read(list(words[1:]), table.leading)
    if reading.values.pop("help", False):
        return Parsed(name, (), {}, root, debug, True)
    _count(table, len(arguments))
    return Parsed(name, tuple(arguments), reading.values, root, debug)


def _two_words(noun: str, words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The verb that noun and next word mean, and the words with it as one; the noun where there is none to mean.

    Raises Invalid.
    """
    from cloche.cli.nouns import is_noun, two_words, words_of

    if not is_noun(noun) or len(words) < 2 or words[1] in ("--help", "-h"):
        return noun, words
    if name := two_words(noun, words[1]):
        return name, [name, *words[2:]]
    near = _near(words[1], words_of(noun))
    hint = f"did you mean 'cloche {noun} {near}'?" if near else f"one of {', '.join(words_of(noun))}"
    raise Invalid("unknown command", f"cloche {noun} {words[1]}", hint)


def flag_name(row: Row) -> str:
    """`-m, --memory`, as messages name a flag."""
    return f"-{row[1]}, --{row[0]}" if row[1] else f"--{row[0]}"


def invalid_value(name: str, row: Row, text: str, problem: Error) -> Error:
    """A complaint about a flag's value, with verb, flag and value, in Docker's words."""
    cause = f"{problem.what}: {problem.cause}" if problem.cause else problem.what
    return type(problem)(f'invalid argument "{text}" for "{flag_name(row)}" flag', cause, problem.hint or _see(name))


def _see(name: str) -> str:
    return f"see 'cloche {name} --help'" if name else "see 'cloche --help'"


def _near(name: str, known: Iterable[str]) -> str:
    """The word that a misspelt one may have been, or nothing."""
    if len(name) > 40:
        return ""
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), 1, 0.75)
    return close[0] if close else ""


def _count(table: Verb, given: int) -> None:
    if given >= table.least and (table.most < 0 or given <= table.most):
        return
    least, most = table.least, table.most
    if most == 0:
        wanted = "accepts no arguments"
    elif least == most:
        wanted = f"requires {least} argument{'s' * (least != 1)}"
    elif given < least:
        wanted = f"requires at least {least} argument{'s' * (least != 1)}"
    else:
        wanted = f"requires at most {most} argument{'s' * (most != 1)}"
    raise Invalid(f"'cloche {table.name}' {wanted}", "", f"cloche {table.name} [OPTIONS] {table.usage}".rstrip())


class _Reading:
    """One pass over words: flags go to `values`, the rest is returned."""

    def __init__(self, name: str, rows: dict[str, Row], helps: str, missing: str = "") -> None:
        self.name = name
        self.rows = rows
        self.short = {row[1]: row for row in rows.values() if row[1]}
        self.missing = missing
        self.values: dict[str, Any] = {}
        if helps and helps not in self.short:
            self.short[helps] = HELP

    def read(self, words: list[str], leading: bool) -> list[str]:
        """Read until the end, `--`, or (`leading`) the first word that is no flag."""
        rest: list[str] = []
        at = 0
        while at < len(words):
            word = words[at]
            at += 1
            if word == "--":
                return rest + words[at:]
            if word[:1] != "-" or word == "-":
                if leading:
                    return words[at - 1 :]
                rest.append(word)
            elif word[:2] == "--":
                at = self._long(word, words, at)
            else:
                at = self._cluster(word, words, at)
        return rest

    def _long(self, word: str, words: list[str], at: int) -> int:
        name, equals, value = word[2:].partition("=")
        if not name or name[0] == "-":
            raise Invalid("bad flag syntax", word, _see(self.name))
        row = self.rows.get(name) or self.rows.get(ALIASES.get(name, ""))
        if row is None:
            self._unknown(name)
        if equals:
            self._set(row, value)
        elif row[2] == "bool":
            self._set(row, "true")
        elif at < len(words):
            self._set(row, words[at])
            at += 1
        else:
            raise Invalid("flag needs an argument", f"--{name}", _see(self.name))
        return at

    def _cluster(self, word: str, words: list[str], at: int) -> int:
        """`-it`, `-eK=V`, `-e=K=V`, `-e` `K=V`."""
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            row = self.short.get(letter)
            if row is None:
                self._unknown_letter(letter, letter + letters)
            if letters[:1] == "=" and (len(letters) > 1 or row[2] != "bool"):
                self._set(row, letters[1:])
                return at
            if row[2] == "bool":
                self._set(row, "true")
            elif letters:
                self._set(row, letters)
                return at
            elif at < len(words):
                self._set(row, words[at])
                return at + 1
            else:
                raise Invalid("flag needs an argument", f"'{letter}' in {word}", _see(self.name))
        return at

    def _set(self, row: Row, text: str) -> None:
        name, _, kind, placeholder, _ = row
        try:
            if "\0" in text:
                raise Invalid("it has a NUL byte in it")
            if kind == "list":
                self.values.setdefault(name, []).append(text)
            elif kind == "filter":
                self.values.setdefault(name, []).append(_filter(text))
            elif kind == "text":
                self.values[name] = text
            elif kind == "choice":
                if text not in placeholder.split("|"):
                    raise Invalid("it is not one of", placeholder.replace("|", ", "))
                self.values[name] = text
            elif kind == "bool":
                from cloche.engine.notation import truth

                self.values[name] = text == "true" or truth(text)
            else:
                from cloche.engine.units import whole_number

                self.values[name] = whole_number(text)
        except Invalid as problem:
            raise invalid_value(self.name, row, text, problem) from None

    def _unknown(self, name: str) -> NoReturn:
        for word in self.missing.split():
            if word.partition("|")[0] == name:
                raise Unsupported(f"--{name} is not there yet", "", _see(self.name))
        near = _near(name, list(self.rows))
        raise Invalid("unknown flag", f"--{name}", f"did you mean --{near}?" if near else _see(self.name))

    def _unknown_letter(self, letter: str, cluster: str) -> NoReturn:
        for word in self.missing.split():
            name, _, short = word.partition("|")
            if short == letter:
                raise Unsupported(f"-{letter}, --{name} is not there yet", "", _see(self.name))
        raise Invalid("unknown shorthand flag", f"'{letter}' in -{cluster}", _see(self.name))


def _filter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise Invalid("bad format of filter", "expected name=value")
    return name.strip().lower(), value.strip()
