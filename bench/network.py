"""What a container's network carries: TCP between two containers and to the host, beside the same made with `ip`.

    python bench/network.py [--rounds N] [--megabytes M] [--json FILE]

Both ways have two network namespaces, each with a veth whose other end is a port of a bridge. iperf3 runs in them in
turns, the program of the host in both cases, so only the links differ, and the rules that cloche has beside them. In
each round each way is measured once, for a short time, in an order by chance. Figures are Gbit/s as the receiver counts
them, medians of the rounds; the ratio is the median of the rounds' own ratios, for a machine that others use too does
twice as much in one second as in the next. The goal is 0.95 of what is carried by hand. Needs root and iperf3.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peers import BUILD, BenchError, output, scratch_folder

PORT = "5201"


class Way:
    """Two ends and the host between them: words that bring a command into an end, the addresses."""

    def __init__(self, name: str, one: list[str], two: list[str], address: str, gateway: str) -> None:
        self.name, self.one, self.two, self.address, self.gateway = name, one, two, address, gateway

    def measure(self, megabytes: int) -> dict[str, float]:
        """Gbit/s from one end to the other, and from an end to the host."""
        between = carried(self.two, self.address, self.one, megabytes)
        return {"between": between, "to the host": carried([], self.gateway, self.one, megabytes)}


def carried(server: list[str], address: str, client: list[str], megabytes: int) -> float:
    """What iperf3 carries, in Gbit/s. Raises BenchError."""
    listening = [*server, "iperf3", "--server", "--one-off", "--port", PORT, "--json"]
    with subprocess.Popen(listening, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            asked = [*client, "iperf3", "--client", address, "--port", PORT, "--bytes", f"{megabytes}M", "--json"]
            for _ in range(100):
                done = subprocess.run(asked, capture_output=True, text=True, timeout=30)
                said = json.loads(done.stdout) if done.stdout else {}
                if not done.returncode and "sum_received" in said.get("end", {}):
                    return float(said["end"]["sum_received"]["bits_per_second"]) / 1e9
                time.sleep(0.05)  # nothing tells when the server listens
            raise BenchError(f"measure with iperf3: {said.get('error', done.stderr)}")
        finally:
            process.kill()


@contextmanager
def by_hand() -> Iterator[Way]:
    """What a page about networks tells to type."""
    mark = f"b{os.getpid()}"
    ends = [f"{mark}-1", f"{mark}-2"]
    bridge, subnet = f"{mark}-br", "10.223.77."
    try:
        output("ip", "link", "add", bridge, "type", "bridge")
        output("ip", "address", "add", f"{subnet}1/24", "dev", bridge)
        output("ip", "link", "set", bridge, "up")
        for number, end in enumerate(ends, 2):
            output("ip", "netns", "add", end)
            output("ip", "link", "add", f"{mark}-v{number}", "type", "veth", "peer", "name", "eth0", "netns", end)
            output("ip", "link", "set", f"{mark}-v{number}", "master", bridge, "up")
            output("ip", "-n", end, "address", "add", f"{subnet}{number}/24", "dev", "eth0")
            output("ip", "-n", end, "link", "set", "eth0", "up")
            output("ip", "-n", end, "route", "add", "default", "via", f"{subnet}1")
        enter = [["ip", "netns", "exec", end] for end in ends]
        yield Way("by hand", enter[0], enter[1], f"{subnet}3", f"{subnet}1")
    finally:
        for end in ends:
            subprocess.run(["ip", "netns", "delete", end], stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "link", "delete", bridge], stderr=subprocess.DEVNULL)


@contextmanager
def cloche(scratch: Path, network: str) -> Iterator[Way]:
    """Two containers on the default bridge, or on a network with a name."""
    from cloche.sdk import Client

    with Client(str(scratch / network)) as client:
        try:
            if network != "bridge":
                client.networks.create(network)
            boxes = [client.run("starter", ["sleep", "86400"], network=network, detach=True) for _ in range(2)]
            enter = [["nsenter", "--net", "--target", str(box.pid)] for box in boxes]
            found: list[dict[str, Any]] = [box.inspect()["NetworkSettings"]["Networks"][network] for box in boxes]
            yield Way(f"cloche, {network}", enter[0], enter[1], found[1]["IPAddress"], found[1]["Gateway"])
        finally:
            for container in client.containers(all=True):
                container.remove(force=True)
            client.engine.keeper.ask({"op": "end"})


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description="What a container's network carries.")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--megabytes", type=int, default=500, help="of each measurement")
    parser.add_argument("--json", type=Path, default=BUILD / "network.json", metavar="FILE")
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {}
    with scratch_folder() as scratch, by_hand() as hand:
        with cloche(scratch, "bridge") as bridge, cloche(scratch, "named") as named:
            for number in range(options.rounds):
                print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
                for way in random.sample([hand, bridge, named], 3):
                    found.setdefault(way.name, []).append(way.measure(options.megabytes))
    print(f"\nkernel {platform.release()}, {os.cpu_count()} cores; Gbit/s, median of {options.rounds} rounds\n")
    for name, rounds in found.items():
        cells = []
        for what in rounds[0]:
            ratios = [mine[what] / hands[what] for mine, hands in zip(rounds, found["by hand"], strict=True)]
            cells.append(f"{what} {median([r[what] for r in rounds]):6.2f} ({median(ratios):.2f}x)")
        print(f"{name:<16}" + "    ".join(cells))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, OSError, subprocess.TimeoutExpired) as error:
        sys.exit(f"bench: {error}")
