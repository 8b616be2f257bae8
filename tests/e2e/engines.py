"""Engines of others over an OCI runtime in runc's place, each in a place of its own, of which nothing is left.

    with podman() as engine:
        engine.ok("run", "--rm", IMAGE, "echo", "hello")

The runtime is the one under test in tests/conformance. The engines are the system's; which of its directories an engine
uses and how it is started and ended is here, what is asked of it is the tests' business. The CRI is cri.py's.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import leftovers
from archives import docker_files, dumps, files_tar, folder, member, symlink, tar_of
from commands import Result
from conformance.harness import CHOSEN, binary
from probes import MNT_DETACH, NEWNET, available, cgroup_mounts, libc, unshare
from screens import SECONDS, Screen, eventually

SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"  # the system's own engines go before others on PATH
IMAGE, PAUSE = "docker.io/library/box:latest", "docker.io/library/pause:latest"
BUSYBOX = Path("/bin/busybox")
NEEDED = ("root", "overlay", f"file:{BUSYBOX}")
PODMAN = ("program:podman", "program:conmon")
DOCKER = ("program:dockerd", "program:docker", "program:containerd", "program:ip")
CONTAINERD = ("program:containerd", "program:ctr")
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
        config = {"Cmd": command, "Env": ["PATH=/bin", "PS1=ready> "]}
        made = docker_files([layer], [name], config=config, history=[{"created_by": "a test"}])
        listed += json.loads(made["manifest.json"])
        files |= made
    path.write_bytes(files_tar({**files, "manifest.json": dumps(listed)}))
    return path


def in_a_network_of_its_own() -> None:
    """For a child before its exec: nothing but loopback."""
    unshare(NEWNET)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, env={"PATH": SYSTEM})


class Place:
    """One engine's directory and environment. Its name is also the name of the control group above its containers."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="cloche-", dir="/tmp"))
        self.root.chmod(0o755)  # containers with ids of their own look in
        self.name = self.root.name
        self.runtime = runtime()
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
            known += json.loads(self.run(self.runtime, *flags, "list", "--format", "json").out or "null") or []
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


class Daemon:
    """A server of a place. It is started and ended by who has it: `with` ends it as it is asked to end."""

    def __init__(self, place: Place, ready: Callable[[], bool], *command: str, **more: Any) -> None:
        self.place, self.ready, self.command, self.more = place, ready, command, more
        self.start()

    def start(self) -> None:
        """Until it is ready."""
        with open(self.place.root / "daemon.log", "ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.place.env,
                start_new_session=True,
                **self.more,
            )
        eventually(lambda: self.process.poll() is not None or self.ready(), f"{self.command[0]} is ready")
        assert self.process.poll() is None, self.place.log()

    def end(self, number: int = signal.SIGTERM) -> None:
        """By a signal; what it leaves running goes on."""
        self.process.send_signal(number)
        try:
            self.process.wait(SECONDS)
        finally:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Engine:
    """A client's command line, of which each call is a process."""

    def __init__(self, place: Place, *command: str) -> None:
        self.place, self.command = place, command

    def __call__(self, *arguments: str, **more: Any) -> Result:
        return self.place.run(*self.command, *arguments, **more)

    def ok(self, *arguments: str, **more: Any) -> str:
        """What a call that must succeed says on stdout, without the last line's end."""
        result = self(*arguments, **more)
        assert result.code == 0, result
        return result.out.rstrip("\n")

    @contextmanager
    def screen(self, *arguments: str) -> Iterator[Window]:
        """A terminal on which this call runs."""
        window = Window(self)
        try:
            window.start(*arguments)
            yield window
        finally:
            window.close()


class Window(Screen):
    """A terminal for an engine's client."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine

    def start(self, *arguments: str) -> None:
        assert self.client is None
        self.client = subprocess.Popen(
            [*self.engine.command, *arguments],
            stdin=self.terminal,
            stdout=self.terminal,
            stderr=self.terminal,
            env=self.engine.place.env,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads here
        )


class Boxes(Engine):
    """What podman's and docker's command lines have in common."""

    at_once: tuple[str, ...] = ()  # for a removal without ten seconds for SIGTERM

    def run(self, *arguments: str, **more: Any) -> Result:
        """Runs a container without a network, but for what `arguments` say."""
        return self("run", "--network", "none", *arguments, **more)

    def sh(self, script: str, *flags: str) -> str:
        """What a script says that must succeed, in a container that is removed afterwards."""
        done = self.run("--rm", *flags, IMAGE, "sh", "-c", script)
        assert done.code == 0, done
        return done.out.rstrip("\n")

    @contextmanager
    def running(self, name: str, script: str, *flags: str) -> Iterator[int]:
        """A container whose script says `ready`, until the block ends; gives the id of its first process."""
        done = self.run("--detach", "--name", name, *flags, IMAGE, "sh", "-c", script)
        try:
            assert done.code == 0, done
            self.says(name, "ready")
            yield int(self.inspect(name, ".State.Pid"))
        finally:
            self("rm", "--force", *self.at_once, name)

    def inspect(self, name: str, field: str) -> str:
        return self.ok("inspect", "--format", f"{{{{{field}}}}}", name)

    def status(self, name: str) -> tuple[str, int]:
        """The container's state and its exit code."""
        word, code = self.inspect(name, ".State.Status}} {{.State.ExitCode").split()
        return word, int(code)

    def says(self, name: str, word: str) -> None:
        """Wait until the container has said it."""
        eventually(lambda: word in self.ok("logs", name), f"{name} says {word}")


class Podman(Boxes):
    """podman, and conmon, which calls the runtime for it; nobody stays but the conmon of each container that runs."""

    at_once = ("--time", "0")

    def __init__(self, place: Place, *prefix: str) -> None:
        containers_settings(place)
        ours = ("--tmpdir", f"{place.root}/libpod", "--runtime", place.runtime)
        super().__init__(place, *prefix, "podman", *ours)

    def run(self, *arguments: str, **more: Any) -> Result:
        return super().run("--cgroup-parent", f"/{self.place.name}", *arguments, **more)


class Buildah(Engine):
    """buildah, which calls the runtime itself."""

    def __init__(self, place: Place) -> None:
        containers_settings(place)
        self.flags = ("--runtime", place.runtime, "--isolation", "oci", "--network", "none")
        super().__init__(place, "buildah")

    def with_runtime(self, verb: str, *arguments: str) -> Result:
        """A call that runs something."""
        return self(verb, *self.flags, *arguments)


class Docker(Boxes):
    """docker, by its dockerd, which starts a containerd of its own."""

    daemon: Daemon

    def __init__(self, place: Place) -> None:
        super().__init__(place, "docker", "--host", f"unix://{place.root}/docker.sock")


def containers_settings(place: Place) -> None:
    """Files that podman and buildah read, in place of the system's."""
    root = place.root
    limits = "" if available("sys_resource") else 'default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]'
    settings = {
        "CONTAINERS_CONF": f"""
            [containers]
            {limits}
            [engine]
            cgroup_manager = "cgroupfs"
            events_logger = "file"
            lock_type = "file"
            infra_image = "{PAUSE}"
            [network]
            network_backend = "netavark"
            network_config_dir = "{root}/networks"
            """,
        "CONTAINERS_STORAGE_CONF": f"""
            [storage]
            driver = "overlay"
            graphroot = "{root}/storage"
            runroot = "{root}/run"
            """,
        "CONTAINERS_REGISTRIES_CONF": "unqualified-search-registries = []",
    }
    for name, text in settings.items():
        path = root / name.lower()
        path.write_text("\n".join(line.strip() for line in text.splitlines()))
        place.env[name] = str(path)


@contextmanager
def podman() -> Iterator[Podman]:
    with placed() as place:
        engine = Podman(place)
        engine.ok("load", "--quiet", "--input", str(place.images))
        try:
            yield engine
        finally:
            engine("pod", "rm", "--force", "--all", *engine.at_once)
            engine("rm", "--force", "--all", *engine.at_once)
            engine("volume", "rm", "--all", "--force")
            engine("unmount", "--all")


@contextmanager
def buildah() -> Iterator[Buildah]:
    with placed() as place:
        engine = Buildah(place)
        engine.ok("pull", "--quiet", f"docker-archive:{place.images}:{IMAGE}")
        try:
            yield engine
        finally:
            engine("rm", "--all")


@contextmanager
def docker(*flags: str, before: Callable[[], None] = in_a_network_of_its_own) -> Iterator[Docker]:
    """dockerd in a network namespace of its own: it sets up a firewall, and leaves it."""
    with placed() as place:
        root, engine = place.root, Docker(place)
        place.states = (root / "exec/runtime-runc/moby",)
        (root / "daemon.json").write_text(
            json.dumps({"runtimes": {"tested": {"path": place.runtime}}, "default-runtime": "tested"})
        )
        command = [
            *("dockerd", "--config-file", f"{root}/daemon.json", "--host", f"unix://{root}/docker.sock"),
            *("--data-root", f"{root}/data", "--exec-root", f"{root}/exec", "--pidfile", f"{root}/pid"),
            *("--cgroup-parent", f"/{place.name}", *flags),
        ]
        with Daemon(place, lambda: engine("version").code == 0, *command, preexec_fn=before) as engine.daemon:
            engine.ok("load", "--quiet", "--input", str(place.images))
            try:
                yield engine
            finally:
                if names := engine.ok("ps", "--all", "--quiet").split():
                    engine("rm", "--force", "--volumes", *names)
        libc.umount2(f"{root}/data".encode(), MNT_DETACH)  # its own, which a second dockerd leaves


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(podman, id="podman", marks=pytest.mark.requires(*PODMAN)),
        pytest.param(docker, id="docker", marks=pytest.mark.requires(*DOCKER)),
    ],
)
def engine(request: pytest.FixtureRequest) -> Iterator[Boxes]:
    """For what both do alike."""
    with request.param() as started:
        yield started


class Containerd(Engine):
    """ctr, by a containerd that can be killed."""

    CONFIG = """
        version = 2
        root = "{root}/root"
        state = "{root}/state"
        [grpc]
        address = "{root}/containerd.sock"
        [plugins."io.containerd.internal.v1.opt"]
        path = "{root}/opt"
        [plugins."io.containerd.grpc.v1.cri"]
        sandbox_image = "{pause}"
        restrict_oom_score_adj = true
        [plugins."io.containerd.grpc.v1.cri".cni]
        bin_dir = "{root}/none"
        conf_dir = "{root}/none"
        [plugins."io.containerd.grpc.v1.cri".containerd]
        default_runtime_name = "tested"
        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tested]
        runtime_type = "io.containerd.runc.v2"
        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tested.options]
        BinaryName = "{runtime}"
        Root = "{root}/runtime"
        """

    def __init__(self, place: Place) -> None:
        root = place.root
        self.default = Path("/run/containerd/runc") / place.name  # where no other place is named
        place.states = (root / "runtime" / place.name, root / "runtime/k8s.io", self.default)
        (root / "bin").mkdir()
        (root / "bin/runc").symlink_to(place.runtime)
        place.env["PATH"] = f"{root}/bin:{SYSTEM}"
        self.socket = f"{root}/containerd.sock"
        super().__init__(place, "ctr", "--address", self.socket, "--namespace", place.name)
        text = self.CONFIG.format(root=root, pause=PAUSE, runtime=place.runtime)
        (root / "config.toml").write_text("\n".join(line.strip() for line in text.splitlines()))
        self.daemon = Daemon(place, lambda: self("version").code == 0, "containerd", "--config", f"{root}/config.toml")

    def run(self, *arguments: str, **more: Any) -> Result:
        ours = ["--runc-binary", self.place.runtime, "--runc-root", f"{self.place.root}/runtime"]
        return self("run", *ours, *arguments, **more)


@contextmanager
def containerd() -> Iterator[Containerd]:
    with placed() as place:
        engine = Containerd(place)
        with engine.daemon:
            for name in (place.name, "k8s.io"):
                engine.ok("--namespace", name, "images", "import", str(place.images))
            try:
                yield engine
            finally:
                for name in engine.ok("tasks", "list", "--quiet").split():
                    engine("tasks", "delete", "--force", name)
                for name in engine.ok("containers", "list", "--quiet").split():
                    engine("containers", "delete", name)
        if engine.default.exists():
            engine.default.rmdir()


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


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}/status").exists()
