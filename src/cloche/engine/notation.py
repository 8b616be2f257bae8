"""Docker's notations for parts of a request: volumes, mounts, tmpfs, devices, ulimits, id maps, security options.

Each function reads one text and raises Invalid for a malformed one, Unsupported for what is not there yet. Whether the
values make sense is `validation`'s business. Source: docker/cli opts, moby volume/mounts.
"""

from __future__ import annotations

import os

from cloche.engine.request import PROPAGATIONS, Connection, FileMount, HostDevice, Ulimit
from cloche.errors import Invalid, Unsupported

TYPE_CHECKING = False  # importing typing would cost a start 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloche.oci.platform import Platform
    from cloche.oci.runtime import IdMapping

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


def truth(text: str) -> bool:
    """`true`, `1`, `f` and the like. Raises Invalid."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise Invalid("invalid boolean value", f"'{text}'", "true or false")


def pair(text: str, kind: str = "label") -> tuple[str, str]:
    """`K=V` or `K`. Raises Invalid for an empty name or one with blanks."""
    key, _, value = text.partition("=")
    key = key.lstrip(" \t")
    if not key:
        raise Invalid(f"invalid {kind} '{text}'", "empty name")
    if " " in key or "\t" in key:
        raise Invalid(f"{kind} '{key}' contains whitespaces")
    return key, value


def sysctl(text: str) -> tuple[str, str]:
    """`net.ipv4.ip_forward=1`. Raises Invalid."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise Invalid(f"sysctl '{text}' is not allowed", "", "name=value")
    return key, value


def ulimit(text: str) -> Ulimit:
    """`nofile=1024:2048`, `core=0`, `memlock=-1`. Raises Invalid."""
    from cloche.engine.units import whole_number

    name, equals, values = text.partition("=")
    limits = values.split(":")
    if not equals or not values:
        raise Invalid("invalid ulimit argument", text or "''", "such as nofile=1024:2048")
    if len(limits) > 2:
        raise Invalid(f"too many limit value arguments - {values}", "can only have up to two, `soft[:hard]`")
    numbers = [-1 if limit == "infinity" else whole_number(limit) for limit in limits]
    return Ulimit(name, numbers[0], numbers[-1])


def absolute(path: str, directory: str) -> str:
    """A path that is `.`, `..` or begins with `./` or `../`, from `directory` on; others as they are."""
    parts = path.split("/")
    if parts[0] not in (".", ".."):
        return path
    from posixpath import join, normpath

    return normpath(join(directory, path))


def volume(text: str, directory: str) -> FileMount:
    """`SOURCE:TARGET[:OPTION,...]` of -v, the source from `directory` on when it begins with a dot.

    A source that is no path is a volume's name; `TARGET` alone is a new volume.
    """
    parts = text.split(":")
    if "" in parts or len(parts) > 3:
        cause = "empty section between colons" if "" in parts else "too many colons"
        raise Invalid(f"invalid spec: {text}", cause, "SOURCE:TARGET[:OPTION,...]")
    if len(parts) == 1:
        return FileMount("volume", text)
    source = absolute(parts[0], directory)
    kind = "bind" if source[0] == "/" else "volume"
    found = _volume_options(text, kind, parts[2].split(",") if len(parts) == 3 else [])
    propagation = next((o for o in found if o in PROPAGATIONS), "")
    copy, idmap = "nocopy" not in found, "idmap" in found
    return FileMount(kind, parts[1], source, "ro" in found, propagation, idmap=idmap, copy=copy)


_OPTIONS = (  # of -v; one of a row, for (this kind of mount)
    ("bind volume", ("ro", "rw")),
    ("bind", PROPAGATIONS),
    ("volume", ("copy", "nocopy")),
    ("bind", ("idmap",)),
    ("bind volume", ("consistent", "cached", "delegated", "default")),  # they ask for less than Linux gives
)


def _volume_options(text: str, kind: str, options: list[str]) -> list[str]:
    """The options, which fit this kind of mount and one another."""
    seen: set[tuple[str, ...]] = set()
    for option in options:
        if option in ("z", "Z"):
            raise Unsupported(f"mount option {option} (an SELinux label) is not there yet")
        kinds, row = next((each for each in _OPTIONS if option in each[1]), ("", ()))
        if not kinds:
            raise Invalid(f"invalid spec: {text}", f"invalid mode: {option}", "ro, rw or a propagation such as rshared")
        if kind not in kinds:
            what = "this is a directory of the host" if kind == "bind" else "this is a volume"
            raise Invalid(f"invalid spec: {text}", f"{option} is for a {kinds}, and {what}")
        if row in seen:
            raise Invalid(f"invalid spec: {text}", f"invalid mode: {','.join(options)}", "one option of a kind")
        seen.add(row)
    return options


def volumes_from(text: str) -> str:
    """`CONTAINER[:ro|rw]` of --volumes-from. Raises Invalid."""
    name, colon, mode = text.partition(":")
    if not name or (colon and mode not in ("ro", "rw")):
        what = f"invalid mode: {mode}" if name else "no container is named"
        raise Invalid(f"invalid volumes-from '{text}'", what, "CONTAINER or CONTAINER:ro")
    return text


def csv_fields(text: str) -> list[str]:
    """One record of comma-separated values, RFC 4180: quotes around a field, doubled inside. Raises Invalid."""
    fields: list[str] = []
    if any(c in text for c in "\r\n"):
        raise Invalid(f"invalid mount '{text}'", "more than one line")
    position = 0
    while True:
        if text[position : position + 1] == '"':
            field, position = _quoted(text, position + 1)
        else:
            end = text.find(",", position)
            end = len(text) if end < 0 else end
            field, position = text[position:end], end
            if '"' in field:
                raise Invalid(f"invalid mount '{text}'", 'bare " in non-quoted field')
        fields.append(field)
        if position >= len(text):
            return fields
        if text[position] != ",":
            raise Invalid(f"invalid mount '{text}'", 'extraneous or missing " in quoted field')
        position += 1


def _quoted(text: str, start: int) -> tuple[str, int]:
    """The field whose opening quote is before `start`, and where its closing quote ends."""
    end = start
    while True:
        end = text.find('"', end)
        if end < 0:
            raise Invalid(f"invalid mount '{text}'", 'extraneous or missing " in quoted field')
        if text[end + 1 : end + 2] != '"':
            return text[start:end].replace('""', '"'), end + 1
        end += 2


_KEYS = {
    "type": "kind",
    "source": "source",
    "src": "source",
    "target": "target",
    "dst": "target",
    "destination": "target",
    "readonly": "read_only",
    "ro": "read_only",
    "bind-propagation": "propagation",
    "bind-recursive": "recursion",
    "tmpfs-size": "size",
    "tmpfs-mode": "mode",
    "idmap": "idmap",
    "volume-nocopy": "copy",
    "volume-subpath": "subpath",
    "volume-label": "labels",
}
_FLAGS = ("read_only", "idmap", "copy")


def mount(text: str, directory: str) -> FileMount:
    """`type=bind,source=/a,target=/b,readonly` of --mount; a source that begins with a dot is from `directory` on."""
    fields: dict[str, object] = {}
    for field in csv_fields(text):
        key, equals, value = field.partition("=")
        name = _KEYS.get(key.lower(), "")
        if key == "volume-driver" and value == "local":
            continue
        if key in ("volume-driver", "volume-opt", "bind-nonrecursive", "bind-create-src", "image-subpath"):
            raise Unsupported(f"mount option {key}{'=' * bool(equals)}{value} is not there yet")
        if key == "consistency":
            continue  # it asks for less than Linux gives
        if not equals and name not in _FLAGS:
            raise Invalid(f"invalid field '{field}' must be a key=value pair")
        if not name:
            raise Invalid(f"unexpected key '{key}' in '{field}'")
        if name == "labels":
            fields[name] = (*fields.get(name, ()), pair(value))  # type: ignore[misc]
            continue
        if name in fields:
            raise Invalid(f"invalid mount '{text}'", f"{key} is given twice")
        fields[name] = _field(name, key, value if equals else "true", directory)
    kind = fields.setdefault("kind", "volume")
    if not fields.get("target"):
        raise Invalid("target is required")
    if kind in ("npipe", "cluster", "image"):
        raise Unsupported(f"a mount of type {kind} is not there yet", "", "type=bind, volume or tmpfs")
    return FileMount(**fields)  # type: ignore[arg-type] # _field() gives each its type


def _field(name: str, key: str, value: str, directory: str) -> object:
    from cloche.engine.units import size

    if name in ("kind", "propagation"):
        return value.lower()
    if name == "source":
        return absolute(value, directory)
    try:
        if name in _FLAGS:
            return truth(value) != (name == "copy")
        if name == "size":
            return size(value)
        if name == "mode":
            return octal(value)
    except Invalid:
        raise Invalid(f"invalid value for {key}", value or "''") from None
    return value


def restart(text: str) -> tuple[str, int]:
    """`no`, `always`, `unless-stopped`, `on-failure[:N]` of --restart: the policy and its number of tries."""
    from cloche.engine.units import whole_number

    policy, colon, tries = text.partition(":")
    return policy or "no", whole_number(tries) if colon else 0


def platform(text: str) -> Platform:
    """`linux/arm64/v8`, `linux/amd64` or `arm64`. Raises Invalid."""
    from cloche.oci.platform import Platform, platform_of

    parts = text.split("/")
    if not all(part and part.isascii() and part.replace("_", "").replace(".", "").isalnum() for part in parts):
        raise Invalid(f"invalid platform {text!r}", "", "OS/ARCHITECTURE[/VARIANT], such as linux/arm64")
    if len(parts) > 3:
        raise Invalid(f"invalid platform {text!r}", "too many parts", "OS/ARCHITECTURE[/VARIANT]")
    if len(parts) == 1:
        return platform_of(parts[0]) if parts[0] != "linux" else platform_of(os.uname().machine)
    made = platform_of(parts[1])
    return Platform(parts[0], made.architecture, parts[2] if len(parts) == 3 else made.variant)


def connection(text: str) -> Connection:
    """`NAME` or `name=NAME,alias=A,ip=IP,ip6=IP,mac-address=MAC` of --network. Raises Invalid."""
    if "=" not in text:
        return Connection(text)
    fields: dict[str, str] = {}
    aliases: list[str] = []
    for field in csv_fields(text):
        key, equals, value = field.partition("=")
        if not equals and not fields and not aliases:
            key, value = "name", field  # NAME,alias=...
        if key == "alias":
            aliases.append(value)
        elif key in ("name", "ip", "ip6", "mac-address") and key not in fields:
            fields[key] = value
        elif key in ("driver-opt", "gw-priority", "link-local-ip"):
            raise Unsupported(f"network option {key} is not there yet")
        else:
            raise Invalid(f"invalid field {key} in '{text}'", "", "name, alias, ip, ip6, mac-address, each once")
    if not fields.get("name"):
        raise Invalid(f"network name not set in '{text}'")
    ip, ip6, mac = (fields.get(key, "") for key in ("ip", "ip6", "mac-address"))
    return Connection(fields["name"], ip, ip6, tuple(aliases), mac)


def extra_host(text: str) -> tuple[str, str]:
    """`NAME:ADDRESS` or `NAME=ADDRESS` of --add-host; brackets around the address are taken off. Raises Invalid."""
    name, sign, address = text.partition("=") if "=" in text else text.partition(":")
    if not sign or not name or not address:
        raise Invalid(f"bad format for add-host: '{text}'", "", "NAME:ADDRESS or NAME:host-gateway")
    return name, address[1:-1] if address[0] == "[" and address[-1] == "]" else address


def octal(text: str) -> int:
    """`1777` as a file mode. Raises Invalid."""
    if not text or len(text) > 8 or set(text) - set("01234567"):
        raise Invalid("invalid mode", f"'{text}'", "octal digits, such as 1777")
    return int(text, 8)


def tmpfs(text: str) -> FileMount:
    """`/x:size=64m,mode=1777` of --tmpfs; the options are those of mount(8)."""
    target, colon, options = text.partition(":")
    return FileMount("tmpfs", target, options=tuple(o for o in options.split(",") if o) if colon else ())


def device_or_name(text: str) -> HostDevice | str:
    """A --device: one by its path, or the name of a CDI device (VENDOR/CLASS=NAME)."""
    return text if text[:1] != "/" and "=" in text else device(text)


def split_devices(found: Iterable[HostDevice | str]) -> tuple[tuple[HostDevice, ...], tuple[str, ...]]:
    """Those by path, and the names."""
    every = tuple(found)
    return tuple(d for d in every if not isinstance(d, str)), tuple(d for d in every if isinstance(d, str))


def device(text: str) -> HostDevice:
    """`/dev/x[:/dev/y][:rwm]` of --device."""
    parts = text.split(":")
    if not parts[0] or len(parts) > 3:
        raise Invalid(f"bad format for path: {text}", "", "/dev/x[:/dev/y[:rwm]]")
    if parts[0][0] != "/":
        raise Invalid(f"{parts[0]} is not an absolute path", "", "or VENDOR/CLASS=NAME, a CDI device")
    if len(parts) == 2 and parts[1] and not set(parts[1]) - set("rwm"):
        return HostDevice(parts[0], parts[0], parts[1])
    if len(parts) == 3 and (not parts[2] or set(parts[2]) - set("rwm")):
        raise Invalid(f"bad mode specified: {parts[2]}", "", "made of r, w and m")
    target = parts[1] if len(parts) > 1 else parts[0]
    if target[:1] != "/":
        raise Invalid(f"{target or 'an empty target'} is not an absolute path", "", "/dev/x[:/dev/y[:rwm]]")
    return HostDevice(parts[0], target, parts[2] if len(parts) == 3 else "rwm")


def id_map(text: str) -> tuple[IdMapping, ...]:
    """`CONTAINER:HOST:SIZE[,...]`: ranges of ids, for users and groups alike."""
    from cloche.engine.units import is_number
    from cloche.oci.runtime import IdMapping

    maps = []
    for part in text.split(","):
        numbers = part.split(":")
        if len(numbers) != 3 or not all(is_number(n) and len(n) < 11 for n in numbers):
            raise Invalid("invalid USER mode", f"'{text}'", "host, auto, or CONTAINER:HOST:SIZE[,...]")
        maps.append(IdMapping(*map(int, numbers)))
    return tuple(maps)


def security_option(text: str) -> tuple[str, str]:
    """`no-new-privileges`, `seccomp=unconfined` or `seccomp=FILE` as (name, value); `:` may stand for `=`."""
    name, separator, value = text.partition("=")
    if not separator and name.partition(":")[1]:
        name, separator, value = text.partition(":")
    if name == "no-new-privileges":
        return name, "true" if truth(value or "true") else "false"
    if not separator:
        raise Invalid(f'Invalid --security-opt: "{text}"', "", "seccomp=FILE, seccomp=unconfined or no-new-privileges")
    if name in ("apparmor", "label", "systempaths", "writable-cgroups", "proc-opts", "mask", "unmask"):
        raise Unsupported(f"--security-opt {name} is not there yet")
    if name != "seccomp":
        raise Invalid(f'invalid --security-opt: "{text}"', "", "seccomp=FILE, seccomp=unconfined or no-new-privileges")
    if not value:
        raise Invalid(f'Invalid --security-opt: "{text}"', "no profile is named", "seccomp=FILE or seccomp=unconfined")
    if value == "builtin":
        return name, ""
    return name, value
