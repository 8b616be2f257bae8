"""What can be done with a container that exists: the methods of `cloche.Container` beside its life and its output.

Each is one module of the engine, imported when it is first called.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloche.engine.containers import Container as Record
    from cloche.engine.processes import Listing
    from cloche.engine.usage import Usage
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

    def restart(self, timeout: int | None = None) -> None:
        """Stop it as `stop` does, if it runs, and start it. One with `remove` stays."""
        from cloche.engine.stopping import restart

        restart(self.client.engine, self._refresh(), timeout)

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
    ) -> None:
        """Change limits, of what runs and for later starts; what is not given stays. Raises Invalid, Unsupported."""
        from cloche.engine import units
        from cloche.engine.request import Limits
        from cloche.engine.updating import update

        size, swap, soft = (
            units.size(s) if isinstance(s, str) else s for s in (memory, memory_swap, memory_reservation)
        )
        wanted = Limits(size, swap, soft, units.cpus(str(cpus)), cpu_shares, cpuset_cpus, pids_limit)
        update(self.client.engine, self._refresh(), wanted)

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

    def stats(self) -> Usage:
        """What it uses now; `cpu_percent` of two such looks is its load between them."""
        from cloche.engine.usage import look

        return look(self.client.engine, self._refresh())
