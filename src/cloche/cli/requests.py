"""From what was typed to what is asked of the engine: `RunRequest` and `ExecRequest`. Files are read by who calls.

Raises Invalid with the flag's name for a value that cannot be read, Unsupported for what is not there yet.
"""

from __future__ import annotations

from cloche.cli.arguments import invalid_value
from cloche.cli.flags import verb
from cloche.engine.request import (
    Connection,
    ExecRequest,
    Files,
    Health,
    Limits,
    Logging,
    Namespaces,
    Networking,
    Program,
    RunRequest,
    Security,
)
from cloche.engine.validation import check, check_exec
from cloche.errors import Invalid, Unsupported

TYPE_CHECKING = False  # importing typing would cost a start 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from cloche.cli.arguments import Parsed
    from cloche.engine.request import DeviceLimit, FileMount, HostDevice, Ulimit
    from cloche.oci.runtime import DeviceRule, IdMapping

    T = TypeVar("T")


def run_request(parsed: Parsed, cwd: str, environ: Mapping[str, str], read_file: Callable[[str], bytes]) -> RunRequest:
    """The request of `run`, `create` or `plan`. `cwd`: where relative paths begin; `read_file` may raise OSError."""
    networks = _networks(parsed, environ)
    return check(
        RunRequest(
            parsed.arguments[0],
            _program(parsed, _variables(parsed, cwd, environ, read_file)),
            limits(parsed),
            _files(parsed, cwd),
            _namespaces(parsed),
            networks[0],
            _security(parsed, cwd, read_file),
            parsed.text("name"),
            parsed.text("hostname"),
            _labels(parsed, cwd, read_file),
            _pairs(parsed, "annotation"),
            parsed.on("rm"),
            parsed.on("detach"),
            _detach_keys(parsed),
            parsed.on("sig-proxy", True),
            _below(cwd, parsed.text("cidfile")),
            networks[1],
            *restart(parsed),
            _health(parsed),
            parsed.text("domainname"),
            parsed.text("cgroup-parent"),
            Logging(parsed.text("log-driver"), _pairs(parsed, "log-opt")),
            tuple(dict.fromkeys(text.lower() for text in parsed.every("attach"))),
        )
    )


def exec_request(
    parsed: Parsed, cwd: str, environ: Mapping[str, str], read_file: Callable[[str], bytes]
) -> ExecRequest:
    """The request of `exec`."""
    return check_exec(
        ExecRequest(
            parsed.arguments[0],
            parsed.arguments[1:],
            _variables(parsed, cwd, environ, read_file),
            parsed.text("workdir"),
            parsed.text("user"),
            parsed.on("interactive"),
            parsed.on("tty"),
            parsed.on("privileged"),
            parsed.on("detach"),
            _detach_keys(parsed),
        )
    )


def _read(parsed: Parsed, flag: str, text: str, reading: Callable[[str], T]) -> T:
    """A flag's value as `reading` understands it; its complaint gets the flag's name."""
    try:
        return reading(text)
    except (Invalid, Unsupported) as problem:
        raise invalid_value(parsed.verb, verb(parsed.verb).rows()[flag], text, problem) from None


def _each(parsed: Parsed, flag: str, reading: Callable[[str], T]) -> tuple[T, ...]:
    return tuple(_read(parsed, flag, text, reading) for text in parsed.every(flag))


def _detach_keys(parsed: Parsed) -> str:
    """The text of --detach-keys, which can be read."""
    text = parsed.text("detach-keys")
    if text:
        from cloche.cli.detachkeys import parse_detach_keys

        _read(parsed, "detach-keys", text, parse_detach_keys)
    return text


def _pairs(parsed: Parsed, flag: str) -> tuple[tuple[str, str], ...]:
    """K=V flags; the last of a name wins."""
    if flag not in parsed.values:
        return ()
    from cloche.engine.notation import pair

    return tuple(dict(_each(parsed, flag, lambda text: pair(text, flag))).items())


def _below(directory: str, path: str) -> str:
    return path if not path or path[0] == "/" else f"{directory.rstrip('/')}/{path}"


def _content(path: str, cwd: str, what: str, read_file: Callable[[str], bytes]) -> bytes:
    try:
        return read_file(_below(cwd, path))
    except OSError as error:
        raise Invalid(f"{what} {path}", error.errno or str(error)) from None
    except ValueError as error:  # a NUL byte in the path
        raise Invalid(f"{what} {path}", str(error)) from None


def _variables(
    parsed: Parsed, cwd: str, environ: Mapping[str, str], read_file: Callable[[str], bytes]
) -> tuple[str, ...]:
    """The files' first, then those of -e."""
    if "env" not in parsed.values and "env-file" not in parsed.values:
        return ()
    from cloche.engine.environment import read_variables, variable

    found: list[str] = []
    for path in parsed.every("env-file"):
        content = _content(path, cwd, "read the environment file", read_file)
        found += read_variables(content, path, environ)
    return (*found, *_each(parsed, "env", lambda text: variable(text, environ)))


def _program(parsed: Parsed, env: tuple[str, ...]) -> Program:
    entrypoint = parsed.text("entrypoint")
    ulimits: tuple[Ulimit, ...] = ()
    if "ulimit" in parsed.values:
        from cloche.engine.notation import ulimit

        ulimits = tuple({limit.name: limit for limit in _each(parsed, "ulimit", ulimit)}.values())
    return Program(
        parsed.arguments[1:],
        None if "entrypoint" not in parsed.values else (entrypoint,) if entrypoint else (),
        env,
        parsed.text("workdir"),
        parsed.text("user"),
        parsed.every("group-add"),
        parsed.on("interactive"),
        parsed.on("tty"),
        parsed.on("init"),
        parsed.text("stop-signal"),
        parsed.number("stop-timeout"),
        ulimits,
        parsed.number("oom-score-adj") or 0,
    )


def _size(parsed: Parsed, flag: str) -> int:
    if flag not in parsed.values:
        return 0
    from cloche.engine.units import size

    text = parsed.text(flag)
    return -1 if text == "-1" and flag == "memory-swap" else _read(parsed, flag, text, size)


def limits(parsed: Parsed) -> Limits:
    """The limits that flags give. Raises Invalid."""
    cpus = 0
    if "cpus" in parsed.values:
        from cloche.engine import units

        cpus = _read(parsed, "cpus", parsed.text("cpus"), units.cpus)
    return Limits(
        _size(parsed, "memory"),
        _size(parsed, "memory-swap"),
        _size(parsed, "memory-reservation"),
        cpus,
        parsed.number("cpu-shares") or 0,
        parsed.text("cpuset-cpus"),
        parsed.number("pids-limit") or 0,
        parsed.number("cpu-period") or 0,
        parsed.number("cpu-quota") or 0,
        parsed.number("cpu-rt-period") or 0,
        parsed.number("cpu-rt-runtime") or 0,
        parsed.text("cpuset-mems"),
        _swappiness(parsed),
        parsed.on("oom-kill-disable"),
        parsed.number("blkio-weight") or 0,
        _rates(parsed),
    )


def _swappiness(parsed: Parsed) -> int:
    number = parsed.number("memory-swappiness")
    return -1 if number is None else number


_RATES = {
    "blkio-weight-device": "weight",
    "device-read-bps": "read_bps",
    "device-write-bps": "write_bps",
    "device-read-iops": "read_iops",
    "device-write-iops": "write_iops",
}


def _rates(parsed: Parsed) -> tuple[DeviceLimit, ...]:
    if parsed.values.keys().isdisjoint(_RATES):
        return ()
    from cloche.engine.limits import device_limit

    return tuple(
        _read(parsed, flag, text, lambda text, kind=kind: device_limit(kind, text))  # type: ignore[misc]
        for flag, kind in _RATES.items()
        for text in parsed.every(flag)
    )


def _labels(parsed: Parsed, cwd: str, read_file: Callable[[str], bytes]) -> tuple[tuple[str, str], ...]:
    """The files' first, then those of -l; a K of a file without a value is none (Docker's rule)."""
    if "label-file" not in parsed.values:
        return _pairs(parsed, "label")
    from cloche.engine.environment import read_variables

    found: dict[str, str] = {}
    for path in parsed.every("label-file"):
        for text in read_variables(_content(path, cwd, "read the label file", read_file), path, {}):
            name, equals, value = text.partition("=")
            if equals:
                found[name] = value
    return tuple({**found, **dict(_pairs(parsed, "label"))}.items())


def _files(parsed: Parsed, cwd: str) -> Files:
    mounts: tuple[FileMount, ...] = ()
    devices: tuple[HostDevice, ...] = ()
    others: tuple[str, ...] = ()
    cdi: tuple[str, ...] = ()
    if not parsed.values.keys().isdisjoint(("volume", "mount", "tmpfs", "device", "volumes-from")):
        from cloche.engine.notation import device_or_name, mount, split_devices, tmpfs, volume, volumes_from

        mounts = (
            *_each(parsed, "volume", lambda text: volume(text, cwd)),
            *_each(parsed, "mount", lambda text: mount(text, cwd)),
            *_each(parsed, "tmpfs", tmpfs),
        )
        devices, cdi = split_devices(_each(parsed, "device", device_or_name))
        others = _each(parsed, "volumes-from", volumes_from)
    rules: tuple[DeviceRule, ...] = ()
    if "device-cgroup-rule" in parsed.values:
        from cloche.engine.limits import device_rule

        rules = _each(parsed, "device-cgroup-rule", device_rule)
    shm_size = _size(parsed, "shm-size")
    return Files(mounts, devices, parsed.on("read-only"), shm_size, others, rules, cdi, parsed.text("gpus"))


def _namespaces(parsed: Parsed) -> Namespaces:
    user = parsed.text("userns")
    maps: tuple[IdMapping, ...] = ()
    if user not in ("", "host", "auto"):
        from cloche.engine.notation import id_map

        user, maps = "map", _read(parsed, "userns", user, id_map)
    return Namespaces(parsed.text("pid"), parsed.text("ipc"), parsed.text("uts"), parsed.text("cgroupns"), user, maps)


def restart(parsed: Parsed) -> tuple[str, int]:
    """The policy and its number of tries. Raises Invalid."""
    if "restart" not in parsed.values:
        return "no", 0
    from cloche.engine import notation

    return _read(parsed, "restart", parsed.text("restart"), notation.restart)


def _health(parsed: Parsed) -> Health:
    if parsed.on("no-healthcheck") or any(name[:7] == "health-" for name in parsed.values):
        from cloche.engine.units import seconds

        def duration(flag: str) -> int:
            text = parsed.text("health-" + flag)
            return int(_read(parsed, "health-" + flag, text, seconds) * 1e9) if text else 0

        text = parsed.text("health-cmd")
        return Health(
            ("NONE",) if parsed.on("no-healthcheck") else ("CMD-SHELL", text) if text else (),
            duration("interval"),
            duration("timeout"),
            duration("start-period"),
            duration("start-interval"),
            parsed.number("health-retries") or 0,
            parsed.text("health-on-failure"),
        )
    return Health()


_NETWORK_FLAGS = (
    "publish publish-all expose network-alias ip ip6 mac-address add-host dns dns-search dns-option"
).split()


def _networks(parsed: Parsed, environ: Mapping[str, str]) -> tuple[str, Networking]:
    """The mode, or the first network's name; and all else about networks."""
    default = environ.get("CLOCHE_NETWORK") or "bridge"
    names = parsed.every("network") or (default,)
    plain = len(names) == 1 and "=" not in names[0]
    if plain and parsed.values.keys().isdisjoint(_NETWORK_FLAGS):
        return names[0], Networking()
    from cloche.engine import notation, ports

    connections = _each(parsed, "network", notation.connection) or (Connection(default),)
    first = connections[0]
    own = (parsed.text("ip"), parsed.text("ip6"), parsed.every("network-alias"), parsed.text("mac-address"))
    if any(own):
        first = Connection(
            first.network, first.ip or own[0], first.ip6 or own[1], (*first.aliases, *own[2]), first.mac or own[3]
        )
    asked = len(connections) > 1 or first != Connection(first.network)
    return first.network, Networking(
        (first, *connections[1:]) if asked else (),
        sum(_each(parsed, "publish", ports.published), ()),
        parsed.on("publish-all"),
        sum(_each(parsed, "expose", ports.exposed), ()),
        parsed.every("dns"),
        parsed.every("dns-search"),
        parsed.every("dns-option"),
        _each(parsed, "add-host", notation.extra_host),
    )


def _security(parsed: Parsed, cwd: str, read_file: Callable[[str], bytes]) -> Security:
    options: dict[str, str] = {}
    sysctls: dict[str, str] = {}
    if "security-opt" in parsed.values:
        from cloche.engine.notation import security_option

        options = dict(_each(parsed, "security-opt", security_option))
    if "sysctl" in parsed.values:
        from cloche.engine.notation import sysctl

        sysctls = dict(_each(parsed, "sysctl", sysctl))
    seccomp = options.get("seccomp", "")
    if seccomp not in ("", "unconfined"):
        seccomp = _profile(seccomp, cwd, read_file)
    return Security(
        parsed.on("privileged"),
        parsed.every("cap-add"),
        parsed.every("cap-drop"),
        options.get("no-new-privileges") == "true",
        seccomp,
        tuple(sysctls.items()),
    )


def _profile(path: str, cwd: str, read_file: Callable[[str], bytes]) -> str:
    """A seccomp profile's text, which is JSON; what it says is looked at where it is compiled."""
    from json import loads

    content = _content(path, cwd, "read the seccomp profile", read_file)
    try:
        loads(content)
        return content.decode()
    except (ValueError, RecursionError):
        raise Invalid(f"read the seccomp profile {path}", "it is not JSON") from None
