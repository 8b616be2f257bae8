"""What can be done with a container that exists: the methods of `cloche.Container` beside its life and its output.

Each is one module of the engine, imported when it is first called.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.containers import Container as Record
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
