"""Bundle: all that plan() reads. A value: no path is opened, no name looked up to make a plan of it."""

from __future__ import annotations

from cloche.oci.runtime import Namespace, Process, Spec
from cloche.step.attachment import Attachment
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.oci.runtime import MemoryPolicy
    from cloche.step.rootfs import Folder, Overlay


class Bundle(Value):
    """A container to be made.

    root: what it stands on; mountpoint: an existing directory that the root is mounted on, in the container's own mount
    namespace only, so one directory serves all; its parents can be entered by everybody (a user namespace's root is
    nobody
    outside). filter: the seccomp program, compiled; empty is unconfined. network: how it comes onto its networks.

    What an OCI runtime's caller may ask for: created: it waits to be started, at the fifo that is passed as `start`.
    state: its state as JSON, before and after the pid, for hooks. passed: how many descriptors the program gets besides
    0 to 2. keyring: a session keyring of its own. pivot: False where pivot_root(2) cannot be had.
    """

    id: str
    spec: Spec
    root: Overlay | Folder
    mountpoint: str
    filter: bytes = b""
    filter_flags: int = 0
    network: Attachment = Attachment()
    created: bool = False
    state: tuple[str, str] = ("", "")
    passed: int = 0
    keyring: bool = True
    pivot: bool = True
    listener: Listener | None = None


class Listener(Value):
    """Who answers a filter's notifications: its socket, what it is told, the state around a pid (0: the new one's)."""

    path: str
    metadata: str
    state: tuple[str, str]
    pid: int = 0


class Joining(Value):
    """A process to be started in a running container: which one it is, and what the new process is like."""

    id: str
    process: Process
    pid: int
    start_time: int
    namespaces: tuple[Namespace, ...]
    cgroups_path: str = ""
    filter: bytes = b""
    filter_flags: int = 0
    passed: int = 0
    keyring: bool = True
    personality: str = ""
    memory_policy: MemoryPolicy | None = None
    listener: Listener | None = None
    root: str = ""  # where the container has no mount namespace of its own: what its root was changed to
