"""Restart policies: a container that ends is made again from its own stored plan, after a moment that doubles.

    running ─ends─▶ restarting ─100 ms, 200, ... 1 minute─▶ running        (no: exited)

The state is in the database and the plan in the container's directory, so whoever is killed, the next keeper goes on.
Who asked for an end (stop, kill) gets one. Source: Docker's restart policies.
"""

from __future__ import annotations

import os
from time import time_ns

from cloche.engine.answers import ending
from cloche.engine.healthchecks import UNHEALTHY
from cloche.engine.holder import note
from cloche.engine.job import Job
from cloche.engine.records import record_end
from cloche.engine.store import write_whole
from cloche.errors import Invalid
from cloche.kernel.pidfd import KILL
from cloche.step import stored

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloche.engine.keeper import Keeper

FIRST, LONGEST = 0.1, 60.0  # seconds until it is made again
STEADY = 10 * 10**9  # nanoseconds after which a container that ran has nothing to do with the failures before


def plan_file(directory: str) -> str:
    """Where a container's plan is kept for its next start."""
    return directory + "/plan"


def _heals(job: Job) -> bool:
    """Whether it is made again when it is unhealthy."""
    return (job.notes.get("health") or {}).get("on_failure") == "restart"


def _goes_on(job: Job, code: int, row: Any, unhealthy: bool) -> bool:
    """What the policy says, or what is to be done with an unhealthy one; nobody has asked for its end."""
    if row["stopped"] or not job.notes.get("restart"):
        return False
    policy, tries = job.notes["restart"]
    if unhealthy:
        return True
    if policy == "on-failure":
        return code != 0 and not (tries and row["restarts"] >= tries)
    return bool(policy != "no")


class Restarting:
    """Which containers are made again, and when."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._delays: dict[str, float] = {}

    def keep(self, job: Job) -> None:
        """Before a start: keep its plan, where it may be needed again. Raises OSError."""
        if job.is_exec or not job.notes.get("restart"):
            return
        path = plan_file(self._keeper.store.container(job.key))
        write_whole(path + ".new", job.content)
        os.rename(path + ".new", path)

    def change(self, key: str, policy: str, tries: int) -> None:
        """Another policy, in the plans that outlive us too. Raises OSError, Invalid."""
        job = self._keeper.jobs.get(key)
        if job is None:
            return
        notes = {**job.notes, "restart": [policy, tries] if policy != "no" or _heals(job) else None}
        kept = plan_file(self._keeper.store.container(key))
        found = [path for path in (self._keeper.store.plan(key), kept) if os.path.exists(path)]
        if found:
            with open(found[0], "rb") as file:
                content = stored.dump(stored.load(file.read()).replace(notes=notes))
            for path in {*found, kept}:
                write_whole(path + ".new", content)
                os.rename(path + ".new", path)
            if job.content:
                job.content = content
        job.notes = notes

    def wanted(self, job: Job, code: int) -> float | None:
        """Seconds until a container that has ended is made again; None when it is not. Raises RecordError."""
        if job.is_exec or not job.notes.get("restart"):
            return None
        row = self._row(job)
        if row is None or not _goes_on(job, code, row, row["health"] == UNHEALTHY and _heals(job)):
            self._delays.pop(job.key, None)
            return None
        if time_ns() - row["started"] >= STEADY:
            self._delays.pop(job.key, None)
        return self._next(job.key)

    def _row(self, job: Job) -> Any:
        """What is recorded of a container and says whether it is made again; None when it is gone. Raises
        RecordError."""
        query = "SELECT stopped, restarts, started, health FROM containers WHERE id=?"
        return self._keeper.db.execute(query, (job.key,)).fetchone()

    def _next(self, key: str) -> float:
        delay = self._delays.get(key, FIRST)
        self._delays[key] = min(delay * 2, LONGEST)
        return delay

    def again(
        self, key: str, delay: float, before: Job | None = None, wakes: list[tuple[Any, int]] | None = None
    ) -> None:
        """Make it again in a moment; who waits for its end, or reads its log (`wakes`), goes on to."""
        try:
            with open(plan_file(self._keeper.store.container(key)), "rb") as file:
                content = file.read()
            job = Job(key, stored.load(content), {}, os.urandom(8).hex())
        except (OSError, Invalid) as error:
            note(f"restart {key}: {error}")
            self._end(key, before.waiters if before else [])
            return
        job.content, job.state = content, "restarting"
        if before:
            job.waiters, before.waiters = before.waiters, []
            job.wakes = [*(wakes or ()), *before.wakes]
            before.wakes = []
        self._keeper.jobs.add(job)
        self._keeper.after(delay, lambda: self._go(job))

    def _go(self, job: Job) -> None:
        if self._keeper.jobs.get(job.key) is job:
            job.held = self._keeper.held.setdefault(job.key, {})
            job.state = "making"
            job.again = True
            self._keeper.make(job)

    def failed(self, job: Job, code: int, reason: str) -> float | None:
        """Record a restart that could not be made. Seconds until it is tried again; None when it is not. Raises
        RecordError."""
        row = self._row(job)
        delay = self._next(job.key) if row is not None and _goes_on(job, code, row, _heals(job)) else None
        record_end(self._keeper.db, job, code, reason, delay is not None)
        return delay

    def interrupted(self, job: Job) -> bool:
        """Of one that gave up at its gate because a keeper died: whether a policy was making it again. Then it still
        does; or somebody has asked for its end meanwhile, and this is it. Raises RecordError."""
        row = self._row(job)
        if row is None or not row["restarts"]:
            return False
        again = not row["stopped"] and bool(job.notes.get("restart"))
        if again:
            self._keeper.db.execute("UPDATE containers SET status='restarting', pid=0 WHERE id=?", (job.key,))
        else:
            record_end(self._keeper.db, job, 128 + KILL, "")
        self._keeper.ended(job, 128 + KILL, "", FIRST if again else None, ran=False)
        return True

    def cancel(self, key: str) -> bool:
        """Make it not again; False when it is not about to be."""
        job = self._keeper.jobs.get(key)
        if job is None or job.state != "restarting":
            return False
        self._keeper.jobs.remove(job)
        waiters, job.waiters = job.waiters, []
        job.close()
        self._end(key, waiters)
        return True

    def _end(self, key: str, waiters: list[Any]) -> None:
        self._delays.pop(key, None)
        self._keeper.db.execute("UPDATE containers SET status='exited' WHERE id=? AND status='restarting'", (key,))
        row = self._keeper.db.execute("SELECT exit_code, error FROM containers WHERE id=?", (key,)).fetchone()
        for client in waiters:
            client.answer(ending(key, row["exit_code"], row["error"]) if row else ending(key))

    def adopt(self) -> None:
        """After a death: those that were about to be made again."""
        rows = self._keeper.db.execute("SELECT id FROM containers WHERE status='restarting'").fetchall()
        for row in rows:
            if row["id"] not in self._keeper.jobs:
                self.again(row["id"], FIRST)
