"""Devices by the Container Device Interface: names, documents, priorities, what is malformed, what --gpus means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloche.engine.bundle import Edits
from cloche.engine.cdi import ALL, DIRECTORIES, Known, directories, is_name, parse_gpus
from cloche.errors import Error, Invalid, NotFound, Unsupported
from cloche.oci.runtime import Device, DeviceRule, Mount

NODE = {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 0, "gid": 0}


def document(folder: Path, name: str = "x.json", kind: str = "vendor.com/gpu", **said: Any) -> Path:
    said.setdefault("devices", [{"name": "0", "containerEdits": {"env": ["A=1"]}}])
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(json.dumps({"cdiVersion": "0.6.0", "kind": kind, **said}))
    return path


def known(*folders: Path) -> Known:
    return Known(str(folder) for folder in folders)


def edits(folder: Path, own: dict[str, Any]) -> Edits:
    document(folder, devices=[{"name": "0", "containerEdits": own}])
    return known(folder).edits(["vendor.com/gpu=0"])


@pytest.mark.parametrize("text", ["vendor.com/class=0", "v/c=n", "a-b.c/d_e-f=x:y.z-0", "nvidia.com/gpu=GPU-1a:0"])
def test_names(text: str) -> None:
    assert is_name(text)


@pytest.mark.parametrize(
    "text",
    ("|v/c|v/c=|/c=n|v/=n|1v/c=n|v-/c=n|v/c-=n|v/1c=n|v/c=.n|v/c=n-|v/c/d=n|v/c=n n|v/c=n\n|v/ç=n|../v/c=n").split("|"),
)
def test_what_is_no_name(text: str) -> None:
    assert not is_name(text)


def test_what_a_device_brings(tmp_path: Path) -> None:
    own = {
        "env": ["ONE=1"],
        "deviceNodes": [{**NODE, "path": "/dev/x", "permissions": "rw"}, {"path": "/dev/zero"}],
        "mounts": [
            {"hostPath": "/usr/lib/a.so", "containerPath": "/lib/a.so", "options": ["ro", "nosuid", "bind"]},
            {"hostPath": "/srv", "containerPath": "/srv", "options": ["ro"]},
            {"hostPath": "tmpfs", "containerPath": "/t", "type": "tmpfs", "options": ["size=1m"]},
        ],
        "additionalGids": [44, 0],
    }
    document(
        tmp_path,
        devices=[{"name": "0", "containerEdits": own}, {"name": "1", "containerEdits": {"env": ["TWO=2"]}}],
        containerEdits={"env": ["ALL=yes"]},
    )
    found = known(tmp_path).edits(["vendor.com/gpu=0", "vendor.com/gpu=1", "vendor.com/gpu=0"])
    assert found.env == ("ALL=yes", "ONE=1", "TWO=2"), "what is of all devices comes once"
    assert found.devices[0] == Device("/dev/x", "c", 1, 3, 0o600)
    assert (found.devices[1].major, found.devices[1].minor, found.devices[1].mode) == (1, 5, 0o666)
    assert found.rules == (DeviceRule(True, "c", 1, 3, "rw"), DeviceRule(True, "c", 1, 5, "rwm"))
    assert found.mounts == (
        Mount("/lib/a.so", "bind", "/usr/lib/a.so", ("ro", "nosuid", "bind")),
        Mount("/srv", "bind", "/srv", ("rbind", "ro")),
        Mount("/t", "tmpfs", "tmpfs", ("size=1m",)),
    )
    assert found.groups == ("44",)


def test_yaml_is_read_and_makes_no_objects(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "cdiVersion: 0.6.0\nkind: v.com/gpu\ndevices:\n- name: '0'\n  containerEdits:\n    env: [A=b]\n"
    )
    (tmp_path / "b.yml").write_text("kind: !!python/object/apply:os.system ['touch /tmp/never']\n")
    (tmp_path / "c.yaml").write_text("a: &a [*a]\n" + "[" * 3000)
    there = known(tmp_path)
    assert there.edits(["v.com/gpu=0"]).env == ("A=b",)
    assert len(there.problems) == 2


def test_the_second_directory_has_priority_and_one_alone_may_not_say_two_things(tmp_path: Path) -> None:
    low, high = tmp_path / "low", tmp_path / "high"
    document(low, devices=[{"name": "0", "containerEdits": {"env": ["FROM=low"]}}])
    document(high, devices=[{"name": "0", "containerEdits": {"env": ["FROM=high"]}}])
    assert known(low, high).edits(["vendor.com/gpu=0"]).env == ("FROM=high",)
    document(low, "y.json")
    assert known(low, high).edits(["vendor.com/gpu=0"]).env == ("FROM=high",)
    with pytest.raises(Invalid, match="conflicting device"):
        known(low).edits(["vendor.com/gpu=0"])
    document(high, "y.json")
    with pytest.raises(Invalid, match="conflicting"):
        known(low, high).edits(["vendor.com/gpu=0"])


def test_who_is_not_there_is_said_with_who_is_and_what_cannot_be_read(tmp_path: Path) -> None:
    document(tmp_path)
    (tmp_path / "bad.json").write_text('{"kind": "v.com/gpu"}')
    (tmp_path / "worse.json").write_text("{")
    (tmp_path / "notes.txt").write_text("not a document")
    with pytest.raises(NotFound, match=r"unresolvable CDI devices vendor\.com/gpu=9") as caught:
        known(tmp_path, tmp_path / "nowhere").edits(["vendor.com/gpu=9"])
    hint = caught.value.hint
    assert "here are vendor.com/gpu=0" in hint and "bad.json: KeyError" in hint and "worse.json" in hint
    with pytest.raises(NotFound, match="unresolvable"):
        known().edits(["vendor.com/gpu=9"])


@pytest.mark.parametrize(
    "own",
    [
        [],
        "text",
        {"env": ["NOEQUALS"]},
        {"env": ["=x"]},
        {"env": [7]},
        {"env": ["A=\0"]},
        {"deviceNodes": [{}]},
        {"deviceNodes": [{"path": "dev/x"}]},
        {"deviceNodes": [{**NODE, "type": "x"}]},
        {"deviceNodes": [{**NODE, "major": "one"}]},
        {"deviceNodes": [{**NODE, "permissions": "rwx"}]},
        {"deviceNodes": [{"path": "/etc/passwd"}]},
        {"deviceNodes": [7]},
        {"mounts": [{"hostPath": "rel", "containerPath": "/x"}]},
        {"mounts": [{"hostPath": "/x"}]},
        {"mounts": [{"hostPath": "/x", "containerPath": "x"}]},
        {"mounts": [{"hostPath": "/x\0", "containerPath": "/x"}]},
        {"additionalGids": ["wheel"]},
    ],
)
def test_documents_that_are_malformed(tmp_path: Path, own: Any) -> None:
    if own == []:
        own = ["x"]
    with pytest.raises(Invalid, match=r"CDI device injection failed: vendor\.com/gpu=0: its document is malformed"):
        edits(tmp_path, own)


@pytest.mark.parametrize("key", ["hooks", "intelRdt", "netDevices"])
def test_what_is_not_there_yet_is_refused_by_name(tmp_path: Path, key: str) -> None:
    with pytest.raises(Unsupported, match=f"asks for {key}"):
        edits(tmp_path, {key: [{"hookName": "createContainer", "path": "/x"}]})
    assert edits(tmp_path, {key: []}) == Edits()


def test_a_node_that_the_host_has_not(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="use the device /dev/no-such"):
        edits(tmp_path, {"deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/no-such"}]})


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("all", (ALL, (), "")),
        ("2", (2, (), "")),
        ("count=2,driver=nvidia", (2, (), "nvidia")),
        ("device=0", (0, ("0",), "")),
        ('"device=0,GPU-1"', (0, ("0", "GPU-1"), "")),
        ("all,capabilities=utility", (ALL, (), "")),
        ("driver=amd", (1, (), "amd")),
    ],
)
def test_gpus(text: str, meant: tuple[int, tuple[str, ...], str]) -> None:
    assert parse_gpus(text) == meant


@pytest.mark.parametrize(
    "text", ["some", "0", "-1", "count=x", "all,device=0", "speed=9", "device=a b", "driver=../x,1"]
)
def test_gpus_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(Invalid, match="--gpus"):
        parse_gpus(text)


def test_which_gpus_are_here(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="find a GPU"):
        known(tmp_path).gpus("all")
    document(tmp_path, kind="amd.com/gpu", devices=[{"name": n, "containerEdits": {}} for n in ("1", "0", "all")])
    assert known(tmp_path).gpus("all") == ("amd.com/gpu=all",)
    assert known(tmp_path).gpus("1") == ("amd.com/gpu=0",)
    assert known(tmp_path).gpus("device=1") == ("amd.com/gpu=1",)
    for text in ("3", "all,driver=nvidia"):
        with pytest.raises(Error):
            known(tmp_path).gpus(text)
    document(tmp_path, "n.json", kind="nvidia.com/gpu", devices=[{"name": "gpu0", "containerEdits": {}}])
    assert known(tmp_path).gpus("all") == ("nvidia.com/gpu=gpu0",)


def test_ten_comes_behind_two(tmp_path: Path) -> None:
    document(tmp_path, devices=[{"name": str(n), "containerEdits": {}} for n in range(11)], kind="nvidia.com/gpu")
    assert known(tmp_path).gpus("3") == tuple(f"nvidia.com/gpu={n}" for n in range(3))


def test_a_document_counts_whole_or_not_at_all(tmp_path: Path) -> None:
    document(tmp_path, devices=[{"name": "0"}, {"name": "-"}])
    there = known(tmp_path)
    assert not there.documents and "no device's name" in there.problems[0]


def test_where_documents_are_looked_for(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    environ = {"CLOCHE_CONFIG": str(config)}
    config.write_text("")
    assert directories(environ) == DIRECTORIES
    config.write_text('[cdi]\ndirectories = ["/a", "/b"]')
    assert directories(environ) == ("/a", "/b")
    for bad in ("directories = 7", "directories = [7]", 'directories = ["a"]', 'directory = ["/a"]'):
        config.write_text(f"[cdi]\n{bad}\n")
        with pytest.raises(Invalid, match="it is not understood"):
            directories(environ)
