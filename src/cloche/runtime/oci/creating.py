"""create, run: a container from a bundle, up to the gate where it waits for its start.

    directory (0700, locked) -> record, undo plan, fifos -> the plan's steps -> process -> pid file

Each is there before what it is needed for, so that whatever is killed in between, `delete --force` finds all there is.
The first process is our child until we end; then it is the child of whoever is our subreaper.
"""

from __future__ import annotations

import os
import time

from cloche.errors import Conflict, Invalid
from cloche.kernel import processes
from cloche.kernel.freezer import freezer_of
from cloche.plan import plan
from cloche.plan.bundle import Listener
from cloche.runtime.bell import DONE, Bell
from cloche.runtime.execution import Execution, StepFailed, explain
from cloche.runtime.oci import bundle as bundles
from cloche.runtime.oci import handing
from cloche.runtime.oci.state import CREATING, SPEC_VERSION, Directory, Record, around_pid
from cloche.step.base import Plan, Ref, Step
from cloche.step.cgroup import MakeCgroup
from cloche.step.host import Host, probe
from cloche.step.stored import dump, stored
from cloche.step.sync import WaitForStart
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.oci.runtime import Hooks, Spec
    from cloche.plan.bundle import Bundle
    from cloche.runtime.oci.call import Call


class Made(Value):
    """A container that waits: its first process, and the terminal's other end where nobody else has been given it."""

    pid: int
    terminal: int = -1


def create(call: Call, foreground: bool = False) -> Made:
    """Make a container that waits to be started. Raises Error."""
    given = call.given
    folder = os.path.abspath(given.text("bundle", "."))
    content, document = bundles.read(folder)
    _check_console(document, given.text("console-socket"), foreground)
    with Directory.create(call.root, call.id) as place:
        try:
            place.write("config.json", content)
            made = _make(call, place, document, folder)
            handing.write_pid(given.text("pid-file"), made.pid)
            place.write("made", b"")
        except BaseException:
            _give_up(call, place, document.hooks)
            raise
    return made


def _check_console(spec: Spec, socket: str, foreground: bool) -> None:
    if spec.process.terminal and not socket and not foreground:
        cause = "there is nobody to have the terminal's other end"
        raise Invalid("process.terminal", cause, "--console-socket, or terminal: false")
    if socket and not spec.process.terminal:
        raise Invalid("--console-socket", "the process has no terminal", "process.terminal: true")


def _make(call: Call, place: Directory, document: Spec, folder: str) -> Made:
    host = probe(all_controllers=True)
    root = bundles.rootfs(document, folder)
    spec = bundles.settle(document, folder, place.id, call.warn)
    process = spec.process.replace(env=spec.process.env + handing.variables(call.environment))
    spec = spec.replace(process=process)
    program = bundles.filter_of(spec, call.root, host)
    hooks = spec.hooks
    record = Record(
        SPEC_VERSION,
        place.id,
        folder,
        root,
        _now(),
        _owner(),
        spec.annotations,
        spec.cgroups_path if host.cgroups.hierarchies else "",
        tuple(namespace.type for namespace in spec.namespaces),
        bool(hooks.poststart or hooks.poststop),
    )
    place.keep(record, freezer_of(host.cgroups, record.cgroups_path) if record.cgroups_path else "")
    if program[0]:
        place.write("filter", program[1].to_bytes(4, "little") + program[0])
    number = handing.count(call.given, call.environment, call.inherited)
    made = bundles.bundle_of(place.id, spec, root, program).replace(
        created=True,
        state=around_pid(record, CREATING),
        passed=number,
        keyring=not call.given.flag("no-new-keyring"),
        pivot=not call.given.flag("no-pivot"),
    )
    if spec.seccomp and bundles.notifies(spec):
        agent = Listener(spec.seccomp.listener_path, spec.seccomp.listener_metadata, made.state)
        made = made.replace(listener=agent)
    _check_group(record, host)
    return _execute(call, place, made, host)


def _execute(call: Call, place: Directory, bundle: Bundle, host: Host) -> Made:
    """The plan, with what is done at its tokens. Raises Error."""
    whole = plan(bundle, host)
    kept = stored(whole, handing.flat(whole), {})
    undone = _undone(whole)
    place.write("undo", dump(kept.replace(flat=b"", host=undone)))
    groups = [step.path for _, step in reversed(undone) if isinstance(step, MakeCgroup)]
    if len(groups) == len(undone):
        place.write("groups", "\n".join(groups).encode())
    place.write("steps", _steps_behind_the_gate(whole))
    os.mkfifo(place.at("start"), 0o600)
    os.mkfifo(place.at("status"), 0o600)
    bell = Bell()
    try:
        given = handing.passed(bundle.passed)
        given[Ref("start")] = os.open(place.at("start"), os.O_RDWR | os.O_CLOEXEC)
        reading = os.open(place.at("status"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        writing = os.open(place.at("status"), os.O_WRONLY | os.O_CLOEXEC)
        with Execution(kept, bell, (0, 1, 2), given, (reading, writing)) as making:
            try:
                while token := making.advance():
                    making.wait()
                    _at(token, making, call, place)
            except StepFailed as problem:
                raise explain(whole, problem.failure) from None
            except BaseException:
                making.close()
                raise
            finally:
                _log_steps(call, whole, making)
            kept_open = bundle.spec.process.terminal and not call.given.text("console-socket")
            return Made(making.pid, making.release("terminal.host") if kept_open else -1)
    finally:
        bell.close()


def _log_steps(call: Call, whole: Plan, making: Execution) -> None:
    """With --debug: every step that was done, in the order that it was."""
    for kind, _, number, *_ in sorted(making.records, key=lambda record: record[4]) if call.log.debug else ():
        if kind == DONE:
            call.log.write("debug", f"step {number} of {len(whole.acts)}: {whole.acts[number - 1].step.call()}")


def _at(token: str, making: Execution, call: Call, place: Directory) -> None:
    if token == "cloned":
        place.write("process", f"{making.pid} {processes.start_time(making.pid)}\n".encode())
        os.waitpid(making.stage, 0)
        if socket := call.given.text("pidfd-socket"):
            handing.send(socket, making.take(Ref("pidfd")), "pidfd")
    elif token == "ready" and (socket := call.given.text("console-socket")):
        terminal = making.release("terminal.host")
        try:
            handing.send(socket, terminal, "/dev/ptmx")
        finally:
            os.close(terminal)


def _undone(whole: Plan) -> tuple[tuple[int, Step], ...]:
    """The host's steps that leave something behind."""
    kept = ((n, a.step) for n, a in enumerate(whole.acts, 1) if a.actor == "host")
    return tuple((number, step) for number, step in kept if type(step).undo is not Step.undo)


def _steps_behind_the_gate(whole: Plan) -> bytes:
    """What a start needs to explain a failure: kind and name of each step from the gate on."""
    from cloche.document import dumps

    gate = next(n for n, act in enumerate(whole.acts) if isinstance(act.step, WaitForStart))
    named = {str(n): [type(a.step).__name__, a.step.name()] for n, a in enumerate(whole.acts[gate:], gate + 1)}
    return dumps({"count": len(whole.acts), "named": named}).encode()


def _check_group(record: Record, host: Host) -> None:
    """A group with somebody in it is somebody else's container. Raises Conflict."""
    from cloche.kernel.cgroups import processes as inside

    for hierarchy in host.cgroups.hierarchies:
        path = hierarchy.path + record.cgroups_path
        if record.cgroups_path and os.path.isdir(path) and inside(path):
            raise Conflict(f"make the cgroup {path}", "it is not empty", "another container has this cgroupsPath")


def _give_up(call: Call, place: Directory, hooks: Hooks) -> None:
    """A failed create leaves nothing. Where hooks may have been run, so are those that undo it (runtime.md, 12)."""
    from cloche.runtime.oci import ending

    begun = place.process()[0] and (hooks.prestart or hooks.create_runtime or hooks.create_container)
    try:
        ending.take_down(place)
        if begun:
            ending.poststop(place, place.record(), call.warn)
    finally:
        place.remove()


def _now() -> str:
    from cloche.runtime.timestamp import format_time_short

    return format_time_short(time.time_ns())


def _owner() -> str:
    uid = os.getuid()
    if uid == 0:
        return "root"
    try:
        with open("/etc/passwd", encoding="utf-8", errors="replace") as file:
            return next((line.split(":")[0] for line in file if line.split(":")[2:3] == [str(uid)]), str(uid))
    except OSError:
        return str(uid)
