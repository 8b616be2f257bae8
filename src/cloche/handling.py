"""What can be done with a container that exists: the methods of `cloche.Container` beside its life and its output.

Each is one module of the engine, imported when it is first called.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloche.engine.containers import Container as Record
    from cloche.engine.processes import Listing
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
