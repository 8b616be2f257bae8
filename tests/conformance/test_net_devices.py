"""Network devices of the host that are moved into a container (`linux.netDevices`)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from conformance.harness import Bundle, differs
from probes import requires

pytestmark = [
    requires("bridge", "program:ip"),
    differs(
        "runc",
        "is of specification 1.2, and ignores it; 1.3 has 'A set of network devices that MUST be made available'",
    ),
]
_numbers = count()


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def here(name: str) -> bool:
    """Whether the runtime's network namespace has the device."""
    return subprocess.run(["ip", "link", "show", name], capture_output=True).returncode == 0


@pytest.fixture
def device() -> Iterator[str]:
    """One end of a pair, which goes with its network namespace."""
    name = f"cf{os.getpid() % 100000}x{next(_numbers)}"
    ip("link", "add", name, "type", "veth", "peer", "name", f"{name}p")
    yield name
    for one in (name, f"{name}p"):
        if here(one):
            subprocess.run(["ip", "link", "delete", one], capture_output=True)


def test_a_device_is_moved(bundle: Bundle, device: str) -> None:
    bundle.linux["netDevices"] = {device: {}}
    with bundle.running():
        assert device in bundle.sh("ls /sys/class/net").split()
        assert not here(device)


def test_a_device_is_renamed(bundle: Bundle, device: str) -> None:
    bundle.linux["netDevices"] = {device: {"name": "inner0"}}
    assert set(bundle.says("ls /sys/class/net").split()) >= {"inner0"}


@differs(
    "crun", "looks for a device of that name then; 'the runtime MUST allow the move, and the kernel will generate'"
)
def test_a_name_may_be_a_template(bundle: Bundle, device: str) -> None:
    bundle.linux["netDevices"] = {device: {"name": "inner%d"}}
    assert "inner0" in bundle.says("ls /sys/class/net").split()


def test_a_device_is_up(bundle: Bundle, device: str) -> None:
    """The runtime MUST set the network device state to "up" after moving it to the network namespace."""
    bundle.linux["netDevices"] = {device: {"name": "inner0"}}
    assert "UP" in bundle.says("ip -o link show inner0").partition("<")[2].partition(">")[0].split(",")


def test_addresses_of_global_scope_are_kept(bundle: Bundle, device: str) -> None:
    ip("address", "add", "192.0.2.7/24", "dev", device)
    ip("address", "add", "198.51.100.7/28", "dev", device)
    bundle.linux["netDevices"] = {device: {"name": "inner0"}}
    said = bundle.says("ip -o address show inner0")
    assert "192.0.2.7/24" in said
    assert "198.51.100.7/28" in said


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="needs IPv6")
def test_addresses_of_ipv6_are_kept(bundle: Bundle, device: str) -> None:
    ip("address", "add", "2001:db8::7/64", "dev", device, "nodad")
    bundle.linux["netDevices"] = {device: {"name": "inner0"}}
    assert "2001:db8::7/64" in bundle.says("ip -o address show inner0")


def test_what_a_device_is_set_to_is_kept(bundle: Bundle, device: str) -> None:
    ip("link", "set", device, "mtu", "1234", "address", "02:00:00:00:00:07")
    bundle.linux["netDevices"] = {device: {"name": "inner0"}}
    assert bundle.says("cat /sys/class/net/inner0/mtu /sys/class/net/inner0/address") == "1234\n02:00:00:00:00:07"


def test_several_devices_are_moved(bundle: Bundle, device: str) -> None:
    bundle.linux["netDevices"] = {device: {"name": "inner0"}, f"{device}p": {"name": "inner1"}}
    assert {"inner0", "inner1"} <= set(bundle.says("ls /sys/class/net").split())


def test_a_device_is_moved_into_a_namespace_that_is_joined(bundle: Bundle, device: str) -> None:
    other = Bundle(bundle.runtime, bundle.runtime.folder / "other")
    with other.running() as pid:
        bundle.namespace("network", path=f"/proc/{pid}/ns/net")
        bundle.linux["netDevices"] = {device: {"name": "inner0"}}
        bundle.says("true")
        assert "inner0" in other.sh("ls /sys/class/net").split()


def test_a_name_that_is_taken_is_an_error(bundle: Bundle, device: str) -> None:
    """If a network device with the specified name already exists in the container namespace, ... MUST [be] an error."""
    bundle.linux["netDevices"] = {device: {"name": "lo"}}
    bundle.refused()


def test_a_device_that_there_is_not_is_an_error(bundle: Bundle) -> None:
    bundle.linux["netDevices"] = {"weather0": {}}
    bundle.refused()


def test_a_device_that_cannot_be_moved_is_an_error(bundle: Bundle) -> None:
    """The runtime MUST check if moving the network interface to the container namespace is possible."""
    bundle.linux["netDevices"] = {"lo": {"name": "inner0"}}
    bundle.refused()


@pytest.mark.parametrize("name", ["much-too-long-for-a-device", "a/b", ".."])
def test_a_name_that_no_device_can_have_is_an_error(bundle: Bundle, device: str, name: str) -> None:
    bundle.linux["netDevices"] = {device: {"name": name}}
    bundle.refused()
