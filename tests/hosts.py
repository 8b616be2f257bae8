"""Other hosts, as network namespaces with a cable to this one; servers in containers and questions to them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from commands import cloche, ok

ECHO = """
import socket, sys
kind, port, family = sys.argv[1], int(sys.argv[2]), socket.AF_INET6 if "6" in sys.argv[3:] else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", port))
if kind == "tcp":
    s.listen(50)
print("ready", flush=True)
while True:
    if kind == "udp":
        data, peer = s.recvfrom(65536)
        s.sendto(peer[0].encode() + b" " + data, peer)
    else:
        c, peer = s.accept()
        data = c.recv(65536)
        c.sendall(peer[0].encode() + b" " + data)
        c.close()
"""
ASK = """
import socket, sys
kind, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
s.settimeout(float(sys.argv[4]) if len(sys.argv) > 4 else 5)
try:
    s.connect((host, port))
    s.send(b"hello")
    print(s.recv(1000).decode())
except OSError as error:
    print("no:", type(error).__name__)
"""


@pytest.fixture
def py(store: Path) -> str:
    """An image with this machine's Python and its library."""
    python = os.path.realpath("/usr/bin/python3")
    library = f"/usr/lib/python3.{os.path.basename(python).rpartition('.')[2]}"
    if not os.path.isdir(library):
        pytest.skip("needs the system's Python")
    with_network = f"{library}/socket.py"
    assert os.path.exists(with_network)
    ok("pack", "-t", "py", "--add", library, python, "sh", "sleep", "ls", "cat")
    return os.path.basename(python)


@contextmanager
def other_host(number: int) -> Iterator[Callable[..., str]]:
    """A host on a cable of its own: 10.231.N.1 is this machine's end, 10.231.N.2 its. Gives a way to ask from there."""
    name, cable = f"clo{os.getpid()}-{number}", f"ct{os.getpid() % 100000}-{number}"
    run = lambda *words: subprocess.run(words, check=True, capture_output=True)  # noqa: E731
    run("ip", "netns", "add", name)
    try:
        run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "address", "add", f"10.231.{number}.1/24", "dev", cable)
        run("ip", "-6", "address", "add", f"fd00:231:{number}::1/64", "dev", cable, "nodad")
        run("ip", "link", "set", cable, "up")
        run("ip", "-n", name, "address", "add", f"10.231.{number}.2/24", "dev", "eth0")
        run("ip", "-n", name, "-6", "address", "add", f"fd00:231:{number}::2/64", "dev", "eth0", "nodad")
        run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        run("ip", "-n", name, "route", "add", "default", "via", f"10.231.{number}.1")
        run("ip", "-n", name, "-6", "route", "add", "default", "via", f"fd00:231:{number}::1")
        yield lambda *words: asked(("ip", "netns", "exec", name), *words)
    finally:
        run("ip", "netns", "del", name)


def asked(prefix: tuple[str, ...], *words: str) -> str:
    """What a question is answered with, asked by a process of its own."""
    command = [*prefix, sys.executable, "-I", "-c", ASK, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def here(*words: str) -> str:
    return asked((), *words)


def serve(py: str, kind: str, port: int, *flags: str, name: str = "web", family: str = "4") -> str:
    """A container that echoes; returns its address."""
    ok("run", "-d", "--name", name, *flags, "py", py, "-c", ECHO, kind, str(port), family)
    deadline = time.monotonic() + 20
    while "ready" not in ok("logs", name):
        assert time.monotonic() < deadline, cloche("logs", name)
        time.sleep(0.02)
    return address(name)


def address(name: str, field: str = "IPAddress") -> str:
    return ok("inspect", "-f", f"{{{{.NetworkSettings.{field}}}}}", name)


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("", 0))
        return int(sock.getsockname()[1])


def from_container(py: str, *words: str, flags: tuple[str, ...] = ()) -> str:
    return ok("run", "--rm", *flags, "py", py, "-c", ASK, *words)
