"""kill, delete: signals by handles that cannot come to mean another process; and everything taken back."""

from __future__ import annotations

import os

from cloche.errors import Conflict, Error, NotFound
from cloche.kernel import pidfd, processes
from cloche.kernel.pidfd import KILL, open_pid, open_process
from cloche.kernel.signalnames import signal_number
from cloche.runtime.oci.state import CREATED, CREATING, STOPPED, Directory, around_pid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.runtime.oci.call import Call
    from cloche.runtime.oci.state import Record


def kill(call: Call) -> None:
    """Send a signal to the first process, or to all. Raises NotFound, Conflict, Invalid, Error."""
    number = signal_number(call.given.arguments[1] if len(call.given.arguments) > 1 else "TERM")
    place = Directory(call.root, call.id)
    record = place.record()
    what = f"kill container {call.id}"
    if call.given.flag("all"):
        if not _signal_all(record, number):
            raise Conflict(what, "container not running")
    else:
        pid, started = place.process()
        if not pid or not processes.lives(pid, started):
            raise Conflict(what, "container not running")
        try:
            handle = open_process(pid, started)
        except ProcessLookupError:
            raise Conflict(what, "container not running") from None
        try:
            _send(handle, number)
        except OSError as error:
            raise Error(what, error.errno or 5) from error
        finally:
            os.close(handle)
    if number == KILL:
        _thaw(place)


def _send(handle: int, number: int) -> None:
    import _signal  # type: ignore[import-not-found]

    try:
        _signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        raise Conflict("send a signal", "process already finished") from None


def _groups(record: Record) -> list[str]:
    from cloche.kernel.cgroups import probe_layout

    if not record.cgroups_path:
        return []
    return [h.path + record.cgroups_path for h in probe_layout(all_of_them=True).hierarchies]


def _signal_all(record: Record, number: int) -> int:
    """To everybody in the container's group, by handles; returns to how many."""
    from cloche.kernel.cgroups import processes as inside

    groups = _groups(record)
    told = 0
    for pid in inside(groups[0]) if groups else []:
        try:
            handle = open_pid(pid)
        except ProcessLookupError:
            continue
        try:
            if pid in inside(groups[0]):  # looked at after opening: the handle is of a process of the group's
                _send(handle, number)
                told += 1
        except Conflict:
            continue
        finally:
            os.close(handle)
    return told


def _thaw(place: Directory) -> None:
    """On cgroup v1 even SIGKILL waits for the thaw."""
    from cloche.kernel.freezer import is_frozen, thaw

    group = place.freezer()
    try:
        if group and is_frozen(group):
            thaw(group)
    except OSError as error:
        if error.errno not in (2, 19):  # its group is gone, and so is everybody
            raise


def delete(call: Call) -> None:
    """Remove a container that has ended, or with --force any. Raises NotFound, Conflict, Error."""
    force = call.given.flag("force")
    try:
        with Directory(call.root, call.id) as place:
            status = place.status()
            if status not in (STOPPED, CREATED, CREATING) and not force:
                cause = f"it is {status}: cannot delete container {call.id} that is not stopped"
                raise Conflict(f"delete container {call.id}", cause, "kill it first, or --force")
            remove(place, call.warn)
    except NotFound:
        if not force:
            raise


def remove(place: Directory, warn: Callable[[str], None]) -> None:
    """Kill what is left, take everything back, run the hooks that come after. Raises Error."""
    try:
        record = place.record()
    except NotFound:
        record = None
    take_down(place)
    if record and record.hooks:
        poststop(place, record, warn)
    place.remove()


def take_down(place: Directory) -> None:
    """End the processes, undo the plan; the directory stays. Raises Error."""
    pid, started = place.process()
    if pid and processes.start_time(pid) == started:
        _thaw(place)
        kill_and_wait(pid, started)
    plan = place.undo_plan()
    problems = plan.undo() if plan else []
    if problems:
        raise Error(f"take down container {place.id}", problems[0].errno or 5, str(problems[0].filename or "")) from (
            problems[0]
        )


def kill_and_wait(pid: int, started: int) -> None:
    """SIGKILL, and wait until it is gone or a zombie; reap it where it is ours."""
    try:
        handle = open_process(pid, started)
    except ProcessLookupError:
        return
    try:
        pidfd.kill_and_wait(handle)
    finally:
        os.close(handle)
    try:
        os.waitpid(pid, os.WNOHANG)  # where it is our own child
    except ChildProcessError:
        pass


def poststop(place: Directory, record: Record, warn: Callable[[str], None]) -> None:
    """Hooks of which none stops the others (config.md, Poststop)."""
    from cloche.oci.config import parse
    from cloche.step.hook import run

    before, after = around_pid(record, STOPPED)
    for hook in parse(place.read("config.json")).hooks.poststop:
        try:
            run(hook, f"{before}0{after}".encode())
        except OSError as error:
            warn(f"run the poststop hook {hook.path}: {error.strerror}")
