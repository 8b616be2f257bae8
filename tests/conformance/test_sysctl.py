"""Kernel parameters (`linux.sysctl`): those of the container's namespaces are set, those of the host are an error."""

from __future__ import annotations

from pathlib import Path

import pytest

import probes
from conformance.harness import Bundle, differs
from conformance.mounttable import mounts_in
from probes import requires

ERROR = "'If the runtime cannot apply a property as specified in the configuration, it MUST generate an error'"
NAMESPACED = {
    "net.ipv4.ip_forward": "1",
    "net.core.somaxconn": "256",
    "net.ipv4.ping_group_range": "0\t1000",
    "net.ipv6.conf.all.disable_ipv6": "1",
    "kernel.msgmax": "4096",
    "kernel.sem": "10\t20\t30\t40",
    "kernel.shmmni": "100",
    "kernel.shm_rmid_forced": "1",
    "fs.mqueue.msg_max": "5",
    "kernel.domainname": "example.org",
}
HOSTS = {"vm.swappiness": "10", "kernel.pid_max": "10000", "kernel.core_pattern": "core", "fs.file-max": "10000"}


def path(name: str) -> str:
    return "/proc/sys/" + name.replace(".", "/")


@pytest.mark.parametrize("name", NAMESPACED)
def test_a_parameter_of_a_namespace_is_set(bundle: Bundle, name: str) -> None:
    if not Path(path(name)).exists():
        pytest.skip(f"needs a kernel with {name}")
    bundle.linux["sysctl"] = {name: NAMESPACED[name]}
    before = Path(path(name)).read_text()
    assert bundle.says(f"cat {path(name)}") == NAMESPACED[name]
    assert Path(path(name)).read_text() == before


def test_several_parameters_are_set(bundle: Bundle) -> None:
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "4096"}
    assert bundle.says(f"cat {path('net.ipv4.ip_forward')} {path('kernel.msgmax')}").split() == ["1", "4096"]


def test_a_name_may_be_written_with_slashes(bundle: Bundle) -> None:
    """As sysctl(8) has it, so that a name can have dots in it."""
    bundle.linux["sysctl"] = {"net/ipv4/ip_forward": "1"}
    assert bundle.says(f"cat {path('net.ipv4.ip_forward')}") == "1"


@pytest.mark.parametrize("name", HOSTS)
def test_a_parameter_of_the_host_is_an_error(bundle: Bundle, name: str) -> None:
    before = Path(path(name)).read_text()
    bundle.linux["sysctl"] = {name: HOSTS[name]}
    bundle.refused()
    assert Path(path(name)).read_text() == before


@pytest.mark.parametrize(("name", "kind"), [("net.core.somaxconn", "network"), ("kernel.msgmax", "ipc")])
def test_a_parameter_of_a_namespace_that_is_the_hosts_is_an_error(bundle: Bundle, name: str, kind: str) -> None:
    before = Path(path(name)).read_text()
    bundle.without_namespace(kind)
    bundle.linux["sysctl"] = {name: NAMESPACED[name]}
    bundle.refused()
    assert Path(path(name)).read_text() == before


def test_a_domain_name_without_a_namespace_for_it_is_an_error(bundle: Bundle) -> None:
    before = Path(path("kernel.domainname")).read_text()
    bundle.without_namespace("uts")
    del bundle.config["hostname"]
    bundle.linux["sysctl"] = {"kernel.domainname": "example.org"}
    bundle.refused()
    assert Path(path("kernel.domainname")).read_text() == before


def test_a_parameter_is_set_in_a_namespace_that_is_joined(bundle: Bundle) -> None:
    other = Bundle(bundle.runtime, bundle.runtime.folder / "other")
    with other.running() as pid:
        bundle.namespace("network", path=f"/proc/{pid}/ns/net")
        bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
        bundle.says("true")
        assert other.sh(f"cat {path('net.ipv4.ip_forward')}") == "1"


@pytest.mark.parametrize("name", ["net.weather", "net.ipv4.conf", "weather", "", "net.../../kernel/pid_max"])
def test_a_parameter_that_there_is_not_is_an_error(bundle: Bundle, name: str) -> None:
    bundle.linux["sysctl"] = {name: "1"}
    bundle.refused()


def test_a_value_that_the_kernel_refuses_is_an_error(bundle: Bundle) -> None:
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "rainy"}
    bundle.refused()


def test_a_parameter_is_set_though_parameters_are_read_only(bundle: Bundle) -> None:
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    bundle.linux["readonlyPaths"] = ["/proc/sys"]
    assert bundle.says(f"cat {path('net.ipv4.ip_forward')}") == "1"
    assert "ro" in mounts_in(bundle)["/proc/sys"].options


@requires("userns")
def test_a_parameter_is_set_in_a_user_namespace(bundle: Bundle) -> None:
    bundle.namespace("user")
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.runtime.folder.chmod(0o711)
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    assert bundle.says(f"cat {path('net.ipv4.ip_forward')}") == "1"


assert differs and probes and ERROR
