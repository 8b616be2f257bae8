"""Executing a plan: the host's steps here, the container's side in bell, handed over at the plan's own Await steps.

Nothing here blocks but the host's own steps: `advance()` does what can be done and says what it waits for; the caller
waits on
`fileno()` in whatever loop it has and calls `receive()`. So a keeper can make many containers at once.

    with Execution(stored, bell, stdio) as making:
        while (token := making.advance()):      # "cloned", "ready", "started"
            ... wait until making.fileno() is readable ...
            making.receive()                    # raises StepFailed
"""

from __future__ import annotations

import os
from time import monotonic_ns

from cloche.errors import CommandNotFound, Error, NotExecutable, Unsupported
from cloche.runtime.bell import DONE, STARTED, TOKEN, Failure, parse, peek
from cloche.step.base import Ref
from cloche.step.sync import Await, Open, StartBell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from cloche.runtime.bell import Bell, RawRecord
    from cloche.step.base import Plan, Step
    from cloche.step.stored import StoredPlan

ENOENT, ENOEXEC, EACCES, ENOTDIR, EINVAL = 2, 8, 13, 20, 22
STAGE, INIT = 1, 2


class StepFailed(Exception):
    """A step that the kernel refused, by number and errno; `explain()` makes the message for people from the plan."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.number, failure.errno, failure.detail)
        self.failure = failure


def explain(plan: Plan, failure: Failure) -> Error:
    """The error a person sees: verb, object, cause, the step's number, a hint."""
    step = plan.acts[failure.number - 1].step
    kind, name = type(step).__name__, step.name()
    where = f"step {failure.number} of {len(plan.acts)}, {name}"
    if failure.errno == EINVAL and getattr(step, "idmap", False):
        hint = "put the store (CLOCHE_ROOT) on ext4, xfs or btrfs; tmpfs can from Linux 6.3 on"
        if kind == "OpenTree" and not name.endswith("/_data"):
            hint = "leave out the option idmap: the files keep the host's owners then"
        return Unsupported(where, "this file system cannot be mounted id-mapped", hint)
    return explain_step(kind, name, where, failure)


def explain_step(kind: str, name: str, where: str, failure: Failure) -> Error:
    """The same of a step of which only kind and name are known. where: number and name."""
    cause = failure.detail or failure.errno
    if kind in ("Execute", "FindProgram"):
        if failure.errno == ENOENT:
            hint = "check the command's name and the image's PATH"
            return CommandNotFound(name, failure.detail or "no such file or directory (ENOENT)", hint)
        hints = {
            EACCES: "is it a file with the x bit, on a mount without noexec?",
            ENOEXEC: "wrong architecture, no #! line, or its interpreter is not in the image",
        }
        return NotExecutable(name, cause if failure.detail else failure.errno, hints.get(failure.errno, ""))
    if kind == "LookUpUser" and failure.detail:
        return Error(where, failure.detail, "names are those of the image's own files; a number needs no entry")
    if kind in ("RunHook", "RunHookInside"):
        return Error(where, cause)
    if failure.detail and failure.errno:
        from cloche.errors import cause_of

        cause = f"{failure.detail}: {cause_of(failure.errno)}"
    return Error(where, cause, _hint_for(kind, failure.errno))


_NETWORK_HINTS = {
    ("ReservePort", 98): "another program or container has it: `ss -ltnup` and `cloche ps` show which; or -p 0:PORT",
    ("ReservePort", 99): "it is no address of this host: `ip address` lists them",
    ("ReservePort", 13): "ports below 1024 need root",
    ("MakeFirewall", 93): "this kernel has no nf_tables: load the module nf_tables, or use --network host or none",
    ("MakeBridge", 95): "this kernel has no bridges: load the module bridge, or use --network host or none",
    ("MakeVeth", 95): "this kernel has no veth: load the module veth, or use --network host or none",
    ("MakeVeth", 54): "a bridge of the kernel's has 1023 ports at most: use one more network (cloche network create)",
    ("MakeVeth", 19): "the bridge has been deleted meanwhile: start the container again",
    ("MakeMacvlan", 19): "is the parent link there? `ip link` lists them",
    ("MakeMacvlan", 16): "the parent is a port of a bridge, or in use by something else",
}


def _hint_for(kind: str, errno: int) -> str:
    if (kind, errno) in _NETWORK_HINTS:
        return _NETWORK_HINTS[kind, errno]
    if kind in ("AttachTree", "MountFilesystem") and errno in (ENOTDIR, EINVAL):
        return "a directory goes on a directory, a file on a file"
    if kind == "SetUser" and errno == EINVAL:
        return "in a user namespace there are only the ids of its map"
    return _hint(errno)


def _hint(errno: int) -> str:
    hints = {
        1: "does this process have the capability, and does the host allow it? run as root",
        2: "does the path exist?",
        10: "the process that makes them was killed in this moment: try again",
        12: "the host or a limit has no memory left",
        13: "this process may not; run as root, with all of root's capabilities",
        19: "this kernel does not have this file system or device",
        22: "the kernel does not take this value",
        28: "the disk is full, or a limit on namespaces or mounts is reached (/proc/sys/user)",
        38: "this kernel is too old for the call",
    }
    return hints.get(errno, "`cloche plan` shows every step")


class Reach:
    """A world for steps that are done to a process that runs: its pid, a handle of it, what the steps give."""

    def __init__(self, pid: int, start_time: int) -> None:
        """Raises ProcessLookupError when it is gone."""
        from cloche.kernel.pidfd import open_process

        self._values = {Ref("pid", "pid"): pid, Ref("pidfd"): open_process(pid, start_time)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for ref, value in self._values.items():
            if ref.kind == "fd":
                os.close(value)

    def give(self, ref: Ref, value: int) -> None:
        self._values[ref] = value

    def take(self, ref: Ref) -> int:
        return self._values[ref]


class Execution:
    """One plan on its way. Owns its descriptors until they are taken; `close()` ends what is unfinished.

    given: descriptors that the plan's first steps need already. status: both ends of the pipe or fifo for what is
    reported behind the gate, where it is not a pipe of its own.
    """

    def __init__(
        self,
        plan: StoredPlan,
        bell: Bell,
        stdio: tuple[int, int, int],
        given: dict[Ref, int] | None = None,
        status: tuple[int, int] = (-1, -1),
    ) -> None:
        self.plan = plan
        self._bell, self._stdio = bell, stdio
        self._next = self._number = 0
        self._early: tuple[bytes, int] | None = None
        self._awaited: Await | None = None
        self._values: dict[Ref, int] = dict(given or {})
        self._released: dict[Ref, int] = {}
        self._control = -1
        self.status, self._their_status = status  # the ends to read and to write
        self.stage = 0  # the pid of the throw-away process; the caller reaps it
        self.pid = 0
        self.records: list[RawRecord] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every descriptor that nobody took. An init that waits at its gate ends by that."""
        if self._early and self._early[1] >= 0:
            os.close(self._early[1])
        self._early = None
        for ref, value in list(self._values.items()):
            if ref.kind == "fd" and value >= 0:
                os.close(value)
        self._values.clear()
        for fd in (self._control, self.status, self._their_status):
            if fd >= 0:
                os.close(fd)
        self._control = self.status = self._their_status = -1

    # -- World: what steps may ask

    def give(self, ref: Ref, value: int) -> None:
        self._values[ref] = value

    def take(self, ref: Ref) -> int:
        return self._values[ref] if ref in self._values else self._released[ref]

    def release(self, name: str) -> int:
        """The descriptor that was given under `name`, now the caller's, who keeps it open while steps may need it."""
        ref = next(r for r in self._values if r.name == name)
        self._released[ref] = self._values.pop(ref)
        return self._released[ref]

    def release_ports(self) -> dict[str, int]:
        """The sockets that reserve published ports, by name, now the caller's."""
        names = [ref.name for ref in self._values if ref.name[:4] == "port"]
        return {name: self.release(name) for name in names}

    # -- going on

    def fileno(self) -> int:
        """The descriptor to wait on: readable, or for the last token its end-of-file (poll with no events: POLLHUP
        only)."""
        return self.status if self._awaited and self._awaited.token == "started" else self._control

    def wait(self) -> None:
        """Wait for what `advance()` said, for callers that have nothing else to do. Raises StepFailed."""
        import select

        while True:
            poll = select.poll()
            poll.register(self.fileno(), 0 if self.fileno() == self.status else select.POLLIN)
            if not self.overtaken():
                poll.poll()
            if self.receive():
                return

    def advance(self) -> str:
        """Execute the host's steps up to the next Await; returns its token, or "" when the plan is done. Raises
        StepFailed."""
        host = self.plan.host
        while self._next < len(host):
            self._number, step = host[self._next]
            self._next += 1
            if isinstance(step, Await):
                self._awaited = step
                return step.token
            try:
                self._execute(step)
            except OSError as error:
                ours = Failure(self._number, error.errno or 5, getattr(error, "sentence", ""))
                raise StepFailed(self._failure_there() or ours) from error
            self.records.append((DONE, 0, self._number, 0, monotonic_ns()))
        self._awaited = None
        return ""

    def _failure_there(self) -> Failure | None:
        """What the container's side has said of a failure of its own: without its process, ours cannot go on either."""
        messages = [self._early[0]] if self._early else []
        while self.pid:
            try:
                message, descriptor = self._read_control()
            except BlockingIOError:
                break
            if descriptor >= 0:
                os.close(descriptor)
            if not message:
                break
            messages.append(message)
        return next((failure for message in messages if (failure := parse(message)[1])), None)

    def _execute(self, step: Step) -> None:
        if isinstance(step, StartBell):
            self._start(step.descriptors)
        elif isinstance(step, Open):
            os.write(self._control, b"x")
        else:
            step.execute(self)

    def _start(self, refs: Sequence[Ref]) -> None:
        import _socket

        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        self._control, their_control = ours.detach(), theirs.detach()
        try:
            if self.status < 0:
                self.status, self._their_status = os.pipe2(os.O_CLOEXEC)
            passed = [self._values[ref] for ref in refs]
            self.stage = self._bell.spawn(self.plan.flat, self._stdio, their_control, self._their_status, passed)
        finally:
            os.close(their_control)
            if self._their_status >= 0:
                os.close(self._their_status)
                self._their_status = -1

    def receive(self) -> bool:
        """Take what was waited for; False when it is not there yet. Raises StepFailed when it tells of a failure."""
        awaited = self._awaited
        assert awaited is not None
        if awaited.token == "started":
            return self._receive_status()
        try:
            message, descriptor = self._next_message(awaited.token)
        except BlockingIOError:
            return False
        records, failure = parse(message)
        self.records += records
        if failure:
            raise StepFailed(failure)
        if not records or records[-1][0] != TOKEN:
            raise StepFailed(Failure(self._number, 32, "bell ended without a word"))
        if awaited.token == "cloned":
            self.pid = records[-1][3]
        self.records.append((DONE, 0, self._number, 0, monotonic_ns()))
        for ref in awaited.made:
            self._values[ref] = self.pid if ref.kind == "pid" else descriptor
        return True

    def overtaken(self) -> bool:
        """Whether what is waited for has been read already, so that `fileno()` may stay silent: call `receive()`."""
        return (
            self._early is not None and self._awaited is not None and self._awaited.token not in ("cloned", "started")
        )

    def _next_message(self, token: str) -> tuple[bytes, int]:
        """Of the actor whose turn it is. Raises BlockingIOError when there is none.

        Init may be quicker than the stage, who still has to say which process it is; what it says is put aside.
        """
        early = self._early
        if early is None or token == "cloned":
            message, descriptor = self._read_control()
            if token != "cloned" or message[1:2] == bytes((STAGE,)):
                return message, descriptor
            if early is None and message:
                self._early = message, descriptor
                raise BlockingIOError
            if early is None:
                return message, descriptor
            if early[1] >= 0:
                os.close(early[1])
            early = (early[0] if parse(early[0])[1] else b""), -1  # the stage ended without a word, and so has init
        self._early = None
        return early

    def _read_control(self) -> tuple[bytes, int]:
        import _socket

        peer = _socket.socket(fileno=os.dup(self._control))
        try:
            flags = _socket.MSG_CMSG_CLOEXEC | _socket.MSG_DONTWAIT
            try:
                message, ancillary, _, _ = peer.recvmsg(1 << 16, 64, flags)
            except ConnectionResetError:  # it ended with unread bytes; its own messages are queued behind this error
                message, ancillary, _, _ = peer.recvmsg(1 << 16, 64, flags)
        finally:
            peer.close()
        descriptor = -1
        for _, _, data in ancillary:
            descriptor = int.from_bytes(data[:4], "little")
        return message, descriptor

    def _receive_status(self) -> bool:
        """Look at the status pipe; nothing is taken out, so that another keeper finds it all again."""
        import select

        poll = select.poll()
        poll.register(self.status, 0)
        if not poll.poll(0):
            return False
        records, failure = parse(peek(self.status))
        self.records += records
        if failure:
            raise StepFailed(failure)
        if not any(r[0] == STARTED for r in records):
            raise StepFailed(Failure(self._number, 4, "bell ended before it executed the program"))
        return True
