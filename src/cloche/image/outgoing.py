"""What an image consists of where it leaves the store: its documents and the content of its layers, by digest.

An image that came from a registry leaves with its manifest, byte for byte, so its digest is the same everywhere. One
that was made here, or loaded, has plain layers, as often as not; where they are to be compressed, its manifest is
written anew. Digests of plain layers, and so the image's id, stay as they are in any case.
"""

from __future__ import annotations

import zlib

from cloche.errors import NotFound
from cloche.oci import manifest as image_manifest
from cloche.oci.descriptor import Descriptor
from cloche.oci.digest import digest_of
from cloche.oci.manifest import CONFIG, LAYER, MANIFEST, Manifest
from cloche.oci.platform import Platform
from cloche.oci.reference import parse
from cloche.storage.compression import compression_of
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from cloche.image.staging import Staging
    from cloche.image.store import Image, ImageStore

_PIECE = 1 << 20
_LEVEL = 6


class Outgoing(Value):
    """Documents byte for byte; layers, bottom first, whose content the staging has that they were described with."""

    image: Image
    config: bytes
    manifest: bytes
    described: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def configured(self) -> Descriptor:
        """Of the configuration."""
        return Descriptor(CONFIG, self.image.id, len(self.config))


def describe(store: ImageStore, staging: Staging, image: Image, compress: bool = False) -> Outgoing:
    """The image as it leaves. compress: layers that are plain are compressed, unless it came so from a registry.

    Raises NotFound (content of a layer is lost), Error.
    """
    documents = store.documents(image.id)
    manifest, data = image_manifest.parse(documents.manifest), documents.manifest
    assert isinstance(manifest, Manifest)
    came = digest_of(data) in {parse(name).digest for name in image.references if "@" in name}
    layers = manifest.layers
    for layer in layers:
        _check(staging, layer, image)
    if compress and not came:
        layers = tuple(_compressed(staging, layer) for layer in layers)
    if layers != manifest.layers:
        config = Descriptor(CONFIG, image.id, len(documents.config))
        manifest = Manifest(config, layers, MANIFEST, manifest.annotations)
        data = image_manifest.write(manifest)
    c = image.config
    platform = Platform(c.os, c.architecture, c.variant, c.os_version, c.os_features)
    described = Descriptor(manifest.media_type, digest_of(data), len(data), platform=platform)
    return Outgoing(image, documents.config, data, described, layers)


def _check(staging: Staging, layer: Descriptor, image: Image) -> None:
    try:
        staging.open(layer.digest).close()
    except NotFound:
        name = parse(image.references[0]).familiar() if image.references else image.id
        cause = f"the content {layer.digest[:19]} of a layer is not in the store"
        raise NotFound(f"read the image {name}", cause, "pull or load it again") from None


def _compressed(staging: Staging, layer: Descriptor) -> Descriptor:
    with staging.open(layer.digest) as file:
        kind = compression_of(file.read(6))
        if kind:
            return layer
        file.seek(0)
        blob = staging.keep(_gzip(file))
    return Descriptor(f"{LAYER}+gzip", blob.digest, blob.size)


def _gzip(source: BinaryIO) -> Iterator[bytes]:
    """The same content gives the same bytes, with the same zlib: no name, no time."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    while data := source.read(_PIECE):
        if packed := packer.compress(data):
            yield packed
    yield packer.flush()
