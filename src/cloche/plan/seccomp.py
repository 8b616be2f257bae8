"""The default seccomp profile: what Docker's allows, for a container's capabilities. Pure; the calls are in
seccomp_calls."""

from __future__ import annotations

from cloche.oci.seccomp import ENOSYS, EPERM, SUB_ARCHITECTURES, Arg, Rule, Seccomp
from cloche.plan.seccomp_calls import ALWAYS, BY_ARCH, WITH, WITH_LINUX_4_8

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET: a namespace is a new attack surface of the kernel
_NEW_NAMESPACES = 0x7E020000
# personality(2): Linux, with its 3 flags that programs ask for, and the question
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
# Address families, by number (linux/socket.h): all of them but AF_ALG (38, the kernel's cryptography), AF_VSOCK (40,
# which reaches the host and its machines past the network namespace), and those that Linux has removed or is removing
# (12, 19, 20, 23, 25, 34, 37). A list of what is allowed, not of what is not: the filter compares 64 bits and the
# kernel looks at 32, so a test for "not 40" would let 2^32 + 40 pass. It holds for socket(2) only: socketcall(2) of
# 32-bit programs has the family behind a pointer, and without it they have no network.
_FAMILIES_BELOW = 12
# by size of an aligned range, one rule each: a rule costs libseccomp half a millisecond
_FAMILIES = {4: (28,), 2: (14, 16, 26, 32, 42, 44), 1: (13, 18, 21, 22, 24, 35, 36, 39, 41)}


def default_profile(capabilities: Collection[str], machine: str, kernel: tuple[int, int]) -> Seccomp:
    """What is not allowed is EPERM, as Docker's; kernel.seccomp answers ENOSYS to calls newer than it knows."""
    names = [name for group in ALWAYS.values() for name in group.split()]
    for capability, calls in WITH.items():
        if capability in capabilities:
            names += calls.split()
    if kernel >= (4, 8):
        names += WITH_LINUX_4_8.split()
    names += BY_ARCH.get(machine, "").split()
    rules = [Rule(tuple(dict.fromkeys(names)), "ALLOW")]
    rules += [Rule(("personality",), "ALLOW", args=(Arg(0, value),)) for value in _PERSONALITIES]
    rules.append(Rule(("socket",), "ALLOW", args=(Arg(0, _FAMILIES_BELOW, op="LT"),)))
    for size, families in _FAMILIES.items():
        mask = (1 << 64) - size
        rules += [Rule(("socket",), "ALLOW", args=(Arg(0, mask, first, "MASKED_EQ"),)) for first in families]
    if "CAP_SYS_ADMIN" not in capabilities:
        flags = 1 if machine.startswith("s390") else 0  # clone(2): there the stack comes first
        rules.append(Rule(("clone",), "ALLOW", args=(Arg(flags, _NEW_NAMESPACES, 0, "MASKED_EQ"),)))
        # its flags are behind a pointer that no filter can follow; with ENOSYS libraries use clone(2)
        rules.append(Rule(("clone3",), "ERRNO", ENOSYS))
    return Seccomp("ERRNO", EPERM, SUB_ARCHITECTURES.get(machine, ()), (), tuple(rules))
