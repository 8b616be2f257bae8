"""What the keeper writes of a process into the database: that it runs, that it never did, how it ended."""

from __future__ import annotations

import os

from cloche.engine.database import together
from cloche.engine.events import record, statement
from cloche.engine.job import now
from cloche.engine.sqlite import sqlite3
from cloche.errors import Conflict

RecordError = sqlite3.Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.job import Job

__all__ = ["RecordError", "record_created", "record_end", "record_running"]


def record_running(db: sqlite3.Connection, job: Job, boot: str) -> None:
    """All that finds it again when every process of ours has died. Raises Conflict when it is gone, RecordError."""
    if job.is_exec:
        container, command = job.key.split(":")[1], job.notes.get("command", "")
        for action in ("exec_create", "exec_start"):
            record(db, container, f"{action}: {command}", execID=job.ident)
        return
    outputs = ",".join(str(os.fstat(job.held[name]).st_ino) for name in ("out", "err") if name in job.held)
    done = db.execute(
        "UPDATE containers SET status='running', attempt=?, pid=?, start_time=?, boot=?, outputs=?, started=?,"
        " finished=0, exit_code=0, oom=0, error='', health=?, checks='' WHERE id=?",
        (
            job.attempt,
            job.pid,
            job.start_time,
            boot,
            outputs,
            now(),
            "starting" * bool(job.notes.get("health")),
            job.key,
        ),
    )
    if not done.rowcount:
        raise Conflict(f"start container {job.key[:12]}", "it was removed meanwhile")


def record_created(db: sqlite3.Connection, job: Job) -> None:
    """It does not run, and never did. Raises RecordError."""
    if not job.is_exec and job.state != "making":
        db.execute("UPDATE containers SET status='created', pid=0, started=0 WHERE id=?", (job.key,))


_ENDED = (
    "UPDATE containers SET status=?, restarts=restarts+?, pid=0, finished=?, exit_code=?, oom=?, error=? WHERE id=?"
)


def record_end(db: sqlite3.Connection, job: Job, code: int, reason: str, again: bool = False) -> None:
    """In one transaction: the container's state, and the exit for those who ask after it was removed. again: a policy
    makes it again. Raises RecordError."""
    at = now()
    ended = ("restarting" if again else "exited", again, at, code, job.out_of_memory(), reason, job.key)
    died = []
    if job.is_probe:  # nobody asks for it by its id
        record(db, job.key.split(":")[1], "exec_die", execID=job.ident, exitCode=str(code))
        return
    if job.is_exec:
        died.append(statement(job.key.split(":")[1], "exec_die", {"execID": job.ident, "exitCode": str(code)}))
    together(
        db,
        *died,
        (_ENDED, ended),
        ("INSERT OR REPLACE INTO exits VALUES (?, ?, ?, ?, ?)", (job.ident, job.attempt, code, reason, at)),
    )
