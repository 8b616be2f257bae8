"""How many containers: N of them alive at once, the rate, what they weigh, what `ps` takes, all stopped, nothing left.

    python bench/density.py N [--clients 2] [--network none|bridge] [--root DIR]

Each is `sleep` with its own namespaces and control groups, started through the SDK by a few client processes. Memory is
what the machine has less of (MemAvailable: processes, page tables, slab, everything), divided by N. Stopping is
`cloche stop -t 1` of all: `sleep` as PID 1 does not listen to SIGTERM. The store has a disk of its own (see disks.py),
or is the one that --root names. Needs N processes and about 3 N descriptors for
each of holder and keeper; what the machine refuses is said by the container that meets it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from disks import disk, private_mounts

TREE = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(TREE / 'src')!r}); "]
GOALS = "goals: >= 100 a second, <= 2 MB each, ps <= 0.3 s of 4000, stop of all <= 60 s, nothing left"


def available() -> int:
    """Bytes that the machine could give."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    raise OSError("no MemAvailable in /proc/meminfo")


def client(number: int, network: str) -> subprocess.Popen[bytes]:
    """A process that starts so many containers."""
    script = (
        "from cloche.sdk import Client\n"
        "with Client() as client:\n"
        f"    for _ in range({number}):\n"
        f"        client.run('starter', ['sleep', '1000000'], detach=True, network={network!r})\n"
    )
    return subprocess.Popen([*COMMAND[:-1], COMMAND[-1] + f"exec({script!r})"])


def cloche(*arguments: str) -> tuple[float, list[str]]:
    """Seconds of a command, and its lines."""
    began = time.perf_counter()
    program = COMMAND[-1] + "from cloche.cli.main import program; program()"
    done = subprocess.run([*COMMAND[:-1], program, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - began, done.stdout.splitlines()


def proportional(pid: str) -> int:
    """Bytes of a process, shared ones divided among those who share them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0


def left(root: Path) -> list[str]:
    """Control groups, mounts and directories of the store that are still there."""
    from cloche.engine.store import locate

    store = locate(str(root))
    groups = [str(p) for p in Path("/sys/fs/cgroup").glob(f"**/{store.parent}/*") if p.is_dir() and p.name != "keeper"]
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{root}/" in line]
    return [*groups, *mounts, *map(str, (root / "containers").iterdir()), *map(str, (root / "run/plans").iterdir())]


def measure(number: int, clients: int, network: str, root: Path) -> None:
    """Print one line a figure. Raises CalledProcessError."""
    cloche("run", "--rm", "--network", network, "starter", "true")
    before, began = available(), time.perf_counter()
    share = [number // clients + (k < number % clients) for k in range(clients)]
    workers = [client(part, network) for part in share]
    if sum(worker.wait() for worker in workers):
        raise SystemExit("density: a client could not start all of its containers; see its message above")
    seconds = time.perf_counter() - began
    print(f"{number} containers alive in {seconds:.1f} s: {number / seconds:.0f} a second")
    time.sleep(1)
    print(f"memory, all told: {(before - available()) / number / 1e6:.2f} MB each")
    holder, keeper = (root / "run/keeper/pids").read_text().split()
    for name, pid in (("holder", holder), ("keeper", keeper)):
        fds = len(os.listdir(f"/proc/{pid}/fd"))
        print(f"{name}: {proportional(pid) / 1e6:.1f} MB, {fds} descriptors")
    listed = [cloche("ps") for _ in range(5)]
    assert len(listed[0][1]) == number + 1
    print(f"ps: {min(seconds for seconds, _ in listed):.2f} s")
    idents = cloche("ps", "-aq", "--no-trunc")[1]
    seconds, said = cloche("stop", "-t", "1", *idents)
    assert len(said) == number
    print(f"stop of all: {seconds:.1f} s")
    seconds, said = cloche("rm", *idents)
    assert len(said) == number
    print(f"rm of all: {seconds:.1f} s")
    time.sleep(2)
    print(f"left: {left(root) or 'nothing'}")
    print(f"memory that did not come back: {(before - available()) / 1e6:.0f} MB")
    print(GOALS)


def end_keeper(root: Path) -> None:
    """Of the store that was made for this; its disk goes behind it."""
    from cloche.sdk import Client

    with Client(str(root)) as client:
        client.engine.keeper.ask({"op": "end"})


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="thousands of containers at once")
    parser.add_argument("number", type=int)
    parser.add_argument("--clients", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--network", choices=("none", "bridge"), default="none")
    parser.add_argument("--root", type=Path)
    wanted = parser.parse_args()
    sys.path.insert(0, str(TREE / "src"))
    with ExitStack() as stack:
        root = wanted.root
        if not root:
            private_mounts()
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cloche-density-", dir="/var/tmp"))
            root = stack.enter_context(disk(Path(folder)))
            stack.callback(end_keeper, root)
        os.environ["CLOCHE_ROOT"] = str(root)
        try:
            measure(wanted.number, wanted.clients, wanted.network, root)
        finally:
            if idents := cloche("ps", "-aq", "--no-trunc")[1]:
                cloche("rm", "-f", *idents)


if __name__ == "__main__":
    main()
