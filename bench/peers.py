"""What a container costs: the floor, other engines and cloche in one run, back to back and with pauses, as ratios.

    python bench/peers.py [--runs N] [--paused N] [--pause SECONDS] [--only WORD,...] [--json FILE]

Every row runs the same static `true` with its own network namespace and no network, but for `run, bridge`: cloche's
and docker's default network, a link, an address and a route more. Times are wall clock of the whole way, create to
delete; a machine that was idle for 0.3 s behaves differently from a busy one, so both rhythms are shown. Each group
has a disk of its own (see disks.py). The peers are those of tools/peers and run in its mount namespace; the floor
(bench/floor.c) and cloche run outside of it. Rows of `runc` and `crun` have no image, no layers and no log; `podman`
and `docker` have.

To measure something else, write a function that returns `Candidate`s and put it into OUTSIDE (or INSIDE, among the
peers).
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import platform
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from disks import disk, private_mounts

TREE = Path(__file__).resolve().parent.parent
BUILD = TREE / "build/bench"
OCI = TREE / "src/cloche/runtime/cloche-oci"
ROOTFS, FLOOR, PEERS = BUILD / "rootfs", BUILD / "floor", TREE / "tools/peers"
WARM = 3

Figures = dict[str, float]


class Rhythm:
    """How often a candidate is run, and how long the machine is left alone before each time."""

    def __init__(self, runs: int, pause: float) -> None:
        self.runs, self.pause = runs, pause


class Candidate:
    """Something that is measured: `once` does it one time or raises; `measure` may be another's, with its own clock."""

    def __init__(self, name: str, kind: str, version: str, once: Callable[[], None]) -> None:
        self.name, self.kind, self.version, self.once = name, kind, version, once

    def measure(self, rhythm: Rhythm) -> Figures:
        times = []
        for number in range(-WARM, rhythm.runs):
            time.sleep(rhythm.pause)
            began = time.perf_counter()
            self.once()
            if number >= 0:
                times.append(1e3 * (time.perf_counter() - began))
        times.sort()
        return {"median_ms": times[len(times) // 2], "p90_ms": times[len(times) * 9 // 10]}


class FloorCandidate(Candidate):
    """The C program: it measures itself, so that no process start is counted."""

    def __init__(self, scratch: Path) -> None:
        super().__init__("floor", "run", "C", lambda: None)
        self.scratch = scratch

    def measure(self, rhythm: Rhythm) -> Figures:
        pause = str(round(1e3 * rhythm.pause))
        said = json.loads(output(str(FLOOR), str(ROOTFS), str(self.scratch), str(rhythm.runs), pause))
        self.version = f"C, cgroups {said['cgroups']}"
        return {"median_ms": said["median_ms"], "p90_ms": said["p90_ms"]}


class BenchError(Exception):
    """A candidate could not be set up or failed; the text says which and why."""


def output(*command: str, cwd: Path | None = None, stdin: bytes = b"") -> str:
    """What a command says on stdout. Raises BenchError with its last word on stderr."""
    done = subprocess.run(command, capture_output=True, cwd=cwd, input=stdin)
    if done.returncode:
        said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        raise BenchError(f"{command[0]}: {said[-1] if said else f'exit status {done.returncode}'}")
    return done.stdout.decode()


def command(*words: str, environment: dict[str, str] | None = None) -> Callable[[], None]:
    """A `once` that runs one command to its end, without a shell."""
    path = shutil.which(words[0]) or words[0]
    nothing = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1)]

    def once() -> None:
        pid = os.posix_spawn(path, words, environment or dict(os.environ), file_actions=nothing)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code:
            raise BenchError(f"{' '.join(words)}: exit status {code}")

    return once


def build() -> None:
    """The floor and the benchmark's root file system, from C."""
    for name in ("bin", "proc", "dev", "sys", "tmp", "etc"):
        (ROOTFS / name).mkdir(parents=True, exist_ok=True)
    compiler = next((name for name in ("musl-gcc", "gcc", "cc") if shutil.which(name)), None)
    if compiler is None:
        raise BenchError("build the floor: no C compiler; hint: apt-get install musl-tools gcc")
    for source, program in (("floor.c", FLOOR), ("true.c", ROOTFS / "bin/true")):
        where = TREE / "bench" / source
        if not program.exists() or program.stat().st_mtime < where.stat().st_mtime:
            output(compiler, "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-s", "-o", str(program), str(where))


# --- outside the peers' namespace -------------------------------------------------------------------------------------


@contextmanager
def floor(scratch: Path) -> Iterator[list[Candidate]]:
    yield [FloorCandidate(scratch)]


@contextmanager
def cloche(scratch: Path) -> Iterator[list[Candidate]]:
    """The SDK to a warm keeper and the command line, on a store of its own."""
    import compileall

    from cloche.engine.containers import Engine
    from cloche.engine.request import Program, RunRequest
    from cloche.version import VERSION

    source = Path(__file__).resolve().parents[1] / "src"
    compileall.compile_dir(source, quiet=1)  # as an installed package is
    root = str(scratch / "cloche")
    engine = Engine(root)
    alone = RunRequest("starter", Program(("true",)), network="none", remove=True)

    def sdk(request: RunRequest = alone) -> None:
        container = engine.create(request)
        engine.start(container)
        if engine.wait(container)[0] != 0:
            raise BenchError("true is not true")

    def command(*words: str) -> None:
        output(str(Path(sys.executable).with_name("cloche")), "--root", root, *words)

    try:
        sdk()
        held = engine.create(RunRequest("starter", Program(("sleep", "86400")), network="none"))
        engine.start(held)
        yield [
            Candidate("cloche, SDK", "run", VERSION, sdk),
            Candidate("cloche", "run", VERSION, lambda: command("run", "--rm", "--network=none", "starter", "true")),
            Candidate("cloche", "exec", VERSION, lambda: command("exec", held.id, "true")),
            Candidate("cloche, SDK", "run, bridge", VERSION, lambda: sdk(alone.replace(network="bridge"))),
            Candidate("cloche", "run, bridge", VERSION, lambda: command("run", "--rm", "starter", "true")),
        ]
    finally:
        for container in engine.containers():
            engine.remove(container, force=True)
        engine.keeper.ask({"op": "end"})
        engine.close()


OUTSIDE = (floor, cloche)


# --- inside: the peers ------------------------------------------------------------------------------------------------


def bundle(folder: Path) -> None:
    """An OCI bundle of the root file system, as `runc spec` makes it, for `true` without a terminal."""
    folder.mkdir()
    output("runc", "spec", cwd=folder)
    config = json.loads((folder / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["/bin/true"]}
    config["root"] = {"path": str(ROOTFS), "readonly": False}
    (folder / "config.json").write_text(json.dumps(config))


def in_three_calls(binary: str, root: Path, folder: Path) -> Callable[[], None]:
    """create, start, delete, as engines call a runtime; `true` has ended before the last."""
    words, pid_file = (binary, "--root", str(root)), root.with_suffix(".pid")
    create = command(*words, "create", "-b", str(folder), "--pid-file", str(pid_file), "bench")
    start, delete = command(*words, "start", "bench"), command(*words, "delete", "bench")

    def once() -> None:
        create()
        handle = os.pidfd_open(int(pid_file.read_text()))
        try:
            start()
            select.select([handle], [], [])
        finally:
            os.close(handle)
        delete()

    return once


@contextmanager
def oci_runtimes(scratch: Path) -> Iterator[list[Candidate]]:
    """The runtimes, ours among them: what they do is the same, and so is where."""
    bundle(scratch / "bundle")
    found = []
    for name, binary in (("cloche-oci", str(OCI)), ("runc", "runc"), ("crun", "crun")):
        version = output(binary, "--version").split("\n")[0].split()[-1]
        root, folder = scratch / name, scratch / "bundle"
        once = command(binary, "--root", str(root), "run", "-b", str(folder), f"bench-{name}")
        found.append(Candidate(name, "run", version, once))
        found.append(Candidate(name, "create, start, delete", version, in_three_calls(binary, root, folder)))
    yield found


@contextmanager
def podman(scratch: Path) -> Iterator[list[Candidate]]:
    flags = ["--root", f"{scratch}/podman", "--runroot", f"{scratch}/podman-run", "--tmpdir", f"{scratch}/podman-tmp"]
    flags += ["--cgroup-manager", "cgroupfs", "--events-backend", "none"]
    os.environ["PODMAN_IGNORE_CGROUPSV1_WARNING"] = "1"
    yield from engine("podman", ["podman", *flags], output("podman", "--version").split()[-1])


@contextmanager
def docker(scratch: Path) -> Iterator[list[Candidate]]:
    """Its daemon in a network namespace of its own: bridge and rules are made there, and end with it."""
    address = f"{scratch}/docker.sock"
    daemon = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
    daemon += ["dockerd", "--host", f"unix://{address}", "--data-root", f"{scratch}/docker"]
    daemon += ["--exec-root", f"{scratch}/docker-run", "--pidfile", f"{scratch}/docker.pid"]
    daemon += ["--exec-opt", "native.cgroupdriver=cgroupfs"]
    log = scratch / "dockerd.log"
    with open(log, "wb") as stream, subprocess.Popen(daemon, stdout=stream, stderr=stream) as process:
        try:
            await_socket(address, process, log)
            words, version = (
                ["docker", "--host", f"unix://{address}"],
                output("dockerd", "--version").split()[2].rstrip(","),
            )
            bridged = command(*words, "run", "--rm", "bench", "/bin/true")
            for candidates in engine("docker", words, version):
                yield [*candidates, Candidate("docker", "run, bridge", version, bridged)]
        finally:
            process.send_signal(signal.SIGTERM)


def await_socket(address: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    """Waits until the daemon answers. Raises BenchError with its last word when it ends or the time is up."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(address)
            except OSError:
                time.sleep(0.05)  # nothing tells when a daemon without a manager is ready
                continue
        return
    raise BenchError(f"start dockerd: {log.read_text(errors='replace').splitlines()[-1:]}")


def engine(name: str, words: list[str], version: str) -> Iterator[list[Candidate]]:
    """`run` and `exec` of an engine with docker's command line; its image is the same root file system."""
    tree = subprocess.run(["tar", "-C", str(ROOTFS), "-c", "."], check=True, capture_output=True).stdout
    output(*words, "import", "-", "bench", stdin=tree)
    output(*words, "run", "-d", "--network", "none", "--name", "bench-exec", "bench", "/bin/true", "wait")
    try:
        yield [
            Candidate(name, "run", version, command(*words, "run", "--rm", "--network", "none", "bench", "/bin/true")),
            Candidate(name, "exec", version, command(*words, "exec", "bench-exec", "/bin/true")),
        ]
    finally:
        output(*words, "rm", "-f", "bench-exec")


INSIDE = (oci_runtimes, podman, docker)


def engines_cgroups() -> set[Path]:
    """The cgroups at the top of each tree that docker and podman make for their containers and leave behind."""
    tops = [Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines() if " cgroup" in line]
    return {top / name for top in tops for name in ("docker", "libpod_parent") if (top / name).is_dir()}


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for one group; the cgroups that engines leave behind are taken away, and mounts before the folder."""
    before = engines_cgroups()
    folder = Path(tempfile.mkdtemp(prefix="cloche-bench-"))
    try:
        yield folder
    finally:
        for cgroup in engines_cgroups() - before:
            remove_cgroup(cgroup)
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for point in reversed([point for point in points if Path(point).is_relative_to(folder)]):
            output("umount", "--lazy", point)
        shutil.rmtree(folder)


def remove_cgroup(top: Path, seconds: float = 10) -> None:
    """Removes a tree of cgroups as soon as it is empty: conmon ends a while after its container. Raises OSError."""
    deadline = time.monotonic() + seconds
    for path, _, _ in os.walk(top, topdown=False):
        while True:
            try:
                os.rmdir(path)
                break
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


# --- measuring --------------------------------------------------------------------------------------------------------


def measure(groups: tuple[Any, ...], rhythms: tuple[Rhythm, ...], only: set[str]) -> list[dict[str, Any]]:
    """A row for each candidate of these groups; one that cannot be had or fails is a row with the reason."""
    rows = []
    for group in groups:
        name = group.__name__
        if only and not only & set(name.split("_")):
            continue
        try:
            with scratch_folder() as scratch, disk(scratch) as place, group(place) as candidates:
                rows += [measured(candidate, rhythms) for candidate in candidates]
        except (BenchError, OSError, subprocess.SubprocessError) as error:
            rows.append({"name": name, "kind": "", "version": "", "error": str(error)})
    return rows


def measured(candidate: Candidate, rhythms: tuple[Rhythm, ...]) -> dict[str, Any]:
    print(f"measuring {candidate.name} {candidate.kind}", file=sys.stderr)
    row: dict[str, Any] = {"name": candidate.name, "kind": candidate.kind}
    os.sync()  # an image that has just been made is written to disk now, not while something is measured
    try:
        row["figures"] = [candidate.measure(rhythm) for rhythm in rhythms]
    except (BenchError, OSError) as error:
        row["error"] = str(error)
    return row | {"version": candidate.version}


def measure_inside(arguments: list[str]) -> list[dict[str, Any]]:
    """The peers' rows, measured by this program started once more among them."""
    output(sys.executable, str(PEERS), "fetch")
    with tempfile.NamedTemporaryFile(suffix=".json") as rows:
        inner = [sys.executable, __file__, *arguments, "--inside", rows.name]
        if subprocess.run([sys.executable, str(PEERS), "enter", *inner]).returncode:
            raise BenchError("measure the peers: the run among them failed")
        return list(json.loads(Path(rows.name).read_text()))


def table(rows: list[dict[str, Any]], rhythms: tuple[Rhythm, ...]) -> str:
    """The rows as text: median and 90th percentile in each rhythm, and ratios to the floor's and docker's row."""
    heads = [f"pauses of {rhythm.pause:g} s" if rhythm.pause else "back to back" for rhythm in rhythms]
    lines = [f"{'':<26}" + "".join(f"{head:<40}" for head in heads)]
    lines.append(f"{'':<26}" + f"{'median':>8}{'p90':>8}{'x floor':>9}{'x docker':>10}     " * len(rhythms) + "version")
    for row in rows:
        label = f"{row['name']} {row['kind']}".strip()
        if "error" in row:
            lines.append(f"{label:<26}not measured: {row['error']}")
            continue
        cells = [cell(row, number, rows) for number in range(len(rhythms))]
        lines.append(f"{label:<26}{'     '.join(cells)}     {row['version']}")
    return "\n".join(lines)


def cell(row: dict[str, Any], number: int, rows: list[dict[str, Any]]) -> str:
    mine = row["figures"][number]
    text = f"{mine['median_ms']:8.1f}{mine['p90_ms']:8.1f}"
    for name, width in (("floor", 9), ("docker", 10)):
        other = next((r for r in rows if r["name"] == name and r["kind"] == row["kind"] and "figures" in r), None)
        ratio = f"{mine['median_ms'] / other['figures'][number]['median_ms']:.2f}" if other else "-"
        text += f"{ratio:>{width}}"
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description="What a container costs, beside other engines.")
    parser.add_argument("--runs", type=int, default=50, help="runs back to back")
    parser.add_argument("--paused", type=int, default=20, help="runs with a pause before each")
    parser.add_argument("--pause", type=float, default=0.3, metavar="SECONDS")
    parser.add_argument("--only", default="", metavar="WORD,...", help="floor, cloche, oci, podman, docker")
    parser.add_argument("--json", type=Path, default=BUILD / "peers.json", metavar="FILE")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    rhythms = (Rhythm(options.runs, 0.0), Rhythm(options.paused, options.pause))
    only = {word for word in options.only.split(",") if word}
    if options.inside:
        options.inside.write_text(json.dumps(measure(INSIDE, rhythms, only)))
        return 0
    if os.geteuid():
        raise BenchError("measure: containers of all these engines need root")
    private_mounts()
    build()
    rows = measure(OUTSIDE, rhythms, only)
    if not only or only - {group.__name__ for group in OUTSIDE}:
        rows += measure_inside(sys.argv[1:])
    print(f"\nkernel {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}; milliseconds\n")
    print(table(rows, rhythms))
    options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, OSError) as error:
        sys.exit(f"bench: {error}")
