"""One process that the keeper looks after: a container's first, or an exec's. What is held for it, and where it stands.

making -> running -> (drained, recorded) -> gone

After its keeper's death: aborting, when it was never let go; settling, when it may be that it was not, or has not yet
executed its program.
"""

from __future__ import annotations

import os
import select
from time import time_ns

from cloche.engine.holder import child_status, note
from cloche.errors import Error, NotFound, cause_of
from cloche.kernel.pidfd import exit_status
from cloche.kernel.processes import zombie_status
from cloche.runtime.bell import STARTED, parse, peek

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cloche.engine.openlogs import OpenLogs
    from cloche.engine.store import Store
    from cloche.runtime.bell import Failure
    from cloche.runtime.execution import Execution
    from cloche.runtime.log import LogWriter
    from cloche.step.stored import StoredPlan

OUT, ERR = 1, 2
_DRAIN = 1 << 16


class Job:
    """See the module. `held` is the same dictionary that a successor gets from the holder: name -> descriptor."""

    def __init__(self, key: str, plan: StoredPlan | None, held: dict[str, int], attempt: str) -> None:
        self.key, self.plan, self.held, self.attempt = key, plan, held, attempt
        self.notes: dict[str, Any] = plan.notes if plan else {}
        self.making: Execution | None = None
        self.log: LogWriter | None = None
        self.content = b""  # the plan as it came; of one whose keeper died, when somebody has asked for its start again
        self.state = "making"
        self.pid = self.start_time = 0
        self.starters: list[Any] = []
        self.waiters: list[Any] = []
        self.attached: list[Any] = []
        self.wakes: list[tuple[Any, int]] = []  # who reads the log as it grows: the client, its eventfd
        self.unwanted = False  # its only client has taken its start back
        self.again = False  # made by a restart policy: no client has asked for it
        self._dropped = False  # whether it has been said that output is thrown away
        self.orphaned = False  # nobody reads an exec's output any more
        self.written: bytearray | None = None  # what of it is kept, of a health check

    @property
    def is_exec(self) -> bool:
        """An exec is not logged, has no plan to undo, and its output goes to its client."""
        return self.key.startswith(("exec:", "probe:"))

    @property
    def is_probe(self) -> bool:
        """An exec that checks the container's health: no client waits for it."""
        return self.key.startswith("probe:")

    @property
    def ident(self) -> str:
        """The container's or the exec's id."""
        return self.key.rsplit(":", 1)[-1]

    def open_log(self, store: Store, logs: OpenLogs) -> None:
        """Go on with the container's log, or begin it. Raises Error."""
        from cloche.runtime.log import LogWriter

        directory = store.container(self.key) + "/log"
        self.log = LogWriter(directory, self.notes.get("log_size", 10 << 20), self.notes.get("log_files", 3))
        self._logs = logs
        logs.use(self.log)

    def take(self, name: str) -> bool:
        """Move output from a pipe to where it belongs; True when there may be more. Raises Stalled; but a container
        that is not to wait for its log loses what it cannot take."""
        fd = self.held.get(name, -1)
        if fd < 0:
            return False
        try:
            if self.log:
                self._logs.use(self.log)
                taken = self.log.take(fd, ERR if name == "err" else OUT)
                if taken:
                    self.wake()
                return taken > 0
            return self.orphaned and self._keep(os.read(fd, _DRAIN))
        except BlockingIOError:
            return False
        except NotFound:  # somebody has deleted the log's directory: the container runs on
            self.log, self.orphaned = None, True
            return True
        except Error as problem:  # Stalled
            if not self.notes.get("log_buffer"):
                raise
            return self._drop(fd, problem)

    def _drop(self, fd: int, problem: Error) -> bool:
        if not self._dropped:
            note(f"{self.key}: its output is thrown away, as mode=non-blocking asks for: {problem}")
        self._dropped = True
        try:
            return len(os.read(fd, _DRAIN)) > 0
        except BlockingIOError:
            return False

    def _keep(self, data: bytes) -> bool:
        """What nobody reads is thrown away, but for the beginning of what a health check writes."""
        if self.written is not None and len(self.written) < _DRAIN:
            self.written += data
        return len(data) > 0

    def wake(self) -> None:
        """Tell who reads the log that there is more. One that is full has been told already, and has not looked yet."""
        for _, fd in self.wakes:
            try:
                os.eventfd_write(fd, 1)
            except OSError:
                continue

    def leave(self, client: Any) -> None:
        """Forget a client, whatever it waited for."""
        for group in (self.starters, self.waiters):
            while client in group:
                group.remove(client)
        for _, fd in [wake for wake in self.wakes if wake[0] is client]:
            os.close(fd)
        self.wakes = [wake for wake in self.wakes if wake[0] is not client]

    def pump(self) -> bool:
        """Move what a terminal shows into its pipe, in the kernel; False when there is nothing or no room. EIO: nobody
        has it open. An exec's terminal has no pipe: what it shows when its client has left is read and thrown away."""
        ready = select.poll()  # reading the terminal itself would wait
        ready.register(self.held["master"], select.POLLIN)
        if not any(events & select.POLLIN for _, events in ready.poll(0)):
            return False
        try:
            if "pump" not in self.held:
                return self.orphaned and len(os.read(self.held["master"], _DRAIN)) > 0
            return os.splice(self.held["master"], self.held["pump"], _DRAIN, flags=os.SPLICE_F_NONBLOCK) > 0
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == 5:
                return False
            raise

    def drain(self) -> None:
        """Take everything that is left after the end. Raises Stalled; then call again later."""
        if self.is_exec and not self.orphaned:
            return
        more = True
        while more:
            more = "pump" in self.held and self.pump()
            while self.take("out"):
                more = True
            while self.take("err"):
                more = True

    def reports(self) -> tuple[bool, Failure | None]:
        """Of one that has executed its program or ended: whether bell gave up before, and whether a step behind the
        gate failed; looked at, not taken."""
        if "status" not in self.held:
            return False, None
        records, failure = parse(peek(self.held["status"]))
        return not failure and not any(r[0] == STARTED for r in records), failure

    def exit_code(self, ask_holder: Any) -> tuple[int, str]:
        """The exit status as a shell counts it, and "" or why it is not known."""
        pidfd = self.held["pidfd"]
        for find in (lambda: child_status(pidfd), ask_holder, self._zombie, lambda: exit_status(pidfd)):
            status = find()
            if status is not None:
                return (128 - status if status < 0 else status), ""
        return -1, "exit status unknown: the process ended while no cloche process was there to see it"

    def _zombie(self) -> int | None:
        status = zombie_status(self.pid) if self.pid > 0 else None
        return None if status is None else os.waitstatus_to_exitcode(status)

    def cause(self, answer: dict[str, Any]) -> str:
        """Why it could not be started, in words; the step by its name where the notes have them."""
        if "failure" not in answer:
            return str(answer.get("error"))
        number, errno, detail = answer["failure"]
        cause = detail or cause_of(errno)
        steps = self.notes.get("steps", ())
        return f"{steps[number - 1]}: {cause}" if 0 < number <= len(steps) else str(cause)

    def out_of_memory(self) -> bool:
        """Whether the kernel killed something in the container's group for want of memory."""
        from cloche.kernel.cgroups import read_counter

        return any((read_counter(path, "oom_kill") or 0) > 0 for path in self.notes.get("oom", ()))

    def close(self) -> None:
        """Close what is this keeper's alone; what is held stays."""
        if self.making:
            self.making.close()
        if self.log:
            self._logs.forget(self.log)
            self.log.close()
            self.log = None
        for _, fd in self.wakes:
            os.close(fd)
        self.wakes.clear()


class Jobs:
    """All of a keeper's, by key and by the container's or the exec's id. Thousands are never walked to find one."""

    def __init__(self) -> None:
        self._by_key: dict[str, Job] = {}
        self._by_ident: dict[str, Job] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: str) -> bool:
        return key in self._by_key

    def __iter__(self) -> Iterator[Job]:
        return iter(tuple(self._by_key.values()))

    def get(self, key: str) -> Job | None:
        return self._by_key.get(key)

    def of(self, ident: str) -> Job | None:
        """The one whose id this is."""
        return self._by_ident.get(ident)

    def add(self, job: Job) -> None:
        """In the place of one with the same key, if there is one: it is the same container, made again."""
        self._by_key[job.key] = self._by_ident[job.ident] = job

    def remove(self, job: Job) -> None:
        """Harmless when another has taken its place, or it is not there."""
        if self._by_key.get(job.key) is job:
            del self._by_key[job.key]
        if self._by_ident.get(job.ident) is job:
            del self._by_ident[job.ident]


def now() -> int:
    """Nanoseconds since 1970."""
    return time_ns()
