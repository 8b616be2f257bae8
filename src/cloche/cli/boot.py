"""system restore and install: after a boot, start what shall run; have that done by systemd."""

from __future__ import annotations

import os
import sys

from cloche.cli.verbs.run import note
from cloche.engine.containers import Engine
from cloche.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed

UNIT = """\
[Unit]
Description=Containers of cloche with a restart policy
Documentation=https://docs.kernel.org/admin-guide/cgroup-v2.html
After=network-online.target
Wants=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
KillMode=none
ExecStart={command} system restore
{environment}
[Install]
WantedBy=multi-user.target
"""


def restore(parsed: Parsed) -> int:
    """See `cloche system restore --help`."""
    from cloche.engine.restoring import to_restore

    engine, code = Engine(parsed.root or None), 0
    engine.notify = note
    for container in to_restore(engine):
        try:
            engine.start(container)
            print(container.name, flush=True)
        except Error as error:
            print(f"cloche: start {container.name}: {error}", file=sys.stderr)
            code = 1
    return code


def install(parsed: Parsed) -> int:
    """See `cloche system install --help`."""
    from shutil import which

    command = which("cloche") or f"{sys.executable} -m cloche"
    root = parsed.root or os.environ.get("CLOCHE_ROOT", "")
    text = UNIT.format(command=command, environment=f"Environment=CLOCHE_ROOT={root}\n" if root else "")
    path = parsed.text("path", "/etc/systemd/system/cloche.service")
    try:
        with open(path + ".new", "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(path + ".new", path)
    except OSError as error:
        hint = "is this a host with systemd? --path writes it elsewhere"
        raise Error(f"write {path}", error.errno or 5, hint) from None
    print(f"{path}\nnow: systemctl enable cloche.service")
    return 0
