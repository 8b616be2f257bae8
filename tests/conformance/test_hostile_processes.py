"""Programs and users that are made to get at the runtime: through working directories, descriptors, files and names."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import probes
from conformance.harness import SECONDS, Bundle, Runtime, differs, eventually

# By their numbers, from 0.
CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
UP = "../../../../../../../../.."


@pytest.fixture
def secret(bundle: Bundle) -> Iterator[Path]:
    """A file of the host's that the container's root does not have."""
    path = bundle.runtime.folder / "secret"
    path.write_text("secret\n")
    yield path
    assert path.read_text() == "secret\n"


def with_all_rights(bundle: Bundle) -> None:
    """Every capability that the runtime has itself, as a privileged container has them."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("CapEff:"))
    mine = int(line.split()[1], 16)
    names = [f"CAP_{name}" for number, name in enumerate(CAPABILITIES.split()) if mine >> number & 1]
    bundle.process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), names)


# Working directories (CVE-2024-21626): from a folder of the host's, ".." leads to the host's files.


@pytest.mark.parametrize("way", ["plainly", "by a link"])
def test_a_working_directory_that_is_a_descriptor_leads_nowhere(bundle: Bundle, secret: Path, way: str) -> None:
    with_all_rights(bundle)
    for number in range(3, 12):
        path = f"/proc/self/fd/{number}"
        if way == "by a link":
            (bundle.rootfs / f"way{number}").symlink_to(path)
            path = f"/way{number}"
        bundle.process["cwd"] = path
        done = bundle.run("cat", f"{UP}{secret}")
        assert done.code != 0
        assert "secret\n" not in done.out


def test_a_working_directory_of_an_executed_process_leads_nowhere(bundle: Bundle, secret: Path) -> None:
    with_all_rights(bundle)
    with bundle.running():
        for number in range(3, 12):
            done = bundle.exec("cat", f"{UP}{secret}", flags=("--cwd", f"/proc/self/fd/{number}"))
            assert done.code != 0
            assert "secret\n" not in done.out


def test_a_program_that_is_a_descriptor_is_none(bundle: Bundle) -> None:
    for number in range(3, 12):
        assert bundle.run(f"/proc/self/fd/{number}").code != 0


# Descriptors


def test_a_program_has_its_standard_streams_and_nothing_else(bundle: Bundle) -> None:
    """By default, only the stdin, stdout and stderr file descriptors are kept open for the application."""
    with bundle.running() as pid:
        eventually(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep"), "the program")
        assert set(os.listdir(f"/proc/{pid}/fd")) == {"0", "1", "2"}


def test_an_executed_program_has_its_standard_streams_and_nothing_else(bundle: Bundle) -> None:
    file = bundle.path / "pid"
    with bundle.running():
        assert bundle.exec("sleep", "1000", flags=("--detach", "--pid-file", str(file))).code == 0
        pid = int(file.read_text())
        eventually(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep"), "the program")
        assert set(os.listdir(f"/proc/{pid}/fd")) == {"0", "1", "2"}


def test_descriptors_of_the_caller_are_not_passed_on(bundle: Bundle, secret: Path) -> None:
    """Whoever calls the runtime may have left some open across its start."""
    folder = os.open(secret.parent, os.O_RDONLY)
    high = os.dup2(folder, 200)
    try:
        with bundle.running(pass_fds=(folder, high)) as pid:
            eventually(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep"), "the program")
            assert set(os.listdir(f"/proc/{pid}/fd")) == {"0", "1", "2"}
            done = bundle.exec("sh", "-c", "ls /proc/self/fd", pass_fds=(folder, high))
            assert set(done.out.split()) <= {"0", "1", "2", "3"}
    finally:
        os.close(folder)
        os.close(high)


def test_no_process_of_a_container_has_a_folder_of_the_host_open(bundle: Bundle) -> None:
    with bundle.running("sh", "-c", "sleep 1000 & exec sleep 1000") as pid:
        eventually(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep"), "the program")
        for link in ("cwd", "root"):
            assert os.stat(f"/proc/{pid}/{link}").st_ino == bundle.rootfs.stat().st_ino


# The runtime's own program (CVE-2019-5736)


LOOK = """
hold() {
    until [ -e /tmp/stop ]; do usleep 5000; done
    (: >>/proc/self/fd/3) 2>/tmp/said || touch /tmp/refused
}
until [ -e /tmp/stop ]; do
    for process in /proc/[0-9]*; do
        case "$(readlink $process/exe || echo /bin/busybox)" in
            */bin/busybox | /memfd:*) ;;  # what is in memory is nobody's file
            *) hold 3<$process/exe && touch /tmp/held && break ;;
        esac
    done
done 2>/dev/null
touch /tmp/done
exec sleep 1000
"""


def executed(program: str) -> bool:
    """Whether anybody executes this file: the kernel lets nobody write to it then."""
    try:
        os.close(os.open(program, os.O_WRONLY))
    except OSError as error:
        return error.errno == errno.ETXTBSY
    return False


def test_a_container_cannot_change_the_runtimes_program(bundle: Bundle, runtime: Runtime) -> None:
    """It opens the executable of any process that is not its own, while such and others are executed by the runtime,
    and tries to write to it when nobody executes it any more: until then nobody could (ETXTBSY).

    Where the runtime is one file, it is tried with a copy of it on a file system that can be written to.
    """
    copy = shutil.copy(runtime.binary, str(runtime.folder / "program"))
    if subprocess.run([copy, "--version"], capture_output=True).returncode == 0:
        runtime.binary = copy
    with_all_rights(bundle)
    (bundle.rootfs / "bin/script").write_text("#!/proc/self/exe\n")
    (bundle.rootfs / "bin/script").chmod(0o755)
    place = bundle.rootfs / "tmp"
    with bundle.running("sh", "-c", LOOK):
        for _ in range(5):
            for path in ("/bin/true", "/proc/self/exe", "/bin/script", "/proc/1/exe"):
                bundle.exec(path, "true")
        eventually(lambda: not executed(runtime.binary), "the end of the runtime's processes")
        (place / "stop").touch()
        eventually((place / "done").exists, "what the container does")
        if (place / "held").exists():
            assert (place / "refused").exists()
            assert "busy" not in (place / "said").read_text()


def test_a_script_of_the_runtimes_own_program_does_no_harm(bundle: Bundle, runtime: Runtime) -> None:
    before = os.stat(runtime.binary)
    (bundle.rootfs / "bin/script").write_text("#!/proc/self/exe\n")
    (bundle.rootfs / "bin/script").chmod(0o755)
    bundle.run("/bin/script")
    after = os.stat(runtime.binary)
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)


# Files that a runtime may read


def hostile(path: Path, kind: str, secret: Path) -> None:
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            os.mknod(path, 0o20666, os.makedev(1, 5))  # it has no end
        case "huge":
            with path.open("wb") as file:
                file.truncate(1 << 40)
        case "long line":
            path.write_bytes(b"root:x:0:0:" + b"x" * (64 << 20))
        case "link":
            path.symlink_to(f"{UP}{secret}")
        case "loop":
            path.symlink_to(path.name)
        case "bytes":
            path.write_bytes(bytes(range(256)) * 64)


WAITS = "waits for ever for somebody to write into what the image has there"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param("passwd", "pipe", marks=[differs("runc", WAITS), differs("crun", WAITS)]),
        ("group", "pipe"),
        *((name, kind) for name in ("passwd", "group") for kind in ("folder", "device", "huge", "long line")),
        *((name, kind) for name in ("passwd", "group") for kind in ("link", "loop", "bytes")),
    ],
)
def test_a_container_runs_or_is_refused_whatever_its_users_are(
    bundle: Bundle, secret: Path, name: str, kind: str
) -> None:
    secret.write_text("root:x:0:0:root:/of/the/host:/bin/sh\n")
    hostile(bundle.rootfs / "etc" / name, kind, secret)
    bundle.argv("sh", "-c", "echo $HOME")
    bundle.write()
    output = bundle.runtime.output()
    try:
        with bundle.runtime.spawn("run", "--bundle", str(bundle.path), bundle.id, stdout=output.fd) as run:
            try:
                run.wait(SECONDS / 4 if kind == "pipe" else SECONDS)
            finally:
                run.kill()
        assert "/of/the/host" not in output.read()
    finally:
        secret.write_text("secret\n")


@pytest.mark.parametrize("kind", ["folder", "huge", "link"])
def test_a_process_is_executed_or_refused_whatever_the_users_are(bundle: Bundle, secret: Path, kind: str) -> None:
    secret.write_text("root:x:0:0:root:/of/the/host:/bin/sh\n")
    try:
        with bundle.running():
            hostile(bundle.rootfs / "etc/passwd", kind, secret)
            assert "/of/the/host" not in bundle.exec("sh", "-c", "echo $HOME").out
    finally:
        secret.write_text("secret\n")


def test_names_of_the_environment_change_nothing_in_the_runtime(bundle: Bundle) -> None:
    """They are the program's."""
    bundle.process["env"] += [
        *("LD_PRELOAD=/nothing", "LD_LIBRARY_PATH=/nothing", "PYTHONPATH=/nothing", "PYTHONINSPECT=1", "GODEBUG=x=1"),
        *("TMPDIR=/nothing", "LISTEN_FDS=5", "NOTIFY_SOCKET=/nothing", "BASH_ENV=/nothing"),
    ]
    assert bundle.says("echo $TMPDIR $LISTEN_FDS") == "/nothing 5"


# What a runtime writes


def test_the_state_of_containers_is_closed_to_others(bundle: Bundle, runtime: Runtime) -> None:
    runtime.folder.chmod(0o711)
    with bundle.running():
        files = [path for path in runtime.root.rglob("*") if path.is_file()]

        def read() -> None:
            os.setresgid(1000, 1000, 1000)
            os.setresuid(1000, 1000, 1000)
            for path in (runtime.root, *files):
                try:
                    os.listdir(path) if path == runtime.root else path.read_bytes()
                except PermissionError:
                    continue
                return
            raise PermissionError("nothing is open to others")

        assert files
        assert not probes.succeeds(read)


def test_a_pid_file_and_a_log_are_the_hosts(bundle: Bundle) -> None:
    """The container's root has files of the same names; they are not meant."""
    folder = bundle.runtime.folder / "files"
    folder.mkdir()
    inner = bundle.rootfs / str(folder).lstrip("/")
    inner.mkdir(parents=True)
    for name in ("pid", "log"):
        (inner / name).write_text("inner\n")
    with bundle.running(flags=("--pid-file", str(folder / "pid"))) as pid:
        assert (folder / "pid").read_text().strip() == str(pid)
        runtime = bundle.runtime
        runtime.call("--root", str(runtime.root), "--log", str(folder / "log"), "exec", bundle.id, "nothing", bare=True)
    assert (folder / "log").read_text()
    assert {(inner / name).read_text() for name in ("pid", "log")} == {"inner\n"}
