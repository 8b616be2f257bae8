"""Settings of `linux.resources`, and what the files of the control groups must say of each, on version 1 and 2."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from conformance.groups import MIB, UNLIMITED, V2, read


def weight(shares: int) -> set[str]:
    """cpu.weight of cpu.shares: by the linear formula of old, or by the one that makes 1024, the default, 100."""
    power = math.log2(shares)
    curve = 10 ** ((power * power + 125 * power) / 612 - 7 / 34)
    return {str(1 + (shares - 2) * 9999 // 262142), str(math.ceil(curve))}


class Setting(NamedTuple):
    """Resources, and what the files of their controller must say then, on version 1 and on version 2.

    Where a version has no files for them it cannot have them, and asking is an error.
    """

    resources: dict[str, Any]
    controller: str
    v1: dict[str, str | set[str]]
    v2: dict[str, str | set[str]]

    @property
    def expected(self) -> dict[str, str | set[str]]:
        return self.v2 if V2 else self.v1

    def differences(self, pid: int) -> list[str]:
        found = []
        for name, value in self.expected.items():
            said = read(pid, self.controller, name)
            if said not in (value if isinstance(value, set) else {value}):
                found.append(f"{name} is {said!r} and not {value!r}")
        return found


def memory(**settings: Any) -> dict[str, Any]:
    return {"memory": settings}


def cpu(**settings: Any) -> dict[str, Any]:
    return {"cpu": settings}


SETTINGS = {
    "memory limit": Setting(
        memory(limit=64 * MIB),
        "memory",
        {"memory.limit_in_bytes": str(64 * MIB)},
        {"memory.max": str(64 * MIB)},
    ),
    "memory without a limit": Setting(
        memory(limit=-1), "memory", {"memory.limit_in_bytes": UNLIMITED}, {"memory.max": "max"}
    ),
    "memory reservation": Setting(
        memory(reservation=32 * MIB),
        "memory",
        {"memory.soft_limit_in_bytes": str(32 * MIB)},
        {"memory.low": str(32 * MIB)},
    ),
    "memory and swap": Setting(
        memory(limit=64 * MIB, swap=96 * MIB),
        "memory",
        {"memory.limit_in_bytes": str(64 * MIB), "memory.memsw.limit_in_bytes": str(96 * MIB)},
        {"memory.max": str(64 * MIB), "memory.swap.max": str(32 * MIB)},
    ),
    "no swap": Setting(
        memory(limit=64 * MIB, swap=64 * MIB),
        "memory",
        {"memory.limit_in_bytes": str(64 * MIB), "memory.memsw.limit_in_bytes": str(64 * MIB)},
        {"memory.max": str(64 * MIB), "memory.swap.max": "0"},
    ),
    "swap without a limit": Setting(
        memory(limit=64 * MIB, swap=-1),
        "memory",
        {"memory.limit_in_bytes": str(64 * MIB), "memory.memsw.limit_in_bytes": UNLIMITED},
        {"memory.max": str(64 * MIB), "memory.swap.max": "max"},
    ),
    "swappiness": Setting(memory(swappiness=7), "memory", {"memory.swappiness": "7"}, {}),
    "no swappiness": Setting(memory(swappiness=0), "memory", {"memory.swappiness": "0"}, {}),
    "no OOM killer": Setting(
        memory(disableOOMKiller=True), "memory", {"memory.oom_control": "oom_kill_disable 1 under_oom 0 oom_kill 0"}, {}
    ),
    "OOM killer": Setting(
        memory(disableOOMKiller=False),
        "memory",
        {"memory.oom_control": "oom_kill_disable 0 under_oom 0 oom_kill 0"},
        {"memory.max": "max"},
    ),
    "few shares": Setting(cpu(shares=2), "cpu", {"cpu.shares": "2"}, {"cpu.weight": weight(2)}),
    "shares": Setting(cpu(shares=512), "cpu", {"cpu.shares": "512"}, {"cpu.weight": weight(512)}),
    "all shares": Setting(cpu(shares=262144), "cpu", {"cpu.shares": "262144"}, {"cpu.weight": weight(262144)}),
    "quota and period": Setting(
        cpu(quota=50000, period=200000),
        "cpu",
        {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "200000"},
        {"cpu.max": "50000 200000"},
    ),
    "quota": Setting(
        cpu(quota=50000),
        "cpu",
        {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"},
        {"cpu.max": "50000 100000"},
    ),
    "period": Setting(
        cpu(period=50000), "cpu", {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "50000"}, {"cpu.max": "max 50000"}
    ),
    "no quota": Setting(
        cpu(quota=-1, period=50000),
        "cpu",
        {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "50000"},
        {"cpu.max": "max 50000"},
    ),
    "burst": Setting(
        cpu(quota=50000, period=100000, burst=30000),
        "cpu",
        {"cpu.cfs_quota_us": "50000", "cpu.cfs_burst_us": "30000"},
        {"cpu.max": "50000 100000", "cpu.max.burst": "30000"},
    ),
    "idle": Setting(cpu(idle=1), "cpu", {"cpu.idle": "1"}, {"cpu.idle": "1"}),
    "not idle": Setting(cpu(idle=0), "cpu", {"cpu.idle": "0"}, {"cpu.idle": "0"}),
    "realtime": Setting(
        cpu(realtimeRuntime=10000, realtimePeriod=500000),
        "cpu",
        {"cpu.rt_runtime_us": "10000", "cpu.rt_period_us": "500000"},
        {},
    ),
    "processors": Setting(
        cpu(cpus="0", mems="0"),
        "cpuset",
        {"cpuset.cpus": "0", "cpuset.mems": "0"},
        {"cpuset.cpus": "0", "cpuset.mems": "0"},
    ),
    "processes": Setting({"pids": {"limit": 20}}, "pids", {"pids.max": "20"}, {"pids.max": "20"}),
    "any number of processes": Setting({"pids": {"limit": -1}}, "pids", {"pids.max": "max"}, {"pids.max": "max"}),
}
