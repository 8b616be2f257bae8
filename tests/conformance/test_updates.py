"""`update`: every limit is changed while the container runs, what is not named stays, and a mistake changes nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

import probes
from conformance.groups import MIB, V2, read, require, resources
from conformance.harness import Bundle, Done, differs
from conformance.settings import SETTINGS, Setting
from probes import requires


def update(bundle: Bundle, wanted: dict[str, Any]) -> Done:
    return bundle.runtime.call("update", "--resources", "-", bundle.id, input=json.dumps(wanted))


OMITTED = differs("runc", "leaves it out of update, which is its own command and not the specification's")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[OMITTED] if name.endswith("swappiness") else [])
        for name in SETTINGS
        if not name.endswith("OOM killer")
    ],
)
def test_a_limit_is_changed(bundle: Bundle, name: str) -> None:
    setting = SETTINGS[name]
    if not setting.expected:
        pytest.skip("needs cgroup version 1")
    require(*setting.expected)
    with bundle.running() as pid:
        done = update(bundle, setting.resources)
        assert done.code == 0, done
        assert not setting.differences(pid)


FLAGS = {
    "--memory": ("67108864", "memory limit"),
    "--memory-reservation": ("33554432", "memory reservation"),
    "--cpu-share": ("512", "shares"),
    "--cpu-quota": ("50000", "quota"),
    "--cpu-period": ("50000", "period"),
    "--cpu-idle": ("1", "idle"),
    "--pids-limit": ("20", "processes"),
    "--cpuset-cpus": ("0", None),
    "--cpuset-mems": ("0", None),
}
BY_FILE = {
    "--cpuset-cpus": Setting({}, "cpuset", {"cpuset.cpus": "0"}, {"cpuset.cpus": "0"}),
    "--cpuset-mems": Setting({}, "cpuset", {"cpuset.mems": "0"}, {"cpuset.mems": "0"}),
}
NO_FLAG = differs("crun", "has no such flag")


@pytest.mark.parametrize("flag", [pytest.param(flag, marks=[NO_FLAG] if "idle" in flag else []) for flag in FLAGS])
def test_a_limit_is_changed_by_a_flag(bundle: Bundle, flag: str) -> None:
    value, name = FLAGS[flag]
    setting = SETTINGS[name] if name else BY_FILE[flag]
    require(*setting.expected)
    with bundle.running() as pid:
        bundle.runtime.ok("update", flag, value, bundle.id)
        assert not setting.differences(pid)


def test_flags_go_together(bundle: Bundle) -> None:
    setting = SETTINGS["quota and period"]
    require(*setting.expected)
    with bundle.running() as pid:
        bundle.runtime.ok("update", "--cpu-quota", "50000", "--cpu-period", "200000", bundle.id)
        assert not setting.differences(pid)


@requires("cgroup:memory")
def test_memory_and_swap_are_raised_and_lowered(bundle: Bundle) -> None:
    """On version 1 the one must never be above the other, so the order in which they are written matters."""
    require("memory.swap.max" if V2 else "memory.memsw.limit_in_bytes")
    with bundle.running() as pid:
        for limit in (64, 128, 32):
            done = update(bundle, {"memory": {"limit": limit * MIB, "swap": limit * MIB}})
            assert done.code == 0, done
            assert read(pid, "memory", "memory.max" if V2 else "memory.limit_in_bytes") == str(limit * MIB)
            if not V2:
                assert read(pid, "memory", "memory.memsw.limit_in_bytes") == str(limit * MIB)


@requires("cgroup:cpu")
def test_a_period_is_lengthened_and_shortened_with_its_quota(bundle: Bundle) -> None:
    require("cpu.max" if V2 else "cpu.cfs_quota_us")
    with bundle.running() as pid:
        for quota, period in ((500000, 500000), (20000, 20000), (900000, 1000000)):
            done = update(bundle, {"cpu": {"quota": quota, "period": period}})
            assert done.code == 0, done
            if V2:
                assert read(pid, "cpu", "cpu.max") == f"{quota} {period}"
            else:
                assert read(pid, "cpu", "cpu.cfs_quota_us") == str(quota)
                assert read(pid, "cpu", "cpu.cfs_period_us") == str(period)


RESETS = "makes the other what it is in a new group, on version 2, where both are in one file"
RESETTING = [differs("crun", RESETS)] if V2 else []


@pytest.mark.parametrize("changed", [pytest.param(name, marks=RESETTING) for name in ("quota", "period")])
@requires("cgroup:cpu")
def test_a_quota_stays_when_its_period_is_changed_and_a_period_when_its_quota_is(bundle: Bundle, changed: str) -> None:
    require("cpu.max" if V2 else "cpu.cfs_quota_us")
    wanted = {"quota": 60000, "period": 200000}
    resources(bundle, cpu=wanted)
    with bundle.running() as pid:
        wanted[changed] += 5000
        assert update(bundle, {"cpu": {changed: wanted[changed]}}).code == 0
        names = ("cpu.max",) if V2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        assert " ".join(read(pid, "cpu", name) for name in names) == f"{wanted['quota']} {wanted['period']}"


@requires("cgroup:memory", "cgroup:pids", "cgroup:cpu")
def test_what_is_not_named_stays(bundle: Bundle) -> None:
    kept = [SETTINGS["memory limit"], SETTINGS["shares"]]
    for setting in kept:
        resources(bundle, **setting.resources)
    with bundle.running() as pid:
        assert update(bundle, SETTINGS["processes"].resources).code == 0
        for setting in [*kept, SETTINGS["processes"]]:
            assert not setting.differences(pid)


@requires("cgroup:memory")
def test_a_limit_is_lifted(bundle: Bundle) -> None:
    resources(bundle, memory={"limit": 64 * MIB})
    with bundle.running() as pid:
        assert update(bundle, {"memory": {"limit": -1}}).code == 0
        assert not SETTINGS["memory without a limit"].differences(pid)


@pytest.mark.skipif(probes.layout() == "none", reason="needs control groups")
@pytest.mark.parametrize(
    "wanted",
    [{"cpu": {"cpus": "7777"}}, {"cpu": {"quota": 1, "period": 100000}}, {"memory": {"limit": 64 * MIB, "swap": MIB}}],
)
def test_a_limit_that_cannot_be_set_is_an_error_and_the_container_goes_on(
    bundle: Bundle, wanted: dict[str, Any]
) -> None:
    with bundle.running():
        assert update(bundle, wanted).code != 0
        assert bundle.status() == "running"
        assert bundle.sh("echo hello") == "hello"


@requires("cgroup:memory")
def test_a_limit_below_what_is_used_is_refused_when_that_is_to_be_checked(bundle: Bundle) -> None:
    """If checkBeforeUpdate is enabled, the runtime MAY check if a new memory limit is lower than the current usage."""
    resources(bundle, memory={"limit": 128 * MIB})
    if probes.available("swap"):
        pytest.skip("needs a machine without swap")
    with bundle.running() as pid:
        bundle.sh("head -c 40000000 /dev/zero >/dev/shm/file")
        done = update(bundle, {"memory": {"limit": 8 * MIB, "checkBeforeUpdate": True}})
        assert done.code != 0
        assert bundle.status() == "running"
        assert read(pid, "memory", "memory.max" if V2 else "memory.limit_in_bytes") == str(128 * MIB)


@requires("cgroup:devices")
def test_rules_for_devices_stay_when_a_limit_is_changed(bundle: Bundle) -> None:
    node = {"path": "/dev/device", "type": "c", "major": 251, "minor": 777, "fileMode": 0o666}
    bundle.linux["devices"] = [node]
    with bundle.running():
        assert update(bundle, {"pids": {"limit": 50}}).code == 0
        assert "not permitted" in bundle.exec("sh", "-c", "exec 3</dev/device").err
        bundle.sh("exec 3</dev/zero")
