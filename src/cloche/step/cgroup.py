"""cgroups(7) as steps: make one, limit it, let the new process join it by itself.

A process joins by writing `0` to a file that was opened from outside: writing another's pid to cgroup.procs costs a
grace period
of the kernel (8-18 ms on an idle machine). On v2 the process is born inside, by CLONE_INTO_CGROUP.
"""

from __future__ import annotations

import os
from errno import EBUSY, EEXIST, EINVAL, ENOENT, EOPNOTSUPP

from cloche.step.base import Flat, Ref, Step, quote, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar

    from cloche.step.base import World


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


def _make_parent(path: str, root: str, controllers: tuple[str, ...]) -> None:
    """Make the directories between a hierarchy's root and `path`, able to have children with these controllers."""
    if path in (root, "/") or os.path.isdir(path):
        return
    above = os.path.dirname(path)
    _make_parent(above, root, controllers)
    try:
        os.mkdir(path, 0o755)
    except OSError as error:
        if error.errno != EEXIST:
            raise
    if os.path.exists(path + "/cpuset.cpus") and os.path.exists(path + "/cgroup.clone_children"):
        _inherit_cpuset(path, above)
        _write(path + "/cgroup.clone_children", b"1")  # children of this one are born with its CPUs


def _inherit_cpuset(path: str, above: str) -> None:
    """cpuset(7), v1: a new cpuset is empty and refuses processes until it has CPUs and memory nodes."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        with open(f"{path}/{name}", "rb") as present:
            if present.read().strip():
                return  # its parent hands them down, or somebody has set them
        with open(f"{above}/{name}", "rb") as wanted:
            _write(f"{path}/{name}", wanted.read())


class MakeCgroup(Step):
    """Make the container's directory in one hierarchy; missing parents are made and prepared."""

    because = "A control group of its own: the kernel counts and limits here what the container uses."
    path: str
    root: str
    controllers: tuple[str, ...] = ()
    unified: bool = False

    def call(self) -> str:
        return f"mkdir({quote(self.path)}, 0755)"

    def shell(self) -> str:
        return f"mkdir -p {word(self.path)}"

    def name(self) -> str:
        return f"make cgroup {self.path}"

    def execute(self, world: World) -> None:
        above = os.path.dirname(self.path)
        try:
            os.mkdir(self.path, 0o755)
        except OSError as error:
            if error.errno == ENOENT:
                _make_parent(above, self.root, self.controllers)
                os.mkdir(self.path, 0o755)
            elif error.errno != EEXIST:
                raise
        # a parent that somebody else has made hands down nothing by itself
        if self.unified:
            self._delegate(above)
        elif "cpuset" in self.controllers:
            _inherit_cpuset(self.path, above)

    def _delegate(self, above: str) -> None:
        """cgroup v2: a controller must be switched on in every group between the root and the container's parent.

        One that cannot be is missed where there is a limit to be written; the others are there.
        """
        with open(self.path + "/cgroup.controllers", "rb") as file:
            missing = set(self.controllers).difference(file.read().decode().split())
        if not missing:
            return
        parts = [part for part in os.path.relpath(above, self.root).split("/") if part != "."]
        for depth in range(len(parts) + 1):
            for controller in sorted(missing):
                try:
                    _write(os.path.join(self.root, *parts[:depth], "cgroup.subtree_control"), f"+{controller}".encode())
                except OSError as error:
                    if error.errno not in (EBUSY, EINVAL, ENOENT, EOPNOTSUPP):
                        raise

    def undo(self) -> None:
        try:
            os.rmdir(self.path)
        except OSError as error:
            if error.errno == ENOENT:
                return
            if error.errno != EBUSY:
                raise
            from cloche.kernel.cgroups import kill_all, remove_tree

            kill_all(self.path)
            remove_tree(self.path)


_DELEGATED = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads"  # on kernels that do not say, before Linux 4.15


class DelegateCgroup(Step):
    """cgroups(7), Delegation: somebody may make groups below this one and move processes there; its limits, which are
    the other files, stay with who made it."""

    because = "The group is mounted writable: who runs in it may divide it, and not raise its limits."
    path: str
    uid: int

    def call(self) -> str:
        return f"chown({quote(self.path)}, {self.uid}, -1)"

    def shell(self) -> str:
        group = word(self.path)
        return f"(cd {group} && chown {self.uid} . $(cat /sys/kernel/cgroup/delegate) 2>/dev/null)"

    def name(self) -> str:
        return f"give cgroup {self.path} to user {self.uid}"

    def execute(self, world: World) -> None:
        try:
            with open("/sys/kernel/cgroup/delegate", encoding="ascii") as file:
                names = file.read()
        except FileNotFoundError:
            names = _DELEGATED
        os.chown(self.path, self.uid, -1)
        for name in names.split():
            try:
                os.chown(f"{self.path}/{name}", self.uid, -1)
            except FileNotFoundError:
                continue  # of a controller that the group does not have


class LimitCgroup(Step):
    """Write one limit. otherwise: (path, content) for kernels that name it otherwise, in this order."""

    because = "A limit that was asked for."
    path: str
    content: str
    otherwise: tuple[tuple[str, str], ...] = ()

    @property
    def forbids_all(self) -> bool:
        """Whether no process may be made in the group any more."""
        return self.content == "0" and self.path.endswith("/pids.max")

    def call(self) -> str:
        return f"write({quote(self.path)}, {quote(self.content)})"

    def shell(self) -> str:
        return f"echo {word(self.content)} > {word(self.path)}"

    def name(self) -> str:
        return f"write {self.content} to {self.path}"

    def execute(self, world: World) -> None:
        self.write()

    def write(self) -> None:
        """The same outside of a plan. Raises OSError."""
        here = self.here()
        _write(here.path, here.content.encode())

    def here(self) -> LimitCgroup:
        """The limit as this kernel names it."""
        for path, content in ((self.path, self.content), *self.otherwise):
            if os.path.exists(path):
                return LimitCgroup(path, content)
        return LimitCgroup(self.path, self.content)


class FilterDevices(Step):
    """cgroup v2: attach a BPF program that says which device nodes may be opened or made."""

    because = "Which devices the container may open; version 2 of cgroups asks a program instead of a list."
    path: str
    program: bytes

    def call(self) -> str:
        return f"bpf(BPF_PROG_ATTACH, {quote(self.path)}, {len(self.program) // 8} instructions)"

    def name(self) -> str:
        return f"attach the device filter to {self.path}"

    def execute(self, world: World) -> None:
        from cloche.kernel.bpf import attach_device_filter

        attach_device_filter(self.path, self.program)


class OpenForJoining(Step):
    """The throw-away process opens a group's file while it still has the host's rights and the host's paths."""

    because = (
        "The new process will join the group by itself, through a descriptor that was opened with the host's rights."
    )
    op: ClassVar[str] = "OPEN"
    path: str
    made: Ref
    directory: bool = False

    def gives(self) -> tuple[Ref, ...]:
        return (self.made,)

    def call(self) -> str:
        return f"open({quote(self.path)}, {'O_DIRECTORY|O_RDONLY' if self.directory else 'O_WRONLY'}|O_CLOEXEC)"

    def name(self) -> str:
        return f"open {self.path}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        flags = os.O_DIRECTORY if self.directory else os.O_WRONLY
        return (slot(self.made), flags), (self.path.encode(),)


class JoinCgroup(Step):
    """The new process writes 0, "myself", to the group's file."""

    because = "From here on what this process and its children use is counted in the container's group."
    op: ClassVar[str] = "WRITE"
    file: Ref
    content: str = "0"

    def needs(self) -> tuple[Ref, ...]:
        return (self.file,)

    def call(self) -> str:
        return f"write({self.file.name}, {quote(self.content)})"

    def shell(self) -> str:
        return f"echo $$ > $(cat {self.file.name})"

    def name(self) -> str:
        return f"join cgroup through {self.file.name}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (slot(self.file),), (self.content.encode(),)
