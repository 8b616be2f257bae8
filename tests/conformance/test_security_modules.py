"""What a machine does not have and a container asks for, which is an error: security modules, control of the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.harness import Bundle, differs

IGNORED = differs("crun", "ignores it; 'If the runtime cannot apply a property ..., it MUST generate an error'")
NO_RDT = differs(
    "runc", "looks at two schemas only; 'If no mounted resctrl ... is available ... MUST generate an error'"
)
no_apparmor = pytest.mark.skipif(
    Path("/sys/kernel/security/apparmor").exists(), reason="needs a machine without AppArmor"
)
no_selinux = pytest.mark.skipif(
    "selinuxfs" in Path("/proc/filesystems").read_text(), reason="needs a kernel without SELinux"
)
no_resctrl = pytest.mark.skipif(Path("/sys/fs/resctrl/schemata").exists(), reason="needs a machine without resctrl")
LABEL = "system_u:system_r:container_t:s0:c1,c2"


@IGNORED
@no_apparmor
def test_a_profile_without_apparmor_is_an_error(bundle: Bundle) -> None:
    bundle.process["apparmorProfile"] = "container-default"
    assert bundle.run("true").code != 0


@IGNORED
@no_apparmor
def test_a_profile_for_an_executed_process_without_apparmor_is_an_error(bundle: Bundle) -> None:
    with bundle.running():
        assert bundle.exec("true", flags=("--apparmor", "container-default")).code != 0


@no_selinux
def test_a_label_without_selinux_is_an_error(bundle: Bundle) -> None:
    bundle.process["selinuxLabel"] = LABEL
    assert bundle.run("true").code != 0


@IGNORED
@no_selinux
def test_a_label_for_mounts_without_selinux_is_an_error(bundle: Bundle) -> None:
    bundle.linux["mountLabel"] = LABEL
    assert bundle.run("true").code != 0


@no_resctrl
@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param({"closID": "group"}, marks=NO_RDT),
        {"l3CacheSchema": "L3:0=f"},
        {"memBwSchema": "MB:0=50"},
        pytest.param({"closID": "group", "schemata": ["L3:0=f", "MB:0=50"]}, marks=NO_RDT),
        pytest.param({"enableMonitoring": True}, marks=NO_RDT),
        pytest.param({}, marks=NO_RDT),
    ],
)
def test_cache_control_without_resctrl_is_an_error(bundle: Bundle, wanted: dict[str, object]) -> None:
    """If no mounted resctrl pseudo-filesystem is available, the runtime MUST generate an error."""
    bundle.linux["intelRdt"] = wanted
    bundle.refused()
