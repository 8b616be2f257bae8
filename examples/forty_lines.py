"""The smallest container, on cloche.kernel alone: namespaces, a root, a program. Run it as root with a root folder.

python3 examples/forty_lines.py ROOTFS PROGRAM [ARG...]
"""

from __future__ import annotations

import os
import sys

from cloche.kernel.mounts import (
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    mount,
    pivot_root,
    umount2,
)
from cloche.kernel.namespaces import NEWIPC, NEWNET, NEWNS, NEWPID, NEWUTS, sethostname, unshare


def contain(root: str, program: list[str]) -> None:
    """Become PID 1 of a container: everything from here on is seen by this process alone."""
    mount(None, "/", None, MS_REC | MS_PRIVATE)  # what is mounted here must not appear on the host
    mount(root, root, None, MS_BIND | MS_REC)  # pivot_root wants a mount
    os.chdir(root)
    mount("proc", "proc", "proc", MS_NOSUID | MS_NOEXEC | MS_NODEV)  # shows the new pid namespace
    pivot_root(".", ".")  # the old root is now under the new one ...
    umount2(".", MNT_DETACH)  # ... and gone
    os.chdir("/")
    sethostname("forty-lines")
    path = next(p for p in (f"/bin/{program[0]}", f"/usr/bin/{program[0]}", program[0]) if os.path.exists(p))
    os.execve(
        path, program, {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
    )  # execvpe imports, and no import can work in here


def main(root: str, *program: str) -> int:
    """Make the namespaces, fork into them, wait. Returns the program's exit code."""
    unshare(NEWNS | NEWPID | NEWUTS | NEWIPC | NEWNET)  # a pid namespace is entered by children only
    child = os.fork()
    if child == 0:
        contain(root, list(program))
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
