"""Device nodes of a container: those it is given and those it has anyway. Who may use them: test_device_rules.py."""

from __future__ import annotations

import os
from typing import Any

import pytest

from conformance.harness import Bundle, differs
from probes import requires

TAKEN = (
    "takes what is there; 'If a file already exists at path that does not match the requested device, the runtime MUST "
    "generate an error'"
)
ZERO = "takes 0 for them; 'major, minor (int64, REQUIRED unless type is p)'"
NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}


def add(bundle: Bundle, path: str, type: str, major: int = 0, minor: int = 0, **more: Any) -> None:
    """One device more; a pipe has no numbers."""
    numbers = {} if type == "p" else {"major": major, "minor": minor}
    bundle.linux.setdefault("devices", []).append({"path": path, "type": type, **numbers, **more})


def node(bundle: Bundle, path: str) -> str:
    """Kind, numbers, mode and owner of a node, as the container sees it."""
    return bundle.says(f"stat -c '%F|%t:%T|%a|%u:%g' {path}")


@pytest.mark.parametrize(
    ("kind", "name"), [("c", "character special file"), ("u", "character special file"), ("b", "block special file")]
)
def test_a_device_is_made(bundle: Bundle, kind: str, name: str) -> None:
    add(bundle, "/dev/device", kind, 0x11, 0x12, fileMode=0o640, uid=3, gid=4)
    assert node(bundle, "/dev/device") == f"{name}|11:12|640|3:4"


def test_a_pipe_is_made(bundle: Bundle) -> None:
    add(bundle, "/dev/pipe", "p", fileMode=0o606, uid=3, gid=4)
    assert node(bundle, "/dev/pipe").split("|")[::2] == ["fifo", "606"]
    assert bundle.says("stat -c %u:%g /dev/pipe; (echo through >/dev/pipe &); cat /dev/pipe") == "3:4\nthrough"


def test_the_mode_may_have_the_bits_of_the_type(bundle: Bundle) -> None:
    """As mknod(2) and stat(2) have them; containerd writes 8630 for 0o20666."""
    add(bundle, "/dev/device", "c", 1, 3, fileMode=0o20666)
    assert node(bundle, "/dev/device").split("|")[2] == "666"


def test_the_mode_is_not_changed_by_the_mask_of_the_runtime(bundle: Bundle) -> None:
    add(bundle, "/dev/device", "c", 1, 3, fileMode=0o666)
    assert bundle.says("stat -c %a /dev/device", umask=0o77) == "666"


def test_large_numbers_are_kept(bundle: Bundle) -> None:
    add(bundle, "/dev/device", "c", 511, 0xABCDE)
    assert node(bundle, "/dev/device").split("|")[1] == "1ff:abcde"


def test_a_device_is_made_outside_of_dev(bundle: Bundle) -> None:
    """The path MAY be anywhere in the container filesystem, notably outside of /dev."""
    add(bundle, "/opt/devices/null", "c", 1, 3, fileMode=0o666)
    assert node(bundle, "/opt/devices/null").startswith("character special file|1:3|666")


def test_folders_on_the_way_to_a_device_are_made(bundle: Bundle) -> None:
    add(bundle, "/dev/net/more/device", "c", 1, 3)
    assert node(bundle, "/dev/net/more/device").split("|")[1] == "1:3"


def test_several_devices_are_made(bundle: Bundle) -> None:
    for minor in range(20):
        add(bundle, f"/dev/device{minor}", "b", 7, minor)
    assert len(bundle.says("find /dev -name 'device*' -type b").split()) == 20


def test_a_device_is_owned_in_the_namespace_of_the_container(bundle: Bundle) -> None:
    add(bundle, "/dev/device", "c", 1, 3, fileMode=0o600, uid=1000, gid=1000)
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.says("echo written >/dev/device")


def test_a_node_that_is_there_already_and_the_one_asked_for_is_taken(bundle: Bundle) -> None:
    (bundle.rootfs / "nodes").mkdir()
    os.mknod(bundle.rootfs / "nodes/null", 0o20666, os.makedev(1, 3))
    add(bundle, "/nodes/null", "c", 1, 3, fileMode=0o666)
    bundle.says("echo >/nodes/null")


@differs("runc", TAKEN)
@differs("crun", TAKEN)
@pytest.mark.parametrize("there", ["file", "folder", "pipe", "other numbers", "other type"])
def test_another_file_in_the_place_of_a_device_is_an_error(bundle: Bundle, there: str) -> None:
    place = bundle.rootfs / "nodes/device"
    place.parent.mkdir()
    if there == "file":
        place.touch()
    elif there == "folder":
        place.mkdir()
    elif there == "pipe":
        os.mkfifo(place)
    elif there == "other numbers":
        os.mknod(place, 0o20666, os.makedev(1, 5))
    else:
        os.mknod(place, 0o60666, os.makedev(1, 3))
    add(bundle, "/nodes/device", "c", 1, 3)
    bundle.refused()


@differs("crun", "makes a file; 'type of device: c, b, u or p', and what cannot be applied MUST generate an error")
def test_a_type_that_there_is_not_is_an_error(bundle: Bundle) -> None:
    add(bundle, "/dev/device", "x", 1, 3)
    bundle.refused()


@differs("runc", ZERO)
@differs("crun", ZERO)
def test_a_device_without_numbers_is_an_error(bundle: Bundle) -> None:
    bundle.linux["devices"] = [{"path": "/dev/device", "type": "c"}]
    bundle.refused()


@pytest.mark.parametrize("name", NODES)
def test_a_device_is_there_by_default(bundle: Bundle, name: str) -> None:
    major, minor = NODES[name]
    assert node(bundle, f"/dev/{name}") == f"character special file|{major:x}:{minor:x}|666|0:0"


def test_devices_that_are_there_by_default_can_be_used(bundle: Bundle) -> None:
    script = """
    head -c 4 /dev/zero | xxd -p; head -c 4 /dev/urandom | wc -c; head -c 4 /dev/random | wc -c
    cat /dev/null; echo >/dev/null; echo >/dev/zero
    echo 2>/dev/null >/dev/full || echo full
    """
    assert bundle.says(script).split() == ["00000000", "4", "4", "full"]


def test_users_can_use_devices_that_are_there_by_default(bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.says("echo >/dev/null; head -c 1 /dev/urandom >/dev/zero")


def test_devices_are_there_by_default_without_a_dev_of_its_own(bundle: Bundle) -> None:
    bundle.config["mounts"] = [
        entry for entry in bundle.config["mounts"] if not entry["destination"].startswith("/dev")
    ]
    bundle.says("for name in null zero full random urandom tty; do [ -c /dev/$name ] || exit 1; done")


def test_a_device_that_is_there_by_default_can_be_listed_too(bundle: Bundle) -> None:
    add(bundle, "/dev/null", "c", 1, 3, fileMode=0o666, uid=0, gid=0)
    rule = {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}
    bundle.linux["resources"]["devices"].append(rule)
    bundle.says("echo >/dev/null")


def test_ptmx_is_that_of_the_containers_devpts(bundle: Bundle) -> None:
    """/dev/ptmx: a bind-mount or symlink of the container's /dev/pts/ptmx."""
    assert bundle.says("[ /dev/ptmx -ef /dev/pts/ptmx ] && echo same") == "same"


def test_there_is_no_console_without_a_terminal(bundle: Bundle) -> None:
    assert bundle.says("[ -e /dev/console ] || echo none") == "none"


def test_nodes_of_the_host_are_not_there(bundle: Bundle) -> None:
    names = set(bundle.says("ls /dev").split())
    assert names <= {*NODES, "fd", "stdin", "stdout", "stderr", "core", "ptmx", "pts", "shm", "mqueue", "console"}


@requires("userns")
def test_a_device_is_there_in_a_user_namespace(bundle: Bundle) -> None:
    """It cannot be made in one: it is bound from the host."""
    bundle.namespace("user")
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.runtime.folder.chmod(0o711)
    add(bundle, "/dev/full", "c", 1, 7, fileMode=0o666, uid=0, gid=0)
    bundle.says("[ -c /dev/full ] && [ -c /dev/null ]")
