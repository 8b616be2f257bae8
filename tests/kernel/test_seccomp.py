"""The default filter beside the one that Debian ships for podman, call by call; and a filter at work in the kernel."""

from __future__ import annotations

import errno
import json
import os
import struct
import time
from pathlib import Path

import pytest

from cloche.errors import Invalid, Unsupported
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
URETPROBE = 335  # Docker allows it; libseccomp knows it from 2.6 on
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
    for number in set(range(min(NEWER.values()))) - {URETPROBE}:
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
    refused = {12, 19, 20, 23, 25, 34, 37, 38, 40}  # AF_ALG, AF_VSOCK, and what Linux removed
    for family in range(64):
        allowed = family < 46 and family not in refused
        assert evaluate(ours, socket, X86_64, (family,)) == (ALLOW if allowed else ERRNO | errno.EPERM), family
        assert evaluate(ours, socket, X86_64, (1 << 32 | family,)) == ERRNO | errno.EPERM, "the kernel takes 32 bits"


@pytest.mark.requires("library:libseccomp.so.2")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86_64's")
def test_calls_newer_than_the_profile_do_not_exist() -> None:
    ours, _ = compile_filter(default_profile(DEFAULT, "x86_64", KERNEL))
    for arch in (X86_64, I386):
        assert evaluate(ours, HIGHEST + 1, arch) == ERRNO | errno.ENOSYS
        assert evaluate(ours, NEWER["cachestat"], arch) == ALLOW
    assert evaluate(ours, NEWER["lsm_set_self_attr"], X86_64) == ERRNO | errno.EPERM
    for number in (0, NEWER["cachestat"], HIGHEST + 1):
        assert evaluate(ours, number, 0xC00000B7) == 0, "another architecture's calls end the process"


@pytest.mark.requires("library:libseccomp.so.2")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86_64's")
def test_newer_is_what_is_above_the_newest_call_that_the_profile_names() -> None:
    refuses = Seccomp("ERRNO", errno.EPERM, ("X86_64",), (), (Rule(("read", "memfd_secret"), "ALLOW"),))
    old, _ = compile_filter(refuses)
    assert evaluate(old, 1, X86_64) == ERRNO | errno.EPERM
    assert evaluate(old, NEWER["memfd_secret"], X86_64) == ALLOW
    assert evaluate(old, NEWER["memfd_secret"] - 1, X86_64) == ERRNO | errno.EPERM
    assert evaluate(old, NEWER["fchmodat2"], X86_64) == ERRNO | errno.ENOSYS
    assert evaluate(old, NEWER["fchmodat2"], I386) == 0, "the profile lists no i386"
    for action, answer in (("ALLOW", ALLOW), ("LOG", 0x7FFC0000), ("TRACE", 0x7FF00000 | errno.EPERM)):
        passes, _ = compile_filter(Seccomp(action, rules=(Rule(("read",), "ERRNO"),)))
        assert evaluate(passes, HIGHEST + 1, X86_64) == answer


@pytest.mark.requires("library:libseccomp.so.2")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86_64's")
def test_a_rule_without_errno_is_eperm_and_the_first_of_two_holds() -> None:
    rules = (
        Rule(("read", "file_setattr"), "ERRNO"),
        Rule(("write", "file_getattr"), "ERRNO", 5),
        Rule(("file_setattr",), "ALLOW"),
    )
    program, _ = compile_filter(Seccomp("ERRNO", errno.ENOSYS, rules=rules))
    assert evaluate(program, 0, X86_64) == ERRNO | errno.EPERM
    assert evaluate(program, 1, X86_64) == evaluate(program, NEWER["file_getattr"], X86_64) == ERRNO | 5
    assert evaluate(program, NEWER["file_setattr"], X86_64) == ERRNO | errno.EPERM


@pytest.mark.requires("library:libseccomp.so.2")
def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(Unsupported, match="notifications"):
        compile_filter(Seccomp("ALLOW", rules=(Rule(("read",), "NOTIFY"),)))
    with pytest.raises(Unsupported, match="notifications"):
        compile_filter(Seccomp("ALLOW", flags=("WAIT_KILLABLE_RECV",)))
    with pytest.raises(Invalid, match="architecture PDP11"):
        compile_filter(Seccomp("ALLOW", architectures=("PDP11",)))
    many = tuple(Rule(("ioctl",), "ERRNO", 1, (Arg(1, value << 32 | value),)) for value in range(1200))
    with pytest.raises(Invalid, match="the kernel takes 4096"):
        compile_filter(Seccomp("ALLOW", rules=many))


def test_a_missing_library_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", missing)
    with pytest.raises(Unsupported, match="apt-get install libseccomp2"):
        compile_filter(Seccomp("ALLOW"))


@pytest.mark.requires("library:libseccomp.so.2")
def test_the_default_profile_compiles_in_time() -> None:
    profile = default_profile(DEFAULT, os.uname().machine, KERNEL)
    times = []
    for _ in range(5):
        began = time.thread_time()
        compile_filter(profile)
        times.append(time.thread_time() - began)
    assert min(times) < 0.05, "seconds of CPU, twice what it takes; a first start with these capabilities waits for it"


def load(program: bytes, flags: int) -> None:
    """seccomp(SECCOMP_SET_MODE_FILTER) on the caller, for good. Raises OSError."""
    import ctypes

    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(code)), 16)
    prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
    syscall(317 if os.uname().machine == "x86_64" else 277, 1, flags, header)


def errno_of(number: int, *arguments: int) -> int:
    try:
        syscall(number, *arguments)
    except OSError as error:
        return error.errno or 0
    return 0


def answers_under(program: bytes, flags: int, calls: tuple[tuple[int, ...], ...]) -> list[int]:
    """The errno of each call in a child that has loaded the filter; 0 for success."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            prctl(PR_SET_PDEATHSIG, 9)
            load(program, flags)
            os.write(writing, bytes(errno_of(*call) for call in calls))
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return list(said)


@pytest.mark.requires("library:libseccomp.so.2")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86_64's")
def test_the_kernel_obeys_the_default_profile() -> None:
    program, flags = compile_filter(default_profile(DEFAULT, "x86_64", KERNEL))
    getpid, mount, clone3, newer = (39,), (165, 0, 0, 0, 0, 0), (435, 0, 0), (HIGHEST + 1,)
    assert errno_of(*mount) != errno.ENOSYS and errno_of(*clone3) == errno.EINVAL, "without the filter"
    assert answers_under(program, flags, (getpid, mount, clone3, newer)) == [0, errno.EPERM, errno.ENOSYS, errno.ENOSYS]


@pytest.mark.requires("library:libseccomp.so.2")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86_64's")
def test_the_kernel_hears_enosys_for_calls_newer_than_the_profile() -> None:
    profile = default_profile(DEFAULT, "x86_64", KERNEL)
    old = profile.replace(rules=(Rule(tuple(n for r in profile.rules for n in r.names if n not in NEWER), "ALLOW"),))
    program, flags = compile_filter(old.replace(flags=("LOG",)))
    process_mrelease = (NEWER["process_mrelease"], -1, 0)
    assert flags == 2
    assert errno_of(*process_mrelease) == errno.EBADF, "the kernel has it"
    assert answers_under(program, flags, (process_mrelease, (103, 10, 0, 0))) == [errno.ENOSYS, errno.EPERM]


@pytest.mark.requires("library:libseccomp.so.2")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86_64's")
def test_the_kernel_obeys_a_filter() -> None:
    profile = Seccomp(
        "ALLOW", rules=(Rule(("getppid",), "ERRNO", errno.EPERM), Rule(("close",), "ERRNO", 7, (Arg(0, 999),)))
    )
    program, flags = compile_filter(profile)
    assert answers_under(program, flags, ((110,), (3, 999), (39,))) == [1, 7, 0]
