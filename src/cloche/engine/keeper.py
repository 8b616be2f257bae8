"""The keeper: makes containers, copies their output, reaps them, records their ends, answers clients. One for a store.

Its loop never waits for one container: bell works in another process, output is spliced in bounded pieces, what must be
tried
again has a time. Whatever it may lose by being killed is held by the holder or written in the database; see
engine.holder.

Order of a create: descriptors to the holder, clone, pidfd to the holder, record, gate. Order of an end: drain, record,
undo,
reap, drop. Every part may be done twice.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
from time import monotonic

from cloche.engine import database, protocol
from cloche.engine.holder import Held, HolderGone, drop, reap
from cloche.engine.job import ERR, OUT, Job, now
from cloche.engine.removal import remove_container, sweep
from cloche.errors import Error
from cloche.kernel.pidfd import open_process
from cloche.kernel.processes import boot_id, start_time
from cloche.runtime.bell import DONE, binary, sealed
from cloche.runtime.execution import Execution, StepFailed
from cloche.step import stored

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any, ClassVar

    from cloche.engine.store import Store
    from cloche.runtime.bell import Failure

LINGER = 60.0  # seconds without a container
RETRY = 0.5  # seconds between tries of a log that has no room
FORSAKEN = 10.0  # seconds until the stdin of a container whose client did not come back is closed
SWEEP = 0.5  # seconds after a removal until the trash is looked into: its clients have read the log by then
KEPT_EXITS = 4096


class Client:
    """A connection; `gone` are called at its end."""

    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock
        self.gone: list[Callable[[], None]] = []

    def answer(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Send; a client that is gone is noticed by its end-of-file."""
        try:
            protocol.send(self.sock, message, fds)
        except OSError:
            self.gone.append(lambda: None)


class Keeper:
    """State of the loop. `held` is shared with the holder's life of this process."""

    def __init__(self, store: Store, held: Held, holder: _socket.socket, listening: int) -> None:
        self.store, self.held, self.holder = store, held, holder
        self.db = database.connect(store)
        self.bell = sealed(binary())
        self.boot = boot_id()
        self.jobs: dict[str, Job] = {}
        self.clients: dict[int, Client] = {}
        self.poll = select.epoll()
        self.watched: dict[int, Callable[[], None]] = {}
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.idle_since = monotonic()
        self.untidy = True  # something may be in the trash; it goes when nothing else is to be done
        self.removed = 0  # containers since the last look
        import socket

        self.listening = socket.socket(fileno=os.dup(listening))
        self.listening.setblocking(False)
        self.watch(holder.fileno(), self.holder_spoke)
        self.watch(self.listening.fileno(), self.accept)

    # -- the loop

    def watch(self, fd: int, call: Callable[[], None], events: int = select.EPOLLIN) -> None:
        """Call `call` whenever `fd` is ready."""
        if fd in self.watched:
            self.poll.modify(fd, events)
        else:
            self.poll.register(fd, events)
        self.watched[fd] = call

    def unwatch(self, fd: int) -> None:
        """Stop; harmless when it is not watched."""
        if self.watched.pop(fd, None):
            self.poll.unregister(fd)

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call once, later."""
        self.later.append((monotonic() + seconds, call))

    def run(self) -> None:
        """Until nobody needs a keeper any more. Raises HolderGone."""
        while True:
            ready = self.poll.poll(self.patience())
            if self.untidy and not ready:
                self.untidy = not sweep(self.store)
            for fd, _ in ready:
                if call := self.watched.get(fd):
                    call()
            at = monotonic()
            due = [call for when, call in self.later if when <= at]
            self.later = [(when, call) for when, call in self.later if when > at]
            for call in due:
                call()
            if self.jobs or self.clients:
                self.idle_since = at
            elif at - self.idle_since >= LINGER:
                self.end()

    def patience(self) -> float:
        """Seconds until something is due."""
        if self.untidy:
            return 0
        times = [when for when, _ in self.later]
        if not self.jobs and not self.clients:
            times.append(self.idle_since + LINGER)
        return max(0.0, min(times) - monotonic()) if times else -1

    def end(self) -> None:
        """End both processes, unless somebody is just starting us."""
        lock = os.open(self.store.run + "/keeper/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            self.idle_since = monotonic()
            return
        try:
            os.unlink(self.store.socket)
        except FileNotFoundError:
            pass
        self.tell({"op": "end"})
        os._exit(0)

    def close(self) -> None:
        """Let go of all that is this keeper's, before it becomes the holder."""
        for job in self.jobs.values():
            job.close()
        for client in self.clients.values():
            client.sock.close()
        self.listening.close()
        self.poll.close()
        self.db.close()
        os.close(self.bell)

    # -- the holder

    def tell(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """To the holder, no answer awaited."""
        try:
            protocol.send(self.holder, message, fds)
        except OSError as error:
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
        except OSError:
            return
        _, uid, _ = unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, os.geteuid()):
            sock.close()
            return
        sock.setblocking(True)
        client = Client(sock)
        self.clients[sock.fileno()] = client
        self.watch(sock.fileno(), lambda: self.request(client))

    def request(self, client: Client) -> None:
        """One message of a client; nonsense ends the connection."""
        fds: list[int] = []
        try:
            message, fds = protocol.receive(client.sock)
            if message is None:
                self.leave(client)
                return
            handler = self.OPS[message["op"]]
            handler(self, client, message, fds)
        except (ValueError, KeyError, TypeError, ConnectionError) as error:
            client.answer({"error": f"bad request: {error!r}"})
            self.leave(client)
        except Error as error:
            client.answer({"error": str(error)})
        finally:
            for fd in fds:
                os.close(fd)

    def leave(self, client: Client) -> None:
        """The connection has ended."""
        fd = client.sock.fileno()
        if self.clients.pop(fd, None):
            self.unwatch(fd)
            for call in client.gone:
                call()
            client.sock.close()
        for job in list(self.jobs.values()):
            for group in (job.starters, job.waiters):
                while client in group:
                    group.remove(client)
            if client in job.attached:
                job.attached.remove(client)
                if not job.attached:
                    self.forsake(job)

    def forsake(self, job: Job) -> None:
        """The last attached client is gone: stdin ends where it was for one client only, an exec's output goes
        nowhere."""
        if job.notes.get("stdin_once"):
            self.end_input(job)
        if job.is_exec:
            job.orphaned = True
            for name in ("out", "err"):
                if name in job.held and job.state == "running":
                    self.watch_output(job, name)

    def end_input(self, job: Job) -> None:
        """Close our end of the container's stdin, here and at the holder."""
        if "input" in job.held:
            os.close(job.held.pop("input"))
            self.tell({"op": "put", "key": job.key, "names": ["input"]}, (self.null(),))

    def null(self) -> int:
        """A descriptor that stands for "closed" where only replacing is possible."""
        if not hasattr(self, "_null"):
            self._null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        return self._null

    def attach_fds(self, job: Job, client: Client) -> tuple[list[str], tuple[int, ...]]:
        """What a client gets to talk to the container directly."""
        names: list[str] = [n for n in ("master", "input") if n in job.held]
        if job.is_exec:
            names += [n for n in ("out", "err") if n in job.held and "master" not in job.held]
        if client not in job.attached:
            job.attached.append(client)
        return names, tuple(job.held[n] for n in names)

    def answer_start(self, job: Job, client: Client) -> None:
        """The container runs."""
        names, fds = self.attach_fds(job, client) if job.notes.get("attach") or job.is_exec else ([], ())
        records = (
            [[number, ns] for kind, _, number, _, ns in job.making.records if kind == DONE]
            if job.making and job.notes.get("explain")
            else []
        )
        client.answer({"ok": True, "pid": job.pid, "fds": names, "records": records}, fds)

    # -- requests

    def op_start(self, client: Client, message: dict[str, Any], _fds: list[int]) -> None:
        """Start a container from its stored plan; asking again for the same attempt is harmless."""
        ident, attempt = message["id"], message["attempt"]
        job = self.jobs.get(ident)
        if job:
            if job.attempt != attempt:
                client.answer({"error": "it is being started or running already", "conflict": True})
            elif job.state == "running":
                self.answer_start(job, client)
            else:
                job.starters.append(client)
            return
        row = self.db.execute("SELECT attempt, status, pid FROM containers WHERE id=?", (ident,)).fetchone()
        past = self.db.execute("SELECT 1 FROM exits WHERE id=? AND attempt=?", (ident, attempt)).fetchone()
        if past or (row and row["attempt"] == attempt and row["status"] != database.CREATED):
            client.answer({"ok": True, "pid": 0, "fds": [], "records": []})
            return
        with open(self.store.plan(ident), "rb") as file:
            plan = stored.load(file.read())
        job = Job(ident, plan, self.held.setdefault(ident, {}), attempt)
        job.starters.append(client)
        self.make(job)

    def op_exec(self, client: Client, message: dict[str, Any], fds: list[int]) -> None:
        """Start a process in a running container; the plan comes in a memfd."""
        key = f"exec:{message['container']}:{message['id']}"
        job = self.jobs.get(key)
        if job:
            if job.state == "running":
                self.answer_start(job, client)
            else:
                job.starters.append(client)
            return
        if self.db.execute("SELECT 1 FROM exits WHERE id=?", (message["id"],)).fetchone():
            client.answer({"ok": True, "pid": 0, "fds": [], "records": []})
            return
        plan = stored.load(os.pread(fds[0], os.fstat(fds[0]).st_size, 0))
        job = Job(key, plan, self.held.setdefault(key, {}), "")
        job.starters.append(client)
        self.make(job)

    def op_wait(self, client: Client, message: dict[str, Any], _fds: list[int]) -> None:
        """Answered when the end is recorded; at once where it is already."""
        ident = message["id"]
        job = next((j for j in self.jobs.values() if j.ident == ident), None)
        if job:
            job.waiters.append(client)
            return
        row = self.db.execute("SELECT code, error FROM exits WHERE id=? ORDER BY time DESC", (ident,)).fetchone()
        client.answer({"exit": row["code"], "reason": row["error"]} if row else {"exit": None})

    def op_attach(self, client: Client, message: dict[str, Any], _fds: list[int]) -> None:
        """Descriptors to talk to a running container."""
        job = next((j for j in self.jobs.values() if j.ident == message["id"]), None)
        if not job or job.state != "running":
            client.answer({"error": "it is not running", "conflict": True})
            return
        names, fds = self.attach_fds(job, client)
        client.answer({"ok": True, "pid": job.pid, "fds": names}, fds)

    def op_end_input(self, client: Client, message: dict[str, Any], _fds: list[int]) -> None:
        """The client has closed its end of stdin: so do we."""
        job = next((j for j in self.jobs.values() if j.ident == message["id"]), None)
        if job and job.notes.get("stdin_once", job.is_exec):
            self.end_input(job)
        client.answer({"ok": True})

    def op_info(self, client: Client, _message: dict[str, Any], _fds: list[int]) -> None:
        """Who we are."""
        client.answer(
            {
                "ok": True,
                "keeper": os.getpid(),
                "holder": os.getppid(),
                "jobs": len(self.jobs),
                "version": protocol.VERSION,
            }
        )

    def op_end(self, client: Client, _message: dict[str, Any], _fds: list[int]) -> None:
        """End, when nothing runs."""
        if self.jobs:
            client.answer({"error": f"{len(self.jobs)} processes are still running", "conflict": True})
            return
        client.answer({"ok": True})
        self.end()

    OPS: ClassVar[dict[str, Callable[..., None]]] = {
        "start": op_start,
        "exec": op_exec,
        "wait": op_wait,
        "attach": op_attach,
        "end_input": op_end_input,
        "info": op_info,
        "end": op_end,
    }

    # -- making

    def stdio(self, job: Job) -> tuple[int, int, int]:
        """The new process's 0, 1, 2 (to be closed by the caller); our ends are held. Output pipes are opened for
        reading too,

        so that a container whose every reader is dead waits instead of dying of SIGPIPE."""
        mine: dict[str, int] = {}
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        stdin = null
        if job.notes["tty"]:
            mine["out"], mine["pump"] = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            outs = (os.dup(null), os.dup(null))
            if job.is_exec:
                os.close(mine.pop("out"))
                os.close(mine.pop("pump"))
        elif job.notes["detached"]:
            outs = (os.dup(null), os.dup(null))
        else:
            ends = []
            for name in ("out", "err"):
                mine[name], writing = os.pipe2(os.O_CLOEXEC | (0 if job.is_exec else os.O_NONBLOCK))
                ends.append(os.open(f"/proc/self/fd/{writing}", os.O_RDWR | os.O_CLOEXEC))
                os.close(writing)
            outs = (ends[0], ends[1])
        if job.notes["stdin"] and not job.notes["tty"]:
            os.close(null)
            stdin, mine["input"] = os.pipe2(os.O_CLOEXEC)
        if mine:
            self.put(job.key, **mine)
        return (stdin, *outs)

    def make(self, job: Job) -> None:
        """Begin to execute the plan."""
        self.jobs[job.key] = job
        if not job.is_exec:
            job.log = self.open_log(job)
        stdio = self.stdio(job)
        try:
            assert job.plan is not None
            job.making = Execution(job.plan, self.bell, stdio)
            self.go_on(job)
        except StepFailed as problem:
            self.fail(job, problem.failure)
        finally:
            for fd in set(stdio):
                os.close(fd)

    def open_log(self, job: Job) -> Any:
        from cloche.runtime.log import LogWriter

        directory = self.store.container(job.key) + "/log"
        os.makedirs(directory, 0o700, exist_ok=True)
        return LogWriter(directory, job.notes.get("log_size", 10 << 20), job.notes.get("log_files", 3))

    def go_on(self, job: Job) -> None:
        """The host's next steps, then wait for bell. Raises StepFailed."""
        making = job.making
        assert making is not None
        token = making.advance()
        if token:
            self.watch(making.fileno(), lambda: self.bell_spoke(job), 0 if token == "started" else select.EPOLLIN)
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
            elif job.state == "making":
                self.record_running(job)
            self.go_on(job)
        except StepFailed as problem:
            self.unwatch(waited)
            self.fail(job, problem.failure)

    def record_running(self, job: Job) -> None:
        """Before the gate: everything that another keeper needs is held or written."""
        making = job.making
        assert making is not None
        if job.notes["tty"]:
            self.put(job.key, master=making.release("terminal.host"))
        if not job.is_exec:
            outputs = ",".join(str(os.fstat(job.held[n]).st_ino) for n in ("out", "err") if n in job.held)
            self.db.execute(
                "UPDATE containers SET status='running', attempt=?, pid=?, start_time=?, boot=?, outputs=?, started=?, "
                "finished=0,"
                " exit_code=0, oom=0, error='' WHERE id=?",
                (job.attempt, job.pid, start_time(job.pid), self.boot, outputs, now(), job.key),
            )
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
        for client in job.starters:
            self.answer_start(job, client)
        job.starters.clear()
        making.close()
        job.making = None

    def fail(self, job: Job, failure: Failure) -> None:
        """A step was refused: nothing stays."""
        making = job.making
        if making:
            making.close()
            if making.stage:
                os.waitpid(making.stage, 0)
            if making.pid and "pidfd" not in job.held:
                os.waitpid(making.pid, 0)  # its control socket is closed: it ends at its next report
        if "pidfd" in job.held:
            self.unwatch(job.held["pidfd"])
            self.await_end(job.held["pidfd"])
        if not job.is_exec:
            self.db.execute("UPDATE containers SET status='created', pid=0, started=0 WHERE id=?", (job.key,))
        for client in job.starters:
            client.answer({"failure": [failure.number, failure.errno, failure.detail]})
        self.forget(job)

    def await_end(self, pidfd: int) -> None:
        """Kill and wait for a process that has failed or given up before it was the user's."""
        import signal

        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll()

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
            elif not job.take(name) and self.at_end(fd):
                self.unwatch(fd)
        except Stalled as problem:
            print(f"{job.key}: {problem}", file=sys.stderr, flush=True)
            self.unwatch(fd)
            self.after(RETRY, lambda: self.again(job, name))

    def at_end(self, fd: int) -> bool:
        """Whether a pipe has no writer and nothing in it: it would be ready for ever."""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return any(event & select.POLLHUP and not event & select.POLLIN for _, event in poll.poll(0))

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
            self.unwatch(job.making.fileno())
            try:
                if job.making.receive():
                    self.started(job)
            except StepFailed as problem:
                self.fail(job, problem.failure)
                return
        aborted, failure = job.reports()
        if aborted or job.state == "aborting":
            self.make_again(job)
            return
        if failure:
            self.fail(job, failure)
            return
        self.unwatch(pidfd)
        try:
            job.drain()
        except Stalled:
            self.after(RETRY, lambda: self.finish(job))
            return
        code, reason = job.exit_code(lambda: self.status_of_holders_child(job.key))
        self.record_end(job, code, reason)
        waiters = list(job.waiters)
        self.forget(job)
        for client in waiters:
            client.answer({"exit": code, "reason": reason})

    def record_end(self, job: Job, code: int, reason: str) -> None:
        """In one transaction: the container's state, and the exit for those who ask after it was removed."""
        self.db.execute("BEGIN IMMEDIATE")
        if not job.is_exec:
            oom = job.out_of_memory()
            self.db.execute(
                "UPDATE containers SET status='exited', pid=0, finished=?, exit_code=?, oom=?, error=? WHERE id=?",
                (now(), code, oom, reason, job.key),
            )
        self.db.execute(
            "INSERT OR REPLACE INTO exits VALUES (?, ?, ?, ?, ?)", (job.ident, job.attempt, code, reason, now())
        )
        self.db.execute("COMMIT")

    def forget(self, job: Job) -> None:
        """Undo the plan, reap, drop; remove what shall not stay."""
        for fd in job.held.values():
            self.unwatch(fd)
        job.close()
        if job.plan:
            for problem in job.plan.undo():
                print(f"undo {job.key}: {problem}", file=sys.stderr, flush=True)
        if not job.is_exec:
            self.unlink_plan(job.key)
        if "pidfd" in job.held:
            reap(job.held["pidfd"])
        self.tell({"op": "drop", "key": job.key})
        drop(self.held, job.key)
        self.jobs.pop(job.key, None)
        if job.notes.get("remove"):
            self.remove(job.key)

    def unlink_plan(self, ident: str) -> None:
        try:
            os.unlink(self.store.plan(ident))
        except FileNotFoundError:
            pass

    def remove(self, ident: str) -> None:
        """--rm: the row, the directory; only of what has ended (a container that could not be started is its
        client's)."""
        row = self.db.execute("SELECT status FROM containers WHERE id=?", (ident,)).fetchone()
        if row and row["status"] == database.EXITED:
            remove_container(self.store, self.db, ident)
            if not self.removed:
                self.after(SWEEP, self.tidy)
            self.removed += 1

    def tidy(self) -> None:
        """Look into the trash when there is time; what is being followed there is looked at again with the next
        removal."""
        self.untidy, self.removed = True, 0
        self.db.execute("DELETE FROM exits WHERE rowid <= (SELECT max(rowid) FROM exits) - ?", (KEPT_EXITS,))

    def make_again(self, job: Job) -> None:
        """It gave up at its gate because a keeper died: undo; who waits for the start gets it from the start."""
        starters, plan, attempt = job.starters, job.plan, job.attempt
        if "pidfd" in job.held:
            self.await_end(job.held["pidfd"])
        content = stored.dump(plan) if plan and not job.is_exec else b""
        notes, job.notes = job.notes, {}
        if not job.is_exec:
            self.db.execute("UPDATE containers SET status='created', pid=0, started=0 WHERE id=?", (job.key,))
        self.forget(job)
        job.notes = notes
        if content:
            with open(self.store.plan(job.key), "wb") as file:
                file.write(content)
        if starters and plan:
            again = Job(job.key, plan, self.held.setdefault(job.key, {}), attempt)
            again.starters = starters
            self.make(again)

    # -- recovery

    def adopt(self) -> None:
        """After a death: what is held, what the database believes to run, what plans are left."""
        for key in list(self.held):
            self.adopt_held(key)
        for row in self.db.execute("SELECT * FROM containers WHERE status='running'").fetchall():
            if row["id"] not in self.jobs:
                self.adopt_lost(row)
        for ident in os.listdir(self.store.run + "/plans"):
            if ident not in self.jobs:
                plan = self.read_plan(ident)
                if plan:
                    plan.undo()
        for row in self.db.execute("SELECT id FROM containers WHERE status='exited' AND remove=1").fetchall():
            if row["id"] not in self.jobs:
                self.remove(row["id"])

    def read_plan(self, ident: str) -> stored.StoredPlan | None:
        try:
            with open(self.store.plan(ident), "rb") as file:
                return stored.load(file.read())
        except FileNotFoundError:
            return None

    def adopt_held(self, key: str) -> None:
        """What another keeper held: running; or never let go, then it gives up by itself."""
        held = self.held[key]
        if "pidfd" not in held:
            self.tell({"op": "drop", "key": key})
            drop(self.held, key)
            return
        row = self.db.execute("SELECT * FROM containers WHERE id=?", (key,)).fetchone()
        job = Job(key, None if key.startswith("exec:") else self.read_plan(key), held, row["attempt"] if row else "")
        job.pid = row["pid"] if row else 0
        if job.is_exec:
            job.notes = {"stdin_once": True, "tty": "master" in held}
            job.orphaned = True
        self.jobs[key] = job
        if not job.is_exec and (not row or row["status"] == database.CREATED):
            job.state = "aborting"
            self.watch(held["pidfd"], lambda: self.finish(job))
            return
        if not job.is_exec and row["status"] == database.EXITED:
            self.forget(job)
            return
        job.state = "running"
        if not job.is_exec:
            job.log = self.open_log(job)
        job.orphaned = False
        self.watch_running(job)
        if job.notes.get("stdin_once"):
            self.after(FORSAKEN, lambda: None if job.attached or self.jobs.get(key) is not job else self.forsake(job))

    def adopt_lost(self, row: Any) -> None:
        """Both processes had died: find it by pid and start time, take its output again where it still is ours; or it
        has ended."""
        ident = row["id"]
        job = Job(ident, self.read_plan(ident), self.held.setdefault(ident, {}), row["attempt"])
        job.pid = row["pid"]
        try:
            if row["boot"] != self.boot:
                raise ProcessLookupError(3, "another boot")
            pidfd = open_process(row["pid"], row["start_time"])
        except OSError:
            self.record_end(job, -1, "exit status unknown: it ended while no cloche process was running")
            self.forget(job)
            return
        self.jobs[ident] = job
        self.put(ident, pidfd=pidfd, **self.outputs_again(row))
        job.log = self.open_log(job)
        job.state = "running"
        self.watch_running(job)

    def outputs_again(self, row: Any) -> dict[str, int]:
        """The reading ends of its pipes, through its own descriptors: the pipes live as long as it has them open."""
        found: dict[str, int] = {}
        for name, number, inode in zip(("out", "err"), (OUT, ERR), row["outputs"].split(","), strict=False):
            path = f"/proc/{row['pid']}/fd/{number}"
            try:
                if str(os.stat(path).st_ino) == inode:
                    found[name] = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                print(f"{row['id']}: output cannot be had again: {error}", file=sys.stderr, flush=True)
        return found


def keep(store: Store, held: Held, holder: _socket.socket, listening: int) -> None:
    """Be the keeper. Raises HolderGone when this process must become the holder."""
    keeper = Keeper(store, held, holder, listening)
    try:
        keeper.adopt()
        keeper.run()
    finally:
        keeper.close()
