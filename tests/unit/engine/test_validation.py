"""What cannot be meant is refused in one line, whoever asks; what can is given back in canonical spelling."""

from __future__ import annotations

import re

import pytest

from cloche.engine.request import (
    Connection,
    ExecRequest,
    FileMount,
    Files,
    HostDevice,
    Limits,
    Namespaces,
    Networking,
    PortMapping,
    Program,
    RunRequest,
    Security,
    Ulimit,
)
from cloche.engine.validation import check, check_exec
from cloche.errors import Invalid
from cloche.oci.runtime import IdMapping

MB = 1 << 20


def process(**fields: object) -> RunRequest:
    return RunRequest("x", process=Program(**fields))  # type: ignore[arg-type]


def limits(**fields: object) -> RunRequest:
    return RunRequest("x", resources=Limits(**fields))  # type: ignore[arg-type]


def mounts(*mounts: FileMount) -> RunRequest:
    return RunRequest("x", files=Files(mounts))


def device(*fields: str) -> RunRequest:
    return RunRequest("x", files=Files(devices=(HostDevice(*fields),)))


def spaces(network: str = "none", **fields: object) -> RunRequest:
    return RunRequest("x", namespaces=Namespaces(**fields), network=network)  # type: ignore[arg-type]


def mapped(*ranges: tuple[int, int, int]) -> RunRequest:
    return spaces(user="map", user_map=tuple(IdMapping(*entry) for entry in ranges))


def sysctl(key: str, value: str = "1", **fields: object) -> RunRequest:
    return RunRequest("x", security=Security(sysctls=((key, value),))).replace(**fields)


REFUSED: list[tuple[RunRequest, str]] = [
    (RunRequest(""), "no image is named"),
    (process(working_directory="srv"), "the working directory 'srv' is invalid: it needs to be an absolute path"),
    (process(working_directory="/a\0"), "it has a NUL byte in it"),
    (process(command=("a\0b",)), "an argument or variable has a NUL byte in it"),
    (process(command=("\ud800",)), "an argument or variable cannot be written as bytes"),
    (process(env=("A=\0",)), "A has a NUL byte in it"),
    (process(env=("=x",)), "invalid environment variable: =x"),
    (process(env=("",)), "invalid environment variable: ''"),
    (process(user="a:b:c"), "it is not of the form USER[:GROUP]"),
    (process(user="a\nb"), "it is not of the form USER[:GROUP]"),
    (process(user=":1"), "it is not of the form USER[:GROUP]"),
    (process(groups=("",)), "it is neither a name nor a number"),
    (process(groups=("a b",)), "it is neither a name nor a number"),
    (process(oom_score_adj=1001), "invalid value 1001, range for oom score adj is [-1000, 1000]"),
    (process(stop_timeout=-2), "set the stop timeout: invalid value -2"),
    (process(stop_signal="FOO"), "invalid signal: FOO"),
    (process(ulimits=(Ulimit("foo", 1, 1),)), "invalid ulimit type: foo"),
    (process(ulimits=(Ulimit("core", 1, 1), Ulimit("core", 2, 2))), "ulimit core: given twice"),
    (process(ulimits=(Ulimit("core", 2, 1),)), "ulimit soft limit must be less than or equal to hard limit: 2 > 1"),
    (process(ulimits=(Ulimit("core", -1, 1),)), "less than or equal to hard limit: unlimited > 1"),
    (process(ulimits=(Ulimit("core", -2, -2),)), "out of range"),
    (process(ulimits=(Ulimit("core", 1, 1 << 63),)), "out of range"),
    (RunRequest("x", name="a"), "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed; hint: at least two characters"),
    (RunRequest("x", name="-ab"), "Invalid container name (-ab), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
    (RunRequest("x", name="a/b"), "Invalid container name"),
    (RunRequest("x", name="../x"), "Invalid container name"),
    (RunRequest("x", name="a\nb"), "Invalid container name (a\\nb)"),
    (RunRequest("x", name="é" * 5), "Invalid container name"),
    (RunRequest("x", name="a" * 256), "Invalid container name"),
    (RunRequest("x", hostname="a" * 65), "more than 64 characters"),
    (RunRequest("x", hostname="a b"), "only letters, digits, '-', '.' and '_' are allowed"),
    (RunRequest("x", hostname="a\n127.0.0.1 evil"), "invalid hostname 'a\\n127.0.0.1 evil'"),
    (RunRequest("x", hostname="-a"), "invalid hostname '-a'"),
    (RunRequest("x", labels=(("", "v"),)), "invalid label '=v': empty name"),
    (RunRequest("x", labels=(("a", "\udcff"),)), "it is not valid UTF-8"),
    (RunRequest("x", annotations=(("a", "\0"),)), "it has a NUL byte in it"),
    (RunRequest("x", cidfile="a\0"), "it has a NUL byte in it"),
    (limits(memory=MB), "limit memory to 1048576 bytes: Minimum memory limit allowed is 6MB"),
    (limits(memory=-1), "Minimum memory limit allowed is 6MB"),
    (limits(memory=1 << 63), "a number of more than 63 bits"),
    (limits(memory_swap=8 * MB), "You should always set the Memory limit when using Memoryswap limit, see usage"),
    (limits(memory_swap=-2), "it is negative"),
    (
        limits(memory=8 * MB, memory_swap=7 * MB),
        "Minimum memoryswap limit should be larger than memory limit, see usage",
    ),
    (limits(memory_reservation=1), "Minimum memory reservation allowed is 6MB"),
    (limits(memory=8 * MB, memory_reservation=9 * MB), "can not be less than memory reservation limit, see usage"),
    (limits(nano_cpus=1), "Range of CPUs is from 0.01 on"),
    (limits(nano_cpus=-1), "Range of CPUs is from 0.01 on"),
    (limits(cpu_shares=1), "the range is from 2 to 262144"),
    (limits(cpuset_cpus="3-0"), "Invalid value 3-0 for cpuset cpus"),
    (limits(cpuset_cpus="0,\n1"), "Invalid value 0,\\n1 for cpuset cpus"),
    (limits(cpuset_cpus="٣"), "for cpuset cpus"),
    (limits(pids=-2), "it is negative"),
    (RunRequest("x", files=Files(shm_size=-1)), "SHM size can not be less than 0"),
    (mounts(FileMount("bind", "x", "/a")), "invalid mount path: 'x' mount path must be absolute"),
    (mounts(FileMount("bind", "/x/../etc", "/a")), "mount path must be absolute; hint: without .."),
    (mounts(FileMount("bind", "/", "/a")), "invalid specification: destination can't be '/'"),
    (mounts(FileMount("bind", "/./", "/a")), "invalid specification: destination can't be '/'"),
    (mounts(FileMount("bind", "/x")), "field Source must not be empty"),
    (mounts(FileMount("bind", "/x", "a")), "invalid mount path: 'a' mount path must be absolute"),
    (mounts(FileMount("bind", "/x", "/a/../b")), "without .."),
    (mounts(FileMount("bind", "/x", "/a\0")), "it has a NUL byte in it"),
    (mounts(FileMount("bind", "/x", "/\udcff")), "it is not valid UTF-8"),
    (mounts(FileMount("bind", "/x", "/a", propagation="foo")), "invalid propagation mode: foo"),
    (mounts(FileMount("bind", "/x", "/a", recursion="foo")), "invalid value for bind-recursive: foo"),
    (mounts(FileMount("bind", "/x", "/a", recursion="readonly")), "requires 'readonly' to be specified"),
    (mounts(FileMount("bind", "/x", "/a", size=1)), "cannot mix 'tmpfs-*' options with mount type 'bind'"),
    (mounts(FileMount("tmpfs", "/x", "/a")), "a tmpfs has no source, propagation, recursion or idmap"),
    (mounts(FileMount("bind", "/x", "/a", copy=False)), "cannot mix 'volume-*' options with mount type 'bind'"),
    (mounts(FileMount("tmpfs", "/x", subpath="a")), "cannot mix 'volume-*' options with mount type 'tmpfs'"),
    (mounts(FileMount("volume", "/x", "a/b")), "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
    (mounts(FileMount("volume", "/x", "..")), "invalid characters"),
    (mounts(FileMount("volume", "/x", "a")), "volume name is too short"),
    (mounts(FileMount("volume", "/x", "a" * 256)), "more than 255"),
    (mounts(FileMount("volume", "x")), "mount path must be absolute"),
    (mounts(FileMount("volume", "/x", "ab", propagation="rshared")), "cannot mix 'bind-*' options"),
    (mounts(FileMount("volume", "/x", "ab", size=1)), "cannot mix 'tmpfs-*' options"),
    (mounts(FileMount("volume", "/x", "ab", subpath="../etc")), "must be a relative path within the volume"),
    (mounts(FileMount("volume", "/x", "ab", subpath="/etc")), "must be a relative path within the volume"),
    (mounts(FileMount("volume", "/x", subpath="etc")), "a new volume has nothing below it"),
    (mounts(FileMount("bind", "/x", "/a", idmap=True)), "the container has no user namespace; hint: --userns auto"),
    (RunRequest("x", files=Files(volumes_from=("a:x",))), "invalid volumes-from 'a:x'"),
    (mounts(FileMount("tmpfs", "/x", mode=0o10000)), "the size or mode is out of range"),
    (mounts(FileMount("tmpfs", "/x", options=("evil",))), "invalid tmpfs option 'evil'"),
    (mounts(FileMount("tmpfs", "/x", options=("size=",))), "invalid tmpfs option 'size='"),
    (mounts(FileMount("tmpfs", "/x", options=("size=1,mode=7",))), "invalid tmpfs option"),
    (mounts(FileMount("tmpfs", "/x", options=("noexec=1",))), "invalid tmpfs option"),
    (mounts(FileMount("foo", "/x", "/a")), "mount type unknown: foo"),
    (mounts(FileMount("bind", "/x/", "/a"), FileMount("tmpfs", "//x/.")), "Duplicate mount point: /x"),
    (device("dev/x", "/dev/x"), "dev/x is not an absolute path"),
    (device("/dev/*", "/dev/*"), "/dev/* is not an absolute path; hint: without .. and *"),
    (device("/dev/x", "/dev/../x"), "is not an absolute path"),
    (device("/dev/x", "/dev/x", "rx"), "bad mode specified: rx"),
    (device("/dev/x", "/dev/x", "rr"), "bad mode specified: rr"),
    (device("/dev/x", "/dev/x", ""), "bad mode specified"),
    (RunRequest("x", network=""), "no name set for network"),
    (RunRequest("x", network="container:"), "invalid network mode: 'container:'"),
    (RunRequest("x", network="container:../x"), "invalid network mode"),
    (spaces(pid="foo"), "--pid: invalid PID mode: 'foo'; hint: one of host, container:ID"),
    (spaces(pid="container:"), "--pid: invalid PID mode"),
    (spaces(ipc="foo"), "--ipc: invalid IPC mode"),
    (spaces(ipc="none"), "--ipc: invalid IPC mode"),
    (spaces(uts="container:a"), "--uts: invalid UTS mode"),
    (spaces(cgroup="foo"), "--cgroupns: invalid CGROUP mode"),
    (spaces(user="foo"), "--userns: invalid USER mode"),
    (spaces(user="map"), "a map and the mode 'map' go together"),
    (spaces(user="auto", user_map=(IdMapping(0, 1, 1),)), "a map and the mode 'map' go together"),
    (mapped((0, 0, 0)), "out of range"),
    (mapped((0, -1, 1)), "out of range"),
    (mapped((0, 1 << 32, 1)), "out of range"),
    (mapped((0, 10, 10), (5, 100, 10)), "map user ids 5:100:10: it overlaps with 0:10:10"),
    (mapped((0, 10, 10), (20, 15, 10)), "it overlaps with 0:10:10"),
    (mapped((1, 10, 10)), "the container's id 0 is in no range"),
    (mapped(*((i, i, 1) for i in range(341))), "340 is the most"),
    (spaces("host", user="auto"), "cannot share the host's network namespace when user namespaces are enabled"),
    (spaces(user="auto", pid="host"), "cannot share the host's PID namespace when user namespaces are enabled"),
    (spaces(user="auto", ipc="host"), "cannot share the host's IPC namespace"),
    (spaces(user="auto", uts="host"), "cannot share the host's UTS namespace"),
    (
        spaces(user="auto").replace(security=Security(privileged=True)),
        "privileged mode is incompatible with user namespaces",
    ),
    (spaces(uts="host").replace(hostname="a"), "conflicting options: hostname and the UTS mode"),
    (spaces("container:a").replace(hostname="a"), "conflicting options: hostname and the network mode"),
    (RunRequest("x", security=Security(cap_add=("FOO",))), 'invalid CapAdd: unknown capability: "CAP_FOO"'),
    (RunRequest("x", security=Security(cap_drop=("",))), 'invalid CapDrop: unknown capability: "CAP_"'),
    (sysctl("kernel.panic"), "sysctl 'kernel.panic=1' is not allowed"),
    (sysctl(""), "is not allowed"),
    (sysctl("net"), "is not allowed"),
    (sysctl("net."), "is not allowed"),
    (sysctl("net..ipv4.x"), "is not allowed"),
    (sysctl("net/../kernel/panic"), "is not allowed"),
    (sysctl("net.ipv4/../x"), "is not allowed"),
    (sysctl("net./.x"), "is not allowed"),
    (sysctl("net/./x"), "is not allowed"),
    (sysctl("net//x"), "is not allowed"),
    (sysctl("net.x\n"), "is not allowed"),
    (sysctl("net.x", "\0"), "it has a NUL byte in it"),
    (sysctl("net.x", network="host"), "sysctl 'net.x' not allowed in host network namespace"),
    (sysctl("kernel.msgmax", namespaces=Namespaces(ipc="host")), "not allowed in host ipc namespace"),
]


@pytest.mark.parametrize(("request_", "message"), REFUSED, ids=[message[:60] for _, message in REFUSED])
def test_what_cannot_be_meant(request_: RunRequest, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        check(request_)
    assert message in str(caught.value)
    assert str(caught.value).isprintable() and caught.value.status == 400


@pytest.mark.parametrize("network", ["bridge", "default", "mynet", "a.b-c_1"])
def test_networks_by_name(network: str) -> None:
    assert check(RunRequest("x", network=network)).network == network


@pytest.mark.parametrize(
    ("networking", "message"),
    [
        (Networking(dns=("x",)), "invalid IP address: x"),
        (Networking(hosts=(("a", "x"),)), "invalid IP address: x"),
        (Networking(hosts=(("a b", "1.2.3.4"),)), "it is empty, or has blanks in it"),
        (Networking(dns_search=("a\nnameserver 6.6.6.6",)), "it is empty, or has blanks in it"),
        (Networking(ports=(PortMapping(80, port=80), PortMapping(81, port=80))), "given twice"),
        (Networking((Connection("a", ip="fd00::1"),)), "invalid IPv4 address"),
        (Networking((Connection("a", ip6="10.0.0.1"),)), "invalid IPv6 address"),
        (Networking((Connection("a", mac="01:00:00:00:00:00"),)), "group of interfaces"),
        (Networking((Connection("a", mac="02:00"),)), "invalid MAC address"),
        (Networking((Connection("host"),)), "it cannot be one of several"),
        (Networking((Connection("a", aliases=("a/b",)),)), "alias 'a/b'"),
    ],
)
def test_networks_that_cannot_be_meant(networking: Networking, message: str) -> None:
    with pytest.raises(Invalid, match=re.escape(message)):
        check(RunRequest("x", network="a", networking=networking))


def test_what_needs_links_of_its_own() -> None:
    for network in ("none", "host", "container:a"):
        with pytest.raises(Invalid, match="conflicting options"):
            check(RunRequest("x", network=network, networking=Networking((Connection("a", ip="10.0.0.1"),))))
    with pytest.raises(Invalid, match="port publishing and the container type network mode"):
        check(RunRequest("x", network="container:a", networking=Networking(ports=(PortMapping(80),))))


@pytest.mark.parametrize(
    "request_",
    [
        RunRequest("x"),
        process(command=("sh", "", "\x1b[31m", "\udcff"), env=("A=\x1b", "B", "C=", "D=\udcff", "E=a\nb")),
        process(user="1000:1000", groups=("audio", "44"), working_directory="/", stop_timeout=-1),
        process(ulimits=(Ulimit("nofile", 1, -1), Ulimit("core", -1, -1))),
        RunRequest("x", name="web_1.a-b", hostname="a" * 64, labels=(("a b", ""),)),
        limits(memory=6 * MB, memory_swap=-1, memory_reservation=6 * MB, nano_cpus=10**7, pids=-1, cpuset_cpus="0-3,7"),
        limits(memory=8 * MB, memory_swap=8 * MB),
        limits(memory_swap=-1),
        mounts(FileMount("bind", "/x", "/a\n", True, "rslave", "readonly"), FileMount("bind", "/x/y", "/")),
        mounts(FileMount("tmpfs", "/x", size=1, mode=0, options=("noexec", "size=50%", "mode=1777", "uid=0"))),
        device("/dev/x", "/dev/y", "mr"),
        spaces("container:abc", pid="container:a", ipc="container:a", cgroup="host"),
        spaces("host", pid="host", ipc="host", uts="host", cgroup="host", user="host"),
        mapped((0, 100000, 65536), (65536, 200000, 1)),
        RunRequest("x", network="host", hostname="box"),
    ],
)
def test_what_can_be_meant_is_unchanged(request_: RunRequest) -> None:
    assert check(request_) == request_


def test_canonical_spelling() -> None:
    security = Security(cap_add=("net_admin", "ALL"), cap_drop=("cap_kill",))
    checked = check(RunRequest("x", process=Program(stop_signal="15"), security=security))
    assert checked.process.stop_signal == "SIGTERM"
    assert checked.security.cap_add == ("CAP_NET_ADMIN", "ALL") and checked.security.cap_drop == ("CAP_KILL",)
    assert check(checked) == checked


@pytest.mark.parametrize(
    ("key", "canonical"),
    [
        ("net.ipv4.ip_forward", "net.ipv4.ip_forward"),
        ("net/ipv4/ip_forward", "net.ipv4.ip_forward"),
        ("net/ipv4/conf/eth0.100/forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("net.ipv4.conf.eth0/100.forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("kernel/shm_rmid_forced", "kernel.shm_rmid_forced"),
        ("fs.mqueue.msg_max", "fs.mqueue.msg_max"),
    ],
)
def test_kernel_parameters_have_one_spelling(key: str, canonical: str) -> None:
    assert check(sysctl(key)).security.sysctls == ((canonical, "1"),)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ExecRequest("", ("x",)), "no container is named"),
        (ExecRequest("c", ()), "no exec command specified"),
        (ExecRequest("c", ("",)), "no exec command specified"),
        (ExecRequest("c", ("x",), env=("=",)), "invalid environment variable"),
        (ExecRequest("c", ("x",), working_directory="x"), "it needs to be an absolute path"),
        (ExecRequest("c", ("x",), user="a b"), "it is not of the form USER[:GROUP]"),
    ],
)
def test_what_cannot_be_meant_by_exec(request_: ExecRequest, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_exec(request_)
    assert message in str(caught.value)
