"""A real Debian, made by debootstrap, saved by podman and skopeo in every form, loaded and run: nothing of it is lost.

debootstrap's work is kept in build/, so that only the first run after `make clean` asks a mirror.
"""

from __future__ import annotations

import os
import platform
import shutil
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import leftovers
from commands import COMMAND, cloche, ok, sh
from probes import requires

pytestmark = [
    requires("root", "overlay", "program:debootstrap", "program:podman", "program:skopeo"),
    pytest.mark.timeout(300),
]

BUILD = Path(__file__).resolve().parents[2] / "build"
ROOM = 3 << 30  # bytes in /tmp: a dozen copies of it
ENVIRONMENT = {**os.environ, "TMPDIR": "/tmp", "HOME": "/tmp"}  # not /var/tmp, which may be read-only
BOUND = "usr/local/bin/bound-cat"  # a copy of cat that may read everything
DAC_OVERRIDE = struct.pack("<5I", 0x02000001, 1 << 1, 0, 0, 0)  # capabilities(7): version 2, effective; permitted
ENGINES_OWN = {"etc", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"}  # etc: its time; and what is mounted


def run(*command: str | Path, seconds: float = 120) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=ENVIRONMENT)
    assert done.returncode == 0, f"{command}: {done.stdout[-1000:]}{done.stderr[-1000:]}"
    return done.stdout


def remove(place: Path) -> None:
    """A folder that other programs worked in; not where one of them has left something mounted."""
    left = leftovers.mounts((str(place),))
    assert not left, f"left mounted: {', '.join(left)}"
    shutil.rmtree(place)


def mirror(suite: str) -> str:
    """Where this machine's own packages of the suite come from; "" where that is not said."""
    asked = ("apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages")
    lines = run(*asked).splitlines() if shutil.which("apt-get") else []
    return next((line.split()[1] for line in lines if line.split()[0] == suite), "")


def bootstrap(suite: str, place: Path, into: Path) -> None:
    """A tar of a minimal Debian, with one file more that has a capability. Skips where there is no mirror."""
    source = mirror(suite)
    if not source:
        pytest.skip(f"needs a mirror of {suite} in apt's sources")
    root = place / "root"
    # what it mounts is seen, and ends, in its own mount namespace
    command = ["unshare", "--mount", "debootstrap", "--variant=minbase", suite, str(root), source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=ENVIRONMENT)
    if done.returncode:
        said = [line for line in done.stdout.splitlines() if line.startswith(("E:", "W:"))] or ["no word why"]
        pytest.skip(f"needs a mirror of {suite}: debootstrap {source}: {said[-1]}")
    shutil.copy(root / "bin/cat", root / BOUND)
    os.setxattr(root / BOUND, "security.capability", DAC_OVERRIDE)
    into.parent.mkdir(exist_ok=True)
    aside = into.with_suffix(f".{os.getpid()}")
    without = ("--exclude=./var/cache/apt/archives/*.deb", "--exclude=./var/lib/apt/lists/*_*")
    attributes = ("--numeric-owner", "--xattrs", "--xattrs-include=*")
    run("tar", "-C", root, "--one-file-system", *attributes, *without, "-cf", aside, ".")
    aside.rename(into)


@pytest.fixture(scope="session")
def debian() -> Path:
    """The file system as a tar."""
    release = platform.freedesktop_os_release()
    suite = release.get("VERSION_CODENAME", "")
    if not suite or release["ID"] not in ("debian", "ubuntu"):
        pytest.skip("needs a Debian or Ubuntu, whose mirror apt knows")
    if shutil.disk_usage("/tmp").free < ROOM:
        pytest.skip(f"needs {ROOM >> 30} GiB of room in /tmp")
    tar = BUILD / f"debian-{suite}.tar"
    if not tar.exists():
        place = Path(tempfile.mkdtemp(prefix="debian-", dir="/tmp"))
        try:
            bootstrap(suite, place, tar)
        finally:
            remove(place)
    return tar


@pytest.fixture(scope="session")
def archives(debian: Path) -> Iterator[Path]:
    """A folder with what podman and skopeo make of it."""
    place = Path(tempfile.mkdtemp(prefix="debian-", dir="/tmp"))  # podman refuses run directories with long names
    podman = ("podman", "--root", f"{place}/root", "--runroot", f"{place}/run", "--storage-driver", "vfs")
    copy = ("skopeo", "--insecure-policy", "--tmpdir", "/tmp", "copy", "--quiet")
    zstd = ("--dest-compress-format", "zstd")
    name = "localhost/debian:real"
    try:
        run(*podman, "import", "-q", "-c", 'CMD ["cat", "/etc/debian_version"]', debian, name)
        for form in ("docker", "oci"):
            into = f"{place}/podman-{form}.tar"
            run(*podman, "save", "-q", "--format", f"{form}-archive", "-o", into, name)
        run(*copy, f"docker-archive:{place}/podman-docker.tar", f"oci:{place}/skopeo-gzip:{name}")
        run(*copy, *zstd, f"oci:{place}/skopeo-gzip:{name}", f"oci:{place}/skopeo-zstd:{name}")
        run(*copy, f"oci:{place}/skopeo-zstd:{name}", f"oci-archive:{place}/skopeo-oci.tar:{name}")
        run(*copy, f"oci:{place}/skopeo-gzip:{name}", f"docker-archive:{place}/skopeo-docker.tar:{name}")
        for form, kind in (("skopeo-gzip", "gzip"), ("skopeo-zstd", "zstd")):
            documents = b"".join(path.read_bytes() for path in place.glob(f"{form}/blobs/*/*") if is_small(path))
            assert f"layer.v1.tar+{kind}".encode() in documents
        yield place
    finally:
        remove(place)


def is_small(path: Path) -> bool:
    """A document and not a layer."""
    return path.stat().st_size < 1 << 20


def packed(debian: Path) -> dict[str, str]:
    """What `listed` shall say of each file."""
    found: dict[str, str] = {}
    kinds = {tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "l", tarfile.CHRTYPE: "c"}
    with tarfile.open(debian) as tar:
        for member in tar:
            info = tar.getmember(member.linkname) if member.islnk() else member
            kind = kinds.get(info.type, "f")
            mode = 0o777 if kind == "l" else info.mode
            size = info.size if kind == "f" else 0
            owner = f"{info.uid} {info.gid}"
            found[member.name.removeprefix("./")] = f"{kind} {mode:o} {owner} {size} {int(info.mtime)} {info.linkname}"
    return found


def listed(image: str) -> dict[str, str]:
    """Kind, mode, owner, size, time and target of each file that a container finds in its root."""
    script = r"find / -xdev -printf '%P\t%y %m %U %G %s %T@ %l\n'"
    found: dict[str, str] = {}
    for line in sh(script, image=image).splitlines():
        name, _, facts = line.partition("\t")
        kind, mode, user, group, size, time, *target = facts.split(" ")
        size = size if kind == "f" else "0"
        found[name] = " ".join([kind, mode, user, group, size, time.partition(".")[0], *target])
    return found


def own(name: str) -> bool:
    """Whether a container has something of its own there."""
    return name in ENGINES_OWN or name.split("/", maxsplit=1)[0] in {"", ".", "dev", "proc", "sys", ".dockerenv"}


FORMS = {
    "podman-docker.tar": "file",
    "podman-oci.tar": "stdin",
    "skopeo-gzip": "folder",
    "skopeo-zstd": "folder",
    "skopeo-oci.tar": "file",
    "skopeo-docker.tar": "stdin",
}


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("form", FORMS)
def test_a_real_debian_is_loaded_whole_and_runs(debian: Path, archives: Path, form: str) -> None:
    source = archives / form
    if FORMS[form] == "stdin":
        with source.open("rb") as stream:
            done = subprocess.run([*COMMAND, "load"], stdin=stream, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        said = done.stdout.strip()
    else:
        assert source.is_dir() == (FORMS[form] == "folder")
        said = ok("load", "-i", str(source))
    assert said == "Loaded image: localhost/debian:real"
    image = said.removeprefix("Loaded image: ")

    with tarfile.open(debian) as tar:
        version = tar.extractfile("./etc/debian_version")
        status = tar.extractfile("./var/lib/dpkg/status")
        assert version and status
        packages = status.read().count(b"\nStatus: install ok installed\n")
        assert ok("run", "--rm", image) == version.read().decode().strip()
    assert int(sh("dpkg -l | grep -c ^ii", image=image)) == packages > 50
    assert sh("apt-get --version", image=image).startswith("apt ")
    assert sh("dpkg --verify && dpkg --audit", image=image) == "", "every file has its package's checksum"

    expected, found = packed(debian), listed(image)
    assert {name for name in expected if not own(name)} == {name for name in found if not own(name)}
    assert {n: f for n, f in found.items() if not own(n)} == {n: f for n, f in expected.items() if not own(n)}
    assert found["usr/bin/passwd"].startswith("f 4755 0 0 "), "a setuid program"
    assert found["var/mail"].startswith("d 2775 0 8 "), "a setgid folder of a group's"
    assert found["etc/shadow"].startswith("f 640 0 42 ")

    assert sh(f"/{BOUND} /etc/shadow", "-u", "65534:65534", image=image).startswith("root:"), "by its capability"
    assert cloche("run", "--rm", "-u", "65534:65534", image, "cat", "/etc/shadow").code == 1
    assert sh("su -s /bin/sh nobody -c 'id -u'", image=image) == "65534"
