"""Archives made by hand: tar members as a stranger would write them, image archives of every layout."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterable
from typing import Any

from cloche.oci.digest import digest_of

OWNER = (os.getuid(), os.getgid())


def member(
    name: str,
    data: bytes = b"",
    kind: bytes = tarfile.REGTYPE,
    mode: int = 0o644,
    link: str = "",
    owner: tuple[int, int] = OWNER,
    mtime: float = 1_700_000_000,
    device: tuple[int, int] = (0, 0),
    pax: dict[str, str] | None = None,
) -> tuple[tarfile.TarInfo, bytes]:
    """One member; it belongs to the user who runs the tests, who may then unpack it without being root."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mode, info.linkname, info.mtime = len(data), kind, mode, link, mtime
    info.uid, info.gid = owner
    info.devmajor, info.devminor = device
    info.pax_headers = pax or {}
    return info, data


def folder(name: str, mode: int = 0o755, **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, kind=tarfile.DIRTYPE, mode=mode, **more)


def symlink(name: str, link: str, **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, kind=tarfile.SYMTYPE, mode=0o777, link=link, **more)


def hardlink(name: str, link: str, **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, kind=tarfile.LNKTYPE, link=link, **more)


def tar_of(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def packed(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> bytes:
    """A tar, compressed where `mode` says so; each member is as long as what comes with it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    """A member, for `packed`, with nothing said that is not among `fields`."""
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def files_tar(files: dict[str, bytes]) -> bytes:
    return tar_of(*(member(name, data) for name, data in files.items()))


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


def config_of(layers: Iterable[bytes], **more: Any) -> bytes:
    """The configuration of an image that has these plain layers."""
    return dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-05-06T07:08:09.5Z",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
            **more,
        }
    )


def docker_files(layers: list[bytes], tags: list[str] | None, **more: Any) -> dict[str, bytes]:
    """What `docker save` wrote before version 25."""
    config = config_of(layers, **more)
    name = digest_of(config)[7:] + ".json"
    paths = [f"{digest_of(layer)[7:23]}{n}/layer.tar" for n, layer in enumerate(layers)]
    entry = {"Config": name, "RepoTags": tags, "Layers": paths}
    return {
        **dict(zip(paths, layers, strict=True)),
        name: config,
        "manifest.json": dumps([entry]),
        "repositories": b"{}",
    }


def descriptor(media_type: str, data: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}


def blob_name(data: bytes) -> str:
    return "blobs/" + digest_of(data).replace(":", "/")


class Layout:
    """An OCI image layout in the making."""

    TYPE = "application/vnd.oci.image."

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"oci-layout": dumps({"imageLayoutVersion": "1.0.0"})}
        self.manifests: list[dict[str, Any]] = []

    def keep(self, data: bytes) -> bytes:
        self.files[blob_name(data)] = data
        return data

    def image(self, layers: list[bytes], packed: list[bytes] | None = None, **config: Any) -> bytes:
        """The manifest of an image; `packed` are the layers as they are kept, gzip where it is not given."""
        packed = packed or [gzip.compress(layer, 1, mtime=0) for layer in layers]
        data = self.keep(config_of(layers, **config))
        kinds = {b"\x1f\x8b": "+gzip", b"\x28\xb5": "+zstd"}
        parts = [descriptor(f"{self.TYPE}layer.v1.tar{kinds.get(p[:2], '')}", self.keep(p)) for p in packed]
        document = {
            "schemaVersion": 2,
            "mediaType": f"{self.TYPE}manifest.v1+json",
            "config": descriptor(f"{self.TYPE}config.v1+json", data),
            "layers": parts,
        }
        return self.keep(dumps(document))

    def point(self, document: bytes, name: str = "", **more: Any) -> None:
        """An entry in index.json."""
        kind = "index" if b'"manifests"' in document else "manifest"
        notes = {"io.containerd.image.name": name} if name else {}
        annotations = {**notes, **more.pop("annotations", {})}
        entry = descriptor(f"{self.TYPE}{kind}.v1+json", document, **more)
        self.manifests.append({**entry, **({"annotations": annotations} if annotations else {})})

    def index(self, manifests: list[dict[str, Any]]) -> bytes:
        document = {"schemaVersion": 2, "mediaType": f"{self.TYPE}index.v1+json", "manifests": manifests}
        return self.keep(dumps(document))

    def done(self) -> dict[str, bytes]:
        return {**self.files, "index.json": dumps({"schemaVersion": 2, "manifests": self.manifests})}
