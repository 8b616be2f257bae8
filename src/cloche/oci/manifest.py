"""Manifests and indexes, in OCI's and in Docker's spelling.

A document is what its media type says, and never two things: one that could be read as a manifest and as an index is
refused, or two engines would run two different images under one digest (CVE-2021-41190).
Source: image-spec manifest.md and image-index.md; distribution-spec; Docker's image manifest version 2, schema 2.
"""

from __future__ import annotations

from cloche.errors import Invalid, Unsupported
from cloche.oci.descriptor import Descriptor, read_descriptor
from cloche.oci.document import parse_object, said, write_json
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.oci.document import Object

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
MANIFESTS, INDEXES, CONFIGS = (MANIFEST, DOCKER_MANIFEST), (INDEX, DOCKER_INDEX), (CONFIG, DOCKER_CONFIG)
LAYERS_MAX = 4096  # far above what any file system can stack: an overlay takes 500


class Manifest(Value):
    """One image for one platform: its configuration and its layers, bottom first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = MANIFEST
    annotations: tuple[tuple[str, str], ...] = ()
    artifact_type: str = ""
    subject: Descriptor | None = None


class Index(Value):
    """Several manifests, usually one a platform."""

    manifests: tuple[Descriptor, ...]
    media_type: str = INDEX
    annotations: tuple[tuple[str, str], ...] = ()
    artifact_type: str = ""
    subject: Descriptor | None = None


def parse(data: bytes, media_type: str = "") -> Manifest | Index:
    """Read a manifest or an index. `media_type`: what its descriptor or its server said it is.

    Raises Invalid; Unsupported for manifests of Docker's first schema and for media types that cloche does not know.
    """
    document = parse_object(data, "read an image manifest")
    own = document.text("mediaType")
    if own and media_type and own != media_type:
        raise document.wrong("mediaType", f"it says {own}, but was announced as {media_type}")
    first_schema = (own or media_type).startswith("application/vnd.docker.distribution.manifest.v1+")
    if first_schema or document.has("fsLayers"):
        raise Unsupported(document.what, "it is of Docker's schema 1, given up in 2019", "push the image anew")
    kind = own or media_type or _kind_of(document)
    if document.number("schemaVersion", None) != 2:
        raise document.wrong("schemaVersion", "expected 2")
    if kind in MANIFESTS:
        return _manifest(document, kind)
    if kind in INDEXES:
        return _index(document, kind)
    raise Unsupported(document.what, f"media type {kind[:200]}")


def _kind_of(document: Object) -> str:
    if document.has("manifests"):
        return INDEX
    if document.has("config") or document.has("layers"):
        return MANIFEST
    raise Invalid(document.what, "it is neither a manifest nor an index")


def _refuse(document: Object, kind: str, *keys: str) -> None:
    for key in keys:
        if document.has(key):
            raise document.wrong(key, f"it would make this manifest and index at once; its type is {kind}")


def _manifest(document: Object, kind: str) -> Manifest:
    _refuse(document, kind, "manifests")
    for key in ("config", "layers"):
        if not document.has(key):
            raise document.wrong(key, "it is missing")
    layers = tuple(read_descriptor(part) for part in document.parts("layers"))
    if len(layers) > LAYERS_MAX:
        raise document.wrong("layers", f"there are {len(layers)} of them, more than {LAYERS_MAX}")
    return Manifest(read_descriptor(document.part("config")), layers, kind, *_common(document))


def _index(document: Object, kind: str) -> Index:
    _refuse(document, kind, "config", "layers")
    if not document.has("manifests"):
        raise document.wrong("manifests", "it is missing")
    return Index(tuple(read_descriptor(part) for part in document.parts("manifests")), kind, *_common(document))


def _common(document: Object) -> tuple[tuple[tuple[str, str], ...], str, Descriptor | None]:
    subject = read_descriptor(document.part("subject")) if document.has("subject") else None
    return document.pairs("annotations"), document.text("artifactType"), subject


def write(document: Manifest | Index) -> bytes:
    """The document as JSON."""
    head = said({"schemaVersion": 2, "mediaType": document.media_type, "artifactType": document.artifact_type})
    if isinstance(document, Manifest):
        head |= {"config": document.config.data(), "layers": [d.data() for d in document.layers]}
    else:
        head["manifests"] = [d.data() for d in document.manifests]
    subject = document.subject and document.subject.data()
    return write_json(head | said({"subject": subject, "annotations": dict(document.annotations)}))
