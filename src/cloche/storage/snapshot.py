"""What a container's files stand on: the contract between a file system driver and its users.

A driver hands out values and mounts nothing, so a snapshot costs two directories, and what exists of it in the kernel
is in the container's plan. `cloche.storage.overlay` is one; each is a module that has these functions.
"""

from __future__ import annotations

from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from cloche.step.rootfs import Folder, Overlay
else:
    Protocol = object


class Snapshot(Value):
    """A container's own files over an image's. `mounts`: what to mount, in order; the first is the root."""

    mounts: tuple[Overlay | Folder, ...]


class Driver(Protocol):
    """`root` is the store's directory; `layers` are numbers of layer directories, bottom first."""

    def probe(self, root: str) -> None:
        """Raises Unsupported where this host, or the file system that `root` is on, cannot do it; nothing is
        changed."""

    def prepare(self, root: str, container_id: str, layers: tuple[int, ...]) -> Snapshot:
        """New, empty, writable over `layers`. Raises Conflict (there is one already), NotFound (a layer), Error."""

    def remove(self, root: str, container_id: str) -> None:
        """Take away everything in the container's directory: one rename. What is gone already is no error."""
