"""How a container comes onto its networks: what networks hand out and plan() puts in its place."""

from __future__ import annotations

from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.step.base import Step


class Attachment(Value):
    """A container's networks as steps. reserve: before anything else; shared: what must be there; own: once there is a
    process."""

    reserve: tuple[Step, ...] = ()
    shared: tuple[Step, ...] = ()
    own: tuple[Step, ...] = ()
