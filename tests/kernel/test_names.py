"""Names on networks: found, kept apart, passed on, never lost; and networks that running containers join and leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from commands import cloche, ok
from hosts import address, free_port, from_container, here, other_host, py, serve
from houses import responders

__all__ = ["py"]  # a fixture

pytestmark = [
    pytest.mark.requires("root", "overlay", "netns", "bridge", "nf_tables"),
    pytest.mark.usefixtures("store"),
    pytest.mark.timeout(120),
]

# A question in a few lines, so that what answers is seen as it is: prints the code and the answers.
QUESTION = """
import socket, struct, sys
server, name, kind, way = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
if server == "own":
    server = next(l.split()[1] for l in open("/etc/resolv.conf") if l.startswith("nameserver"))
packet = struct.pack("!HHHHHH", 4711, 256, 1, 0, 0, 0)
packet += b"".join(bytes((len(p),)) + p.encode() for p in name.split(".")) + b"\\0" + struct.pack("!HH", kind, 1)
family = socket.AF_INET6 if ":" in server else socket.AF_INET
s = socket.socket(family, socket.SOCK_STREAM if way == "tcp" else socket.SOCK_DGRAM)
s.settimeout(float(sys.argv[5]) if len(sys.argv) > 5 else 15)
try:
    s.connect((server, 53))
    s.sendall(struct.pack("!H", len(packet)) + packet if way == "tcp" else packet)
    reply = s.recv(65535)
    if way == "tcp":
        while len(reply) < 2 or len(reply) < 2 + struct.unpack("!H", reply[:2])[0]:
            reply += s.recv(65535)
        reply = reply[2:]
except OSError as error:
    sys.exit(print("no:", type(error).__name__))
assert reply[:2] == packet[:2] and reply[2] & 128, reply
found, at = [], len(packet)
for _ in range(struct.unpack("!H", reply[6:8])[0]):
    at += 2
    answer, _, _, size = struct.unpack("!HHIH", reply[at:at + 10])
    data = reply[at + 10:at + 10 + size]
    at += 10 + size
    if answer in (1, 28):
        found.append(socket.inet_ntop(socket.AF_INET if answer == 1 else socket.AF_INET6, data))
    else:
        found.append(data[1:1 + data[0]].decode())
print(reply[3] & 15, "cut" if reply[2] & 2 else "", *sorted(found))
"""
A, PTR, AAAA = "1", "12", "28"

UPSTREAM = """
import sys
from dnslib import RR, A, DNSRecord
import socket
how, where = sys.argv[1], sys.argv[2]
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind((where, 53))
t = socket.socket(); t.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); t.bind((where, 53)); t.listen()
print("ready", flush=True)
import threading
def reply(packet, count=1):
    asked = DNSRecord.parse(packet)
    made = asked.reply()
    for i in range(count):
        made.add_answer(RR(asked.q.qname, 1, ttl=60, rdata=A("192.0.2.%d" % (i + 1))))
    return made.pack()
def tcp():
    while True:
        c, _ = t.accept()
        size = int.from_bytes(c.recv(2), "big")
        data = reply(c.recv(size), 100)
        c.sendall(len(data).to_bytes(2, "big") + data)
        c.close()
threading.Thread(target=tcp, daemon=True).start()
while True:
    packet, peer = u.recvfrom(4096)
    if how == "silent":
        continue
    if how == "liar":
        u.sendto(bytes((packet[0] ^ 1,)) + reply(packet)[1:], peer)          # another number
        other = DNSRecord.question("bank.example").pack()
        u.sendto(packet[:2] + reply(other)[2:], peer)                          # another question
        u.sendto(packet[:2] + b"\\xff" * 600, peer)
    if how == "cut":
        short = DNSRecord.parse(packet).reply()
        short.header.tc = 1
        u.sendto(short.pack(), peer)
        continue
    u.sendto(reply(packet), peer)
"""


@contextmanager
def upstream(number: int, how: str) -> Iterator[str]:
    """A DNS server on another host; gives its address."""
    with other_host(number):
        where = f"10.231.{number}.2"
        command = [
            "ip",
            "netns",
            "exec",
            f"clo{os.getpid()}-{number}",
            sys.executable,
            "-I",
            "-c",
            UPSTREAM,
            how,
            where,
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None and server.stdout.readline() == "ready\n"
                yield where
            finally:
                server.kill()


def asks(py: str, box: str, name: str, kind: str = A, way: str = "udp", server: str = "own", wait: str = "15") -> str:
    return ok("exec", box, py, "-c", QUESTION, server, name, kind, way, wait)


def sleeper(py: str, name: str, *flags: str) -> str:
    ok("run", "-d", "--name", name, *flags, "py", "sleep", "1000")
    return address(name)


@pytest.fixture
def pair(py: str) -> tuple[str, str, str]:
    """The Python's name, and the addresses of `one` and `two` on the network `net`."""
    ok("network", "create", "net")
    ok("run", "-d", "--name", "one", "--network", "net", "--network-alias", "uno", "py", "sleep", "1000")
    ok("run", "-d", "--name", "two", "--network", "net", "py", "sleep", "1000")
    found = (
        json.loads(ok("inspect", "-f", "{{json .NetworkSettings.Networks.net.IPAddress}}", n)) for n in ("one", "two")
    )
    one, two = found
    return py, one, two


@pytest.mark.parametrize("way", ["udp", "tcp"])
def test_containers_find_each_other_by_every_name(pair: tuple[str, str, str], way: str) -> None:
    py, one, two = pair
    short = ok("inspect", "-f", "{{.Id}}", "one")[:12]
    for name in ("one", "ONE", "uno", short):
        assert asks(py, "two", name, way=way) == f"0  {one}", name
    assert asks(py, "one", "two", way=way) == f"0  {two}"
    assert asks(py, "one", "one", way=way) == f"0  {one}"
    assert asks(py, "one", "two", AAAA, way).strip() == "0", "it is there, and has no such address"
    backwards = ".".join(reversed(two.split("."))) + ".in-addr.arpa"
    assert asks(py, "one", backwards, PTR, way) == "0  two"
    ok("stop", "-t", "0", "two")
    assert not asks(py, "one", "two", way=way).startswith("0")


def test_several_with_one_alias_are_all_found(py: str) -> None:
    ok("network", "create", "net")
    ok("run", "-d", "--name", "w1", "--network", "net", "--network-alias", "web", "py", "sleep", "1000")
    ok("run", "-d", "--name", "w2", "--network", "net", "--network-alias", "web", "py", "sleep", "1000")
    assert len(asks(py, "w1", "web").split()) == 3


def test_names_of_other_networks_are_nobodys(pair: tuple[str, str, str]) -> None:
    py, one, _ = pair
    ok("network", "create", "--internal", "other")
    ok("run", "-d", "--name", "third", "--network", "other", "py", "sleep", "1000")
    assert asks(py, "third", "one").startswith("2"), "an internal network has nobody else to ask"
    gateway = json.loads(ok("network", "inspect", "net"))[0]["IPAM"]["Config"][0]["Gateway"]
    assert not asks(py, "third", "one", server=gateway, wait="1").startswith("0"), "nor is another's server"
    assert asks(py, "third", "third").startswith("0")
    plain = from_container(py, "tcp", gateway, "53", "1", flags=("--network", "bridge"))
    assert one not in plain


def test_what_is_not_ours_is_passed_on(py: str) -> None:
    ok("network", "create", "net")
    with upstream(1, "honest") as server:
        sleeper(py, "box", "--network", "net", "--dns", server)
        assert asks(py, "box", "www.example.org") == "0  192.0.2.1"
        assert len(asks(py, "box", "www.example.org", way="tcp").split()) == 101
        assert asks(py, "box", "box").startswith("0")


@pytest.mark.parametrize("how", ["liar", "cut"])
def test_upstreams_that_lie_or_cut(py: str, how: str) -> None:
    ok("network", "create", "net")
    with upstream(2, how) as server:
        sleeper(py, "box", "--network", "net", "--dns", server)
        assert asks(py, "box", "www.example.org") == ("0  192.0.2.1" if how == "liar" else "0 cut")


def test_an_upstream_that_is_silent_is_followed_by_the_next(py: str) -> None:
    ok("network", "create", "net")
    with upstream(3, "silent") as silent, upstream(4, "honest") as server:
        sleeper(py, "box", "--network", "net", "--dns", silent, "--dns", server)
        assert asks(py, "box", "www.example.org") == "0  192.0.2.1"
        ok("run", "-d", "--name", "lost", "--network", "net", "--dns", silent, "py", "sleep", "1000")
        assert asks(py, "lost", "www.example.org").strip() == "2", "SERVFAIL, not silence"


def test_ipv6_names(py: str) -> None:
    if not os.path.exists("/proc/sys/net/ipv6"):
        pytest.skip("a kernel without IPv6")
    before = Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text()
    try:
        ok("network", "create", "--ipv6", "six")
        sleeper(py, "one", "--network", "six")
        sleeper(py, "two", "--network", "six")
        inside = address("two", "GlobalIPv6Address")
        gateway = json.loads(ok("network", "inspect", "six"))[0]["IPAM"]["Config"][1]["Gateway"]
        assert asks(py, "one", "two", AAAA) == asks(py, "one", "two", AAAA, server=gateway) == f"0  {inside}"
    finally:
        Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text(before)


@pytest.mark.parametrize("who", ["responder", "keeper", "holder", "responder keeper", "keeper holder", "all"])
def test_killed_processes_lose_no_question(store: Path, pair: tuple[str, str, str], who: str) -> None:
    py, one, _ = pair
    for _ in range(3):
        facts = json.loads(ok("info", "-f", "json"))
        if who == "all" or "responder" in who:
            for pid in responders(store):
                os.kill(pid, signal.SIGKILL)
        for name in ("keeper", "holder"):
            if who == "all" or name in who:
                os.kill(facts[f"{name.title()}Pid"], signal.SIGKILL)
        if who in ("keeper holder", "all"):
            ok("ps")  # somebody has to come: nobody is left who could
        assert asks(py, "two", "one") == f"0  {one}"
    deadline = time.monotonic() + 5
    while len(responders(store)) != 1:
        assert time.monotonic() < deadline, responders(store)
        time.sleep(0.02)


def test_a_running_container_joins_and_leaves_networks(py: str) -> None:
    port = free_port()
    ok("network", "create", "net")
    serve(py, "tcp", 80, "-p", f"{port}:80")
    sleeper(py, "two", "--network", "net")
    ok("network", "connect", "--alias", "shop", "net", "web")
    there = json.loads(ok("inspect", "-f", "{{json .NetworkSettings.Networks.net.IPAddress}}", "web"))
    assert asks(py, "two", "web") == asks(py, "two", "shop") == f"0  {there}"
    assert asks(py, "web", "two").startswith("0  "), "and the other way round"
    assert "shop" not in ok("exec", "web", "cat", "/etc/hosts") and there in ok("exec", "web", "cat", "/etc/hosts")
    again = cloche("network", "connect", "net", "web")
    assert again.code == 1 and "endpoint already exists in network net" in again.err
    ok("network", "disconnect", "bridge", "web")
    assert here("tcp", "127.0.0.1", str(port)).endswith(" hello"), "by the network that is left"
    ok("network", "disconnect", "net", "web")
    assert here("tcp", "127.0.0.1", str(port), "1").startswith("no:")
    assert ok("exec", "web", "ls", "/sys/class/net") == "lo"
    assert cloche("network", "disconnect", "net", "web").code == 1
    ok("network", "connect", "net", "web")
    assert here("tcp", "127.0.0.1", str(port)).endswith(" hello")
    wrong = cloche("network", "connect", "--ip", "192.0.2.1", "bridge", "web")
    assert wrong.code == 1 and "it is not of network bridge" in wrong.err
    assert ok("exec", "web", "ls", "/sys/class/net") == "eth0\nlo"


def test_nonsense_is_no_harm(pair: tuple[str, str, str], store: Path) -> None:
    py, one, _ = pair
    before = responders(store)
    script = (
        "import os, socket\n"
        "server = next(l.split()[1] for l in open('/etc/resolv.conf') if l.startswith('nameserver'))\n"
        "u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "for size in (0, 1, 11, 12, 13, 100, 512, 4000):\n"
        "    for _ in range(200):\n"
        "        u.sendto(os.urandom(size), (server, 53))\n"
        "    u.sendto(b'\\xc0' * size, (server, 53))\n"
        "    u.sendto(b'\\0\\1\\1\\0\\0\\1' + b'\\0' * 6 + b'\\xc0\\x0c' * 50, (server, 53))\n"
        "ts = []\n"
        "for n in range(80):\n"
        "    t = socket.socket(); t.settimeout(2)\n"
        "    try: t.connect((server, 53)); t.send(os.urandom(3)); ts.append(t)\n"
        "    except OSError: break\n"
    )
    ok("exec", "two", py, "-c", script)
    assert asks(py, "two", "one") == f"0  {one}"
    assert responders(store) == before
