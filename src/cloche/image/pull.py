"""pull: from a name to an image that is here. Documents first, then layers, several at a time; each is unpacked while
it arrives, as soon as those below it are there. All of it is there at once, or nothing.
"""

from __future__ import annotations

import os

from cloche.errors import Error, Invalid, NotFound, Unsupported
from cloche.image import credentials as known
from cloche.image.registries import endpoints
from cloche.image.registry import Denied, Registry
from cloche.oci import image as image_config
from cloche.oci import manifest as image_manifest
from cloche.oci.digest import digest_of
from cloche.oci.document import SIZE_MAX
from cloche.oci.manifest import CONFIGS, INDEXES, MANIFESTS, Manifest
from cloche.oci.platform import Platform, choose, platform_of
from cloche.oci.reference import parse
from cloche.storage.ahead import Arriving
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Future

    from cloche.image.staging import StagedLayer, Staging
    from cloche.image.store import Image, ImageStore
    from cloche.oci.descriptor import Descriptor
    from cloche.oci.reference import Reference

AT_ONCE = 4  # layers on their way
_NESTED_MAX = 4


class Progress(Value):
    """What happens to a layer. state: waiting, downloading, downloaded, unpacking, done, there; bytes so far and all
    told."""

    digest: str
    state: str
    now: int = 0
    total: int = 0


class Stop:
    """Ends a pull at once, from another thread: what waits for a registry waits no more, and the pull fails."""

    def __init__(self) -> None:
        self.asked = False
        self._registry: Registry | None = None

    def ask(self) -> None:
        """Harmless before it has begun, and when it is over."""
        self.asked = True
        if self._registry:
            self._registry.give_up()

    def reaches(self, registry: Registry) -> None:
        """This one is spoken to from now on."""
        self._registry = registry
        if self.asked:  # meanwhile
            registry.give_up()


class Pulled(Value):
    """What came of a pull. digest: of the document that the name meant; changed: whether the name means another image
    than before."""

    image: Image
    reference: str
    digest: str
    changed: bool


def pull(
    store: ImageStore,
    name: str,
    platform: Platform | None = None,
    tell: Callable[[Progress], None] = lambda _: None,
    environ: Mapping[str, str] | None = None,
    stop: Stop | None = None,
) -> Pulled:
    """Fetch an image; of several platforms `platform`, or this host's. `tell` is called by several threads.
    `stop` ends it sooner, by an Error.

    Raises NotFound, Invalid (what came is not what was announced), Unsupported, Error.
    """
    environ = os.environ if environ is None else environ
    reference = parse(name)
    try:
        before = store.resolve(reference.key).id
    except NotFound:
        before = ""
    problems: list[Error] = []
    who = known.find(known.path(environ), reference.domain)
    places = endpoints(reference.domain, environ)
    for number, endpoint in enumerate(places):
        own = number == len(places) - 1
        registry = Registry(endpoint, reference.path, who if own else known.Credentials())
        try:
            if stop:
                stop.reaches(registry)
            return _pull(store, registry, reference, platform, tell, before)
        except (Denied, NotFound, Error) as error:
            if own or isinstance(error, Invalid) or (stop and stop.asked):
                raise _said(error, reference) from None
            problems.append(error)  # of a mirror: the next one, and the registry itself at last
        finally:
            registry.close()
    raise AssertionError


def tags(name: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """All names with a tag that the registry has of a repository. Raises NotFound, Invalid, Error."""
    from cloche.image.tags import listed

    environ = os.environ if environ is None else environ
    reference = parse(name)
    who = known.find(known.path(environ), reference.domain)
    registry = Registry(endpoints(reference.domain, environ)[-1], reference.path, who)
    try:
        found = listed(registry)
    except (Denied, NotFound) as error:
        raise _said(error, reference) from None
    finally:
        registry.close()
    return [f"{reference.name}:{tag}" for tag in found]


def _said(error: Error, reference: Reference) -> Error:
    """In the words that Docker's users know."""
    short = reference.familiar()
    if isinstance(error, Denied):
        cause = f"pull access denied for {reference.familiar_name()}, repository does not exist or may require a login"
        return Error(f"pull {short}", f"{cause} ({error.cause})", error.hint)
    if isinstance(error, NotFound) and error.what.startswith("pull ") and "platform" not in str(error.cause):
        return NotFound(f"pull {short}", f"manifest for {short} not found: {error.cause}", error.hint)
    return error


def _pull(
    store: ImageStore,
    registry: Registry,
    reference: Reference,
    platform: Platform | None,
    tell: Callable[[Progress], None],
    before: str,
) -> Pulled:
    data, kind = registry.manifest(reference.digest or reference.tag)
    top = digest_of(data)
    manifest, data = _chosen(registry, data, kind, platform or platform_of(os.uname().machine), _NESTED_MAX)
    if manifest.config.media_type not in CONFIGS:
        what = f"pull {reference.familiar()}"
        raise Unsupported(what, f"it is no image of files, but {manifest.config.media_type[:100]!r}")
    names = {f"{reference.name}@{top}", reference.key}
    with store.staging() as staging:
        config = _whole(registry, manifest.config)
        diff_ids = image_config.parse(config).diff_ids
        if len(diff_ids) != len(manifest.layers):
            cause = f"its manifest has {len(manifest.layers)} layers, its config {len(diff_ids)}"
            raise Invalid(f"pull {reference.familiar()}", cause)
        layers = _layers(registry, staging, manifest.layers, diff_ids, tell)
        staging.image(config, data, layers, sorted(names))
        image = staging.commit()[0]
    return Pulled(image, reference.key, top, image.id != before)


def _chosen(registry: Registry, data: bytes, kind: str, platform: Platform, depth: int) -> tuple[Manifest, bytes]:
    """The manifest for a platform, through indexes. Raises NotFound, Invalid, Unsupported."""
    document = image_manifest.parse(data, kind)
    if isinstance(document, Manifest):
        return document, data
    if not depth:
        raise Invalid("pull an image", f"there are indexes in indexes, more than {_NESTED_MAX} deep")
    found = choose(document.manifests, platform)
    if found is None:
        offered = sorted({str(d.platform) for d in document.manifests if d.platform and d.platform.os != "unknown"})
        cause = f"no matching manifest for the platform {platform}; there are {', '.join(offered)[:300] or 'none'}"
        raise NotFound(f"pull {registry.repository}", cause, "--platform OS/ARCHITECTURE takes another")
    if found.media_type not in (*MANIFESTS, *INDEXES):
        raise Unsupported(f"pull {registry.repository}", f"content of the type {found.media_type[:100]!r}")
    if found.size > SIZE_MAX:
        raise Invalid(f"pull {registry.repository}", f"a manifest of {found.size} bytes")
    inner, _ = registry.manifest(found.digest)
    if len(inner) != found.size:
        raise Invalid(f"pull {found.digest[:19]}", f"it is {len(inner)} bytes, not {found.size}")
    return _chosen(registry, inner, found.media_type, platform, depth - 1)


def _whole(registry: Registry, descriptor: Descriptor) -> bytes:
    """A small piece of content, checked."""
    what = f"pull {descriptor.digest[:19]}"
    if descriptor.size > SIZE_MAX:
        raise Invalid(what, f"a document of {descriptor.size} bytes")
    data = b""
    for piece in registry.blob(descriptor):
        data += piece
        if len(data) > descriptor.size:
            break
    if len(data) != descriptor.size or digest_of(data) != descriptor.digest:
        raise Invalid(what, f"it has the digest {digest_of(data)}", "it was damaged on its way")
    return data


def _layers(
    registry: Registry,
    staging: Staging,
    descriptors: tuple[Descriptor, ...],
    diff_ids: tuple[str, ...],
    tell: Callable[[Progress], None],
) -> list[StagedLayer]:
    """All layers, bottom first. Raises the first error; what is still on its way is given up."""
    from concurrent.futures import ThreadPoolExecutor

    there = [staging.is_there(diff_ids[: n + 1], each.digest) for n, each in enumerate(descriptors)]
    for descriptor, known_layer in zip(descriptors, there, strict=True):
        tell(Progress(descriptor.digest, "there" if known_layer else "waiting", 0, descriptor.size))
    pool = ThreadPoolExecutor(AT_ONCE, "pull")
    try:
        coming: dict[str, tuple[Future[None], Arriving]] = {}
        for descriptor, known_layer in zip(descriptors, there, strict=True):
            if not known_layer and descriptor.digest not in coming:
                arriving = Arriving()
                coming[descriptor.digest] = pool.submit(_fetch, registry, staging, descriptor, arriving, tell), arriving
        layers: list[StagedLayer] = []
        for descriptor, diff_id, known_layer in zip(descriptors, diff_ids, there, strict=True):
            if known_layer:
                layers.append(staging.layer(layers, descriptor.digest, diff_id))
                continue
            fetched, arriving = coming[descriptor.digest]
            if fetched.done():
                tell(Progress(descriptor.digest, "unpacking", descriptor.size, descriptor.size))
            try:
                first = not arriving.is_read  # an image may have a layer twice
                layers.append(staging.layer(layers, descriptor.digest, diff_id, arriving if first else None))
            except Error:
                fetched.result()  # what is wrong with the content says more than what cannot be unpacked of it
                raise
            fetched.result()
            tell(Progress(descriptor.digest, "done", descriptor.size, descriptor.size))
        return layers
    finally:
        registry.give_up()
        pool.shutdown(wait=True, cancel_futures=True)


def _fetch(
    registry: Registry,
    staging: Staging,
    descriptor: Descriptor,
    arriving: Arriving,
    tell: Callable[[Progress], None],
) -> None:
    """One layer's content, checked while it streams."""

    def counted() -> Iterator[bytes]:
        now = 0
        for data in registry.blob(descriptor):
            now += len(data)
            tell(Progress(descriptor.digest, "downloading", now, descriptor.size))
            yield data

    whole = False
    try:
        staging.keep(counted(), descriptor.digest, descriptor.size, arriving)
        whole = True
    finally:
        arriving.end(failed=not whole)
    state = "unpacking" if arriving.is_read else "downloaded"
    tell(Progress(descriptor.digest, state, descriptor.size, descriptor.size))
