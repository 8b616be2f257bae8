"""Device rules as the kernel takes them: lines for the devices controller of cgroup v1, a BPF program for v2.

The program walks the rules from the last to the first; of reading, writing and making each is decided by the first that
speaks of it, as version 1 adds up what it is told of one device (bpf_cgroup_dev_ctx: access_type, major, minor). Pure:
bytes out, nothing loaded here.
"""

from __future__ import annotations

from struct import pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.oci.runtime import DeviceRule

_TYPES = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_LDX, _AND, _RSH, _MOV_IMM, _MOV_REG, _JEQ, _JNE, _EXIT = 0x61, 0x54, 0x74, 0xB7, 0xBC, 0x15, 0x55, 0x95


def v1_line(rule: DeviceRule) -> str:
    """The rule as devices.allow and devices.deny take it."""
    if rule.type == "a" and rule.major < 0 and rule.minor < 0 and set(rule.access) == set("rwm"):
        return "a"
    major = "*" if rule.major < 0 else str(rule.major)
    minor = "*" if rule.minor < 0 else str(rule.minor)
    return f"{rule.type} {major}:{minor} {rule.access}"


def _instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return pack("=BBhi", code, source << 4 | target, offset, value)


def _rule(rule: DeviceRule) -> bytes:
    """One rule: jumps over itself when it is not for this device. r2 type, r4 major, r5 minor; r3 what of the access
    no later rule has decided: 1 is returned when this one allows the last of it, 0 when it denies any."""
    code = _instruction(_MOV_IMM, 0, value=int(rule.allow)) + _instruction(_EXIT)
    access = sum(_ACCESS[letter] for letter in set(rule.access))
    if access != 7 and rule.allow:
        taken = _instruction(_AND, 3, value=~access & 7)
        code = taken + _instruction(_JNE, 3, offset=len(code) // 8, value=0) + code
    elif access != 7:
        touched = _instruction(_MOV_REG, 1, 3) + _instruction(_AND, 1, value=access)
        code = touched + _instruction(_JEQ, 1, offset=len(code) // 8, value=0) + code
    tests: list[tuple[int, int]] = []
    if rule.type != "a":
        tests.append((2, _TYPES[rule.type]))
    if rule.major >= 0:
        tests.append((4, rule.major))
    if rule.minor >= 0:
        tests.append((5, rule.minor))
    for register, value in reversed(tests):
        code = _instruction(_JNE, register, offset=len(code) // 8, value=value) + code
    return code


def v2_program(rules: tuple[DeviceRule, ...]) -> bytes:
    """eBPF instructions for BPF_PROG_TYPE_CGROUP_DEVICE; what no rule names is denied."""
    start = (
        _instruction(_LDX, 2, 1, 0)
        + _instruction(_MOV_REG, 3, 2)
        + _instruction(_AND, 2, value=0xFFFF)
        + _instruction(_RSH, 3, value=16)
        + _instruction(_LDX, 4, 1, 4)
        + _instruction(_LDX, 5, 1, 8)
    )
    walked = b""
    for rule in reversed(rules):
        walked += _rule(rule)
        if rule.type == "a" and rule.major < 0 and rule.minor < 0 and set(rule.access) == set("rwm"):
            return start + walked  # it matches everything; the verifier refuses what could never be reached
    return start + walked + _instruction(_MOV_IMM, 0, value=0) + _instruction(_EXIT)
