"""What can be done with a container that exists: the methods of `cloche.Container` beside its life and its output.

Each is one module of the engine, imported when it is first called.
"""

from __future__ import annotations

from cloche.blocking import streams, waits

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Iterator, Sequence

    from cloche.blocking import Streams, Waits
    from cloche.engine.containers import Container as Record
    from cloche.engine.containers import Engine
    from cloche.engine.processes import Listing
    from cloche.engine.usage import Usage
    from cloche.images import Image
    from cloche.options import Moment
    from cloche.runtime.loglines import Line
    from cloche.sdk import Client


class Handling:
    """The part of a container's face that acts upon it. All raise NotFound when it is gone, Conflict in the wrong
    state."""

    client: Client
    id: str
    name: str
    _record: Record

    def _refresh(self) -> Record:
        raise NotImplementedError

    @property
    def engine(self) -> Engine:
        """The store's."""
        return self.client.engine

    @waits
    def restart(self, timeout: int | None = None) -> Waits[None]:
        """Stop it as `stop` does, if it runs, and start it. One with `remove` stays."""
        from cloche.engine.stopping import restarting

        return restarting(self.engine, self._refresh(), timeout)

    def rename(self, name: str) -> None:
        """Give it another name. Raises Invalid, Conflict when it is taken."""
        from cloche.engine.renaming import rename

        rename(self.client.engine, self._refresh(), name)
        self.name = self._refresh().name

    def pause(self) -> None:
        """Let all its processes stand still. Raises Unsupported on a host without a freezer."""
        from cloche.engine.pausing import pause

        pause(self.client.engine, self._refresh())

    def unpause(self) -> None:
        """Let them go on."""
        from cloche.engine.pausing import unpause

        unpause(self.client.engine, self._refresh())

    def top(self, options: Sequence[str] = ()) -> Listing:
        """Its processes, as the host's ps(1) with these options lists them."""
        from cloche.engine.processes import top

        return top(self.client.engine, self._refresh(), tuple(options))

    def update(
        self,
        *,
        memory: int | str = 0,
        memory_swap: int | str = 0,
        memory_reservation: int | str = 0,
        cpus: float | str = 0,
        cpu_shares: int = 0,
        cpuset_cpus: str = "",
        pids_limit: int = 0,
        cpu_period: int = 0,
        cpu_quota: int = 0,
        cpuset_mems: str = "",
        blkio_weight: int = 0,
        restart: str = "",
    ) -> None:
        """Change limits and policy, of what runs and for later starts; what is not given stays. Raises Invalid,
        Unsupported."""
        from cloche.engine import notation, units
        from cloche.engine.request import Limits
        from cloche.engine.updating import update

        size, swap, soft = (
            units.size(s) if isinstance(s, str) else s for s in (memory, memory_swap, memory_reservation)
        )
        wanted = Limits(
            size,
            swap,
            soft,
            units.cpus(str(cpus)),
            cpu_shares,
            cpuset_cpus,
            pids_limit,
            cpu_period,
            cpu_quota,
            cpuset_mems=cpuset_mems,
            blkio_weight=blkio_weight,
        )
        update(self.client.engine, self._refresh(), wanted, notation.restart(restart) if restart else None)

    def diff(self) -> list[tuple[str, str]]:
        """What it changed in its image's files: (A added | C changed | D deleted, path)."""
        import os

        from cloche.engine.changes import changes

        return [(c.kind, os.fsdecode(c.path)) for c in changes(self.client.engine, self._refresh())]

    def copy_in(self, source: str, destination: str, *, follow: bool = False, archive: bool = False) -> None:
        """`cloche cp SOURCE CONTAINER:DESTINATION`. archive: keep owners."""
        from cloche.engine.copying import copy_in

        copy_in(self.client.engine, self._refresh(), source, destination, follow, archive)

    def copy_out(self, source: str, destination: str, *, follow: bool = False, archive: bool = False) -> None:
        """`cloche cp CONTAINER:SOURCE DESTINATION`. archive: keep owners."""
        from cloche.engine.copying import copy_out

        copy_out(self.client.engine, self._refresh(), source, destination, follow, archive)

    def get_archive(self, path: str) -> Iterator[bytes]:
        """A file or directory of it as a tar stream."""
        from cloche.engine.copying import read

        return read(self.client.engine, self._refresh(), path)

    def put_archive(self, path: str, data: Iterator[bytes]) -> None:
        """Unpack a tar stream in a directory of it."""
        from cloche.engine.copying import write

        write(self.client.engine, self._refresh(), data, path)

    def export(self) -> Iterator[bytes]:
        """All its files as a tar stream, without what is mounted in it."""
        from cloche.engine.copying import export

        return export(self.client.engine, self._refresh())

    def commit(
        self,
        name: str = "",
        author: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
    ) -> Image:
        """Make an image of it, named `name`. changes: instructions of a Dockerfile, such as `CMD ["sh"]`. It stands
        still while its files are read. Raises NotFound when its image was removed, Invalid, Unsupported, Error."""
        from cloche.engine.committing import commit
        from cloche.images import Image as Made

        engine = self.client.engine
        return Made(engine, commit(engine, self._refresh(), name, author, message, changes, pause))

    def stats(self) -> Usage:
        """What it uses now; `cpu_percent` of two such looks is its load between them."""
        from cloche.engine.usage import look

        return look(self.client.engine, self._refresh())

    @streams
    def stats_stream(self, every: float = 1.0) -> Streams[Usage]:
        """The same every so many seconds, the first time now, until it ends."""
        from cloche.engine.usage import watching

        return watching(self.engine, self._refresh(), every)

    @streams
    def logs(
        self,
        tail: int | None = None,
        timestamps: bool = False,
        *,
        follow: bool = False,
        since: Moment | None = None,
        until: Moment | None = None,
    ) -> Streams[str]:
        """Its lines, without the line's end, stdout and stderr as they came; with `follow` also those that come, until
        it ends or `until` is past."""
        from cloche.engine.output import lines
        from cloche.options import moment
        from cloche.runtime.timestamp import format_time

        def shown(line: Line) -> str:
            text = line.data.decode("utf-8", "backslashreplace").rstrip("\n")
            return f"{format_time(line.time)} {text}" if timestamps and line.begins else text

        record = self._refresh() if follow else self._record
        return lines(self.engine, record, shown, follow, moment(since), moment(until), tail)

    @waits
    def wait_until(
        self,
        *,
        port: int | str | None = None,
        log: str | re.Pattern[str] | None = None,
        http: int | str | None = None,
        status: int = 0,
        healthy: bool = False,
        timeout: float = 60.0,
    ) -> Waits[None]:
        """Wait until all of it holds: a line with this text (or in which this expression is found) was written since
        its start; somebody listens on this TCP port of its own; a request is answered with a status below 500, or with
        `status` (http: `8080`, `":8080/ready"`, `"/ready"`); its health check succeeds.

        Raises TimedOut after `timeout` seconds, Conflict as soon as it ends; both have its last lines as a note.
        """
        from cloche.engine.readiness import conditions, ready

        return ready(self.engine, self._refresh(), conditions(port, http, status, log, healthy), timeout)
