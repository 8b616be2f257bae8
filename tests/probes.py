"""What this host can do, found by trying it: the names that `@requires(...)` takes, each answered once a run.

    @requires("root", "overlay", "cgroup:memory", "program:skopeo")
    def test_...

A probe tries the thing itself in a forked child, so it holds for a user, in a container and under User Mode Linux too.
Names are checked when a test module is imported; the probes run when the first test needs them.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NEWTIME, NEWNS, NEWCGROUP, NEWUSER, NEWNET = 0x80, 0x20000, 0x2000000, 0x10000000, 0x40000000
MS_BIND, MS_MOVE, MS_REC, MS_SLAVE, MNT_DETACH = 0x1000, 0x2000, 0x4000, 0x80000, 2
SIOCSIFFLAGS, IFF_UP = 0x8914, 1

libc = ctypes.CDLL(None, use_errno=True)


def succeeds(attempt: Callable[[], object]) -> bool:
    """Whether `attempt` returns in a forked child; what it changes ends with the child."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            attempt()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def unshare(flags: int) -> None:
    if libc.unshare(flags):
        raise OSError(ctypes.get_errno(), f"unshare {flags:#x}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    arguments = [text.encode() if text else None for text in (source, target, kind)]
    if libc.mount(*arguments, ctypes.c_ulong(flags), data.encode() if data else None):
        raise OSError(ctypes.get_errno(), f"mount {kind} on {target}")


def private_mount_namespace() -> None:
    """Puts the caller into a mount namespace whose mounts do not reach the one it came from. Raises OSError."""
    unshare(NEWNS)
    mount("", "/", "", MS_REC | MS_SLAVE)


def network_of_its_own() -> None:
    """Puts the caller into a network namespace with nothing but loopback, and mounts /sys anew, which shows the links
    of the one in which it was mounted; the control groups stay below it. Raises OSError."""
    unshare(NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        mount("/sys/fs/cgroup", place, "", MS_BIND | MS_REC)
        libc.umount2(b"/sys", MNT_DETACH)  # else each hierarchy would be there twice
        mount("sysfs", "/sys", "sysfs")
        mount(place, "/sys/fs/cgroup", "", MS_MOVE)


@contextmanager
def scratch_tmpfs() -> Iterator[str]:
    """A tmpfs of its own in a mount namespace of its own; for a forked child."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        private_mount_namespace()
        mount("tmpfs", place, "tmpfs")
        try:
            yield place
        finally:
            libc.umount2(place.encode(), MNT_DETACH)


def _rooted() -> None:
    """What a container needs of root: mounts, and device nodes (no user namespace may make those)."""
    with scratch_tmpfs() as place:
        os.mknod(f"{place}/null", 0o20600, os.makedev(1, 3))


def _file_system(kind: str, data: str = "") -> None:
    with scratch_tmpfs() as place:
        for name in ("lower", "upper", "work", "merged"):
            os.mkdir(f"{place}/{name}")
        mount(kind, f"{place}/merged", kind, 0, data.format(place))


def cgroup_mounts() -> dict[str, str]:
    """Mount point of each cgroup hierarchy by its controllers' names; `unified` is version 2's."""
    found: dict[str, str] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2":
            found.setdefault("unified", before.split()[4])
        elif kind == "cgroup":
            for name in options.split(","):
                found.setdefault(name, before.split()[4])
    return found


@functools.cache
def layout() -> str:
    """`v1`, `v2`, `hybrid` (version 1 with a `unified` tree beside it) or `none`."""
    mounts = cgroup_mounts()
    controllers = Path("/proc/cgroups").read_text() if Path("/proc/cgroups").exists() else ""
    has_v1 = any(line.split()[0] in mounts for line in controllers.splitlines()[1:])
    if "unified" in mounts:
        return "hybrid" if has_v1 else "v2"
    return "v1" if has_v1 else "none"


def _controller(name: str) -> bool:
    mounts = cgroup_mounts()
    if name in mounts:
        return True
    root = mounts.get("unified")
    if name == "devices" and root and layout() == "v2":  # no controller there: a BPF program does it
        return True
    return bool(root) and name in Path(f"{root}/cgroup.controllers").read_text().split()


def _capability(number: int) -> bool:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("CapEff:"))
    return bool(int(line.split()[1], 16) >> number & 1)


def _library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _namespace(flag: int) -> Callable[[], bool]:
    return lambda: succeeds(lambda: unshare(flag))


def _exit_info() -> None:
    """PIDFD_GET_INFO tells of a process that somebody else has reaped, from Linux 6.15 on."""
    from cloche.kernel.pidfd import exit_status

    pid = os.fork()
    if pid == 0:
        os._exit(3)
    pidfd = os.pidfd_open(pid)
    os.waitpid(pid, 0)
    if exit_status(pidfd) != 3:
        raise OSError(38, "PIDFD_GET_INFO")


def _ps() -> None:
    """It asks /proc for more than every kernel tells: User Mode Linux has no boot time."""
    import subprocess

    subprocess.run(["ps", "-ef"], check=True, capture_output=True)


def _linux32() -> None:
    """User Mode Linux takes personality(2) and calls its machine what it is all the same."""
    before = os.uname().machine
    if libc.personality(8) < 0 or os.uname().machine == before:
        raise OSError(38, "PER_LINUX32")


def _idmap() -> None:
    """An id-mapped mount of a folder in /tmp: not every file system of every kernel can be mounted so."""
    from struct import pack

    detached_clone, everywhere, attr_idmap, empty_path = 1, -100, 0x100000, 0x1000
    with tempfile.TemporaryDirectory(dir="/tmp") as place, mapped_namespace() as namespace:
        tree = libc.syscall(428, everywhere, place.encode(), detached_clone)  # open_tree(2)
        attributes = pack("QQQQ", attr_idmap, 0, 0, namespace)
        if tree < 0 or libc.syscall(442, tree, b"", empty_path, attributes, len(attributes)):  # mount_setattr(2)
            raise OSError(ctypes.get_errno(), "mount_setattr")


@contextmanager
def mapped_namespace() -> Iterator[int]:
    """A descriptor of a user namespace that maps 65536 ids, of a process that has ended. Raises OSError."""
    ready, say_ready = os.pipe()
    go_on, say_go_on = os.pipe()
    pid = os.fork()
    if pid == 0:
        if not libc.unshare(NEWUSER):
            os.write(say_ready, b".")
            os.close(say_go_on)
            os.read(go_on, 1)
        os._exit(0)
    os.close(say_ready)
    try:
        if not os.read(ready, 1):
            raise OSError(1, "unshare")
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text("0 100000 65536")
        namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        for fd in (ready, go_on, say_go_on):
            os.close(fd)
        os.waitpid(pid, 0)
    try:
        yield namespace
    finally:
        os.close(namespace)


def _bridge() -> None:
    """A bridge and a pair of links, in a network namespace of the child's own."""
    from cloche.kernel import rtnetlink

    unshare(NEWNET)
    socket = rtnetlink.host()
    socket.ask(rtnetlink.make_bridge("probe0", b"\x02\0\0\0\0\1"))
    bridge = rtnetlink.index("probe0")
    socket.ask(rtnetlink.make_veth("probe1", "probe2", os.getpid(), bridge, b"\x02\0\0\0\0\2"))


def _nf_tables() -> None:
    """All the rules of a store, in a network namespace of the child's own."""
    from cloche.kernel import nftables
    from cloche.step.ruleset import table

    unshare(NEWNET)
    nftables.host().ask(*nftables.make_table(table("probe")))


PROBES: dict[str, Callable[[], bool]] = {
    "root": lambda: succeeds(_rooted),
    "overlay": lambda: succeeds(
        lambda: _file_system("overlay", "lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work")
    ),
    "mqueue": lambda: succeeds(lambda: _file_system("mqueue")),
    "idmap": lambda: succeeds(_idmap),
    "linux32": lambda: succeeds(_linux32),
    "userns": _namespace(NEWUSER),
    "netns": _namespace(NEWNET),
    "bridge": lambda: succeeds(_bridge),
    "nf_tables": lambda: succeeds(_nf_tables),
    "ps": lambda: succeeds(_ps),
    "timens": _namespace(NEWTIME),
    "cgroupns": _namespace(NEWCGROUP),
    "seccomp": lambda: Path("/proc/sys/kernel/seccomp/actions_avail").exists(),
    "libseccomp": lambda: _library("libseccomp.so.2"),
    "sys_resource": lambda: _capability(24),
    "exit_info": lambda: succeeds(_exit_info),
    "swap": lambda: len(Path("/proc/swaps").read_text().splitlines()) > 1,
}
FAMILIES: dict[str, Callable[[str], bool]] = {
    "cgroup": lambda name: layout() == name if name in ("v1", "v2", "hybrid") else _controller(name),
    "program": lambda name: shutil.which(name) is not None,
    "library": _library,
    "file": lambda name: Path(name).exists(),
    "filesystem": lambda name: name in Path("/proc/filesystems").read_text().split(),
}


def check_name(name: str) -> None:
    """Raises ValueError for what no probe answers, so that a slip of the pen is no silent skip."""
    family, colon, rest = name.partition(":")
    if not (name in PROBES or (colon and rest and family in FAMILIES)):
        raise ValueError(f"no probe named {name!r} in tests/probes.py")


@functools.cache
def available(name: str) -> bool:
    """Whether the host has it."""
    check_name(name)
    family, colon, rest = name.partition(":")
    return FAMILIES[family](rest) if colon else PROBES[name]()


def missing(*names: str) -> list[str]:
    return [name for name in names if not available(name)]


def requires(*names: str) -> pytest.MarkDecorator:
    """Marks a test (or, as `pytestmark`, a module) that needs all of these; conftest.py skips it with the reason."""
    for name in names:
        check_name(name)
    return pytest.mark.requires(*names)
