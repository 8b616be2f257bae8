"""Processes as /proc shows them, proc_pid_stat(5): start time, state, exit status of a zombie."""

from __future__ import annotations

_PF_EXITING = 0x4


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on; [0] is the state. Raises OSError when there is no such
    process."""
    with open(f"/proc/{pid}/stat", "rb") as stat:
        return stat.read().rsplit(b")", 1)[1].decode().split()


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot: with the pid, its identity. 0 when there is no such
    process."""
    try:
        return int(stat_fields(pid)[19])
    except OSError:
        return 0


def lives(pid: int, started: int) -> bool:
    """Whether the process that had this pid and start time is there and is not ending.

    A zombie has ended; so has the first process of a pid namespace that still waits for the others to be killed: its
    namespaces are gone by then. Source: proc_pid_stat(5), flags.
    """
    try:
        fields = stat_fields(pid)
    except OSError:
        return False
    return int(fields[19]) == started and fields[0] not in ("Z", "X") and not int(fields[6]) & _PF_EXITING


def children() -> list[int]:
    """The pids of the caller's children, ended ones too. Source: proc_pid_task(5); where the kernel lacks it, all of
    /proc."""
    import os

    me = os.getpid()
    try:
        with open(f"/proc/{me}/task/{me}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except FileNotFoundError:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return [pid for pid in pids if parent(pid) == me]


def parent(pid: int) -> int:
    """The parent's pid; 0 when there is no such process."""
    try:
        return int(stat_fields(pid)[1])
    except OSError:
        return 0


def zombie_status(pid: int) -> int | None:
    """The wait status of a zombie (field 52), None for a process that is not one or is gone."""
    try:
        fields = stat_fields(pid)
    except OSError:
        return None
    return int(fields[49]) if fields[0] == "Z" else None


def boot_id() -> str:
    """The kernel's name for this boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
