"""Images of a host's own programs and just what they need: `cloche pack`.

`collect()` (see `packing`) decides what belongs in, `write_layer()` (see `entries`) makes a layer of it, `pack()` an
image. Not its business: storing images, compressing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cloche.errors import Invalid
from cloche.image import elf
from cloche.image.entries import epoch, write_layer
from cloche.image.packing import PATH, Packing, collect
from cloche.image.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloche.image.store import Image, ImageStore
    from cloche.oci.image import ImageConfig

__all__ = ["PATH", "Packing", "collect", "configure", "create", "pack", "write_layer"]

_MACHINES = {  # as uname(2) calls them
    (elf.EM_X86_64, 64): "x86_64",
    (elf.EM_386, 32): "i686",
    (elf.EM_AARCH64, 64): "aarch64",
    (elf.EM_ARM, 32): "armv7l",
    (elf.EM_PPC64, 64): "ppc64le",
    (elf.EM_S390, 64): "s390x",
    (elf.EM_RISCV, 64): "riscv64",
    (elf.EM_LOONGARCH, 64): "loongarch64",
}


def pack(store: ImageStore, name: str, programs: Sequence[str], add: Sequence[str] = ()) -> Image:
    """An image named `name` of `programs`, which runs the first of them. Raises what `collect` and `create` do."""
    return create(store, name, collect(programs, add))


def create(store: ImageStore, name: str, packing: Packing, command: Sequence[str] = (), root: str = "/") -> Image:
    """Store `packing` as the image `name`. The same content and SOURCE_DATE_EPOCH make the same image.

    command: what it runs (default: the first program). root: the one that was collected from. Raises Error, Invalid.
    """
    from tempfile import TemporaryFile

    from cloche.image.load import create_image

    with TemporaryFile() as layer:
        write_layer(packing.entries, layer, Tree(root))
        layer.seek(0)
        return create_image(store, [layer], configure(packing, command, root), [name])


def configure(packing: Packing, command: Sequence[str] = (), root: str = "/") -> ImageConfig:
    """What runs by default, where programs are looked for inside, and labels that say what it was made of.

    Raises Invalid for a program whose name is not UTF-8: the document cannot hold it.
    """
    from cloche.oci.image import Config, History, ImageConfig
    from cloche.oci.platform import platform_of

    for path in packing.programs:
        if not _is_text(path):
            raise Invalid(f"pack {path}", "its name is not UTF-8, as an image's configuration must be")
    facts = packing.facts
    machine = _MACHINES.get((facts.machine, facts.bits)) if facts is not None else None
    platform = platform_of(machine or os.uname().machine)
    folders = [f for f in map(os.path.dirname, packing.programs) if ":" not in f]
    created, programs = _timestamp(epoch()), " ".join(packing.programs)
    return ImageConfig(
        architecture=platform.architecture,
        variant=platform.variant,
        os=platform.os,
        created=created,
        config=Config(
            env=(f"PATH={':'.join(dict.fromkeys([*PATH.split(':'), *folders]))}",),
            cmd=tuple(command) or packing.programs[:1],
            labels=(("cloche.pack.programs", _short(packing.programs)), ("cloche.pack.host", _host_name(Tree(root)))),
        ),
        history=(History(created, f"cloche pack {programs}"),),
    )


def _short(programs: tuple[str, ...]) -> str:
    """For a label, which every event of a container bears; the history has all of them."""
    most = 6
    more = f" and {len(programs) - most} more" if len(programs) > most else ""
    return " ".join(programs[:most]) + more


def _is_text(path: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in path)


def _timestamp(seconds: int) -> str:
    """RFC 3339, in UTC."""
    from time import gmtime, strftime

    return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(seconds))


def _host_name(tree: Tree) -> str:
    """What the host's system calls itself (os-release(5)): PRETTY_NAME, or ""."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        if tree.find(path) is not None:
            for line in tree.read(path, 65536).decode(errors="replace").splitlines():
                key, _, value = line.partition("=")
                if key == "PRETTY_NAME":
                    return value.strip().strip("\"'")
    return ""
