"""The holder: keeps descriptors so that no death of a keeper loses anything. The program of both processes begins here.

    holder ── fork ── keeper ── posix_spawn ── bell ── clone(CLONE_PARENT) ── stage ── clone(CLONE_PARENT) ── container
      │  socketpair: put, close, drop, status, end
      ├── listening socket (inherited by fork)   ├── listens, makes containers, copies output, reaps, records
      └── every container's pipes, terminal, pidfd (by SCM_RIGHTS)

The holder is the subreaper. The keeper dies: its children fall to the holder, which forks a new keeper with everything
it holds.
The holder dies: the keeper sees end-of-file, becomes the holder and forks a keeper. Both ways are this one loop.
A newer program takes over by exec: the keeper ends, the holder executes the new one, which finds its descriptors by
number in a file in memory, and forks its keeper.
What falls to the subreaper and is held by nobody (a stage whose keeper died, a container's orphan in the host's pid
namespace) is reaped when it ends.
"""

from __future__ import annotations

import gc
import os
import sys
from errno import EBUSY

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any

    from cloche.engine.store import Store
    from cloche.kernel.signals import Caught

Held = dict[str, dict[str, int]]
_QUICK = 1.0  # seconds; a keeper that dies sooner than this so many times in a row is started with a pause
_PATIENCE = 50
_HELD = 1  # version of what is handed over by exec


class HolderGone(Exception):
    """The keeper's holder has died: the keeper must take its place."""


def note(text: str) -> None:
    """A line in the pair's log; a disk that is full has no room for it."""
    try:
        os.write(2, f"{text}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass


def child_status(pidfd: int) -> int | None:
    """The exit status of a child that has ended, still to be reaped: code, or minus the signal. None when it is no
    child."""
    try:
        status = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return None
    if status is None:
        return None
    return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status


def reap(pidfd: int) -> None:
    """Let the kernel forget a child that has ended; no child of ours is no matter."""
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        pass


def ended_children() -> list[int]:
    """The pids of children that have ended and are still to be reaped."""
    from cloche.kernel.processes import children, zombie_status

    return [pid for pid in children() if zombie_status(pid) is not None]


def reap_strangers(ended: list[int], held: Held, keeper: int = 0) -> None:
    """Reap those of `ended` that nobody holds. Whatever was said before they were listed must be obeyed by now."""
    known = {keeper}
    for entry in held.values():
        try:
            status = os.waitid(os.P_PIDFD, entry.get("pidfd", -1), os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except OSError:  # none, or no child of ours
            continue
        if status:
            known.add(status.si_pid)
    for pid in ended:
        if pid not in known:
            try:
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                continue  # it was somebody's, and has been dropped and reaped since they were listed


def drop(held: Held, key: str) -> None:
    """Close and forget what is held for `key`."""
    for fd in held.pop(key, {}).values():
        os.close(fd)


def _announce(store: Store, holder: int, keeper: int) -> None:
    """For people and tests who want to know; nothing of ours reads it."""
    path = store.run + "/keeper/pids"
    try:
        with open(path + ".new", "w", encoding="ascii") as file:
            file.write(f"{holder} {keeper}\n")
        os.rename(path + ".new", path)
    except OSError as error:
        note(f"write {path}: {error}")


def _serve(sock: _socket.socket, held: Held, keeper: int, caught: Caught) -> tuple[bool, list[str]]:
    """Obey the keeper until it dies or says that all is over (True). The program that shall take over, if any."""
    import select
    from time import monotonic

    from cloche.engine.protocol import DONTWAIT, receive

    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    poll.register(caught.fileno(), select.POLLIN)
    ended = ended_children()
    looked, price, late = monotonic(), 0.0, False
    successor: list[str] = []
    while True:
        try:
            message, fds = receive(sock, DONTWAIT)
        except BlockingIOError:
            if ended:  # a keeper that died had put what it knew of these before
                reap_strangers(ended, held, keeper)
            # all children are looked at, of a dead keeper all containers: for no more than a tenth of the time
            rest = looked + 9 * price - monotonic()
            poll.poll(max(1, 1000 * rest) if late else None)
            late = bool(caught.read()) or late
            ended = []
            if late and monotonic() >= looked + 9 * price:
                began = monotonic()
                ended = ended_children()
                looked, late = monotonic(), False
                price = looked - began
            continue
        if message is None:
            return False, successor
        if message["op"] == "end":
            return True, []  # with the lock of those who start: nobody begins before both of us are gone
        if message["op"] == "handover":
            successor = message["argv"]
        else:
            _obey(sock, held, message, fds)


def _obey(sock: _socket.socket, held: Held, message: dict[str, Any], fds: list[int]) -> None:
    from cloche.engine.protocol import send

    op, key = message["op"], message["key"]
    if op == "put":
        entry = held.setdefault(key, {})
        for name, fd in zip(message["names"], fds, strict=True):
            if name in entry:
                os.close(entry[name])
            entry[name] = fd
    elif op == "close":
        fd = held.get(key, {}).pop(message["name"], -1)
        if fd >= 0:
            os.close(fd)
    elif op == "drop":
        if "pidfd" in held.get(key, {}):
            reap(held[key]["pidfd"])
        drop(held, key)
    elif op == "status":
        try:
            send(sock, {"status": child_status(held[key]["pidfd"]) if key in held else None})
        except OSError:
            return  # it died while asking; end-of-file comes next


def hold(store: Store, listening: int, linger: float, held: Held) -> None:
    """Hold, and have a keeper, until the keeper says that all is over."""
    import time

    from cloche.engine.protocol import pair
    from cloche.kernel.libc import PR_SET_CHILD_SUBREAPER, prctl
    from cloche.kernel.signals import CHLD, Caught

    hurry = 0
    while True:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        ours, theirs = pair()
        holder, began = os.getpid(), time.monotonic()
        with Caught((CHLD,)) as caught:
            gc.freeze()
            pid = os.fork()
            if pid:
                theirs.close()
                _announce(store, holder, pid)
                over, successor = _serve(ours, held, pid, caught)
        ours.close()
        if pid == 0:
            from cloche.engine.keeper import keep

            try:
                keep(store, held, theirs, listening, linger)
            except HolderGone:
                theirs.close()
                continue  # what was the keeper is the holder now
        os.waitid(os.P_PID, pid, os.WEXITED)
        reap_strangers(ended_children(), held)
        if over:
            leave(store)
            return
        if successor:
            hand_over(successor, store, listening, linger, held)
        hurry = hurry + 1 if time.monotonic() - began < _QUICK else 0
        if hurry > _PATIENCE:
            time.sleep(0.2)


def hand_over(argv: list[str], store: Store, listening: int, linger: float, held: Held) -> None:
    """Become this program, by execve(2), with all that is held. Returns when that is refused: then we go on."""
    from cloche.document import dumps

    everything = [listening, *(fd for entry in held.values() for fd in entry.values())]
    memory = os.memfd_create("held", 0)
    try:
        state = {"version": _HELD, "listening": listening, "held": held}
        os.write(memory, dumps(state).encode())
        for fd in everything:
            os.set_inheritable(fd, True)
        os.execv(argv[0], [*argv, store.root, str(linger), str(memory)])
    except OSError as error:
        note(f"hand over to {' '.join(argv)}: {error}")
    for fd in everything:
        os.set_inheritable(fd, False)
    os.close(memory)


def take_over(memory: int) -> tuple[int, Held]:
    """What another program's holder has left for us: the listening socket, all that is held."""
    from cloche.document import loads

    state = loads(os.pread(memory, os.fstat(memory).st_size, 0))
    os.close(memory)
    held: Held = state["held"]
    for fd in (state["listening"], *(fd for entry in held.values() for fd in entry.values())):
        os.set_inheritable(fd, False)
    return state["listening"], held


def _clean_process() -> None:
    """Nothing of the first caller stays: session, directory, mask, limits, standard streams."""
    import resource

    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    if null > 2:
        os.close(null)


def _leave_cgroup(store: Store) -> None:
    """A group outside the caller's, in every hierarchy: who limits or ends the caller does not end all containers."""
    from cloche.kernel.cgroups import probe_layout
    from cloche.step.cgroup import MakeCgroup

    for hierarchy in probe_layout().hierarchies:
        path = f"{hierarchy.path}/{store.parent}/keeper"
        MakeCgroup(
            path, hierarchy.path, hierarchy.controllers, unified="cgroup.controllers" in os.listdir(hierarchy.path)
        ).execute(None)  # type: ignore[arg-type]
        with open(path + "/cgroup.procs", "w", encoding="ascii") as file:
            file.write("0")


def leave(store: Store) -> None:
    """At the end, by both processes: the socket is gone, and so are the groups that only we were in."""
    from cloche.kernel.cgroups import probe_layout

    for path in (store.socket, store.run + "/keeper/pids"):
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
    for hierarchy in probe_layout().hierarchies:
        group = f"{hierarchy.path}/{store.parent}"
        try:
            with open(hierarchy.path + "/cgroup.procs", "w", encoding="ascii") as file:
                file.write("0")
            os.rmdir(group + "/keeper")
            os.rmdir(group)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno != EBUSY:  # the other of us is still in it and does this too
                note(f"remove cgroup {group}: {error}")


def main(root: str, linger: str = "60", memory: str = "") -> None:
    """The program: `python3 -I -S -B holder.py ROOT [LINGER [MEMORY]]`, LINGER: seconds that it lives without a
    container; MEMORY: the descriptor of what an older program hands over. `--check`: whether it could begin.

    Started by the first client, which waits for a byte on descriptor 1 and passes on 3 the lock of those who start: it
    is held until we listen, whatever becomes of that client. We are not its child: it may live longer than us.
    """
    from cloche.engine.store import locate

    if root == "--check":
        from cloche.engine import keeper  # noqa: F401 (with all that it needs)

        return
    if memory:
        taken, held = take_over(int(memory))
        hold(locate(root), taken, float(linger), held)
        return
    if os.fork():
        os._exit(0)
    store = locate(root)
    lock, ready = 3, os.dup2(1, 4, inheritable=False)
    os.closerange(5, 1 << 20)  # whatever the first caller's process lets its children inherit
    os.set_inheritable(lock, False)
    _clean_process()
    _leave_cgroup(store)
    import socket

    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        os.unlink(store.socket)
    except FileNotFoundError:
        pass
    os.umask(0o177)
    listening.bind(store.socket)
    os.umask(0o022)
    listening.listen(128)
    errors = os.open(store.run + "/keeper/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(errors, 2)
    os.close(errors)
    os.close(lock)
    os.write(ready, b"1")
    os.close(ready)
    hold(store, listening.detach(), float(linger), {})


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    # as the module that the keeper imports, so that there is one HolderGone
    from cloche.engine.holder import main as begin

    begin(*sys.argv[1:])
