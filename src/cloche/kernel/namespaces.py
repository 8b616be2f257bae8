"""namespaces(7): the eight kinds, as clone(2), unshare(2) and setns(2) name them."""

from __future__ import annotations

import os

NEWTIME = 0x00000080
NEWNS = 0x00020000
NEWCGROUP = 0x02000000
NEWUTS = 0x04000000
NEWIPC = 0x08000000
NEWUSER = 0x10000000
NEWPID = 0x20000000
NEWNET = 0x40000000

# clone3(2) only
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_INTO_CGROUP = 0x200000000

# the runtime spec's name: (flag, file below /proc/PID/ns, the constant's name)
KINDS = {
    "user": (NEWUSER, "user", "CLONE_NEWUSER"),
    "mount": (NEWNS, "mnt", "CLONE_NEWNS"),
    "pid": (NEWPID, "pid", "CLONE_NEWPID"),
    "network": (NEWNET, "net", "CLONE_NEWNET"),
    "ipc": (NEWIPC, "ipc", "CLONE_NEWIPC"),
    "uts": (NEWUTS, "uts", "CLONE_NEWUTS"),
    "cgroup": (NEWCGROUP, "cgroup", "CLONE_NEWCGROUP"),
    "time": (NEWTIME, "time", "CLONE_NEWTIME"),
}


def flag_names(flags: int) -> str:
    """`CLONE_NEWNS|CLONE_NEWPID`, or `0`."""
    names = [name for flag, _, name in KINDS.values() if flags & flag]
    names += ["CLONE_PARENT"] * bool(flags & CLONE_PARENT) + ["CLONE_INTO_CGROUP"] * bool(flags & CLONE_INTO_CGROUP)
    return "|".join(names) or "0"


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    from cloche.kernel.libc import check, unshare_

    check(unshare_(flags), f"unshare {flag_names(flags)}")


def setns(fd: int, flags: int = 0) -> None:
    """setns(2): `fd` is a namespace file or a pidfd. Raises OSError."""
    from cloche.kernel.libc import check, setns_

    check(setns_(fd, flags), f"setns {flag_names(flags)}")


def sethostname(name: str) -> None:
    """sethostname(2). Raises OSError."""
    from cloche.kernel.libc import check, sethostname_

    encoded = name.encode()
    check(sethostname_(encoded, len(encoded)), f"sethostname {name}")


class Visit:
    """This thread in another network namespace, given by a descriptor of it or a pidfd (Linux >= 5.8), for a moment.

    What it opens there stays of there. A thread that cannot come back ends the process. Raises OSError.
    """

    def __init__(self, namespace: int) -> None:
        self._namespace = namespace
        self._home = -1

    def __enter__(self) -> None:
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(self._namespace, NEWNET)
        except OSError:
            os.close(self._home)
            raise

    def __exit__(self, *_: object) -> None:
        try:
            setns(self._home, NEWNET)
        except OSError:
            os._exit(70)  # what it would do next, it would do to a container's network
        os.close(self._home)
