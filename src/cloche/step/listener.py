"""Seccomp notifications: a descriptor by which another program answers a container's calls, seccomp_unotify(2).

Source: runtime-spec, config-linux.md, The Container Process State.
"""

from __future__ import annotations

import os

from cloche.document import dumps, loads
from cloche.step.base import Ref, Step, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloche.step.base import World

PID = Ref("pid", "pid")
PIDFD = Ref("pidfd")
NUMBER = 5  # of the descriptor in the process that has loaded the filter: bell has closed what stood there
_PIDFD_GETFD = 438


class SendListener(Step):
    """pidfd_getfd(2) of the listener, and sendmsg(2) of it with the state to the agent's socket; one a connection.

    It is taken, not sent by the process itself: its filter may ask the agent for leave to call sendmsg(2).
    before, after: the container's state around a pid: that process's, or `container`'s where it is an exec's.
    """

    because = "Whoever answers for the kernel needs the descriptor before the first call is asked about."
    path: str
    metadata: str
    before: str
    after: str
    container: int = 0

    def needs(self) -> tuple[Ref, ...]:
        return (PID, PIDFD)

    def call(self) -> str:
        return f"pidfd_getfd(pidfd, {NUMBER}); sendmsg({quote(self.path)}, SCM_RIGHTS)"

    def name(self) -> str:
        return f"send the seccomp listener to {self.path}"

    def execute(self, world: World) -> None:
        from cloche.kernel.descriptors import send_descriptor
        from cloche.kernel.libc import syscall

        pid = world.take(PID)
        listener = syscall(_PIDFD_GETFD, world.take(PIDFD), NUMBER, 0, what="pidfd_getfd")
        try:
            send_descriptor(self.path, listener, self.message(pid))
        finally:
            os.close(listener)

    def message(self, pid: int) -> bytes:
        """The container process state."""
        state = loads(f"{self.before}{self.container or pid}{self.after}")
        told: dict[str, Any] = {"ociVersion": state["ociVersion"], "fds": ["seccompFd"], "pid": pid}
        if self.metadata:
            told["metadata"] = self.metadata
        return dumps(told | {"state": state}).encode()
