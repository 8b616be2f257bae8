"""exec: one more process in a container that runs, in its namespaces, its groups, behind its filter."""

from __future__ import annotations

import os

from cloche.errors import Conflict, Error, Invalid
from cloche.kernel.cgroups import habitable
from cloche.oci.config import ID_MAX, parse, parse_process
from cloche.oci.document import parse_object
from cloche.oci.runtime import Namespace
from cloche.plan.bundle import Joining, Listener
from cloche.plan.container import plan_joining
from cloche.runtime.bell import Bell
from cloche.runtime.execution import Execution, StepFailed, explain
from cloche.runtime.oci import bundle as bundles
from cloche.runtime.oci import handing
from cloche.runtime.oci.state import CREATED, PAUSED, RUNNING, Directory, around_pid
from cloche.step.base import Ref
from cloche.step.host import probe
from cloche.step.scheduling import bits
from cloche.step.stored import stored

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.oci.runtime import Process, Spec
    from cloche.runtime.oci.call import Call
    from cloche.runtime.oci.state import Record
    from cloche.step.host import Host


def execute(call: Call) -> int:
    """The exit status: the process's own, or 0 when it is detached. Raises Error."""
    given = call.given
    place = Directory(call.root, call.id)
    record = place.record()
    host = probe(all_controllers=True)
    status = place.status()
    if status == PAUSED and given.flag("ignore-paused"):
        _await_thaw(place)
    elif status not in (RUNNING, CREATED):
        raise Conflict(f"execute in container {call.id}", f"cannot exec in a {status} container")
    spec = parse(place.read("config.json"))
    process = _process(call, spec)
    bundles.check_labels(process)
    detached = given.flag("detach")
    socket = given.text("console-socket")
    if process.terminal and detached and not socket:
        raise Invalid("a terminal", "there is nobody to have its other end", "--console-socket, or no --detach")
    if process.cpu_affinity.initial:  # until it is in the group: what we do for it, we do there
        os.sched_setaffinity(0, _cpus(process.cpu_affinity.initial))
    joining = _joining(call, place, record, spec, process, host)
    if detached:
        pid, _ = _execute(call, place, joining, host, socket)
        handing.write_pid(given.text("pid-file"), pid)
        return 0
    from cloche.runtime.oci.running import forwarded, stay

    with forwarded() as caught:
        pid, terminal = _execute(call, place, joining, host, socket)
        handing.write_pid(given.text("pid-file"), pid)
        return stay(pid, caught, terminal)


def _await_thaw(place: Directory) -> None:
    """Joining a frozen group would freeze us half-way."""
    from time import sleep

    while place.status() == PAUSED:
        sleep(0.01)  # a frozen group of cgroup v1 tells nobody when it is thawed


def _process(call: Call, spec: Spec) -> Process:
    """From the file, or the container's own with what the options change. Raises Invalid, Error."""
    given = call.given
    path = given.text("process")
    if path:
        try:
            with open(path, "rb") as file:
                content = file.read()
            process = parse_process(content)
            named = parse_object(content, "read process.json").has("capabilities")
        except OSError as error:
            raise Error(f"read {path}", error.errno or 5) from error
        if given.flag("tty"):
            process = process.replace(terminal=True)
        if not named:  # what the file does not say is as the container's first process has it
            process = process.replace(capabilities=spec.process.capabilities)
    else:
        process = _changed(call, spec.process)
    process = process.replace(env=process.env + handing.variables(call.environment))
    return bundles.settle_process(process, call.warn)


def _changed(call: Call, process: Process) -> Process:
    given = call.given
    if len(given.arguments) < 2:
        raise Invalid("exec", "no command specified", "cloche-oci exec ID COMMAND, or --process FILE")
    user = process.user
    if text := given.text("user"):
        uid, _, gid = text.partition(":")
        if not _is_id(uid) or (gid and not _is_id(gid)):
            raise Invalid(f"--user {text}", "expected UID or UID:GID")
        user = user.replace(uid=int(uid), gid=int(gid or 0))
    more = given.many("additional-gids")
    if not all(_is_id(gid) for gid in more):
        raise Invalid(f"--additional-gids {','.join(more)}", "expected numbers")
    user = user.replace(additional_gids=(*user.additional_gids, *(int(gid) for gid in more)))
    sets = process.capabilities
    if added := given.many("cap"):
        new = {n: tuple(dict.fromkeys((*getattr(sets, n), *added))) for n in ("bounding", "effective", "permitted")}
        sets = sets.replace(**new)
    return process.replace(
        args=given.arguments[1:],
        env=(*process.env, *given.many("env")),
        cwd=given.text("cwd") or process.cwd,
        user=user,
        terminal=given.flag("tty"),
        capabilities=sets,
        no_new_privileges=given.flag("no-new-privs") or process.no_new_privileges,
        apparmor_profile=given.text("apparmor") or process.apparmor_profile,
        selinux_label=given.text("process-label") or process.selinux_label,
    )


def _cpus(text: str) -> set[int]:
    mask = int.from_bytes(bits(text), "little")
    return {number for number in range(mask.bit_length()) if mask >> number & 1}


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 11 and int(text) <= ID_MAX


def _joining(call: Call, place: Directory, record: Record, spec: Spec, process: Process, host: Host) -> Joining:
    pid, started = place.process()
    kinds = tuple(Namespace(kind) for kind in record.namespaces)
    path = habitable(host.cgroups, record.cgroups_path, pid)
    for wanted in call.given.many("cgroup"):
        if ":" in wanted:
            raise Invalid(f"--cgroup {wanted}", "a group of one controller is not built", "give a path alone")
        path = bundles.group(f"{record.cgroups_path}/{wanted.strip('/')}", "")
    if process.oom_score_adj is None:
        process = process.replace(oom_score_adj=spec.process.oom_score_adj)
    listener = None
    if spec.seccomp and bundles.notifies(spec):
        around = around_pid(record, place.status())
        profile = spec.seccomp
        listener = Listener(profile.listener_path, profile.listener_metadata, around, pid)
    return Joining(
        place.id,
        process,
        pid,
        started,
        kinds,
        path,
        *place.filter(),
        passed=handing.count(call.given, call.environment, call.inherited),
        listener=listener,
        root="" if "mount" in record.namespaces else record.rootfs,
        personality=spec.personality,
        memory_policy=spec.memory_policy,
    )


def _execute(call: Call, place: Directory, wanted: Joining, host: Host, socket: str) -> tuple[int, int]:
    """Its pid, and the terminal's other end, or -1. Raises Error."""
    whole = plan_joining(wanted, host)
    terminal = -1
    bell = Bell()
    try:
        with Execution(
            stored(whole, handing.flat(whole), {}), bell, (0, 1, 2), handing.passed(wanted.passed)
        ) as making:
            try:
                while token := making.advance():
                    making.wait()
                    if token == "cloned":
                        os.waitpid(making.stage, 0)
                        if path := call.given.text("pidfd-socket"):
                            handing.send(path, making.take(Ref("pidfd")), "pidfd")
                    elif token == "ready" and wanted.process.terminal:
                        terminal = making.release("terminal.host")
                        if socket:
                            handing.send(socket, terminal, "/dev/ptmx")
                            os.close(terminal)
                            terminal = -1
            except StepFailed as problem:
                raise explain(whole, problem.failure) from None
            finally:
                making.close()
            return making.pid, terminal
    finally:
        bell.close()
