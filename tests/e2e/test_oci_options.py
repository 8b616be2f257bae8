"""What podman and docker ask of the runtime under test for a container's isolation, as its program finds it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from e2e.engines import NEEDED, Boxes, Docker, Podman, engine
from e2e.places import IMAGE, cgroup_files, links, memory_limit
from probes import MNT_DETACH, available, libc, mount, requires

pytestmark = [
    pytest.mark.requires(*NEEDED),
    pytest.mark.timeout(120),
    pytest.mark.one_lane,
]
__all__ = ["engine"]  # a fixture
SETPCAP, SYS_ADMIN = 8, 21
NEW = {38, 39, 40}  # which an engine may be too old to ask for
MS_SHARED = 1 << 20
KINDS = "mnt pid ipc uts net"


def capabilities(status: str, kind: str = "Eff") -> set[int]:
    """The numbers in a set of /proc/PID/status."""
    line = next(line for line in status.splitlines() if line.startswith(f"Cap{kind}:"))
    return {number for number in range(64) if int(line.split()[1], 16) >> number & 1}


def field(status: str, name: str) -> str:
    return next(line.split()[1] for line in status.splitlines() if line.startswith(f"{name}:"))


def status_of(engine: Boxes, *flags: str) -> str:
    return engine.sh("cat /proc/self/status", *flags)


def test_it_has_namespaces_of_its_own_with_its_own_first_process(engine: Boxes) -> None:
    said = engine.sh(f"{links(kinds=KINDS)}; echo $$; ls /sys/class/net").splitlines()
    assert not set(said) & {os.readlink(f"/proc/self/ns/{kind}") for kind in KINDS.split()}
    assert said[len(KINDS.split()) :] == ["1", "lo"]


def test_namespaces_of_the_host_and_of_others_are_shared_when_asked_for(engine: Boxes) -> None:
    said = engine.sh(links(kinds="pid ipc uts"), "--pid", "host", "--ipc", "host", "--uts", "host")
    assert said.split() == [os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "ipc", "uts")]
    with engine.running("first", "echo ready; sleep 1000", "--ipc", "shareable"):
        shared = [word for kind in ("network", "pid", "ipc") for word in (f"--{kind}", "container:first")]
        script = f"{links(kinds='net pid ipc')}; ps"
        done = engine("run", "--rm", *shared, IMAGE, "sh", "-c", script)
        first = engine.ok("exec", "first", "sh", "-c", links("1", "net pid ipc"))
        assert done.code == 0 and done.out.startswith(f"{first}\n") and "sleep 1000" in done.out, done


def test_name_kernel_settings_and_process_limits_are_as_asked(engine: Boxes) -> None:
    flags = (
        *("--hostname", "bell", "--sysctl", "kernel.shm_rmid_forced=1", "--sysctl", "net.ipv4.ip_forward=1"),
        *("--ulimit", "nofile=100:200", "--ulimit", "core=0:0", "--ulimit", "nproc=1000:1024"),
        *("--oom-score-adj", "321", "--shm-size", "1m"),
    )
    script = (
        "hostname; cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_forward; ulimit -n; ulimit -Hn;"
        "ulimit -c; cat /proc/self/oom_score_adj; df -k /dev/shm | tail -1 | cut -c1-40"
    )
    *said, shm = engine.sh(script, *flags).splitlines()
    assert said == ["bell", "1", "1", "100", "200", "0", "321"]
    assert shm.split()[1] == "1024"


def test_user_groups_environment_and_directory(engine: Boxes) -> None:
    flags = ("--user", "app", "--group-add", "77", "--env", "A=b c", "--workdir", "/tmp")
    identity, value, place, home = engine.sh("id; echo $A; pwd; echo $HOME", *flags).splitlines()
    assert identity.startswith("uid=1000(app) gid=1000(app) groups=") and "77" in identity and "29(audio)" in identity
    assert (value, place, home) == ("b c", "/tmp", "/")
    assert engine.sh("id -u; id -g", "--user", "5:6").split() == ["5", "6"]


def test_the_root_is_read_only_when_asked_for_and_its_mounts_are_not(engine: Boxes) -> None:
    script = "touch /no 2>&1; touch /scratch/yes && ls /scratch; touch /bin/no 2>&1; true"
    said = engine.sh(script, "--read-only", "--tmpfs", "/scratch").splitlines()
    assert said[1] == "yes" and [line.rpartition(": ")[2] for line in said[::2]] == ["Read-only file system"] * 2


def test_a_tmpfs_has_its_options(engine: Boxes) -> None:
    shown = engine.sh("grep ' /t ' /proc/mounts; stat -c %a /t", "--tmpfs", "/t:rw,noexec,size=1m,mode=1700")
    line, mode = shown.splitlines()
    options = line.split()[3].split(",")
    assert {"nosuid", "nodev", "noexec", "size=1024k"} <= set(options) and mode == "1700"


def test_binds_show_the_hosts_files_writable_or_not(engine: Boxes, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_text("content\n")
    flags = ("-v", f"{tmp_path}/folder:/rw", "-v", f"{tmp_path}/folder:/ro:ro", "-v", f"{tmp_path}/folder/file:/file")
    script = "cat /file /ro/file; echo new > /rw/new; touch /ro/no 2>&1; echo changed > /file"
    said = engine.sh(script, *flags).splitlines()
    assert said[:2] == ["content"] * 2 and said[2].endswith("Read-only file system")
    assert (tmp_path / "folder/new").read_text() == "new\n"
    assert (tmp_path / "folder/file").read_text() == "changed\n"


def test_a_later_mount_of_the_hosts_is_seen_only_where_that_was_asked_for(engine: Boxes, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    mount("tmpfs", str(shared), "tmpfs")
    try:
        mount("", str(shared), "", MS_SHARED)
        (shared / "later").mkdir()
        flags = [word for name in ("rslave", "rprivate") for word in ("-v", f"{shared}:/{name}:{name}")]
        with engine.running("looker", "echo ready; sleep 1000", *flags):
            mount("tmpfs", str(shared / "later"), "tmpfs")
            (shared / "later/file").touch()
            assert engine.ok("exec", "looker", "ls", "/rslave/later") == "file"
            assert engine.ok("exec", "looker", "ls", "/rprivate/later") == ""
            mounts = engine.ok("exec", "looker", "cat", "/proc/1/mountinfo").splitlines()
            assert not [line for line in mounts if " shared:" in line]
    finally:
        for place in (shared / "later", shared):
            libc.umount2(str(place).encode(), MNT_DETACH)


def test_a_named_volume_keeps_what_is_written(engine: Boxes) -> None:
    engine.sh("echo kept > /data/file", "-v", "kept:/data")
    assert engine.sh("cat /data/file", "-v", "kept:/data:ro") == "kept"
    engine.ok("volume", "rm", "kept")


def test_capabilities_are_dropped_and_added(engine: Boxes) -> None:
    plain = capabilities(status_of(engine))
    assert SETPCAP in plain and SYS_ADMIN not in plain
    assert capabilities(status_of(engine, "--cap-drop", "SETPCAP")) == plain - {SETPCAP}
    assert capabilities(status_of(engine, "--cap-add", "SYS_ADMIN")) == plain | {SYS_ADMIN}
    none = status_of(engine, "--cap-drop", "ALL")
    assert not any(capabilities(none, kind) for kind in ("Eff", "Prm", "Bnd", "Amb", "Inh"))
    user = status_of(engine, "--user", "app")
    assert capabilities(user) == set() and capabilities(user, "Bnd") == plain


def test_privileged_it_has_what_the_host_has(engine: Boxes) -> None:
    script = "cat /proc/self/status; ls /dev; mount -t tmpfs none /tmp && echo mounted; cat /proc/mounts"
    done = engine.run("--rm", "--privileged", IMAGE, "sh", "-c", script)
    if done.code in (125, 126):  # a runtime may refuse what the host has not; podman asks for what it has
        assert isinstance(engine, Docker) and not available("sys_resource") and "caps" in done.err.lower(), done
        return
    assert done.code == 0, done
    host = capabilities(Path("/proc/self/status").read_text())
    assert host - NEW <= capabilities(done.out) <= host
    assert field(done.out, "Seccomp") == "0" and "mounted" in done.out.splitlines()
    nodes = [name for name in os.listdir("/dev") if stat.S_ISCHR(os.lstat(f"/dev/{name}").st_mode)]
    assert set(nodes) - {"console"} <= set(done.out.split())
    assert "/proc/sys" not in {line.split()[1] for line in done.out.splitlines() if line.startswith("proc ")}


def test_no_new_privileges_is_set_when_asked_for(engine: Boxes) -> None:
    assert field(status_of(engine), "NoNewPrivs") == "0"
    assert field(status_of(engine, "--security-opt", "no-new-privileges"), "NoNewPrivs") == "1"


@requires("seccomp")
def test_system_calls_are_filtered_by_default_by_a_profile_or_not_at_all(engine: Boxes, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    rules = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}]
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
    assert field(status_of(engine), "Seccomp") == "2"
    assert field(status_of(engine, "--security-opt", "seccomp=unconfined"), "Seccomp") == "0"
    refused = engine.sh("mkdir /tmp/x 2>&1; true", "--security-opt", f"seccomp={profile}")
    assert refused.endswith("Input/output error")


@requires("file:/dev/kmsg", "cgroup:devices")
def test_only_devices_that_are_given_may_be_used_and_only_as_allowed(engine: Boxes) -> None:
    look, write = "head -c 0 {} 2>&1 && echo seen", "(: >> {}) 2>&1 && echo written"
    allowed, device = ("--cap-add", "SYSLOG"), ("--device", "/dev/kmsg:/dev/mine")
    made = "mknod /tmp/mine c 1 11 && " + look.format("/tmp/mine") + "; true"
    assert engine.sh(made, *allowed).endswith("Operation not permitted")
    shown = engine.sh(f"stat -c '%F %t %T' /dev/mine; {look}; {write}".format(*["/dev/mine"] * 2), *allowed, *device)
    assert shown.splitlines() == ["character special file 1 b", "seen", "written"]
    read_only = ("--device", "/dev/kmsg:/dev/mine:r")
    shown = engine.sh(f"{look}; {write}; true".format(*["/dev/mine"] * 2), *allowed, *read_only)
    assert shown.startswith("seen\n") and shown.endswith("Operation not permitted")


def test_the_usual_devices_are_there_and_no_others(engine: Boxes) -> None:
    usual = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue"}
    may = {"stdin", "stdout", "stderr", "fd", "core"}
    assert usual <= set(engine.sh("ls /dev").split()) <= usual | may
    assert engine.sh("head -c 4 /dev/zero | wc -c; echo gone > /dev/null; readlink /dev/fd") == "4\n/proc/self/fd"


@requires("cgroup:memory", "cgroup:pids", "cgroup:cpu")
def test_limits_are_in_the_containers_control_groups(engine: Boxes) -> None:
    flags = ("--memory", "64m", "--pids-limit", "33", "--cpus", "0.5", "--cpuset-cpus", "0")
    with engine.running("limited", "echo ready; sleep 1000", *flags) as pid:
        assert memory_limit(pid) == 64 << 20
        assert (cgroup_files(pid, "pids") / "pids.max").read_text() == "33\n"
        assert (cgroup_files(pid, "cpuset") / "cpuset.cpus").read_text() == "0\n"
        place = cgroup_files(pid, "cpu")
        quota = place / "cpu.cfs_quota_us"
        given = quota.read_text().split() if quota.exists() else (place / "cpu.max").read_text().split()[:1]
        assert given == ["50000"]
        assert f"/{engine.place.name}/" in str(place)
    assert not place.exists()


@requires("cgroup:pids")
def test_no_more_processes_than_allowed_can_be_made(engine: Boxes) -> None:
    script = "for n in $(seq 40); do sleep 2 & done 2>&1; true"
    said = engine.run("--rm", "--pids-limit", "25", IMAGE, "sh", "-c", script).out
    assert "can't fork" in said, said


def test_an_init_runs_the_program_and_ends_with_its_code(engine: Boxes) -> None:
    if isinstance(engine, Podman) and not available("program:catatonit"):
        pytest.skip("needs program:catatonit")
    done = engine.run("--rm", "--init", IMAGE, "sh", "-c", "echo $$; head -c 100 /proc/1/cmdline; exit 3")
    assert done.code == 3 and "init" in done.out.splitlines()[1] and done.out.splitlines()[0] != "1"


def test_kernel_files_are_masked_or_read_only(engine: Boxes) -> None:
    script = (
        "wc -c < /proc/keys; ls /sys/firmware | wc -l; (echo x > /proc/sys/kernel/domainname) 2>&1; touch /sys/x 2>&1"
    )
    masked, empty, *refused = engine.sh(f"{script}; true").splitlines()
    assert (masked, empty) == ("0", "0")
    assert [line.rpartition(": ")[2] for line in refused] == ["Read-only file system"] * 2


@requires("cgroup:hybrid")
def test_control_groups_are_shown_to_be_read(engine: Boxes) -> None:
    said = engine.sh("cd /sys/fs/cgroup/memory; cat memory.limit_in_bytes; mkdir x 2>&1; true", "--memory", "64m")
    assert said.startswith(f"{64 << 20}\n") and said.endswith("Read-only file system")
