"""Log drivers: how much of a container's output is kept. Settled once, at its creation.

    json-file, local   cloche's own log, read as JSON or lines whatever it is called; the names differ in their sizes
    none               nothing is kept: what attached clients have not read yet passes through a small log, which is
                       thrown away when the container ends

`mode=non-blocking`: what the log cannot take (its disk is full, an attached client does not read) is thrown away, once
the container's pipe, of `max-buffer-size`, is full too; else the container waits, and no byte is lost.

# /etc/cloche/config.toml
[log]
driver = "local"
options = { max-size = "5m" }
"""

from __future__ import annotations

from cloche.engine.request import Logging
from cloche.errors import Conflict, Invalid, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from re import Pattern

    from cloche.engine.config import ContainerConfig
    from cloche.engine.containers import Container

SIZES = {
    "json-file": (10 << 20, 3),
    "local": (20 << 20, 5),
}  # bytes of a file, files; bounded, unlike Docker's json-file
PASSAGE = (1 << 20, 2)  # of `none`
ANY = 1 << 62
BUFFER = 1 << 20  # bytes, of a container that does not wait for its log
_SAYING = ("labels", "env", "tag", "labels-regex", "env-regex")  # what `logs --details` shows
_ELSEWHERE = "awslogs etwlogs fluentd gcplogs gelf journald logentries splunk syslog".split()


def check(wanted: Logging) -> Logging:
    """What is asked for. Raises Invalid, Unsupported."""
    driver = wanted.driver or "json-file"
    if driver in _ELSEWHERE:
        raise Unsupported(f"log driver {driver} is not there yet", "", "json-file, local or none")
    if driver not in (*SIZES, "none"):
        raise Invalid(f"logger: no log driver named '{driver}' is registered", "", "json-file, local or none")
    for key, value in wanted.options:
        what = f"log option {key}={value}"
        if driver == "none":
            raise Invalid(f"unknown log opt '{key}' for none log driver", "", "leave it out: nothing is kept")
        if (key, value) == ("compress", "true"):
            raise Unsupported(f"{what} is not there yet")
        if key == "compress" and value != "false":
            raise Invalid(what, "true or false is expected")
        if key == "mode" and value not in ("blocking", "non-blocking"):
            raise Invalid(what, "logger: logging mode can only be 'blocking' or 'non-blocking'")
        if key.endswith("-regex"):
            _expression(what, value)
        if key not in (*_SAYING, "mode", "compress", "max-size", "max-file", "max-buffer-size"):
            raise Invalid(
                f"unknown log opt '{key}' for {driver} log driver", "", "max-size, max-file, labels, env, tag"
            )
    _limits(driver, dict(wanted.options))
    buffer(wanted)
    return wanted


def _expression(what: str, text: str) -> Pattern[str]:
    import re

    try:
        return re.compile(text)
    except re.error as error:
        raise Invalid(what, f"not a regular expression ({error})") from None


def settle(wanted: Logging, environ: Mapping[str, str]) -> Logging:
    """With the configuration file's defaults, where nothing is asked for. Raises Error, Invalid, Unsupported."""
    if wanted.driver:
        return wanted
    from cloche.settings import config_path, exists, section

    if not exists(environ):
        return wanted
    table = section(environ, "log")
    driver, options = table.get("driver", ""), table.get("options", {})
    if set(table) - {"driver", "options"} or not isinstance(driver, str) or not isinstance(options, dict):
        raise Invalid(f"read {config_path(environ)}: log", "unknown key or kind", 'driver = "local", options = { ... }')
    if not all(isinstance(value, str) for value in options.values()):
        raise Invalid(f"read {config_path(environ)}: log", "options are texts", 'such as max-size = "5m"')
    return check(Logging(driver, tuple({**options, **dict(wanted.options)}.items())))


def limits(wanted: Logging) -> tuple[int, int]:
    """Bytes of a file of the log, and how many files are kept."""
    return _limits(wanted.driver or "json-file", dict(wanted.options))


def buffer(wanted: Logging) -> int:
    """Bytes that wait for a log that cannot take them before they are thrown away; 0: the container waits. Raises
    Invalid."""
    options = dict(wanted.options)
    waits, text = options.get("mode") != "non-blocking", options.get("max-buffer-size")
    if text is not None and waits:
        what = f"log option max-buffer-size={text}"
        raise Invalid(what, "logger: max-buffer-size option is only supported with 'mode=non-blocking'")
    from cloche.engine.units import size

    most = BUFFER if text is None else size(text)
    if most < 1:
        raise Invalid(f"log option max-buffer-size={text}", "it must be 1 or more", "max-buffer-size=1m")
    return 0 if waits else most


def _limits(driver: str, options: dict[str, str]) -> tuple[int, int]:
    if driver == "none":
        return PASSAGE
    from cloche.engine.units import size, whole_number

    most, files = SIZES[driver]
    try:
        if text := options.get("max-size"):
            most = ANY if text == "-1" else size(text)
        if text := options.get("max-file"):
            files = whole_number(text)
    except Invalid:
        raise Invalid(f"log options of {driver}", f"invalid value '{text}'", "max-size=10m, max-file=3") from None
    if most < 1 or not 1 <= files <= 1000:
        raise Invalid(f"log options of {driver}", "max-size and max-file must be 1 or more", "max-size=10m, max-file=3")
    return most, files


def readable(container: Container) -> None:
    """What is asked for its log. Raises Conflict."""
    if container.config.log.driver == "none":
        raise Conflict(
            f"read the log of container {container.name}",
            "configured logging driver does not support reading",
            "it was created with the log driver none",
        )


def details(config: ContainerConfig) -> str:
    """What `logs --details` puts before each line: the labels and variables that were asked for."""
    options = dict(config.log.options)
    variables = dict(text.partition("=")[::2] for text in config.env)
    found = {}
    if tag := options.get("tag"):
        found["tag"] = tag
    for key, source in (("labels", dict(config.labels)), ("env", variables)):
        for name in options.get(key, "").split(","):
            if name in source:
                found[name] = source[name]
        if text := options.get(key + "-regex"):
            wanted = _expression(f"log option {key}-regex={text}", text)
            found |= {name: value for name, value in source.items() if wanted.search(name)}
    from urllib.parse import quote

    return ",".join(f"{quote(key)}={quote(value)}" for key, value in sorted(found.items()))
