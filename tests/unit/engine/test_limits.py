"""Limits of resources: what cannot be meant, how devices and rules are written, which files they become."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.engine.limits import check, check_parent, device_limit, device_rule
from cloche.engine.request import DeviceLimit, Limits, bandwidth
from cloche.errors import Invalid, Unsupported
from cloche.kernel.cgroups import Hierarchy, Layout
from cloche.oci.runtime import DeviceRate, DeviceRule, Resources
from cloche.plan.blkio import io_weight
from cloche.plan.cgroups import limits
from cloche.step.host import Host

V1 = Layout(1, tuple(Hierarchy((c,), f"/c/{c}") for c in ("cpu", "cpuset", "memory", "blkio", "pids")))
V2 = Layout(2, (Hierarchy(("cpu", "cpuset", "io", "memory", "pids"), "/c"),))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Limits(nano_cpus=10**9, cpu_quota=5000), "cannot both be set"),
        (Limits(nano_cpus=10**9, cpu_period=5000), "cannot both be set"),
        (Limits(cpu_period=999), "between 1ms and 1s"),
        (Limits(cpu_period=1_000_001), "between 1ms and 1s"),
        (Limits(cpu_quota=999), "less than 1ms"),
        (Limits(cpu_quota=-2), "less than 1ms"),
        (Limits(cpu_rt_period=10, cpu_rt_runtime=11), "higher than"),
        (Limits(cpuset_mems="x"), "Invalid value x for cpuset mems"),
        (Limits(swappiness=101), "0-100"),
        (Limits(swappiness=-2), "0-100"),
        (Limits(blkio_weight=9), "from 10 to 1000"),
        (Limits(blkio_weight=1001), "from 10 to 1000"),
        (Limits(rates=(DeviceLimit("speed", "/dev/sda", 1),)), "no such limit"),
        (Limits(rates=(DeviceLimit("weight", "/dev/sda", 5),)), "invalid weight"),
        (Limits(rates=(DeviceLimit("read_bps", "/etc/passwd", 5),)), "bad format"),
        (Limits(rates=(DeviceLimit("read_bps", "/dev/../etc/x", 5),)), "bad format"),
        (Limits(rates=(DeviceLimit("read_bps", "/dev/sda", -5),)), "invalid rate"),
        (Limits(rates=(DeviceLimit("read_bps", "/dev/sda", 5),) * 2), "given twice"),
    ],
)
def test_what_cannot_be_meant(wanted: Limits, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        check(wanted)


def test_nothing_and_the_least_and_the_most_can_be_meant() -> None:
    for wanted in (Limits(), Limits(swappiness=0), Limits(cpu_quota=-1), Limits(cpu_period=1000, cpu_quota=1000)):
        check(wanted)
    assert bandwidth(Limits(cpu_quota=-1)) == (-1, None)
    assert bandwidth(Limits(nano_cpus=5 * 10**8)) == (50_000, 100_000)


@pytest.mark.parametrize(
    "path",
    [
        *("..", "../x", "/x/../y", "/", "//x", "/x/", "x//y", "./x", "/x/./y", "x\0y", "x\ny"),
        *("/memory.max", "cgroup.procs/x", "x" * 256, "/".join(["x" * 200] * 20)),
    ],
)
def test_hostile_parents(path: str) -> None:
    with pytest.raises(Invalid):
        check_parent(path)


@pytest.mark.parametrize("path", ["", "/mine", "mine", "mine/web", "/system.slice/x.service"])
def test_parents(path: str) -> None:
    check_parent(path)


@given(st.text())
def test_no_text_makes_a_parent_that_leads_elsewhere(path: str) -> None:
    try:
        check_parent(path)
    except Invalid:
        return
    assert ".." not in path.split("/") and "\0" not in path and "\n" not in path


@pytest.mark.parametrize("text", ["", "/dev/sda", "/dev/sda:", "sda:1", "/etc/x:1", "/dev/sda:-1b", "/dev/sda:1x"])
def test_no_device_limits(text: str) -> None:
    with pytest.raises(Invalid):
        device_limit("read_bps", text)


def test_device_limits() -> None:
    assert device_limit("read_bps", "/dev/sda:1mb") == DeviceLimit("read_bps", "/dev/sda", 1 << 20)
    assert device_limit("read_iops", "/dev/disk/by-id/a:b:7") == DeviceLimit("read_iops", "/dev/disk/by-id/a:b", 7)
    with pytest.raises(Invalid):
        device_limit("read_iops", "/dev/sda:1mb")


@pytest.mark.parametrize(
    "text", ["", "c 1:3", "x 1:3 r", "c 1 r", "c 1:3 x", "c 1:3:4 r", "c -1:3 r", "c 1:3  r", "c ٣:3 r"]
)
def test_no_device_rules(text: str) -> None:
    with pytest.raises(Invalid):
        device_rule(text)


def test_device_rules() -> None:
    assert device_rule("c 13:* rw") == DeviceRule(True, "c", 13, -1, "rw")
    assert device_rule("a *:* rwm") == DeviceRule(True, "a", -1, -1, "rwm")


def written(layout: Layout, wanted: Resources) -> list[tuple[str, str, tuple[tuple[str, str], ...]]]:
    host = Host((6, 1), "x86_64", layout, 0)
    return [(s.path.removeprefix("/c/"), s.content, s.otherwise) for s in limits("/x", wanted, host)]


RATES = (
    DeviceRate("weight", 8, 0, 500),
    DeviceRate("read_bps", 8, 0, 1024),
    DeviceRate("write_iops", 8, 16, 0),
)


def test_the_files_of_version_1() -> None:
    found = written(V1, Resources(blkio_weight=300, rates=RATES, swappiness=0, oom_kill_disable=True, cpu_rt_runtime=5))
    assert found == [
        ("memory/x/memory.swappiness", "0", ()),
        ("memory/x/memory.oom_control", "1", ()),
        ("cpu/x/cpu.rt_runtime_us", "5", ()),
        ("blkio/x/blkio.weight", "300", (("/c/blkio/x/blkio.bfq.weight", "300"),)),
        ("blkio/x/blkio.weight_device", "8:0 500", (("/c/blkio/x/blkio.bfq.weight_device", "8:0 500"),)),
        ("blkio/x/blkio.throttle.read_bps_device", "8:0 1024", ()),
        ("blkio/x/blkio.throttle.write_iops_device", "8:16 0", ()),
    ]


def test_the_files_of_version_2() -> None:
    assert written(V2, Resources(blkio_weight=1000, rates=RATES, cpuset_mems="0")) == [
        ("x/cpuset.mems", "0", ()),
        ("x/io.bfq.weight", "1000", (("/c/x/io.weight", "default 10000"),)),
        ("x/io.bfq.weight", "8:0 500", (("/c/x/io.weight", f"8:0 {io_weight(500)}"),)),
        ("x/io.max", "8:0 rbps=1024", ()),
        ("x/io.max", "8:16 wiops=max", ()),
    ]
    assert (io_weight(10), io_weight(1000)) == (1, 10000)


@pytest.mark.parametrize(
    "wanted", [Resources(swappiness=0), Resources(oom_kill_disable=True), Resources(cpu_rt_period=1000)]
)
def test_what_version_2_has_not_is_refused(wanted: Resources) -> None:
    with pytest.raises(Unsupported, match="cgroup v2 has no"):
        written(V2, wanted)


@pytest.mark.parametrize(
    ("memory", "both", "alone"),
    [(64, 96, "32"), (64, 64, "0"), (64, -1, "max"), (None, -1, "max"), (-1, -1, "max")],
)
def test_swap_of_version_2_is_swap_alone(memory: int | None, both: int, alone: str) -> None:
    assert ("x/memory.swap.max", alone, ()) in written(V2, Resources(memory_limit=memory, memory_swap=both))


@pytest.mark.parametrize("memory", [65, -1, None])
def test_less_swap_than_none_is_refused(memory: int | None) -> None:
    with pytest.raises(Invalid, match="limit memory and swap to 64 bytes"):
        written(V2, Resources(memory_limit=memory, memory_swap=64))


@pytest.mark.parametrize(
    ("quota", "period", "text"),
    [(5000, 20000, "5000 20000"), (5000, None, "5000"), (None, 20000, "max 20000"), (-1, 20000, "max 20000")],
)
def test_a_quota_of_version_2_leaves_the_period(quota: int | None, period: int | None, text: str) -> None:
    assert written(V2, Resources(cpu_quota=quota, cpu_period=period)) == [("x/cpu.max", text, ())]


def test_a_controller_that_is_missing_is_named() -> None:
    with pytest.raises(Unsupported, match="no blkio cgroup controller"):
        written(Layout(1, (Hierarchy(("memory",), "/c/memory"),)), Resources(blkio_weight=300))
