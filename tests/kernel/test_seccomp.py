"""The default filter beside the one that Debian ships for podman, call by call; and a filter at work in the kernel."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from cloche.kernel.capabilities import DEFAULT, NAMES
from cloche.kernel.libc import PR_SET_PDEATHSIG, prctl, syscall
from cloche.kernel.seccomp import ALLOW, AUDIT_ARCH, ERRNO, HIGHEST, NEWER, compile_filter, evaluate
from cloche.oci.seccomp import Arg, Rule, Seccomp, resolve_profile
from cloche.plan.seccomp import default_profile

PEERS = (
    Path("/usr/share/containers/seccomp.json"),
    Path("/usr/share/gocode/src/github.com/containers/common/pkg/seccomp/seccomp.json"),
)
X86_64 = AUDIT_ARCH["x86_64"]
I386 = AUDIT_ARCH["i686"]
KERNEL = (6, 18)
ADMIN = "CAP_SYS_ADMIN"

# x86_64 numbers that the peer allows to every container and Docker only with a capability: namespaces, mounts and their
# new calls (CAP_SYS_ADMIN); memory policy (SYS_NICE); reboot (SYS_BOOT); syslog; pidfd_getfd (SYS_PTRACE)
DOCKER_IS_STRICTER = {
    ADMIN: {165, 166, 272, 308, 428, 429, 430, 431, 432, 433, 435, 442},
    "CAP_SYS_NICE": {237, 238, 239},
    "CAP_SYS_BOOT": {169},
    "CAP_SYSLOG": {103},
    "CAP_SYS_PTRACE": {438},
}
DOCKER_REFUSES = {250, 155, 178}  # keyctl, pivot_root, query_module
DOCKER_ALLOWS = {278, 333}  # vmsplice, io_pgetevents
QUOTACTL_FD = 443  # goes with quotactl
SETS = {
    "none": (),
    "default": DEFAULT,
    "admin": (*DEFAULT, ADMIN),
    "ptrace": (*DEFAULT, "CAP_SYS_PTRACE"),
    "time": ("CAP_SYS_TIME", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT"),
    "all": NAMES,
}


def peer() -> dict[str, object]:
    path = next((p for p in PEERS if p.exists()), None)
    if path is None:
        pytest.skip("needs the seccomp.json of golang-github-containers-common")
    document: dict[str, object] = json.loads(path.read_text())
    return document


@pytest.mark.requires("library:libseccomp.so.2")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86_64's")
@pytest.mark.parametrize("capabilities", SETS.values(), ids=SETS)
def test_every_call_is_answered_as_dockers_profile_does(capabilities: tuple[str, ...]) -> None:
    ours, _ = compile_filter(default_profile(capabilities, "x86_64", KERNEL))
    theirs, _ = compile_filter(resolve_profile(peer(), capabilities, "x86_64", KERNEL))
    stricter = set(DOCKER_REFUSES)
    for capability, numbers in DOCKER_IS_STRICTER.items():
        if capability not in capabilities:
            stricter |= numbers
    if ADMIN in capabilities:
        stricter -= {103}  # syslog comes with it too
    for number in range(min(NEWER.values())):
        allowed = evaluate(ours, number, X86_64) == ALLOW
        if number in stricter:
            assert not allowed, number
        elif number in DOCKER_ALLOWS or (number == QUOTACTL_FD and ADMIN in capabilities):
            assert allowed, number
        else:
            assert allowed == (evaluate(theirs, number, X86_64) == ALLOW), number


@pytest.mark.requires("library:libseccomp.so.2")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86_64's")
def test_arguments_decide_where_they_should() -> None:
    ours, _ = compile_filter(default_profile(DEFAULT, "x86_64", KERNEL))
    clone, personality, socket, clone3 = 56, 135, 41, 435
    assert evaluate(ours, clone, X86_64, (0x11,)) == ALLOW
    for flag in (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert evaluate(ours, clone, X86_64, (flag | 0x11,)) == ERRNO | errno.EPERM
    assert evaluate(ours, clone3, X86_64) == ERRNO | errno.ENOSYS
    assert evaluate(ours, personality, X86_64, (0xFFFFFFFF,)) == ALLOW
    assert evaluate(ours, personality, X86_64, (0x40000,)) == ERRNO | errno.EPERM
    assert evaluate(ours, socket, X86_64, (2,)) == ALLOW
    assert evaluate(ours, socket, X86_64, (40,)) == ERRNO | errno.EPERM


@pytest.mark.requires("library:libseccomp.so.2")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86_64's")
def test_calls_newer_than_the_profile_do_not_exist() -> None:
    ours, _ = compile_filter(default_profile(DEFAULT, "x86_64", KERNEL))
    for arch in (X86_64, I386):
        assert evaluate(ours, HIGHEST + 1, arch) == ERRNO | errno.ENOSYS
        assert evaluate(ours, NEWER["cachestat"], arch) == ALLOW
    assert evaluate(ours, NEWER["lsm_set_self_attr"], X86_64) == ERRNO | errno.EPERM
    assert evaluate(ours, 0, 0xC00000B7) == 0, "another architecture's calls end the process"


@pytest.mark.requires("library:libseccomp.so.2")
def test_the_kernel_obeys_a_filter() -> None:
    profile = Seccomp(
        "ALLOW", rules=(Rule(("getppid",), "ERRNO", errno.EPERM), Rule(("close",), "ERRNO", 7, (Arg(0, 999),)))
    )
    program, flags = compile_filter(profile)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        import ctypes

        prctl(PR_SET_PDEATHSIG, 9)
        code = ctypes.create_string_buffer(program, len(program))
        header = ctypes.create_string_buffer(16)
        ctypes.memmove(
            header, (len(program) // 8).to_bytes(8, "little") + ctypes.addressof(code).to_bytes(8, "little"), 16
        )
        prctl(38, 1)
        syscall(317 if os.uname().machine == "x86_64" else 277, 1, flags, header)
        said = []
        for number, argument in ((110, 0), (3, 999), (39, 0)) if os.uname().machine == "x86_64" else ():
            try:
                syscall(number, argument)
                said.append("0")
            except OSError as error:
                said.append(str(error.errno))
        os.write(writing, " ".join(said).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with open(reading) as answers:
        said_by_kernel = answers.read()
    if os.uname().machine == "x86_64":
        assert said_by_kernel == "1 7 0"
