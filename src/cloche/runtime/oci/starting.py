"""start: the gate is opened, and what the container's side says until its program runs is heard.

The end of the status fifo's writers is the sign: descriptors that close at exec are closed by exec's success, and by
the process's end. Which of the two it was is told by what had been written before.
"""

from __future__ import annotations

import os

from cloche.errors import Conflict, Error, NotFound
from cloche.kernel.pidfd import open_process
from cloche.runtime.bell import STARTED, parse
from cloche.runtime.execution import explain_step
from cloche.runtime.oci.ending import remove
from cloche.runtime.oci.state import CREATED, RUNNING, STOPPED, Directory, around_pid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.runtime.oci.call import Call
    from cloche.runtime.oci.state import Record

_REPORTS_MOST = 1 << 16


class HookFailed(Exception):
    """A hook of the start's did not succeed; `error` says which and why."""

    def __init__(self, error: Error) -> None:
        super().__init__(error)
        self.error = error


def start(call: Call) -> None:
    """Execute the program of a created container. Raises NotFound, Conflict, Error."""
    with Directory(call.root, call.id) as place:
        record = place.record()
        heard = _heard(place)
        status = place.status() if heard is None else CREATED
        if status == RUNNING:
            raise Conflict(f"start container {call.id}", "cannot start an already running container")
        if status != CREATED:
            hint = "delete it, and create it again" if status == STOPPED else ""
            raise Conflict(f"start container {call.id}", f"cannot start a container that is {status}", hint)
        try:
            judge(place, open_gate(place) if heard is None else heard)
            if record.hooks:
                _poststart(place, record)
        except HookFailed as problem:  # it is stopped, and deleted: runtime.md, Lifecycle, steps 7, 9 and 12
            remove(place, call.warn)
            raise problem.error from None


def _heard(place: Directory) -> bytes | None:
    """What the quick form of the command was told by a start that failed (oci.c)."""
    try:
        content = place.read("reports")
    except NotFound:
        return None
    os.unlink(place.at("reports"))
    return content


def open_gate(place: Directory) -> bytes:
    """Let the container go on, and wait until its program runs. Returns what was reported. Raises OSError."""
    import select

    # before the gate is open: what fails behind it may be gone, and reaped by its parent, a moment later
    handle = open_process(*place.process())
    reports = os.open(place.at("status"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        gate = os.open(place.at("start"), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(gate, b"x")
        finally:
            os.close(gate)
        poll = select.poll()
        poll.register(reports, 0)
        poll.register(handle, select.POLLIN)  # one that dies just now may have closed the fifo before we opened it
        poll.poll()
        return os.read(reports, _REPORTS_MOST)
    finally:
        os.close(reports)
        os.close(handle)


def judge(place: Directory, reports: bytes) -> None:
    """Whether the program runs, by what was reported. Raises Error, HookFailed."""
    records, failure = parse(reports)
    if failure:
        from cloche.document import loads

        steps = loads(place.read("steps"))
        kind, name = steps["named"].get(str(failure.number), ("", "start"))
        error = explain_step(kind, name, f"step {failure.number} of {steps['count']}, {name}", failure)
        raise HookFailed(error) if kind == "RunHookInside" else error
    if not any(record[0] == STARTED for record in records):
        raise Error(f"start container {place.id}", "it ended before its program was executed", "was it killed?")


def _poststart(place: Directory, record: Record) -> None:
    """After the program was executed; one that fails ends the container (config.md, Poststart, since 1.3)."""
    from cloche.oci.config import parse as parse_config
    from cloche.step.hook import run

    before, after = around_pid(record, RUNNING)
    pid, _ = place.process()
    for hook in parse_config(place.read("config.json")).hooks.poststart:
        try:
            run(hook, f"{before}{pid}{after}".encode())
        except OSError as error:
            cause = getattr(error, "sentence", "") or error.errno or 5
            raise HookFailed(Error(f"run the poststart hook {hook.path}", cause)) from error
