"""Images out of archives: what `docker save`, `podman save`, skopeo and buildx write, and OCI image layouts.

An archive with `oci-layout` and `index.json` is read as that: its manifests are kept as they are. One with only
`manifest.json` is Docker's older form. Everything is added at once or, where anything is wrong, nothing. Names are
taken from where they are whole; a bare version (`latest`, `3.20`) that some tools write as a name is no name of an
image. Source: image-spec image-layout.md and annotations.md; Docker's image specification 1.2 ("Combined Image JSON +
Filesystem Changeset Format"); containerd's and buildkit's annotation io.containerd.image.name.
"""

from __future__ import annotations

import os

from cloche.errors import Invalid, NotFound, Unsupported
from cloche.image.files import WHAT, open_files
from cloche.oci import image as image_config
from cloche.oci import manifest as image_manifest
from cloche.oci.descriptor import FULL_NAME, REF_NAME
from cloche.oci.document import Object, parse_json, parse_object
from cloche.oci.manifest import INDEXES, MANIFESTS, Index, Manifest
from cloche.oci.platform import Platform, choose, platform_of
from cloche.oci.reference import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import BinaryIO

    from cloche.image.files import FolderFiles, TarFiles
    from cloche.image.staging import StagedLayer, Staging
    from cloche.image.store import Image, ImageStore
    from cloche.oci.descriptor import Descriptor
    from cloche.oci.image import ImageConfig

_NESTED_MAX = 4  # indexes in indexes
_IMAGES_MAX = 1000


def load(store: ImageStore, source: str | os.PathLike[str] | BinaryIO, platform: Platform | None = None) -> list[Image]:
    """Add the images of an archive: a folder, a file or a stream. Of several platforms `platform`, or this host's, is
    taken.

    Raises NotFound (no such file; no image for the platform), Invalid, Unsupported, Error (disk full).
    """
    with store.staging() as staging:
        files = open_files(source, staging)
        try:
            archive = _Archive(files, staging, platform or platform_of(os.uname().machine))
            if files.find("oci-layout") and files.find("index.json"):
                archive.load_layout()
            elif files.find("manifest.json"):
                archive.load_docker()
            elif files.find("repositories"):
                raise Unsupported(WHAT, "it was saved by a Docker older than 1.10", "save it again with a newer one")
            else:
                hint = "images are loaded from what docker save, podman save or skopeo copy wrote"
                raise Invalid(WHAT, "it has neither manifest.json nor oci-layout and index.json", hint)
        finally:
            files.close()
        return staging.commit()


def create_image(
    store: ImageStore, layer_tars: Sequence[BinaryIO], config: ImageConfig, references: Sequence[str]
) -> Image:
    """Add an image made of layers (bottom first, compressed or not) and a configuration, whose diff_ids are filled in.

    Raises Invalid, Unsupported, Error.
    """
    with store.staging() as staging:
        layers: list[StagedLayer] = []
        for source in layer_tars:
            layers.append(staging.layer(layers, staging.blob(source).digest))
        data = image_config.write(config.replace(diff_ids=tuple(layer.diff_id for layer in layers)))
        staging.image(data, None, layers, references)
        return staging.commit()[0]


class _Archive:
    """An archive being read into `staging`."""

    def __init__(self, files: FolderFiles | TarFiles, staging: Staging, platform: Platform) -> None:
        self._files, self._staging, self._platform = files, staging, platform
        self._count = 0

    def _file(self, name: str) -> str:
        """The digest of a file's content. Raises Invalid where there is none."""
        blob = self._files.find(name)
        if blob is None:
            raise Invalid(WHAT, f"the file {name[:300]} is missing", "the archive is not complete")
        return blob.digest

    def _document(self, name: str) -> bytes:
        return self._staging.read(self._file(name))

    def _add(
        self, config: bytes, manifest: bytes | None, blobs: Sequence[str], diff_ids: Sequence[str], names: Iterable[str]
    ) -> None:
        self._count += 1
        if self._count > _IMAGES_MAX:
            raise Invalid(WHAT, f"it has more than {_IMAGES_MAX} images")
        if len(blobs) != len(diff_ids):
            raise Invalid(WHAT, f"an image has {len(blobs)} layers, but its config names {len(diff_ids)}")
        layers: list[StagedLayer] = []
        for blob, diff_id in zip(blobs, diff_ids, strict=True):
            layers.append(self._staging.layer(layers, blob, diff_id))
        self._staging.image(config, manifest, layers, names)

    # Docker's

    def load_docker(self) -> None:
        """manifest.json: an array with a configuration, layers and names of each image."""
        what = f"{WHAT}: manifest.json"
        entries = parse_json(self._document("manifest.json"), what)
        if not isinstance(entries, list) or not entries:
            raise Invalid(what, "expected an array of images")
        for entry in Object(what, {"": entries}).parts(""):
            config = self._document(entry.text("Config", None))
            diff_ids = image_config.parse(config).diff_ids
            blobs = [self._file(name) for name in entry.texts("Layers")]
            self._add(config, None, blobs, diff_ids, entry.texts("RepoTags"))

    # OCI's

    def load_layout(self) -> None:
        """index.json: manifests, or indexes of manifests, with names as annotations."""
        what = f"{WHAT}: oci-layout"
        version = parse_object(self._document("oci-layout"), what).text("imageLayoutVersion", None)
        if not version.startswith("1."):
            raise Unsupported(what, f"layouts of version {version[:40]}")
        index = image_manifest.parse(self._document("index.json"))
        if not isinstance(index, Index):
            raise Invalid(f"{WHAT}: index.json", "it is a manifest, not an index")
        named: dict[tuple[str, ...], list[Descriptor]] = {}
        for descriptor in index.manifests:
            named.setdefault(_names(descriptor), []).append(descriptor)
        for names, descriptors in named.items():
            # the only one is taken, whatever it is for: who saved it wanted it
            if len(descriptors) > 1:
                descriptors = [self._choose(descriptors)] if names else self._fitting(descriptors)  # noqa: PLW2901
            for descriptor in descriptors:
                self._load_manifest(descriptor, names, _NESTED_MAX)
        if not self._count:
            raise Invalid(WHAT, "there is no image in it")

    def _fitting(self, descriptors: list[Descriptor]) -> list[Descriptor]:
        """Those that may be images for this platform: images without names differ by nothing else."""
        found = [d for d in descriptors if d.platform is None or choose([d], self._platform)]
        if not found:
            self._choose(descriptors)
        return found

    def _choose(self, descriptors: Sequence[Descriptor]) -> Descriptor:
        found = choose(descriptors, self._platform)
        if found is None:
            offered = sorted({str(d.platform) for d in descriptors if d.platform and d.platform.os != "unknown"})
            cause = f"it has no image for {self._platform}, but for {', '.join(offered)[:300] or 'none'}"
            raise NotFound(WHAT, cause)
        return found

    def _load_manifest(self, descriptor: Descriptor, names: tuple[str, ...], depth: int) -> None:
        if descriptor.media_type not in (*MANIFESTS, *INDEXES):
            raise Unsupported(WHAT, f"content of the type {descriptor.media_type[:200]}")
        data = self._staging.read(self._blob(descriptor))
        document = image_manifest.parse(data, descriptor.media_type)
        if isinstance(document, Manifest):
            config = self._staging.read(self._blob(document.config))
            blobs = [self._blob(layer) for layer in document.layers]
            self._add(config, data, blobs, image_config.parse(config).diff_ids, names)
        elif depth:
            self._load_manifest(self._choose(document.manifests), names, depth - 1)
        else:
            raise Invalid(WHAT, f"it has indexes in indexes, more than {_NESTED_MAX} deep")

    def _blob(self, descriptor: Descriptor) -> str:
        """The digest of content that is there, and is what its descriptor says."""
        name = "blobs/" + descriptor.digest.replace(":", "/")
        blob = self._files.find(name)
        if blob is None:
            raise Invalid(WHAT, f"the file {name} is missing", "the archive is not complete")
        if (blob.digest, blob.size) != (descriptor.digest, descriptor.size):
            size = f" of {blob.size} bytes, not of {descriptor.size}" if blob.size != descriptor.size else ""
            cause = f"its content is {blob.digest}{size or ', another'}"
            raise Invalid(f"{WHAT}: {name}", cause, "the archive was damaged")
        return blob.digest


def _names(descriptor: Descriptor) -> tuple[str, ...]:
    """The image's names that a descriptor in index.json gives."""
    whole = descriptor.annotation(FULL_NAME)
    if whole:
        return (whole,)
    name = descriptor.annotation(REF_NAME)
    bare = name.lstrip("v")[:1]
    if not name or name == "latest" or (bare.isdigit() and not any(c in name for c in "/:@")):
        return ()
    try:
        parse(name)
    except Invalid:  # the specification lets a ref be more than a name
        return ()
    return (name,)
