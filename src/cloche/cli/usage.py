"""What `--help` prints: a screen a verb, flags in groups, two examples. Made of `flags`, so never out of date."""

from __future__ import annotations

from cloche.cli.flags import GLOBAL, OWN_NOUNS, VERBS, verb

TYPE_CHECKING = False  # importing typing would cost a start 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloche.cli.flags import Row

_COLUMN = 56  # where the explanations begin


def usage(name: str = "") -> str:
    """The help of a verb, or of the whole command line. Raises KeyError for an unknown verb."""
    if not name:
        return _overview()
    if name in OWN_NOUNS:
        return _of_noun(name)
    table = verb(name)
    lines = [f"Usage: cloche {name} [OPTIONS] {table.usage}".rstrip(), "", table.summary[0].upper() + table.summary[1:]]
    for title, rows in table.groups:
        lines += ["", f"{title}:", *_lines(rows)]
    lines += ["", "Examples:", *(f"  {example}" for example in table.examples)]
    return "\n".join(lines) + "\n"


def _of_noun(noun: str) -> str:
    from cloche.cli.nouns import NOUNS

    about, verbs = NOUNS[noun]
    lines = [f"Usage: cloche {noun} COMMAND", "", about[0].upper() + about[1:], "", "Commands:"]
    lines += [f"  {word:11} {entry[0]}" for word, entry in verbs.items()]
    return "\n".join([*lines, "", f"More: cloche {noun} COMMAND --help"]) + "\n"


_OFTEN = "run ps exec logs stop rm pull images network plan inspect".split()


def _overview() -> str:
    """A screen: what is used every day with a word on it, the rest by name."""
    lines = ["Usage: cloche [OPTIONS] COMMAND [ARG...]", "", "Containers that you can see through", "", "Every day:"]
    lines += [f"  {name:9} {VERBS[name][1]}" for name in _OFTEN]
    for title in dict.fromkeys(group for group, _ in VERBS.values()):
        lines += ["", f"{title}:", *_wrapped(name for name, (group, _) in VERBS.items() if group == title)]
    lines += ["", "Options, before the command:", *_lines(GLOBAL), "", "Examples:"]
    lines += ["  cloche run -it --rm starter sh", "  cloche plan starter true", "", "More: cloche COMMAND --help"]
    return "\n".join(lines) + "\n"


def _wrapped(words: Iterable[str]) -> list[str]:
    lines = [" "]
    for word in words:
        if len(lines[-1]) + len(word) > 78:
            lines.append(" ")
        lines[-1] += f" {word}"
    return lines


def _lines(rows: Iterable[Row]) -> list[str]:
    """A line for each row that has an explanation, with the rows before it that have none."""
    lines: list[str] = []
    names: list[str] = []
    for name, short, _, placeholder, text in rows:
        names.append((f"-{short}, " if short else "") + f"--{name}" + (f" {placeholder}" if placeholder else ""))
        if text:
            left = "  " + "; ".join(names)
            names = []
            if len(left) >= _COLUMN:
                lines.append(left)
                left = ""
            lines.append(f"{left:{_COLUMN}}{text}")
    return lines
