"""What cannot be meant, or cannot be had, is said in one line with Docker's exit code, and nothing is changed by it."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import leftovers
import probes
from archives import Layout, docker_files, files_tar, hardlink, member, symlink, tar_of
from cloche.engine.settling import is_settling
from commands import COMMAND, Result, cloche, ok
from probes import available, requires

pytestmark = [pytest.mark.one_lane, requires("root", "overlay"), pytest.mark.usefixtures("store")]

KEPT = ("containers", "layers", "content", "aside", "run/plans")


def one_line(result: Result, code: int, *words: str) -> None:
    """An error as every error is: one printable line, and nothing on standard output."""
    assert result.code == code, result
    assert result.out == ""
    (line,) = result.err.splitlines()
    assert line.startswith("cloche: ")
    assert line.isprintable()
    for word in words:
        assert word in line


def there(root: Path) -> dict[str, set[str]]:
    """What the store has and what it made on the host."""
    files = {f"{folder}/{name}" for folder in KEPT if (root / folder).exists() for name in os.listdir(root / folder)}
    files = {path for path in files if not is_settling(path)}  # for half a second, until a link is known to be gone
    listed = {*ok("ps", "-a", "--format", "{{.ID}} {{.State}}").splitlines(), *ok("images", "--no-trunc").splitlines()}
    census = leftovers.census(*leftovers.marks(root))
    del census["descriptors"]  # this process's: what is tried here are commands
    return {**census, "files": files, "listed": listed}


@pytest.fixture
def settled(store: Path) -> Iterator[Path]:
    """A store that is in use; the test changes nothing in it."""
    ok("run", "-d", "--name", "web", "starter", "sleep", "1000")
    ok("create", "--name", "made", "starter", "true")
    before = there(store)
    yield store
    deadline = time.monotonic() + 5  # a container's link ends a moment after it
    while there(store) != before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert there(store) == before


FLAGS: list[tuple[Any, ...]] = [
    (["--memry", "1g"], "unknown flag", "did you mean --memory?"),
    (["-Z"], "unknown shorthand flag", "'Z'"),
    (["--rm=perhaps"], "--rm", "'perhaps'"),
    (["-m", "64q"], "-m, --memory", "'64q'"),
    (["-m", "1k"], "6MB"),
    (["-m", "99999999999999999999g"], "8 EiB"),
    (["-m", "64m", "--memory-swap", "32m"], "larger than memory limit"),
    (["--memory-swap", "64m"], "set the Memory limit"),
    (["-m", "64m", "--memory-reservation", "65m"], "memory reservation"),
    (["--cpus", "-1"], "--cpus"),
    (["--cpus", "100000"], "CPUs available"),
    (["--cpu-shares", "1"], "262144"),
    (["--cpuset-cpus", "0-"], "cpuset cpus"),
    (["--pids-limit", "-5"], "-1 is unlimited"),
    (["--ulimit", "nofiles=1"], "nofiles"),
    (["--ulimit", "nofile=9:8"], "less than or equal to hard limit"),
    (["--oom-score-adj", "5000"], "[-1000, 1000]"),
    (["--shm-size", "x"], "--shm-size"),
    (["-e", "=x"], "environment variable"),
    (["--env-file", "/no/such"], "/no/such", "no such file"),
    (["-u", "a:b:c"], "USER[:GROUP]"),
    (["-w", "relative"], "absolute path"),
    (["--name", "-x"], "Invalid container name"),
    (["--name", "a/b"], "Invalid container name"),
    (["--name", "\x1b[2J"], "\\x1b[2J"),
    (["-h", "x" * 65], "more than 64"),
    (["--label", "=x"], "label"),
    (["-v", "/a:/b:/c:/d"], "too many colons"),
    (["-v", "na/me:/data"], "invalid characters for a local volume name"),
    (["-v", "name:/data:rshared"], "rshared is for a bind"),
    (["-v", "/a:b"], "absolute"),
    (["-v", "/a:/"], "can't be '/'"),
    (["-v", "/a:/x", "--tmpfs", "/x"], "Duplicate mount point: /x"),
    (["-v", "/a:/x:ro,rw"], "invalid mode"),
    (["--mount", "type=bind,source=/a"], "target is required"),
    (["--mount", "type=tape,target=/x"], "tape"),
    (["--mount", "type=volume,target=/x,volume-opt=type=nfs"], "not there yet"),
    (["--mount", "type=volume,source=name,target=/x,volume-subpath=../y"], "must be a relative path"),
    (["--volumes-from", "made:rx"], "invalid mode: rx"),
    (["--tmpfs", "/x:colour=red"], "colour=red"),
    (["--device", "/etc/passwd"], "not a device node"),
    (["--device", "/dev/null:/dev/x:q"], "bad mode"),
    (["--cap-add", "FLY"], "CAP_FLY"),
    (["--security-opt", "seccomp=/no/such"], "no such file"),
    (["--security-opt", "apparmor=x"], "not there yet"),
    (["--sysctl", "kernel.hostname=x"], "not allowed"),
    (["--sysctl", "net.ipv4.ip_forward"], "--sysctl"),
    (["--network", "mine"], "network mine not found"),
    (["--network", "a b"], "it is no network's name"),
    (["-p", "80:80:80:80"], "too many colons"),
    (["-p", "99999:80"], "invalid hostPort"),
    (["--dns", "x"], "invalid IP address: x"),
    (["--add-host", "x"], "bad format for add-host"),
    (["--network", "container:"], "container:ID"),
    (["--network", "container:nobody"], "No such container: nobody"),
    (["--pid", "container:made"], "not running"),
    (["--ipc", "mine"], "IPC mode"),
    (["--uts", "mine"], "UTS mode"),
    (["--cgroupns", "mine"], "CGROUP mode"),
    (["--userns", "0:0"], "CONTAINER:HOST:SIZE"),
    (["--userns", "5:100000:10"], "0 is in no range"),
    (["--network", "host", "--sysctl", "net.ipv4.ip_forward=1"], "ip_forward"),
    (["--stop-signal", "NOSUCH"], "invalid signal"),
    (["--stop-timeout", "-9"], "-1 waits for ever"),
    (["--detach-keys", "ctrl-!"], "--detach-keys"),
    (["--cidfile", "/no/such/folder/id"], "/no/such/folder/id"),
    (["--restart", "always"], "cannot specify both --restart and --rm"),
    (["--link", "x"], "--link is not there yet"),
]
if available("nf_tables"):
    FLAGS += [
        (["--mac-address", "01:00:00:00:00:00"], "group of interfaces"),
        (["-p", "192.0.2.200:1:80"], "EADDRNOTAVAIL"),
        (["--ip", "192.0.2.1"], "it is not of network bridge"),
    ]


def test_flags_that_cannot_be_meant(settled: Path) -> None:
    for flags, *words in FLAGS:
        one_line(cloche("run", "--rm", *flags, "starter", "true"), 125, *words)


IMAGES = [
    ("nosuch", "No such image: nosuch"),
    ("Upper/Case", "lowercase"),
    ("a b", "invalid reference format"),
    ("", "no image is named"),
    ("x" * 5000, "invalid reference format"),
    ("starter:" + "t" * 200, "invalid reference format"),
    ("starter@sha256:00", "invalid reference format"),
    ("starter@sha256:" + "0" * 64, "No such image"),
    ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
]


def test_images_that_are_not_there_or_are_no_names(settled: Path) -> None:
    for image, word in IMAGES:
        one_line(cloche("run", "--rm", "--pull", "never", image, "true"), 125, word)
        if image:
            one_line(cloche("tag", image, "new"), 1)


CONTAINERS = [
    (["-u", "nobody2"], ["true"], 125, "no matching entries in passwd file for nobody2"),
    (["-u", "0:nogroup2"], ["true"], 125, "no matching entries in group file for nogroup2"),
    (["--group-add", "nogroup2"], ["true"], 125, "no matching entries in group file for nogroup2"),
    (["-w", "/etc/passwd"], ["true"], 125, "change to the working directory /etc/passwd: not a directory"),
    (["-v", "/no/such:/x"], ["true"], 125, "/no/such: no such file or directory"),
    (["-v", "/tmp:/etc/passwd"], ["true"], 125, "a directory goes on a directory"),
    (["-v", "/etc/passwd:/etc"], ["true"], 125, "a file on a file"),
    (["-v", "/tmp:/etc/passwd/below"], ["true"], 125, "not a directory"),
    (["-v", "/tmp:/proc/below"], ["true"], 125, "inside /proc"),
    (["--tmpfs", "/x:size=abc"], ["true"], 125, "Bad value for 'size'"),
    (["--sysctl", "net.no.such=1"], ["true"], 125, "net.no.such"),
    ([], ["no\x1bsuch"], 127, 'execute "no\\x1bsuch": executable file not found in $PATH'),
    ([], ["/no/such"], 127, "/no/such"),
    ([], ["/etc/passwd"], 126, "permission denied"),
    ([], ["/etc"], 126, "permission denied"),
    ([], ["/etc/passwd/below"], 126, "not a directory"),
    (["--entrypoint", "/no/such"], ["true"], 127, "/no/such"),
]


def test_what_the_image_or_the_host_does_not_have(settled: Path) -> None:
    """These fail with half a container made; what was made is taken back."""
    for flags, command, code, word in CONTAINERS:
        one_line(cloche("run", "--rm", *flags, "starter", *command), code, word)


def test_a_variable_that_is_too_long_for_the_kernel(settled: Path, tmp_path: Path) -> None:
    (tmp_path / "vars").write_text("LONG=" + "x" * 200_000)
    one_line(cloche("run", "--rm", "--env-file", str(tmp_path / "vars"), "starter", "true"), 126, "E2BIG")


VERBS = [
    (["frob"], 125, "unknown command"),
    (["imagse"], 125, "did you mean 'cloche images'?"),
    (["build", "."], 125, "cloche build is not there yet"),
    (["run", "-m"], 125, "flag needs an argument"),
    (["run"], 125, "requires at least 1 argument"),
    (["ps", "extra"], 125, "accepts no arguments"),
    (["exec", "web"], 125, "requires at least 2 arguments"),
    (["exec", "nobody", "true"], 125, "No such container: nobody"),
    (["exec", "made", "true"], 125, "not running"),
    (["exec", "web", "no-such"], 127, "executable file not found in $PATH"),
    (["exec", "web", "/etc/passwd"], 126, "permission denied"),
    (["exec", "-u", "nobody2", "web", "true"], 125, "no matching entries"),
    (["exec", "-w", "/no/such", "web", "true"], 125, "/no/such"),
    (["exec", "-w", "relative", "web", "true"], 125, "absolute path"),
    (["exec", "-it", "web", "true"], 125, "not a TTY"),
    (["exec", "-e", "=", "web", "true"], 125, "environment variable"),
    (["run", "--name", "web", "starter", "true"], 125, "the name is in use by container"),
    (["create", "--name", "web", "starter", "true"], 125, "the name is in use by container"),
    (["start", "nobody"], 1, "No such container"),
    (["stop", "nobody"], 1, "No such container"),
    (["stop", "-t", "soon", "web"], 125, "-t, --timeout"),
    (["stop", "-s", "NOSUCH", "web"], 1, "invalid signal"),
    (["kill", "made"], 1, "not running"),
    (["kill", "-s", "99", "web"], 1, "invalid signal"),
    (["rm", "web"], 1, "it is running"),
    (["rm", "nobody"], 1, "No such container"),
    (["wait", "nobody"], 1, "No such container"),
    (["attach", "made"], 1, "not running"),
    (["logs", "nobody"], 1, "No such container"),
    (["logs", "--tail", "some", "web"], 1, "'some' is not a number"),
    (["logs", "--since", "whenever", "web"], 1, "whenever"),
    (["ps", "--filter", "colour=red"], 1, "invalid filter"),
    (["ps", "--filter", "status=asleep"], 1, "no such status"),
    (["ps", "--filter", "name=["], 1, "not a regular expression"),
    (["ps", "--filter", "nonsense"], 125, "expected name=value"),
    (["ps", "--format", "{{.Colour}}"], 1, "Colour"),
    (["ps", "--format", "{{"], 1, "template"),
    (["images", "--filter", "colour=red"], 1, "invalid filter"),
    (["inspect", "-f", "{{.Colour}}", "web"], 1, "Colour"),
    (["inspect", "-f", "{{.State", "web"], 64, "template"),
    (["rmi", "nosuch"], 1, "No such image"),
    (["rmi", "starter"], 1, "uses its image"),
    (["tag", "starter", "New"], 1, "lowercase"),
    (["tag", "starter", "a@sha256:" + "0" * 64], 1, "digest"),
    (["pack", "sh"], 1, "pack -t NAME"),
    (["pack", "-t", "x", "no-such-program"], 1, "no such program"),
    (["pack", "-t", "x", "--add", "/no/such", "sh"], 1, "/no"),
    (["pack", "-t", "X", "sh"], 1, "lowercase"),
    (["load", "-i", "/no/such"], 1, "no such file"),
    (["load", "-i", "/etc/passwd"], 1, "no tar archive"),
    (["--root", "/proc/x", "ps"], 1, "/proc/x"),
]


def test_other_verbs(settled: Path) -> None:
    for arguments, code, word in VERBS:
        one_line(cloche(*arguments), code, word)


def test_by_force_what_is_not_there_is_no_failure(settled: Path) -> None:
    one_line(cloche("rm", "-f", "nobody"), 0, "No such container")
    one_line(cloche("rmi", "-f", "nosuch"), 0, "No such image")


def test_of_several_the_good_are_done_and_the_bad_are_said() -> None:
    ok("create", "--name", "good", "starter", "true")
    result = cloche("rm", "bad", "good")
    assert (result.code, result.out) == (1, "good\n")
    assert "No such container: bad" in result.err
    found = cloche("inspect", "-f", "{{.RepoTags}}", "bad\x1bname", "starter")
    assert (found.code, found.out) == (1, "[starter:latest]\n")
    assert "No such object: bad\\x1bname" in found.err


LAYER = tar_of(member("file", b"data" * 1000))
HOSTILE = {
    "empty": (b"", "neither manifest.json"),
    "of zeros": (bytes(10240), "neither manifest.json"),
    "no image": (files_tar({"readme": b"hello"}), "neither manifest.json"),
    "no JSON": (files_tar({"manifest.json": b"{"}), "manifest.json"),
    "deep JSON": (files_tar({"manifest.json": b"[" * 100_000}), "manifest.json"),
    "cut short": (files_tar(docker_files([LAYER], ["evil:1"]))[:3000], ""),
    "a layer that is not there": (
        files_tar({k: v for k, v in docker_files([LAYER], ["evil:1"]).items() if not k.endswith("layer.tar")}),
        "is missing",
    ),
    "a path out of the root": (files_tar(docker_files([tar_of(member("../../evil", b"x"))], ["evil:1"])), "evil"),
    "a hard link out of the root": (
        files_tar(docker_files([tar_of(hardlink("x", "../../../../etc/passwd"))], ["evil:1"])),
        "a path with .. in it",
    ),
    "a file through a link": (
        files_tar(docker_files([tar_of(symlink("way", "/etc"), member("way/evil", b"x"))], ["evil:1"])),
        "way",
    ),
    "a bad name": (files_tar(docker_files([LAYER], ["Evil:1"])), "lowercase"),
}


def wrong_digest() -> bytes:
    layout = Layout()
    layout.point(layout.image([LAYER]), "docker.io/library/evil:1")
    files = layout.done()
    name = max(files, key=lambda key: len(files[key]) if key.startswith("blobs/") else 0)
    return files_tar({**files, name: files[name][:-1] + b"\0"})


@pytest.mark.parametrize("kind", [*HOSTILE, "a wrong digest"])
def test_hostile_archives(settled: Path, tmp_path: Path, kind: str) -> None:
    data, word = HOSTILE[kind] if kind in HOSTILE else (wrong_digest(), "its content is sha256:")
    archive = tmp_path / "evil.tar"
    archive.write_bytes(data)
    one_line(cloche("load", "-i", str(archive)), 1, word)
    assert not Path("/evil").exists()
    assert not Path("/etc/evil").exists()


def test_what_images_and_users_say_cannot_move_the_cursor() -> None:
    ok("create", "--name", "box", "--label", "a=\x1b[31m", "-e", "B=\x1b]0;x\x07", "starter", "echo", "\x1b[2J")
    shown = [
        ok("ps", "-a", "--no-trunc"),
        ok("ps", "-a", "--format", "{{.Labels}} {{.Command}}"),
        ok("inspect", "box"),
        ok("inspect", "-f", "{{.Config.Env}} {{.Args}} {{.Config.Labels}}", "box"),
        ok("plan", "-e", "C=\x1b", "starter", "echo", "\x1b[2J"),
    ]
    for text in shown:
        assert text.replace("\n", "").isprintable()
        assert "\\x1b" in text or "\\u001b" in text
    assert ok("start", "-a", "box") == "\x1b[2J", "the container's own stream is passed on as it is"


def test_bytes_that_are_no_text_are_passed_on() -> None:
    done = subprocess.run(
        [*COMMAND, "run", "--rm", "-e", b"A=\xff\xfe", "starter", "sh", "-c", b'printf %s "$A\xfd"'],
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\xff\xfe\xfd", b"")


def redirected(arguments: str, redirection: str) -> tuple[int, str]:
    """Exit code and standard error of a command with one of the shell's redirections."""
    command = ["bash", "-c", f"{shlex.join(COMMAND)} {arguments} {redirection}"]
    environment = {key: value for key, value in os.environ.items() if key[:6] != "PYTHON"}
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment)
    return done.returncode, done.stderr


@requires("file:/dev/full")
def test_an_output_that_cannot_be_written_is_said() -> None:
    ok("run", "--name", "box", "starter", "echo", "hi")
    for verb in ("ps", "images", "logs box", "inspect box", "--help", "run -d --rm starter true", "wait box"):
        code, err = redirected(verb, "> /dev/full")
        assert (code, err) == (1, "cloche: write to standard output: no space left on device (ENOSPC)\n"), verb
    code, err = redirected("run --rm starter echo hi", "> /dev/full")
    assert (code, err) == (125, "cloche: write the container's output: no space left on device (ENOSPC)\n")
    assert redirected("run no-such-image", "2> /dev/full") == (125, "")
    assert ok("ps", "-q") == ""


def test_closed_standard_streams_are_as_dev_null() -> None:
    for verb in ("ps", "images", "info", "run --rm starter echo hi", "run --rm -i starter cat"):
        assert redirected(verb, "<&- >&-") == (0, ""), verb
    assert redirected("run no-such-image", "<&- >&- 2>&-")[0] == 125


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    code, err = redirected("images", "| true; exit ${PIPESTATUS[0]}")
    assert (code, err) == (141, "")


def test_who_is_not_root_is_told_so(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o777)
    nobody: dict[str, object] = {"user": 65534, "group": 65534, "extra_groups": []}
    environment = {"PATH": os.environ["PATH"], "CLOCHE_ROOT": "/root/store-of-root"}
    probe = f"import sys; open({__file__!r}); sys.exit(sys.version_info < (3, 11))"
    for python in (COMMAND[0], "/usr/bin/python3"):
        trial = ["sh", "-c", f"{shlex.quote(python)} -c {shlex.quote(probe)}"]
        if subprocess.run(trial, capture_output=True, **nobody).returncode == 0:  # type: ignore[call-overload]
            break
    else:
        pytest.skip("other users cannot read this project or its Python")
    command = [python, *COMMAND[1:], "run", "--rm", "starter", "true"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, **nobody)  # type: ignore[call-overload]
    one_line(Result(done.returncode, done.stdout, done.stderr), 125, "open the store", "hint: run as root")


@pytest.mark.usefixtures("private_mounts")
def test_a_full_disk_leaves_nothing_half_made(store: Path) -> None:
    """pack and run of an image that does not fit."""
    probes.mount("tmpfs", str(store), "tmpfs", 0, "size=4m,mode=755")
    try:
        one_line(cloche("run", "--rm", "starter", "true"), 125, "ENOSPC")
        one_line(cloche("pack", "-t", "big", "sh", "ls", "cat", "--add", "/usr/bin/python3"), 1, "ENOSPC")
        assert ok("images", "-q") == ""
        assert ok("ps", "-aq") == ""
        for folder in ("containers", "layers", "content/sha256", "aside", "trash"):
            left = set(os.listdir(store / folder)) if (store / folder).exists() else set()
            assert left <= {"lock"}, folder
    finally:
        leftovers.end_store(store)
        probes.libc.umount2(str(store).encode(), probes.MNT_DETACH)
