"""The Python SDK: what the command line does, as functions and two classes. No daemon: the library is the engine.

    with cloche.run("starter", ["sleep", "60"], detach=True) as box:
        print(box.exec(["hostname"]).output)

Arguments have the names of the command line's flags (cloche.options), their values its notation or the obvious Python
type (`memory="64m"` or 67108864, `env={"A": "b"}`). Errors are those of cloche.errors. A `Client` is for one thread at
a time; the functions of this module may be called by any. What waits is written as a course (cloche.engine.courses).
"""

from __future__ import annotations

import os
from _thread import _local

from cloche.blocking import streams, waits
from cloche.display import Table, card, container_facts
from cloche.engine.containers import Engine
from cloche.engine.courses import CHECKPOINT, ending
from cloche.engine.request import ExecRequest
from cloche.errors import Error, NotFound
from cloche.handling import Handling
from cloche.options import filter_pairs, moment, request, variables, words
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Any, Self, Unpack

    from cloche.blocking import Streams, Waits
    from cloche.engine.containers import Container as Record
    from cloche.engine.events import Event
    from cloche.images import Image, Images
    from cloche.networks import Networks
    from cloche.options import Filters, Moment, Options
    from cloche.step.base import Plan
    from cloche.volumes import Volumes


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

    def _row_(self) -> dict[str, str]:
        state = self.status  # which looks anew
        return container_facts(self._record, state)

    def _repr_html_(self) -> str:
        facts = self._row_()
        return card(facts.pop("name"), facts)

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
    def health(self) -> str:
        """`starting`, `healthy`, `unhealthy`; "" of one that has no health check, or never ran."""
        return self._refresh().health

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

    @waits
    def wait(self) -> Waits[int]:
        """Wait for its end; returns the exit code. Raises Error when nobody can know it."""
        code, reason = yield from ending(self.engine, self._record)
        if code < 0:
            raise Error(f"wait for container {self.name}", reason)
        self._exit_code = code
        return code

    @waits
    def stop(self, timeout: int | None = None) -> Waits[None]:
        """The stop signal, and SIGKILL after `timeout` seconds (-1: never)."""
        from cloche.engine.stopping import stopping

        return stopping(self.engine, self._refresh(), timeout)

    def kill(self, signal: int | str = 9) -> None:
        """A signal to the first process. Raises Conflict when it does not run."""
        from cloche.kernel.signalnames import signal_number

        self.client.engine.signal(self._refresh(), signal_number(str(signal)))

    @waits
    def remove(self, force: bool = False, volumes: bool = False) -> Waits[None]:
        """Remove it, its files and logs, `volumes` without a name. Raises Conflict when it runs and `force` is not
        given."""
        return self.engine.removing(self._refresh(), force, volumes)

    def inspect(self) -> dict[str, Any]:
        """All that is known, in the shape of Docker's API."""
        from cloche.engine.inspection import container

        return container(self.client.engine, self._refresh())

    def plan(self) -> Plan:
        """What a start would ask of the kernel."""
        return self.client.engine.plan(self._refresh())

    def chunks(self) -> list[tuple[int, bytes]]:
        """What it has written so far, in order: (1 stdout | 2 stderr, bytes). Raises Conflict when it has no log."""
        if self._chunks is not None:
            return self._chunks
        from cloche.engine.logdrivers import readable

        readable(self._record)
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

    @waits
    def exec(
        self,
        command: str | Sequence[str],
        *,
        env: Mapping[str, str] | Sequence[str] = (),
        user: str = "",
        working_directory: str = "",
        privileged: bool = False,
        input: bytes | None = None,
    ) -> Waits[ExecResult]:
        """Execute a command in it, to its end. Interrupted, it is killed. Raises CommandNotFound, NotExecutable,
        Conflict."""
        from cloche.engine.execs import running

        wanted = ExecRequest(
            self.id, words(command), variables(env), working_directory, user, input is not None, privileged=privileged
        )
        return ExecResult(*(yield from running(self.engine, self._refresh(), wanted, input)))


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

    @waits
    def create(self, image: str, command: str | Sequence[str] = (), **options: Unpack[Options]) -> Waits[Container]:
        """A container that is not started yet."""
        box = Container(self, self.engine.create(request(image, command, **options)))
        try:
            yield CHECKPOINT
        except BaseException:
            yield from self.engine.removing(box._record, volumes=True)
            raise
        return box

    @waits
    def run(
        self,
        image: str,
        command: str | Sequence[str] = (),
        *,
        detach: bool = False,
        input: bytes | None = None,
        **options: Unpack[Options],
    ) -> Waits[Container]:
        """Create and start a container; without `detach` wait for its end and keep what it wrote.

        input: what it reads from its standard input. An exit code other than 0 is no error; see `exit_code`.
        Interrupted, it is killed, and removed where `remove` says so: nobody has a handle on it yet.
        """
        if input is not None:
            options["interactive"] = True
        box = Container(self, self.engine.create(request(image, command, **options)))
        try:
            if detach:
                box.start()
                yield CHECKPOINT
            else:
                yield from self._to_its_end(box, input)
        except BaseException as error:
            yield from _take_back(box, options.get("remove", False) or (detach and not isinstance(error, Error)))
            raise
        return box

    def _to_its_end(self, box: Container, input: bytes | None) -> Waits[None]:
        from cloche.engine.pipes import feeding
        from cloche.engine.removal import follow

        directory = follow(self.engine.log_directory(box._record))
        try:
            started = self.engine.start(box._record, attach=True)
            typing = started.fds.pop("input", -1)
            for fd in started.fds.values():
                os.close(fd)
            if typing >= 0:
                yield from feeding(typing, input or b"", box.id)
                self.engine.keeper.ask({"op": "end_input", "id": box.id})
            code, reason = yield from ending(self.engine, box._record)
            if code < 0:
                raise Error(f"wait for container {box.name}", reason)
            box._exit_code = code
            if box._record.config.log.driver != "none":
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

    @streams
    def events(
        self, since: Moment | None = None, until: Moment | None = None, filters: Filters | None = None
    ) -> Streams[Event]:
        """What happens to containers and images, as it happens: from now on, or from `since` to `until`.

        filters: container, event, image, label, type; as `cloche events --filter`. Raises Invalid.
        """
        from cloche.engine import events

        wanted, first, last = filter_pairs(filters), moment(since), moment(until)
        events.check_filters(wanted)
        after = events.last(self.engine.db) if first is None and last is None else 0
        return events.following(self.engine, after, first or 0, last or 0, wanted)

    def pull(self, name: str, platform: str = "") -> Image:
        """`images.pull`."""
        return self.images.pull(name, platform)

    def get(self, name: str) -> Container:
        """A container by name, id, or the beginning of an id. Raises NotFound, Conflict."""
        return Container(self, self.engine.find(name))

    @property
    def images(self) -> Images:
        """The store's images."""
        from cloche.images import Images

        return Images(self.engine)

    @property
    def networks(self) -> Networks:
        """The store's networks."""
        from cloche.networks import Networks

        return Networks(self.engine)

    @property
    def volumes(self) -> Volumes:
        """The store's volumes."""
        from cloche.volumes import Volumes

        return Volumes(self.engine)

    def containers(self, all: bool = False) -> Table[Container]:
        """Those that run, or all; newest first."""
        return Table(Container(self, c) for c in self.engine.containers() if all or c.status == "running")


def _take_back(box: Container, remove: bool) -> Waits[None]:
    """Of a run that has not come to its end: what runs is killed, and all of it removed or not."""
    from cloche.engine.stopping import killing

    try:
        if remove:
            yield from box.engine.removing(box._refresh(), force=True, volumes=True)
        else:
            yield from killing(box.engine, box._refresh())
    except NotFound:
        return  # it removed itself


class _Mine(dict[tuple[int, str], Client]):
    """A thread's clients by process and store, closed when it ends."""

    def __del__(self) -> None:
        for client in self.values():
            client.close()


_clients = _local()


def _client() -> Client:
    """This thread's client of the default store, made once for each value of CLOCHE_ROOT; not a forked parent's."""
    key = os.getpid(), os.environ.get("CLOCHE_ROOT", "")
    mine: _Mine = _clients.__dict__.setdefault("mine", _Mine())
    if key not in mine:
        mine[key] = Client()
    return mine[key]


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


def containers(all: bool = False) -> Table[Container]:
    """`Client.containers` on the default store."""
    return _client().containers(all)


def pull(name: str, platform: str = "") -> Image:
    """`Client.pull` into the default store."""
    return _client().pull(name, platform)
