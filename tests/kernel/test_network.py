"""Networks on the real kernel: bridges, addresses, published ports from everywhere, isolation, what is left behind.

Another host is a network namespace with a cable to this one; servers and clients are processes that speak through it.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import leftovers
from cloche.engine.containers import Engine
from cloche.engine.store import locate
from cloche.kernel import nftables
from commands import cloche, ok, sh
from hosts import ASK, ECHO, address, free_port, from_container, here, other_host, py, serve
from houses import kill_processes

pytestmark = [
    pytest.mark.requires("root", "overlay", "netns", "bridge", "nf_tables"),
    pytest.mark.usefixtures("store"),
    pytest.mark.timeout(120),
]

__all__ = ["py"]  # a fixture


def table(store: Path) -> str:
    return locate(str(store)).parent


def test_a_container_has_a_link_an_address_and_a_way_out(store: Path) -> None:
    out = sh("ls /sys/class/net; cat /proc/net/route; cat /etc/hosts; hostname").splitlines()
    assert out[:2] == ["eth0", "lo"]
    routes = [line.split() for line in out if line.startswith("eth0\t")]
    assert any(route[1] == "00000000" and route[3] == "0003" for route in routes), "a default route by a gateway"
    own = next(line.split() for line in out if line.endswith(out[-1]) and "." in line)
    assert (
        own[0].split(".")[:2]
        == next(iter(json.loads(ok("network", "inspect", "bridge"))))["IPAM"]["Config"][0]["Gateway"].split(".")[:2]
    )
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"


def test_the_network_mode_none_still_has_nothing() -> None:
    assert sh("ls /sys/class/net", "--network", "none") == "lo"


def test_published_ports_from_everywhere(py: str) -> None:
    port, local, udp = free_port(), free_port(), free_port(socket.SOCK_DGRAM)
    flags = ("-p", f"{port}:80", "-p", f"127.0.0.1:{local}:80")
    inside = serve(py, "tcp", 80, *flags)
    serve(py, "udp", 53, "-p", f"{udp}:53/udp", name="dns")
    with other_host(1) as there:
        assert here("tcp", "127.0.0.1", str(port)).endswith(" hello"), "from the host's loopback"
        assert here("tcp", "10.231.1.1", str(port)).endswith(" hello"), "from the host by its address"
        assert here("tcp", "127.0.0.1", str(local)).endswith(" hello")
        assert here("tcp", inside, "80").endswith(" hello"), "from the host, directly"
        assert there("tcp", "10.231.1.1", str(port)) == "10.231.1.2 hello", "from another host, whose address is seen"
        assert there("udp", "10.231.1.1", str(udp)) == "10.231.1.2 hello"
        assert here("udp", "127.0.0.1", str(udp)).endswith(" hello")
        assert there("tcp", "10.231.1.1", str(local)).startswith("no:"), "what is on loopback is for this host"
        assert there("tcp", inside, "80", "1") == "no: TimeoutError", "what is not published cannot be reached"
        own = ok("exec", "web", py, "-c", ASK, "tcp", "10.231.1.1", str(port))
        assert own.endswith(" hello"), "from the container to its own published port"
        assert from_container(py, "tcp", "10.231.1.1", str(port)).endswith(" hello"), "from a neighbour"
        assert from_container(py, "tcp", inside, "80").endswith(" hello"), "from a neighbour, directly"
        assert ok("port", "web", "80") == f"0.0.0.0:{port}\n127.0.0.1:{local}"
        assert f"0.0.0.0:{port}->80/tcp" in ok("ps", "--format", "{{.Ports}}")
        ok("stop", "-t", "0", "web")
        assert there("tcp", "10.231.1.1", str(port), "1").startswith("no:")
        ok("start", "web")
        assert address("web") == inside, "the address is the container's as long as it is there"


def test_a_container_reaches_other_hosts_and_bears_the_hosts_address(py: str) -> None:
    with other_host(2):
        name = f"clo{os.getpid()}-2"
        command = ["ip", "netns", "exec", name, sys.executable, "-I", "-c", ECHO, "tcp", "7777"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None and server.stdout.readline() == "ready\n"
                assert from_container(py, "tcp", "10.231.2.2", "7777") == "10.231.2.1 hello"
            finally:
                server.kill()


def test_the_hosts_loopback_is_out_of_reach(py: str) -> None:
    """route_localnet lets packets for 127.0.0.1 go on to containers; none of theirs may come to the host so."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = str(listening.getsockname()[1])
        gateway = json.loads(ok("network", "inspect", "bridge"))[0]["IPAM"]["Config"][0]["Gateway"]
        script = f"{py} -c '{ASK}' tcp 127.0.0.1 {port} 1"
        assert ok("run", "--rm", "py", "sh", "-c", script).startswith("no:")
        routed = f"ip route add 127.0.0.2/32 via {gateway} dev eth0 2>/dev/null; {py} -c '{ASK}' tcp 127.0.0.2 {port} 1"
        assert ok("run", "--rm", "--privileged", "py", "sh", "-c", routed).startswith("no:")
        assert not select.select([listening], [], [], 0)[0]


def test_ports_that_are_taken_are_found_before_anything_starts(store: Path, py: str) -> None:
    port = free_port()
    serve(py, "tcp", 80, "-p", f"{port}:80")
    for flag in (f"{port}:90", f"127.0.0.1:{port}:90"):
        refused = cloche("run", "--rm", "--name", "second", "-p", flag, "py", "sh", "-c", "echo ran")
        assert refused.code == 125 and "ran" not in refused.out
        assert f":{port}/tcp: address already in use (EADDRINUSE)" in refused.err and "hint: " in refused.err
        assert "second" not in ok("ps", "-a", "--format", "{{.Names}}")
    assert here("tcp", "127.0.0.1", str(port)).endswith(" hello"), "the first one's rules are as they were"
    with socket.socket() as mine:
        mine.bind(("", 0))
        mine.listen()
        taken = mine.getsockname()[1]
        assert cloche("run", "--rm", "-p", f"{taken}:80", "py", "true").code == 125
    with socket.socket() as too_late:
        with pytest.raises(OSError, match="in use"):
            too_late.bind(("", port))
        too_late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            too_late.bind(("", port))
            too_late.listen()


def test_ranges_and_ports_that_may_be_any(py: str) -> None:
    ok("run", "-d", "--name", "many", "-p", "80-82", "-p", "127.0.0.1::90/udp", "--expose", "99", "py", "sleep", "100")
    lines = ok("port", "many").splitlines()
    assert [line.split(" -> ")[0] for line in lines] == ["80/tcp", "81/tcp", "82/tcp", "90/udp"]
    assert len({line.rpartition(":")[2] for line in lines}) == 4
    assert lines[3].split(" -> ")[1].startswith("127.0.0.1:")
    base = free_port()
    ok("run", "-d", "--name", "one", "-p", f"{base}-{base + 5}:80", "py", "sleep", "100")
    ok("run", "-d", "--name", "two", "-p", f"{base}-{base + 5}:80", "py", "sleep", "100")
    first, second = (int(ok("port", name, "80").rpartition(":")[2]) for name in ("one", "two"))
    assert first != second and {first, second} <= set(range(base, base + 6))
    ok("run", "-d", "--name", "all", "-P", "--expose", "70", "--expose", "71/udp", "py", "sleep", "100")
    assert [line.split()[0] for line in ok("port", "all").splitlines()] == ["70/tcp", "71/udp"]


def test_networks_are_kept_apart(py: str) -> None:
    port = free_port()
    ok("network", "create", "front")
    ok("network", "create", "--internal", "back")
    there = serve(py, "tcp", 80, "--network", "front", "-p", f"{port}:80")
    assert from_container(py, "tcp", there, "80", "1", flags=("--network", "front")).endswith(" hello")
    assert from_container(py, "tcp", there, "80", "1") == "no: TimeoutError"
    hidden = serve(py, "tcp", 80, "--network", "back", name="hidden")
    assert from_container(py, "tcp", hidden, "80", flags=("--network", "back")).endswith(" hello")
    assert from_container(py, "tcp", hidden, "80", "1") == "no: TimeoutError"
    with other_host(3) as outside:
        assert from_container(py, "tcp", "10.231.3.1", str(port), "1", flags=("--network", "back")).startswith("no:")
        assert from_container(py, "tcp", "10.231.3.1", str(port)).endswith(" hello")
        assert outside("tcp", hidden, "80", "1").startswith("no:")
    both = ("--network", "front", "--network", "back")
    assert from_container(py, "tcp", there, "80", flags=both).endswith(" hello")
    assert from_container(py, "tcp", hidden, "80", flags=both).endswith(" hello")


def test_ipv6_where_it_is_asked_for(py: str) -> None:
    if not os.path.exists("/proc/sys/net/ipv6"):
        pytest.skip("a kernel without IPv6")
    before = Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text()
    try:
        port = free_port()
        ok("network", "create", "--ipv6", "six")
        serve(py, "tcp", 80, "--network", "six", "-p", f"{port}:80", family="6")
        inside = address("web", "GlobalIPv6Address")
        assert inside.startswith("fd")
        assert f"[::]:{port}->80/tcp" in ok("ps", "--format", "{{.Ports}}")
        assert here("tcp", inside, "80").endswith(" hello")
        with other_host(4) as there:
            assert there("tcp", "fd00:231:4::1", str(port)) == "fd00:231:4::2 hello"
            assert there("tcp", "10.231.4.1", str(port)) == "::ffff:10.231.4.2 hello"
            assert there("tcp", inside, "80", "1").startswith("no:")
            assert from_container(py, "tcp", "fd00:231:4::1", str(port), flags=("--network", "six")).endswith(" hello")
        assert sh("cat /proc/sys/net/ipv6/conf/eth0/accept_ra", "--network", "six") == "0"
        assert sh("cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6") == "1", "on a network without"
    finally:
        Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text(before)


def test_networks_as_docker_makes_and_shows_them(store: Path) -> None:
    ok(
        "network",
        "create",
        "--subnet",
        "10.232.7.0/24",
        "--gateway",
        "10.232.7.254",
        "--ip-range",
        "10.232.7.128/25",
        "n",
    )
    ok("run", "-d", "--name", "aa", "--network", "n", "starter", "sleep", "100")
    ok(
        "run",
        "-d",
        "--name",
        "bb",
        "--network",
        "n",
        "--ip",
        "10.232.7.9",
        "--mac-address",
        "02:00:00:00:00:09",
        "starter",
        "sleep",
        "100",
    )
    assert address("aa") == "10.232.7.129" and address("bb") == "10.232.7.9"
    assert address("bb", "Gateway") == "10.232.7.254" and address("bb", "MacAddress") == "02:00:00:00:00:09"
    assert (
        sh("cat /sys/class/net/eth0/address", "--network", "n", "--mac-address", "02:00:00:00:00:0a")
        == "02:00:00:00:00:0a"
    )
    shown = json.loads(ok("network", "inspect", "n"))[0]
    assert {c["Name"]: c["IPv4Address"] for c in shown["Containers"].values()} == {
        "aa": "10.232.7.129/24",
        "bb": "10.232.7.9/24",
    }
    taken = cloche("run", "--rm", "--network", "n", "--ip", "10.232.7.9", "starter", "true")
    assert taken.code == 125 and "Address already in use: 10.232.7.9" in taken.err
    for wrong in ("10.232.8.1", "10.232.7.254", "10.232.7.0", "10.232.7.255"):
        assert cloche("run", "--rm", "--network", "n", "--ip", wrong, "starter", "true").code == 125
    busy = cloche("network", "rm", "n")
    assert busy.code == 1 and "network has active endpoints: aa, bb" in busy.err
    ok("rm", "-f", "aa", "bb")
    link = shown["Link"]
    assert os.path.exists(f"/sys/class/net/{link}")
    assert ok("network", "rm", "n") == "n"
    assert not os.path.exists(f"/sys/class/net/{link}")
    assert cloche("network", "rm", "n").code == 1 and cloche("network", "rm", "-f", "n").code == 0
    assert cloche("network", "rm", "bridge").code == 1
    assert cloche("run", "--rm", "--network", "n", "starter", "true").code == 125
    assert {"bridge", "host", "none"} <= {line.split()[1] for line in ok("network", "ls").splitlines()[1:]}


def test_subnets_that_overlap_with_the_hosts_routes_are_avoided(store: Path) -> None:
    with other_host(5):
        refused = cloche("network", "create", "--subnet", "10.231.0.0/16", "n")
        assert refused.code == 1 and "10.231.5.0/24" in refused.err
    ok("network", "create", "one")
    ok("network", "create", "two")
    ranges = {
        json.loads(ok("network", "inspect", name))[0]["IPAM"]["Config"][0]["Subnet"]
        for name in ("one", "two", "bridge")
    }
    assert len(ranges) == 3
    assert cloche("network", "create", "--subnet", ranges.pop(), "three").code == 1


def test_a_stopped_container_changes_its_networks(store: Path) -> None:
    ok("network", "create", "n")
    ok("create", "--name", "box", "starter", "sh", "-c", "ls /sys/class/net | wc -l")
    ok("network", "connect", "--alias", "x", "n", "box")
    assert cloche("network", "connect", "n", "box").code == 1
    assert ok("start", "-a", "box") == "3"
    ok("network", "disconnect", "bridge", "box")
    assert ok("start", "-a", "box").splitlines()[-1] == "2"
    assert "No such container" in cloche("network", "connect", "n", "nobody").err


def test_rules_that_somebody_flushed_are_made_again(store: Path, py: str) -> None:
    sh("true")
    nftables.host().ask(*nftables.delete_table(table(store)))
    port = free_port()
    serve(py, "tcp", 80, "-p", f"{port}:80")
    assert here("tcp", "127.0.0.1", str(port)).endswith(" hello")


def test_names_of_the_outside(store: Path) -> None:
    text = sh(
        "cat /etc/resolv.conf /etc/hosts",
        "--dns",
        "192.0.2.53",
        "--dns-search",
        "example.org",
        "--dns-opt",
        "ndots:2",
        "--add-host",
        "db:192.0.2.9",
        "--add-host",
        "me:host-gateway",
    )
    assert text.splitlines()[:3] == ["nameserver 192.0.2.53", "search example.org", "options ndots:2"]
    gateway = json.loads(ok("network", "inspect", "bridge"))[0]["IPAM"]["Config"][0]["Gateway"]
    assert "192.0.2.9\tdb\n" in text and f"{gateway}\tme\n" in text


@pytest.mark.parametrize("who", ["keeper", "holder", "both"])
def test_killed_processes_lose_no_port_and_no_link(store: Path, py: str, who: str) -> None:
    port = free_port()
    serve(py, "tcp", 80, "-p", f"{port}:80")
    kill_processes(who)
    assert here("tcp", "127.0.0.1", str(port)).endswith(" hello")
    assert ok("ps", "--format", "{{.Names}}") == "web"
    refused = cloche("run", "--rm", "-p", f"{port}:80", "py", "true")
    assert refused.code == 125, "the port is reserved by whoever came after"
    ok("rm", "-f", "web")
    assert here("tcp", "127.0.0.1", str(port), "1").startswith("no:")
    ok("run", "--rm", "-p", f"{port}:80", "py", "ls", "/")


def test_nothing_is_left_when_the_last_container_is_gone(store: Path) -> None:
    ok("run", "-d", "--name", "box", "-p", "80", "starter", "sleep", "100")
    marks = leftovers.marks(store)
    assert leftovers.interfaces(marks) and leftovers.tables(marks)
    ok("rm", "-f", "box")
    deadline = time.monotonic() + 5
    while len(leftovers.interfaces(marks)) > 1:
        assert time.monotonic() < deadline, "the container's link"
        time.sleep(0.02)
    leftovers.end_store(store)
    assert not leftovers.interfaces(marks) and not leftovers.tables(marks)


def test_a_link_that_somebody_keeps_alive_goes_with_its_container(store: Path) -> None:
    """Another process in the namespace, or a descriptor of it, must not keep an address that is given again."""
    ok("run", "-d", "--name", "box", "starter", "sleep", "100")
    pid = int(ok("inspect", "-f", "{{.State.Pid}}", "box"))
    held = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        ok("rm", "-f", "box")
        deadline = time.monotonic() + 5
        while len(leftovers.interfaces(leftovers.marks(store))) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.close(held)


def test_addresses_are_given_again_the_lowest_first(store: Path) -> None:
    engine = Engine(str(store))
    first = [ok("run", "-d", "--name", f"n{i}", "starter", "sleep", "100") and address(f"n{i}") for i in range(3)]
    assert [a.rpartition(".")[2] for a in first] == ["2", "3", "4"]
    ok("rm", "-f", "n1")
    ok("run", "-d", "--name", "again", "starter", "sleep", "100")
    assert address("again") == first[1]
    engine.close()


FIREWALL = """
table ip filter {
    %s
    chain FORWARD { type filter hook forward priority 0; policy drop; %s }
}
"""


@pytest.mark.requires("program:nft", "program:unshare")
@pytest.mark.parametrize("owner", ["docker", "somebody"])
def test_another_firewall_that_drops_what_is_forwarded(store: Path, owner: str) -> None:
    """In a network namespace of its own, for the host's firewall is not ours to try."""
    docker = owner == "docker"
    rules = FIREWALL % (("chain DOCKER-USER { }", "jump DOCKER-USER;") if docker else ("", ""))
    start = "import sys; from cloche.cli.main import program; program()"
    script = (
        'set -e; ip link set lo up; echo "$RULES" | nft -f -\n'
        '"$PYTHON" -c "$START" run --rm starter true\n'
        "nft list table ip filter\n"
        '"$PYTHON" -c "$END"\n'
        "nft list table ip filter; ls /sys/class/net\n"
    )
    end = (
        "from cloche.engine.containers import Engine\nfrom cloche.engine.protocol import receive\n"
        "e = Engine(); e.keeper.ask({'op': 'end'})\nimport os, json, select\n"
        "print('ended')\nfrom cloche.engine.client import connect\nimport time\n"
        "while os.path.exists(e.store.socket) and connect(e.store, start=False): time.sleep(0.02)\n"
    )
    env = {**os.environ, "RULES": rules, "PYTHON": sys.executable, "START": start, "END": end}
    command = ["unshare", "-n", "sh", "-c", script]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    during, after = done.stdout.split("ended")
    link = json.loads(ok("network", "inspect", "bridge"))[0]["Link"]
    if docker:
        assert f'iifname "{link}" counter' in during and f'oifname "{link}" counter' in during and not done.stderr
        assert link not in after
    else:
        assert "the firewall chain ip filter FORWARD drops" in done.stderr and f"$way {link} accept" in done.stderr


def test_a_port_is_free_when_its_container_is_gone(store: Path) -> None:
    """The holder has the socket too: whoever hears of the end must find it closed there as well."""
    port = free_port()
    for number in range(25):
        name = f"box{number}"
        ok("run", "-d", "--name", name, "-p", f"{port}:80", "starter", "sleep", "1000")
        ok("rm", "-f", name)
    for _ in range(10):
        ok("run", "--rm", "-p", f"{port}:80", "starter", "true")


def test_every_user_of_a_container_may_bind_every_port(py: str) -> None:
    script = "import socket; s = socket.socket(); s.bind(('', 80)); print('bound')"
    assert ok("run", "--rm", "-u", "1000", "--cap-drop", "ALL", "py", py, "-c", script) == "bound"
    ping = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP); print('may ping')"
    assert ok("run", "--rm", "-u", "1000", "--cap-drop", "ALL", "py", py, "-c", ping) == "may ping"
    assert sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "--userns", "auto") == "0"
    asked = sh(
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "--sysctl", "net.ipv4.ip_unprivileged_port_start=99"
    )
    assert asked == "99"


@pytest.mark.parametrize("mode", ["none", "host"])
def test_ports_that_lead_nowhere_are_said(mode: str) -> None:
    done = cloche("run", "--rm", "--network", mode, "-p", "80", "starter", "echo", "ran")
    assert (done.code, done.out) == (0, "ran\n") and "published ports are discarded" in done.err


FAITHFUL = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(0.5); s.bind(("", 0))
print("ready", flush=True)
for line in sys.stdin:
    s.sendto(line.encode(), (sys.argv[1], int(sys.argv[2])))
    try: print(s.recv(100).decode().split()[-1], flush=True)
    except OSError as error: print("no:", type(error).__name__, flush=True)
"""


@pytest.mark.parametrize("where", ["", "10.231.6.1:"])
def test_a_client_that_keeps_its_port_reaches_the_container_that_is_there_now(py: str, where: str) -> None:
    """UDP has no end: the kernel takes it for the flow to the container that is gone, unless it is told."""
    port = free_port(socket.SOCK_DGRAM)
    with other_host(6):
        command = ["ip", "netns", "exec", f"clo{os.getpid()}-6", sys.executable, "-I", "-c", FAITHFUL]
        with subprocess.Popen(
            [*command, "10.231.6.1", str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        ) as client:
            assert client.stdin is not None and client.stdout is not None

            def said(word: str) -> str:
                client.stdin.write(word + "\n")  # type: ignore[union-attr]
                return client.stdout.readline().strip()  # type: ignore[union-attr]

            assert client.stdout.readline() == "ready\n"
            assert said("nobody").startswith("no:"), "a flow to a port that nobody has published yet"
            first = serve(py, "udp", 53, "-p", f"{where}{port}:53/udp", name="first")
            assert said("one") == "one"
            ok("rm", "-f", "first")
            assert said("gone").startswith("no:")
            ok("run", "-d", "--name", "between", "py", "sleep", "1000")  # has the address of the first, maybe
            assert serve(py, "udp", 53, "-p", f"{where}{port}:53/udp", name="second") != first
            assert said("two") == "two"
            client.stdin.close()
