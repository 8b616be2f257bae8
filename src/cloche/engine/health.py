"""The keeper's health checks: a command is executed in each running container that has one, when it is due.

    running ─interval─▶ check ─exit code, or too late─▶ recorded: starting | healthy | unhealthy ─interval─▶ ...

What is known is in the database, what is executed in a file of the container's directory, so that a new keeper goes on
when the next check is due; one that was under way is ended. A paused container is not checked. What the results mean
is decided by `healthchecks`, which is pure.
"""

from __future__ import annotations

import os
from time import time_ns

from cloche.document import dumps, loads
from cloche.engine import healthchecks, request
from cloche.engine.events import record
from cloche.engine.healthchecks import UNHEALTHY, Result, State
from cloche.engine.holder import note
from cloche.engine.job import Job
from cloche.engine.sqlite import sqlite3
from cloche.errors import Invalid
from cloche.kernel.pidfd import KILL, send_signal
from cloche.kernel.processes import lives
from cloche.step import stored
from cloche.step.namespace import OpenNamespace
from cloche.value import Value, decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloche.engine.keeper import Keeper

_KINDS: dict[str, type[Value]] = {"Health": request.Health, "State": State, "Result": Result}
_AGAIN = 0.1  # seconds until a check is looked at again that is too late and cannot be ended yet


def probe_file(directory: str) -> str:
    """Where the plan of a container's check is kept, for whichever process it has."""
    return directory + "/probe"


def read_state(text: str) -> State:
    """What is known, from the database."""
    state: State = decode(loads(text), _KINDS) if text else State()
    return state


class Watch:
    """One container that runs: what is checked, what is known, the check that is under way."""

    def __init__(self, job: Job, pid: int, start_time: int, state: State, started: int) -> None:
        self.job, self.pid, self.start_time = job, pid, start_time
        self.state, self.started = state, started
        self.check: request.Health = decode(job.notes["health"], _KINDS)
        self.probe: Job | None = None
        self.began = 0
        self.late = False


class Health:
    """Which containers are checked, and when."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._watches: dict[str, Watch] = {}

    def begin(self, job: Job) -> None:
        """It runs, or did when an earlier keeper died."""
        if job.is_exec or not job.notes.get("health"):
            return
        query = "SELECT checks, started, pid, start_time FROM containers WHERE id=?"
        row = self._keeper.db.execute(query, (job.key,)).fetchone()
        if row is None:
            return
        state = read_state(row["checks"])
        watch = self._watches[job.key] = Watch(job, row["pid"], row["start_time"], state, row["started"])
        self._wait(watch)
        if watch.state.status == UNHEALTHY:
            self._act(watch)  # it may be that the keeper died before it had

    def end(self, key: str) -> None:
        """It runs no more."""
        self._watches.pop(key, None)

    def _is_over(self, watch: Watch) -> bool:
        return self._watches.get(watch.job.key) is not watch

    def _wait(self, watch: Watch) -> None:
        now = time_ns()
        pause = healthchecks.due(watch.check, watch.state, watch.started, now) - now
        # a clock that was set back does not put it off
        self._keeper.after(min(max(pause, 0), watch.check.interval) / 1e9, lambda: self._check(watch))

    def _is_paused(self, watch: Watch) -> bool:
        row = self._keeper.db.execute("SELECT paused FROM containers WHERE id=?", (watch.job.key,)).fetchone()
        return row is not None and bool(row["paused"])

    def _check(self, watch: Watch) -> None:
        """Execute the command."""
        if self._is_over(watch):
            return
        if self._is_paused(watch):
            self._keeper.after(watch.check.interval / 1e9, lambda: self._check(watch))
            return
        key = f"probe:{watch.job.key}:{os.urandom(32).hex()}"
        watch.began, watch.late = time_ns(), False
        try:
            plan = self._plan(watch)
        except (OSError, Invalid) as error:
            self._learn(watch, -1, str(error))
            return
        probe = watch.probe = Job(key, plan, self._keeper.held.setdefault(key, {}), "")
        probe.orphaned, probe.written = True, bytearray()
        self._keeper.after(watch.check.timeout / 1e9, lambda: self._expire(watch, probe))
        self._keeper.make(probe)

    def _plan(self, watch: Watch) -> stored.StoredPlan:
        """The plan of an exec in what now is the container's first process. Raises OSError, Invalid."""
        with open(probe_file(self._keeper.store.container(watch.job.key)), "rb") as file:
            plan = stored.load(file.read())
        host = tuple(
            (number, step.of(watch.pid, watch.start_time) if isinstance(step, OpenNamespace) else step)
            for number, step in plan.host
        )
        return plan.replace(host=host)

    def _expire(self, watch: Watch, probe: Job) -> None:
        """It has taken too long: it is ended. In a container that stands still, it could not do anything."""
        if watch.probe is not probe or self._is_over(watch):
            return
        if self._is_paused(watch):
            self._keeper.after(watch.check.timeout / 1e9, lambda: self._expire(watch, probe))
        elif "pidfd" not in probe.held:
            self._keeper.after(_AGAIN, lambda: self._expire(watch, probe))
        else:
            watch.late = True
            send_signal(probe.held["pidfd"], KILL)

    def ended(self, probe: Job, code: int) -> None:
        """The command has ended, and its output is here."""
        if watch := self._of(probe):
            output = healthchecks.written(bytes(probe.written or b""))
            if watch.late:
                code, said = -1, f"Health check exceeded timeout ({watch.check.timeout / 1e9:g}s)"
                output = f"{said}: {output}" if output else said
            self._learn(watch, code, output)

    def refused(self, probe: Job, answer: dict[str, Any]) -> None:
        """The command could not be executed."""
        if watch := self._of(probe):
            self._learn(watch, -1, probe.cause(answer))

    def _of(self, probe: Job) -> Watch | None:
        """Whose check it is, if that runs: a check that ends because its container does says nothing."""
        watch = self._watches.get(probe.key.split(":")[1])
        if watch is None or watch.probe is not probe:
            return None
        watch.probe = None
        return watch if lives(watch.pid, watch.start_time) else None

    def _learn(self, watch: Watch, code: int, output: str) -> None:
        before = watch.state.status
        result = Result(watch.began, time_ns(), code, output)
        watch.state = healthchecks.after(watch.check, watch.state, result, watch.started)
        status, text = watch.state.status, dumps(encode(watch.state))
        try:
            self._keeper.db.execute(
                "UPDATE containers SET health=?, checks=? WHERE id=? AND status='running'",
                (status, text, watch.job.key),
            )
        except sqlite3.Error as error:
            note(f"{watch.job.key}: record its health: {error}")  # it is known here; the next one is recorded with it
        self._wait(watch)
        if status == UNHEALTHY and before != UNHEALTHY:
            self._act(watch)

    def _act(self, watch: Watch) -> None:
        """Do with an unhealthy container what was asked for. Whether it is made again is Restarting's business."""
        action, pidfd = watch.check.on_failure, watch.job.held.get("pidfd", -1)
        if action in ("", "none") or pidfd < 0:
            return
        number, patience = (KILL, -1) if action == "kill" else watch.job.notes["stop"]
        if action == "stop":
            self._keeper.db.execute("UPDATE containers SET stopped=1 WHERE id=?", (watch.job.key,))
        send_signal(pidfd, number)
        record(self._keeper.db, watch.job.key, "kill", signal=str(number))
        if patience >= 0:
            self._keeper.after(patience, lambda: None if self._is_over(watch) else send_signal(pidfd, KILL))
