"""The starter image: this machine's own shell and core tools, so that the first container needs no registry.

Made by `pack` on first use. On a host whose tools are busybox or another program with many names, its links are packed as
they are. Not its business: how a program is packed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cloche.errors import Error, NotFound
from cloche.image.pack import PATH, collect_each, create

if TYPE_CHECKING:
    from cloche.image.pack import Packing
    from cloche.image.store import Image, ImageStore

NAME = "starter:latest"

_TOOLS = """
    sh bash busybox
    [ awk basename cat chgrp chmod chown cksum clear cmp cp cut date dd df diff dirname dmesg du echo env expr false find fold
    free getent grep groups gunzip gzip head hexdump hostname id install ip join kill less link ln logname ls md5sum mkdir
    mkfifo mknod mktemp more mount mountpoint mv nice nl nohup nproc numfmt od paste pgrep pidof ping pkill printenv printf ps
    pwd readlink realpath renice reset rev rm rmdir sed seq setsid sha1sum sha256sum shuf sleep sort split ss stat stdbuf
    strings stty su sum sync tac tail tar tee test time timeout top touch tput tr true truncate tsort tty umount uname uniq
    unlink uptime vmstat watch wc which who whoami xargs xxd yes
""".split()


def starter_programs(path: str = PATH) -> list[str]:
    """Which of the usual tools this host has, the shell first. Raises NotFound where there is no shell."""
    folders = path.split(":")
    found = [t for t in _TOOLS if any(os.access(f"{folder}/{t}", os.X_OK) for folder in folders)]
    if "sh" not in found:
        raise NotFound("make the starter image", f"this host has no shell in {path}")
    return found
