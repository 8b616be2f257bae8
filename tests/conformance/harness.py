"""A runtime as its callers see it: a program with runc's command line, a bundle to give it, what is left afterwards.

Nothing here knows how a runtime is built. Its output goes to files in memory and never through pipes, which a container
would keep open; every call has a log of its own, in JSON, for what went wrong is read there.

    def test_a_container_says_what_its_program_says(bundle):
        assert bundle.says("echo hello") == "hello"

The default configuration is not this module's business: `configuration.py`.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import leftovers
from conformance.configuration import default, fill
from probes import MNT_DETACH, cgroup_mounts, libc

DEFAULT = Path(__file__).resolve().parents[2] / "src/cloche/runtime/cloche-oci"
CHOSEN = os.environ.get("CONFORMANCE_RUNTIME") or str(DEFAULT)
SECONDS = max(20.0, float(os.environ.get("CLOCHE_TEST_LIMIT", "0")) / 2)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PR_SET_CHILD_SUBREAPER = 36
UNIFIED = Path("/sys/fs/cgroup/unified")

_numbers = count(1)
_called: list[subprocess.Popen[bytes]] = []  # whom a Popen waits for
_reaped: dict[int, int] = {}  # how orphans ended, until somebody asks


def binary() -> str | None:
    """The runtime's absolute path, None when there is no such program."""
    found = shutil.which(CHOSEN)
    return os.path.abspath(found) if found else None


def runtime_name() -> str:
    """The first word of what `--version` says (`runc`, `crun`); empty when there is no runtime."""
    program = binary()
    if not program:
        return ""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=SECONDS).stdout.split()
    except (OSError, subprocess.TimeoutExpired):  # then every test says what is wrong
        return ""
    return said[0] if said else ""


def differs(runtime: str, reason: str, always: bool = True) -> pytest.MarkDecorator:
    """Marks what one runtime is known to do otherwise: `reason` says what, and the specification's sentence.

    For that runtime the test must fail, unless a race decides (`always=False`); for every other it must pass.
    """
    return pytest.mark.differs(runtime, reason, always=always)


class Done(NamedTuple):
    """How a call of the runtime ended: exit code, what it (and a container in the foreground) wrote, its log."""

    code: int
    out: str
    err: str
    log: tuple[dict[str, Any], ...]

    @property
    def error(self) -> str:
        """The last error of the log, else the last line on stderr."""
        said = [str(record.get("msg", "")) for record in self.log if record.get("level") in ("error", "fatal")]
        return (said or self.err.strip().splitlines() or [""])[-1]


def eventually(holds: Callable[[], object], what: str) -> None:
    """For what no event tells of: asks until it holds. Fails the test when it does not."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def wait_for_end(pid: int) -> int | None:
    """Waits until a process has ended and reaps it when it is ours: the exit code, -N for a signal, else None.

    Other orphans are reaped meanwhile: the first process of a pid namespace ends only when all in it are gone.
    """
    try:
        fd = leftovers.open_pid(pid)
    except ProcessLookupError:
        return _reaped.pop(pid, None)
    deadline = time.monotonic() + SECONDS
    try:
        while not select.select([fd], [], [], 0.02)[0]:
            assert time.monotonic() < deadline, f"process {pid} goes on"
            children(but=pid)
    finally:
        os.close(fd)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return None


def alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(but: int = 0) -> set[int]:
    """Live children of this process; orphans that have ended are reaped, and how they ended is kept."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found |= {int(pid) for pid in (task / "children").read_text().split()}
        except (FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            continue
    called = {process.pid for process in _called if process.returncode is None}
    for pid in found - called - {but}:
        if not alive(pid):
            _reaped[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {pid for pid in found if alive(pid)}


def cgroup(pid: int, controller: str) -> Path:
    """The folder of the process's cgroup in the hierarchy of a controller."""
    mounts = cgroup_mounts()
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    for _, names, path in lines:
        if controller in names.split(","):
            return Path(mounts[controller] + path)
    return Path(mounts["unified"] + next(path for _, names, path in lines if not names))


class Output:
    """A file in memory that processes write to, and that can be read while they do."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("output")

    def read(self) -> str:
        return os.pread(self.fd, 1 << 22, 0).decode(errors="replace")

    def close(self) -> None:
        os.close(self.fd)


class Runtime:
    """One runtime with a --root of its own. `folder` is short and the test's own: sockets may live there."""

    def __init__(self, program: str, folder: Path) -> None:
        self.binary = program
        self.folder = folder
        self.root = folder / "root"
        self.mark = f"cf{os.getpid()}x{next(_numbers):04}"  # begins every id, so that what bears it is ours
        self._ids = count(1)
        self._logs = count(1)
        self.outputs: list[Output] = []
        self._mounts = leftovers.mount_ids()
        self._children = children()

    def new_id(self) -> str:
        """An id that no other container has."""
        return f"{self.mark}-{next(self._ids)}"

    def output(self) -> Output:
        """A new file for what processes write; it is closed with the runtime."""
        self.outputs.append(Output())
        return self.outputs[-1]

    def spawn(
        self, *args: str, bare: bool = False, through: Sequence[str] = (), **options: Any
    ) -> subprocess.Popen[bytes]:
        """Starts the runtime; `bare` is without --root, --log and --log-format; `through` is a command that executes
        what it is given. `options` are Popen's."""
        command = [*through, self.binary, *([] if bare else ["--root", str(self.root)]), *args]
        options.setdefault("stdin", subprocess.DEVNULL)
        options["env"] = {"PATH": PATH, "HOME": "/root", **(options.get("env") or {})}
        _called.append(subprocess.Popen(command, **options))
        return _called[-1]

    def call(
        self, *args: str, input: str | None = None, bare: bool = False, out: Output | None = None, **options: Any
    ) -> Done:
        """Runs it to its end. Its stdin is empty unless `input` is given; `out` takes its stdout and stderr, so that
        what a container writes later is seen. `env` adds to a small environment; other `options` are Popen's."""
        log = self.folder / f"log-{next(self._logs)}"
        flags = () if bare else ("--log", str(log), "--log-format", "json")
        said, complained = out or self.output(), out or self.output()
        if input is not None:
            options["stdin"] = os.memfd_create("input")
            os.write(options["stdin"], input.encode())
            os.lseek(options["stdin"], 0, os.SEEK_SET)
        options.setdefault("stdout", said.fd)
        options.setdefault("stderr", complained.fd)
        with self.spawn(*flags, *args, bare=bare, **options) as process:
            try:
                code = process.wait(SECONDS)
            except BaseException:
                process.kill()
                raise
            finally:
                if input is not None:
                    os.close(options["stdin"])
        return Done(code, said.read(), complained.read(), _records(log))

    def ok(self, *args: str, **options: Any) -> str:
        """What a call that must succeed says on stdout, without the last line's end."""
        done = self.call(*args, **options)
        assert done.code == 0, (args, done)
        return done.out.rstrip("\n")

    def fails(self, *args: str, **options: Any) -> str:
        """The error of a call that must fail."""
        done = self.call(*args, **options)
        assert done.code != 0, (args, done)
        assert done.error, (args, "an exit code and no message", done)
        return done.error

    def state(self, id: str) -> dict[str, Any]:
        return dict(json.loads(self.ok("state", id)))

    def status(self, id: str) -> str:
        """`created`, `running`, `stopped`, `paused`; `missing` when the runtime knows no such container."""
        done = self.call("state", id)
        return str(json.loads(done.out)["status"]) if done.code == 0 else "missing"

    def ids(self) -> list[str]:
        """All containers of the root."""
        return self.ok("list", "-q").split()

    def features(self) -> dict[str, Any]:
        return dict(json.loads(self.ok("features")))

    def exec(self, id: str, *argv: str, flags: Sequence[str] = (), **options: Any) -> Done:
        """`exec` of `argv` in a container, in the foreground."""
        return self.call("exec", *flags, id, *argv, **options)

    def left_behind(self) -> list[str]:
        """One line for everything of this runtime's containers that is on the host now, but what is in the folder."""
        mounts = leftovers.mount_ids()
        return [
            *(f"container {name.name}" for name in self._entries()),
            *(f"process {pid} {_command(pid)}" for pid in sorted(children() - self._children)),
            *(f"mount {mounts[number]}" for number in mounts if number not in self._mounts),
            *(f"cgroup {path}" for path in leftovers.cgroups((self.mark,))),
        ]

    def settled(self) -> list[str]:
        """What is left behind a second later at most: who is killed needs a moment to be gone."""
        deadline = time.monotonic() + 1
        while (left := self.left_behind()) and time.monotonic() < deadline:
            time.sleep(0.005)
        return left

    def _entries(self) -> list[Path]:
        return [path for path in self.root.iterdir() if self.mark in path.name] if self.root.exists() else []

    def end(self) -> list[str]:
        """Deletes every container by force; what is there nevertheless is named and then taken away."""
        for path in self._entries():
            self.call("delete", "--force", path.name)
        left = self.settled()
        self.sweep()
        for output in self.outputs:
            output.close()
        _called.clear()
        _reaped.clear()
        return left

    def sweep(self) -> None:
        """Takes away by force what `left_behind` would list."""
        # Whose pid namespace's first process is killed is a child of ours only when all of it is gone.
        for pid in children() - self._children:
            os.kill(pid, signal.SIGKILL)  # our child, so nobody else can have reaped it
            wait_for_end(pid)
        for path in leftovers.cgroups((self.mark,)):
            try:
                os.rmdir(path)
            except OSError as error:
                print(f"remove cgroup {path}: {error}", file=sys.stderr)
        if not os.path.ismount(UNIFIED):  # crun takes a folder of this name for a tree, mounted or not
            for folder in UNIFIED.glob(f"*{self.mark}*"):
                shutil.rmtree(folder)
        mounts = leftovers.mount_ids()
        for number in sorted(set(mounts) - set(self._mounts), reverse=True):
            libc.umount2(mounts[number].encode(), MNT_DETACH)


def _records(log: Path) -> tuple[dict[str, Any], ...]:
    """A log is JSON values one after the other, as callers read it: a line each, or over several lines."""
    text, at, found = log.read_text(errors="replace").strip() if log.exists() else "", 0, []
    while at < len(text):
        try:
            record, end = json.JSONDecoder().raw_decode(text, at)
        except json.JSONDecodeError:
            found.append({"level": "unreadable", "msg": text[at:]})
            break
        found.append(record)
        at = end + len(text[end:]) - len(text[end:].lstrip())
    return tuple(found)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Bundle:
    """A folder with a root file system of busybox and a configuration, and one container made of it, named `id`.

    Tests change `config` (and `process`, `linux`, parts of it); it is written whenever a container is made.
    """

    def __init__(self, runtime: Runtime, path: Path) -> None:
        self.runtime = runtime
        self.path = path
        self.rootfs = path / "rootfs"
        self.id = runtime.new_id()
        self.config: dict[str, Any] = default()
        self.written: Output | None = None
        self.first = 0  # the first process of the container that was created last
        fill(self.rootfs)

    @property
    def process(self) -> dict[str, Any]:
        part: dict[str, Any] = self.config["process"]
        return part

    @property
    def linux(self) -> dict[str, Any]:
        part: dict[str, Any] = self.config["linux"]
        return part

    def namespace(self, kind: str, **entry: Any) -> None:
        """Replaces the entry of one kind of namespace: with `path=...` to join one."""
        self.without_namespace(kind)
        self.linux["namespaces"].append({"type": kind, **entry})

    def without_namespace(self, kind: str) -> None:
        self.linux["namespaces"] = [entry for entry in self.linux["namespaces"] if entry["type"] != kind]

    def mount(self, destination: str, type: str = "bind", source: str = "", options: Sequence[str] = ()) -> None:
        """One mount more, after the others."""
        entry = {"destination": destination, "type": type, "source": source or type, "options": list(options)}
        self.config["mounts"].append(entry)

    def write(self) -> None:
        (self.path / "config.json").write_text(json.dumps(self.config, indent=1))

    def argv(self, *argv: str) -> None:
        """Changes the program, unless there is none here: then it stays."""
        if argv:
            self.process["args"] = list(argv)

    def run(self, *argv: str, flags: Sequence[str] = (), **options: Any) -> Done:
        """`run` in the foreground: the container is gone afterwards."""
        self.argv(*argv)
        self.write()
        return self.runtime.call("run", "--bundle", str(self.path), *flags, self.id, **options)

    def says(self, script: str, **options: Any) -> str:
        """What a shell script in the container says that must succeed, without the last line's end."""
        done = self.run("sh", "-c", script, **options)
        assert done.code == 0, done
        return done.out.rstrip("\n")

    def refused(self, *argv: str, **options: Any) -> str:
        """The error of a container that cannot be created; nothing of it may be left."""
        done = self.create(*argv, **options)
        assert done.code != 0, done
        assert done.error, ("an exit code and no message", done)
        left = self.runtime.settled()
        assert not left, "left behind: " + "; ".join(left)
        return done.error

    def create(self, *argv: str, flags: Sequence[str] = (), id: str = "", **options: Any) -> Done:
        """`create`; what the program will write is in `output()`, and before it what the runtime says itself."""
        self.argv(*argv)
        self.write()
        self.written = options.setdefault("out", self.runtime.output())
        pid_file = self.runtime.folder / "pid"
        done = self.runtime.call(
            *("create", "--bundle", str(self.path), "--pid-file", str(pid_file), *flags, id or self.id), **options
        )
        self.first = int(pid_file.read_text()) if done.code == 0 and pid_file.exists() else 0
        pid_file.unlink(missing_ok=True)
        return done

    def start(self) -> None:
        self.runtime.ok("start", self.id)

    def output(self) -> str:
        """What the created container has written up to now."""
        return self.written.read() if self.written else ""

    def kill(self, *signal: str) -> Done:
        return self.runtime.call("kill", self.id, *signal)

    def delete(self, *flags: str) -> Done:
        return self.runtime.call("delete", *flags, self.id)

    def state(self) -> dict[str, Any]:
        return self.runtime.state(self.id)

    def status(self) -> str:
        return self.runtime.status(self.id)

    def pid(self) -> int:
        """The first process, as the host sees it."""
        return int(self.state()["pid"])

    def exec(self, *argv: str, flags: Sequence[str] = (), **options: Any) -> Done:
        return self.runtime.exec(self.id, *argv, flags=flags, **options)

    def sh(self, script: str, flags: Sequence[str] = (), **options: Any) -> str:
        """What a shell script says that must succeed, beside the running container's program."""
        done = self.exec("sh", "-c", script, flags=flags, **options)
        assert done.code == 0, done
        return done.out.rstrip("\n")

    def ended(self) -> int | None:
        """Waits until the first process has ended: its exit code, -N for a signal."""
        return wait_for_end(self.first)

    @contextmanager
    def created(self, *argv: str, flags: Sequence[str] = (), **options: Any) -> Iterator[int]:
        """A container whose program waits for `start`; gives its pid. The container is gone after the block."""
        done = self.create(*(argv or ("sleep", "1000")), flags=flags, **options)
        assert done.code == 0, done
        pid = self.first or self.pid()
        try:
            yield pid
        finally:
            self.end(pid)

    @contextmanager
    def running(self, *argv: str, flags: Sequence[str] = (), **options: Any) -> Iterator[int]:
        """A container whose program (`sleep` unless given) runs; gives its pid. It is gone after the block."""
        with self.created(*argv, flags=flags, **options) as pid:
            self.start()
            yield pid

    def end(self, pid: int) -> None:
        """Kills the first process, reaps it, and deletes the container, unless the test has done so."""
        if self.status() == "missing":
            return
        if alive(pid):
            if self.status() == "paused":
                self.runtime.ok("resume", self.id)
            self.kill("KILL")
        wait_for_end(pid)
        done = self.delete()
        assert done.code == 0, done
