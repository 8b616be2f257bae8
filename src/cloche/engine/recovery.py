"""What a new keeper does first: take over what is held, find what two deaths left, undo what nobody finished."""

from __future__ import annotations

import os

from cloche.engine import database
from cloche.engine.answers import ending
from cloche.engine.holder import drop, note
from cloche.engine.job import ERR, OUT, Job
from cloche.engine.nameserver import is_ours
from cloche.engine.records import record_created, record_end
from cloche.engine.settling import is_settling
from cloche.errors import Error, Invalid
from cloche.kernel.pidfd import KILL, kill_and_wait, open_process, process_of, send_signal
from cloche.step import stored
from cloche.step.network import ReservePort, reserve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloche.engine.keeper import Keeper

FORSAKEN = 10.0  # seconds until the stdin of a container whose client did not come back is closed


def adopt(keeper: Keeper) -> None:
    """After a death: what is held, what the database believes to run, what plans are left."""
    for key in list(keeper.held):
        if not is_ours(key):
            _adopt_held(keeper, key)
    for row in keeper.db.execute("SELECT * FROM containers WHERE status='running'").fetchall():
        if row["id"] not in keeper.jobs:
            _adopt_lost(keeper, row)
    for ident in os.listdir(keeper.store.run + "/plans"):
        if is_settling(ident):
            keeper.settling.adopt(ident)
        elif ident not in keeper.jobs:
            keeper.settling.undo(ident, _read_plan(keeper, ident))
    for row in keeper.db.execute("SELECT id FROM containers WHERE status='exited' AND remove=1").fetchall():
        if row["id"] not in keeper.jobs:
            keeper.tidying.remove(row["id"])
    keeper.restarting.adopt()
    try:
        keeper.names.adopt()
    except OSError as error:
        note(f"names: {error}")
    keeper.tidying.tidy()


def _read_plan(keeper: Keeper, ident: str) -> stored.StoredPlan | None:
    """None where there is none, or one that was not written to its end: nothing of it was done."""
    try:
        with open(keeper.store.plan(ident), "rb") as file:
            return stored.load(file.read())
    except (FileNotFoundError, Invalid):
        return None


def _adopt_held(keeper: Keeper, key: str) -> None:
    """What another keeper held: running; or never let go, then it is made again when its client asks again."""
    held = keeper.held[key]
    if "pidfd" not in held:
        keeper.tell({"op": "drop", "key": key})
        drop(keeper.held, key)
        return
    row = keeper.db.execute("SELECT * FROM containers WHERE id=?", (key,)).fetchone()
    job = Job(key, None, held, row["attempt"] if row else "")
    if not job.is_exec:
        job = Job(key, _read_plan(keeper, key), held, job.attempt)
    job.pid = process_of(held["pidfd"])
    if job.is_probe:  # the health is checked anew
        job.notes, job.orphaned, job.state = {"tty": False}, True, "running"
        keeper.jobs.add(job)
        send_signal(held["pidfd"], KILL)
        keeper.watch_running(job)
        return
    if job.is_exec:
        job.notes = {"stdin_once": True, "tty": "master" in held}
    keeper.jobs.add(job)
    if not job.is_exec and (not row or row["status"] == database.CREATED):
        job.state = "aborting"
        send_signal(held["pidfd"], KILL)
        keeper.watch(held["pidfd"], lambda: keeper.finish(job))
        return
    if _is_recorded(keeper, job, row):
        keeper.forget(job)
        return
    job.state = "running"
    if "status" in held:  # not of one that was found again after the death of both
        job.state = "settling"
        keeper.watch(held["status"], lambda: _settle(keeper, job), 0)
    _open_log(keeper, job)
    keeper.watch_running(job)
    if job.state == "running":
        keeper.health.begin(job)
    if job.notes.get("stdin_once"):
        keeper.after(FORSAKEN, lambda: None if job.attached or keeper.jobs.get(key) is not job else keeper.forsake(job))


def _is_recorded(keeper: Keeper, job: Job, row: Any) -> bool:
    """Whether its end was seen and written before the death."""
    if not job.is_exec:
        return bool(row["status"] in (database.EXITED, database.RESTARTING))
    return keeper.db.execute("SELECT 1 FROM exits WHERE id=?", (job.ident,)).fetchone() is not None


def _settle(keeper: Keeper, job: Job) -> None:
    """The end of the status pipe: it has executed its program; or it ends, and is dealt with then."""
    keeper.unwatch(job.held["status"])
    aborted, failure = job.reports()
    if not aborted and not failure and job.state == "settling":
        keeper.answer_starters(job)
        keeper.let_go(job, "status")


def _open_log(keeper: Keeper, job: Job) -> None:
    """Where somebody has deleted the log's directory, what comes is read and thrown away: the container runs on."""
    if job.is_exec:
        return
    try:
        job.open_log(keeper.store, keeper.logs)
    except Error as error:
        note(f"{job.key}: {error}")
        job.orphaned = True


def _adopt_lost(keeper: Keeper, row: Any) -> None:
    """Both processes had died: find it by pid and start time, take its output again where it still is ours; or it
    has ended."""
    ident = row["id"]
    job = Job(ident, _read_plan(keeper, ident), keeper.held.setdefault(ident, {}), row["attempt"])
    job.pid = row["pid"]
    try:
        if row["boot"] != keeper.boot:
            raise ProcessLookupError(3, "another boot")
        pidfd = open_process(row["pid"], row["start_time"])
    except OSError:
        delay = keeper.restarting.wanted(job, -1) if row["boot"] == keeper.boot else None
        reason = "exit status unknown: it ended while no cloche process was running"
        record_end(keeper.db, job, -1, reason, delay is not None)
        keeper.forget(job)
        if delay is not None:
            keeper.restarting.again(ident, delay, job)
        return
    keeper.jobs.add(job)
    keeper.put(ident, pidfd=pidfd, **_outputs_again(keeper, row))
    hold_ports(keeper, job, _ports_again(job))
    _open_log(keeper, job)
    job.state = "running"
    keeper.watch_running(job)
    keeper.health.begin(job)


def hold_ports(keeper: Keeper, job: Job, ports: dict[str, int]) -> None:
    """The sockets of published ports, here and at the holder, a message's worth at a time."""
    names = list(ports)
    for at in range(0, len(names), 60):
        keeper.put(job.key, **{name: ports[name] for name in names[at : at + 60]})


def _ports_again(job: Job) -> dict[str, int]:
    """The sockets that reserve its ports; one that was taken meanwhile is still led to the container by the rules."""
    found: dict[str, int] = {}
    for _, step in job.plan.host if job.plan else ():
        if isinstance(step, ReservePort):
            try:
                found[step.made.name] = reserve(step.address, step.protocol, step.port)
            except OSError as error:
                note(f"{job.key}: {step.name()}: {error}")
    return found


def _outputs_again(keeper: Keeper, row: Any) -> dict[str, int]:
    """The reading ends of its pipes, through its own descriptors: the pipes live as long as it has them open."""
    found: dict[str, int] = {}
    for name, number, inode in zip(("out", "err"), (OUT, ERR), row["outputs"].split(","), strict=False):
        path = f"/proc/{row['pid']}/fd/{number}"
        try:
            if str(os.stat(path).st_ino) == inode:
                found[name] = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            note(f"{row['id']}: output cannot be had again: {error}")
    return found


def make_again(keeper: Keeper, job: Job) -> None:
    """It gave up at its gate because a keeper died: undo; who has asked for the start again gets it from the start.

    Raises RecordError; then call again later.
    """
    kill_and_wait(job.held["pidfd"])
    if not job.is_exec and not job.starters and keeper.restarting.interrupted(job):
        return
    record_created(keeper.db, job)
    keeper.forget(job)
    if job.starters and job.content:
        again = Job(job.key, stored.load(job.content), keeper.held.setdefault(job.key, {}), job.attempt)
        again.content, again.starters, again.waiters = job.content, job.starters, job.waiters
        keeper.make(again)
        return
    for client in job.waiters:
        client.answer(ending(job.ident))
