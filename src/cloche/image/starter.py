"""The starter image: this machine's own shell and core tools, so that the first container needs no registry.

Made by `pack` on first use. On a host whose tools are busybox, or another program with many names, its links are packed
as they are. Not its business: how a program is packed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cloche.errors import NotFound
from cloche.image.pack import create
from cloche.image.packing import PATH, collect
from cloche.image.tree import Tree

if TYPE_CHECKING:
    from cloche.image.packing import Packing
    from cloche.image.store import Image, ImageStore

NAME = "starter:latest"

_TOOLS = """
    sh bash busybox
    [ awk basename cat chgrp chmod chown cmp cp cut date dd df diff dirname dmesg du echo env expr false find
    free getent grep gunzip gzip head hostname id ip kill less ln ls md5sum mkdir mkfifo mknod mktemp more mount
    mountpoint mv nice nohup nproc od pgrep ping pkill printenv printf ps pwd readlink realpath rm rmdir sed seq
    setsid sha256sum sleep sort stat stty sync tac tail tar tee test time timeout top touch tr true truncate tty
    umount uname uniq unlink uptime wc which who whoami xargs yes
""".split()


def starter_programs(path: str = PATH, root: str = "/") -> list[str]:
    """Which of the usual tools this host has in `path`, the shell first. Raises NotFound where there is no shell."""
    tree = Tree(root)

    def there(name: str) -> bool:
        ways = (tree.find(f"{folder}/{name}") for folder in path.split(":"))
        return any(way is not None and os.access(tree.root + way.path, os.X_OK) for way in ways)

    found = [name for name in _TOOLS if there(name)]
    if "sh" not in found:
        raise NotFound("make the starter image", f"there is no sh in {path}")
    return found


def collect_starter(root: str = "/") -> Packing:
    """What the starter image is made of. A tool that is broken on this host is left out with a note, but no shell."""
    shell, *tools = starter_programs(root=root)
    return collect([shell], path=PATH, root=root, optional=tools)


def ensure_starter(store: ImageStore) -> Image:
    """The image `starter:latest` of the store, made now (0.2 s) if it is not there. Raises NotFound, Error."""
    try:
        return store.resolve(NAME)
    except NotFound:
        return create(store, NAME, collect_starter(), ["sh"])
