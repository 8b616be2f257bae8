"""`cloche run` flag by flag: each is seen from inside the container by what it does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from commands import Result, cloche, ok, sh
from probes import available, cgroup_mounts, layout

pytestmark = [pytest.mark.requires("root", "overlay"), pytest.mark.usefixtures("store")]
V1 = layout() != "v2"


def limit(controller: str, v1: str, v2: str, *flags: str) -> str:
    path = f"/sys/fs/cgroup/{controller}/{v1}" if V1 else f"/sys/fs/cgroup/{v2}"
    return sh(f"cat {path}", *flags)


def test_output_and_exit_codes_are_the_commands_own() -> None:
    result = cloche("run", "--rm", "starter", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert result == (7, "out\n", "err\n")
    assert cloche("run", "--rm", "starter", "sh", "-c", "kill -TERM $$; sleep 5").code in {128 + 15, 0}
    assert cloche("run", "--rm", "--init", "starter", "sh", "-c", "kill -TERM $$; sleep 5").code == 128 + 15


def test_a_command_that_is_not_there_is_127_and_one_that_cannot_be_executed_126() -> None:
    missing = cloche("run", "--rm", "starter", "no-such-command")
    assert missing.code == 127
    assert 'execute "no-such-command": executable file not found in $PATH' in missing.err
    assert cloche("run", "--rm", "starter", "/etc/passwd").code == 126
    assert cloche("run", "--rm", "starter", "/etc").code == 126
    assert ok("ps", "-aq") == "", "--rm removes what could not be started too"


def test_standard_input_is_passed_on_and_ends() -> None:
    text = "x" * 300_000 + "\n"
    assert ok("run", "--rm", "-i", "starter", "cat", input=text) == text.rstrip("\n")
    assert ok("run", "--rm", "starter", "cat", input="nobody reads this") == ""


def test_the_container_has_names_of_its_own() -> None:
    ident = ok("run", "-d", "--name", "web", "starter", "cat", "/proc/sys/kernel/hostname")
    ok("wait", "web")
    assert ok("logs", "web") == ident[:12]
    assert sh("cat /proc/sys/kernel/hostname /etc/hostname", "-h", "bell").split() == ["bell", "bell"]
    taken = cloche("run", "--name", "web", "starter", "true")
    assert taken.code == 125
    assert "the name is in use" in taken.err


def test_the_environment_is_built_not_inherited(tmp_path: Path) -> None:
    file = tmp_path / "vars"
    file.write_text("# a comment\nFROM_FILE=1\nSECRET\n")
    flags = ("-e", "A=b c", "-e", "PASSED", "--env-file", str(file))
    result = ok("run", "--rm", *flags, "starter", "env", env={"PASSED": "on", "SECRET": "s", "OTHER": "no"})
    found = dict(line.split("=", 1) for line in result.splitlines())
    assert (found["A"], found["PASSED"], found["FROM_FILE"], found["SECRET"]) == ("b c", "on", "1", "s")
    assert set(found) == {"A", "PASSED", "FROM_FILE", "SECRET", "PATH", "HOSTNAME", "HOME"}


def test_bind_mounts_and_tmpfs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("data\n")
    assert sh("cat /x/file; echo more > /x/new", "-v", f"{tmp_path}:/x") == "data"
    assert (tmp_path / "new").read_text() == "more\n"
    assert "Read-only" in sh("touch /x/no 2>&1 || true", "-v", f"{tmp_path}:/x:ro")
    assert sh("cat /a/b/c", "--mount", f"type=bind,source={tmp_path}/file,target=/a/b/c,readonly") == "data"
    size = sh("df /t | tail -1 | awk '{print $2}'; stat -c %a /t", "--tmpfs", "/t:size=1m,mode=0700").split()
    assert size == ["1024", "700"]
    assert cloche("run", "--rm", "-v", "/no/such/dir:/x", "starter", "true").code == 125


def test_mounts_below_a_read_only_bind_are_read_only_too(tmp_path: Path) -> None:
    from cloche.kernel.mounts import mount, umount2

    below = tmp_path / "below"
    below.mkdir()
    mount("tmpfs", str(below), "tmpfs")
    try:
        assert "Read-only" in sh("touch /x/below/no 2>&1 || true", "-v", f"{tmp_path}:/x:ro")
    finally:
        umount2(str(below))


def test_every_kind_of_mount_in_the_long_form(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("data\n")
    long = f"type=bind,src={tmp_path},dst=/x,readonly,bind-propagation=rslave"
    assert "Read-only" in sh("cat /x/file; touch /x/no 2>&1 || true", "--mount", long)
    memory = "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=0711"
    assert sh("df /t | tail -1 | awk '{print $2}'; stat -c %a /t", "--mount", memory).split() == ["1024", "711"]
    quoted = f'"type=bind","source={tmp_path}/file","target=/with,comma"'
    assert sh("cat /with,comma", "--mount", quoted) == "data"
    relative = ok("run", "--rm", "-v", "./file:/f", "starter", "cat", "/f", cwd=tmp_path)
    assert relative == "data"


@pytest.mark.parametrize(("mode", "seen"), [("rprivate", False), ("rslave", True), ("rshared", True)])
def test_propagation_of_a_bind(tmp_path: Path, mode: str, seen: bool) -> None:
    """A mount that the host makes later is seen inside, or is not."""
    from cloche.kernel.mounts import MS_REC, MS_SHARED, mount, umount2

    mount("tmpfs", str(tmp_path), "tmpfs")
    try:
        mount(None, str(tmp_path), None, MS_REC | MS_SHARED)
        (tmp_path / "later").mkdir()
        ok("run", "-d", "--name", "box", "-v", f"{tmp_path}:/x:{mode}", "starter", "sleep", "1000")
        assert ok("inspect", "-f", "{{(index .Mounts 0).Propagation}}", "box") == mode
        mount("tmpfs", str(tmp_path / "later"), "tmpfs")
        (tmp_path / "later/file").touch()
        assert ok("exec", "box", "ls", "/x/later") == ("file" if seen else "")
        ok("rm", "-f", "box")
    finally:
        umount2(str(tmp_path / "later"))
        umount2(str(tmp_path))


def test_names_of_users_and_groups_are_the_images() -> None:
    shown = sh("id -u; id -un; id -G", "-u", "nobody", "--group-add", "root").split()
    assert shown[:2] == ["65534", "nobody"]
    assert "0" in shown[2:]
    assert sh("id -u; id -g", "-u", "nobody:0").split() == ["65534", "0"]


def test_working_directory_user_and_groups() -> None:
    assert sh("pwd", "-w", "/new/dir") == "/new/dir"
    assert sh("id -u; id -g; id -G; echo $HOME", "-u", "1234:56", "--group-add", "77").split() == [
        "1234",
        "56",
        "56",
        "77",
        "/",
    ]
    assert sh("id -un; echo $HOME").split() == ["root", "/root"]
    unknown = cloche("run", "--rm", "-u", "nosuchuser", "starter", "true")
    assert unknown.code == 125
    assert "no matching entries in passwd file" in unknown.err


def test_entrypoint_read_only_root_and_init() -> None:
    assert ok("run", "--rm", "--entrypoint", "echo", "starter", "a", "b") == "a b"
    assert "Read-only" in sh("touch /no 2>&1 || true; touch /dev/shm/yes", "--read-only")
    first, comm = sh("echo $$; cat /proc/1/comm", "--init").split()
    assert (first != "1", comm) == (True, "cloche-init")


@pytest.mark.requires("cgroup:memory", "cgroup:pids", "cgroup:cpu")
def test_limits_are_written_to_the_containers_groups() -> None:
    assert limit("memory", "memory.limit_in_bytes", "memory.max", "-m", "64m") == str(64 << 20)
    reserved = limit("memory", "memory.soft_limit_in_bytes", "memory.low", "--memory-reservation", "32m")
    assert reserved == str(32 << 20)
    assert limit("pids", "pids.max", "pids.max", "--pids-limit", "17") == "17"
    quota = limit("cpu", "cpu.cfs_quota_us", "cpu.max", "--cpus", "0.5")
    assert quota == ("50000" if V1 else "50000 100000")
    weight = limit("cpu", "cpu.shares", "cpu.weight", "--cpu-shares", "512")
    assert weight == ("512" if V1 else "20")


@pytest.mark.requires("cgroup:memory")
def test_swap_is_limited_together_with_memory() -> None:
    if V1 and not Path(cgroup_mounts()["memory"], "memory.memsw.limit_in_bytes").exists():
        refused = cloche("run", "--rm", "-m", "64m", "--memory-swap", "96m", "starter", "true")
        assert (refused.code, "does not count swap" in refused.err) == (125, True)
        pytest.skip("needs swap accounting")
    name = "memory.memsw.limit_in_bytes" if V1 else "memory.swap.max"
    memory = 64 if V1 else 0  # version 2 counts swap alone
    for flags, wanted in (([], 128 << 20), (["--memory-swap", "96m"], 96 << 20), (["--memory-swap", "64m"], 64 << 20)):
        found = int(limit("memory", name, name, "-m", "64m", *flags))
        assert found + ((64 - memory) << 20) == wanted, flags
    unlimited = limit("memory", name, name, "-m", "64m", "--memory-swap", "-1")
    assert unlimited == "max" or int(unlimited) > 1 << 60


@pytest.mark.requires("cgroup:cpuset")
def test_a_cpuset_is_what_the_process_may_run_on() -> None:
    assert sh("grep Cpus_allowed_list /proc/self/status", "--cpuset-cpus", "0").split()[1] == "0"


def test_process_limits_and_scores() -> None:
    assert sh("ulimit -n; ulimit -Hn", "--ulimit", "nofile=100:200").split() == ["100", "200"]
    assert sh("cat /proc/self/oom_score_adj", "--oom-score-adj", "500") == "500"
    assert sh("df /dev/shm | tail -1 | awk '{print $2}'", "--shm-size", "1m") == "1024"


def caps(*flags: str) -> int:
    return int(sh("grep CapEff /proc/self/status", *flags).split()[1], 16)


def test_capabilities() -> None:
    from cloche.kernel.capabilities import DEFAULT, mask

    assert caps() == mask(DEFAULT)
    assert caps("--cap-drop", "ALL") == 0
    assert caps("--cap-drop", "ALL", "--cap-add", "chown") == mask(("CAP_CHOWN",))
    assert caps("--cap-add", "NET_ADMIN") == mask((*DEFAULT, "CAP_NET_ADMIN"))
    assert caps("-u", "1000") == 0, "a user who is not root has none"
    assert "Operation not permitted" in sh("chown 1:1 /etc 2>&1 || true", "--cap-drop", "CHOWN")


@pytest.mark.requires("library:libseccomp.so.2")
def test_seccomp_and_new_privileges() -> None:
    def status(key: str, *flags: str) -> str:
        return sh(f"grep -w {key} /proc/self/status", *flags).split()[1]

    assert status("Seccomp") == "2"
    assert status("Seccomp", "--security-opt", "seccomp=unconfined") == "0"
    assert status("NoNewPrivs") == "0"
    assert status("NoNewPrivs", "--security-opt", "no-new-privileges") == "1"


@pytest.mark.requires("library:libseccomp.so.2")
def test_a_seccomp_profile_of_ones_own_denies_what_it_should(tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls":'
        ' [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}'
    )
    assert "Permission denied" in sh("mkdir /new 2>&1 || true", "--security-opt", f"seccomp={profile}")
    profile.write_text("not json")
    assert cloche("run", "--rm", "--security-opt", f"seccomp={profile}", "starter", "true").code == 125


def test_privileged_has_everything() -> None:
    assert caps("--privileged") == caps("--cap-add", "ALL")
    assert sh("test -w /proc/sys/kernel/hostname && echo writable", "--privileged") == "writable"
    assert sh("test -e /dev/loop-control -o -e /dev/kmsg && echo devices", "--privileged") == "devices"
    assert cloche("run", "--rm", "starter", "sh", "-c", "echo x > /proc/sys/kernel/hostname").code == 2


def test_a_device_of_the_host() -> None:
    assert sh("stat -c %t:%T /dev/mine", "--device", "/dev/null:/dev/mine:r") == "1:3"
    assert cloche("run", "--rm", "--device", "/dev/nosuch", "starter", "true").code == 125


@pytest.mark.requires("cgroup:devices")
def test_devices_that_were_not_given_cannot_be_opened() -> None:
    script = "mknod /kmsg c 1 11 && cat /kmsg 2>&1 | head -1"
    assert "Operation not permitted" in sh(script)


def namespace(kind: str, *flags: str) -> str:
    return sh(f"readlink /proc/self/ns/{kind}", *flags)


def test_namespaces_are_its_own_unless_asked() -> None:
    for kind in ("mnt", "pid", "net", "ipc", "uts", "cgroup"):
        assert namespace(kind) != os.readlink(f"/proc/self/ns/{kind}"), kind
    assert namespace("net", "--network", "host") == os.readlink("/proc/self/ns/net")
    assert namespace("pid", "--pid", "host") == os.readlink("/proc/self/ns/pid")
    assert namespace("ipc", "--ipc", "host") == os.readlink("/proc/self/ns/ipc")
    assert namespace("uts", "--uts", "host") == os.readlink("/proc/self/ns/uts")
    assert namespace("cgroup", "--cgroupns", "host") == os.readlink("/proc/self/ns/cgroup")


def test_namespaces_of_another_container() -> None:
    ok(
        "run",
        "-d",
        "--name",
        "first",
        "--ipc",
        "shareable",
        "starter",
        "sh",
        "-c",
        "echo shared > /dev/shm/file; sleep 1000",
    )
    while not ok("exec", "first", "sh", "-c", "ls /dev/shm"):
        pass
    for kind, flag in (("net", "--network"), ("pid", "--pid"), ("ipc", "--ipc")):
        there = ok("exec", "first", "readlink", f"/proc/self/ns/{kind}")
        assert namespace(kind, flag, "container:first") == there
    assert sh("cat /dev/shm/file", "--ipc", "container:first") == "shared"
    assert "sleep" in sh("cat /proc/1/cmdline", "--pid", "container:first")
    ok("run", "-d", "--name", "closed", "starter", "sleep", "1000")
    refused = cloche("run", "--rm", "--ipc", "container:closed", "starter", "true")
    assert (refused.code, "--ipc shareable" in refused.err) == (125, True)
    ok("kill", "closed")
    ok("wait", "closed")
    stopped = cloche("run", "--rm", "--network", "container:closed", "starter", "true")
    assert (stopped.code, "is not running" in stopped.err) == (125, True)


@pytest.mark.requires("userns")
def test_user_namespaces() -> None:
    if "id-mapped" in cloche("run", "--rm", "--userns", "auto", "starter", "true").err:
        pytest.skip("needs a file system that can be mounted id-mapped")
    script = "id -u; cat /proc/self/uid_map; touch /mine; stat -c %u:%g / /etc /mine"
    first = sh(script, "--userns", "auto").split()
    assert (first[0], first[1], first[3]) == ("0", "0", "65536")
    assert first[4:] == ["0:0", "0:0", "0:0"]
    ok("run", "-d", "--name", "held", "--userns", "auto", "starter", "sleep", "1000")
    held = ok("exec", "held", "cat", "/proc/self/uid_map").split()[1]
    assert sh("cat /proc/self/uid_map", "--userns", "auto").split()[1] != held, "ranges never overlap"
    assert sh("cat /proc/self/uid_map", "--userns", "0:200000:1000").split() == ["0", "200000", "1000"]
    pid = int(ok("inspect", "-f", "{{.State.Pid}}", "held"))
    assert os.stat(f"/proc/{pid}").st_uid == int(held), "root inside is not root outside"


def test_ipc_of_its_own_has_its_own_memory() -> None:
    for flags in ((), ("--ipc", "private"), ("--ipc", "shareable")):
        assert namespace("ipc", *flags) != os.readlink("/proc/self/ns/ipc")
        assert sh("ls /dev/shm", *flags) == ""
    assert namespace("user", "--userns", "host") == os.readlink("/proc/self/ns/user")
    assert namespace("cgroup", "--cgroupns", "private") != os.readlink("/proc/self/ns/cgroup")


def test_sysctls_labels_and_annotations() -> None:
    assert (
        sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "--sysctl", "net.ipv4.ip_unprivileged_port_start=0")
        == "0"
    )
    ok("create", "--name", "named", "--label", "a=b", "--annotation", "c=d", "starter", "true")
    assert ok("inspect", "-f", "{{.Config.Labels.a}} {{.HostConfig.Annotations.c}}", "named") == "b d"


def test_the_id_is_written_to_a_file_that_must_be_new(tmp_path: Path) -> None:
    file = tmp_path / "id"
    ident = ok("run", "-d", "--cidfile", str(file), "starter", "true")
    assert file.read_text() == ident
    again = cloche("run", "--cidfile", str(file), "starter", "true")
    assert (again.code, "the file exists" in again.err) == (125, True)


@pytest.mark.parametrize("flag", [["--link", "x"], ["--storage-opt", "size=1g"]])
def test_what_is_not_there_is_refused_by_name(flag: list[str]) -> None:
    refused = cloche("run", "--rm", *flag, "starter", "true")
    assert (refused.code, "not there yet" in refused.err) == (125, True)


def test_no_descriptor_leaks_into_a_container() -> None:
    # 3 is ls's own, of the directory it lists
    assert sh("ls /proc/self/fd").split() == ["0", "1", "2", "3"]
    ok("run", "-d", "--name", "box", "starter", "sleep", "1000")
    assert ok("exec", "box", "ls", "/proc/self/fd").split() == ["0", "1", "2", "3"]


def test_explain_and_plan_show_the_same_steps() -> None:
    plan = ok("plan", "starter", "true").splitlines()[:-1]
    explained = cloche("run", "--rm", "--explain", "starter", "true")
    assert explained.code == 0
    steps = [line for line in explained.err.splitlines() if line[20:21].isalnum() or " host " in line]
    assert f"{sum(line[:3].strip().isdigit() for line in plan)} steps in" in explained.err
    assert any("µs" in line for line in steps)
    assert ok("ps", "-aq") == ""
    assert available("root")


def test_only_some_streams_are_gone_along_with() -> None:
    """docker run -a: what is not attached is in the log only; without any output the id is printed."""
    words = ("starter", "sh", "-c", "echo out; echo err >&2; exit 3")
    flags = ("run", "--network", "none", "--rm")
    assert cloche(*flags, "-a", "stdout", *words) == Result(3, "out\n", "")
    assert cloche(*flags, "-a", "STDERR", *words) == Result(3, "", "err\n")
    assert cloche(*flags, "-a", "stdout", "-a", "stderr", *words) == Result(3, "out\n", "err\n")
    alone = cloche("run", "--network", "none", "--name", "box", "-i", "-a", "stdin", "starter", "cat", input="typed\n")
    assert alone.code == 0 and alone.out.strip() == ok("inspect", "-f", "{{.Id}}", "box") and not alone.err
    assert ok("logs", "box") == "typed"
    streams = "{{.Config.AttachStdin}} {{.Config.AttachStdout}} {{.Config.AttachStderr}}"
    assert ok("inspect", "-f", streams, "box") == "true false false"
    for wrong, said in (
        (("-a", "stdeer"), "valid streams are"),
        (("-d", "-a", "stdout"), "both --attach and --detach"),
    ):
        refused = cloche(*flags, *wrong, "starter", "true")
        assert refused.code == 125 and said in refused.err
