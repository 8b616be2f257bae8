"""The keeper: makes containers, copies their output, reaps them, records their ends. One for a store.

Its loop never waits for one container: bell works in another process, output is spliced in bounded pieces. Whatever it
may lose by being killed is held by the holder or written in the database. What clients ask is in engine.answers.

A create: descriptors to the holder, clone, pidfd to the holder, record, gate. An end: drain, record, undo, reap, drop.
"""

from __future__ import annotations

import fcntl
import os
import select
from errno import EMFILE, ENFILE
from time import monotonic

from cloche.engine import database, protocol, streams
from cloche.engine.answers import GIVEN_UP, OPS, Client, answer_start, elsewhere, ending
from cloche.engine.health import Health
from cloche.engine.holder import Held, HolderGone, child_status, drop, leave, note, reap
from cloche.engine.job import Job, Jobs
from cloche.engine.loop import Loop
from cloche.engine.nameserver import NameServer
from cloche.engine.openlogs import OpenLogs
from cloche.engine.records import RecordError, record_created, record_end, record_running
from cloche.engine.recovery import adopt, hold_ports, make_again
from cloche.engine.restarting import Restarting
from cloche.engine.settling import Settling, take_down
from cloche.engine.store import write_whole
from cloche.engine.tidying import Tidying
from cloche.errors import Error, said
from cloche.kernel.netlink import close_shared
from cloche.kernel.pidfd import KILL, kill_and_wait
from cloche.kernel.pipes import at_end
from cloche.kernel.processes import boot_id, start_time
from cloche.runtime.bell import Bell
from cloche.runtime.execution import Execution, StepFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any

    from cloche.engine.store import Store
    from cloche.runtime.bell import Failure

RETRY = 0.5  # seconds between tries of a log that has no room
REFUSED = 128  # the exit code of a restart that could not be made, as of a start with docker


class Keeper(Loop):
    """State of the loop. `held` is shared with the holder's life of this process."""

    def __init__(self, store: Store, held: Held, holder: _socket.socket, listening: int, linger: float) -> None:
        self.store, self.held, self.holder, self.linger = store, held, holder, linger
        self.db = database.connect(store)
        self.bell = Bell()
        self.boot = boot_id()
        self.home = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "net")}
        self.jobs = Jobs()
        self.clients: dict[int, Client] = {}
        super().__init__()
        self.idle_since = monotonic()
        self.tidying = Tidying(store, self.db, self.after)
        self.settling = Settling(store, self.after)
        self.names = NameServer(self)
        self.restarting = Restarting(self)
        self.health = Health(self)
        self.logs = OpenLogs()
        import socket

        self.listening = socket.socket(fileno=os.dup(listening))
        self.listening.setblocking(False)
        self.watch(holder.fileno(), self.holder_spoke)
        self.watch(self.listening.fileno(), self.accept)

    # -- the loop

    def run(self) -> None:
        """Until nobody needs a keeper any more. Raises HolderGone."""
        while True:
            self.call_ready(self.poll.poll(self.patience()))
            at = self.call_due()
            if self.jobs or self.clients:
                self.idle_since = at
            elif at - self.idle_since >= self.linger:
                self.end()

    def patience(self) -> float:
        """Seconds until something is due."""
        times = [self.later[0][0]] if self.later else []
        if not self.jobs and not self.clients:
            times.append(self.idle_since + self.linger)
        return max(0.0, min(times) - monotonic()) if times else -1

    def end(self) -> None:
        """End both processes, unless somebody is just starting us; the host is as it was before."""
        lock = os.open(self.store.run + "/keeper/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            self.idle_since = monotonic()
            return
        self.bell.close()  # its process too is in our control groups
        try:
            self.names.end()
            self.settling.end()
            take_down(self.store)
        except OSError as error:
            note(f"take the networks down: {error}")
        try:
            self.tell({"op": "end"}, (lock,))
            protocol.receive(self.holder)  # its end-of-file: it has the lock, or is dead
        except (HolderGone, OSError):
            pass
        leave(self.store)
        os._exit(0)

    def close(self) -> None:
        """Let go of all that is this keeper's, before it becomes the holder."""
        for job in self.jobs:
            job.close()
        for client in self.clients.values():
            client.sock.close()
        self.listening.close()
        self.poll.close()
        self.db.close()
        self.bell.close()
        close_shared()

    # -- the holder

    def tell(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """To the holder, no answer awaited."""
        try:
            protocol.send(self.holder, message, fds)
        except ConnectionError as error:
            raise HolderGone from error

    def holder_spoke(self) -> None:
        """It speaks only when asked; this is its end."""
        raise HolderGone

    def put(self, key: str, **fds: int) -> None:
        """Hold these descriptors here and there."""
        self.held.setdefault(key, {}).update(fds)
        self.tell({"op": "put", "key": key, "names": list(fds)}, tuple(fds.values()))

    def status_of_holders_child(self, key: str) -> int | None:
        """The exit status of a child that fell to the holder."""
        self.tell({"op": "status", "key": key})
        message, _ = protocol.receive(self.holder)
        if message is None:
            raise HolderGone
        return message["status"]  # type: ignore[no-any-return]

    # -- clients

    def accept(self) -> None:
        """A new client; of another user than ours or root, it is none."""
        import socket
        from struct import unpack

        try:
            sock, _ = self.listening.accept()
        except OSError as error:
            if error.errno in (EMFILE, ENFILE):  # it waits in the queue: asked at once, we would do no more
                note(f"accept a client: {error}")
                self.unwatch(self.listening.fileno())
                self.after(RETRY, lambda: self.watch(self.listening.fileno(), self.accept))
            return
        pid, uid, _ = unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, os.geteuid()):
            sock.close()
            return
        sock.setblocking(True)
        client = Client(sock, elsewhere(self.home, pid))
        self.clients[sock.fileno()] = client
        self.watch(sock.fileno(), lambda: self.request(client))

    def request(self, client: Client) -> None:
        """One message of a client; nonsense ends the connection."""
        fds: list[int] = []
        self.tidying.asked = monotonic()
        try:
            message, fds = protocol.receive(client.sock, protocol.DONTWAIT)
            if message is None:
                self.leave(client)
                return
            OPS[message["op"]](self, client, message, fds)
        except BlockingIOError:
            return
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, ConnectionError) as error:
            client.answer({"error": f"bad request: {error!r}"})
            self.leave(client)
        except (OSError, Error, RecordError) as error:
            client.answer({"error": said(error)})
        finally:
            for fd in fds:
                os.close(fd)

    def leave(self, client: Client) -> None:
        """The connection has ended."""
        fd = client.sock.fileno()
        if self.clients.pop(fd, None):
            self.unwatch(fd)
            client.sock.close()
        for ident in client.idents:
            job = self.jobs.of(ident)
            if job is None:
                continue
            job.leave(client)
            if client in job.attached:
                job.attached.remove(client)
                if not job.attached:
                    self.forsake(job)

    def forsake(self, job: Job) -> None:
        """The last attached client is gone: stdin ends where it was for one client only, an exec's output goes
        nowhere."""
        if job.notes.get("stdin_once"):
            self.let_go(job, "input")
        if job.is_exec:
            job.orphaned = True
            for name in ("out", "err", "master"):
                if name in job.held and job.state == "running":
                    os.set_blocking(job.held[name], False)  # it is ours alone now
                    self.watch_output(job, name)

    def let_go(self, job: Job, name: str) -> None:
        """Close what is held by this name (`input`: our end of the container's stdin), here and at the holder."""
        if name in job.held:
            self.tell({"op": "close", "key": job.key, "name": name})
            os.close(job.held.pop(name))

    # -- making

    def make(self, job: Job) -> None:
        """Begin to execute the plan, which is on disk before anything of it is done."""
        self.jobs.add(job)
        stdio: tuple[int, ...] = ()
        try:
            if not job.is_exec:
                self.settling.hurry(job.key)
                write_whole(self.store.plan(job.key), job.content)
                self.restarting.keep(job)
            stdio, ours = streams.open_streams(job.notes, job.is_exec and not job.is_probe)
            if ours:
                self.put(job.key, **ours)
            assert job.plan is not None
            job.making = Execution(job.plan, self.bell, stdio)
            self.go_on(job)
        except StepFailed as problem:
            self.fail(job, problem.failure)
        except (OSError, Error) as error:  # no descriptors left, no room for the log, ...
            self.give_up(job, {"error": said(error)})
        finally:
            for fd in stdio:
                os.close(fd)

    def go_on(self, job: Job) -> None:
        """The host's next steps, then wait for bell. Raises StepFailed."""
        making = job.making
        assert making is not None
        token = making.advance()
        if token:
            self.watch(making.fileno(), lambda: self.bell_spoke(job), 0 if token == "started" else select.EPOLLIN)
            if making.overtaken():
                self.bell_spoke(job)
        else:
            self.started(job)

    def bell_spoke(self, job: Job) -> None:
        """What was waited for is there."""
        making = job.making
        assert making is not None
        waited = making.fileno()
        try:
            if not making.receive():
                return
            self.unwatch(waited)
            if making.pid and "pidfd" not in job.held:
                job.pid = making.pid
                self.put(job.key, pidfd=making.release("pidfd"), status=os.dup(making.status))
                if job.unwanted:
                    self.give_up(job, GIVEN_UP)
                    return
                hold_ports(self, job, making.release_ports())
                self.prepare(job)  # while init is at work
            elif job.state == "making":
                self.let_run(job)
            self.go_on(job)
        except StepFailed as problem:
            self.unwatch(waited)
            self.fail(job, problem.failure)
        except (Error, RecordError) as error:
            self.give_up(job, {"error": said(error)})

    def prepare(self, job: Job) -> None:
        """What is needed when it runs and can be had before. Raises Error."""
        job.start_time = start_time(job.pid)
        if not job.is_exec:
            job.open_log(self.store, self.logs)

    def let_run(self, job: Job) -> None:
        """Before the gate: everything that another keeper needs is held or written."""
        making = job.making
        assert making is not None
        if job.notes["tty"]:
            self.put(job.key, master=making.release("terminal.host"))
        self.names.serve_for(job)
        record_running(self.db, job, self.boot)
        job.state = "running"
        self.watch_running(job)

    def watch_running(self, job: Job) -> None:
        """Output and end of a process that runs, or is about to."""
        for name in ("out", "err", "master"):
            if name in job.held and not (job.is_exec and not job.orphaned):
                self.watch_output(job, name)
        self.watch(job.held["pidfd"], lambda: self.finish(job))

    def started(self, job: Job) -> None:
        """The user's program runs."""
        making = job.making
        assert making is not None
        os.waitpid(making.stage, 0)  # it has ended long ago, after its report
        self.answer_starters(job)
        making.close()
        job.making = None
        self.let_go(job, "status")  # it has said all that it has to say
        self.watch(job.held["pidfd"], lambda: self.finish(job))

    def answer_starters(self, job: Job) -> None:
        """It runs, or has run already."""
        job.state = "running"
        for client in job.starters:
            answer_start(job, client)
        job.starters.clear()
        self.health.begin(job)

    def fail(self, job: Job, failure: Failure) -> None:
        """A step was refused."""
        self.give_up(job, {"failure": [failure.number, failure.errno, failure.detail]})

    def give_up(self, job: Job, answer: dict[str, Any]) -> None:
        """It could not be started: nothing stays."""
        making, job.making = job.making, None
        if making:
            making.close()
            for pid in (making.stage, 0 if "pidfd" in job.held else making.pid):
                if pid:
                    os.kill(pid, 9)  # our child and not yet waited for: the pid is its
                    os.waitpid(pid, 0)
        code = REFUSED
        if "pidfd" in job.held:
            self.unwatch(job.held["pidfd"])
            if child_status(job.held["pidfd"]) == -KILL:
                code = 128 + KILL  # somebody was faster
            kill_and_wait(job.held["pidfd"])
        self._refused(job, answer, code)

    def _refused(self, job: Job, answer: dict[str, Any], code: int) -> None:
        """Nothing of it runs: record that, undo, and tell; a policy may make it again."""
        reason, delay = job.cause(answer), None
        try:
            if job.again:
                delay = self.restarting.failed(job, code, reason)
            else:
                record_created(self.db, job)
        except RecordError as error:
            note(f"{job.key}: {error}")
            self.after(RETRY, lambda: self._refused(job, answer, code))
            return
        if job.again:
            self.ended(job, code, reason, delay, ran=False)
            return
        self.forget(job)
        if job.is_probe:
            self.health.refused(job, answer)
            return
        for client in job.starters:  # now that nothing is left
            client.answer(answer)
            if job.unwanted:
                client.answer({"ok": True, "cancelled": True})
        for client in job.waiters:
            client.answer(ending(job.ident))

    # -- running and ending

    def watch_output(self, job: Job, name: str) -> None:
        """Splice whenever there is something."""
        fd = job.held[name]
        self.watch(fd, lambda: self.output(job, name, fd))

    def output(self, job: Job, name: str, fd: int) -> None:
        """One bounded piece; at end-of-file no more; without room later again."""
        from cloche.runtime.log import Stalled

        try:
            if name == "master":
                if not job.pump():
                    self.unwatch(fd)  # nobody has it open (EIO), or its pipe is full: looked at again in a moment
                    self.after(0.05, lambda: self.again(job, name))
            elif not job.take(name) and at_end(fd):
                self.unwatch(fd)
        except Stalled as problem:
            note(f"{job.key}: {problem}")
            self.unwatch(fd)
            self.after(RETRY, lambda: self.again(job, name))

    def again(self, job: Job, name: str) -> None:
        """Watch an output again, when its process still is ours."""
        if self.jobs.get(job.key) is job and name in job.held:
            self.watch_output(job, name)

    def finish(self, job: Job) -> None:
        """The process has ended: drain, record, undo, reap, drop. Where the log has no room, later."""
        from cloche.runtime.log import Stalled

        if self.jobs.get(job.key) is not job:
            return
        pidfd = job.held["pidfd"]
        if job.making:
            try:
                if not job.making.receive():  # the stage still has the status pipe open: its end brings us back here
                    self.unwatch(pidfd)
                    return
            except StepFailed as problem:
                self.unwatch(job.making.fileno())
                self.fail(job, problem.failure)
                return
            self.unwatch(job.making.fileno())
            self.started(job)
        self.unwatch(pidfd)
        aborted, failure = job.reports()
        if failure and not aborted:
            self.fail(job, failure)
            return
        try:
            if aborted or job.state == "aborting":
                make_again(self, job)
                return
            if job.state == "settling":
                self.answer_starters(job)
            job.drain()
            code, reason = job.exit_code(lambda: self.status_of_holders_child(job.key))
            delay = self.restarting.wanted(job, code)
            record_end(self.db, job, code, reason, delay is not None)
        except (Stalled, RecordError) as error:
            note(f"{job.key}: {error}")
            self.after(RETRY, lambda: self.finish(job))
            return
        self.ended(job, code, reason, delay)

    def ended(self, job: Job, code: int, reason: str, delay: float | None, ran: bool = True) -> None:
        """Its end is recorded: undo and drop; it is made again after `delay` seconds, or who waits is told. ran: its
        program was executed."""
        wakes, job.wakes = (job.wakes, []) if delay is not None else ([], job.wakes)
        self.forget(job, ended=ran)
        if job.is_probe:
            self.health.ended(job, code)
            return
        self.health.end(job.key)
        if delay is not None:
            self.restarting.again(job.key, delay, job, wakes)
            return
        for client in job.waiters:
            client.answer(ending(job.ident, code, reason))

    def forget(self, job: Job, ended: bool = False) -> None:
        """Undo the plan, reap, drop; remove what shall not stay. ended: it has run, and so may have many others."""
        for fd in job.held.values():
            self.unwatch(fd)
        job.close()
        (self.settling.ended if ended else self.settling.undo)(job.key, job.plan)
        if "pidfd" in job.held:
            reap(job.held["pidfd"])
        self.tell({"op": "drop", "key": job.key})
        if "port0" in job.held:
            self.status_of_holders_child("")  # answered behind the drop: who hears of the end finds the ports free
        drop(self.held, job.key)
        self.jobs.remove(job)
        if job.notes.get("remove"):
            self.tidying.remove(job.key)
        elif job.notes.get("log_passes"):
            self.tidying.throw_log_away(job.key)


def keep(store: Store, held: Held, holder: _socket.socket, listening: int, linger: float) -> None:
    """Be the keeper. Raises HolderGone when this process must become the holder."""
    keeper = Keeper(store, held, holder, listening, linger)
    try:
        adopt(keeper)
        keeper.run()
    finally:
        keeper.close()
