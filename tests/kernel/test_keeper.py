"""Holder and keeper as processes: how they begin and end, what they weigh, a full disk, rude clients, other boots."""

from __future__ import annotations

import array
import os
import random
import resource
import select
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cloche.step.stored
import leftovers
import probes
from cloche.engine.client import Keeper
from cloche.engine.client import __file__ as client_file
from cloche.engine.containers import Engine
from cloche.engine.settling import is_settling
from cloche.errors import Error, Unsupported
from cloche.kernel.namespaces import unshare
from cloche.runtime.logview import Reader
from cloche.sdk import Client, Container
from commands import COMMAND, ok
from houses import children
from screens import eventually

pytestmark = [pytest.mark.requires("root", "overlay"), pytest.mark.timeout(120)]


@pytest.fixture
def client(store: Path) -> Iterator[Client]:
    made = Client(str(store))
    made.run("starter", "true", remove=True)
    yield made
    made.close()


def pair(client: Client) -> tuple[int, int]:
    """Holder and keeper that answer; not while a death has not been noticed."""
    while True:
        answer, _ = client.engine.keeper.ask({"op": "info"})
        holder = Path(f"/proc/{answer['holder']}/cmdline")
        try:
            if client.engine.store.root.encode() in holder.read_bytes():
                return answer["holder"], answer["keeper"]
        except (FileNotFoundError, ProcessLookupError):
            continue


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def kill_one(client: Client, which: int) -> None:
    """The holder (0) or the keeper (1); returns when the other has noticed: never two deaths at once."""
    pid = pair(client)[which]
    os.kill(pid, signal.SIGKILL)
    while pid in pair(client):
        time.sleep(0.001)


def kill_both(client: Client) -> None:
    """The keeper is stopped first, so that it cannot take the holder's place."""
    handles = [os.pidfd_open(pid) for pid in reversed(pair(client))]
    client.engine.keeper.close()
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for handle in handles:
            signal.pidfd_send_signal(handle, number)
    for handle in handles:
        select.select([handle], [], [], 10)
        os.close(handle)


def wait_for(true: Any, what: str, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


# Beginning and ending


def begin(root: Path, linger: str) -> None:
    """Starts the program as a client does, with a linger of the test's own."""
    reading, writing = os.pipe()
    lock = os.open(f"{root}/run/keeper/lock", os.O_RDWR | os.O_CREAT)
    program = str(Path(client_file).with_name("holder.py"))
    actions = [(os.POSIX_SPAWN_DUP2, writing, 1), (os.POSIX_SPAWN_DUP2, lock, 3)]
    argv = [sys.executable, "-I", "-S", "-B", program, str(root), linger]
    pid = os.posix_spawn(sys.executable, argv, {}, file_actions=actions)
    os.close(writing)
    os.close(lock)
    assert os.read(reading, 1) == b"1"
    os.close(reading)
    os.waitpid(pid, 0)


def test_they_linger_and_end_and_their_groups_go_with_them(store: Path) -> None:
    client = Client(str(store))
    client.engine.image("starter")  # made before, for it may take longer than that
    begin(store, "1")
    box = client.run("starter", ["sleep", "1.5"], detach=True)
    handles = [os.pidfd_open(pid) for pid in pair(client)]
    box.wait()
    client.engine.keeper.close()
    assert not select.select(handles, [], [], 0.3)[0], "they wait a while after the last container"
    for handle in handles:
        assert select.select([handle], [], [], 10)[0], "and end"
        os.close(handle)
    assert leftovers.cgroups(leftovers.marks(store)) == []
    assert sorted(os.listdir(store / "run/keeper")) == ["lock", "log"]
    assert (store / "run/keeper/log").read_text() == ""
    assert client.run("starter", ["echo", "again"], remove=True).output == "again\n"
    client.close()


def test_the_callers_process_has_no_child(client: Client) -> None:
    ours = children(os.getpid())
    assert not any(client.engine.store.root in Path(f"/proc/{c}/cmdline").read_text() for c in ours)


def test_callers_killed_while_they_start_the_pair_leave_one_pair(store: Path) -> None:
    ok("images")
    for _ in range(12):
        with subprocess.Popen([*COMMAND, "run", "--rm", "starter", "true"], stderr=subprocess.DEVNULL) as caller:
            time.sleep(random.uniform(0.05, 0.2))
            caller.kill()
    assert ok("run", "--rm", "starter", "echo", "served") == "served"
    found = subprocess.run(["pgrep", "-f", f"holder.py {store}$"], capture_output=True, text=True).stdout.split()
    assert len(found) == 2


def test_orphans_in_the_hosts_pid_namespace_are_reaped(client: Client) -> None:
    box = client.run("starter", ["sh", "-c", "(sleep 0.3 &); sleep 1000"], pid="host", detach=True)
    holder = pair(client)[0]
    own = f"/proc/{holder}/task/{holder}/children"
    wait_for(lambda: len(Path(own).read_text().split()) == 2, "the orphan falls to the holder")
    wait_for(lambda: len(Path(own).read_text().split()) == 1, "and is reaped when it ends")
    box.remove(force=True)


def bell_server(keeper: int) -> int:
    """The keeper's child that makes the bells."""
    return next(pid for pid in children(keeper) if Path(f"/proc/{pid}/comm").read_text() == "bell-server\n")


def test_the_process_that_makes_bells_may_be_killed(client: Client) -> None:
    keeper = pair(client)[1]
    box = client.run("starter", ["sleep", "1000"], detach=True)
    for _ in range(3):
        before = bell_server(keeper)
        handle = os.pidfd_open(before)
        os.kill(before, signal.SIGKILL)
        # killed while it still reads, it may take a question with it: nobody knows then what it has made of it
        assert select.select([handle], [], [], 10)[0], "it has ended"
        os.close(handle)
        assert client.run("starter", ["echo", "made"], remove=True).output == "made\n"
        assert bell_server(keeper) != before
    assert box.status == "running"
    box.remove(force=True)


def test_a_keeper_without_descriptors_lets_clients_wait(client: Client) -> None:
    keeper = pair(client)[1]
    log = Path(client.engine.store.run) / "keeper/log"
    box = client.run("starter", ["sleep", "1000"], detach=True)
    limits = resource.prlimit(keeper, resource.RLIMIT_NOFILE)
    resource.prlimit(keeper, resource.RLIMIT_NOFILE, (5, limits[1]))
    try:
        waiting = connect(client)
        waiting.send(b'{"op": "info"}')
        wait_for(lambda: "Too many open files" in log.read_text(), "it says why")
        assert not select.select([waiting], [], [], 1.2)[0]
        assert log.read_text().count("Too many open files") < 10, "it does not ask again and again"
    finally:
        resource.prlimit(keeper, resource.RLIMIT_NOFILE, limits)
    assert b'"ok"' in waiting.recv(1 << 16), "its turn comes when there are some"
    waiting.close()
    box.remove(force=True)


# Both killed; another boot


def test_after_another_boot_nothing_runs_and_no_stranger_is_touched(client: Client) -> None:
    box = client.run("starter", ["sleep", "1000"], detach=True)
    handle = os.pidfd_open(box.pid)
    kill_both(client)
    stranger = subprocess.Popen(["sleep", "1000"])
    fields = Path(f"/proc/{stranger.pid}/stat").read_text().rsplit(")", 1)[1].split()
    client.engine.db.execute(
        "UPDATE containers SET boot='another', pid=?, start_time=? WHERE id=?", (stranger.pid, int(fields[19]), box.id)
    )
    assert box.status == "exited"
    with pytest.raises(Error, match="unknown"):
        box.wait()
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    assert select.select([handle], [], [], 5)[0], "what was left in its groups is ended with them"
    os.close(handle)
    box.remove()


def test_found_again_after_both_died_it_survives_the_next_keepers_death_too(client: Client) -> None:
    script = "trap 'echo bye; exit 6' TERM; echo up; while :; do sleep 0.02; done"
    box = client.run("starter", ["sh", "-c", script], detach=True)
    wait_for(lambda: box.stdout == b"up\n", "it says that it is up")
    kill_both(client)
    for which in (1, 0, 1):
        kill_one(client, which)
        assert box.status == "running"
    box.stop()
    assert box.stdout == b"up\nbye\n"
    assert box.status == "exited"
    box.remove()


# Rude clients


def connect(client: Client) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.connect(client.engine.store.socket)
    made.settimeout(10)
    return made


def test_descriptors_that_come_with_nonsense_are_closed(client: Client) -> None:
    keeper = pair(client)[1]
    before = descriptors(keeper)
    null = os.open("/dev/null", os.O_RDONLY)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * 10))]
    many = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * 200))]
    ident = b"0" * 64
    execute = b'{"op":"exec","id":"%s","container":"%s"}' % (ident, ident)
    for message, ancillary in (
        (b"{", rights),
        (b"x" * 150000, rights),
        (b'{"op":"info"}', many),
        (b'{"op":"wait","id":[1]}', rights),
        (b'{"op":"attach","id":{}}', rights),
        (b"[" * 50000, rights),
        (execute, rights),
        (execute, []),
        (execute.replace(b"exec", b"start"), rights),
    ):
        with connect(client) as sock:
            sock.sendmsg([message], ancillary)
            sock.recv(1 << 16)
    os.close(null)
    wait_for(lambda: descriptors(keeper) == before, "every descriptor is closed")
    assert pair(client)[1] == keeper, "and the keeper lives"


def test_clients_that_never_read_or_never_write_hold_up_nobody(client: Client) -> None:
    keeper = pair(client)[1]
    silent = [connect(client) for _ in range(100)]
    deaf = connect(client)
    deaf.setblocking(False)
    sent = 0
    try:
        while sent < 20000:
            deaf.send(b'{"op":"info"}')
            sent += 1
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        pass  # its answers are not waited for: who does not read is ended
    assert client.run("starter", ["echo", "served"], remove=True).output == "served\n"
    for sock in (*silent, deaf):
        sock.close()
    assert pair(client)[1] == keeper


# What they weigh


def private_dirty(pid: int) -> int:
    """In KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:"))


def test_memory_of_both_for_fifty_containers(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    before = sum(map(private_dirty, pair(client)))
    boxes = [client.run("starter", ["sleep", "1000"], detach=True) for _ in range(50)]
    holder, keeper = pair(client)
    each = (sum(map(private_dirty, (holder, keeper))) - before) / len(boxes)
    status = Path(f"/proc/{keeper}/status").read_text().splitlines()
    resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    with capsys.disabled():
        print(f" keeper {resident / 1024:.1f} MiB, {each:.0f} KiB private per running container", end="")
    for box in boxes:
        box.remove(force=True)
    assert resident <= 20 << 10
    assert each <= 200


def in_user_namespace(client: Client) -> Container:
    try:
        return client.run("starter", ["sleep", "1000"], userns="auto", detach=True)
    except Unsupported as error:
        pytest.skip(f"needs file systems that can be mounted id-mapped: {error}")


@pytest.mark.requires("userns")
def test_a_container_in_a_user_namespace_joins_its_groups_by_itself(client: Client) -> None:
    took = []
    for _ in range(3):
        began = time.monotonic()
        box = in_user_namespace(client)
        took.append(time.monotonic() - began)
        groups = [line.split(":", 2) for line in Path(f"/proc/{box.pid}/cgroup").read_text().splitlines()]
        ours = [path for _, names, path in groups if names not in ("", "name=systemd") or probes.layout() == "v2"]
        assert all(path.endswith(box.id) for path in ours if path != "/"), groups
        assert any(path.endswith(box.id) for path in ours)
        box.remove(force=True)
    assert statistics.median(took) < 1


# A full disk, and rotation


@pytest.fixture
def small(store: Path) -> Iterator[Client]:
    """A store on a file system of 64 MiB."""
    probes.mount("tmpfs", str(store), "tmpfs", 0, "size=64m,mode=755")
    client = Client(str(store))
    try:
        client.run("starter", "true", remove=True)
        yield client
        empty(client)
        client.close()
        leftovers.end_store(store)
    finally:
        leftovers.end_processes(list(leftovers.processes(store)), signal.SIGKILL)
        probes.libc.umount2(str(store).encode(), 0)


def fill(client: Client) -> None:
    with open(client.engine.store.root + "/filler", "ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


def empty(client: Client) -> None:
    Path(client.engine.store.root + "/filler").unlink(missing_ok=True)


def gated(client: Client, gate: Path, script: str, **more: Any) -> Container:
    """A container that begins when the file /gate/go is there."""
    waiting = "while [ ! -e /gate/go ]; do sleep 0.02; done; "
    return client.run("starter", ["sh", "-c", waiting + script], volumes=[f"{gate}:/gate"], detach=True, **more)


def test_a_full_disk_makes_a_container_wait_and_loses_nothing(small: Client, tmp_path: Path) -> None:
    text = "x" * 90
    box = gated(small, tmp_path, f"i=0; while [ $i -lt 10000 ]; do echo $i {text}; i=$((i+1)); done; exit 9")
    fill(small)
    (tmp_path / "go").touch()
    time.sleep(1.5)
    assert box.stdout.count(b"\n") < 10000
    assert Path(f"/proc/{box.pid}").exists(), "it waits"
    for _ in range(2):
        kill_one(small, 1)  # and who takes over waits too
        time.sleep(0.2)
    empty(small)
    assert box.wait() == 9
    assert box.stdout.decode().splitlines() == [f"{i} {text}" for i in range(10000)]
    box.remove()


@pytest.mark.parametrize("terminal", [False, True])
def test_one_that_is_not_to_wait_for_its_log_goes_on_and_what_was_before_is_kept(
    small: Client, tmp_path: Path, terminal: bool
) -> None:
    options = {"mode": "non-blocking", "max-buffer-size": "64k"}
    said = tmp_path / "said"
    box = gated(
        small,
        tmp_path,
        "head -c 3000000 /dev/zero | tr '\\0' x; : > /gate/said; sleep 1000",
        log_options=options,
        tty=terminal,
    )
    first = box.stdout
    fill(small)
    (tmp_path / "go").touch()
    wait_for(said.exists, "it has written all, though nothing of it can be kept")
    kill_one(small, 1)
    assert box.status == "running"
    assert box.stdout.startswith(first) and len(box.stdout) < 2_000_000
    empty(small)
    box.remove(force=True)


def test_an_end_on_a_full_disk_is_recorded(small: Client, tmp_path: Path) -> None:
    box = gated(small, tmp_path, "exit 9")
    fill(small)
    (tmp_path / "go").touch()
    time.sleep(0.7)
    empty(small)
    assert box.wait() == 9
    box.remove()


def test_a_create_and_a_start_on_a_full_disk_say_so_and_leave_nothing(small: Client) -> None:
    root = Path(small.engine.store.root)
    made = small.create("starter", ["echo", "hi"])
    fill(small)
    there = sorted(os.listdir(root / "containers"))
    with pytest.raises(Error, match=r"(?i)full|space"):
        small.create("starter", "true")
    assert sorted(os.listdir(root / "containers")) == there
    with pytest.raises(Error, match=r"(?i)full|space"):
        made.start()
    assert made.status == "created"
    assert [name for name in os.listdir(root / "run/plans") if not is_settling(name)] == []
    empty(small)
    assert made.start().wait() == 0
    assert made.stdout == b"hi\n"
    made.remove()


def small_logs(monkeypatch: pytest.MonkeyPatch, size: int, files: int) -> None:
    real = cloche.step.stored.stored

    def stored(plan: Any, flat: bytes, notes: dict[str, Any]) -> Any:
        return real(plan, flat, {**notes, "log_size": size, "log_files": files})

    monkeypatch.setattr(cloche.step.stored, "stored", stored)


def test_rotation_under_kills_loses_nothing_for_who_follows(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    small_logs(monkeypatch, 1 << 15, 2)
    script = "echo up; sleep 0.3; i=0; while [ $i -lt 20000 ]; do echo $i xxxxxxxxxxxxxxxxxxxxxxxx; i=$((i+1)); done"
    box = client.create("starter", ["sh", "-c", script])
    said: dict[int, bytes] = {1: b"", 2: b""}
    engine: Engine = client.engine
    with Reader(engine.log_directory(box._record), hold=True) as reader:
        box.start()
        wait_for(reader.read, "it says that it is up: what is being read is kept from here on")
        kills = 0
        while True:
            ended = box.status == "exited"
            found = reader.read()
            for stream, data in found:
                said[stream] += data
            if ended and not found:
                break
            if kills < 20:
                kill_one(client, kills % 2)
                kills += 1
        assert reader.missed == 0
    assert said[1].decode().splitlines() == [f"{i} xxxxxxxxxxxxxxxxxxxxxxxx" for i in range(20000)]
    kept = sum(f.stat().st_size for f in Path(engine.log_directory(box._record)).iterdir())
    assert kept <= 3 << 15
    box.remove()


@pytest.mark.parametrize(("flag", "kind"), [(0x20000, "mount"), (0x40000000, "network")])
def test_a_caller_in_another_namespace_is_told_so(client: Client, flag: int, kind: str) -> None:
    """Its paths and its network are not the keeper's: it would get others than it named."""
    client.run("starter", ["true"], remove=True)
    run = [*COMMAND, "run", "--rm", "starter", "true"]
    said = subprocess.run(run, preexec_fn=lambda: unshare(flag), capture_output=True, text=True, timeout=60)
    assert said.returncode == 125
    assert f"another {kind} namespace" in said.stderr
    ps = subprocess.run([*COMMAND, "ps", "-aq"], preexec_fn=lambda: unshare(flag), capture_output=True, timeout=60)
    assert (ps.returncode, ps.stdout) == (0, b""), "looking is allowed, and nothing is left"


def test_the_databases_log_is_copied_when_all_is_quiet(client: Client) -> None:
    """And not by whoever happens to commit when it has become long."""
    database = Path(client.engine.store.root) / "db"
    before = database.stat().st_mtime_ns
    client.run("starter", "true", remove=True)
    eventually(lambda: database.stat().st_mtime_ns > before, "nothing is copied")


def command_lines() -> Iterator[bytes]:
    """Of every process that is there."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            yield Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_start_that_is_interrupted_is_given_up_or_runs(client: Client) -> None:
    box = client.create("starter", ["sleep", "1000"], network="none")
    for _ in range(10):
        with pytest.raises(KeyboardInterrupt):
            client.engine.start(box._refresh(), meanwhile=interrupt)
        if box.status == "running":  # it was too late
            box.kill()
            box.wait()
        assert box.status in ("created", "exited")
    box.start()
    assert box.status == "running"
    box.remove(force=True)


def test_an_exec_that_is_interrupted_is_killed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with client.run("starter", ["sleep", "1000"], network="none", detach=True, name="box") as box:
        for _ in range(5):
            with monkeypatch.context() as patched:
                patched.setattr(Keeper, "receive", lambda _: patched.undo() or interrupt())
                with pytest.raises(KeyboardInterrupt):
                    box.exec(["sleep", "777"])
            eventually(lambda: not any(b"sleep\0" + b"777" in words for words in command_lines()), "it goes on")
        assert box.exec(["echo", "well"]).output == "well\n"
