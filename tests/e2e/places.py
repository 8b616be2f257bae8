"""A place for an engine: a directory, an environment, the images, and a look at what is left of it all.

Its name is a mark: what an engine makes outside of it (control groups, mounts, processes) has the name somewhere, so
that it is found when the place is left. How engines are started is not its business: engines.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import leftovers
from archives import docker_files, dumps, files_tar, folder, member, symlink, tar_of
from commands import Result
from conformance.harness import CHOSEN, binary
from probes import cgroup_mounts
from screens import PROMPT, SECONDS

SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"  # the system's own engines go before others
IMAGE, PAUSE = "docker.io/library/box:latest", "docker.io/library/pause:latest"
BUSYBOX = Path("/bin/busybox")
USERS = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n"
GROUPS = b"root:x:0:\naudio:x:29:app\napp:x:1000:\n"


def runtime() -> str:
    """The path of the runtime under test; skips when there is none."""
    program = binary()
    if not program:
        pytest.skip(f"needs the runtime {CHOSEN}")
    return program


def archive(path: Path) -> Path:
    """What `docker save` writes of two images, both nothing but busybox: a shell, and a program that does nothing."""
    applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    members = [
        *(folder(name) for name in ("bin", "dev", "etc", "proc", "root", "run", "sys")),
        folder("tmp", 0o1777),
        member("bin/busybox", BUSYBOX.read_bytes(), mode=0o755),
        *(symlink(f"bin/{name}", "busybox") for name in applets if name != "busybox"),
        member("etc/passwd", USERS),
        member("etc/group", GROUPS),
    ]
    layer = tar_of(*members)
    files: dict[str, bytes] = {}
    listed: list[Any] = []
    for name, command in ((IMAGE, ["sh"]), (PAUSE, ["sleep", "100000"])):
        config = {"Cmd": command, "Env": ["PATH=/bin", f"PS1={PROMPT}"]}
        made = docker_files([layer], [name], config=config, history=[{"created_by": "a test"}])
        listed += json.loads(made["manifest.json"])
        files |= made
    path.write_bytes(files_tar({**files, "manifest.json": dumps(listed)}))
    return path


class Place:
    """One engine's directory and environment. Its name is also the name of the control group above its containers."""

    def __init__(self) -> None:
        self.runtime = runtime()
        self.name = f"cloche-e{os.urandom(5).hex()}"  # also a namespace of containerd's: no underscore
        self.root = Path("/tmp", self.name)
        self.root.mkdir()
        self.root.chmod(0o755)  # containers with ids of their own look in
        self.states: tuple[Path, ...] = ()  # where the runtime remembers containers, when it is not its own choice
        for name in ("home", "tmp"):
            (self.root / name).mkdir()
        self.images = archive(self.root / "images.tar")
        self.env = {
            "PATH": SYSTEM,
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "TERM": "xterm",
            "LANG": "C.UTF-8",
        }

    def run(self, *command: str, input: str = "", **more: Any) -> Result:
        """A client to its end. Its output goes to files: a pipe would stay open as long as a container has it."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            done = subprocess.run(
                command, input=input.encode(), stdout=out, stderr=err, timeout=SECONDS, env=self.env, **more
            )
            said = [(stream.seek(0), stream.read().decode())[1] for stream in (out, err)]
        return Result(done.returncode, *said)

    def log(self) -> str:
        """The end of what the server has said."""
        return (self.root / "daemon.log").read_text()[-4000:]

    def end(self) -> list[str]:
        """Waits until nothing of the engine's is left, takes away what is, and says what it was."""
        deadline = time.monotonic() + 10
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.02)
        if left:
            self._sweep()
        if not leftovers.mounts((str(self.root),)):  # never remove through a mount
            shutil.rmtree(self.root)
        return left

    def _left(self) -> list[str]:
        take_away(self.name, "conmon")
        known = [f"container {box['id']} of the runtime" for box in self.containers()]
        return [*leftovers.traces(self.root), *known]

    def containers(self) -> list[dict[str, Any]]:
        """What the runtime knows of containers whose bundles are here."""
        known: list[dict[str, Any]] = []
        for flags in [("--root", str(state)) for state in self.states if state.exists()] if self.states else [()]:
            listed = self.run(self.runtime, *flags, "list", "--format", "json")
            assert listed.code == 0, listed
            known += json.loads(listed.out) or []
        return [box for box in known if str(self.root) in box.get("bundle", "")]

    def _sweep(self) -> None:
        for path in leftovers.cgroups((f"/{self.name}",)):
            thaw = Path(path, "freezer.state")
            if thaw.exists():
                thaw.write_text("THAWED")
            leftovers.end_processes(
                [int(pid) for pid in Path(path, "cgroup.procs").read_text().split()], signal.SIGKILL
            )
        leftovers.sweep(self.root)


def take_away(*names: str) -> None:
    """Removes control groups of these names that are empty: engines make some above the containers', and leave them."""
    for path in leftovers.cgroups(tuple(f"/{name}" for name in names)):
        if os.path.basename(path) in names:
            try:
                os.rmdir(path)
            except OSError:
                continue


@contextmanager
def placed() -> Iterator[Place]:
    """A place, which is empty again in the end or fails the test."""
    place = Place()
    left: list[str] = []
    try:
        yield place
    finally:
        left = place.end()
    assert not left, "left behind: " + "; ".join(left)


def cgroup_files(pid: int, controller: str) -> Path:
    """The control group that a process has of a controller."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(",") or (not names and controller not in cgroup_mounts()):
            return Path(cgroup_mounts()[controller if names else "unified"] + path)
    raise LookupError(f"no group of {controller} for {pid}")


def memory_limit(pid: int) -> int:
    """In bytes, on both versions of control groups."""
    place = cgroup_files(pid, "memory")
    name = "memory.max" if (place / "memory.max").exists() else "memory.limit_in_bytes"
    return int((place / name).read_text())


def frozen(pid: int) -> bool:
    """Whether the process's control group is frozen, on both versions."""
    place = cgroup_files(pid, "freezer")
    if (place / "freezer.state").exists():
        return (place / "freezer.state").read_text().strip() == "FROZEN"
    return "frozen 1" in (place / "cgroup.events").read_text()


def links(process: str = "self", kinds: str = "pid mnt ipc uts net") -> str:
    """A shell's script that says the namespaces of a process, one a line."""
    return f"for kind in {kinds}; do readlink /proc/{process}/ns/$kind; done"


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}/status").exists()
