"""Descriptors: what a piece of content is, its digest and size. Source: image-spec descriptor.md."""

from __future__ import annotations

from cloche.oci.digest import check_digest
from cloche.oci.document import said
from cloche.oci.platform import Platform
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloche.oci.document import Object

REF_NAME = "org.opencontainers.image.ref.name"
FULL_NAME = "io.containerd.image.name"


class Descriptor(Value):
    """One piece of content; `size` in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: tuple[tuple[str, str], ...] = ()
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    artifact_type: str = ""

    def annotation(self, name: str) -> str:
        """The annotation of that name, or an empty string."""
        return next((v for k, v in self.annotations if k == name), "")

    def data(self) -> dict[str, Any]:
        """As a document has it."""
        p = self.platform
        names = ("architecture", "os", "os.version", "os.features", "variant")
        values = (p.architecture, p.os, p.os_version, p.os_features, p.variant) if p else ()
        return said(
            {
                "mediaType": self.media_type,
                "digest": self.digest,
                "size": self.size,
                "urls": self.urls,
                "annotations": dict(self.annotations),
                "platform": p and said(dict(zip(names, values, strict=True))),
                "artifactType": self.artifact_type,
            }
        )


def read_descriptor(part: Object) -> Descriptor:
    """A descriptor out of a document. Raises Invalid; Unsupported for digests by another algorithm than sha256."""
    platform = None
    if part.has("platform"):
        p = part.part("platform")
        platform = Platform(
            p.text("os", None),
            p.text("architecture", None),
            p.text("variant"),
            p.text("os.version"),
            p.texts("os.features"),
        )
    return Descriptor(
        part.text("mediaType", None),
        check_digest(part.text("digest", None), f"{part.what}: {part.at('digest')}"),
        part.number("size", None),
        part.pairs("annotations"),
        platform,
        part.texts("urls"),
        part.text("artifactType"),
    )
