"""Configurations that cannot be: each is an error that says something and leaves nothing.

config.md, "Valid values": "Runtimes MUST generate an error when invalid or unsupported values are encountered";
"Extensibility": they "MAY log unknown properties but MUST otherwise ignore them".
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance.harness import Bundle, differs
from conformance.schemas import SPECS, problems

LENIENT = differs("crun", "goes on with what it makes of it")


def change(config: dict[str, Any], path: str, value: object) -> None:
    """Sets one field, named by its path; deletes it when the value is `...`."""
    *parents, name = path.split(".")
    part: Any = config
    for parent in parents:
        part = part[int(parent)] if isinstance(part, list) else part.setdefault(parent, {})
    if value is ...:
        del part[name]
    else:
        part[int(name) if isinstance(part, list) else name] = value


def cases(*entries: tuple[str, object] | tuple[str, object, str]) -> list[Any]:
    """Parameters: a path, a value, and the names of runtimes that are known to accept it."""
    return [
        pytest.param(
            path,
            value,
            id=f"{path}={'missing' if value is ... else json.dumps(value)}",
            marks=[differs(name, "goes on with what it makes of it") for name in (known[0].split() if known else ())],
        )
        for path, value, *known in entries
    ]


# What is no configuration at all


@pytest.mark.parametrize(
    "text",
    ["", " ", "{]", "[]", "null", "1", '"text"', '{"ociVersion": "1.0.0"', "\x00", "{'a': 1}"],
    ids=ascii,
)
def test_a_file_that_is_no_configuration_is_an_error(bundle: Bundle, text: str) -> None:
    (bundle.path / "config.json").write_text(text)
    assert bundle.runtime.fails("create", "--bundle", str(bundle.path), bundle.id)
    assert bundle.runtime.settled() == []


def _missing(_: Path) -> None:
    pass


def _folder(file: Path) -> None:
    file.mkdir()


def _dangling(file: Path) -> None:
    file.symlink_to("nothing")


@pytest.mark.parametrize("make", [_missing, _folder, _dangling])
def test_a_bundle_without_a_configuration_is_an_error(bundle: Bundle, make: Callable[[Path], None]) -> None:
    make(bundle.path / "config.json")
    assert bundle.runtime.fails("create", "--bundle", str(bundle.path), bundle.id)
    assert bundle.runtime.settled() == []


def test_a_bundle_that_is_not_there_is_an_error(bundle: Bundle) -> None:
    assert bundle.runtime.fails("create", "--bundle", str(bundle.path / "missing"), bundle.id)
    assert bundle.runtime.settled() == []


# The specification's own examples

BAD = sorted((SPECS / "test/config/bad").glob("*.json"))
NO_DEVICES = differs("runc", "does not know netDevices yet")


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(
            file,
            id=file.stem,
            marks=[
                *([NO_DEVICES] if "netdevice" in file.stem else []),
                *([LENIENT] if "linux" in file.stem and "netdevice" not in file.stem else []),
            ],
        )
        for file in BAD
    ],
)
def test_a_bad_example_of_the_specification_is_an_error(bundle: Bundle, file: Path) -> None:
    """What is bad in it is put into a configuration that is good otherwise."""
    text = file.read_text().replace("eth0", "nothing0")  # who takes it all the same shall not take this machine's link
    try:
        example = json.loads(text)
    except json.JSONDecodeError:
        (bundle.path / "config.json").write_text(text)
        assert bundle.runtime.fails("create", "--bundle", str(bundle.path), bundle.id)
    else:
        bundle.linux.update(example["linux"])
        assert problems("config", bundle.config)
        bundle.refused("true")


@differs("crun", "asks for `mounts`, which are OPTIONAL")
def test_the_smallest_configuration_of_the_specification_that_can_be_started_runs(bundle: Bundle) -> None:
    """Only the program is another, and the mounts are not in the caller's namespace."""
    bundle.config = json.loads((SPECS / "test/config/good/minimal-for-start.json").read_text())
    bundle.config["linux"] = {"namespaces": [{"type": "mount"}]}
    bundle.process["args"] = ["/bin/true"]
    done = bundle.run()
    assert done.code == 0, done


@differs("crun", "starts something, and says nothing")
def test_a_configuration_without_a_process_cannot_be_started(bundle: Bundle) -> None:
    """ "This operation MUST generate an error if `process` was not set"."""
    del bundle.config["process"]
    bundle.write()
    created = bundle.runtime.call("create", "--bundle", str(bundle.path), bundle.id)
    assert created.code != 0 or bundle.runtime.call("start", bundle.id).code != 0
    if created.code:
        assert bundle.runtime.settled() == []


# Fields


@pytest.mark.parametrize(
    ("path", "value"),
    cases(
        ("root", ...),
        ("root.path", ...),
        ("process.cwd", ...),
        ("process.args", ..., "crun"),
        ("mounts.0.destination", ...),
        ("linux.namespaces.0.type", ...),
        ("process.rlimits.0.type", ...),
    ),
)
def test_a_field_that_is_required_and_not_there_is_an_error(bundle: Bundle, path: str, value: object) -> None:
    change(bundle.config, path, value)
    bundle.refused()


@pytest.mark.parametrize(
    ("path", "value"),
    cases(
        ("ociVersion", 1),
        ("hostname", 5, "crun"),
        ("annotations", {"key": 1}),
        ("annotations", ["key"], "crun"),
        ("root", "rootfs"),
        ("root.path", 5),
        ("root.readonly", "yes", "crun"),
        ("mounts", {}),
        ("mounts.0", "proc"),
        ("mounts.0.destination", 1),
        ("mounts.0.options", "ro", "crun"),
        ("process", [], "crun"),
        ("process.args", "true", "crun"),
        ("process.args", [1]),
        ("process.env", {"PATH": "/bin"}),
        ("process.cwd", 1),
        ("process.terminal", "no", "crun"),
        ("process.user", "root", "crun"),
        ("process.user.uid", "root", "crun"),
        ("process.user.uid", -1),
        ("process.user.uid", 1.5),
        ("process.user.uid", 2**32),
        ("process.user.gid", -1),
        ("process.user.gid", 2**32),
        ("process.user.additionalGids", 5, "crun"),
        ("process.user.additionalGids", [-1]),
        ("process.user.additionalGids", ["5"]),
        ("process.user.umask", -1),
        ("process.capabilities", ["CAP_KILL"], "crun"),
        ("process.capabilities.bounding", "CAP_KILL", "crun"),
        ("process.rlimits", {}, "crun"),
        ("process.rlimits.0.soft", -1),
        ("process.rlimits.0.hard", "many"),
        ("process.rlimits.0.hard", 2**64),
        ("process.oomScoreAdj", "low", "crun"),
        ("process.oomScoreAdj", 1.5),
        ("process.noNewPrivileges", "yes", "crun"),
        ("hooks", [], "crun"),
        ("hooks", {"prestart": {}}, "crun"),
        ("hooks", {"prestart": ["/bin/true"]}),
        ("hooks", {"prestart": [{"path": "/bin/true", "timeout": "1"}]}, "crun"),
        ("linux", []),
        ("linux.namespaces.0", "pid"),
        ("linux.maskedPaths", "/proc/keys", "crun"),
        ("linux.readonlyPaths", [5], "crun"),
        ("linux.sysctl", [], "crun"),
        ("linux.sysctl", {"kernel.msgmax": 9000}),
        ("linux.cgroupsPath", 5, "crun"),
        ("linux.devices", {}, "crun"),
        ("linux.resources", [], "crun"),
        ("linux.resources.pids", {"limit": "many"}, "crun"),
        ("linux.uidMappings", {}, "crun"),
    ),
)
def test_a_field_of_another_type_is_an_error(bundle: Bundle, path: str, value: object) -> None:
    bundle.process["args"] = ["true"]
    change(bundle.config, path, value)
    assert problems("config", bundle.config), "the schema has no objection"
    bundle.refused()


@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.1.0", "1.2.1", "1.3.0"])
def test_versions_of_the_specification_since_the_first_are_known(bundle: Bundle, version: str) -> None:
    """ "... retains forward and backward compatibility within major versions"."""
    bundle.config["ociVersion"] = version
    assert bundle.run("true").code == 0


@pytest.mark.parametrize(
    ("path", "value"),
    cases(
        ("ociVersion", ..., "runc"),
        ("ociVersion", "", "runc crun"),
        ("ociVersion", "nonsense", "runc crun"),
        ("ociVersion", "2.0.0", "runc crun"),
    ),
)
def test_a_version_that_is_none_or_of_another_major_is_an_error(bundle: Bundle, path: str, value: object) -> None:
    """ "MUST be in SemVer v2.0.0 format"; compatibility ends with a major version."""
    change(bundle.config, path, value)
    bundle.refused("true")


@pytest.mark.parametrize(
    ("path", "value"),
    cases(
        ("process.args", ["echo", "a\0b"], "runc crun"),
        ("process.env", ["PATH=/bin", "A=b\0c"], "crun"),
        ("process.cwd", "/tmp\0/x", "crun"),
        ("root.path", "rootfs\0x", "crun"),
        ("hostname", "a\0b", "runc crun"),
        ("mounts.0.destination", "/proc\0/x", "crun"),
    ),
)
def test_text_with_a_zero_byte_is_an_error(bundle: Bundle, path: str, value: object) -> None:
    """The kernel would see something else than who has written it."""
    bundle.process["args"] = ["true"]
    change(bundle.config, path, value)
    bundle.refused()


@pytest.mark.parametrize("entry", ["", "NAME", "=value"], ids=ascii)
def test_a_variable_without_a_name_is_no_failure_of_the_runtime(bundle: Bundle, entry: str) -> None:
    """An error, or passed on as `environ` may have it; never a crash."""
    bundle.process["env"].append(entry)
    done = bundle.run("true")
    assert done.code == 0 or done.error
    assert bundle.runtime.settled() == []


# What is not known


@pytest.mark.parametrize(
    "path",
    [
        "nonsense",
        "root.nonsense",
        "mounts.0.nonsense",
        "process.nonsense",
        "process.user.nonsense",
        "process.capabilities.nonsense",
        "process.rlimits.0.nonsense",
        "hooks.nonsense",
        "linux.nonsense",
        "linux.namespaces.0.nonsense",
        "linux.resources.nonsense",
        "linux.resources.devices.0.nonsense",
    ],
)
@pytest.mark.parametrize("value", [1, "text", None, {"a": [1]}], ids=ascii)
def test_a_property_that_is_not_known_is_ignored(bundle: Bundle, path: str, value: object) -> None:
    """config.md, "Extensibility"."""
    change(bundle.config, path, value)
    assert bundle.says("echo hello") == "hello"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("windows", {"layerFolders": ["C:"]}),
        ("solaris", {"milestone": "svc:/x"}),
        ("vm", {"kernel": {"path": "/kernel"}}),
        ("zos", {}),
        ("freebsd", {}),
    ],
)
def test_what_is_for_another_system_is_ignored(bundle: Bundle, name: str, content: object) -> None:
    bundle.config[name] = content
    assert bundle.says("echo hello") == "hello"


@differs("crun", "leaves it out, and its log has errors only")
def test_a_capability_that_is_not_known_is_a_warning(bundle: Bundle) -> None:
    """ "Any value which cannot be mapped to a relevant kernel interface, or cannot be granted otherwise MUST be logged
    as a warning by the runtime. Runtimes SHOULD NOT fail"."""
    for names in bundle.process["capabilities"].values():
        names.append("CAP_NONSENSE")
    done = bundle.run("grep", "CapEff", "/proc/self/status")
    assert done.code == 0
    assert done.out.split() == ["CapEff:", "0000000020000420"]
    assert [record for record in done.log if record["level"] == "warning" and "CAP_NONSENSE" in record["msg"]]


def test_a_null_is_a_field_that_is_not_there(bundle: Bundle) -> None:
    """As encoders of Go write a slice or a pointer that is nil."""
    for path in ("hooks", "annotations", "linux.devices", "linux.sysctl", "linux.seccomp", "process.rlimits"):
        change(bundle.config, path, None)
    assert bundle.says("echo hello") == "hello"
