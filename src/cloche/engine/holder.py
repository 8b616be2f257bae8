"""The holder: keeps descriptors so that no death of a keeper loses anything. The program of both processes begins here.

    holder ── fork ── keeper ── posix_spawn ── bell ── clone(CLONE_PARENT) ── container
      │  socketpair: put, drop, status, end      │
      ├── listening socket (inherited by fork)   ├── listens, makes containers, copies output, reaps, records
      └── every container's pipes, terminal, pidfd (by SCM_RIGHTS)

The holder is the subreaper. The keeper dies: its children fall to the holder, which forks a new keeper with everything
it holds.
The holder dies: the keeper sees end-of-file, becomes the holder and forks a keeper. Both ways are this one loop.
"""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from cloche.engine.store import Store

Held = dict[str, dict[str, int]]
_QUICK = 1.0  # seconds; a keeper that dies sooner than this so many times in a row is started with a pause
_PATIENCE = 50


class HolderGone(Exception):
    """The keeper's holder has died: the keeper must take its place."""


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


def drop(held: Held, key: str) -> None:
    """Close and forget what is held for `key`."""
    for fd in held.pop(key, {}).values():
        os.close(fd)


def _announce(store: Store, holder: int, keeper: int) -> None:
    path = store.run + "/keeper/pids"
    with open(path + ".new", "w", encoding="ascii") as file:
        file.write(f"{holder} {keeper}\n")
    os.rename(path + ".new", path)


def _serve(sock: _socket.socket, held: Held) -> bool:
    """Obey the keeper until it dies (False) or says that all is over (True)."""
    from cloche.engine.protocol import receive, send

    while True:
        message, fds = receive(sock)
        if message is None:
            return False
        op, key = message["op"], message.get("key", "")
        if op == "put":
            entry = held.setdefault(key, {})
            for name, fd in zip(message["names"], fds, strict=True):
                if name in entry:
                    os.close(entry[name])
                entry[name] = fd
        elif op == "drop":
            if "pidfd" in held.get(key, {}):
                reap(held[key]["pidfd"])
            drop(held, key)
        elif op == "status":
            try:
                send(sock, {"status": child_status(held[key]["pidfd"]) if key in held else None})
            except OSError:
                continue  # it died while asking; end-of-file comes next
        elif op == "end":
            return True


def hold(store: Store, listening: int) -> None:
    """Hold, and have a keeper, until the keeper says that all is over."""
    import time

    from cloche.engine.protocol import pair
    from cloche.kernel.libc import PR_SET_CHILD_SUBREAPER, prctl

    held: Held = {}
    hurry = 0
    while True:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        ours, theirs = pair()
        holder, began = os.getpid(), time.monotonic()
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            ours.close()
            from cloche.engine.keeper import keep

            try:
                keep(store, held, theirs, listening)
            except HolderGone:
                theirs.close()
                continue  # what was the keeper is the holder now
        theirs.close()
        _announce(store, holder, pid)
        over = _serve(ours, held)
        ours.close()
        os.waitid(os.P_PID, pid, os.WEXITED)
        if over:
            _remove_cgroup(store)
            return
        hurry = hurry + 1 if time.monotonic() - began < _QUICK else 0
        if hurry > _PATIENCE:
            time.sleep(0.2)


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


def _remove_cgroup(store: Store) -> None:
    """At the end: back to each hierarchy's root, and the groups that only we were in are gone."""
    from cloche.kernel.cgroups import probe_layout

    for hierarchy in probe_layout().hierarchies:
        group = f"{hierarchy.path}/{store.parent}"
        try:
            with open(hierarchy.path + "/cgroup.procs", "w", encoding="ascii") as file:
                file.write("0")
            os.rmdir(group + "/keeper")
            os.rmdir(group)
        except OSError as error:  # another keeper has begun, or containers of a version that we do not know
            print(f"remove cgroup {group}: {error}", file=sys.stderr, flush=True)


def main(root: str) -> None:
    """The program: `python3 -I -S -B holder.py ROOT`, started by the first client, which waits for a byte on descriptor
    1."""
    from cloche.engine.store import locate

    store = locate(root)
    os.dup2(1, 3, inheritable=False)
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
    os.write(3, b"1")
    os.close(3)
    hold(store, listening.detach())


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    # as the module that the keeper imports, so that there is one HolderGone
    from cloche.engine.holder import main as begin

    begin(sys.argv[1])
