"""The promise: any one cloche process killed with -9 at any moment, again and again, loses nothing."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloche.sdk import Client
from commands import COMMAND, cloche, ok

pytestmark = [
    pytest.mark.requires("root", "overlay"),
    pytest.mark.usefixtures("store"),
]
LINES = 400
WRITER = f"""i=0
while [ $i -lt {LINES} ]; do
    echo out $i; echo err $i >&2
    i=$((i+1)); [ $((i % 40)) = 0 ] && sleep 0.1
done
exit 9"""


def pids() -> tuple[int, int]:
    """Holder and keeper; waits while they are being replaced."""
    path = Path(os.environ["CLOCHE_ROOT"]) / "run/keeper/pids"
    holder, keeper = path.read_text().split()
    return int(holder), int(keeper)


def kill_one(which: int) -> None:
    """Kill the holder (0) or the keeper (1), by a handle; one that is gone meanwhile counts as killed."""
    try:
        fd = os.pidfd_open(pids()[which])
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        os.close(fd)
    except ProcessLookupError:
        pass


def wait_for_others(before: tuple[int, int]) -> None:
    deadline = time.monotonic() + 10
    while pids() == before and time.monotonic() < deadline:
        time.sleep(0.002)


def lines(kind: str) -> list[str]:
    return [f"{kind} {i}" for i in range(LINES)]


@pytest.mark.torture
@pytest.mark.requires("exit_info")  # without, the end of who has lost both its parents is nobody's to know
@pytest.mark.timeout(300)
def test_random_kills_lose_nothing(kills: int) -> None:
    chance = random.Random(kills)
    ok("run", "--rm", "starter", "true")
    names: list[str] = []
    clients: list[subprocess.Popen[str]] = []
    done = 0
    while done < kills:
        name = f"job{len(names)}"
        tty = ["-t"] if len(names) % 3 == 2 else []
        names.append(name)
        ok("run", "-d", "--name", name, *tty, "starter", "sh", "-c", WRITER)
        clients.append(
            subprocess.Popen(
                [*COMMAND, "run", "--rm", "-i", "starter", "sh", "-c", "cat; exit 5"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        for _ in range(6):
            before = pids()
            kill_one(chance.randrange(2))
            done += 1
            wait_for_others(before)
            time.sleep(chance.choice((0, 0.001, 0.01, 0.05)))
        result = cloche("exec", name, "sh", "-c", "echo inside; exit 3")
        ended = "not running" in result.err or result.code == 128 + signal.SIGKILL  # its container came to its end
        assert (result.code, result.out) == (3, "inside\n") or ended, result
    for client in clients:
        out, err = client.communicate("typed\n", timeout=60)
        assert (client.returncode, out, err) == (5, "typed\n", "")
    for number, name in enumerate(names):
        assert ok("wait", name) == "9"
        result = cloche("logs", name)
        if number % 3 == 2:
            merged = result.out.replace("\r", "").splitlines()
            assert [x for x in merged if x.startswith("out")] == lines("out")
            assert [x for x in merged if x.startswith("err")] == lines("err")
        else:
            assert result.out.splitlines() == lines("out")
            assert result.err.splitlines() == lines("err")
        ok("rm", name)
    assert ok("ps", "-aq") == ""


def test_both_killed_at_once_containers_live_on_and_are_found_again() -> None:
    ok(
        "run",
        "-d",
        "--name",
        "long",
        "starter",
        "sh",
        "-c",
        "trap 'echo bye; exit 6' TERM; echo up; while :; do sleep 0.05; done",
    )
    while "up" not in ok("logs", "long"):
        pass
    ok("run", "-d", "--name", "short", "starter", "sleep", "3")
    before = ok("inspect", "-f", "{{.State.Pid}}", "long")
    both = pids()
    handles = [os.pidfd_open(pid) for pid in both]
    for handle in handles:  # the keeper is stopped first, so that it cannot take the holder's place
        signal.pidfd_send_signal(handle, signal.SIGSTOP)
    for handle in handles:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)
    time.sleep(4)
    assert ok("ps", "--format", "{{.Names}}") == "long"
    assert ok("inspect", "-f", "{{.State.Pid}}", "long") == before
    # 0 where the zombie still tells it (nobody has reaped it), else nobody can know
    code = ok("inspect", "-f", "{{.State.ExitCode}}", "short")
    assert code in {"0", "-1"}
    assert code == "0" or "unknown" in ok("ps", "-a", "--filter", "name=short")
    ok("stop", "long")
    result = cloche("wait", "long")
    assert result.out.strip() == "6" or "unknown" in result.err, result
    assert ok("logs", "long").splitlines() == ["up", "bye"]


@pytest.mark.requires("exit_info")
def test_a_client_whose_keeper_dies_while_it_follows_sees_no_difference() -> None:
    script = f"{WRITER}"
    ok("run", "--rm", "starter", "true")
    with subprocess.Popen(
        [*COMMAND, "run", "--rm", "starter", "sh", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as client:
        for turn in range(6):
            before = pids()
            time.sleep(0.15)
            kill_one(turn % 2)
            wait_for_others(before)
        out, err = client.communicate(timeout=60)
    assert client.returncode == 9
    assert out.splitlines() == lines("out")
    assert err.splitlines() == lines("err")


def test_ten_first_callers_start_one_keeper() -> None:
    ok("run", "--rm", "starter", "true")  # ten images at once are another matter
    with Client(os.environ["CLOCHE_ROOT"]) as client:
        holder = os.pidfd_open(pids()[0])
        client.engine.keeper.ask({"op": "end"})
    select.select([holder], [], [], 10)
    os.close(holder)
    started = [
        subprocess.Popen([*COMMAND, "run", "--rm", "starter", "echo", str(i)], stdout=subprocess.PIPE, text=True)
        for i in range(10)
    ]
    assert sorted(int(p.communicate(timeout=60)[0]) for p in started) == list(range(10))
    root = os.environ["CLOCHE_ROOT"]
    found = subprocess.run(["pgrep", "-f", f"holder.py {root}$"], capture_output=True, text=True).stdout.split()
    assert len(found) == 2


def test_nonsense_from_a_client_harms_nobody() -> None:
    ok("run", "-d", "--name", "box", "starter", "sleep", "1000")
    script = """
import socket, os, sys
path = os.environ["CLOCHE_ROOT"] + "/run/keeper/socket"
for message in (b"", b"{", b"[]", b"{}", b'{"op":"none"}', b'{"op":"start"}', b"\\xff" * 1000,
                b'{"op":"start","id":"../../x","attempt":"a"}', b'{"op":"start","id":7,"attempt":"a"}',
                b'{"op":"exec","id":"a","container":"b"}', b"x" * 100000):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(path); s.send(message)
    if message: s.recv(1000)
many = []
for _ in range(200):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(path); many.append(s)
deaf = many[0]
deaf.setblocking(False)
try:
    for _ in range(100000): deaf.send(b'{"op":"info"}')
except BlockingIOError: pass
"""
    before = pids()
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert pids() == before
    assert ok("exec", "box", "echo", "served") == "served"


def test_another_user_is_not_served() -> None:
    ok("run", "--rm", "starter", "true")
    script = f"""
import os, socket
os.setgroups([]); os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
try: s.connect({os.environ["CLOCHE_ROOT"]!r} + "/run/keeper/socket"); print("connected", s.recv(10))
except PermissionError: print("refused")
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30).stdout
    assert said.strip() in {"refused", "connected b''"}
