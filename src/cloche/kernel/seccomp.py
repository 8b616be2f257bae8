"""seccomp(2): profiles to BPF through libseccomp (ctypes), and what a BPF program answers to a call.

A profile says what happens to calls that its author knew. A call that is newer than all that the profile names must get
ENOSYS, not the profile's EPERM, or programs would believe that they may not instead of falling back. So in front of
libseccomp's program stand a few instructions of our own. They answer, by number from the table below, calls that this
libseccomp does not know, and ENOSYS to what is above the newest call that the profile names; all else goes on to
libseccomp's. They speak of numbers from 424 on only, which mean the same on every architecture that they let in (x32's
have bit 30 besides; calls of its own and of 32-bit ARM, which stand above, are libseccomp's). MIPS counts from
elsewhere and goes on, and so do the calls of an architecture that the profile does not list, which libseccomp's program
ends. A profile that lets unknown calls pass, or be traced, gets no ENOSYS.
"""

from __future__ import annotations

import os
from struct import iter_unpack, pack, unpack

from cloche.errors import Error, Invalid, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    class Condition(Protocol):
        """One condition on an argument: cloche.oci.seccomp.Arg is one."""

        @property
        def index(self) -> int: ...
        @property
        def value(self) -> int: ...
        @property
        def value_two(self) -> int: ...
        @property
        def op(self) -> str: ...

    class Rule(Protocol):
        """What happens to some calls: cloche.oci.seccomp.Rule is one."""

        @property
        def names(self) -> tuple[str, ...]: ...
        @property
        def action(self) -> str: ...
        @property
        def errno(self) -> int | None: ...
        @property
        def args(self) -> Sequence[Condition]: ...

    class Profile(Protocol):
        """A whole profile: cloche.oci.seccomp.Seccomp is one."""

        @property
        def default_action(self) -> str: ...
        @property
        def default_errno(self) -> int: ...
        @property
        def architectures(self) -> tuple[str, ...]: ...
        @property
        def flags(self) -> tuple[str, ...]: ...
        @property
        def rules(self) -> Sequence[Rule]: ...


ALLOW, LOG, TRACE, ERRNO, TRAP, KILL_THREAD, KILL_PROCESS, NOTIFY = (
    0x7FFF0000, 0x7FFC0000, 0x7FF00000, 0x00050000, 0x00030000, 0x00000000, 0x80000000, 0x7FC00000,
)  # fmt: skip
EPERM, EEXIST, ENOSYS = 1, 17, 38
_ACTIONS = {
    "ALLOW": ALLOW, "LOG": LOG, "TRACE": TRACE, "ERRNO": ERRNO, "TRAP": TRAP,
    "KILL": KILL_THREAD, "KILL_THREAD": KILL_THREAD, "KILL_PROCESS": KILL_PROCESS, "NOTIFY": NOTIFY,
}  # fmt: skip
_OPERATORS = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}
FLAGS = {"TSYNC": 1, "LOG": 2, "SPEC_ALLOW": 4, "WAIT_KILLABLE_RECV": 32}
NEW_LISTENER, _TSYNC_ESRCH = 8, 16
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i686": 0x40000003}
# libseccomp's names of architectures whose numbers agree from 424 on, as linux/audit.h numbers them
_COMMON_ARCHITECTURES = {
    "X86_64": 0xC000003E, "X86": 0x40000003, "X32": 0xC000003E, "AARCH64": 0xC00000B7, "ARM": 0x40000028,
    "RISCV64": 0xC00000F3, "PPC64LE": 0xC0000015, "S390X": 0x80000016, "S390": 0x00000016,
}  # fmt: skip
_X32_BIT, _X32_OWN = 0x40000000, 512  # x32's own calls stand above those that it shares with x86_64
_ARM_OWN = 0xF0000  # set_tls, cacheflush, ... of 32-bit ARM, which is far above all numbers in common
_CTL_OPTIMIZE, _BINARY_TREE = 8, 2
_INSTRUCTIONS_MAX = 4096  # BPF_MAXINSNS

# The calls that a libseccomp of 2022 may not know yet.
FIRST_COMMON = 424  # pidfd_send_signal
NEWER = {
    name: number
    for number, name in enumerate(
        (
            "memfd_secret process_mrelease futex_waitv set_mempolicy_home_node cachestat fchmodat2 "
            "map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount lsm_get_self_attr "
            "lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat removexattrat "
            "open_tree_attr file_getattr file_setattr"
        ).split(),
        447,
    )
}
HIGHEST = max(NEWER.values())


def _library() -> Any:
    """libseccomp with its prototypes. Raises Unsupported when it is not there."""
    import ctypes
    from ctypes import c_char_p, c_int, c_uint, c_uint32, c_void_p

    try:
        lib = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        hint = "apt-get install libseccomp2, or run with --security-opt seccomp=unconfined"
        raise Unsupported("compile the seccomp profile", "libseccomp.so.2 is not installed", hint) from None
    for name, result, arguments in (
        ("seccomp_init", c_void_p, (c_uint32,)),
        ("seccomp_release", None, (c_void_p,)),
        ("seccomp_arch_resolve_name", c_uint32, (c_char_p,)),
        ("seccomp_arch_add", c_int, (c_void_p, c_uint32)),
        ("seccomp_syscall_resolve_name", c_int, (c_char_p,)),
        ("seccomp_attr_set", c_int, (c_void_p, c_int, c_uint32)),
        ("seccomp_rule_add_array", c_int, (c_void_p, c_uint32, c_int, c_uint, c_void_p)),
        ("seccomp_export_bpf", c_int, (c_void_p, c_int)),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def _check(result: int, what: str) -> None:
    if result < 0:
        raise Error(f"compile the seccomp profile: {what}", -result)


def _action(name: str, errno: int) -> int:
    value = _ACTIONS[name]
    return value | errno if value in (ERRNO, TRACE) else value


def _add(lib: Any, context: Any, rule: Rule, action: int, default: int) -> tuple[dict[int, int], int]:
    """One rule for each name. Returns what is to be done by number (calls that libseccomp does not know), and the
    newest.

    Names that the table does not know either do not exist on this machine: they are left out, as runc does.
    """
    # conditions on one argument twice are alternatives (libseccomp takes each argument once in a rule), as runc reads
    # them
    twice = len({a.index for a in rule.args}) < len(rule.args)
    groups: list[Sequence[Condition]] = [(a,) for a in rule.args] if twice else [rule.args]
    by_number: dict[int, int] = {}
    newest = 0
    for name in rule.names:
        number = lib.seccomp_syscall_resolve_name(name.encode())
        newest = max(newest, NEWER.get(name, 0) if number == -1 else number)
        if number == -1:
            if name in NEWER and not rule.args:
                by_number[NEWER[name]] = action
            elif name in NEWER:
                hint = "install a newer libseccomp, or leave out the condition"
                raise Unsupported(f"compile the seccomp profile: {name}", "this libseccomp does not know it", hint)
            continue
        if action == default:
            continue  # libseccomp refuses a rule that says what the default says
        for group in groups:
            packed = b"".join(pack("=IIQQ", a.index, _OPERATORS[a.op], a.value, a.value_two) for a in group)
            result = lib.seccomp_rule_add_array(context, action, number, len(group), packed or None)
            if result != -EEXIST:  # the same was said before
                _check(result, f"rule for {name}")
    return by_number, newest


def compile_filter(profile: Profile, listener: bool = False) -> tuple[bytes, int]:
    """The program as an array of struct sock_filter, and the flags for seccomp(2). `listener`: the caller answers
    notifications; then seccomp(2) returns a descriptor for a profile that has any. Raises Unsupported, Invalid,
    Error."""
    notifies = _notifies(profile)
    if notifies and not listener:
        # with nobody there to answer, the kernel would fail the calls with ENOSYS, whatever the profile meant
        hint = "leave out SCMP_ACT_NOTIFY and SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
        raise Unsupported("compile the seccomp profile", "notifications are not supported", hint)
    lib = _library()
    default = _action(profile.default_action, profile.default_errno)
    context = lib.seccomp_init(default)
    if not context:
        raise Error("compile the seccomp profile", f"libseccomp refuses the default action {profile.default_action}")
    memory = os.memfd_create("filter", os.MFD_CLOEXEC)
    try:
        for name in profile.architectures:
            token = lib.seccomp_arch_resolve_name(name.lower().encode())
            if not token:
                raise Invalid(f"compile the seccomp profile: architecture {name}", "libseccomp does not know it")
            result = lib.seccomp_arch_add(context, token)
            if result != -EEXIST:
                _check(result, f"architecture {name}")
        lib.seccomp_attr_set(context, _CTL_OPTIMIZE, _BINARY_TREE)  # before 2.5 there is none: a slower program
        by_number: dict[int, int] = {}
        newest = FIRST_COMMON - 1
        for rule in profile.rules:
            action = _action(rule.action, EPERM if rule.errno is None else rule.errno)
            unknown, named = _add(lib, context, rule, action, default)
            by_number = unknown | by_number  # what was said first holds, as in libseccomp
            newest = max(newest, named)
        _check(lib.seccomp_export_bpf(context, memory), "export")
        program = os.pread(memory, os.fstat(memory).st_size, 0)
    finally:
        os.close(memory)
        lib.seccomp_release(context)
    # a tracer that knows new calls is let know of them, as in runc
    passes = profile.default_action in ("ALLOW", "LOG", "TRACE", "NOTIFY")
    x32 = "X32" in (name.upper() for name in profile.architectures)
    program = _newer(_audit_numbers(profile), x32, by_number, default if passes else ERRNO | ENOSYS, newest) + program
    if len(program) // 8 > _INSTRUCTIONS_MAX:
        cause = f"it needs {len(program) // 8} instructions, the kernel takes {_INSTRUCTIONS_MAX}"
        raise Invalid("compile the seccomp profile", cause, "use fewer rules with conditions")
    return program, _flags(profile, notifies)


def _notifies(profile: Profile) -> bool:
    actions = [profile.default_action, *(rule.action for rule in profile.rules)]
    return "NOTIFY" in actions or "WAIT_KILLABLE_RECV" in profile.flags


def _flags(profile: Profile, notifies: bool) -> int:
    """Flags of seccomp(2). With a listener, the answer is its descriptor, so threads out of step must be an errno."""
    flags = NEW_LISTENER if notifies else 0
    for name in profile.flags:
        flags |= FLAGS[name]
    return flags | _TSYNC_ESRCH if notifies and "TSYNC" in profile.flags else flags


def _audit_numbers(profile: Profile) -> list[int]:
    """The architectures that our own instructions may speak of; libseccomp adds the machine's to those listed."""
    native = os.uname().machine.upper().replace("I686", "X86").replace("ARMV7L", "ARM")
    known = [_COMMON_ARCHITECTURES.get(name.upper()) for name in (native, *profile.architectures)]
    return list(dict.fromkeys(number for number in known if number is not None))


def _newer(architectures: list[int], x32: bool, by_number: dict[int, int], beyond: int, newest: int) -> bytes:
    """By number: the calls in the table, then all above `newest`; everything else goes on to what follows."""
    if not architectures:
        return b""
    load, jump, jeq, jgt, jge, ret = 0x20, 0x05, 0x15, 0x25, 0x35, 0x06

    def answers(bit: int) -> bytes:
        named = b"".join(
            pack("=HBBI", jeq, 0, 1, bit | number) + pack("=HBBI", ret, 0, 0, action)
            for number, action in sorted(by_number.items())
        )
        return named + pack("=HBBI", jgt, 0, 1, bit | newest) + pack("=HBBI", ret, 0, 0, beyond)

    common = answers(0)
    other = b""  # x32's
    if x32:
        body = answers(_X32_BIT)
        length = len(body) // 8
        other = pack("=HBBI", jge, 0, length + 1, _X32_BIT | FIRST_COMMON)
        other += pack("=HBBI", jge, length, 0, _X32_BIT | _X32_OWN) + body
        common += pack("=HBBI", jump, 0, 0, len(other) // 8)
    length = len(common) // 8
    after = length + len(other) // 8
    head = pack("=HBBI", load, 0, 0, 4)  # seccomp_data.arch
    last = len(architectures) - 1
    for i, number in enumerate(architectures):
        head += pack("=HBBI", jeq, last - i, 0 if i < last else after + 3, number)
    return (
        head
        + pack("=HBBI", load, 0, 0, 0)  # seccomp_data.nr
        + pack("=HBBI", jge, length + 1, 0, _ARM_OWN)
        + pack("=HBBI", jge, 0, after, FIRST_COMMON)
        + common
        + other
    )


_JUMPS: dict[int, Callable[[int, int], bool]] = {
    0x15: lambda a, b: a == b,
    0x25: lambda a, b: a > b,
    0x35: lambda a, b: a >= b,
    0x45: lambda a, b: a & b != 0,
}
_ARITHMETIC: dict[int, Callable[[int, int], int]] = {
    0x04: lambda a, b: a + b,
    0x14: lambda a, b: a - b,
    0x24: lambda a, b: a * b,
    0x34: lambda a, b: a // b,
    0x44: lambda a, b: a | b,
    0x54: lambda a, b: a & b,
    0x64: lambda a, b: a << (b & 31),
    0x74: lambda a, b: a >> (b & 31),
    0x84: lambda a, _: -a,
    0xA4: lambda a, b: a ^ b,
}


def evaluate(program: bytes, number: int, arch: int, args: tuple[int, ...] = (), pointer: int = 0) -> int:
    """What the kernel would do with a call from `pointer`: the program's answer, SECCOMP_RET_* with its data.

    It knows the instructions of seccomp(2) (kernel/seccomp.c: seccomp_check_filter). Raises ValueError at an
    instruction that the kernel would have refused to load.
    """
    given = [value & 0xFFFFFFFFFFFFFFFF for value in (*args, *(0,) * (6 - len(args)))]
    data = unpack("=16I", pack("=IIQ6Q", number & 0xFFFFFFFF, arch, pointer, *given))  # struct seccomp_data
    code = list(iter_unpack("=HBBI", program))
    a = x = at = 0
    memory = [0] * 16
    try:
        while True:
            op, yes, no, k = code[at]
            at += 1
            plain, operand = op & ~8, x if op & 8 else k  # bit 3: with x instead of k
            if op in (0x06, 0x16):
                return a if op == 0x16 else int(k)
            if op == 0x20 and not k % 4:
                a = data[k // 4]
            elif op == 0x05:
                at += k
            elif plain in _JUMPS:
                at += yes if _JUMPS[plain](a, operand) else no
            elif op == 0x3C and not x:
                return 0  # SECCOMP_RET_KILL_THREAD: so the kernel answers a division by zero
            elif plain in _ARITHMETIC and not _refused(op, k):
                a = _ARITHMETIC[plain](a, operand) & 0xFFFFFFFF
            elif op in (0x00, 0x60, 0x80, 0x87):  # a: k, from memory, the data's length, x
                a = x if op == 0x87 else memory[k] if op == 0x60 else 64 if op == 0x80 else k
            elif op in (0x01, 0x61, 0x81, 0x07):
                x = a if op == 0x07 else memory[k] if op == 0x61 else 64 if op == 0x81 else k
            elif op in (0x02, 0x03):
                memory[k] = x if op == 0x03 else a
            else:
                raise ValueError(f"instruction {at - 1} ({op:#x}) is none that filters have")
    except IndexError:
        raise ValueError("the program leaves its code or its memory, or reads past the call's data") from None


def _refused(op: int, k: int) -> bool:
    """Arithmetic that no filter may have: division by a zero, a shift out of the word, a negation with an operand."""
    return (op == 0x34 and not k) or (op in (0x64, 0x74) and k > 31) or op == 0x8C
