"""Devices by the Container Device Interface: names such as `vendor.com/gpu=0`, and what their makers say belongs to
them: device nodes, mounts, variables. Their documents lie in /etc/cdi and, of higher priority, in /var/run/cdi, or
where the user's configuration says:

    [cdi]
    directories = ["/etc/cdi", "/var/run/cdi"]

Source: the CDI specification (cncf-tags/container-device-interface, SPEC.md), versions up to 1.0.
Not its business: making any of it; hooks, of which none is run yet.
"""

from __future__ import annotations

import os
import re
from errno import ENODEV
from stat import S_ISBLK, S_ISCHR, S_ISFIFO

from cloche.engine.bundle import Edits
from cloche.errors import Invalid, NotFound, Unsupported
from cloche.oci.runtime import Device, DeviceRule, Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")  # the last has priority
GPU_MAKERS = ("nvidia.com/gpu", "amd.com/gpu", "intel.com/gpu")  # whom --gpus means, the first that has devices here
ALL = -1
_NAME = re.compile(
    r"([A-Za-z]([\w.-]*[A-Za-z0-9])?)/([A-Za-z]([\w-]*[A-Za-z0-9])?)=([A-Za-z0-9]([\w.:-]*[A-Za-z0-9])?)"
)
_SIZE_MOST = 16 << 20  # bytes of one document: a large machine's has 100 KB
_CONFLICT: dict[str, Any] = {}  # the document of a device that two of one directory have
_UNKNOWN = "hooks intelRdt netDevices".split()


def is_name(text: str) -> bool:
    """Whether this is a device's full name, VENDOR/CLASS=NAME."""
    return text.isascii() and _NAME.fullmatch(text) is not None


def directories(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Where documents are looked for, those of higher priority last. Raises Invalid, Error."""
    from cloche import settings

    if not settings.exists(environ):
        return DIRECTORIES
    table = settings.section(environ, "cdi")
    where = table.pop("directories", list(DIRECTORIES))
    if table or not isinstance(where, list) or not all(isinstance(w, str) and w[:1] == "/" for w in where):
        what = f"read [cdi] of {settings.config_path(environ)}"
        raise Invalid(what, "it is not understood", "directories = [absolute paths]")
    return tuple(where)


class Known:
    """The documents of this host. problems: those that cannot be read, which matters only where a name is not found."""

    def __init__(self, where: Iterable[str]) -> None:
        """where: directories; of two documents in different ones that have the same device, the later's counts."""
        self.where = tuple(where)
        self.problems: list[str] = []
        self.documents: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}  # name: (its document, its own edits)
        for directory in self.where:
            self._scan(directory)

    def _scan(self, directory: str) -> None:
        try:
            names = sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            return
        found: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        for name in names:
            if name.endswith((".json", ".yaml", ".yml")):
                path = f"{directory}/{name}"
                try:
                    self._take(_read(path), found)
                except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                    self.problems.append(f"{path}: {type(error).__name__}: {error}".partition("\n")[0])
        self.documents |= found

    def _take(self, document: Any, found: dict[str, tuple[dict[str, Any], dict[str, Any]]]) -> None:
        """All of a document's devices, or none where one is malformed."""
        own = [(f"{document['kind']}={device['name']}", device.get("containerEdits")) for device in document["devices"]]
        if bad := [name for name, _ in own if not is_name(name)]:
            raise ValueError(f"{bad[0]!r} is no device's name")
        for name, edits in own:
            found[name] = (_CONFLICT, {}) if name in found else (document, edits or {})

    def gpus(self, text: str) -> tuple[str, ...]:
        """The names that Docker's `--gpus` means here. Raises Invalid, NotFound."""
        count, wanted, maker = parse_gpus(text)
        kinds = [f"{maker}.com/gpu"] if maker else list(GPU_MAKERS)
        kind = next((k for k in kinds if any(name.startswith(k + "=") for name in self.documents)), "")
        if not kind:
            raise NotFound("find a GPU", ENODEV, self._hint(f"no document in {' or '.join(self.where)} names one"))
        if wanted:
            return tuple(f"{kind}={name}" for name in wanted)
        if count == ALL and f"{kind}=all" in self.documents:
            return (f"{kind}=all",)
        cards = [name.partition("=")[2] for name in sorted(self.documents) if name.startswith(kind + "=")]
        numbered = sorted((card for card in cards if card.isdecimal()), key=int)
        have = [f"{kind}={card}" for card in numbered or cards if card != "all"]
        if count > len(have):
            raise NotFound(f"find {count} GPUs", ENODEV, f"this host has {len(have)} of {kind}")
        return tuple(have if count == ALL else have[:count])

    def _hint(self, text: str) -> str:
        return "; ".join([text, *self.problems])

    def edits(self, names: Iterable[str]) -> Edits:
        """All that these devices bring; what a document says of all of its devices, once. Raises NotFound, Invalid,
        Unsupported."""
        made = Edits()
        seen: set[int] = set()
        for name in dict.fromkeys(names):
            if name not in self.documents:
                some = ", ".join(sorted(self.documents)[:8])
                hint = self._hint(f"here are {some}" if some else f"no document in {' or '.join(self.where)} has it")
                raise NotFound(f"CDI device injection failed: unresolvable CDI devices {name}", ENODEV, hint)
            document, own = self.documents[name]
            if document is _CONFLICT:
                hint = "remove one of the two documents"
                raise Invalid(f"CDI device injection failed: conflicting device {name}", "two documents have it", hint)
            parts = [own] if id(document) in seen else [document.get("containerEdits") or {}, own]
            seen.add(id(document))
            for part in parts:
                made = _with(made, part, name)
        return made


def _read(path: str) -> Any:
    with open(path, "rb") as file:
        content = file.read(_SIZE_MOST + 1)
    if len(content) > _SIZE_MOST:
        raise ValueError(f"longer than {_SIZE_MOST} bytes")
    if path.endswith(".json"):
        from json import loads

        return loads(content)
    import yaml

    try:
        return yaml.load(content, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error).replace("\n", " ")) from None


def _with(made: Edits, edits: Any, name: str) -> Edits:
    """Add a document's containerEdits."""
    what = f"CDI device injection failed: {name}"
    try:
        for key in _UNKNOWN:
            if edits.get(key):
                raise Unsupported(what, f"it asks for {key}, which are not there yet", "choose a device without them")
        nodes = [_node(node) for node in edits.get("deviceNodes") or ()]
        return Edits(
            made.devices + tuple(device for device, _ in nodes),
            made.rules + tuple(rule for _, rule in nodes if rule),
            made.mounts + tuple(_mount(mount) for mount in edits.get("mounts") or ()),
            made.env + tuple(_variable(text) for text in edits.get("env") or ()),
            made.groups + tuple(str(int(group)) for group in edits.get("additionalGids") or () if int(group)),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Invalid(what, f"its document is malformed ({type(error).__name__}: {error})") from None


def _variable(text: Any) -> str:
    name, equals, _ = text.partition("=")
    if not equals or not name or "\0" in text:
        raise ValueError(f"{text!r} is no variable")
    return str(text)


def _absolute(path: Any) -> str:
    if not isinstance(path, str) or path[:1] != "/" or "\0" in path:
        raise ValueError(f"{path!r} is no absolute path")
    return path


def _node(node: dict[str, Any]) -> tuple[Device, DeviceRule | None]:
    """A device node; what is not said of it is as the host's node has it. A FIFO has no rule. Raises NotFound."""
    path = _absolute(node["path"])
    source = _absolute(node.get("hostPath") or path)
    kind, major, minor = node.get("type") or "", node.get("major"), node.get("minor")
    uid, gid, mode = node.get("uid"), node.get("gid"), node.get("fileMode")
    if not kind or (major is None and kind != "p") or None in (uid, gid, mode):
        try:
            status = os.stat(source)
        except OSError as error:
            raise NotFound(f"use the device {source}", error.errno or 2, "a CDI document names it") from None
        there = "c" if S_ISCHR(status.st_mode) else "b" if S_ISBLK(status.st_mode) else "p"
        if not kind and there == "p" and not S_ISFIFO(status.st_mode):
            raise ValueError(f"{source} is not a device node")
        if not kind or major is None:
            kind, major, minor = kind or there, os.major(status.st_rdev), os.minor(status.st_rdev)
        uid = status.st_uid if uid is None else uid
        gid = status.st_gid if gid is None else gid
        mode = status.st_mode & 0o777 if mode is None else mode
    if kind not in ("c", "u", "b", "p"):
        raise ValueError(f"a device of type {kind!r}")
    access = node.get("permissions") or "rwm"
    if not isinstance(access, str) or set(access) - set("rwm"):
        raise ValueError(f"permissions {access!r}")
    device = Device(
        path,
        kind,
        int(major or 0),
        int(minor or 0),
        int(mode or 0) & 0o7777,
        int(uid or 0),
        int(gid or 0),
        "" if source == path else source,
    )
    rule = DeviceRule(True, "b" if kind == "b" else "c", device.major, device.minor, access)
    return device, None if kind == "p" else rule


def _mount(mount: dict[str, Any]) -> Mount:
    options = tuple(str(option) for option in mount.get("options") or ())
    kind = str(mount.get("type") or "")
    bound = kind in ("", "bind", "none") or "bind" in options or "rbind" in options
    if bound and not {"bind", "rbind"} & {*options}:
        options = ("rbind", *options)
    source = _absolute(mount["hostPath"]) if bound else str(mount["hostPath"])
    return Mount(_absolute(mount["containerPath"]), "bind" if bound else kind, source, options)


def parse_gpus(text: str) -> tuple[int, tuple[str, ...], str]:
    """Docker's `--gpus` (all, 2, device=0, '"device=0,1"', count=2, driver=nvidia) as (count or ALL, names, maker).
    Raises Invalid."""
    from csv import reader
    from io import StringIO

    count, maker = 0, ""
    names: tuple[str, ...] = ()
    what = f'invalid argument "{text}" for "--gpus"'
    hint = "all, a number, or 'device=0,1'"
    for field in next(reader(StringIO(text)), []):
        key, equals, value = field.partition("=")
        if not equals:
            key, value = "count", field
        if key == "count":
            if value != "all" and not (value.isdecimal() and 0 < int(value) < 1 << 31):
                raise Invalid(what, f"count must be an integer or all, not '{value}'", hint)
            count = ALL if value == "all" else int(value)
        elif key == "device":
            names += tuple(name for name in value.split(",") if name)
        elif key == "driver":
            maker = "" if value == "cdi" else value
        elif key != "capabilities":  # a CDI document has those of its device, and no choice
            raise Invalid(what, f"unexpected key '{key}' in '{field}'", hint)
    if count and names:
        raise Invalid(what, "cannot set both Count and DeviceIDs on device request", hint)
    if not count and not names:
        count = 1
    if not all(is_name(f"{maker or 'x'}.com/gpu={name}") for name in names or ("0",)):
        raise Invalid(what, "that is no name of a device", hint)
    return count, names, maker
