"""linux.resources of the runtime spec: what a container may use. Read from a config.json, or given to an update.

Sources: config-linux.md, from Control groups to Unified; the kernel's admin-guide/cgroup-v1 and cgroup-v2.rst. A limit
of 0 says nothing where the kernel knows no such limit: Docker wrote `"cpu": {"shares": 0}` where nothing was asked for,
and other runtimes read it so. Not its business: which files of a control group these become.
"""

from __future__ import annotations

from cloche.oci.document import NUMBER_MAX, NUMBER_MIN, UINT16_MAX, UINT32_MAX, UINT64_MAX, parse_object
from cloche.oci.runtime import DeviceRate, DeviceRule, Rdma, Resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.oci.document import Object

UNLIMITED = -1
# blockIO's lists of devices: what is limited, in DeviceRate's words
THROTTLES = (
    ("throttleReadBpsDevice", "read_bps"),
    ("throttleWriteBpsDevice", "write_bps"),
    ("throttleReadIOPSDevice", "read_iops"),
    ("throttleWriteIOPSDevice", "write_iops"),
)
WEIGHT_MIN, WEIGHT_MAX = 10, 1000  # of CFQ and of runtimes; the kernel refuses others
SWAPPINESS_MAX = 100
LINK_NAME_MAX = 15  # bytes, the kernel's IFNAMSIZ without the zero byte


def parse_resources(data: bytes | str) -> Resources:
    """The document of `update --resources`. Raises Invalid with the path of the wrong member, as `memory.limit`."""
    return resources(parse_object(data, "read the resources"), 3)


def resources(part: Object, minor: int) -> Resources:
    """linux.resources of a document by the specification 1.`minor`. Raises Invalid."""
    memory, cpu, block, network = part.part("memory"), part.part("cpu"), part.part("blockIO"), part.part("network")
    memory.flag("useHierarchy")  # the kernel has known nothing else since 5.11
    return Resources(
        memory_limit=_bytes(memory, "limit"),
        memory_swap=_bytes(memory, "swap"),
        memory_reservation=_bytes(memory, "reservation"),
        kernel_memory=_bytes(memory, "kernel"),
        kernel_memory_tcp=_bytes(memory, "kernelTCP"),
        swappiness=_swappiness(memory),
        oom_kill_disable=memory.flag("disableOOMKiller"),
        check_before_update=memory.flag("checkBeforeUpdate"),
        cpu_shares=cpu.optional("shares", 0, UINT64_MAX) or None,
        cpu_quota=_signed(cpu, "quota"),
        cpu_period=cpu.optional("period", 0, UINT64_MAX) or None,
        cpu_rt_runtime=_signed(cpu, "realtimeRuntime"),
        cpu_rt_period=cpu.optional("realtimePeriod", 0, UINT64_MAX) or None,
        cpu_burst=cpu.optional("burst", 0, UINT64_MAX),
        cpu_idle=cpu.optional("idle", 0, 1),
        cpuset_cpus=cpu.text("cpus"),
        cpuset_mems=cpu.text("mems"),
        pids_limit=_pids(part.part("pids"), minor),
        devices=tuple([_device_rule(each) for each in part.parts("devices")]),
        blkio_weight=_weight(block, "weight"),
        blkio_leaf_weight=_weight(block, "leafWeight"),
        rates=tuple(_rates(block)),
        hugepages=tuple([_hugepages(each) for each in part.parts("hugepageLimits")]),
        network_class=network.optional("classID", 0, UINT32_MAX),
        network_priorities=tuple(
            [(_link(each), each.bounded("priority", 0, UINT32_MAX)) for each in network.parts("priorities")]
        ),
        rdma=tuple(_rdma(part)),
        unified=_unified(part),
    )


def _bytes(part: Object, key: str) -> int | None:
    return part.optional(key, UNLIMITED, NUMBER_MAX) or None


def _signed(part: Object, key: str) -> int | None:
    """A number of which any below zero says "unlimited", to the kernel (cpu.cfs_quota_us) and to other runtimes."""
    value = part.optional(key, NUMBER_MIN, NUMBER_MAX)
    return max(value, UNLIMITED) if value else None


def _pids(part: Object, minor: int) -> int | None:
    """0 is a limit since 1.3, nothing may be forked. Before, what a document said that said nothing (runtime-spec
    1279)."""
    value = part.optional("limit", NUMBER_MIN, NUMBER_MAX)
    if value is None or (value == 0 and minor < 3):
        return None
    return max(value, UNLIMITED)


def _swappiness(part: Object) -> int | None:
    """0 to 100; 2^64 - 1 says nothing: Docker's API has -1 for that, and Docker passes it on as an unsigned number."""
    value = part.optional("swappiness", 0, UINT64_MAX)
    if value == UINT64_MAX:
        return None
    if value is not None and value > SWAPPINESS_MAX:
        raise part.wrong("swappiness", f"expected a whole number from 0 to {SWAPPINESS_MAX}, not the number {value}")
    return value


def _device_rule(part: Object) -> DeviceRule:
    if not part.has("allow"):
        raise part.wrong("allow", "it is missing")
    access = part.text("access", "rwm")
    if not access or access.strip("rwm"):
        raise part.wrong("access", "expected letters of rwm")
    kind = part.choice("type", ("a", "b", "c"), "a")
    major, minor = part.optional("major", -1, UINT32_MAX), part.optional("minor", -1, UINT32_MAX)
    return DeviceRule(part.flag("allow"), kind, -1 if major is None else major, -1 if minor is None else minor, access)


def _weight(part: Object, key: str) -> int | None:
    value = part.optional(key, 0, UINT16_MAX)
    if value and not WEIGHT_MIN <= value <= WEIGHT_MAX:
        raise part.wrong(key, f"expected a weight from {WEIGHT_MIN} to {WEIGHT_MAX}, not {value}")
    return value or None


def _rates(block: Object) -> Iterator[DeviceRate]:
    for each in block.parts("weightDevice"):
        major, minor = each.bounded("major", 0, UINT32_MAX), each.bounded("minor", 0, UINT32_MAX)
        weight, leaf = _weight(each, "weight"), _weight(each, "leafWeight")
        if weight is None and leaf is None:
            raise each.wrong("weight", "there is neither this nor leafWeight")
        if weight is not None:
            yield DeviceRate("weight", major, minor, weight)
        if leaf is not None:
            yield DeviceRate("leaf_weight", major, minor, leaf)
    for key, kind in THROTTLES:
        for each in block.parts(key):
            major, minor = each.bounded("major", 0, UINT32_MAX), each.bounded("minor", 0, UINT32_MAX)
            yield DeviceRate(kind, major, minor, each.bounded("rate", 0, UINT64_MAX))


def _hugepages(part: Object) -> tuple[str, int]:
    """The size names a file of the cgroup: it is held to the form of its only names."""
    size = part.text("pageSize", None)
    digits, unit = size[:-2], size[-2:]
    if unit not in ("KB", "MB", "GB") or not (digits.isascii() and digits.isdecimal()) or digits[0] == "0":
        raise part.wrong("pageSize", "expected a size such as 64KB, 2MB or 1GB")
    return size, part.bounded("limit", 0, UINT64_MAX)


def _rdma(part: Object) -> Iterator[Rdma]:
    for name, each in part.named_parts("rdma"):
        if not name or not name.isprintable() or " " in name:  # it is one word of a line in rdma.max
            raise part.wrong(f"rdma.{name}", "expected the name of a device")
        found = Rdma(name, each.optional("hcaHandles", 0, UINT32_MAX), each.optional("hcaObjects", 0, UINT32_MAX))
        if found.handles is None and found.objects is None:
            raise each.wrong("hcaHandles", "there is neither this nor hcaObjects")
        yield found


def _unified(part: Object) -> tuple[tuple[str, str], ...]:
    found = part.pairs("unified")
    for name, _ in found:
        controller, dot, file = name.partition(".")
        if "/" in name or not (controller and dot and file):
            raise part.wrong(f"unified.{name}", "expected a file of a control group, as memory.high")
    return found


def _link(part: Object) -> str:
    name = part.text("name", None)
    check_link_name(part, "name", name)
    return name


def check_link_name(part: Object, key: str, name: str) -> None:
    """Raises Invalid for what the kernel's dev_valid_name() takes for no interface's name."""
    if (
        not 0 < len(name.encode()) <= LINK_NAME_MAX
        or name in (".", "..")
        or any(c in "/:" or c.isspace() for c in name)
    ):
        raise part.wrong(key, "expected the name of a network interface")
