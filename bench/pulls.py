"""What pulls cost: three images from one registry on loopback, by cloche, podman and docker in turns, as ratios.

    python bench/pulls.py [--rounds N] [--only WORD,...] [--images NAME,...] [--json FILE]

    few    three layers of four files of 16 MB
    many   50,000 files of 0 to 4 KB in 500 directories, one layer
    one    one layer of 1 GB, eight files

What is in the files is text of words and bytes by chance, half and half, so that gzip makes about 60 % of it, as of
programs. They are the same each time, made once and kept in build/bench. The registry is Debian's docker-registry and
its files are in the page cache; each store is empty before each pull, and all that is to be written is on disk before
the clock starts. Each has a disk of its own (see disks.py). Engines take turns in each round, so that a machine that
gets busy is so for all of them. Times are wall clock of the command. cloche has all on disk when it ends (syncfs),
podman and docker leave that to the kernel: the second figure of each is with a sync(1) after it. The peers are those of
tools/peers, run in its mount namespace by this program started once more in there, which is told what to pull line by
line.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from disks import disk, private_mounts
from peers import BUILD, PEERS, BenchError, await_socket, output, scratch_folder

OCI = "application/vnd.oci.image."
IMAGES = ("few", "many", "one")
PAGE = 1 << 12
POOL = 1 << 23  # bytes of which files are made, page by page: more than gzip sees at once


# --- images, and the registry that has them ---------------------------------------------------------------------------


def pool(seed: random.Random) -> bytes:
    words = [seed.randbytes(seed.randint(2, 9)).hex().encode() for _ in range(2000)]
    text = b" ".join(seed.choices(words, k=POOL // 20))[: POOL // 2]
    return text + seed.randbytes(POOL - len(text))


class Layer:
    """A tar that is compressed and told the digest of while it is written."""

    def __init__(self, place: Path) -> None:
        self._file = open(place, "wb")  # noqa: SIM115 - closed by `end`
        self._plain, self._packed = hashlib.sha256(), hashlib.sha256()
        self._gzip = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        self.size = 0

    def write(self, data: bytes) -> int:
        self._plain.update(data)
        self._keep(self._gzip.compress(data))
        return len(data)

    def _keep(self, data: bytes) -> None:
        self._file.write(data)
        self._packed.update(data)
        self.size += len(data)

    def end(self) -> tuple[str, str]:
        """The digests of what was written, plain and compressed."""
        self._keep(self._gzip.flush())
        self._file.close()
        return "sha256:" + self._plain.hexdigest(), "sha256:" + self._packed.hexdigest()


def contents(name: str) -> list[list[tuple[str, int]]]:
    """The files of each layer of an image: name and size."""
    if name == "few":
        return [[(f"layer{n}/file{m}", 16 << 20) for m in range(4)] for n in range(3)]
    if name == "one":
        return [[(f"file{m}", 128 << 20) for m in range(8)]]
    sizes = random.Random(1)
    return [[(f"folder{n % 500:03}/file{n:05}", sizes.randint(0, PAGE)) for n in range(50_000)]]


def make(name: str, folder: Path) -> None:
    """An image as a folder of blobs, and its manifest."""
    seed = random.Random(name)
    stuff = pool(seed)
    layers, diff_ids = [], []
    for number, files in enumerate(contents(name)):
        layer = Layer(folder / f"layer{number}")
        with tarfile.open(fileobj=layer, mode="w|", format=tarfile.GNU_FORMAT) as tar:  # type: ignore[call-overload]
            made: set[str] = set()
            for path, size in files:
                above = os.path.dirname(path)
                if above and above not in made:
                    made.add(above)
                    info = tarfile.TarInfo(above)
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(info)
                info = tarfile.TarInfo(path)
                info.size, info.mode, info.mtime = size, 0o644, 1_700_000_000
                tar.addfile(info, Pages(stuff, seed))
        diff_id, digest = layer.end()
        (folder / f"layer{number}").rename(folder / digest[7:])
        diff_ids.append(diff_id)
        layers.append({"mediaType": OCI + "layer.v1.tar+gzip", "digest": digest, "size": layer.size})
    config = json.dumps(
        {
            "os": "linux",
            "architecture": architecture(),
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    ).encode()
    digest = "sha256:" + hashlib.sha256(config).hexdigest()
    (folder / digest[7:]).write_bytes(config)
    described = {"mediaType": OCI + "config.v1+json", "digest": digest, "size": len(config)}
    manifest = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "config": described, "layers": layers}
    (folder / "manifest.json").write_text(json.dumps(manifest))


class Pages(io.RawIOBase):
    """A file without end: pages of `stuff`, by chance."""

    def __init__(self, stuff: bytes, seed: random.Random) -> None:
        self._stuff, self._seed = stuff, seed

    def read(self, size: int = -1) -> bytes:
        count = -(-size // PAGE)
        places = (self._seed.randrange(POOL // PAGE) * PAGE for _ in range(count))
        return b"".join(self._stuff[at : at + PAGE] for at in places)[:size]


def architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def images(names: list[str]) -> dict[str, Path]:
    """Folders of the images, made where they are not there."""
    found = {}
    for name in names:
        found[name] = BUILD / "images" / name
        if not (found[name] / "manifest.json").exists():
            print(f"making the image {name}", file=sys.stderr)
            shutil.rmtree(found[name], ignore_errors=True)
            found[name].mkdir(parents=True)
            make(name, found[name])
    return found


@contextmanager
def registry(made: dict[str, Path]) -> Iterator[str]:
    """Debian's docker-registry on loopback with these images; gives host:port. Its files are links to theirs."""
    if not shutil.which("docker-registry"):
        raise BenchError("start a registry: no docker-registry; hint: apt-get install docker-registry")
    with tempfile.TemporaryDirectory(prefix="registry-", dir=BUILD) as place, socket.socket() as taken:
        for name, folder in made.items():
            fill(Path(place) / "docker/registry/v2", name, folder)
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.close()
        config = Path(place) / "config.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
            f"storage: {{filesystem: {{rootdirectory: {place}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
        )
        with open(Path(place) / "log", "wb") as log:
            process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                if process.poll() is not None:
                    raise BenchError(f"start a registry: {(Path(place) / 'log').read_text()[-300:]}")
                select.select([], [], [], 0.02)
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def fill(place: Path, name: str, folder: Path) -> None:
    """What docker-registry has on disk after a push."""
    manifest = (folder / "manifest.json").read_bytes()
    digest = hashlib.sha256(manifest).hexdigest()
    told = json.loads(manifest)
    links = place / "repositories" / name
    for described in (told["config"], *told["layers"]):
        file = described["digest"][7:]
        blob = place / "blobs/sha256" / file[:2] / file / "data"
        blob.parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / file, blob)
        _link(links / "_layers/sha256" / file / "link", file)
    blob = place / "blobs/sha256" / digest[:2] / digest / "data"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(manifest)
    _link(links / "_manifests/revisions/sha256" / digest / "link", digest)
    _link(links / "_manifests/tags/latest/current/link", digest)
    _link(links / "_manifests/tags/latest/index/sha256" / digest / "link", digest)


def _link(place: Path, digest: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("sha256:" + digest)


# --- who pulls --------------------------------------------------------------------------------------------------------


class Puller:
    """An engine: `pull` fetches an image, `forget` empties its store of all images."""

    def __init__(self, name: str, version: str, pull: Callable[[str], None], forget: Callable[[str], None]) -> None:
        self.name, self.version, self._pull, self.forget = name, version, pull, forget

    def measure(self, image: str) -> tuple[float, float]:
        """Seconds of one pull into an empty store, and with all of it on disk."""
        os.sync()
        began = time.perf_counter()
        self._pull(image)
        there = time.perf_counter() - began
        os.sync()
        written = time.perf_counter() - began
        self.forget(image)
        os.sync()
        return there, written


@contextmanager
def cloche(scratch: Path) -> Iterator[Puller]:
    from cloche.version import VERSION

    words = [str(Path(sys.executable).with_name("cloche")), "--root", f"{scratch}/cloche"]

    def forget(image: str) -> None:
        output(*words, "rmi", image)
        left = [path for path in (scratch / "cloche/content").rglob("*") if path.is_file()]
        if left:
            raise BenchError(f"cloche has kept {left[0]} after rmi")

    yield Puller("cloche", VERSION, lambda image: void(output(*words, "pull", "-q", image)), forget)


@contextmanager
def podman(scratch: Path) -> Iterator[Puller]:
    words = ["podman", "--root", f"{scratch}/podman", "--runroot", f"{scratch}/podman-run"]
    words += ["--tmpdir", f"{scratch}/podman-tmp", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]
    os.environ["PODMAN_IGNORE_CGROUPSV1_WARNING"] = "1"

    def pull(image: str) -> None:
        output(*words, "pull", "-q", "--tls-verify=false", image)

    version = output("podman", "--version").split()[-1]
    yield Puller("podman", version, pull, lambda image: void(output(*words, "rmi", "-f", image)))


@contextmanager
def docker(scratch: Path) -> Iterator[Puller]:
    address = f"{scratch}/docker.sock"
    daemon = ["dockerd", "--host", f"unix://{address}", "--data-root", f"{scratch}/docker", "--bridge", "none"]
    daemon += ["--exec-root", f"{scratch}/docker-run", "--pidfile", f"{scratch}/docker.pid"]
    daemon += ["--iptables=false", "--ip6tables=false", "--exec-opt", "native.cgroupdriver=cgroupfs"]
    words = ["docker", "--host", f"unix://{address}"]
    log = scratch / "dockerd.log"
    with open(log, "wb") as stream, subprocess.Popen(daemon, stdout=stream, stderr=stream) as process:
        try:
            await_socket(address, process, log)
            version = output("dockerd", "--version").split()[2].rstrip(",")
            driver = output(*words, "info", "--format", "{{.Driver}}").strip()
            yield Puller(
                "docker",
                f"{version}, {driver}",
                lambda image: void(output(*words, "pull", "-q", image)),
                lambda image: void(output(*words, "rmi", "-f", image)),
            )
        finally:
            process.send_signal(signal.SIGTERM)


def void(_: str) -> None:
    pass


def serve(names: list[str]) -> None:
    """Among the peers: pull what each line of stdin names, `ENGINE IMAGE`, and answer each by a line of JSON."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    with scratch_folder() as scratch, ExitStack() as stack:
        pullers = {}
        for group in (podman, docker):
            if group.__name__ in names:
                (scratch / group.__name__).mkdir()
                puller = stack.enter_context(group(stack.enter_context(disk(scratch / group.__name__))))
                pullers[puller.name] = puller
        answers.write(json.dumps({name: puller.version for name, puller in pullers.items()}) + "\n")
        for line in sys.stdin:
            name, image = line.split()
            try:
                answers.write(json.dumps(pullers[name].measure(image)) + "\n")
            except BenchError as error:
                answers.write(json.dumps(str(error)) + "\n")


class Peers:
    """The other side of `serve`."""

    def __init__(self, names: list[str]) -> None:
        output(sys.executable, str(PEERS), "fetch")
        inner = [sys.executable, __file__, "--serve", ",".join(names)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen([sys.executable, str(PEERS), "enter", *inner], **pipes)
        self.versions: dict[str, str] = self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError("measure the peers: the run among them failed")
        return json.loads(line)

    def measure(self, name: str, image: str) -> tuple[float, float]:
        _stream(self._process.stdin).write(f"{name} {image}\n".encode())
        _stream(self._process.stdin).flush()
        said = self._answer()
        if isinstance(said, str):
            raise BenchError(said)
        return said[0], said[1]

    def close(self) -> None:
        _stream(self._process.stdin).close()
        self._process.wait()


def _stream(stream: Any) -> BinaryIO:
    assert stream is not None
    return stream  # type: ignore[no-any-return]


# --- measuring --------------------------------------------------------------------------------------------------------


def measure(rounds: int, engines: list[str], names: list[str]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Seconds of each round, by image and engine."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    with scratch_folder() as scratch, ExitStack() as stack, registry(images(names)) as address:
        others = [name for name in engines if name != "cloche"]
        peers = Peers(others) if others else None
        if peers:
            stack.callback(peers.close)
        own = stack.enter_context(cloche(stack.enter_context(disk(scratch)))) if "cloche" in engines else None
        versions = {**({"cloche": own.version} if own else {}), **(peers.versions if peers else {})}
        for name in names:
            rows = found[name] = {f"{engine} {version}": [] for engine, version in versions.items()}
            for number in range(rounds + 1):  # the first warms the page cache, and is not counted
                for engine, version in versions.items():
                    image = f"{address}/{name}:latest"
                    print(f"round {number} of {rounds}: {engine} pulls {name}", file=sys.stderr)
                    time = own.measure(image) if own and engine == "cloche" else _asked(peers, engine, image)
                    if number:
                        rows[f"{engine} {version}"].append(time)
    return found


def _asked(peers: Peers | None, engine: str, image: str) -> tuple[float, float]:
    assert peers is not None
    return peers.measure(engine, image)


def middle(numbers: list[float]) -> float:
    return sorted(numbers)[len(numbers) // 2]


def table(found: dict[str, dict[str, list[tuple[float, float]]]]) -> str:
    """Median and least seconds of each engine and image, and the ratio of the medians to cloche's."""
    lines = [f"{'':<34}{'median':>8}{'least':>8}{'x cloche':>10}     {'on disk':>8}{'least':>8}{'x cloche':>10}"]
    for image, rows in found.items():
        own = next((times for name, times in rows.items() if name.startswith("cloche ")), None)
        for name, times in rows.items():
            cells = []
            for number in (0, 1):
                mine = [time[number] for time in times]
                ratio = f"{middle(mine) / middle([time[number] for time in own]):.2f}" if own else "-"
                cells.append(f"{middle(mine):8.2f}{min(mine):8.2f}{ratio:>10}")
            lines.append(f"{image + ' ' + name:<34}{'     '.join(cells)}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="What pulls cost, beside other engines.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="cloche,podman,docker", metavar="WORD,...")
    parser.add_argument("--images", default=",".join(IMAGES), metavar="NAME,...")
    parser.add_argument("--json", type=Path, default=BUILD / "pulls.json", metavar="FILE")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve.split(","))
        return 0
    if os.geteuid():
        raise BenchError("measure: stores of all these engines need root")
    BUILD.mkdir(parents=True, exist_ok=True)
    private_mounts()
    found = measure(options.rounds, options.only.split(","), options.images.split(","))
    print(f"\nkernel {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}; seconds\n")
    print(table(found))
    options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, OSError) as error:
        sys.exit(f"bench: {error}")
