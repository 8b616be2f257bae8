"""Which mounts a container has: those asked for, those of other containers (--volumes-from), the image's volumes.

Settled once, at its creation, where also its volumes are made and filled; a start only mounts them.
"""

from __future__ import annotations

from posixpath import normpath

from cloche.engine.request import FileMount
from cloche.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cloche.engine.config import ContainerConfig
    from cloche.engine.containers import Engine
    from cloche.engine.request import RunRequest
    from cloche.image.store import Image

_MOST = 1000  # volumes of one image


def merge(
    asked: Iterable[FileMount], others: Iterable[FileMount], image: Iterable[str], new_name: Callable[[], str]
) -> tuple[FileMount, ...]:
    """All mounts, one a target: what is asked for wins over other containers', these over the image's. Raises
    Invalid."""
    found: dict[str, FileMount] = {_clean(mount.target): mount for mount in others}
    found |= {_clean(mount.target): mount for mount in asked}
    for number, path in enumerate(image):
        target = _clean(path)
        if target == "/" or "\0" in path or number >= _MOST:
            cause = f"more than {_MOST}" if number >= _MOST else "invalid specification"
            raise Invalid(f"make the volume {path} of the image", cause, "mend the image")
        found.setdefault(target, FileMount("volume", target, origin="image"))
    return tuple(
        mount.replace(source=new_name(), anonymous=True) if mount.kind == "volume" and not mount.source else mount
        for mount in found.values()
    )


def _clean(path: str) -> str:
    return normpath("/" + path.lstrip("/"))


def borrowed(engine: Engine, request: RunRequest) -> list[FileMount]:
    """The binds and volumes of other containers. Raises NotFound, Conflict."""
    found: list[FileMount] = []
    for text in request.files.volumes_from:
        name, _, mode = text.partition(":")
        for mount in engine.find(name).config.mounts:
            if mount.kind != "tmpfs":
                read_only = mount.read_only or mode == "ro"
                found.append(mount.replace(read_only=read_only, copy=False, origin="container"))
    return found


def settle(engine: Engine, ident: str, config: ContainerConfig, image: Image) -> ContainerConfig:
    """The configuration with all mounts; volumes that were not there are made and filled.

    Raises NotFound, Conflict, Invalid, Error, OSError.
    """
    files = config.request.files
    if not (files.volumes_from or image.config.config.volumes or any(m.kind == "volume" for m in files.mounts)):
        return config
    from cloche.engine.filling import fill
    from cloche.engine.volumes import Volumes, new_name

    mounts = merged(engine, config, image, new_name)
    if any(m.kind == "volume" for m in mounts):
        Volumes(engine.store, engine.db).claim(ident, mounts)
        fill(engine.store, ident, config.layers, mounts)
    return config.replace(settled=mounts)


def merged(engine: Engine, config: ContainerConfig, image: Image, new_name: Callable[[], str]) -> tuple[FileMount, ...]:
    """All mounts. Raises NotFound, Conflict, Invalid."""
    files = config.request.files
    return merge(files.mounts, borrowed(engine, config.request), image.config.config.volumes, new_name)


def complete(engine: Engine, config: ContainerConfig) -> None:
    """Before a start: what a killed process has begun to put into a volume is all there. Raises Error, OSError."""
    for mount in config.settled:
        if mount.kind == "volume":
            from cloche.engine.filling import finish

            finish(engine.store, mount.source)
