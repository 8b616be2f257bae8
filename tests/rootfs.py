"""Root folders to run in, and containers made of them by a plan alone: no keeper, no image, no store.

`Glass` is one folder with this machine's shell and a few tools. Tests change it as a hostile image would, then `run()`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from cloche.image.entries import write_layer
from cloche.image.packing import collect
from cloche.image.tree import Tree
from cloche.oci.runtime import Capabilities, Mount, Namespace, Process, Spec, User
from cloche.plan import Bundle, Joining, plan, plan_joining
from cloche.plan.defaults import MASKED, NODES, READONLY
from cloche.runtime import foreground
from cloche.runtime.bell import Bell
from cloche.runtime.execution import Execution, StepFailed, explain
from cloche.step.base import Act, Plan
from cloche.step.flat import flatten
from cloche.step.host import Host, probe
from cloche.step.rootfs import Folder
from cloche.step.stored import stored
from cloche.storage import layers

TOOLS = "sh cat ls id sleep mkdir rmdir env readlink stat grep cp mv ln rm touch tty stty kill true false hostname"
KINDS = ("mount", "pid", "network", "ipc", "uts", "cgroup")
HARDENED = ("nosuid", "noexec", "nodev")
MOUNTS = (
    Mount("/proc", "proc", "proc", HARDENED),
    Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "mode=755")),
    Mount("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620")),
    Mount("/sys", "sysfs", "sysfs", (*HARDENED, "ro")),
)
CAPABILITIES = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP")
SETS = Capabilities(CAPABILITIES, CAPABILITIES, CAPABILITIES)


def unpack(place: Path) -> Path:
    """The machine's own shell and tools with their libraries, as a folder."""
    packing = collect(TOOLS.split(), path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
    layer = BytesIO()
    write_layer(packing.entries, layer, Tree())
    layer.seek(0)
    layers.unpack(layer, str(place / "root"))
    return place / "root"


class Glass:
    """One container to be: its root folder and the place where that is mounted."""

    def __init__(self, base: Path, place: Path) -> None:
        self.root = place / "root"
        self.mountpoint = place / "mnt" / "root"
        self.mountpoint.mkdir(parents=True)
        shutil.copytree(base, self.root, symlinks=True)
        self.host: Host = probe()

    def spec(self, *args: str, user: str = "", mounts: tuple[Mount, ...] = (), **changes: Any) -> Spec:
        """What `args` run in: all namespaces new, the usual mounts, masks and devices. `changes` are of the process."""
        process = Process(args, ("PATH=/bin:/usr/bin:/sbin:/usr/sbin",), user=User(name=user), capabilities=SETS)
        return Spec(
            process.replace(**changes),
            hostname="glass",
            mounts=(*MOUNTS, *mounts),
            namespaces=tuple(Namespace(kind) for kind in KINDS),
            devices=NODES,
            masked_paths=MASKED,
            readonly_paths=READONLY,
        )

    def plan(self, spec: Spec) -> Plan:
        return plan(Bundle("ID", spec, Folder(str(self.root)), str(self.mountpoint)), self.host)

    def run(self, wanted: Spec | Plan) -> tuple[int, str]:
        """Its exit status and what it wrote. Raises Error when it could not be made."""
        made = wanted if isinstance(wanted, Plan) else self.plan(wanted)
        with streams() as stdio:
            code = foreground.run(made, stdio)
            return code, os.pread(stdio[1], 1 << 20, 0).decode()

    def sh(self, script: str, **changes: Any) -> str:
        """What a script says that must succeed."""
        code, said = self.run(self.spec("sh", "-c", script, **changes))
        assert code == 0, said
        return said.rstrip("\n")


def join(pid: int, process: Process, host: Host) -> Plan:
    """The plan of a process beside `pid`, in all its namespaces."""
    return plan_joining(Joining("EXEC", process, pid, 0, tuple(Namespace(kind) for kind in KINDS)), host)


@contextmanager
def streams() -> Iterator[tuple[int, int, int]]:
    """An empty stdin, and one file in memory for stdout and stderr."""
    empty, out = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC), os.memfd_create("output", os.MFD_CLOEXEC)
    try:
        yield empty, out, out
    finally:
        os.close(empty)
        os.close(out)


@contextmanager
def making(wanted: Plan, stdio: tuple[int, int, int]) -> Iterator[Execution]:
    """The plan on its way, for tests that look at it in between: they call `advance` and `wait`. Nobody is left."""
    bell = Bell()
    under_way = Execution(stored(wanted, flatten(wanted), {}), bell, stdio)
    try:
        yield under_way
    except StepFailed as problem:
        raise explain(wanted, problem.failure) from None
    finally:
        under_way.close()
        for pid in (under_way.stage, under_way.pid):
            if pid:
                end(pid)
        wanted.undo()
        bell.close()


@contextmanager
def running(wanted: Plan, stdio: tuple[int, int, int]) -> Iterator[Execution]:
    """The plan executed to its end: the program runs until the block ends."""
    with making(wanted, stdio) as under_way:
        while under_way.advance():
            under_way.wait()
        yield under_way


def end(pid: int) -> None:
    """Kill and reap a child, if it still is one."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


def place_before(wanted: Plan, kind: str, *acts: Act) -> Plan:
    """The plan with more acts before the first step of this kind."""
    at = next(n for n, act in enumerate(wanted.acts) if type(act.step).__name__ == kind)
    return Plan((*wanted.acts[:at], *acts, *wanted.acts[at:]))
