"""What a test's container is made of unless the test says otherwise: `runc spec`'s defaults, and a busybox root.

The differences to them: no terminal, a root that can be written to, a cgroup namespace of its own, and no mqueue.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

BUSYBOX = "/bin/busybox"
NAMES = (
    "[ ash awk basename cat chgrp chmod chown cp cut date dd df dirname dmesg echo env expr false find free getopt "
    "grep head hostname id ifconfig ionice ip kill ln ls md5sum mkdir mkfifo mknod mktemp more mount mv nc nproc "
    "nsenter od pidof printf ps pwd readlink realpath rm rmdir sed seq setpriv setsid sh sha256sum sleep sort stat "
    "stty sync sysctl tail taskset tee test timeout top touch tr true truncate tty umount uname uniq unshare usleep "
    "wc wget which whoami xargs xxd yes"
)
FOLDERS = "bin dev etc proc root sys tmp usr/bin var"
HARDENED = ("nosuid", "noexec", "nodev")
CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")


def fill(rootfs: Path) -> None:
    """Makes a root file system of static busybox: its names in /bin, users root and nobody."""
    for name in FOLDERS.split():
        (rootfs / name).mkdir(parents=True)
    (rootfs / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, rootfs / "bin/busybox")
    for name in NAMES.split():
        os.symlink("busybox", rootfs / "bin" / name)
    (rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    (rootfs / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")


def default() -> dict[str, Any]:
    """A configuration that every runtime must be able to run; a new value each time, for tests change it."""
    return {
        "ociVersion": "1.2.0",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": "conformance",
        "mounts": [
            _mount("/proc", "proc", "proc"),
            _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount(
                *("/dev/pts", "devpts", "devpts"),
                *("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
            ),
            _mount("/dev/shm", "tmpfs", "shm", *HARDENED, "mode=1777", "size=65536k"),
            _mount("/sys", "sysfs", "sysfs", *HARDENED, "ro"),
            _mount("/sys/fs/cgroup", "cgroup", "cgroup", *HARDENED, "relatime", "ro"),
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "maskedPaths": [
                *(f"/proc/{name}" for name in ("acpi", "asound", "kcore", "keys", "latency_stats", "sched_debug")),
                *("/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware"),
            ],
            "readonlyPaths": [f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger")],
        },
    }


def _mount(destination: str, type: str, source: str, *options: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"destination": destination, "type": type, "source": source}
    return {**entry, "options": list(options)} if options else entry
