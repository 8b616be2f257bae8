"""The Python SDK: what the command line does, as functions and two classes. No daemon: the library is the engine.

    with cloche.run("starter", ["sleep", "60"], detach=True) as box:
        print(box.exec(["hostname"]).output)

Arguments have the names of the command line's flags, their values its notation or the obvious Python type
(`memory="64m"` or
67108864, `env={"A": "b"}`). Errors are those of cloche.errors. A `Client` is for one thread at a time; its async twin
will
stand on the same calls, which is why nothing here blocks but in `wait`, `stop`, and the run of a container to its end.
"""

from __future__ import annotations

import os

from cloche.engine import notation, ports, units
from cloche.engine.containers import Engine
from cloche.engine.request import (
    Connection,
    ExecRequest,
    Files,
    Limits,
    Namespaces,
    Networking,
    Program,
    RunRequest,
    Security,
)
from cloche.engine.validation import check
from cloche.errors import Error, NotFound
from cloche.handling import Handling
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Self, TypedDict, Unpack

    from cloche.engine.containers import Container as Record
    from cloche.image.store import Image
    from cloche.step.base import Plan

    class Options(TypedDict, total=False):
        """What a container is besides image and command; each as the flag of `cloche run` with this name."""

        name: str
        hostname: str
        env: Mapping[str, str] | Sequence[str]
        user: str
        group_add: Sequence[str]
        working_directory: str
        entrypoint: str | Sequence[str] | None
        interactive: bool
        tty: bool
        init: bool
        stop_signal: str
        stop_timeout: int
        ulimits: Sequence[str]
        oom_score_adj: int
        memory: int | str
        memory_swap: int | str
        memory_reservation: int | str
        cpus: float | str
        cpu_shares: int
        cpuset_cpus: str
        pids_limit: int
        volumes: Sequence[str]
        mounts: Sequence[str]
        tmpfs: Sequence[str]
        devices: Sequence[str]
        read_only: bool
        shm_size: int | str
        network: str | Sequence[str]
        publish: Sequence[str]
        publish_all: bool
        expose: Sequence[str]
        network_aliases: Sequence[str]
        ip: str
        ip6: str
        mac_address: str
        extra_hosts: Mapping[str, str]
        dns: Sequence[str]
        dns_search: Sequence[str]
        dns_options: Sequence[str]
        pid: str
        ipc: str
        uts: str
        cgroupns: str
        userns: str
        cap_add: Sequence[str]
        cap_drop: Sequence[str]
        seccomp: str
        no_new_privileges: bool
        privileged: bool
        sysctls: Mapping[str, str]
        labels: Mapping[str, str]
        annotations: Mapping[str, str]
        remove: bool
        restart: str


def _bytes(value: int | str) -> int:
    return units.size(value) if isinstance(value, str) else value


def _words(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _env(value: Mapping[str, str] | Sequence[str]) -> tuple[str, ...]:
    return tuple(value) if not hasattr(value, "items") else tuple(f"{k}={v}" for k, v in value.items())


def _each(reading: Callable[..., Any], texts: Iterable[str], *rest: Any) -> tuple[Any, ...]:
    return tuple(reading(text, *rest) for text in texts)


def request(image: str, command: str | Sequence[str] = (), **options: Unpack[Options]) -> RunRequest:
    """The checked request that these arguments mean; a command that is a string is one word. Raises Invalid,
    Unsupported."""
    taken: set[str] = set()

    def option(name: str, default: Any) -> Any:
        taken.add(name)
        return options.get(name, default)

    cwd = os.getcwd()
    entrypoint = option("entrypoint", None)
    userns = option("userns", "")
    mapped = notation.id_map(userns) if ":" in userns else ()
    process = Program(
        _words(command),
        None if entrypoint is None else _words(entrypoint),
        _env(option("env", ())),
        option("working_directory", ""),
        option("user", ""),
        tuple(option("group_add", ())),
        option("interactive", False),
        option("tty", False),
        option("init", False),
        option("stop_signal", ""),
        option("stop_timeout", None),
        _each(notation.ulimit, option("ulimits", ())),
        option("oom_score_adj", 0),
    )
    limits = Limits(
        _bytes(option("memory", 0)),
        _bytes(option("memory_swap", 0)),
        _bytes(option("memory_reservation", 0)),
        units.cpus(str(option("cpus", 0))),
        option("cpu_shares", 0),
        option("cpuset_cpus", ""),
        option("pids_limit", 0),
    )
    mounts = (
        *_each(notation.volume, option("volumes", ()), cwd),
        *_each(notation.mount, option("mounts", ()), cwd),
        *_each(notation.tmpfs, option("tmpfs", ())),
    )
    devices = _each(notation.device, option("devices", ()))
    files = Files(mounts, devices, option("read_only", False), _bytes(option("shm_size", 0)))
    shared = [option(name, "") for name in ("pid", "ipc", "uts", "cgroupns")]
    security = Security(
        option("privileged", False),
        tuple(option("cap_add", ())),
        tuple(option("cap_drop", ())),
        option("no_new_privileges", False),
        option("seccomp", ""),
        tuple(dict(option("sysctls", {})).items()),
    )
    network, networking = _networks(option)
    policy, tries = notation.restart(option("restart", "no"))
    made = RunRequest(
        image,
        process,
        limits,
        files,
        Namespaces(shared[0], shared[1], shared[2], shared[3], "map" if mapped else userns, mapped),
        network,
        security,
        option("name", ""),
        option("hostname", ""),
        tuple(dict(option("labels", {})).items()),
        tuple(dict(option("annotations", {})).items()),
        option("remove", False),
        networking=networking,
        restart=policy,
        restart_tries=tries,
    )
    if unknown := set(options) - taken:
        raise TypeError(f"unexpected argument {min(unknown)!r}")
    return check(made)


def _networks(option: Callable[[str, Any], Any]) -> tuple[str, Networking]:
    """The mode, or the first network's name; and all else about networks."""
    connections = _each(notation.connection, _words(option("network", os.environ.get("CLOCHE_NETWORK") or "bridge")))
    first = connections[0]
    first = Connection(
        first.network,
        option("ip", "") or first.ip,
        option("ip6", "") or first.ip6,
        (*first.aliases, *option("network_aliases", ())),
        option("mac_address", "") or first.mac,
    )
    asked = len(connections) > 1 or first != Connection(first.network)
    return first.network, Networking(
        (first, *connections[1:]) if asked else (),
        sum(_each(ports.published, option("publish", ())), ()),
        option("publish_all", False),
        sum(_each(ports.exposed, option("expose", ())), ()),
        tuple(option("dns", ())),
        tuple(option("dns_search", ())),
        tuple(option("dns_options", ())),
        tuple(dict(option("extra_hosts", {})).items()),
    )


class ExecResult(Value):
    """A command that was executed in a container, to its end: its exit code and what it wrote."""

    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def output(self) -> str:
        """stdout as text; bytes that are no UTF-8 are shown escaped."""
        return self.stdout.decode("utf-8", "backslashreplace")


class Container(Handling):
    """A container: by its id, whatever its state. As a context manager it is killed and removed at the end."""

    def __init__(self, client: Client, record: Record) -> None:
        self.client = client
        self.id, self.name = record.id, record.name
        self._record = record
        self._exit_code: int | None = None
        self._chunks: list[tuple[int, bytes]] | None = None

    def __repr__(self) -> str:
        return f"<cloche.Container {self.name} {self.id[:12]}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.remove(force=True)
        except NotFound:
            return  # it removed itself

    def _refresh(self) -> Record:
        self._record = self.client.engine.find(self.id)
        return self._record

    @property
    def status(self) -> str:
        """`created`, `running`, `paused`, `exited`; `removed` when it is gone."""
        try:
            return self._refresh().state
        except NotFound:
            return "removed"

    @property
    def pid(self) -> int:
        """The first process, as the host counts; 0 when it does not run."""
        return self._refresh().pid

    @property
    def exit_code(self) -> int | None:
        """The exit code once it has ended: the program's own, 128 + n for signal n."""
        if self._exit_code is None:
            record = self._refresh()
            self._exit_code = record.exit_code if record.status == "exited" else None
        return self._exit_code

    def start(self) -> Self:
        """Start it. Raises the error of the step that was refused."""
        self.client.engine.start(self._refresh())
        return self

    def wait(self) -> int:
        """Wait for its end; returns the exit code. Raises Error when nobody can know it."""
        code, reason = self.client.engine.wait(self._record)
        if code < 0:
            raise Error(f"wait for container {self.name}", reason)
        self._exit_code = code
        return code

    def stop(self, timeout: int | None = None) -> None:
        """The stop signal, and SIGKILL after `timeout` seconds."""
        self.client.engine.stop(self._refresh(), timeout)

    def kill(self, signal: int | str = 9) -> None:
        """A signal to the first process. Raises Conflict when it does not run."""
        from cloche.engine.signals import signal_number

        self.client.engine.signal(self._refresh(), signal_number(str(signal)))

    def remove(self, force: bool = False) -> None:
        """Remove it with its files and logs. Raises Conflict when it runs and `force` is not given."""
        self.client.engine.remove(self._refresh(), force)

    def inspect(self) -> dict[str, Any]:
        """All that is known, in the shape of Docker's API."""
        from cloche.engine.inspection import container

        return container(self.client.engine, self._refresh())

    def plan(self) -> Plan:
        """What a start would ask of the kernel."""
        return self.client.engine.plan(self._refresh())

    def chunks(self) -> list[tuple[int, bytes]]:
        """What it has written so far, in order: (1 stdout | 2 stderr, bytes)."""
        if self._chunks is not None:
            return self._chunks
        return self.client.written(self.client.engine.log_directory(self._record))

    @property
    def stdout(self) -> bytes:
        """Everything written to stdout; of a terminal, everything."""
        return b"".join(data for stream, data in self.chunks() if stream == 1)

    @property
    def stderr(self) -> bytes:
        """Everything written to stderr."""
        return b"".join(data for stream, data in self.chunks() if stream == 2)

    @property
    def output(self) -> str:
        """stdout as text; bytes that are no UTF-8 are shown escaped."""
        return self.stdout.decode("utf-8", "backslashreplace")

    def logs(self, tail: int | None = None, timestamps: bool = False) -> Iterator[str]:
        """Its lines, without the line's end, stdout and stderr as they came."""
        from cloche.runtime.loglines import read
        from cloche.runtime.timestamp import format_time

        for line in read(self.client.engine.log_directory(self._record), tail=tail):
            text = line.data.decode("utf-8", "backslashreplace").rstrip("\n")
            yield f"{format_time(line.time)} {text}" if timestamps and line.begins else text

    def exec(
        self,
        command: str | Sequence[str],
        *,
        env: Mapping[str, str] | Sequence[str] = (),
        user: str = "",
        working_directory: str = "",
        privileged: bool = False,
        input: bytes | None = None,
    ) -> ExecResult:
        """Execute a command in it, to its end. Raises CommandNotFound, NotExecutable, Conflict."""
        from cloche.engine.execs import run

        wanted = ExecRequest(
            self.id, _words(command), _env(env), working_directory, user, input is not None, privileged=privileged
        )
        return ExecResult(*run(self.client.engine, self._refresh(), wanted, input))


class Client:
    """One store. Without `root`: CLOCHE_ROOT, else the machine's /var/lib/cloche."""

    def __init__(self, root: str | None = None) -> None:
        self.engine = Engine(root)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close database and connection; containers run on."""
        self.engine.close()

    def create(self, image: str, command: str | Sequence[str] = (), **options: Unpack[Options]) -> Container:
        """A container that is not started yet."""
        return Container(self, self.engine.create(request(image, command, **options)))

    def run(
        self,
        image: str,
        command: str | Sequence[str] = (),
        *,
        detach: bool = False,
        input: bytes | None = None,
        **options: Unpack[Options],
    ) -> Container:
        """Create and start a container; without `detach` wait for its end and keep what it wrote.

        input: what it reads from its standard input. An exit code other than 0 is no error; see `exit_code`.
        """
        if input is not None:
            options["interactive"] = True
        box = self.create(image, command, **options)
        try:
            if detach:
                return box.start()
            self._to_its_end(box, input)
            return box
        except Error:
            if options.get("remove"):
                box.remove(force=True)
            raise

    def _to_its_end(self, box: Container, input: bytes | None) -> None:
        from cloche.engine.pipes import feed
        from cloche.engine.removal import follow

        directory = follow(self.engine.log_directory(box._record))
        try:
            started = self.engine.start(box._record, attach=True)
            if input is not None:
                feed(started.fds.pop("input"), input)
                self.engine.keeper.ask({"op": "end_input", "id": box.id})
            for fd in started.fds.values():
                os.close(fd)
            box.wait()
            box._chunks = self.written(f"/proc/self/fd/{directory}")
        finally:
            os.close(directory)

    def written(self, directory: str) -> list[tuple[int, bytes]]:
        """A log's bytes so far, by stream, in order."""
        from cloche.runtime.logview import Reader

        with Reader(directory) as reader:
            found: list[tuple[int, bytes]] = []
            while more := reader.read():
                found += more
            return found

    def pull(self, name: str, platform: str = "") -> Image:
        """Fetch an image from its registry. Raises NotFound, Invalid, Unsupported, Error."""
        from cloche.image.pull import pull

        wanted = notation.platform(platform) if platform else None
        return pull(self.engine.changing_images(), name, wanted).image

    def get(self, name: str) -> Container:
        """A container by name, id, or the beginning of an id. Raises NotFound, Conflict."""
        return Container(self, self.engine.find(name))

    def containers(self, all: bool = False) -> list[Container]:
        """Those that run, or all; newest first."""
        return [Container(self, c) for c in self.engine.containers() if all or c.status == "running"]


_clients: dict[tuple[int, str], Client] = {}


def _client() -> Client:
    """This process's client of the default store, made once for each value of CLOCHE_ROOT."""
    key = os.getpid(), os.environ.get("CLOCHE_ROOT", "")
    if key not in _clients:
        _clients[key] = Client()
    return _clients[key]


def run(
    image: str,
    command: str | Sequence[str] = (),
    *,
    detach: bool = False,
    input: bytes | None = None,
    **options: Unpack[Options],
) -> Container:
    """`Client.run` on the default store."""
    return _client().run(image, command, detach=detach, input=input, **options)


def create(image: str, command: str | Sequence[str] = (), **options: Unpack[Options]) -> Container:
    """`Client.create` on the default store."""
    return _client().create(image, command, **options)


def get(name: str) -> Container:
    """`Client.get` on the default store."""
    return _client().get(name)


def containers(all: bool = False) -> list[Container]:
    """`Client.containers` on the default store."""
    return _client().containers(all)


def pull(name: str, platform: str = "") -> Image:
    """`Client.pull` into the default store."""
    return _client().pull(name, platform)
