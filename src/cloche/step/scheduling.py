"""When and where a process runs: policy, I/O priority, CPUs, memory nodes, and which machine it believes in.

Sources: sched(7), sched_setattr(2), ioprio_set(2), sched_setaffinity(2), set_mempolicy(2), personality(2).
"""

from __future__ import annotations

from cloche.step.base import Flat, Ref, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar

    from cloche.oci.runtime import IOPriority, MemoryPolicy, Scheduler

POLICIES = ("OTHER", "FIFO", "RR", "BATCH", "ISO", "IDLE", "DEADLINE")
_FLAGS = "RESET_ON_FORK RECLAIM DL_OVERRUN KEEP_POLICY KEEP_PARAMS UTIL_CLAMP_MIN UTIL_CLAMP_MAX".split()
_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_MODES = ("DEFAULT", "PREFERRED", "BIND", "INTERLEAVE", "LOCAL", "PREFERRED_MANY", "WEIGHTED_INTERLEAVE")
_MODE_FLAGS = {"MPOL_F_STATIC_NODES": 1 << 15, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_NUMA_BALANCING": 1 << 13}
PERSONALITIES = {"LINUX": 0, "LINUX32": 8}


def bits(text: str) -> bytes:
    """A list of CPUs or nodes, `0-3,7`, as a mask of whole 64-bit words; nothing for an empty one."""
    mask = 0
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        mask |= (1 << int(last or first) + 1) - (1 << int(first))
    words = (mask.bit_length() + 63) // 64
    return mask.to_bytes(words * 8, "little")


class SetScheduler(Step):
    """sched_setattr(2)."""

    because = "How the kernel chooses when it runs, as asked."
    op: ClassVar[str] = "SCHEDULER"
    wanted: Scheduler

    def call(self) -> str:
        w = self.wanted
        times = f", {w.runtime}/{w.deadline}/{w.period} ns" if w.deadline else ""
        return f"sched_setattr(0, {{{w.policy}, nice {w.nice}, priority {w.priority}{times}}})"

    def shell(self) -> str:
        return f"chrt --{self.wanted.policy[6:].lower()} {self.wanted.priority} ..."

    def name(self) -> str:
        return f"set the scheduling policy {self.wanted.policy}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        w = self.wanted
        flags = sum(1 << _FLAGS.index(flag.removeprefix("SCHED_FLAG_")) for flag in w.flags)
        policy = POLICIES.index(w.policy.removeprefix("SCHED_"))
        times = [number - (1 << 64) if number >> 63 else number for number in (w.runtime, w.deadline, w.period)]
        return (policy, flags, w.nice, w.priority, *times), ()


class SetIOPriority(Step):
    """ioprio_set(2)."""

    because = "Whose reading and writing goes first, as asked."
    op: ClassVar[str] = "IOPRIORITY"
    wanted: IOPriority

    def call(self) -> str:
        return f"ioprio_set(IOPRIO_WHO_PROCESS, 0, {self.wanted.kind}, {self.wanted.priority})"

    def shell(self) -> str:
        return f"ionice -c {_CLASSES[self.wanted.kind]} -n {self.wanted.priority} ..."

    def name(self) -> str:
        return f"set the I/O priority {self.wanted.kind} {self.wanted.priority}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (_CLASSES[self.wanted.kind] << 13 | self.wanted.priority,), ()


class SetAffinity(Step):
    """sched_setaffinity(2)."""

    because = "The CPUs that it may run on, of those that its group has."
    op: ClassVar[str] = "AFFINITY"
    cpus: str

    def call(self) -> str:
        return f"sched_setaffinity(0, {{{self.cpus}}})"

    def shell(self) -> str:
        return f"taskset -c {self.cpus} ..."

    def name(self) -> str:
        return f"run on the CPUs {self.cpus}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), (bits(self.cpus),)


class SetMemoryPolicy(Step):
    """set_mempolicy(2)."""

    because = "The memory nodes that it gets its pages from, as asked."
    op: ClassVar[str] = "MEMPOLICY"
    wanted: MemoryPolicy

    def call(self) -> str:
        return f"set_mempolicy({'|'.join((self.wanted.mode, *self.wanted.flags))}, {{{self.wanted.nodes}}})"

    def shell(self) -> str:
        return f"numactl --{self.wanted.mode[5:].lower()}={self.wanted.nodes} ..."

    def name(self) -> str:
        return f"set the memory policy {self.wanted.mode}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        mode = _MODES.index(self.wanted.mode.removeprefix("MPOL_")) | sum(_MODE_FLAGS[f] for f in self.wanted.flags)
        return (mode,), (bits(self.wanted.nodes),)


class SetPersonality(Step):
    """personality(2)."""

    because = "Which kernel it believes to run on: LINUX32 shows a machine of 32 bits."
    op: ClassVar[str] = "PERSONALITY"
    domain: str

    def call(self) -> str:
        return f"personality(PER_{self.domain})"

    def shell(self) -> str:
        return "setarch linux32 ..." if self.domain == "LINUX32" else "setarch linux64 ..."

    def name(self) -> str:
        return f"set the personality {self.domain}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (PERSONALITIES[self.domain],), ()
