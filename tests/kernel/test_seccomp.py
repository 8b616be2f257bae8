"""The default filter beside the one that Debian ships for podman, call by call; and a filter at work in the kernel."""

from __future__ import annotations

import errno
import json
import os
import struct
import time
from fcntl import ioctl
from pathlib import Path
from random import Random
from signal import SIGSYS
from socket import recv_fds, send_fds, socketpair

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
X32_OWN = 512  # x32 has calls of its own from here on
ADMIN = "CAP_SYS_ADMIN"

# name: (the number that seccomp_data.arch has, x32's bit, libseccomp's token)
ARCHITECTURES = {"x86_64": (X86_64, 0, X86_64), "i386": (I386, 0, I386), "x32": (X86_64, 1 << 30, 0x4000003E)}

# What the peer allows to every container, and Docker and this profile only with one of these capabilities
STRICTER = {
    "mount umount umount2 mount_setattr move_mount open_tree fsopen fsconfig fsmount fspick unshare setns": {ADMIN},
    "syslog": {ADMIN, "CAP_SYSLOG"},
    "get_mempolicy set_mempolicy mbind": {"CAP_SYS_NICE"},
    "reboot": {"CAP_SYS_BOOT"},
    "pidfd_getfd": {"CAP_SYS_PTRACE"},
    # keyrings are not namespaced; the rest are no longer system calls, or have only ever been i386's
    "keyctl pivot_root query_module signal sigaction sigpending sigsuspend readdir": set(),
}
# What Docker and this profile allow, and the peer does not; the calls in NEWER are younger than the peer
LOOSER = {
    "bpf": "CAP_BPF",
    "perf_event_open": "CAP_PERFMON",
    "vmsplice io_pgetevents io_pgetevents_time64": None,
    "quotactl_fd open_tree_attr lsm_get_self_attr lsm_set_self_attr lsm_list_modules": ADMIN,
    "set_mempolicy_home_node": "CAP_SYS_NICE",
    " ".join(n for n in NEWER if not n.startswith(("lsm", "open_tree", "set_mempolicy"))): None,
}
SETS = {
    "none": (),
    "default": DEFAULT,
    "admin": (*DEFAULT, ADMIN),
    "ptrace": (*DEFAULT, "CAP_SYS_PTRACE"),
    "nice": ("CAP_SYS_NICE", "CAP_SYS_BOOT", "CAP_SYSLOG", "CAP_BPF", "CAP_PERFMON"),
    "time": ("CAP_SYS_TIME", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT"),
    "all": NAMES,
}


def peer() -> dict[str, object]:
    path = next((p for p in PEERS if p.exists()), None)
    if path is None:
        pytest.skip("needs the seccomp.json of golang-github-containers-common")
    document: dict[str, object] = json.loads(path.read_text())
    return document


def names_of(token: int, bit: int) -> dict[int, str]:
    """What the numbers below 601 are called on an architecture."""
    import ctypes

    resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_num_arch
    resolve.restype, resolve.argtypes = ctypes.c_void_p, (ctypes.c_uint32, ctypes.c_int)
    names = {number: name for name, number in NEWER.items()}
    for number in range(601):
        if found := resolve(token, number | bit):
            names[number] = ctypes.string_at(found).decode()
    return names


def expected(name: str, new: bool, theirs: int, capabilities: tuple[str, ...]) -> int:
    """Our answer to a call that the peer answers with `theirs`. `new`: younger than this profile."""
    if name == "clone3" and ADMIN not in capabilities:
        return ERRNO | errno.ENOSYS
    for names, opening in STRICTER.items():
        if name in names.split() and theirs == ALLOW and not opening & set(capabilities):
            return ERRNO | errno.EPERM
    for names, needed in LOOSER.items():
        if name in names.split() and theirs != ALLOW:
            return ALLOW if needed is None or needed in capabilities else ERRNO | errno.EPERM
    # the peer says ENOSYS to whatever it does not name, Docker EPERM to what is not new
    return theirs if theirs == ALLOW or new else ERRNO | errno.EPERM


@pytest.mark.requires("library:libseccomp.so.2")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86_64's")
@pytest.mark.parametrize("capabilities", SETS.values(), ids=SETS)
def test_every_call_is_answered_as_dockers_profile_does(capabilities: tuple[str, ...]) -> None:
    ours, _ = compile_filter(default_profile(capabilities, "x86_64", KERNEL))
    peers, _ = compile_filter(resolve_profile(peer(), capabilities, "x86_64", KERNEL))
    for architecture, (arch, bit, token) in ARCHITECTURES.items():
        names = names_of(token, bit)
        for number in range(601):
            name = names.get(number, "")
            if name == "uretprobe" or (name == "map_shadow_stack" and architecture != "x86_64"):
                continue  # x86_64's own; Docker allows the first too, which libseccomp knows from 2.6 on
            new = number > HIGHEST and (not bit or number < X32_OWN)
            theirs = evaluate(peers, number | bit, arch)
            answer = expected(name, new, theirs, capabilities)
            assert evaluate(ours, number | bit, arch) == answer, f"{architecture} {number} {name}: {theirs:#x}"
        for number in (HIGHEST + 1, X32_OWN - 1):
            assert evaluate(ours, number | bit, arch) == ERRNO | errno.ENOSYS, f"{architecture} {number}"


@pytest.mark.requires("library:libseccomp.so.2")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86_64's")
@pytest.mark.parametrize("capabilities", SETS.values(), ids=SETS)
def test_arguments_are_judged_as_dockers_profile_does(capabilities: tuple[str, ...]) -> None:
    ours, _ = compile_filter(default_profile(capabilities, "x86_64", KERNEL))
    theirs, _ = compile_filter(resolve_profile(peer(), capabilities, "x86_64", KERNEL))
    clone, personality, socket = 56, 135, 41
    for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF, 1, 9, 0x40000, 0x400000, 1 << 32):
        allowed = evaluate(theirs, personality, X86_64, (value,)) == ALLOW
        assert evaluate(ours, personality, X86_64, (value,)) == (ALLOW if allowed else ERRNO | errno.EPERM), value
    for family in (1, 2, 10, 16, 17):  # unix, inet, inet6, netlink, packet
        assert evaluate(ours, socket, X86_64, (family, 1, 0)) == evaluate(theirs, socket, X86_64, (family, 1, 0))
    for bit in range(8, 32):
        flags = 1 << bit | 0x11
        # the peer lets everybody make namespaces, Docker those that have CAP_SYS_ADMIN
        refused = bit in (17, 25, 26, 27, 28, 29, 30) and ADMIN not in capabilities
        assert evaluate(theirs, clone, X86_64, (flags, 0)) == ALLOW
        assert evaluate(ours, clone, X86_64, (flags, 0)) == (ERRNO | errno.EPERM if refused else ALLOW), bit


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
    for arch, bit, _ in ARCHITECTURES.values():
        assert evaluate(ours, bit | HIGHEST + 1, arch) == ERRNO | errno.ENOSYS
        assert evaluate(ours, bit | NEWER["cachestat"], arch) == evaluate(ours, bit | HIGHEST, arch) == ALLOW
        assert evaluate(ours, bit | NEWER["lsm_set_self_attr"], arch) == ERRNO | errno.EPERM
    rt_sigaction, unassigned = 512, 600
    assert evaluate(ours, 1 << 30 | rt_sigaction, X86_64) == ALLOW, "x32's own, not a new one"
    assert evaluate(ours, 1 << 30 | unassigned, X86_64) == ERRNO | errno.EPERM
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
    assert evaluate(old, 1 << 30 | NEWER["fchmodat2"], X86_64) == 0, "nor x32"
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
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86_64's")
def test_each_action_is_the_kernels() -> None:
    actions = {
        "ALLOW": 0x7FFF0000,
        "LOG": 0x7FFC0000,
        "TRACE": 0x7FF00005,
        "ERRNO": 0x00050005,
        "TRAP": 0x00030000,
        "KILL": 0,
        "KILL_THREAD": 0,
        "KILL_PROCESS": 0x80000000,
        "NOTIFY": 0x7FC00000,
    }
    for action, answer in actions.items():
        profile = Seccomp("ERRNO", rules=(Rule(("read", "mseal"), action, 5),))
        program, flags = compile_filter(profile, listener=True)
        assert evaluate(program, 0, X86_64) == evaluate(program, NEWER["mseal"], X86_64) == answer, action
        assert flags == (8 if action == "NOTIFY" else 0)


@pytest.mark.requires("library:libseccomp.so.2")
def test_flags_are_the_kernels() -> None:
    given = Seccomp("ALLOW", flags=("TSYNC", "LOG", "SPEC_ALLOW"))
    assert compile_filter(given)[1] == 1 | 2 | 4
    asking = given.replace(rules=(Rule(("getppid",), "NOTIFY"),), flags=("TSYNC", "WAIT_KILLABLE_RECV"))
    assert compile_filter(asking, listener=True)[1] == 1 | 8 | 16 | 32


@pytest.mark.requires("library:libseccomp.so.2")
def test_the_profile_of_another_machine() -> None:
    program, _ = compile_filter(default_profile(DEFAULT, "aarch64", KERNEL))
    arm64, arm = 0xC00000B7, 0x40000028
    openat, mount, set_tls = 56, 40, 0xF0005
    for number, arch, answer in (
        (openat, arm64, ALLOW),
        (mount, arm64, ERRNO | errno.EPERM),
        (NEWER["mseal"], arm64, ALLOW),
        (NEWER["mseal"], arm, ALLOW),
        (HIGHEST + 1, arm64, ERRNO | errno.ENOSYS),
        (set_tls, arm, ALLOW),
    ):
        assert evaluate(program, number, arch) == answer, (number, arch)


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
    assert min(times) < 0.2, "seconds of CPU, many times what it takes; a first start with these waits for it"


def load(program: bytes, flags: int) -> int:
    """seccomp(SECCOMP_SET_MODE_FILTER) on the caller, for good. Returns 0 or a listener. Raises OSError."""
    import ctypes

    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(code)), 16)
    prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
    return syscall(317 if os.uname().machine == "x86_64" else 277, 1, flags, header)


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


def random_program(random: Random) -> bytes:
    """Instructions of all kinds over the arguments of getppid(2), and an errno from 1 to 255 at their end."""
    code = [(0x20, 0, 0, 0), (0x15, 1, 0, 110), (0x06, 0, 0, ALLOW)]
    registers = [0x00, 0x01, 0x60, 0x61, 0x02, 0x03, 0x07, 0x87, 0x80, 0x81, 0x84]
    arithmetic = [0x04, 0x14, 0x24, 0x44, 0x54, 0x64, 0x74, 0xA4, 0x34]
    code += [(0x02, 0, 0, i) for i in range(16)]
    for _ in range(random.randint(5, 40)):
        kind = random.random()
        if kind < 0.3:
            op = random.choice(registers)
            k = random.randrange(16) if op in (0x60, 0x61, 0x02, 0x03) else random.getrandbits(32)
            code.append((op, 0, 0, k if op not in (0x07, 0x87, 0x80, 0x81, 0x84) else 0))
        elif kind < 0.4:
            code.append((0x20, 0, 0, random.randrange(16, 64, 4)))
        elif kind < 0.8:
            op = random.choice(arithmetic)
            k = random.randrange(32) if op in (0x64, 0x74) else random.randrange(1, 1 << random.randint(1, 32))
            code.append((op | 8, 0, 0, 0) if random.random() < 0.3 and op != 0x34 else (op, 0, 0, k))
        else:
            op = random.choice([0x15, 0x25, 0x35, 0x45]) | random.choice([0, 8])
            code.append((op, random.randrange(2), random.randrange(2), random.getrandbits(8)))
            code.append((0x04, 0, 0, random.getrandbits(8)))
    code += [(0x54, 0, 0, 0xFE), (0x44, 0, 0, ERRNO | 1), (0x16, 0, 0, 0)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


@pytest.mark.requires("seccomp")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86_64's")
def test_evaluate_says_what_the_kernel_does() -> None:
    random, answers = Random(1), set()
    for _ in range(40):
        program, args = random_program(random), tuple(random.getrandbits(64) for _ in range(6))
        foreseen = evaluate(program, 110, X86_64, args) & 0xFFFF
        assert answers_under(program, 0, ((110, *args),)) == [foreseen], program.hex()
        answers.add(foreseen)
    assert len(answers) > 10, "the programs did compute something"


@pytest.mark.requires("library:libseccomp.so.2")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86_64's")
def test_a_listener_answers_for_the_kernel() -> None:
    program, flags = compile_filter(Seccomp("ALLOW", rules=(Rule(("getppid",), "NOTIFY"),)), listener=True)
    ours, theirs = socketpair()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            prctl(PR_SET_PDEATHSIG, 9)
            listener = load(program, flags)
            send_fds(theirs, [b"."], [listener])
            os.close(listener)
            status = 0 if syscall(110) == 4242 else 2
        finally:
            os._exit(status)
    with ours, theirs:
        theirs.close()
        _, (listener,), _, _ = recv_fds(ours, 1, 1)
    try:
        asked = bytearray(80)  # struct seccomp_notif: id, pid, flags, seccomp_data
        ioctl(listener, 0xC0502100, asked)
        ident, pid, _, number = struct.unpack_from("=QIII", asked)
        assert (pid, number) == (child, 110)
        ioctl(listener, 0xC0182101, struct.pack("=QqiI", ident, 4242, 0, 0))
    finally:
        os.close(listener)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def through_int_80(*calls: tuple[int, ...]) -> list[int]:
    """What i386's calls by these numbers (and up to one argument) answer in this 64-bit process."""
    import ctypes
    from mmap import PROT_EXEC, PROT_READ, PROT_WRITE, mmap

    memory = mmap(-1, 4096, prot=PROT_READ | PROT_WRITE | PROT_EXEC)
    memory.write(bytes.fromhex("53 89f8 89f3 31c9 31d2 cd80 5b c3"))  # eax, ebx = edi, esi; ecx = edx = 0; int 0x80
    enter = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)(
        ctypes.addressof(ctypes.c_char.from_buffer(memory))
    )
    return [enter(number, argument) for number, argument in calls]


def status_under(program: bytes, *calls: tuple[int, int]) -> int:
    """How a child ends that makes these i386 calls: minus a signal, or minus the last one's answer."""
    child = os.fork()
    if child == 0:
        prctl(PR_SET_PDEATHSIG, 9)
        if program:
            load(program, 0)
        os._exit(-through_int_80(*calls)[-1] & 0xFF)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.requires("library:libseccomp.so.2")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86_64's")
def test_the_door_for_32_bit_programs_is_watched_too() -> None:
    getpid, mount, getppid = (20, 0), (21, 0), (64, 0)
    if status_under(b"", getpid, (6, -1)) != errno.EBADF:
        pytest.skip("this kernel runs no i386 calls")
    docker, _ = compile_filter(default_profile(DEFAULT, "x86_64", KERNEL))
    assert status_under(docker, getpid, mount) == errno.EPERM
    assert status_under(docker, (HIGHEST + 1, 0)) == errno.ENOSYS
    only_64, _ = compile_filter(Seccomp("ALLOW", architectures=("X86_64",)))
    assert status_under(only_64, getppid) == -SIGSYS, "an architecture that the profile does not list"


@pytest.mark.requires("library:libseccomp.so.2")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86_64's")
def test_a_kill_ends_the_process() -> None:
    for action in ("KILL_PROCESS", "KILL", "TRAP"):
        program, _ = compile_filter(Seccomp("ALLOW", rules=(Rule(("getppid",), action),)))
        child = os.fork()
        if child == 0:
            load(program, 0)
            os.getppid()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -SIGSYS, action
