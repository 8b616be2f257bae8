"""Devices by the Container Device Interface in real containers: nodes that work, mounts, variables, --gpus, inspect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import cloche as sdk
from commands import cloche, ok, sh

pytestmark = [
    pytest.mark.one_lane,
    pytest.mark.requires("root", "overlay"),
    pytest.mark.usefixtures("store"),
]

THING = ("--network", "none", "--device", "example.org/thing=zero", "starter", "sh", "-c")
DOCUMENT = """
cdiVersion: "0.6.0"
kind: example.org/thing
containerEdits:
  env: [THING=all, PATH=/never/used:/bin:/usr/bin]
devices:
- name: zero
  containerEdits:
    env: [ONE=zero]
    deviceNodes:
    - {path: /dev/things/zero, hostPath: /dev/zero, permissions: r, fileMode: 384}
    - {path: /dev/things/tun, hostPath: /dev/net/tun, permissions: r}
    - {path: /dev/full, permissions: rw}
    mounts:
    - {hostPath: FOLDER, containerPath: /opt/thing, options: [ro, nosuid, nodev, rbind]}
    additionalGids: [4711]
- name: hooked
  containerEdits:
    hooks: [{hookName: createContainer, path: /bin/true}]
"""


@pytest.fixture(autouse=True)
def things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of documents that the configuration names."""
    folder = tmp_path / "cdi"
    folder.mkdir()
    (tmp_path / "files").mkdir()
    (tmp_path / "files/lib").write_text("a library\n")
    (folder / "thing.yaml").write_text(DOCUMENT.replace("FOLDER", str(tmp_path / "files")))
    config = tmp_path / "config.toml"
    config.write_text(f'[cdi]\ndirectories = ["{folder}"]\n')
    monkeypatch.setenv("CLOCHE_CONFIG", str(config))
    return folder


def test_a_device_with_all_that_belongs_to_it() -> None:
    script = (
        "head -c 3 /dev/things/zero | od -An -tx1; (: < /dev/things/tun) && echo open; "
        "(: > /dev/things/tun) 2>/dev/null || echo not written; echo $ONE $THING ${PATH%%:*}; cat /opt/thing/lib; "
        "{ echo x > /opt/thing/lib; } 2>/dev/null || echo read-only; id -G; ls -l /dev/things/zero | cut -c1-10"
    )
    out = sh(script, "--device", "example.org/thing=zero", "--network", "none").splitlines()
    assert out[0].split() == ["00"] * 3
    assert out[1:3] == ["open", "not written"], "its document says that it is to be read"
    assert out[3:6] == ["zero all /never/used", "a library", "read-only"]
    assert out[6].split()[-1] == "4711"
    assert out[7] == "crw-------"


def test_what_the_user_mounts_there_gives_way_and_other_devices_stay(tmp_path: Path) -> None:
    flags = ("-v", f"{tmp_path}:/opt/thing", "--device", "/dev/fuse", "--device", "example.org/thing=zero")
    assert sh("cat /opt/thing/lib; ls /dev/fuse", *flags, "--network", "none") == "a library\n/dev/fuse"


def test_a_privileged_container_and_one_with_users_of_its_own() -> None:
    for flag in ("--privileged", "--userns=auto"):
        script = "head -c 1 /dev/things/zero | od -An -tx1; cat /opt/thing/lib"
        result = cloche("run", "--rm", flag, *THING, script)
        assert (result.code, result.out.split()) == (0, ["00", "a", "library"]), result.err


def test_it_is_looked_up_at_each_start_and_inspect_tells_what_was_asked_for(things: Path) -> None:
    ok("create", "--name", "box", *THING, "echo $ONE")
    (requests,) = json.loads(ok("inspect", "-f", "{{json .HostConfig.DeviceRequests}}", "box"))
    assert (requests["Driver"], requests["DeviceIDs"]) == ("cdi", ["example.org/thing=zero"])
    assert ok("start", "-a", "box") == "zero"
    path = things / "thing.yaml"
    path.write_text(path.read_text().replace("ONE=zero", "ONE=another"))
    assert ok("start", "-a", "box") == "another"
    path.unlink()
    gone = cloche("start", "box")
    assert gone.code == 1 and "unresolvable CDI devices example.org/thing=zero" in gone.err and str(things) in gone.err


def test_what_cannot_be_had_is_said_before_anything_runs() -> None:
    unknown = cloche("run", "--rm", "--device", "example.org/thing=seven", "starter", "echo", "ran")
    assert unknown.code in (125, 127) and "ran" not in unknown.out and "example.org/thing=zero" in unknown.err
    hooked = cloche("run", "--rm", "--device", "example.org/thing=hooked", "starter", "echo", "ran")
    assert hooked.code in (125, 127) and "asks for hooks" in hooked.err and "ran" not in hooked.out
    for flag in ("--device=no/thing", "--device=a b/c=d", "--gpus=device=a b"):
        refused = cloche("run", "--rm", flag, "starter", "true")
        assert refused.code == 125 and refused.err.count("\n") == 1, refused.err
    assert ok("ps", "-aq") == ""


def test_gpus(things: Path) -> None:
    without = cloche("run", "--rm", "--gpus", "all", "starter", "true")
    assert without.code in (125, 127) and "find a GPU" in without.err
    card = {"name": "0", "containerEdits": {"env": ["CARD=0"], "deviceNodes": [{"path": "/dev/null"}]}}
    document = {"cdiVersion": "0.5.0", "kind": "amd.com/gpu", "devices": [card, {**card, "name": "all"}]}
    (things / "gpu.json").write_text(json.dumps(document))
    for wanted in ("all", "1", "device=0"):
        assert sh("echo $CARD", "--gpus", wanted, "--network", "none") == "0"
    assert cloche("run", "--rm", "--gpus", "2", "starter", "true").code in (125, 127)


def test_the_same_from_python() -> None:
    done = sdk.run(
        "starter", ["sh", "-c", "echo $ONE"], devices=["example.org/thing=zero"], network="none", remove=True
    )
    assert done.output == "zero\n"


def test_a_directory_of_devices_brings_all_that_are_in_it() -> None:
    assert "tun" in sh("ls /hostnet", "--device", "/dev/net:/hostnet", "--network", "none").split()
    refused = cloche("run", "--rm", "--device", "/etc/cron.d", "starter", "true")
    assert refused.code in (125, 127) and "no device" in refused.err
