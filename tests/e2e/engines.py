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
import signal
import subprocess
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import leftovers
from commands import Result
from e2e.places import BUSYBOX, IMAGE, PAUSE, SYSTEM, Place, placed
from probes import MNT_DETACH, NEWNET, available, libc, mount, unshare
from screens import PROMPT, SECONDS, Screen, eventually

NEEDED = ("root", "overlay", f"file:{BUSYBOX}")
PODMAN = ("program:podman", "program:conmon")
DOCKER = ("program:dockerd", "program:docker", "program:containerd", "program:ip")
CONTAINERD = ("program:containerd", "program:ctr")


def in_a_network_of_its_own() -> None:
    """For a child before its exec: nothing but loopback."""
    unshare(NEWNET)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, env={"PATH": SYSTEM})


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
        self.engine, self.asked = engine, 0

    def ask(self, line: str) -> str:
        """What a shell answers to a line. It draws its prompt anew, in the middle of anything, when the size changes,
        and ctr begins lines in its own way: so the answer's end is a word of its own."""
        self.asked += 1
        self.type(f"{line}; echo end-$(({self.asked}))\r")
        said = self.until(f"end-{self.asked}\r*\n.*?{PROMPT}").decode().replace("\r", "")
        return said.partition("\n")[2].partition(f"end-{self.asked}\n")[0].rstrip("\n")

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

    def making(self, verb: str, *arguments: str) -> tuple[str, ...]:
        """The words that make a container (`run`, `create`), without a network."""
        return (verb, "--network", "none", *arguments)

    def run(self, *arguments: str, **more: Any) -> Result:
        return self(*self.making("run", *arguments), **more)

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

    def making(self, verb: str, *arguments: str) -> tuple[str, ...]:
        return super().making(verb, "--cgroup-parent", f"/{self.place.name}", *arguments)


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
            netns = "none"
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
def sockets_of_its_own() -> Iterator[None]:
    """containerd and its shims use /run/containerd, whatever they are told: an empty one, which only this run sees."""
    folder = "/run/containerd"
    if leftovers.mounts((f" {folder} ",)):  # another engine's, that goes on
        yield
        return
    os.makedirs(folder, exist_ok=True)
    mount("tmpfs", folder, "tmpfs")
    try:
        yield
    finally:
        libc.umount2(folder.encode(), MNT_DETACH)


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
    with sockets_of_its_own(), placed() as place:
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
                if names := engine("ps", "--all", "--quiet").out.split():
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
        place.states = (
            root / "runtime" / place.name,
            root / "runtime/k8s.io",
            Path("/run/containerd/runc", place.name),
        )
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
    with sockets_of_its_own(), placed() as place:
        engine = Containerd(place)
        with engine.daemon:
            for name in (place.name, "k8s.io"):
                engine.ok("--namespace", name, "images", "import", str(place.images))
            try:
                yield engine
            finally:
                for name in engine("tasks", "list", "--quiet").out.split():
                    engine("tasks", "delete", "--force", name)
                for name in engine("containers", "list", "--quiet").out.split():
                    engine("containers", "delete", name)
