"""What the kernel keeps for a process beside its rights: scheduling, names, sysctls, personality, keyrings."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import pytest

import probes
from conformance.harness import Bundle, cgroup, differs
from probes import libc, requires

# Scheduler


@pytest.mark.parametrize(
    ("scheduler", "policy", "nice"),
    [
        ({"policy": "SCHED_OTHER", "nice": 7}, os.SCHED_OTHER, 7),
        ({"policy": "SCHED_BATCH", "nice": 3}, os.SCHED_BATCH, 3),
        ({"policy": "SCHED_BATCH"}, os.SCHED_BATCH, 0),
        ({"policy": "SCHED_IDLE"}, os.SCHED_IDLE, 0),
    ],
    ids=["other", "batch", "batch-nice-0", "idle"],
)
def test_the_scheduler_is_set(bundle: Bundle, scheduler: dict[str, Any], policy: int, nice: int) -> None:
    bundle.process["scheduler"] = scheduler
    with bundle.running() as pid:
        assert os.sched_getscheduler(pid) == policy
        assert os.getpriority(os.PRIO_PROCESS, pid) == nice


def real_time() -> None:
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def test_a_real_time_scheduler_is_set(bundle: Bundle) -> None:
    if not probes.succeeds(real_time):
        pytest.skip("needs real-time scheduling")
    if probes.available("cgroup:cpu") and (cgroup(os.getpid(), "cpu") / "cpu.rt_runtime_us").exists():
        bundle.linux["resources"]["cpu"] = {"realtimeRuntime": 100_000, "realtimePeriod": 1_000_000}
    bundle.process["scheduler"] = {"policy": "SCHED_RR", "priority": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
    with bundle.running() as pid:
        assert os.sched_getscheduler(pid) == os.SCHED_RR | os.SCHED_RESET_ON_FORK
        assert os.sched_getparam(pid).sched_priority == 5


def test_a_deadline_scheduler_is_set(bundle: Bundle) -> None:
    bundle.process["scheduler"] = {
        "policy": "SCHED_DEADLINE",
        "runtime": 1_000_000,
        "deadline": 10_000_000,
        "period": 10_000_000,
    }
    with bundle.running() as pid:
        assert os.sched_getscheduler(pid) == 6


@pytest.mark.parametrize(
    "scheduler",
    [{"policy": "SCHED_NONSENSE"}, {"policy": ""}, {"policy": "SCHED_OTHER", "flags": ["NONSENSE"]}],
    ids=["policy", "empty", "flag"],
)
def test_a_scheduler_that_there_is_not_is_an_error(bundle: Bundle, scheduler: dict[str, Any]) -> None:
    bundle.process["scheduler"] = scheduler
    bundle.refused("true")


# I/O priority


@pytest.mark.parametrize(
    ("kind", "priority", "said"),
    [
        ("IOPRIO_CLASS_BE", 6, "best-effort: prio 6"),
        ("IOPRIO_CLASS_RT", 2, "realtime: prio 2"),
        ("IOPRIO_CLASS_IDLE", 0, "idle"),
    ],
    ids=["best-effort", "real-time", "idle"],
)
def test_the_io_priority_is_set(bundle: Bundle, kind: str, priority: int, said: str) -> None:
    bundle.process["ioPriority"] = {"class": kind, "priority": priority}
    assert bundle.run("ionice").out.strip().startswith(said)


@pytest.mark.parametrize("entry", [{"class": "NONSENSE", "priority": 1}, {"class": "", "priority": 1}], ids=ascii)
def test_an_io_priority_that_there_is_not_is_an_error(bundle: Bundle, entry: dict[str, Any]) -> None:
    bundle.process["ioPriority"] = entry
    bundle.refused("true")


# Affinity


@differs("crun", "looks for it in a file of --process only, and not in the configuration")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs a second processor")
def test_the_affinity_of_executed_processes_is_not_the_first_ones(bundle: Bundle) -> None:
    """execCPUAffinity: "This setting is not applicable to the container's init process"."""
    bundle.process["execCPUAffinity"] = {"initial": "0", "final": "0"}
    with bundle.running() as pid:
        assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)
        assert bundle.sh("grep Cpus_allowed_list /proc/self/status").split()[1] == "0"


# Names


def test_the_host_name_is_set_for_the_container_alone(bundle: Bundle) -> None:
    before = os.uname().nodename
    bundle.config["hostname"] = "name.of-container"
    assert bundle.says("hostname") == "name.of-container"
    assert os.uname().nodename == before


def test_without_a_host_name_the_container_has_the_callers(bundle: Bundle) -> None:
    del bundle.config["hostname"]
    assert bundle.says("hostname") == os.uname().nodename


def test_the_domain_name_is_set_for_the_container_alone(bundle: Bundle) -> None:
    file = Path("/proc/sys/kernel/domainname")
    before = file.read_text()
    bundle.config["domainname"] = "example.test"
    assert bundle.says(f"cat {file}") == "example.test"
    assert file.read_text() == before


@pytest.mark.parametrize("field", ["hostname", "domainname"])
def test_a_name_that_is_too_long_is_an_error(bundle: Bundle, field: str) -> None:
    """__NEW_UTS_LEN is 64."""
    bundle.config[field] = "x" * 65
    bundle.refused("true")


@pytest.mark.parametrize("field", ["hostname", "domainname"])
def test_a_name_in_the_callers_namespace_is_an_error(bundle: Bundle, field: str) -> None:
    """It would be the machine's."""
    del bundle.config["hostname"]
    name = os.uname().nodename if field == "hostname" else Path("/proc/sys/kernel/domainname").read_text().strip()
    bundle.config[field] = name  # so that nothing is changed by a runtime that does it
    bundle.without_namespace("uts")
    bundle.refused("true")


# Sysctls


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.ip_local_port_range", "2000 3000"),
        ("net/ipv4/ping_group_range", "0 5"),
        ("kernel.msgmax", "9000"),
        ("kernel.shm_rmid_forced", "1"),
        ("fs.mqueue.msg_max", "20"),
    ],
)
def test_a_sysctl_of_one_of_its_namespaces_is_set(bundle: Bundle, name: str, value: str) -> None:
    file = f"/proc/sys/{name.replace('.', '/')}"
    if not Path(file).exists():
        pytest.skip(f"needs {file}")
    before = Path(file).read_text()
    bundle.linux["sysctl"] = {name: value}
    assert bundle.says(f"cat {file}").split() == value.split()
    assert Path(file).read_text() == before


def test_sysctls_are_set_though_proc_is_read_only_for_the_program(bundle: Bundle) -> None:
    bundle.linux["sysctl"] = {"kernel.msgmax": "9001"}
    assert (
        bundle.says("cat /proc/sys/kernel/msgmax; echo 1 2>/dev/null > /proc/sys/kernel/msgmax || echo no")
        == "9001\nno"
    )


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("vm.swappiness", ""),
        ("kernel.pid_max", ""),
        ("kernel.msgmax", "ipc"),
        ("net.ipv4.ip_forward", "network"),
        ("kernel.domainname", "uts"),
    ],
    ids=lambda value: value or "all",
)
def test_a_sysctl_of_the_whole_machine_is_an_error(bundle: Bundle, name: str, without: str) -> None:
    """The value is the one it has, so that nothing is changed by a runtime that does it."""
    del bundle.config["hostname"]
    if without:
        bundle.without_namespace(without)
    bundle.linux["sysctl"] = {name: Path(f"/proc/sys/{name.replace('.', '/')}").read_text().strip()}
    bundle.refused("true")


@pytest.mark.parametrize(
    ("name", "value"),
    [("net.ipv4.nonsense", "1"), ("net.ipv4.ip_forward", "nonsense"), ("net.../../../kernel/x", "1"), ("", "1")],
    ids=["name", "value", "path", "empty"],
)
def test_a_sysctl_that_cannot_be_set_is_an_error(bundle: Bundle, name: str, value: str) -> None:
    bundle.linux["sysctl"] = {name: value}
    bundle.refused("true")


# Personality


@pytest.mark.parametrize(("domain", "number"), [("LINUX", "00000000"), ("LINUX32", "00000008")])
def test_the_personality_is_set(bundle: Bundle, domain: str, number: str) -> None:
    bundle.linux["personality"] = {"domain": domain}
    assert bundle.says("cat /proc/self/personality") == number


@pytest.mark.skipif(platform.machine() != "x86_64", reason="says what other architectures are called")
@requires("linux32")
def test_a_program_of_32_bits_sees_a_machine_of_32_bits(bundle: Bundle) -> None:
    bundle.linux["personality"] = {"domain": "LINUX32"}
    assert bundle.says("uname -m") == "i686"


@pytest.mark.parametrize("entry", [{"domain": "NONSENSE"}, {"domain": ""}], ids=ascii)
def test_a_personality_that_there_is_not_is_an_error(bundle: Bundle, entry: dict[str, Any]) -> None:
    bundle.linux["personality"] = entry
    bundle.refused("true")


# Keyrings: keyctl(2), and /proc/keys shows a process what it may look at

KEYCTL = {"x86_64": 250, "aarch64": 219}.get(platform.machine(), 0)
JOIN_SESSION, SET_PERMISSIONS, SESSION, OWNERS = 1, 5, -3, 0x3F000000
KEYS = requires("file:/proc/keys")


def own_keyring() -> None:
    """A session keyring that only who possesses it can see."""
    if libc.syscall(KEYCTL, JOIN_SESSION, b"cf-callers") < 0 or libc.syscall(KEYCTL, SET_PERMISSIONS, SESSION, OWNERS):
        os._exit(70)


@KEYS
@pytest.mark.skipif(not KEYCTL, reason="needs keyctl's number")
@pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
def test_the_container_has_a_session_keyring_of_its_own_unless_it_keeps_the_callers(bundle: Bundle, kept: bool) -> None:
    bundle.linux["maskedPaths"].remove("/proc/keys")
    flags = ("--no-new-keyring",) if kept else ()
    done = bundle.run("cat", "/proc/keys", flags=flags, preexec_fn=own_keyring)
    assert done.code == 0
    assert ("cf-callers" in done.out) == kept
