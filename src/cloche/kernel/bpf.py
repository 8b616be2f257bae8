"""bpf(2): load a program that guards the devices of a cgroup, and attach it."""

from __future__ import annotations

_PROG_LOAD, _PROG_ATTACH = 5, 8
_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE = 15, 6
_MULTI = 2


def attach_device_filter(path: str, program: bytes) -> None:
    """Attach eBPF `program` to the cgroup v2 directory `path`. It goes away with the group. Raises OSError."""
    import ctypes
    import os
    from struct import pack

    from cloche.kernel.libc import number, syscall

    code, license_ = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(b"Apache-2.0")
    load = pack(
        "=IIQQIIQII",
        _TYPE_CGROUP_DEVICE,
        len(program) // 8,
        ctypes.addressof(code),
        ctypes.addressof(license_),
        0,
        0,
        0,
        0,
        0,
    )
    bpf = number("bpf")
    loaded = syscall(bpf, _PROG_LOAD, load.ljust(128, b"\0"), 128, what="bpf BPF_PROG_LOAD")
    try:
        group = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            attach = pack("=IIII", group, loaded, _ATTACH_CGROUP_DEVICE, _MULTI)
            syscall(bpf, _PROG_ATTACH, attach.ljust(128, b"\0"), 128, what="bpf BPF_PROG_ATTACH")
        finally:
            os.close(group)
    finally:
        os.close(loaded)
