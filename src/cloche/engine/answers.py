"""What the keeper answers to its clients. Asking again is harmless: a client cannot know which keeper died when."""

from __future__ import annotations

import os

from cloche.engine import database, protocol
from cloche.engine.holder import note
from cloche.engine.job import Job, Jobs
from cloche.kernel.pidfd import KILL, send_signal
from cloche.runtime.bell import DONE
from cloche.step import stored

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any

    from cloche.engine.keeper import Keeper


_NAMESPACES = {"mnt": "mount", "net": "network", "pid": "pid"}
_PLAN_MOST = 64 << 20  # bytes
_MANY = 64  # ids that a client may have without anybody looking which of them still are
GIVEN_UP = {"error": "it was given up"}
_CHECK = 10.0  # seconds until a program that shall take over must have said that it can


def checked(ident: str) -> str:
    """An id, which becomes part of a path. Raises ValueError."""
    if len(ident) != 64 or not set(ident) <= set("0123456789abcdef"):
        raise ValueError("not an id")
    return ident


def elsewhere(home: dict[str, str], pid: int) -> str:
    """The kind of namespace in which a client is not where we are: paths and networks that it names are others."""
    for kind, ours in home.items():
        try:
            if os.readlink(f"/proc/{pid}/ns/{kind}") != ours:
                return kind
        except OSError:  # it is gone, or of a pid namespace that we do not see: it cannot be looked at
            return "pid"
    return ""


class Client:
    """A connection. One that does not read what it asked for is not waited for: it is ended, behind what is on its way,
    so that who is only late asks again."""

    def __init__(self, sock: _socket.socket, elsewhere: str) -> None:
        self.sock, self.elsewhere = sock, elsewhere
        self.deaf = False
        self.idents: set[str] = set()  # of what it has started, waits for or is attached to: forgotten when it leaves

    def care(self, job: Job, jobs: Jobs) -> None:
        """Be forgotten by this one when the connection ends. A connection may see thousands come and go."""
        if len(self.idents) > 2 * len(jobs) + _MANY:
            self.idents = {ident for ident in self.idents if jobs.of(ident)}
        self.idents.add(job.ident)

    def answer(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Send at once; who is gone, or has let its answers pile up, gets no more."""
        if not self.deaf:
            try:
                protocol.send(self.sock, message, fds, protocol.DONTWAIT)
            except OSError:
                self.deaf = True
                protocol.end(self.sock)


def attach_fds(job: Job, client: Client) -> tuple[list[str], tuple[int, ...]]:
    """What a client gets to talk to the process directly."""
    names: list[str] = [n for n in ("master", "input") if n in job.held]
    if job.is_exec:
        names += [n for n in ("out", "err") if n in job.held and "master" not in job.held]
    if client not in job.attached:
        job.attached.append(client)
    return names, tuple(job.held[n] for n in names)


def answer_start(job: Job, client: Client) -> None:
    """It runs."""
    names, fds = attach_fds(job, client) if job.notes.get("attach") or job.is_exec else ([], ())
    records = (
        [[number, ns] for kind, _, number, _, ns in job.making.records if kind == DONE]
        if job.making and job.notes.get("explain")
        else []
    )
    client.answer({"ok": True, "pid": job.pid, "fds": names, "records": records}, fds)


def _content(fds: list[int]) -> bytes:
    """The plan that came with a request, in a file of its own. Raises IndexError, OSError, ValueError."""
    size = os.fstat(fds[0]).st_size
    if size > _PLAN_MOST:
        raise ValueError("the plan is too long")
    return os.pread(fds[0], size, 0)


def _join(keeper: Keeper, job: Job, client: Client, fds: list[int]) -> None:
    """One more who waits for a start that is under way, or that a dead keeper may have to leave to us."""
    if job.state in ("aborting", "settling") and not job.content:
        job.content = _content(fds)
    job.starters.append(client)
    client.care(job, keeper.jobs)


def _is_ours(client: Client, message: dict[str, Any]) -> bool:
    """Whether its plan is for this keeper. A newer client is told that we are older, and will have us hand over."""
    version = message["version"]
    if version > protocol.VERSION:
        client.answer({"older": protocol.VERSION})
    elif version < protocol.VERSION:
        cause = f"this cloche is older (version {version}) than the keeper that runs ({protocol.VERSION}): update it"
        client.answer({"error": cause})
    return bool(version == protocol.VERSION)


def start(keeper: Keeper, client: Client, message: dict[str, Any], fds: list[int]) -> None:
    """Start a container by the plan that comes in a memfd; asking again for the same attempt is harmless."""
    if not _is_ours(client, message):
        return
    if client.elsewhere:
        cause = f"this process is in another {_NAMESPACES[client.elsewhere]} namespace than the keeper {os.getpid()}"
        client.answer({"error": f"{cause}: use a store of its own (CLOCHE_ROOT), or go there with nsenter(1)"})
        return
    ident, attempt = checked(message["id"]), message["attempt"]
    job = keeper.jobs.get(ident)
    if (job is None or job.attempt != attempt) and _has_run(keeper, ident, attempt):  # a policy may make it again
        client.answer({"ok": True, "pid": 0, "fds": [], "records": []})
        return
    if job:
        if job.state == "aborting" and not job.starters:
            job.attempt = attempt  # nobody knows whose it was, and it will be another
        if job.attempt != attempt:
            client.answer({"error": "it is being started or running already", "conflict": True})
        elif job.state == "running":
            answer_start(job, client)
        else:
            _join(keeper, job, client, fds)
        return
    _make(keeper, client, ident, attempt, fds)


def _has_run(keeper: Keeper, ident: str, attempt: str) -> bool:
    """Whether this attempt at a start was made by a keeper that is dead, and has ended."""
    row = keeper.db.execute("SELECT attempt, status FROM containers WHERE id=?", (ident,)).fetchone()
    if row and row["attempt"] == attempt and row["status"] != database.CREATED:
        return True
    return keeper.db.execute("SELECT 1 FROM exits WHERE id=? AND attempt=?", (ident, attempt)).fetchone() is not None


def _make(keeper: Keeper, client: Client, key: str, attempt: str, fds: list[int]) -> None:
    content = _content(fds)
    job = Job(key, stored.load(content), keeper.held.setdefault(key, {}), attempt)
    job.content = content
    job.starters.append(client)
    client.care(job, keeper.jobs)
    keeper.make(job)


def execute(keeper: Keeper, client: Client, message: dict[str, Any], fds: list[int]) -> None:
    """Start a process in a running container; the plan comes in a memfd."""
    if not _is_ours(client, message):
        return
    key = f"exec:{checked(message['container'])}:{checked(message['id'])}"
    job = keeper.jobs.get(key)
    if job:
        if job.state == "running":
            answer_start(job, client)
        else:
            _join(keeper, job, client, fds)
        return
    if keeper.db.execute("SELECT 1 FROM exits WHERE id=?", (message["id"],)).fetchone():
        client.answer({"ok": True, "pid": 0, "fds": [], "records": []})
        return
    _make(keeper, client, key, "", fds)


def wait(keeper: Keeper, client: Client, message: dict[str, Any], fds: list[int]) -> None:
    """Answered when the end is recorded; at once where it is already. An eventfd(2) that comes along is written to
    whenever there is more in the log, and now: the client may have looked before we knew of it."""
    ident = message["id"]
    job = keeper.jobs.of(ident)
    if job:
        job.waiters.append(client)
        client.care(job, keeper.jobs)
        if fds and not job.is_exec:
            os.set_blocking(fds[0], False)
            job.wakes.append((client, os.dup(fds[0])))
            job.wake()
        return
    row = keeper.db.execute("SELECT code, error FROM exits WHERE id=? ORDER BY time DESC", (ident,)).fetchone()
    client.answer(ending(ident, row["code"], row["error"]) if row else ending(ident))


def ending(ident: str, code: int | None = None, reason: str = "") -> dict[str, Any]:
    """What a wait is answered with; without a code nobody here knows."""
    return {"exit": code, "reason": reason, "id": ident}


def attach(keeper: Keeper, client: Client, message: dict[str, Any], _fds: list[int]) -> None:
    """Descriptors to talk to a running container."""
    job = keeper.jobs.of(message["id"])
    if not job or job.state not in ("running", "settling"):
        answer: dict[str, Any] = {"error": "it is not running", "conflict": True}
        passed: tuple[int, ...] = ()
    else:
        client.care(job, keeper.jobs)
        names, passed = attach_fds(job, client)
        answer = {"ok": True, "pid": job.pid, "fds": names}
    if not message.get("quiet"):
        client.answer(answer, passed)


def end_input(keeper: Keeper, client: Client, message: dict[str, Any], _fds: list[int]) -> None:
    """The client has closed its end of stdin: so do we."""
    job = keeper.jobs.of(message["id"])
    if job and job.notes.get("stdin_once", job.is_exec):
        keeper.let_go(job, "input")
    if not message.get("quiet"):
        client.answer({"ok": True})


def info(keeper: Keeper, client: Client, _message: dict[str, Any], _fds: list[int]) -> None:
    """Who we are."""
    client.answer(
        {
            "ok": True,
            "keeper": os.getpid(),
            "holder": protocol.maker(keeper.holder),  # getppid(2) names another when it has just died
            "jobs": len(keeper.jobs),
            "version": protocol.VERSION,
        }
    )


def cancel(keeper: Keeper, client: Client, message: dict[str, Any], _fds: list[int]) -> None:
    """One that a policy would make again is not. What is being started for this client alone is given up, and this is
    answered behind that; if it is too late, a container is for its client to kill, and an exec, which it does not know
    yet, is killed."""
    ident = checked(message["id"])
    cancelled, job = keeper.restarting.cancel(ident), keeper.jobs.of(ident)
    if job and (job.starters == [client] or (job.is_exec and job.attached == [client])):
        if job.state == "making":
            job.unwanted = True
            if (
                "pidfd" in job.held and job.making
            ):  # else it is given up when its process is known, which must be reaped
                keeper.unwatch(job.making.fileno())
                keeper.give_up(job, GIVEN_UP)
            return
        if job.is_exec:
            send_signal(job.held["pidfd"], KILL)
        job.leave(client)
    client.answer({"ok": True, "cancelled": cancelled})


def policy(keeper: Keeper, client: Client, message: dict[str, Any], _fds: list[int]) -> None:
    """Another restart policy for one that runs, or is about to be made again."""
    name, tries = message["restart"]
    keeper.restarting.change(checked(message["id"]), str(name), int(tries))
    client.answer({"ok": True})


def names(keeper: Keeper, client: Client, message: dict[str, Any], _fds: list[int]) -> None:
    """A container that runs has come onto networks with names."""
    keeper.names.serve([str(address) for address in message["gateways"]])
    client.answer({"ok": True})


def end(keeper: Keeper, client: Client, _message: dict[str, Any], _fds: list[int]) -> None:
    """End, when nothing runs."""
    if keeper.jobs:
        client.answer({"error": f"{len(keeper.jobs)} processes are still running", "conflict": True})
        return
    client.answer({"ok": True})
    keeper.end()


def hand_over(keeper: Keeper, client: Client, message: dict[str, Any], _fds: list[int]) -> None:
    """Let a newer program be holder and keeper. For everything else it is a keeper's death like any other; so that it
    is not the last one, the program must first show that it can begin."""
    argv = [str(word) for word in message["argv"]]
    if message["version"] <= protocol.VERSION:
        client.answer({"ok": True})  # another client was faster
        return
    if not _can_begin(argv):
        client.answer({"error": f"{argv[0]} cannot take over: see {keeper.store.run}/keeper/log"})
        return
    keeper.tell({"op": "handover", "argv": argv})
    os._exit(0)


def _can_begin(argv: list[str]) -> bool:
    import select

    try:
        pid = os.posix_spawn(
            argv[0], [*argv, "--check"], {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        )
    except OSError as error:
        note(f"execute {' '.join(argv)}: {error}")
        return False
    pidfd = os.pidfd_open(pid)
    if not select.select([pidfd], [], [], _CHECK)[0]:
        os.kill(pid, 9)
    os.close(pidfd)
    return os.waitpid(pid, 0)[1] == 0


OPS: dict[str, Callable[[Keeper, Client, dict[str, Any], list[int]], None]] = {
    "start": start,
    "exec": execute,
    "wait": wait,
    "attach": attach,
    "end_input": end_input,
    "info": info,
    "handover": hand_over,
    "names": names,
    "cancel": cancel,
    "policy": policy,
    "end": end,
}
