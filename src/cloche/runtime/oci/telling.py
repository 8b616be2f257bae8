"""state, list, features, spec, version: what can be told without changing anything."""

from __future__ import annotations

import os

from cloche.document import dumps
from cloche.errors import Conflict, Error, NotFound
from cloche.runtime.oci.state import SPEC_VERSION, Directory, names
from cloche.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloche.runtime.oci.call import Call


def version() -> str:
    """In the form that go-runc, containerd and podman read."""
    return f"cloche-oci version {VERSION}\ncommit: {VERSION}\nspec: {SPEC_VERSION}"


def state(call: Call) -> str:
    """One container's. Raises NotFound."""
    return pretty(Directory(call.root, call.id).state())


def list_all(call: Call) -> str:
    """All of this root's. Raises OSError."""
    found = []
    for name in names(call.root):
        try:
            found.append(Directory(call.root, name).state())
        except NotFound:
            continue  # deleted meanwhile, or not yet made
    if call.given.flag("quiet"):
        return "\n".join(each["id"] for each in found)
    form = call.given.text("format", "table")
    if form == "json":
        return dumps(found)
    if form != "table":
        raise Error(f"--format {form}", "invalid format option", "table or json")
    rows = [["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]]
    rows += [[str(each[k]) for k in ("id", "pid", "status", "bundle", "created", "owner")] for each in found]
    widths = [max(len(row[at]) for row in rows) for at in range(6)]
    return "\n".join("   ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)) for row in rows)


def pretty(value: Any, margin: str = "") -> str:
    """JSON for people and programs."""
    if isinstance(value, dict) and value:
        inner = ",\n".join(f"{margin}  {dumps(k)}: {pretty(v, margin + '  ')}" for k, v in value.items())
        return f"{{\n{inner}\n{margin}}}"
    if isinstance(value, list) and value:
        inner = ",\n".join(f"{margin}  {pretty(v, margin + '  ')}" for v in value)
        return f"[\n{inner}\n{margin}]"
    return dumps(value)


def write_spec(call: Call) -> None:
    """A config.json to begin with. Raises Conflict, Error."""
    from cloche.runtime.oci.template import template

    folder = call.given.text("bundle", ".")
    path = os.path.join(folder, "config.json")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise Conflict(f"write {path}", "File config.json exists", "remove it first") from None
    except OSError as error:
        raise Error(f"write {path}", error.errno or 5) from error
    with open(fd, "w") as file:
        file.write(pretty(template(call.given.flag("rootless"))) + "\n")
