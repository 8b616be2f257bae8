"""Which device nodes a container may use: rules of `resources.devices`, as opening and making nodes shows them.

The rules hold on every layout: the devices controller of version 1, a BPF program in version 2.
"""

from __future__ import annotations

from typing import Any

import pytest

from conformance.groups import on_version
from conformance.harness import Bundle, differs
from probes import requires

pytestmark = requires("cgroup:devices")
DENY = {"allow": False, "access": "rwm"}
# No driver has these numbers: who may open the node hears ENXIO from the kernel, who may not EPERM.
MAJOR, MINOR = 251, 777
NODE = "/dev/device"
TRY = f"""
(exec 3<{NODE}) 2>&1 | grep -q 'not permitted' || printf r
(exec 3>{NODE}) 2>&1 | grep -q 'not permitted' || printf w
"""


def rule(access: str = "rwm", type: str = "c", allow: bool = True, **numbers: int) -> dict[str, Any]:
    return {"allow": allow, "type": type, "access": access, **numbers}


def rules(bundle: Bundle, *listed: dict[str, Any]) -> None:
    bundle.linux["resources"]["devices"] = list(listed)


def give(bundle: Bundle, type: str = "c") -> None:
    """A node that everybody may use as far as its mode is concerned; that it can be made, the runtime sees to."""
    entry = {"path": NODE, "type": type, "major": MAJOR, "minor": MINOR, "fileMode": 0o666}
    bundle.linux.setdefault("devices", []).append(entry)


def may(bundle: Bundle, type: str = "c") -> str:
    """What the container may do with such a node: `r` and `w` of `rw`."""
    give(bundle, type)
    return bundle.says(TRY)


def test_a_device_without_a_rule_for_it_cannot_be_used(bundle: Bundle) -> None:
    rules(bundle, DENY)
    assert may(bundle) == ""


@pytest.mark.parametrize("access", ["rwm", "rw", "rm", "wm", "r", "w", "m"])
@pytest.mark.parametrize("type", ["b", "c"])
def test_a_device_can_be_used_as_its_rule_says(bundle: Bundle, type: str, access: str) -> None:
    rules(bundle, DENY, rule(access, type, major=MAJOR, minor=MINOR))
    assert may(bundle, type) == access.replace("m", "")


def test_a_rule_is_for_its_numbers_alone(bundle: Bundle) -> None:
    rules(bundle, DENY, rule(major=MAJOR, minor=MINOR + 1), rule(major=MAJOR + 1, minor=MINOR))
    assert may(bundle) == ""


def test_a_rule_without_a_minor_number_is_for_all(bundle: Bundle) -> None:
    rules(bundle, DENY, rule("rw", major=MAJOR))
    assert may(bundle) == "rw"


def test_a_rule_without_a_major_number_is_for_all(bundle: Bundle) -> None:
    rules(bundle, DENY, rule("rw", minor=MINOR))
    assert may(bundle) == "rw"


def test_a_rule_without_numbers_is_for_all_of_a_type(bundle: Bundle) -> None:
    rules(bundle, DENY, rule("rw"))
    assert may(bundle) == "rw"


@on_version(1, differs("crun", "passes it on to the kernel; the specification has only unset numbers for that"))
def test_a_number_of_minus_one_is_for_all(bundle: Bundle) -> None:
    """Docker writes it for `--device-cgroup-rule 'c *:* rw'`."""
    rules(bundle, DENY, rule("rw", major=-1, minor=-1))
    assert may(bundle) == "rw"


def test_a_rule_for_blocks_is_for_no_characters(bundle: Bundle) -> None:
    rules(bundle, DENY, rule(type="b", major=MAJOR, minor=MINOR))
    assert may(bundle) == ""


@pytest.mark.parametrize("entry", [{"allow": True, "type": "a", "access": "rwm"}, {"allow": True, "access": "rwm"}])
def test_a_rule_for_all_types_allows_everything(bundle: Bundle, entry: dict[str, Any]) -> None:
    rules(bundle, DENY, entry)
    assert may(bundle) == "rw"


def test_of_two_rules_the_later_holds(bundle: Bundle) -> None:
    rules(bundle, DENY, rule(major=MAJOR, minor=MINOR), rule(allow=False, major=MAJOR, minor=MINOR))
    assert may(bundle) == ""


def test_a_rule_takes_away_a_part_of_what_an_earlier_one_gives(bundle: Bundle) -> None:
    rules(bundle, DENY, rule(major=MAJOR, minor=MINOR), rule("w", allow=False, major=MAJOR, minor=MINOR))
    assert may(bundle) == "r"


@on_version(2, differs("crun", "asks each rule alone; 'Allowed Device list ... configures the allowed device list'"))
def test_rules_for_one_device_add_up(bundle: Bundle) -> None:
    """Open for reading and writing at once: no rule alone allows it. The kernel's devices.rst: what is allowed is kept
    as a list of exceptions, and one of numbers that are there already is added to."""
    rules(bundle, DENY, rule("r", major=MAJOR, minor=MINOR), rule("w", major=MAJOR, minor=MINOR))
    give(bundle)
    assert bundle.says(f"(exec 3<>{NODE}) 2>&1 | grep -c 'not permitted'; true") == "0"


def test_a_rule_denies_one_device_of_all(bundle: Bundle) -> None:
    rules(bundle, {"allow": True, "access": "rwm"}, rule("rw", allow=False, major=MAJOR, minor=MINOR))
    assert may(bundle) == ""


def test_all_is_denied_again_by_a_later_rule(bundle: Bundle) -> None:
    rules(bundle, DENY, rule(major=MAJOR, minor=MINOR), DENY)
    assert may(bundle) == ""


def test_devices_that_are_there_by_default_can_be_used_whatever_the_rules_are(bundle: Bundle) -> None:
    rules(bundle, DENY)
    bundle.says("for name in null zero full random urandom; do exec 3<>/dev/$name || exit 1; done")


def test_a_node_can_be_made_and_not_be_used(bundle: Bundle) -> None:
    """As engines have it: containers make nodes, to unpack them; they may not open what they made."""
    rules(bundle, DENY, rule("m"), rule("m", "b"))
    for names in bundle.process["capabilities"].values():
        names.append("CAP_MKNOD")
    script = "mknod /tmp/made b 254 77 && chmod 666 /tmp/made && (exec 3</tmp/made) 2>&1 | grep -c 'not permitted'"
    assert bundle.says(script) == "1"


def test_without_the_capability_no_node_is_made(bundle: Bundle) -> None:
    rules(bundle, {"allow": True, "access": "rwm"})
    assert bundle.says("mknod /tmp/made c 1 3 2>/dev/null || echo no") == "no"


def test_an_executed_process_is_bound_by_the_rules_too(bundle: Bundle) -> None:
    rules(bundle, DENY, rule("w", major=MAJOR, minor=MINOR))
    give(bundle)
    with bundle.running():
        assert bundle.sh(TRY) == "w"


def test_a_terminal_can_be_opened_whatever_the_rules_are(bundle: Bundle) -> None:
    rules(bundle, DENY)
    assert bundle.says("exec 3<>/dev/ptmx && ls /dev/pts").split() == ["0", "ptmx"]


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(
            rule("rwx", major=1, minor=1),
            marks=differs("runc", "takes it; 'access - cgroup permissions for device. A composition of r, w, and m'"),
        ),
        rule(type="q", major=1, minor=1),
    ],
)
@differs("crun", "refuses it, and leaves all control groups behind; 'a new container MUST NOT be created'")
def test_a_rule_that_means_nothing_is_an_error(bundle: Bundle, entry: dict[str, Any]) -> None:
    rules(bundle, DENY, entry)
    bundle.refused()


def test_hundred_rules_hold(bundle: Bundle) -> None:
    others = (rule("r", "b", major=200, minor=number) for number in range(100))
    rules(bundle, DENY, *others, rule("r", major=MAJOR, minor=MINOR))
    assert may(bundle) == "r"
