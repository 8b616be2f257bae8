"""Limits of resources: which cannot be meant, and how devices and rules are written. Words are Docker's.

Not its business: what this machine has (facts), how limits become files of control groups (plan.cgroups).
"""

from __future__ import annotations

from cloche.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.request import DeviceLimit, Limits
    from cloche.oci.runtime import DeviceRule

_MEMORY_LEAST = 6 << 20
_PERIODS = (1000, 1_000_000)  # microseconds, of the kernel's CPU bandwidth
_QUOTA_LEAST = 1000
_PARENT_MOST = 3000  # of a path's 4096 bytes: the rest is the hierarchy's and the container's
DEVICE_LIMITS = ("weight", "read_bps", "write_bps", "read_iops", "write_iops")


def check(limits: Limits) -> None:
    """What cannot be meant. Raises Invalid."""
    memory, swap, reserved = limits.memory, limits.memory_swap, limits.memory_reservation
    if memory and memory < _MEMORY_LEAST:
        raise Invalid(f"limit memory to {memory} bytes", "Minimum memory limit allowed is 6MB")
    if swap < -1:
        raise Invalid(f"limit memory and swap to {swap} bytes", "it is negative", "-1 is unlimited")
    if swap > 0 and not memory:
        cause = "You should always set the Memory limit when using Memoryswap limit, see usage"
        raise Invalid(f"limit memory and swap to {swap} bytes", cause)
    if 0 < swap < memory:
        cause = "Minimum memoryswap limit should be larger than memory limit, see usage"
        raise Invalid(f"limit memory and swap to {swap} bytes", cause)
    if reserved and reserved < _MEMORY_LEAST:
        raise Invalid(f"reserve {reserved} bytes of memory", "Minimum memory reservation allowed is 6MB")
    if memory and reserved > memory:
        cause = "Minimum memory limit can not be less than memory reservation limit, see usage"
        raise Invalid(f"reserve {reserved} bytes of memory", cause)
    if limits.nano_cpus and limits.nano_cpus < 10**7:
        raise Invalid(f"limit to {limits.nano_cpus / 1e9:g} CPUs", "Range of CPUs is from 0.01 on")
    if limits.cpu_shares and not 2 <= limits.cpu_shares <= 262144:
        raise Invalid(f"set the CPU shares to {limits.cpu_shares}", "the range is from 2 to 262144")
    for what, text in (("cpus", limits.cpuset_cpus), ("mems", limits.cpuset_mems)):
        if text and not _is_set(text):
            raise Invalid(f"Invalid value {text} for cpuset {what}", "", "such as 0-3 or 0,2")
    if limits.pids < -1:
        raise Invalid(f"limit processes to {limits.pids}", "it is negative", "-1 is unlimited")
    _check_cpu(limits)
    _check_memory(limits)
    _check_blkio(limits)
    if max(memory, swap, reserved, limits.nano_cpus, limits.pids) >= 1 << 63:
        raise Invalid("limit resources", "a number of more than 63 bits")


def _is_set(text: str) -> bool:
    """`0-3,7` as cpuset(7) lists CPUs."""
    for part in text.split(","):
        first, dash, last = part.partition("-")
        ends = [first, last] if dash else [first]
        if not all(end.isascii() and end.isdigit() and len(end) < 6 for end in ends) or int(ends[0]) > int(ends[-1]):
            return False
    return True


def _check_cpu(limits: Limits) -> None:
    if limits.nano_cpus and (limits.cpu_period or limits.cpu_quota):
        other = "CPU Period" if limits.cpu_period else "CPU Quota"
        raise Invalid(f"Conflicting options: Nano CPUs and {other} cannot both be set", "", "--cpus, or the other two")
    if limits.cpu_period and not _PERIODS[0] <= limits.cpu_period <= _PERIODS[1]:
        raise Invalid(
            f"limit CPUs in periods of {limits.cpu_period} us", "CPU cfs period must be between 1ms and 1s", "100000"
        )
    if limits.cpu_quota and limits.cpu_quota != -1 and not _QUOTA_LEAST <= limits.cpu_quota < 1 << 44:
        raise Invalid(f"limit CPUs to {limits.cpu_quota} us", "CPU cfs quota cannot be less than 1ms (i.e. 1000)")
    period, runtime = limits.cpu_rt_period, limits.cpu_rt_runtime
    if period < 0 or runtime < -1 or max(period, runtime) >= 1 << 31 or (period and runtime > period):
        raise Invalid(
            f"limit real-time processes to {runtime} of {period} us", "cpu-rt-runtime is higher than cpu-rt-period"
        )


def _check_memory(limits: Limits) -> None:
    if not -1 <= limits.swappiness <= 100:
        raise Invalid(f"Invalid value: {limits.swappiness}", "valid memory swappiness range is 0-100")


def _check_blkio(limits: Limits) -> None:
    if limits.blkio_weight and not 10 <= limits.blkio_weight <= 1000:
        raise Invalid(
            f"set the weight of block I/O to {limits.blkio_weight}", "Range of blkio weight is from 10 to 1000"
        )
    seen: set[tuple[str, str]] = set()
    for limit in limits.rates:
        what = f"limit {limit.kind.replace('_', ' ')} of {limit.path}"
        if limit.kind not in DEVICE_LIMITS:
            raise Invalid(what, "there is no such limit", f"one of {', '.join(DEVICE_LIMITS)}")
        if limit.path[:5] != "/dev/" or ".." in limit.path.split("/") or "\0" in limit.path:
            raise Invalid(what, "bad format for device path", "/dev/NAME")
        if limit.kind == "weight" and limit.rate and not 10 <= limit.rate <= 1000:
            raise Invalid(what, f"invalid weight {limit.rate}", "from 10 to 1000, or 0")
        if not 0 <= limit.rate < 1 << 63:
            raise Invalid(what, f"invalid rate {limit.rate}", "a number a second, 0 for no limit")
        if (limit.kind, limit.path) in seen:
            raise Invalid(what, "given twice")
        seen.add((limit.kind, limit.path))


def check_parent(path: str) -> None:
    """The group that a container's own shall be in, "" is the store's. Raises Invalid."""
    if not path:
        return
    what = f"make the container's group in {path}"
    parts = path.removeprefix("/").split("/")
    if {"", ".", ".."} & set(parts) or not path.isprintable():
        raise Invalid(what, "it is no plain path", "such as /mine or mine/web, from each hierarchy's root")
    if len(path.encode()) > _PARENT_MOST or any(len(part.encode()) > 255 for part in parts):
        raise Invalid(what, "it is too long")
    if any(part.startswith(("cgroup.", "memory.", "cpu.", "cpuset.", "pids.", "io.")) for part in parts):
        raise Invalid(what, "names like this are the kernel's files")


def device_limit(kind: str, text: str) -> DeviceLimit:
    """`/dev/sda:1mb`, `/dev/sda:300`. Raises Invalid."""
    from cloche.engine import units
    from cloche.engine.request import DeviceLimit

    path, colon, rate = text.rpartition(":")
    if not colon or path[:5] != "/dev/":
        raise Invalid(f"bad format: {text}", "", "/dev/NAME:RATE")
    try:
        number = units.size(rate) if kind.endswith("bps") else units.whole_number(rate)
    except Invalid:
        wanted = "a size such as 1mb" if kind.endswith("bps") else "a whole number"
        raise Invalid(f"invalid rate for device: {text}", "", f"/dev/NAME:RATE, {wanted}") from None
    return DeviceLimit(kind, path, number)


def device_rule(text: str) -> DeviceRule:
    """`c 13:* rwm` of --device-cgroup-rule. Raises Invalid."""
    from cloche.engine.units import is_number
    from cloche.oci.runtime import DeviceRule

    words = text.split(" ")
    numbers = words[1].split(":") if len(words) == 3 else []
    if (
        len(numbers) != 2
        or words[0] not in ("a", "b", "c")
        or not all(n == "*" or (is_number(n) and len(n) < 11) for n in numbers)
        or not words[2]
        or set(words[2]) - set("rwm")
    ):
        raise Invalid(f"invalid device cgroup format '{text}'", "", "such as 'c 13:* rwm'")
    major, minor = (-1 if n == "*" else int(n) for n in numbers)
    return DeviceRule(True, words[0], major, minor, words[2])
