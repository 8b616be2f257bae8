"""Images that leave the store and files that come to it: save, push, import, with the events that they are."""

from __future__ import annotations

import os

from cloche.engine.events import record_image
from cloche.engine.instructions import change
from cloche.errors import Error, Invalid, NotFound, Unsupported
from cloche.oci.image import Config, History, ImageConfig
from cloche.oci.platform import Platform, platform_of
from cloche.oci.reference import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import BinaryIO

    from cloche.engine.containers import Engine
    from cloche.image.pull import Progress
    from cloche.image.push import Pushed
    from cloche.image.store import Image


def save(engine: Engine, names: Sequence[str], platform: Platform | None = None) -> Iterator[bytes]:
    """Images as an archive, in chunks. Raises NotFound, Conflict, Invalid, Error."""
    from cloche.image.save import chosen
    from cloche.image.save import save as archive

    images = chosen(engine.images, names, engine.image)
    for image, given in images:
        check_platform(image, platform, f"save {given[0].familiar() if given else image.id}")
    yield from archive(engine.images, images)
    for image, given in images:
        record_image(engine.db, image.id, "save", given[0].key if given else image.id)


def check_platform(image: Image, wanted: Platform | None, what: str) -> None:
    """Raises NotFound for an image that is made for another machine; None: any."""
    from cloche.oci.descriptor import Descriptor
    from cloche.oci.platform import choose

    c = image.config
    own = Platform(c.os, c.architecture, c.variant, c.os_version, c.os_features)
    if wanted is not None and choose([Descriptor("", "", 0, platform=own)], wanted) is None:
        raise NotFound(what, f"the image is made for {own}, not for {wanted}", "cloche pull --platform fetches another")


def push(
    engine: Engine,
    name: str,
    tell: Callable[[Progress], None] = lambda _: None,
    environ: Mapping[str, str] | None = None,
) -> Pushed:
    """Give an image to the registry that its name says. `tell` is called by several threads. Raises NotFound, Invalid,
    Error."""
    from cloche.image.push import push as upload

    done = upload(engine.images, name, tell, environ)
    record_image(engine.db, done.image.id, "push", done.reference)
    return done


def import_files(
    engine: Engine,
    source: str | os.PathLike[str] | BinaryIO,
    name: str = "",
    message: str = "",
    changes: Sequence[str] = (),
    platform: Platform | None = None,
) -> Image:
    """An image of the files in a tar archive, plain or compressed: a path or a stream. Raises NotFound, Invalid,
    Unsupported, Error."""
    if not isinstance(source, (str, os.PathLike)):
        return _import(engine, source, "-", name, message, changes, platform)
    path = os.fspath(source)
    what = f"import {path}"
    if path.startswith(("http://", "https://")):
        raise Unsupported(what, "addresses are not fetched", f"curl -fL {path} | cloche import -")
    try:
        with open(path, "rb", buffering=0) as file:
            return _import(engine, file, path, name, message, changes, platform)
    except FileNotFoundError:
        raise NotFound(what, "there is no such file") from None
    except OSError as error:
        raise Error(what, error.errno or 5) from error


def _import(
    engine: Engine,
    source: BinaryIO,
    origin: str,
    name: str,
    message: str,
    changes: Sequence[str],
    platform: Platform | None,
) -> Image:
    from time import time_ns

    from cloche.image.load import create_image
    from cloche.runtime.timestamp import format_time_short

    reference = parse(name) if name else None
    if reference is not None and reference.digest:
        raise Invalid(f"import as {name}", "a name that has a digest cannot be given", "leave out what comes after @")
    wanted = platform or platform_of(os.uname().machine)
    created = format_time_short(time_ns())
    document = ImageConfig(
        wanted.architecture,
        wanted.os,
        change(Config(), changes),
        created=created,
        variant=wanted.variant,
        history=(History(created, comment=message or f"Imported from {origin}"),),
    )
    store = engine.changing_images()
    image = create_image(store, [source], document, [reference.key] if reference else [])
    record_image(engine.db, image.id, "import", reference.key if reference else image.id)
    return image
