"""commit: what a container changed becomes a layer on its image, and its configuration the new image's.

frozen: upper directory -> tar, aside          thawed: tar -> layer, aside -> image, there at once (image/staging)

A container is frozen only while its files are read. Who reads may be killed: a watcher, which stands outside of the
caller's process group, thaws the container when the pipe to it breaks. Mounts, and the places that the engine made
for its own, are no part of the layer.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress

from cloche.engine import healthchecks
from cloche.engine.database import RUNNING
from cloche.engine.environment import merge
from cloche.engine.events import record
from cloche.engine.inside import Root
from cloche.engine.instructions import change
from cloche.errors import Error, NotFound
from cloche.oci import image as image_config
from cloche.oci.document import write_json
from cloche.oci.image import Config, History
from cloche.oci.reference import parse
from cloche.storage.difference import difference
from cloche.storage.lower import Lower
from cloche.storage.overlay import layer_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloche.engine.containers import Container, Engine
    from cloche.image.staging import StagedLayer, Staging
    from cloche.image.store import Image
    from cloche.oci.image import ImageConfig

_WATCHER = """
import os, sqlite3, sys
group, database, ident = sys.argv[1:]
os.write(1, b"1")
if os.read(0, 1):
    sys.exit()
for name, content in (("freezer.state", b"THAWED"), ("cgroup.freeze", b"0")):
    try:
        fd = os.open(group + "/" + name, os.O_WRONLY)
        os.write(fd, content)
        break
    except OSError:
        continue
db = sqlite3.connect(database, timeout=60, isolation_level=None)
db.execute("UPDATE containers SET paused=0 WHERE id=?", (ident,))
"""


def commit(
    engine: Engine,
    container: Container,
    name: str = "",
    author: str = "",
    message: str = "",
    changes: Sequence[str] = (),
    pause: bool = True,
) -> Image:
    """Make an image of a container, named `name` unless that is empty. changes: instructions, see `instructions`.

    Raises NotFound (its image was removed), Conflict, Invalid, Unsupported (files that no layer can have), Error.
    """
    what = f"commit container {container.name}"
    reference = parse(name) if name else None
    if reference is not None and reference.digest:
        from cloche.errors import Invalid

        raise Invalid(f"{what} as {name}", "a name that has a digest cannot be given", "leave out what comes after @")
    try:
        parent = engine.images.resolve(container.image_id)
    except NotFound:
        hint = f"cloche export {container.name} | cloche import - makes one image of all files"
        raise NotFound(what, "its image was removed", hint) from None
    config = change(_configuration(container, parent.config.config), changes)
    with engine.changing_images().staging() as staging:
        layers = _parents(staging, parent)
        above = _layer(engine, container, staging, layers, pause, what)
        layers += [above] if above else []
        data = image_config.write(_document(container, parent.config, config, layers, author, message, above is None))
        staging.image(data, None, layers, [reference.key] if reference else ())
        made = staging.commit()[0]
    named = {"imageRef": reference.key} if reference else {}
    record(engine.db, container.id, "commit", comment=message, imageID=made.id, **named)
    return made


def _parents(staging: Staging, parent: Image) -> list[StagedLayer]:
    layers: list[StagedLayer] = []
    blobs = staging.blobs_of(parent.id)
    for diff_id, blob in zip(parent.config.diff_ids, blobs, strict=True):
        layers.append(staging.layer(layers, blob, diff_id))
    return layers


def _layer(
    engine: Engine, container: Container, staging: Staging, below: list[StagedLayer], pause: bool, what: str
) -> StagedLayer | None:
    """What the container changed; None where that is nothing."""
    root = engine.store.root
    lower = [layer_folder(root, number) for number in reversed(container.config.layers)]
    owner = Root(-1, mapping=container.config.mapping).inside
    try:
        with ExitStack() as stack:
            upper = os.open(engine.store.container(container.id) + "/upper", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, upper)
            merged = stack.enter_context(Lower(lower))
            if pause:
                stack.enter_context(_standing_still(engine, container))
            chunks = difference(upper, merged, owner)
            first = next(chunks, b"")
            blob = staging.keep(_joined(first, chunks)) if first else None
    except OSError as error:
        raise Error(f"{what}: read its files", error.errno or 5) from error
    return staging.layer(below, blob.digest) if blob else None


def _joined(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


@contextmanager
def _standing_still(engine: Engine, container: Container) -> Iterator[None]:
    """Frozen meanwhile, if it runs and somebody else has not frozen it. Raises Unsupported, Error."""
    import subprocess
    import sys

    from cloche.engine import pausing

    container = engine.find(container.id)
    if container.status != RUNNING or container.paused:
        yield
        return
    place = pausing.group(engine, container.id, container.config)
    argv = [sys.executable, "-I", "-S", "-c", _WATCHER, place, engine.store.root + "/db", container.id]
    with subprocess.Popen(
        argv,
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
        cwd="/",
        start_new_session=True,
    ) as watcher:
        assert watcher.stdin is not None
        assert watcher.stdout is not None
        if watcher.stdout.read(1) != b"1":
            raise Error(f"commit container {container.name}", "nobody can watch over its pause", "--pause=false")
        try:
            pausing.pause(engine, container)
            try:
                yield
            finally:
                pausing.thaw(engine, container, f"commit container {container.name}: unpause it")
        finally:
            with suppress(BrokenPipeError):  # it was killed, and is not needed any more
                watcher.stdin.write(b"0")


def _configuration(container: Container, image: Config) -> Config:
    """What the container was configured to, as an image says it: without what every container gets anyhow."""
    made, wanted = container.config, container.config.request.process
    volumes = [m.target for m in made.mounts if m.anonymous and m.origin != "container"]
    document = healthchecks.document(made.health)
    return Config(
        wanted.user or image.user,
        merge(image.env, wanted.env),
        made.entrypoint,
        wanted.command or (image.cmd if wanted.entrypoint is None else ()),
        wanted.working_directory or image.working_dir,
        tuple(dict.fromkeys((*image.volumes, *volumes))),
        tuple(f"{port}/{protocol}" for port, protocol in made.exposed),
        made.labels,
        wanted.stop_signal or image.stop_signal,
        wanted.stop_timeout if wanted.stop_timeout is not None else image.stop_timeout,
        write_json(document).decode() if document else image.healthcheck,
        image.shell,
    )


def _document(
    container: Container,
    parent: ImageConfig,
    config: Config,
    layers: Sequence[StagedLayer],
    author: str,
    message: str,
    empty: bool,
) -> ImageConfig:
    from time import time_ns

    from cloche.runtime.timestamp import format_time_short

    created = format_time_short(time_ns())
    told = sum(not entry.empty_layer for entry in parent.history)
    untold = (History(),) * max(len(parent.diff_ids) - told, 0)  # of layers of which the parent says nothing
    entry = History(created, " ".join(container.config.args), author, message, empty)
    return parent.replace(
        config=config,
        diff_ids=tuple(layer.diff_id for layer in layers),
        history=(*untold, *parent.history, entry),
        created=created,
        author=author,
    )
