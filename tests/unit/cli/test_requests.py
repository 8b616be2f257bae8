"""From flags to requests: each flag of `run` and `exec` arrives where it belongs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cloche.cli.arguments import parse
from cloche.cli.flags import verb
from cloche.cli.requests import exec_request, run_request
from cloche.engine.request import (
    Connection,
    DeviceLimit,
    ExecRequest,
    FileMount,
    HostDevice,
    Networking,
    PortMapping,
    RunRequest,
    Ulimit,
)
from cloche.errors import Invalid, Unsupported
from cloche.oci.runtime import DeviceRule, IdMapping

FILES = {
    "/cwd/vars": b"# a comment\nA=from the file\nC\nD\n",
    "/labels": b"# mine\na=1\nb=2\nc\n",
    "/profile.json": b'{"defaultAction": "SCMP_ACT_ERRNO"}',
    "/bad.json": b"{",
    "/latin": b"X=\xe9\n",
}


def read_file(path: str) -> bytes:
    if path not in FILES:
        raise FileNotFoundError(2, "No such file or directory", path)
    return FILES[path]


def request(*words: str) -> RunRequest:
    return run_request(parse(["run", *words]), "/cwd", {"HOME": "/root", "C": "caller's"}, read_file)


def found(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = getattr(value, name)
    return value


FLAGS: list[tuple[list[str], str, object]] = [
    (["-i"], "process.interactive", True),
    (["-t"], "process.tty", True),
    (["-e", "A=b", "-e", "HOME", "-e", "NOT_THERE"], "process.env", ("A=b", "HOME=/root", "NOT_THERE")),
    (["--env-file", "vars", "-e", "A=b"], "process.env", ("A=from the file", "C=caller's", "D", "A=b")),
    (["-e", "A=\x1b[31m\n"], "process.env", ("A=\x1b[31m\n",)),
    (["-u", "nobody:nogroup"], "process.user", "nobody:nogroup"),
    (["--group-add", "audio", "--group-add", "44"], "process.groups", ("audio", "44")),
    (["-w", "/srv"], "process.working_directory", "/srv"),
    (["--entrypoint", "/bin/x"], "process.entrypoint", ("/bin/x",)),
    (["--entrypoint", ""], "process.entrypoint", ()),
    ([], "process.entrypoint", None),
    (["--init"], "process.init", True),
    (["--stop-signal", "usr1"], "process.stop_signal", "SIGUSR1"),
    (["--stop-timeout", "-1"], "process.stop_timeout", -1),
    ([], "process.stop_timeout", None),
    (
        ["--ulimit", "nofile=1024:2048", "--ulimit", "core=0"],
        "process.ulimits",
        (Ulimit("nofile", 1024, 2048), Ulimit("core", 0, 0)),
    ),
    (["--ulimit", "nofile=1", "--ulimit", "nofile=2"], "process.ulimits", (Ulimit("nofile", 2, 2),)),
    (["--oom-score-adj", "-500"], "process.oom_score_adj", -500),
    (["--name", "web"], "name", "web"),
    (["-h", "box"], "hostname", "box"),
    (["-l", "a=1", "--label", "b", "-l", "a=2"], "labels", (("a", "2"), ("b", ""))),
    (["--annotation", "x=y"], "annotations", (("x", "y"),)),
    (["--cidfile", "id"], "cidfile", "/cwd/id"),
    (["--cidfile", "/id"], "cidfile", "/id"),
    (["--rm"], "remove", True),
    (["--restart", "always"], "restart", "always"),
    (["--restart", "on-failure:3"], "restart_tries", 3),
    (["-d"], "detach", True),
    (["-a", "STDOUT", "--attach", "stderr", "-a", "stdout"], "attach", ("stdout", "stderr")),
    (["--detach-keys", "ctrl-a,d"], "detach_keys", "ctrl-a,d"),
    (["--sig-proxy=false"], "sig_proxy", False),
    ([], "sig_proxy", True),
    (["-m", "64m"], "resources.memory", 64 << 20),
    (["-m", "64m", "--memory-swap", "128M"], "resources.memory_swap", 128 << 20),
    (["--memory-swap", "-1"], "resources.memory_swap", -1),
    (["--memory-reservation", "1g"], "resources.memory_reservation", 1 << 30),
    (["--cpus", "0.5"], "resources.nano_cpus", 500_000_000),
    (["-c", "512"], "resources.cpu_shares", 512),
    (["--cpuset-cpus", "0-1"], "resources.cpuset_cpus", "0-1"),
    (["--pids-limit", "10"], "resources.pids", 10),
    (["--cpu-period", "50000"], "resources.cpu_period", 50000),
    (["--cpu-quota", "-1"], "resources.cpu_quota", -1),
    (["--cpu-rt-period", "100000"], "resources.cpu_rt_period", 100000),
    (["--cpu-rt-period", "9", "--cpu-rt-runtime", "5"], "resources.cpu_rt_runtime", 5),
    (["--cpuset-mems", "0-1"], "resources.cpuset_mems", "0-1"),
    (["--memory-swappiness", "0"], "resources.swappiness", 0),
    ([], "resources.swappiness", -1),
    (["--oom-kill-disable"], "resources.oom_kill_disable", True),
    (["--blkio-weight", "300"], "resources.blkio_weight", 300),
    (["--blkio-weight-device", "/dev/sda:500"], "resources.rates", (DeviceLimit("weight", "/dev/sda", 500),)),
    (["--device-read-bps", "/dev/sda:1mb"], "resources.rates", (DeviceLimit("read_bps", "/dev/sda", 1 << 20),)),
    (["--device-write-bps", "/dev/sda:1"], "resources.rates", (DeviceLimit("write_bps", "/dev/sda", 1),)),
    (["--device-read-iops", "/dev/sda:1000"], "resources.rates", (DeviceLimit("read_iops", "/dev/sda", 1000),)),
    (["--device-write-iops", "/dev/sda:0"], "resources.rates", (DeviceLimit("write_iops", "/dev/sda", 0),)),
    (["--device-cgroup-rule", "c 13:* rw"], "files.device_rules", (DeviceRule(True, "c", 13, -1, "rw"),)),
    (["--log-driver", "local"], "log.driver", "local"),
    (["--log-opt", "max-size=1m", "--log-opt", "max-file=2"], "log.options", (("max-size", "1m"), ("max-file", "2"))),
    (["--cgroup-parent", "/mine"], "cgroup_parent", "/mine"),
    (["--domainname", "example.org"], "domainname", "example.org"),
    (["--label-file", "/labels", "-l", "b=3"], "labels", (("a", "1"), ("b", "3"))),
    (["--shm-size", "1m"], "files.shm_size", 1 << 20),
    (["--read-only"], "files.read_only", True),
    (["-v", "./data:/data:ro,rshared"], "files.mounts", (FileMount("bind", "/data", "/cwd/data", True, "rshared"),)),
    (["--mount", "type=bind,src=/a,dst=/b"], "files.mounts", (FileMount("bind", "/b", "/a"),)),
    (["-v", "data:/data:nocopy"], "files.mounts", (FileMount("volume", "/data", "data", copy=False),)),
    (["--volumes-from", "a:ro", "--volumes-from", "b"], "files.volumes_from", ("a:ro", "b")),
    (
        ["--tmpfs", "/x:size=64m,mode=1777"],
        "files.mounts",
        (FileMount("tmpfs", "/x", options=("size=64m", "mode=1777")),),
    ),
    (["--device", "/dev/fuse"], "files.devices", (HostDevice("/dev/fuse", "/dev/fuse"),)),
    (["--device", "vendor.com/class=name"], "files.cdi", ("vendor.com/class=name",)),
    (["--gpus", "all"], "files.gpus", "all"),
    (["--network", "host"], "network", "host"),
    ([], "network", "bridge"),
    ([], "networking", Networking()),
    (["--network", "a", "--network", "b"], "networking.connections", (Connection("a"), Connection("b"))),
    (["--network", "a,alias=x,ip=10.0.0.9"], "networking.connections", (Connection("a", "10.0.0.9", "", ("x",)),)),
    (["--network-alias", "x"], "networking.connections", (Connection("bridge", aliases=("x",)),)),
    (["--ip", "10.0.0.9"], "networking.connections", (Connection("bridge", "10.0.0.9"),)),
    (["--ip6", "fd00::9"], "networking.connections", (Connection("bridge", "", "fd00::9"),)),
    (
        ["--mac-address", "02:00:00:00:00:01"],
        "networking.connections",
        (Connection("bridge", mac="02:00:00:00:00:01"),),
    ),
    (["-p", "8080:80"], "networking.ports", (PortMapping(80, "tcp", "", 8080),)),
    (["-P"], "networking.publish_all", True),
    (["--expose", "80-81/udp"], "networking.expose", ((80, "udp"), (81, "udp"))),
    (["--dns", "1.1.1.1"], "networking.dns", ("1.1.1.1",)),
    (["--dns-search", "a.b"], "networking.dns_search", ("a.b",)),
    (["--dns-opt", "ndots:1"], "networking.dns_options", ("ndots:1",)),
    (["--add-host", "a:host-gateway"], "networking.hosts", (("a", "host-gateway"),)),
    (["--health-cmd", "curl -f localhost"], "health.test", ("CMD-SHELL", "curl -f localhost")),
    (["--health-interval", "1m30s"], "health.interval", 90 * 10**9),
    (["--health-timeout", "1.5s"], "health.timeout", 1_500_000_000),
    (["--health-retries", "5"], "health.retries", 5),
    (["--health-start-period", "2m"], "health.start_period", 120 * 10**9),
    (["--health-start-interval", "100ms"], "health.start_interval", 10**8),
    (["--health-cmd", "x", "--health-on-failure", "restart"], "health.on_failure", "restart"),
    (["--no-healthcheck"], "health.test", ("NONE",)),
    (["--pid", "container:a"], "namespaces.pid", "container:a"),
    (["--ipc", "shareable"], "namespaces.ipc", "shareable"),
    (["--uts", "host"], "namespaces.uts", "host"),
    (["--cgroupns", "host"], "namespaces.cgroup", "host"),
    (["--userns", "auto"], "namespaces.user", "auto"),
    (["--userns", "0:100000:65536"], "namespaces.user", "map"),
    (["--userns", "0:100000:65536"], "namespaces.user_map", (IdMapping(0, 100000, 65536),)),
    (["--cap-add", "net_admin"], "security.cap_add", ("CAP_NET_ADMIN",)),
    (["--cap-drop", "ALL"], "security.cap_drop", ("ALL",)),
    (["--security-opt", "no-new-privileges"], "security.no_new_privileges", True),
    (["--security-opt", "no-new-privileges:false"], "security.no_new_privileges", False),
    (["--security-opt", "seccomp=unconfined"], "security.seccomp", "unconfined"),
    (["--security-opt", "seccomp=/profile.json"], "security.seccomp", '{"defaultAction": "SCMP_ACT_ERRNO"}'),
    (["--privileged"], "security.privileged", True),
    (["--sysctl", "net.ipv4.ip_forward=1"], "security.sysctls", (("net.ipv4.ip_forward", "1"),)),
]
ELSEWHERE = {
    "explain",
    "help",
    "pull",
    "platform",
    "quiet",
    "volume-driver",
    "runtime",
    "isolation",
}  # not the engine's


@pytest.mark.parametrize(("words", "path", "expected"), FLAGS)
def test_each_flag_arrives(words: list[str], path: str, expected: object) -> None:
    made = request(*words, "starter", "echo", "--rm")
    assert found(made, path) == expected
    assert made.image == "starter" and made.process.command == ("echo", "--rm")


def test_no_flag_of_run_is_accepted_and_ignored() -> None:
    tested = {name for words, _, _ in FLAGS for name in parse(["run", *words, "x"]).values}
    assert tested | ELSEWHERE == set(verb("run").rows())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["-m", "x"],
            "invalid argument \"x\" for \"-m, --memory\" flag: invalid size: 'x'; hint: see 'cloche run --help'",
        ),
        (["--cpus", "x"], 'invalid argument "x" for "--cpus" flag: failed to parse x as a rational number'),
        (["--ulimit", "x"], 'invalid argument "x" for "--ulimit" flag: invalid ulimit argument: x'),
        (["-e", "=x"], 'invalid argument "=x" for "-e, --env" flag: invalid environment variable: =x'),
        (["-l", "=x"], "invalid label '=x': empty name"),
        (["--mount", "foo"], "invalid field 'foo' must be a key=value pair"),
        (["--env-file", "/nope"], "read the environment file /nope: no such file or directory (ENOENT)"),
        (["--env-file", "/latin"], "read the environment file /latin, line 1: invalid utf8 bytes"),
        (["--security-opt", "seccomp=/bad.json"], "read the seccomp profile /bad.json: it is not JSON"),
        (["--security-opt", "seccomp=nope"], "read the seccomp profile nope: no such file or directory (ENOENT)"),
        (["--security-opt", "foo"], 'Invalid --security-opt: "foo"'),
        (["--userns", "1:2"], "invalid USER mode: '1:2'"),
        (["--detach-keys", "ctrl-"], 'for "--detach-keys" flag'),
        (["-m", "1m"], "Minimum memory limit allowed is 6MB"),
    ],
)
def test_values_that_cannot_be_meant(words: list[str], message: str) -> None:
    with pytest.raises(Invalid) as caught:
        request(*words, "starter")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mount", "target=/x,volume-driver=nfs"], "mount option volume-driver=nfs is not there yet"),
        (["--mount", "type=image,source=a,target=/x"], "a mount of type image is not there yet"),
        (["--network", "a,driver-opt=x"], "network option driver-opt is not there yet"),
        (["--security-opt", "apparmor=x"], "--security-opt apparmor is not there yet"),
        (["-v", "/a:/b:Z"], "mount option Z (an SELinux label) is not there yet"),
    ],
)
def test_values_that_are_not_there_yet(words: list[str], message: str) -> None:
    with pytest.raises(Unsupported) as caught:
        request(*words, "starter")
    assert message in str(caught.value)


def test_a_request_for_exec() -> None:
    words = [
        "exec",
        "-it",
        "-e",
        "HOME",
        "-u",
        "1",
        "-w",
        "/x",
        "--privileged",
        "--env-file",
        "vars",
        "-d",
        "c",
        "ls",
        "-l",
    ]
    made = exec_request(parse(words), "/cwd", {"HOME": "/root"}, read_file)
    env = ("A=from the file", "C", "D", "HOME=/root")
    assert made == ExecRequest("c", ("ls", "-l"), env, "/x", "1", True, True, True, True)


def test_no_flag_of_exec_is_ignored() -> None:
    words = [
        "exec",
        "-dit",
        "--detach-keys",
        "a",
        "-e",
        "A=b",
        "--env-file",
        "vars",
        "-u",
        "1",
        "-w",
        "/x",
        "--privileged",
        "c",
        "x",
    ]
    assert set(parse(words).values) | ELSEWHERE >= set(verb("exec").rows())


def test_mounts_keep_their_order_within_a_flag() -> None:
    made = request("--tmpfs", "/c", "-v", "/a:/a", "--mount", "type=tmpfs,target=/d", "-v", "/b:/b", "x")
    assert [mount.target for mount in made.files.mounts] == ["/a", "/b", "/d", "/c"]


def test_a_run_is_read_without_heavy_modules() -> None:
    words = "run -it --rm -m 64m --cpus 1 -e A=b -v /a:/b:ro --ulimit core=0 --cap-add KILL --stop-signal 9 x y".split()
    code = (
        "import cloche.errors, cloche.value, os; before = set(sys.modules)\n"
        "from cloche.cli.arguments import parse\n"
        "from cloche.cli.requests import run_request\n"
        f"run_request(parse({words!r}), '/', {{}}, open)\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    source = str(Path(__file__).resolve().parents[3] / "src")
    command = [sys.executable, "-I", "-S", "-B", "-c", f"import sys; sys.path.insert(0, {source!r})\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    added = set(done.stdout.split())
    assert {name for name in added if not name.startswith("cloche")} <= {"posixpath"}
    assert not added & {"cloche.cli.template", "cloche.cli.rendering", "cloche.cli.usage", "cloche.cli.terminal"}
