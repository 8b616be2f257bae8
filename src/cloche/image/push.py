"""push: an image is given to the registry that its name says. Layers first, several at a time, then the configuration,
the manifest last: until then the tag means there what it meant before.
"""

from __future__ import annotations

import os

from cloche.errors import Error, Invalid, NotFound
from cloche.image import credentials as known
from cloche.image import uploads
from cloche.image.outgoing import describe
from cloche.image.pull import AT_ONCE, Progress
from cloche.image.registries import endpoints
from cloche.image.registry import Denied, Registry
from cloche.oci.reference import parse
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloche.image.outgoing import Outgoing
    from cloche.image.staging import Staging
    from cloche.image.store import Image, ImageStore
    from cloche.oci.descriptor import Descriptor
    from cloche.oci.reference import Reference


class Pushed(Value):
    """What came of a push. digest and size: of the manifest that the name now means there."""

    image: Image
    reference: str
    digest: str
    size: int


def push(
    store: ImageStore,
    name: str,
    tell: Callable[[Progress], None] = lambda _: None,
    environ: Mapping[str, str] | None = None,
) -> Pushed:
    """Give an image to its registry, by the name that it has here. `tell` is called by several threads.

    Raises NotFound (no such image, a lost layer), Invalid, Error.
    """
    environ = os.environ if environ is None else environ
    reference = parse(name)
    if reference.digest:
        raise Invalid(f"push {name}", "cannot push a digest reference", "push a name with a tag")
    try:
        image = store.resolve(reference.key)
    except NotFound:
        what = f"An image does not exist locally with the tag: {reference.familiar_name()}"
        raise NotFound(what, "", f"name one so: cloche tag IMAGE {reference.familiar()}") from None
    who = known.find(known.path(environ), reference.domain)
    registry = Registry(endpoints(reference.domain, environ)[-1], reference.path, who, actions="pull,push")
    beside = _beside(image, reference)
    registry.beside = beside
    try:
        with store.staging() as staging:
            outgoing = describe(store, staging, image, compress=True)
            _layers(registry, staging, outgoing, beside, tell)
            _content(registry, outgoing)
            described = outgoing.described
            uploads.send_manifest(registry, reference.tag, outgoing.manifest, described.media_type, described.digest)
    except Denied as error:
        cause = f"push access denied for {reference.familiar_name()} ({error.cause})"
        raise Error(f"push {reference.familiar()}", cause, error.hint) from None
    finally:
        registry.close()
    store.note_digest(image.id, reference.replace(tag="", digest=described.digest))
    return Pushed(image, reference.key, described.digest, described.size)


def _beside(image: Image, reference: Reference) -> str:
    """Another repository of the same registry that had the image."""
    for key in image.references:
        other = parse(key)
        if other.digest and other.domain == reference.domain and other.path != reference.path:
            return other.path
    return ""


def _content(registry: Registry, outgoing: Outgoing) -> None:
    from io import BytesIO

    descriptor = outgoing.configured
    if not uploads.has_blob(registry, descriptor.digest):
        uploads.send_blob(registry, descriptor, lambda: BytesIO(outgoing.config), "", lambda _: None)


def _layers(
    registry: Registry, staging: Staging, outgoing: Outgoing, beside: str, tell: Callable[[Progress], None]
) -> None:
    """Raises the first error; what is still on its way is given up."""
    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

    layers = list({layer.digest: layer for layer in outgoing.layers}.values())
    for layer in layers:
        tell(Progress(layer.digest, "preparing", 0, layer.size))
    pool = ThreadPoolExecutor(AT_ONCE, "push")
    try:
        going = [pool.submit(_layer, registry, staging, layer, beside, tell) for layer in layers]
        done, _ = wait(going, return_when=FIRST_EXCEPTION)
        for each in done:
            each.result()
    except BaseException:
        registry.give_up()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _layer(
    registry: Registry, staging: Staging, layer: Descriptor, beside: str, tell: Callable[[Progress], None]
) -> None:
    def say(state: str, now: int = 0) -> None:
        tell(Progress(layer.digest, state, now, layer.size))

    if uploads.has_blob(registry, layer.digest):
        say("exists", layer.size)
        return
    mounted = uploads.send_blob(
        registry, layer, lambda: staging.open(layer.digest), beside, lambda now: say("uploading", now)
    )
    say("mounted" if mounted else "pushed", layer.size)
