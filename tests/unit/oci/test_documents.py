"""Image configurations, manifests and indexes: read, written, and refused by the name of the wrong field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
from hypothesis import given
from hypothesis import strategies as st

from cloche.errors import Invalid, Unsupported
from cloche.oci import image, manifest
from cloche.oci.descriptor import Descriptor
from cloche.oci.digest import chain_ids, check_digest, digest_of
from cloche.oci.document import SIZE_MAX
from cloche.oci.image import Config, History, ImageConfig
from cloche.oci.manifest import Index, Manifest
from cloche.oci.platform import Platform, choose, platform_of

SPECS = Path(__file__).parents[2] / "specs/image-spec"
D = ["sha256:" + c * 64 for c in "abcdef"]


def check_schema(name: str, data: bytes) -> None:
    """Validates against the specification's own schema. Its files refer to each other by id and by file name."""
    base = "https://opencontainers.org/schema/image/"
    resources: list[tuple[str, Any]] = []
    for file in SPECS.glob("*.json"):
        schema = json.loads(file.read_text())
        resource = referencing.Resource.from_contents(schema, referencing.jsonschema.DRAFT4)
        for where in (base, base + "descriptor/", base + "index/"):
            resources.append((where + file.name, resource))
        resources.append((schema.get("id", base + file.name), resource))
    registry: Any = referencing.Registry().with_resources(resources)
    schema = json.loads((SPECS / name).read_text())
    jsonschema.Draft4Validator(schema, registry=registry).validate(json.loads(data))


CONFIG: dict[str, Any] = {
    "created": "2015-10-31T22:22:56.015925234Z",
    "author": "Alyssa P. Hacker <alyspdev@example.com>",
    "architecture": "arm64",
    "variant": "v8",
    "os": "linux",
    "os.version": "1",
    "os.features": ["f"],
    "config": {
        "User": "alice:users",
        "ExposedPorts": {"8080/tcp": {}, "53/udp": {}},
        "Env": ["PATH=/bin", "FOO=oci_is_a"],
        "Entrypoint": ["/bin/my-app-binary"],
        "Cmd": ["--foreground", "--config", ""],
        "Volumes": {"/var/job-result-data": {}},
        "WorkingDir": "/home/alice",
        "Labels": {"com.example.project.git.url": "https://example.com/project.git", "empty": ""},
        "StopSignal": "SIGTERM",
        "StopTimeout": 0,
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000000000},
        "Shell": ["/bin/bash", "-c"],
        "OnBuild": ["RUN make"],
    },
    "rootfs": {"diff_ids": D[:2], "type": "layers"},
    "history": [
        {"created": "2015-10-31T22:22:54.690851953Z", "created_by": "/bin/sh -c #(nop) ADD file"},
        {"created_by": "CMD", "empty_layer": True, "author": "a", "comment": "c"},
    ],
}


def config_with(path: str, value: Any) -> bytes:
    data = json.loads(json.dumps(CONFIG))
    *way, last = path.split(".") if path != "os.version" else [path]
    at = data
    for name in way:
        at = at[int(name) if isinstance(at, list) else name]
    if isinstance(at, list):
        at[int(last)] = value
    elif value is ...:
        del at[last]
    else:
        at[last] = value
    return json.dumps(data).encode()


def test_a_configuration_is_read_whole() -> None:
    read = image.parse(json.dumps(CONFIG).encode())
    assert (read.os, read.architecture, read.variant, read.os_version, read.os_features) == (
        "linux",
        "arm64",
        "v8",
        "1",
        ("f",),
    )
    assert read.config == Config(
        user="alice:users",
        env=("PATH=/bin", "FOO=oci_is_a"),
        entrypoint=("/bin/my-app-binary",),
        cmd=("--foreground", "--config", ""),
        working_dir="/home/alice",
        volumes=("/var/job-result-data",),
        exposed_ports=("8080/tcp", "53/udp"),
        labels=(("com.example.project.git.url", "https://example.com/project.git"), ("empty", "")),
        stop_signal="SIGTERM",
        stop_timeout=0,
        healthcheck='{"Test":["CMD","true"],"Interval":1000000000}',
        shell=("/bin/bash", "-c"),
        onbuild=("RUN make",),
    )
    assert read.diff_ids == tuple(D[:2])
    assert read.history[1] == History(created_by="CMD", author="a", comment="c", empty_layer=True)
    assert hash(read)


def test_a_configuration_is_written_as_it_was_read() -> None:
    read = image.parse(json.dumps(CONFIG).encode())
    written = image.write(read)
    assert json.loads(written) == CONFIG
    assert image.parse(written) == read
    check_schema("config-schema.json", written)


def test_the_smallest_configuration() -> None:
    small = ImageConfig("amd64", "linux")
    assert json.loads(image.write(small)) == {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    check_schema("config-schema.json", image.write(small))
    nulls = {**json.loads(image.write(small)), "config": None, "history": None}
    assert image.parse(json.dumps(nulls)) == small
    nothing = {"config": dict.fromkeys(CONFIG["config"]), "rootfs": {"type": "layers", "diff_ids": None}}
    assert image.parse(json.dumps({**nulls, **nothing})) == small


def test_a_command_may_be_one_string_as_in_old_images() -> None:
    assert image.parse(config_with("config.Entrypoint", "/bin/sh")).config.entrypoint == ("/bin/sh",)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("os", ..., "os: it is missing"),
        ("architecture", 5, "architecture: expected a string, not the number 5"),
        ("rootfs", ..., "rootfs.type: it is missing"),
        ("rootfs.type", "tree", "rootfs.type: expected layers"),
        ("rootfs.diff_ids", {}, "rootfs.diff_ids: expected an array, not an object"),
        ("rootfs.diff_ids", [D[0], "sha256:zz"], "rootfs.diff_ids[1]: 'sha256:zz' is not a digest"),
        ("rootfs.diff_ids", [D[0].upper()], "is not a digest"),
        ("config", [], "config: expected an object, not an array"),
        ("config.Env", ["a=b", None], "config.Env[1]: expected a string, not null"),
        ("config.Env", "a=b", "config.Env: expected an array, not a string"),
        ("config.Env", ["a=\0"], "config.Env[0]: it has a zero byte"),
        ("config.Cmd", [["a"]], "config.Cmd[0]: expected a string, not an array"),
        ("config.Labels", {"a": True}, "config.Labels.a: expected a string, not true or false"),
        ("config.Volumes", ["/x"], "config.Volumes: expected an object, not an array"),
        ("config.StopTimeout", -1, "config.StopTimeout: expected a whole number from 0 on"),
        ("config.StopTimeout", 1 << 80, "config.StopTimeout"),
        ("config.StopTimeout", True, "config.StopTimeout"),
        ("config.WorkingDir", "/a\0b", "config.WorkingDir: it has a zero byte"),
        ("history.1", "x", "history[1]: expected an object, not a string"),
        ("history.0.empty_layer", "yes", "history[0].empty_layer: expected true or false, not a string"),
        ("os.version", 1.5, "os.version"),
    ],
)
def test_the_wrong_field_is_named(path: str, value: Any, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        image.parse(config_with(path, value))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b"\xff\xfe{}",
        b'{"os": NaN}',
        b'{"os": "\xff"}',
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"os": "\\ud800", "architecture": "x"}',
        b'{"os": "linux", "architecture": "\\uDfff", "rootfs": {"type": "layers"}}',
        b'{"n": ' + b"9" * 5000 + b"}",
        b" " * (SIZE_MAX + 1),
    ],
)
@pytest.mark.parametrize("parse", [image.parse, manifest.parse])
def test_what_is_no_document_is_refused(data: bytes, parse: Any) -> None:
    with pytest.raises(Invalid) as caught:
        parse(data)
    assert len(str(caught.value)) < 1000 and str(caught.value).isprintable()


def test_digests_by_another_algorithm_are_not_supported_and_said_so() -> None:
    with pytest.raises(Unsupported, match="sha512"):
        image.parse(config_with("rootfs.diff_ids", ["sha512:" + "0" * 128]))
    with pytest.raises(Invalid, match="not a digest"):
        check_digest("md5:" + "0" * 32)


def test_chain_ids() -> None:
    first = D[0]
    second = digest_of(f"{first} {D[1]}".encode())
    assert chain_ids(D[:3]) == (first, second, digest_of(f"{second} {D[2]}".encode()))
    assert chain_ids([]) == ()
    assert digest_of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
MANY = st.lists(TEXTS, max_size=3).map(tuple)
CONFIGS = st.builds(
    Config,
    user=TEXTS,
    env=MANY,
    entrypoint=MANY,
    cmd=MANY,
    volumes=st.lists(TEXTS, max_size=3, unique=True).map(tuple),
    labels=st.dictionaries(TEXTS, st.one_of(st.just(""), TEXTS), max_size=3).map(lambda d: tuple(d.items())),
    stop_timeout=st.one_of(st.none(), st.integers(0, 100)),
    onbuild=MANY,
)
IMAGES = st.builds(
    ImageConfig,
    architecture=TEXTS,
    os=TEXTS,
    config=CONFIGS,
    diff_ids=st.lists(st.sampled_from(D)).map(tuple),
    history=st.lists(st.builds(History, created_by=TEXTS, empty_layer=st.booleans()), max_size=2).map(tuple),
    author=TEXTS,
)


@given(IMAGES)
def test_any_configuration_survives_writing(config: ImageConfig) -> None:
    assert image.parse(image.write(config)) == config


def descriptor(number: int = 0, **more: Any) -> dict[str, Any]:
    return {"mediaType": manifest.LAYER, "digest": D[number], "size": number, **more}


MANIFEST: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": manifest.MANIFEST,
    "config": descriptor(0, mediaType=manifest.CONFIG),
    "layers": [descriptor(1), descriptor(2, urls=["https://example.com/x"], annotations={"a": "b"})],
    "annotations": {"k": "v"},
}
INDEX: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": manifest.INDEX,
    "manifests": [
        descriptor(0, mediaType=manifest.MANIFEST, platform={"os": "linux", "architecture": "amd64"}),
        descriptor(1, mediaType=manifest.MANIFEST, platform={"os": "linux", "architecture": "arm", "variant": "v7"}),
    ],
}


def parse(data: dict[str, Any], media_type: str = "") -> Manifest | Index:
    return manifest.parse(json.dumps(data).encode(), media_type)


@pytest.mark.parametrize("document", [MANIFEST, INDEX])
def test_manifests_and_indexes_are_written_as_they_were_read(document: dict[str, Any]) -> None:
    read = parse(document)
    assert json.loads(manifest.write(read)) == document
    assert manifest.parse(manifest.write(read)) == read
    name = "image-manifest-schema.json" if isinstance(read, Manifest) else "image-index-schema.json"
    check_schema(name, manifest.write(read))


def test_an_index_of_no_manifests_and_a_manifest_of_no_layers_say_so() -> None:
    assert json.loads(manifest.write(Index(())))["manifests"] == []
    empty = manifest.write(Manifest(Descriptor(manifest.CONFIG, D[0], 0), ()))
    assert json.loads(empty)["layers"] == []
    assert isinstance(manifest.parse(empty), Manifest)


@pytest.mark.parametrize("kind", [manifest.MANIFEST, manifest.DOCKER_MANIFEST])
def test_the_type_comes_from_the_document_or_from_who_announced_it(kind: str) -> None:
    assert parse({**MANIFEST, "mediaType": kind}).media_type == kind
    assert parse({**MANIFEST, "mediaType": ""}, kind).media_type == kind
    assert parse({**MANIFEST, "mediaType": kind}, kind).media_type == kind


def test_docker_documents_without_a_type_are_known_by_their_fields() -> None:
    assert isinstance(parse({k: v for k, v in MANIFEST.items() if k != "mediaType"}), Manifest)
    assert isinstance(parse({k: v for k, v in INDEX.items() if k != "mediaType"}), Index)


@pytest.mark.parametrize(
    ("document", "announced", "said"),
    [
        ({**MANIFEST, "manifests": INDEX["manifests"]}, "", "manifest and index at once"),
        ({**INDEX, "layers": []}, "", "manifest and index at once"),
        ({**INDEX, "config": MANIFEST["config"]}, "", "manifest and index at once"),
        ({**INDEX, **MANIFEST, "mediaType": None}, "", "manifest and index at once"),
        ({**INDEX, **MANIFEST, "mediaType": None}, manifest.MANIFEST, "manifest and index at once"),
        (MANIFEST, manifest.INDEX, "announced as"),
        ({**INDEX, "mediaType": manifest.MANIFEST}, "", "manifest and index at once"),
        ({**MANIFEST, "mediaType": manifest.INDEX}, "", "manifest and index at once"),
        ({**MANIFEST, "schemaVersion": 1}, "", "schemaVersion: expected 2"),
        ({**MANIFEST, "schemaVersion": "2"}, "", "schemaVersion"),
        ({**MANIFEST, "schemaVersion": None}, "", "schemaVersion: it is missing"),
        ({"schemaVersion": 2}, "", "neither a manifest nor an index"),
        ({"schemaVersion": 2, "mediaType": manifest.INDEX}, "", "manifests: it is missing"),
        ({**MANIFEST, "config": None}, "", "config: it is missing"),
        ({**MANIFEST, "layers": None}, "", "layers: it is missing"),
        ({**MANIFEST, "layers": [descriptor(digest="sha256:x")]}, "", "layers[0].digest: 'sha256:x' is not a digest"),
        ({**MANIFEST, "layers": [descriptor(size=-1)]}, "", "layers[0].size"),
        ({**MANIFEST, "layers": [descriptor(size=1.5)]}, "", "layers[0].size"),
        ({**MANIFEST, "layers": [descriptor(size=10**30)]}, "", "layers[0].size"),
        ({**MANIFEST, "layers": [descriptor()] * 5000}, "", "layers: there are 5000"),
        ({**INDEX, "manifests": [descriptor(platform={"os": "linux"})]}, "", "manifests[0].platform.architecture"),
    ],
)
def test_wrong_manifests_are_refused(document: dict[str, Any], announced: str, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(document, announced)
    assert said in str(caught.value)


def test_what_cloche_does_not_know_is_said() -> None:
    with pytest.raises(Unsupported, match="schema 1"):
        parse({"schemaVersion": 1, "fsLayers": [{}], "history": []})
    with pytest.raises(Unsupported, match="schema 1"):
        parse(MANIFEST | {"mediaType": ""}, "application/vnd.docker.distribution.manifest.v1+prettyjws")
    with pytest.raises(Unsupported, match="media type text/html"):
        parse(MANIFEST | {"mediaType": "text/html"})


def at(number: int, *platform: str) -> Descriptor:
    return Descriptor(manifest.MANIFEST, D[number], 1, platform=Platform(*platform) if platform else None)


@pytest.mark.parametrize(
    ("machine", "offered", "chosen"),
    [
        ("x86_64", [at(0, "linux", "arm64"), at(1, "linux", "amd64"), at(2, "windows", "amd64")], 1),
        ("x86_64", [at(0, "linux", "amd64", "v3"), at(1, "linux", "amd64", "v1"), at(2, "linux", "amd64")], 2),
        ("x86_64", [at(0, "linux", "amd64", "v3")], None),
        ("x86_64", [at(0, "unknown", "unknown"), at(1)], 1),
        ("x86_64", [at(0), at(1, "linux", "amd64")], 1),
        ("aarch64", [at(0, "linux", "arm64"), at(1, "linux", "arm64", "v8")], 1),
        ("aarch64", [at(0, "linux", "arm", "v7"), at(1, "linux", "arm64")], 1),
        ("armv7l", [at(0, "linux", "arm", "v5"), at(1, "linux", "arm", "v6"), at(2, "linux", "arm", "v8")], 1),
        ("armv6l", [at(0, "linux", "arm", "v7")], None),
        ("mips64", [at(0, "linux", "mips64")], 0),
        ("x86_64", [], None),
    ],
)
def test_the_manifest_for_this_machine_is_chosen(machine: str, offered: list[Descriptor], chosen: int | None) -> None:
    assert choose(offered, platform_of(machine)) == (None if chosen is None else offered[chosen])


def test_platforms_read_as_people_write_them() -> None:
    assert str(Platform("linux", "arm", "v7")) == "linux/arm/v7"
    assert str(platform_of("x86_64")) == "linux/amd64"
