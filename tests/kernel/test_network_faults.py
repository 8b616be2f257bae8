"""Faults around networks: whoever is killed at whichever call, whatever is taken, whoever asks nonsense for names.

Afterwards there is no interface, no rule, no element, no address and no directory that was not there before.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import leftovers
from cloche.engine.store import locate
from cloche.errors import NotFound
from cloche.kernel import nftables
from cloche.network.attachment import port_element
from cloche.sdk import Client, Container
from commands import COMMAND, cloche, ok
from hosts import free_port, py
from houses import House, responders, step_through
from stepping import killed_at

pytestmark = [
    pytest.mark.requires("root", "overlay", "netns", "bridge", "nf_tables"),
    pytest.mark.timeout(300),
]
__all__ = ["py"]  # a fixture


@pytest.fixture
def house(store: Path) -> Iterator[House]:
    made = House(store)
    made.client.networks.create("net")
    made.client.run("starter", "true", network="net", remove=True)  # from now on names are answered
    made.held = made.descriptors()
    yield made
    made.client.close()


def links(root: Path) -> list[str]:
    """The links of containers on this machine; not the bridges."""
    return [name for name in leftovers.interfaces(leftovers.marks(root)) if not name.startswith("clo-")]


def leads(root: Path, port: int) -> bool:
    """Whether a rule leads this port anywhere."""
    step = port_element(locate(str(root)).parent, "0.0.0.0", "tcp", port, "10.0.0.9", 80)
    try:
        element = step._element()
        return nftables.has_element(nftables.host(), element.replace(value=type(element.value)()))  # to whomever
    except OSError:
        return False  # there are no rules at all


def nothing_of_networks_left(house: House, port: int) -> None:
    """Neither link, nor rule, nor address: a moment after the end."""
    deadline = time.monotonic() + 10
    while True:
        rows = [tuple(row) for row in house.engine.db.execute("SELECT * FROM connections")]
        left = [*links(house.root), *(["rule"] if leads(house.root, port) else []), *rows]
        if not left:
            break
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
    with socket.socket() as mine:
        mine.bind(("", port))
    house.nothing_left()


def published(port: int, network: str) -> Callable[[House], None]:
    def way(house: House) -> None:
        box = house.client.run(
            "starter", ["sh", "-c", "cat /proc/net/route; exit 7"], network=network, publish=[f"{port}:80"], detach=True
        )
        assert box.wait() == 7
        assert b"eth0\t00000000" in box.stdout
        box.remove()

    return way


def joining(house: House) -> None:
    """Onto a network and off it, while it runs."""
    box, net = house.client.get("box"), house.client.networks.get("net")
    net.connect(box)
    assert inside(box) == ["eth0", "eth1", "lo"]
    net.disconnect(box)
    assert inside(box) == ["eth0", "lo"]


def inside(box: Container) -> list[str]:
    """The links that it has."""
    lines = Path(f"/proc/{box.pid}/net/dev").read_text().splitlines()[2:]
    return sorted(line.partition(":")[0].strip() for line in lines)


@pytest.mark.torture
@pytest.mark.parametrize("network", ["bridge", "net"])
@pytest.mark.parametrize("which", [1, 0], ids=["keeper", "holder"])
def test_killed_at_any_system_call_of_a_life_with_networks(house: House, kills: int, which: int, network: str) -> None:
    port = free_port()
    step_through(published(port, network), house, which, 4 + kills // (5 if which else 10))
    nothing_of_networks_left(house, port)


@pytest.mark.torture
@pytest.mark.parametrize("which", [1, 0], ids=["keeper", "holder"])
def test_killed_at_any_system_call_of_joining(house: House, kills: int, which: int) -> None:
    box = house.client.run("starter", ["sleep", "1000"], name="box", detach=True)
    step_through(joining, house, which, 2 + kills // 10)
    box.remove(force=True)
    nothing_of_networks_left(house, free_port())


def killed_client(root: Path, stop: int, call: Callable[[Client], object]) -> bool:
    """Whether a process that makes this call was killed at a stop of its."""
    go, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.read(go, 1)
            call(Client(str(root)))
            status = 0
        finally:
            os._exit(status)
    try:
        with killed_at(pid, stop):
            os.write(told, b"x")
            _, status = os.waitpid(pid, 0)
    finally:
        os.close(go)
        os.close(told)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


def through(root: Path, turns: int, call: Callable[[Client], object], after: Callable[[], None]) -> None:
    """Kill a client of a call at evenly spread stops; `after` puts things right, or fails."""
    most = 64
    while killed_client(root, most, call):
        after()
        most *= 2
    after()
    for turn in range(turns):
        killed_client(root, 1 + most * turn // turns, call)
        after()


@pytest.mark.torture
def test_a_client_killed_at_any_system_call_of_connect_or_disconnect(house: House, kills: int) -> None:
    port = free_port()
    box = house.client.run("starter", ["sleep", "1000"], name="box", publish=[f"{port}:80"], detach=True)
    net = house.client.networks.get("net")
    assert leads(house.root, port)

    def is_off() -> None:
        """Whatever was left: it can be taken off, and then nothing of it is there."""
        try:
            net.disconnect("box")
        except NotFound:
            pass
        assert inside(box) == ["eth0", "lo"] and leads(house.root, port)
        assert net.users == []

    through(house.root, 8 + kills // 3, lambda c: c.networks.get("net").connect("box"), is_off)
    net.connect(box)

    def is_on() -> None:
        if "box" not in net.users:
            net.connect("box")
        elif inside(box) != ["eth0", "eth1", "lo"]:  # it was half taken off
            net.disconnect("box")
            net.connect("box")
        assert inside(box) == ["eth0", "eth1", "lo"]

    through(house.root, 8 + kills // 3, lambda c: c.networks.get("net").disconnect("box"), is_on)
    box.remove(force=True)
    nothing_of_networks_left(house, port)


@pytest.mark.torture
def test_a_client_killed_at_any_system_call_of_making_or_removing_a_network(house: House, kills: int) -> None:
    networks = house.client.networks

    def removed() -> None:
        try:
            networks.get("more").remove()
        except NotFound:
            pass

    through(house.root, 4 + kills // 6, lambda c: c.networks.create("more"), removed)

    def made_and_used() -> None:
        try:
            networks.get("more")
        except NotFound:
            networks.create("more")
        house.client.run("starter", "true", network="more", remove=True)

    made_and_used()
    through(house.root, 4 + kills // 6, lambda c: c.networks.get("more").remove(), made_and_used)
    removed()
    house.end()
    deadline = time.monotonic() + 5
    while left := leftovers.interfaces(leftovers.marks(house.root)) + leftovers.tables(leftovers.marks(house.root)):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


@pytest.mark.torture
def test_a_client_killed_at_any_system_call_of_a_create_gives_its_addresses_back(house: House, kills: int) -> None:
    through(
        house.root,
        8 + kills // 3,
        lambda c: c.create("starter", "true", network="net", publish=["80"]),
        lambda: [box.remove() for box in house.client.containers(all=True)] and None,
    )
    for name in os.listdir(house.root / "containers"):
        os.utime(house.root / "containers" / name, (0, 0))
    house.end()
    house.client.run("starter", "true", network="net", remove=True)
    deadline = time.monotonic() + 5
    while rows := house.engine.db.execute("SELECT * FROM connections").fetchall():
        assert time.monotonic() < deadline, [tuple(row) for row in rows]
        time.sleep(0.02)


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("where", ["", "127.0.0.1"])
def test_a_port_that_is_taken_between_create_and_start(store: Path, kind: str, where: str) -> None:
    way = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    port = free_port(way)
    other = free_port()
    flag = f"{where}:{port}:80/{kind}" if where else f"{port}:80/{kind}"
    ok("create", "--name", "box", "-p", f"{other}:81", "-p", flag, "starter", "true")
    for taken_at in ("", "127.0.0.1"):
        with socket.socket(socket.AF_INET, way) as mine:
            mine.bind((taken_at, port))
            if kind == "tcp":
                mine.listen()
            refused = cloche("start", "box")
            assert refused.code == 1 and refused.err.count("\n") == 1
            assert f"{port}/{kind}: address already in use (EADDRINUSE)" in refused.err and "hint: " in refused.err
            assert not leads(store, other) and not links(store)
        with socket.socket() as free:
            free.bind(("", other))
    ok("start", "-a", "box")
    assert ok("ps", "-a", "--format", "{{.Status}}").startswith("Exited (0)")


def test_subnets_that_collide_while_they_are_made(store: Path) -> None:
    def made(number: int, *flags: str) -> subprocess.Popen[str]:
        command = [*COMMAND, "network", "create", *flags, f"n{number}"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    free = [made(n) for n in range(8)]
    assert [p.communicate(timeout=60)[1] for p in free] == [""] * 8
    shown = json.loads(ok("network", "inspect", *(f"n{n}" for n in range(8))))
    ranges = {each["IPAM"]["Config"][0]["Subnet"] for each in shown}
    assert len(ranges) == 8
    same = [made(n, "--subnet", "10.234.0.0/24") for n in range(10, 16)]
    outcomes = [(p.communicate(timeout=60)[1], p.returncode) for p in same]
    assert sorted(code for _, code in outcomes) == [0, 1, 1, 1, 1, 1]
    assert all("Pool overlaps" in err and err.count("\n") == 1 for err, code in outcomes if code)
    one_name = [made(20) for _ in range(5)]
    outcomes = [(p.communicate(timeout=60)[1], p.returncode) for p in one_name]
    assert sorted(code for _, code in outcomes) == [0, 1, 1, 1, 1]
    assert all("already exists" in err for err, code in outcomes if code)


def test_a_network_that_goes_while_containers_start_on_it(store: Path) -> None:
    ok("run", "--rm", "starter", "true")
    for turn in range(4):
        ok("network", "create", "net")
        command = [*COMMAND, "run", "--rm", "--network", "net", "starter", "true"]
        running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        time.sleep(0.05 * turn)
        cloche("network", "rm", "net")
        for each in running:
            _, err = each.communicate(timeout=60)
            assert each.returncode in (0, 125) and err.count("\n") <= 1 and "Traceback" not in err, err
        cloche("network", "rm", "net")
    assert ok("ps", "-aq") == "" and not links(store)
    with Client(str(store)) as client:
        assert not client.engine.db.execute("SELECT * FROM connections").fetchall()


ASKER = """
import os, socket, struct, sys, time
sys.setrecursionlimit(10000)
server = next(l.split()[1] for l in open('/etc/resolv.conf') if l.startswith('nameserver'))
def question(number, name, more=b''):
    words = b''.join(bytes([len(w)]) + w for w in name.encode().split(b'.'))
    return struct.pack('!HHHHHH', number, 0x100, 1, 0, 0, 0) + words + b'\\0' + b'\\0\\1\\0\\1' + more
def ask(name, number=7, wait=1.0, tries=15):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(wait)
    for _ in range(tries):
        try:
            s.sendto(question(number, name), (server, 53))
            data = s.recv(4096)
            if data[:2] == struct.pack('!H', number): return data[3] & 15
        except OSError: pass
    return -1
"""


BOMBS = """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
point = lambda to: struct.pack("!H", 0xC000 | to)
chain = b"".join(point(28 + 12 * n if n else 12) + bytes(10) for n in range(330))
deep = b"\\1a\\0" + b"".join(b"\\1a" + point(15 + 4 * (n - 1) if n else 12) for n in range(1000))
bodies = (chain, deep, b"\\xc0\\x0c", b"\\xff" * 4000, b"\\x3f" * 4000, bytes(4000), b"\\1a" * 1900, b"", b"\\xc0")
most = 65535
sections = ((1, 0, 0, 0), (1, most, 0, 0), (most, 0, 0, 0), (1, 0, 0, most), (1, 0, 1, 0), (0, 0, 0, 0), (1, 0, 0, 2))
for counts in sections:
    for body in bodies:
        packet = struct.pack("!HHHHHH", 9, 0x100, *counts) + body
        s.sendto(packet[:4096], (server, 53))
        t = socket.socket(); t.settimeout(0.2)
        try:
            whole = (packet + body * 16)[:most]
            t.connect((server, 53)); t.sendall(struct.pack("!H", len(whole)) + whole); t.recv(10)
        except OSError: pass
        t.close()
print(ask("one"), ask("one", wait=5))
"""


@pytest.fixture
def pair(py: str) -> str:
    ok("network", "create", "net")
    for name in ("one", "two"):
        ok("run", "-d", "--name", name, "--network", "net", "py", "sleep", "1000")
    return py


def test_questions_that_are_bombs(store: Path, pair: str) -> None:
    """Names that point at names that point at names; sections that say that they have more than there is."""
    before = responders(store)
    script = ASKER + BOMBS
    said = ok("exec", "two", pair, "-c", script).split()
    assert said == ["0", "0"]
    assert responders(store) == before, "it has not ended of any of them"


def test_a_flood_of_connections_leaves_room_for_others(store: Path, pair: str) -> None:
    flood = ASKER + (
        "held = []\n"
        "for _ in range(200):\n"
        "    t = socket.socket(); t.settimeout(1)\n"
        "    try: t.connect((server, 53)); t.send(b'\\0'); held.append(t)\n"
        "    except OSError: break\n"
        "print('flooded', flush=True)\n"
        "end = time.time() + 4\n"
        "while time.time() < end:\n"
        "    for t in held:\n"
        "        try: t.send(b'')\n"
        "        except OSError: pass\n"
        "    time.sleep(0.5)\n"
    )
    command = [*COMMAND, "exec", "two", pair, "-c", flood]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as flooding:
        assert flooding.stdout is not None and flooding.stdout.readline() == "flooded\n"
        script = ASKER + (
            "t = socket.socket(); t.settimeout(3); t.connect((server, 53)); q = question(5, 'two')\n"
            "t.sendall(struct.pack('!H', len(q)) + q); size = struct.unpack('!H', t.recv(2))[0]\n"
            "print(t.recv(size)[3] & 15, ask('two'))\n"
        )
        assert ok("exec", "one", pair, "-c", script).split() == ["0", "0"], "over TCP and UDP"
        flooding.kill()


def test_who_is_asked_for_others_is_never_ourselves(store: Path, pair: str) -> None:
    """A container that names our own gateways as its servers, in every spelling."""
    ok("network", "create", "other")
    ok("run", "-d", "--name", "third", "--network", "other", "py", "sleep", "1000")
    gateways = [json.loads(ok("network", "inspect", n))[0]["IPAM"]["Config"][0]["Gateway"] for n in ("net", "other")]
    flags = [word for g in gateways for word in ("--dns", g)] + ["--dns", f"::ffff:{gateways[0]}"]
    ok("run", "-d", "--name", "loop", "--network", "net", *flags, "py", "sleep", "1000")
    started = time.monotonic()
    said = ok("exec", "loop", pair, "-c", ASKER + "print(ask('www.example.org', wait=8, tries=1), ask('one'))").split()
    assert said[1] == "0" and said[0] in {"2", "5", "3", "0"} and time.monotonic() - started < 20


def test_thousands_of_questions_while_who_answers_is_killed(store: Path, pair: str) -> None:
    script = ASKER + "print(sorted({ask('one', number, 0.5, 40) for number in range(1, 3000)}))"
    with subprocess.Popen([*COMMAND, "exec", "two", pair, "-c", script], stdout=subprocess.PIPE, text=True) as asking:
        killed = 0
        while asking.poll() is None and killed < 12:
            for pid in responders(store):
                os.kill(pid, signal.SIGKILL)
                killed += 1
            time.sleep(0.15)
        out, _ = asking.communicate(timeout=100)
    assert (asking.returncode, out) == (0, "[0]\n") and killed


@pytest.mark.skipif(not os.path.exists("/proc/net/nf_conntrack"), reason="the kernel shows no flows")
def test_a_start_leaves_the_questions_of_others_alone(pair: str) -> None:
    """A flow that is forgotten while its question is out loses the answer; only a port that leads elsewhere is a
    reason."""

    def flows() -> set[str]:
        words = [line.split() for line in Path("/proc/net/nf_conntrack").read_text().splitlines()]
        return {" ".join(w[6:10]) for w in words if "dport=53" in w and w[2] == "udp"}

    assert ok("exec", "two", pair, "-c", ASKER + "print(ask('one'))") == "0"
    before = flows()
    ok("run", "-d", "--name", "three", "--network", "net", "py", "sleep", "1000")
    assert before and before <= flows()


def test_sockets_of_networks_that_are_gone_are_closed(house: House) -> None:
    for number in range(6):
        house.client.networks.create(f"n{number}")
        house.client.run("starter", "true", network=f"n{number}", remove=True)
        house.client.networks.get(f"n{number}").remove()
    house.client.run("starter", "true", network="net", remove=True)
    assert house.descriptors() <= house.held + 2
    assert len(os.listdir(f"/proc/{responders(house.root)[0]}/fd")) < 20
