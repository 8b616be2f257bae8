"""Images as one archive: an OCI layout with Docker's manifest.json in it, as docker save writes it since version 25.

    blobs/sha256/HEX   configurations, manifests and layers, each once, as they are kept
    index.json         a manifest an image and name        manifest.json, repositories: the same for older readers

The same images and names give the same bytes. Source: image-spec image-layout.md; Docker's image specification 1.2.
"""

from __future__ import annotations

from cloche.errors import Invalid
from cloche.image.outgoing import describe
from cloche.oci.descriptor import FULL_NAME, REF_NAME
from cloche.oci.document import write_json
from cloche.oci.manifest import Index
from cloche.oci.manifest import write as write_manifest
from cloche.oci.reference import parse
from cloche.storage import tar
from cloche.storage.archive import END, header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from cloche.image.outgoing import Outgoing
    from cloche.image.staging import Staging
    from cloche.image.store import Image, ImageStore
    from cloche.oci.descriptor import Descriptor
    from cloche.oci.reference import Reference

_PIECE = 1 << 20


def chosen(
    store: ImageStore, names: Sequence[str], find: Callable[[str], Image] | None = None
) -> list[tuple[Image, tuple[Reference, ...]]]:
    """Each image once, with the names that it shall have in the archive: a repository means all its tags, an id no
    name. find: what finds an image where that is not the store. Raises NotFound, Conflict, Invalid."""
    find = find or store.resolve
    found: dict[str, tuple[Image, dict[str, Reference]]] = {}
    for name in names:
        for image, reference in _meant(store, name, find):
            _, given = found.setdefault(image.id, (image, {}))
            if reference is not None:
                given[reference.key] = reference
    return [(image, tuple(given[key] for key in sorted(given))) for image, given in found.values()]


def _meant(store: ImageStore, name: str, find: Callable[[str], Image]) -> list[tuple[Image, Reference | None]]:
    if "@" not in name and ":" not in name.rpartition("/")[2]:
        tags = tagged(store, name)
        if tags:
            return list(tags)
    image = find(name)
    if image.id.removeprefix("sha256:").startswith(name.removeprefix("sha256:")):
        return [(image, None)]
    reference = parse(name)
    return [(image, None if reference.digest else reference)]


def tagged(store: ImageStore, repository: str) -> list[tuple[Image, Reference]]:
    """All tags of a repository; none for what is no name."""
    try:
        wanted = parse(repository).name
    except Invalid:
        return []
    every = ((image, parse(key)) for image in store.images() for key in image.references if "@" not in key)
    return sorted(((i, r) for i, r in every if r.name == wanted), key=lambda pair: pair[1].tag)


def save(store: ImageStore, wanted: Sequence[tuple[Image, tuple[Reference, ...]]]) -> Iterator[bytes]:
    """The archive of images with the names that they have in it, in chunks; nothing is read before the first is asked
    for. Raises NotFound (content is lost), Error."""
    with store.staging() as staging:
        images = [(describe(store, staging, image), given) for image, given in wanted]
        yield from _archive(staging, images)


def _archive(staging: Staging, images: Sequence[tuple[Outgoing, tuple[Reference, ...]]]) -> Iterator[bytes]:
    documents: dict[str, bytes] = {}
    layers: dict[str, Descriptor] = {}
    for outgoing, _ in images:
        documents |= {outgoing.image.id: outgoing.config, outgoing.described.digest: outgoing.manifest}
        layers |= {layer.digest: layer for layer in outgoing.layers}
    yield _head("blobs/", tar.DIRECTORY)
    yield _head("blobs/sha256/", tar.DIRECTORY)
    for digest in sorted({*documents, *layers}):
        if digest in documents:
            yield from _file(_place(digest), documents[digest])
        else:
            yield from _content(staging, layers[digest])
    yield from _file("index.json", _index(images))
    yield from _file("manifest.json", _docker(images))
    yield from _file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    if repositories := _repositories(images):
        yield from _file("repositories", repositories)
    yield END


def _place(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _index(images: Sequence[tuple[Outgoing, tuple[Reference, ...]]]) -> bytes:
    found: list[Descriptor] = []
    for outgoing, names in images:
        for name in names:
            annotations = ((FULL_NAME, name.key), (REF_NAME, name.tag))
            found.append(outgoing.described.replace(annotations=annotations))
        if not names:
            found.append(outgoing.described)
    return write_manifest(Index(tuple(found)))


def _docker(images: Sequence[tuple[Outgoing, tuple[Reference, ...]]]) -> bytes:
    found: list[dict[str, Any]] = [
        {
            "Config": _place(outgoing.image.id),
            "RepoTags": [name.familiar() for name in names] or None,
            "Layers": [_place(layer.digest) for layer in outgoing.layers],
        }
        for outgoing, names in images
    ]
    return write_json(found)


def _repositories(images: Sequence[tuple[Outgoing, tuple[Reference, ...]]]) -> bytes:
    found: dict[str, dict[str, str]] = {}
    for outgoing, names in images:
        for name in names:
            found.setdefault(name.familiar_name(), {})[name.tag] = outgoing.layers[-1].digest.partition(":")[2]
    return write_json(found) if found else b""


def _head(name: str, kind: int, size: int = 0) -> bytes:
    mode = 0o755 if kind == tar.DIRECTORY else 0o644
    return header(tar.Member(name.encode(), kind, mode, 0, 0, 0, size, b"", 0, 0, size, (), None))


def _file(name: str, data: bytes) -> Iterator[bytes]:
    yield _head(name, tar.FILE, len(data)) + data + bytes(-len(data) % tar.BLOCK)


def _content(staging: Staging, layer: Descriptor) -> Iterator[bytes]:
    yield _head(_place(layer.digest), tar.FILE, layer.size)
    with staging.open(layer.digest) as file:
        while data := file.read(_PIECE):
            yield data
    yield bytes(-layer.size % tar.BLOCK)
