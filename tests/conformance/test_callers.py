"""Callers that are not as one would wish: descriptors that are closed or promised and not there, links, odd paths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conformance.harness import Bundle, differs

OPEN = "gives the container descriptors of its own, or hangs"


@differs("crun", "fails, or has what it opens first there", always=False)
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_a_caller_without_streams_lends_the_container_none_of_the_runtimes(
    bundle: Bundle, closed: tuple[int, ...]
) -> None:
    """What is opened first would have their numbers."""
    script = "for n in 0 1 2; do readlink /proc/self/fd/$n; done > /found; exit 5"
    bundle.argv("sh", "-c", script)
    bundle.write()
    closing = " ".join(f"{fd}>&-" for fd in closed)
    process = bundle.runtime.spawn(
        *("run", "--bundle", str(bundle.path), bundle.id), through=("sh", "-c", f'exec "$@" {closing}', "sh")
    )
    assert process.wait(20) == 5
    assert str(bundle.runtime.root) not in (bundle.rootfs / "found").read_text()


@differs("runc", OPEN, always=False)
@differs("crun", OPEN, always=False)
@pytest.mark.parametrize("verb", ["create", "run", "exec"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_descriptor_that_is_promised_and_not_open_is_an_error(bundle: Bundle, verb: str, count: int) -> None:
    flags = ("--preserve-fds", str(count))
    if verb == "exec":
        with bundle.running():
            assert bundle.exec("true", flags=flags).code != 0
        return
    bundle.argv("true")
    bundle.write()
    assert bundle.runtime.call(verb, "--bundle", str(bundle.path), *flags, bundle.id).code != 0
    assert bundle.status() == "missing"


def test_sockets_that_were_passed_to_another_process_are_not_the_containers(bundle: Bundle) -> None:
    """sd_listen_fds(3): LISTEN_PID says whose they are."""
    done = bundle.run("sh", "-c", 'ls /proc/self/fd; echo "$LISTEN_FDS"', env={"LISTEN_FDS": "1", "LISTEN_PID": "1"})
    assert done.code == 0, done
    assert done.out.split() == ["0", "1", "2", "3"], "3 is the listing's own"


@differs("crun", "passes some of them", always=False)
def test_many_descriptors_are_passed(bundle: Bundle) -> None:
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(100)]
    try:
        for number, fd in enumerate(fds):
            assert fd >= 3 + number
        last = max(fds)
        wanted = last - 2
        for number in range(3, last + 1):
            try:
                os.fstat(number)
            except OSError:
                os.dup2(fds[0], number)
        bundle.argv("sh", "-c", "set -- /proc/self/fd/*; echo $#")
        bundle.write()
        out = bundle.runtime.output()
        process = bundle.runtime.spawn(
            *("run", "--bundle", str(bundle.path), "--preserve-fds", str(wanted), bundle.id),
            stdout=out.fd,
            stderr=out.fd,
            pass_fds=range(3, last + 1),
        )
        assert process.wait(20) == 0, out.read()
        assert int(out.read()) >= wanted + 3
    finally:
        for fd in fds:
            os.close(fd)


def test_a_pid_file_is_not_written_through_a_link(bundle: Bundle) -> None:
    """Whatever name it has on the way."""
    folder = bundle.runtime.folder / "pids"
    folder.mkdir()
    precious = bundle.runtime.folder / "precious"
    precious.write_text("precious")
    for name in (".pid", ".pid.tmp", "pid.tmp"):
        (folder / name).symlink_to(precious)
    bundle.argv("true")
    bundle.write()
    bundle.runtime.call("create", "--bundle", str(bundle.path), "--pid-file", str(folder / "pid"), bundle.id)
    assert precious.read_text() == "precious"


@pytest.mark.parametrize(
    "key", ["net/../kernel/printk_ratelimit_burst", "net...kernel.printk_ratelimit_burst", "net//core", "net/./core"]
)
def test_a_kernel_parameter_cannot_be_reached_by_dots(bundle: Bundle, key: str) -> None:
    before = Path("/proc/sys/kernel/printk_ratelimit_burst").read_text()
    bundle.linux["sysctl"] = {key: "7"}
    bundle.refused("true")
    assert Path("/proc/sys/kernel/printk_ratelimit_burst").read_text() == before


@differs("runc", "has the host's root in both", always=False)
@differs("crun", "fails without /proc", always=False)
def test_an_executed_process_has_the_root_of_a_container_without_a_mount_namespace(bundle: Bundle) -> None:
    bundle.without_namespace("mount")
    bundle.config["mounts"] = []
    del bundle.linux["maskedPaths"], bundle.linux["readonlyPaths"]
    (bundle.rootfs / "mark").touch()
    with bundle.running():
        assert bundle.exec("test", "-e", "/mark").code == 0


def test_a_low_limit_of_descriptors_does_not_keep_passed_ones_out(bundle: Bundle) -> None:
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 32, "hard": 32}]
    bundle.argv("sh", "-c", "cat <&3")
    bundle.write()
    reading, writing = os.pipe()
    os.write(writing, b"hello\n")
    os.close(writing)
    out = bundle.runtime.output()
    try:
        process = bundle.runtime.spawn(
            *("run", "--bundle", str(bundle.path), "--preserve-fds", "1", bundle.id),
            through=("bash", "-c", f'exec "$@" 3<&{reading}', "bash"),
            stdout=out.fd,
            stderr=out.fd,
            pass_fds=(reading,),
        )
        assert process.wait(20) == 0, out.read()
    finally:
        os.close(reading)
    assert out.read() == "hello\n"


@differs("crun", "takes a very long time for a short one", always=False)
@pytest.mark.parametrize("stage", ["createRuntime", "createContainer"])
@pytest.mark.parametrize("seconds", [4294968, 99999999999])
def test_a_hook_may_have_a_very_long_time(bundle: Bundle, stage: str, seconds: int) -> None:
    bundle.config["hooks"] = {stage: [{"path": "/bin/sleep", "args": ["sleep", "1"], "timeout": seconds}]}
    assert bundle.run("true").code == 0


@differs("runc", "has a limit of its own", always=False)
def test_a_container_of_too_many_mounts_is_made_or_an_error(bundle: Bundle) -> None:
    for number in range(260):
        bundle.mount(f"/m{number}", "bind", "/etc", ["rbind"])
    done = bundle.run("true")
    assert done.code == 0 or (done.error and "fault of" not in done.error)


def test_a_root_is_the_same_however_it_is_written(bundle: Bundle) -> None:
    far = bundle.runtime.folder / "far/away"
    far.mkdir(parents=True)
    (bundle.runtime.folder / "link").symlink_to(far)
    odd = f"{bundle.runtime.folder}/link/../roots"
    bundle.argv("sleep", "1000")
    bundle.write()
    assert bundle.runtime.call("--root", odd, "create", "--bundle", str(bundle.path), bundle.id, bare=True).code == 0
    assert bundle.runtime.call("--root", odd, "state", bundle.id, bare=True).code == 0
    assert bundle.runtime.call("--root", odd, "delete", "--force", bundle.id, bare=True).code == 0
    assert bundle.runtime.call("--root", odd, "state", bundle.id, bare=True).code != 0
