"""The image configuration: what an image runs by default, for which machine, and which layers it stands on.

Source: image-spec config.md; the fields that Docker adds (Healthcheck, Shell, OnBuild, StopTimeout) from Docker's image
specification 1.2. Not its business: what an engine does with the defaults.
"""

from __future__ import annotations

from cloche.oci.digest import check_digest
from cloche.oci.document import parse_object, said, write_json
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloche.oci.document import Object


class Config(Value):
    """config: what a container of the image gets where its user says nothing else.

    healthcheck is the JSON text of Docker's Healthcheck, empty where there is none. labels keep the document's order.
    """

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    stop_signal: str = ""
    stop_timeout: int | None = None  # seconds
    healthcheck: str = ""
    shell: tuple[str, ...] = ()
    onbuild: tuple[str, ...] = ()


class History(Value):
    """history[]: how one layer, or a change of the configuration alone (`empty_layer`), was made. For people."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(Value):
    """The document. `diff_ids`: digests of the uncompressed layers, bottom first. `created`: RFC 3339."""

    architecture: str
    os: str
    config: Config = Config()
    diff_ids: tuple[str, ...] = ()
    history: tuple[History, ...] = ()
    created: str = ""
    author: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()


def parse(data: bytes | str) -> ImageConfig:
    """Read a configuration. Raises Invalid, naming the field; Unsupported for diff_ids that are not by sha256."""
    document = parse_object(data, "read the image config")
    rootfs = document.part("rootfs")
    if rootfs.text("type", None) != "layers":
        raise rootfs.wrong("type", "expected layers")
    what = f"{document.what}: rootfs.diff_ids"
    return ImageConfig(
        document.text("architecture", None),
        document.text("os", None),
        _config(document.part("config")),
        tuple(check_digest(each, f"{what}[{i}]") for i, each in enumerate(rootfs.texts("diff_ids"))),
        tuple(_history(each) for each in document.parts("history")),
        document.text("created"),
        document.text("author"),
        document.text("variant"),
        document.text("os.version"),
        document.texts("os.features"),
    )


def _config(part: Object) -> Config:
    return Config(
        part.text("User"),
        part.texts("Env"),
        _words(part, "Entrypoint"),
        _words(part, "Cmd"),
        part.text("WorkingDir"),
        part.keys("Volumes"),
        part.keys("ExposedPorts"),
        part.pairs("Labels"),
        part.text("StopSignal"),
        part.number("StopTimeout") if part.has("StopTimeout") else None,
        write_json(part.part("Healthcheck").data).decode() if part.has("Healthcheck") else "",
        _words(part, "Shell"),
        part.texts("OnBuild"),
    )


def _words(part: Object, key: str) -> tuple[str, ...]:
    """A command: an array, or one string as old builders wrote it and Docker still reads it."""
    return (part.text(key),) if isinstance(part.data.get(key), str) else part.texts(key)


def _history(part: Object) -> History:
    return History(
        part.text("created"),
        part.text("created_by"),
        part.text("author"),
        part.text("comment"),
        part.flag("empty_layer"),
    )


def write(image: ImageConfig) -> bytes:
    """The configuration as JSON: the same value, the same bytes, so the same id."""
    head = {"created": image.created, "author": image.author}
    platform = {
        "variant": image.variant,
        "os.version": image.os_version,
        "os.features": image.os_features,
        "config": _config_data(image.config),
    }
    rootfs = {"type": "layers", "diff_ids": image.diff_ids}
    history = [said(each.fields()) for each in image.history]
    return write_json(
        said(head)
        | {"architecture": image.architecture, "os": image.os}
        | said(platform)
        | {"rootfs": rootfs}
        | said({"history": history})
    )


def _config_data(config: Config) -> dict[str, Any]:
    from cloche.oci.document import parse_json

    health = parse_json(config.healthcheck, "write the image's health check") if config.healthcheck else None
    return said(
        {
            "User": config.user,
            "ExposedPorts": {port: {} for port in config.exposed_ports},
            "Env": config.env,
            "Entrypoint": config.entrypoint,
            "Cmd": config.cmd,
            "Volumes": {path: {} for path in config.volumes},
            "WorkingDir": config.working_dir,
            "Labels": dict(config.labels),
            "StopSignal": config.stop_signal,
            "StopTimeout": config.stop_timeout,
            "Healthcheck": health,
            "Shell": config.shell,
            "OnBuild": config.onbuild,
        }
    )
