"""Block I/O: weights and rates of devices as files and contents, for cgroups v1 (blkio) and v2 (io).

What a weight's file is called depends on the kernel's I/O scheduler: bfq has files of its own. Source: the kernel's
admin-guide, cgroup-v1/blkio-controller and cgroup-v2, IO; block/bfq-iosched.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.oci.runtime import DeviceRate, Resources

    Limit = tuple[str, tuple[tuple[str, str], ...]]  # a controller; (file, content) as one kernel or another names it

_THROTTLES = {
    "read_bps": ("blkio.throttle.read_bps_device", "rbps"),
    "write_bps": ("blkio.throttle.write_bps_device", "wbps"),
    "read_iops": ("blkio.throttle.read_iops_device", "riops"),
    "write_iops": ("blkio.throttle.write_iops_device", "wiops"),
}


def io_weight(weight: int) -> int:
    """blkio.weight (10 to 1000) as io.weight (1 to 10000), as the runtime spec's readers convert it."""
    return 1 + (weight - 10) * 9999 // 990


def _device(rate: DeviceRate, value: int | str) -> str:
    return f"{rate.major}:{rate.minor} {value}"


def v1_block(wanted: Resources) -> list[Limit]:
    """The limits on cgroup v1."""
    limits: list[Limit] = []
    if wanted.blkio_weight:
        text = str(wanted.blkio_weight)
        limits.append(("blkio", (("blkio.weight", text), ("blkio.bfq.weight", text))))
    if wanted.blkio_leaf_weight:
        limits.append(("blkio", (("blkio.leaf_weight", str(wanted.blkio_leaf_weight)),)))
    for rate in wanted.rates:
        text = _device(rate, rate.rate)
        if rate.kind == "leaf_weight":
            limits.append(("blkio", (("blkio.leaf_weight_device", text),)))
        elif rate.kind == "weight":
            limits.append(("blkio", (("blkio.weight_device", text), ("blkio.bfq.weight_device", text))))
        else:
            limits.append(("blkio", ((_THROTTLES[rate.kind][0], text),)))
    return limits


def v2_block(wanted: Resources) -> list[Limit]:
    """The limits on cgroup v2."""
    limits: list[Limit] = []
    if weight := wanted.blkio_weight:
        limits.append(("io", (("io.bfq.weight", str(weight)), ("io.weight", f"default {io_weight(weight)}"))))
    for rate in wanted.rates:
        if rate.kind == "weight":
            new = _device(rate, io_weight(rate.rate) if rate.rate else "default")
            limits.append(("io", (("io.bfq.weight", _device(rate, rate.rate or "default")), ("io.weight", new))))
        else:
            limits.append(("io", (("io.max", _device(rate, f"{_THROTTLES[rate.kind][1]}={rate.rate or 'max'}")),)))
    return limits
