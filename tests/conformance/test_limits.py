"""Limits of `linux.resources`: each is found in the files of the container's control groups, or asking is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import probes
from conformance.groups import MIB, V2, VERSION_1, has, on_version, read, require, resources
from conformance.harness import Bundle, cgroup, differs
from conformance.settings import SETTINGS, cpu, memory
from probes import requires

LEAVES = differs(
    "crun", "leaves all of its control groups; 'it MUST generate an error and a new container MUST NOT be created'"
)
MUST = "'If the runtime cannot apply a property as specified in the configuration, it MUST generate an error'"
IGNORED_BY_CRUN = differs("crun", f"ignores it; {MUST}")
IGNORED_BY_RUNC = differs("runc", f"ignores on version 2 what is of version 1; {MUST}")
NO_ZERO = "takes 0 for unlimited; '0 is a valid limit value ... and SHOULD be treated as such by runtimes'"


@pytest.mark.parametrize("name", SETTINGS)
def test_a_limit_is_found_in_the_groups_of_the_container(bundle: Bundle, name: str) -> None:
    setting = SETTINGS[name]
    if not setting.expected:
        pytest.skip("needs cgroup version 1")
    require(*setting.expected)
    resources(bundle, **setting.resources)
    with bundle.created() as pid:
        assert not setting.differences(pid)


@requires("cgroup:v2")
@IGNORED_BY_RUNC
@pytest.mark.parametrize("name", [name for name, setting in SETTINGS.items() if not setting.v2])
def test_a_limit_that_version_2_does_not_have_is_an_error(bundle: Bundle, name: str) -> None:
    """If the conversion is not possible the runtime MUST generate an error."""
    resources(bundle, **SETTINGS[name].resources)
    assert bundle.create().code != 0
    bundle.runtime.sweep()


@VERSION_1
@requires("cgroup:memory")
def test_memory_is_counted_with_that_of_inner_groups(bundle: Bundle) -> None:
    """Version 2 knows nothing else, and asking for it may be an error there."""
    resources(bundle, memory={"useHierarchy": True})
    with bundle.created() as pid:
        assert read(pid, "memory", "memory.use_hierarchy") == "1"


@differs("runc", NO_ZERO)
@differs("crun", NO_ZERO)
@requires("cgroup:pids")
def test_no_process_is_a_number_of_processes_too(bundle: Bundle) -> None:
    """From 1.3 on, where absent and 0 became two things."""
    bundle.config["ociVersion"] = "1.3.0"
    resources(bundle, pids={"limit": 0})
    with bundle.created() as pid:
        assert read(pid, "pids", "pids.max") == "0"


@requires("cgroup:pids")
def test_a_container_has_no_more_processes_than_it_may(bundle: Bundle) -> None:
    resources(bundle, pids={"limit": 8})
    done = bundle.run("sh", "-c", "for n in $(seq 20); do sleep 1000 & done")
    assert done.code != 0
    assert "fork" in done.err


@requires("cgroup:memory")
def test_a_process_that_takes_more_memory_than_it_may_is_killed(bundle: Bundle) -> None:
    resources(bundle, memory={"limit": 32 * MIB})
    if has("memory.memsw.limit_in_bytes" if not V2 else "memory.swap.max"):
        bundle.linux["resources"]["memory"]["swap"] = 32 * MIB
    assert bundle.run("sh", "-c", "head -c 100000000 /dev/zero | tail -c 90000000 >/dev/null").code == 137


@requires("cgroup:cpuset")
def test_a_container_runs_on_its_processors(bundle: Bundle) -> None:
    resources(bundle, cpu={"cpus": "0"})
    assert bundle.says("grep Cpus_allowed_list /proc/self/status").split()[1] == "0"


@VERSION_1
@requires("cgroup:cpuset")
def test_a_container_without_processors_of_its_own_has_those_of_its_parent(bundle: Bundle) -> None:
    with bundle.created() as pid:
        folder = cgroup(pid, "cpuset")
        for name in ("cpuset.cpus", "cpuset.mems"):
            assert (folder / name).read_text() == (folder.parent / name).read_text()


# Block devices


@pytest.fixture
def disk() -> tuple[int, int]:
    """The numbers of a disk that is there."""
    for place in sorted(Path("/sys/block").iterdir()):
        if not place.name.startswith(("loop", "ram", "zram")):
            major, minor = (place / "dev").read_text().split(":")
            return int(major), int(minor)
    pytest.skip("needs a block device")


def test_a_weight_of_block_devices_is_set(bundle: Bundle) -> None:
    """On version 2 by the file of whichever scheduler there is: io.bfq.weight takes it as it is."""
    names = {
        **({"blkio.weight": "500", "blkio.bfq.weight": "500"} if not V2 else {}),
        **({"io.bfq.weight": "default 500", "io.weight": "default 4950"} if V2 else {}),
    }
    there = [name for name in names if has(name)]
    if not there:
        require(*names)
    resources(bundle, blockIO={"weight": 500})
    with bundle.created() as pid:
        assert any(read(pid, "io" if V2 else "blkio", name) == names[name] for name in there)


@requires("cgroup:io" if V2 else "cgroup:blkio")
def test_rates_of_a_block_device_are_set(bundle: Bundle, disk: tuple[int, int]) -> None:
    major, minor = disk
    rates = {"ReadBps": 1048576, "WriteBps": 2097152, "ReadIOPS": 101, "WriteIOPS": 102}
    entries = {
        f"throttle{name}Device": [{"major": major, "minor": minor, "rate": rate}] for name, rate in rates.items()
    }
    resources(bundle, blockIO=entries)
    with bundle.created() as pid:
        if V2:
            assert read(pid, "io", "io.max") == f"{major}:{minor} rbps=1048576 wbps=2097152 riops=101 wiops=102"
            return
        for name, rate in zip(("read_bps", "write_bps", "read_iops", "write_iops"), rates.values(), strict=True):
            assert read(pid, "blkio", f"blkio.throttle.{name}_device") == f"{major}:{minor} {rate}"


def test_a_rate_of_one_kind_leaves_the_others(bundle: Bundle, disk: tuple[int, int]) -> None:
    require("io.max" if V2 else "blkio.throttle.write_bps_device")
    major, minor = disk
    resources(bundle, blockIO={"throttleWriteBpsDevice": [{"major": major, "minor": minor, "rate": 1048576}]})
    with bundle.created() as pid:
        if V2:
            assert read(pid, "io", "io.max") == f"{major}:{minor} rbps=max wbps=1048576 riops=max wiops=max"
        else:
            assert read(pid, "blkio", "blkio.throttle.write_bps_device") == f"{major}:{minor} 1048576"
            assert read(pid, "blkio", "blkio.throttle.read_bps_device") == ""


# Huge pages, network, RDMA


@requires("cgroup:hugetlb")
def test_huge_pages_are_limited(bundle: Bundle) -> None:
    """Of the limits on reservations and on usage at least one is set, reservations where there are such."""
    files = ("hugetlb.2MB.rsvd.max", "hugetlb.2MB.max") if V2 else ()
    files = files or ("hugetlb.2MB.rsvd.limit_in_bytes", "hugetlb.2MB.limit_in_bytes")
    there = [name for name in files if has(name)]
    if not there:
        require(files[-1])
    resources(bundle, hugepageLimits=[{"pageSize": "2MB", "limit": 4 * MIB}])
    with bundle.created() as pid:
        assert read(pid, "hugetlb", there[0]) == str(4 * MIB)


@requires("cgroup:net_cls")
def test_the_class_of_network_packets_is_set(bundle: Bundle) -> None:
    resources(bundle, network={"classID": 1048577})
    with bundle.created() as pid:
        assert read(pid, "net_cls", "net_cls.classid") == "1048577"


@requires("cgroup:net_prio")
def test_the_priority_of_network_packets_is_set(bundle: Bundle) -> None:
    resources(bundle, network={"priorities": [{"name": "lo", "priority": 5}]})
    with bundle.created() as pid:
        assert "lo 5" in read(pid, "net_prio", "net_prio.ifpriomap")


CANNOT: dict[str, tuple[dict[str, Any], str]] = {
    "a page size": ({"hugepageLimits": [{"pageSize": "3MB", "limit": 4 * MIB}]}, ""),
    "huge pages": ({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]}, "hugetlb"),
    "a class of packets": ({"network": {"classID": 1048577}}, "net_cls"),
    "priorities": ({"network": {"priorities": [{"name": "lo", "priority": 5}]}}, "net_prio"),
    "RDMA": ({"rdma": {"mlx5_1": {"hcaHandles": 3}}}, "rdma"),
    "a processor that there is not": (cpu(cpus="7777"), ""),
    "a processor that is no number": (cpu(cpus="first"), ""),
    "a memory node that there is not": (cpu(mems="77"), ""),
    "a quota that is too small": (cpu(quota=1, period=100000), ""),
    "a period that is too long": (cpu(quota=10000, period=100000000), ""),
    "swap below the limit": (memory(limit=64 * MIB, swap=32 * MIB), ""),
    "an idleness that there is not": (cpu(idle=2), ""),
    "too much swappiness": (memory(swappiness=201), ""),
    "a device that there is not": ({"blockIO": {"throttleReadBpsDevice": [{"major": 77, "minor": 7, "rate": 9}]}}, ""),
    "a leaf's weight": ({"blockIO": {"leafWeight": 500}}, ""),
}


OF_VERSION_1 = ("a class of packets", "priorities", "too much swappiness", "a leaf's weight")
KNOWN = {"RDMA": IGNORED_BY_CRUN, **dict.fromkeys(OF_VERSION_1, on_version(2, IGNORED_BY_RUNC))}


@pytest.mark.parametrize("name", [pytest.param(name, marks=KNOWN.get(name, [])) for name in CANNOT])
def test_a_limit_that_cannot_be_set_is_an_error(bundle: Bundle, name: str) -> None:
    """If the runtime cannot apply a property as specified in the configuration, it MUST generate an error."""
    wanted, controller = CANNOT[name]
    if controller and probes.available(f"cgroup:{controller}"):
        pytest.skip(f"needs a machine without {controller}")
    resources(bundle, **wanted)
    assert bundle.create().code != 0
    bundle.runtime.sweep()


@LEAVES
def test_nothing_is_left_of_a_container_whose_limits_cannot_be_set(bundle: Bundle) -> None:
    resources(bundle, cpu={"cpus": "7777"})
    bundle.refused()


# The unified hierarchy's own names


@requires("cgroup:v2")
@pytest.mark.parametrize(
    ("file", "value"), [("memory.high", "67108864"), ("pids.max", "77"), ("memory.oom.group", "1")]
)
def test_a_file_of_version_2_is_written_by_its_name(bundle: Bundle, file: str, value: str) -> None:
    resources(bundle, unified={file: value})
    with bundle.created() as pid:
        assert read(pid, file.partition(".")[0], file) == value


@requires("cgroup:v2")
@pytest.mark.parametrize(
    ("file", "value"),
    [
        *(("weather.max", "1"), ("memory.weather", "1"), ("pids.max", "many"), ("../pids.max", "1"), ("nothing", "1")),
        ("memory/../pids.max", "1"),
    ],
)
def test_a_file_of_version_2_that_cannot_be_written_is_an_error(bundle: Bundle, file: str, value: str) -> None:
    resources(bundle, unified={file: value})
    assert bundle.create().code != 0
    bundle.runtime.sweep()


@LEAVES
@VERSION_1
def test_a_file_of_version_2_cannot_be_had_on_version_1(bundle: Bundle) -> None:
    """The runtime MUST generate an error when the configuration refers to a cgroup controller that is not present."""
    resources(bundle, unified={"memory.high": "67108864"})
    bundle.refused()
