"""What `--change` says: one instruction of a Dockerfile each, applied to an image's configuration. Pure.

    CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD STOPSIGNAL USER VOLUME WORKDIR

Words are split and quoted as in a Dockerfile, `$NAME`, `${NAME}`, `${NAME:-WORD}` and `${NAME:+WORD}` are what the
configuration's environment has. Not its business: what else a Dockerfile has, which makes files. Source: Dockerfile
reference; docker commit reference.
"""

from __future__ import annotations

import posixpath

from cloche.engine.environment import merge
from cloche.engine.units import is_number, seconds
from cloche.errors import Invalid, Unsupported
from cloche.kernel.signalnames import signal_number
from cloche.oci.document import parse_json, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from cloche.oci.image import Config

_OTHERS = "ADD ARG COPY FROM MAINTAINER RUN SHELL".split()
_UNTRIGGERED = ("ONBUILD", "FROM", "MAINTAINER")
_BLANK = " \t"
_SHELL = ("/bin/sh", "-c")
_DURATIONS = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod"}
_DURATIONS["start-interval"] = "StartInterval"


def change(config: Config, instructions: Iterable[str]) -> Config:
    """The configuration with each instruction applied, in order. Raises Invalid, Unsupported."""
    commanded = False
    for text in instructions:
        what = f"change the image: {text[:200]}"
        word, _, rest = text.strip().replace("\t", " ", 1).partition(" ")
        name, rest = word.upper(), rest.strip()
        if "\0" in text or "\n" in text or not text.isprintable():
            raise Invalid(what, "it has a character in it that no line has", "one instruction on one line")
        apply = _KINDS.get(name)
        if apply is None:
            hint = f"one of {' '.join(_KINDS)}"
            if name in _OTHERS:
                raise Unsupported(what, f"{name} is no change of a configuration", hint)
            raise Invalid(what, f"unknown instruction {name[:40]!r}", hint)
        if not rest:
            raise Invalid(what, f"{name} needs an argument")
        before = config
        config = apply(config, rest, what)
        if name == "ENTRYPOINT" and not commanded and before.cmd:
            config = config.replace(cmd=())  # the command was an argument of another program
        commanded = commanded or name == "CMD"
    return config


# Instructions


def _cmd(config: Config, rest: str, what: str) -> Config:
    return config.replace(cmd=_command(config, rest, what))


def _entrypoint(config: Config, rest: str, what: str) -> Config:
    return config.replace(entrypoint=_command(config, rest, what))


def _env(config: Config, rest: str, what: str) -> Config:
    found = [f"{key}={value}" for key, value in _pairs(config, rest, what)]
    return config.replace(env=merge(config.env, found))


def _label(config: Config, rest: str, what: str) -> Config:
    return config.replace(labels=tuple((dict(config.labels) | dict(_pairs(config, rest, what))).items()))


def _expose(config: Config, rest: str, what: str) -> Config:
    found = dict.fromkeys(config.exposed_ports)
    for word in words(rest, _environment(config), what):
        ports, _, protocol = word.partition("/")
        first, dash, last = ports.partition("-")
        last = last if dash else first
        protocol = protocol.lower() or "tcp"
        if not (is_number(first) and is_number(last) and 0 < int(first) <= int(last) < 1 << 16):
            raise Invalid(what, f"invalid containerPort: {word[:80]}", "such as 80, 53/udp, 8000-8010")
        if protocol not in ("tcp", "udp", "sctp"):
            raise Invalid(what, f"invalid protocol: {protocol[:40]}", "tcp, udp or sctp")
        found |= dict.fromkeys(f"{port}/{protocol}" for port in range(int(first), int(last) + 1))
    return config.replace(exposed_ports=tuple(sorted(found)))


def _volume(config: Config, rest: str, what: str) -> Config:
    found = _array(rest, what) if rest[0] == "[" else words(rest, _environment(config), what)
    if not all(path.strip() for path in found):
        raise Invalid(what, "a volume's path cannot be empty")
    return config.replace(volumes=tuple(dict.fromkeys((*config.volumes, *found))))


def _workdir(config: Config, rest: str, what: str) -> Config:
    path = _one(config, rest, what)
    return config.replace(working_dir=posixpath.normpath(posixpath.join("/", config.working_dir, path)))


def _user(config: Config, rest: str, what: str) -> Config:
    return config.replace(user=_one(config, rest, what))


def _stop_signal(config: Config, rest: str, what: str) -> Config:
    name = _one(config, rest, what)
    try:
        signal_number(name)
    except Invalid as error:
        raise Invalid(what, error.cause or error.what, error.hint) from None
    return config.replace(stop_signal=name)


def _onbuild(config: Config, rest: str, what: str) -> Config:
    name = rest.partition(" ")[0].upper()
    if name in _UNTRIGGERED:
        raise Invalid(what, f"{name} isn't allowed as an ONBUILD trigger")
    return config.replace(onbuild=(*config.onbuild, rest))


def _healthcheck(config: Config, rest: str, what: str) -> Config:
    from cloche.engine import healthchecks
    from cloche.engine.request import Health

    made: dict[str, Any] = {}
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        rest = rest.strip()
        name, _, value = flag[2:].partition("=")
        try:
            if name in _DURATIONS:
                made[_DURATIONS[name]] = int(seconds(value) * 1e9)
            elif name == "retries" and is_number(value):
                made["Retries"] = int(value)
            else:
                raise Invalid(what, f"invalid option {flag[:80]}", "--interval=30s --timeout=30s --retries=3 ...")
        except Invalid as error:
            raise Invalid(what, f"{flag[:80]}: {error.cause or error.what}", error.hint) from None
    kind, _, command = rest.partition(" ")
    if kind.upper() == "NONE" and not command.strip() and not made:
        test = ["NONE"]
    elif kind.upper() == "CMD" and command.strip():
        listed = _array(command.strip(), what, loose=True)
        test = ["CMD", *listed] if listed else ["CMD-SHELL", command.strip()]
    else:
        raise Invalid(what, "expected NONE, or CMD and a command")
    text = write_json({"Test": test, **made}).decode()
    healthchecks.settle(Health(), text)
    return config.replace(healthcheck=text)


_KINDS: dict[str, Callable[[Config, str, str], Config]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}


# Words


def _command(config: Config, rest: str, what: str) -> tuple[str, ...]:
    """An array of JSON is executed as it is, anything else by the shell; `[]` is none."""
    if rest.replace(" ", "") == "[]":
        return ()
    return _array(rest, what, loose=True) or (*(config.shell or _SHELL), rest)


def _array(text: str, what: str, loose: bool = False) -> tuple[str, ...]:
    """The words of an array of JSON. loose: () for what is none."""
    try:
        value = parse_json(text, what) if text[:1] == "[" else None
    except Invalid:
        value = None
    if isinstance(value, list) and all(isinstance(each, str) and "\0" not in each for each in value):
        return tuple(value)
    if loose:
        return ()
    raise Invalid(what, "expected an array of texts in double quotes", 'such as ["/data", "/log"]')


def _pairs(config: Config, rest: str, what: str) -> list[tuple[str, str]]:
    """`K=V K2="V 2"`, or `K V` of one."""
    environment = _environment(config)
    first = rest.split(None, 1)
    if "=" not in first[0]:
        if len(first) < 2:
            raise Invalid(what, f"{first[0][:80]} has no value", "KEY=VALUE")
        return [(first[0], _unquoted(first[1], environment, what))]
    found = []
    for raw in _split(rest, what):
        key, equals, value = raw.partition("=")
        key = _unquoted(key, environment, what)
        if not equals or not key:
            raise Invalid(what, f"cannot read {raw[:80]!r}", "KEY=VALUE, with quotes around what has blanks in it")
        found.append((key, _unquoted(value, environment, what)))
    return found


def _one(config: Config, rest: str, what: str) -> str:
    found = _unquoted(rest, _environment(config), what).strip()
    if not found:
        raise Invalid(what, "its argument is empty")
    return found


def _environment(config: Config) -> dict[str, str]:
    return {name: value for name, _, value in (text.partition("=") for text in config.env)}


def words(text: str, environment: Mapping[str, str], what: str) -> tuple[str, ...]:
    """The words of `text`, without quotes, variables replaced. Raises Invalid."""
    return tuple(_unquoted(raw, environment, what) for raw in _split(text, what))


def _split(text: str, what: str) -> list[str]:
    """The words as they stand, quotes and all."""
    found, word, quote, at = [], "", "", 0
    while at < len(text):
        c = text[at]
        if c == "\\" and quote != "'":
            word += text[at : at + 2]
            at += 2
            continue
        if c in _BLANK and not quote:
            found += [word] if word else []
            word = ""
        else:
            quote = "" if c == quote else c if not quote and c in "'\"" else quote
            word += c
        at += 1
    if quote:
        raise Invalid(what, f"a quote {quote} is not closed")
    return [*found, word] if word else found


def _unquoted(text: str, environment: Mapping[str, str], what: str) -> str:
    out, quote, at = "", "", 0
    while at < len(text):
        c = text[at]
        if c == "\\" and quote != "'":
            after = text[at + 1 : at + 2]
            out += after if not quote or after in ('"', "$", "\\") else c + after
            at += 2
        elif c == quote:
            quote, at = "", at + 1
        elif not quote and c in "'\"":
            quote, at = c, at + 1
        elif c == "$" and quote != "'":
            value, at = _variable(text, at + 1, environment, what)
            out += value
        else:
            out, at = out + c, at + 1
    if quote:
        raise Invalid(what, f"a quote {quote} is not closed")
    return out


def _variable(text: str, at: int, environment: Mapping[str, str], what: str) -> tuple[str, int]:
    """The value of the variable whose name begins at `at`, and where it ends."""
    if text[at : at + 1] != "{":
        end = at
        while end < len(text) and text[end].isascii() and (text[end].isalnum() or text[end] == "_"):
            end += 1
        return (environment.get(text[at:end], "") if end > at else "$"), end
    end = text.find("}", at)
    if end < 0:
        raise Invalid(what, "a ${ is not closed")
    name, colon, rest = text[at + 1 : end].partition(":")
    if not name.replace("_", "a").isalnum() or (colon and rest[:1] not in ("-", "+")):
        raise Invalid(what, f"cannot read {text[at - 1 : end + 1][:80]}", "${NAME}, ${NAME:-WORD} or ${NAME:+WORD}")
    value = environment.get(name, "")
    if rest[:1] == "-":
        value = value or rest[1:]
    elif rest[:1] == "+":
        value = rest[1:] if value else ""
    return value, end + 1
