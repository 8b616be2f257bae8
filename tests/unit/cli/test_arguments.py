"""The grammar: flags as Docker's users type them, refused by name where they are not there, never a traceback."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloche.cli.arguments import Parsed, parse
from cloche.cli.flags import ALIASES, VERBS, verb
from cloche.cli.nouns import NOUNS
from cloche.cli.requests import exec_request, run_request
from cloche.errors import Error, Invalid, Unsupported

# every long flag of `docker run` and `docker create`, docker 28.2
DOCKER_RUN = """
add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent cgroupns cidfile
cpu-count cpu-percent cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems
detach detach-keys device device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write-iops
disable-content-trust dns dns-option dns-search domainname entrypoint env env-file expose gpus group-add health-cmd
health-interval health-retries health-start-interval health-start-period health-timeout help hostname init
interactive io-maxbandwidth io-maxiops ip ip6 ipc isolation kernel-memory label label-file link link-local-ip
log-driver log-opt mac-address memory memory-reservation memory-swap memory-swappiness mount name network
network-alias no-healthcheck oom-kill-disable oom-score-adj pid pids-limit platform privileged publish publish-all
pull quiet read-only restart rm runtime security-opt shm-size sig-proxy stop-signal stop-timeout storage-opt sysctl
tmpfs tty ulimit use-api-socket user userns uts volume volume-driver volumes-from workdir
""".split()
TABLES = [*(name for name in VERBS if name not in NOUNS), *(f"{noun} {w}" for noun in NOUNS for w in NOUNS[noun][1])]
DOCKER_SHORT = "a c d e h i l m p P q t u v w".split()


@pytest.mark.parametrize(
    ("argv", "values", "arguments"),
    [
        (["run", "x"], {}, ("x",)),
        (["run", "-it", "x", "-it", "--rm"], {"interactive": True, "tty": True}, ("x", "-it", "--rm")),
        (["run", "-ti", "--rm", "x", "sh"], {"interactive": True, "tty": True, "rm": True}, ("x", "sh")),
        (["run", "-e", "A=b", "-eC=d", "-e=E=f", "--env", "G", "x"], {"env": ["A=b", "C=d", "E=f", "G"]}, ("x",)),
        (["run", "--env=A=b=c", "x"], {"env": ["A=b=c"]}, ("x",)),
        (["run", "--name=n", "x"], {"name": "n"}, ("x",)),
        (["run", "--name", "n", "x"], {"name": "n"}, ("x",)),
        (["run", "--name", "a", "--name", "b", "x"], {"name": "b"}, ("x",)),
        (["run", "--name=", "x"], {"name": ""}, ("x",)),
        (["run", "--entrypoint", "", "x"], {"entrypoint": ""}, ("x",)),
        (["run", "--sig-proxy=false", "x"], {"sig-proxy": False}, ("x",)),
        (["run", "--init=0", "-d=T", "x"], {"init": False, "detach": True}, ("x",)),
        (["run", "-it=false", "x"], {"interactive": True, "tty": False}, ("x",)),
        (["run", "-ditw/tmp", "x"], {"detach": True, "interactive": True, "tty": True, "workdir": "/tmp"}, ("x",)),
        (["run", "-itm", "64m", "x"], {"interactive": True, "tty": True, "memory": "64m"}, ("x",)),
        (["run", "--pids-limit", "-1", "x"], {"pids-limit": -1}, ("x",)),
        (["run", "--memory-swap", "-1", "x"], {"memory-swap": "-1"}, ("x",)),
        (["run", "-h", "box", "x"], {"hostname": "box"}, ("x",)),
        (["run", "--net", "host", "x"], {"network": ["host"]}, ("x",)),
        (["run", "--", "-x", "--rm"], {}, ("-x", "--rm")),
        (["run", "--rm", "--", "x", "--", "y"], {"rm": True}, ("x", "--", "y")),
        (["run", "x", "--", "y"], {}, ("x", "--", "y")),
        (["run", "-e", "--", "x"], {"env": ["--"]}, ("x",)),
        (["run", "-e", "A=\x1b[31m", "x"], {"env": ["A=\x1b[31m"]}, ("x",)),
        (["run", "-v", "\udcff:/x", "x"], {"volume": ["\udcff:/x"]}, ("x",)),
        (["exec", "-it", "c", "ls", "-l"], {"interactive": True, "tty": True}, ("c", "ls", "-l")),
        (["kill", "c", "-s", "HUP", "d"], {"signal": "HUP"}, ("c", "d")),
        (["kill", "-", "--", "-s"], {}, ("-", "-s")),
        (["stop", "--time", "3", "c"], {"timeout": 3}, ("c",)),
        (["stop", "-t0", "c"], {"timeout": 0}, ("c",)),
        (["logs", "c", "-ft", "--tail=3"], {"follow": True, "timestamps": True, "tail": "3"}, ("c",)),
        (["ps", "-aq", "-n", "2"], {"all": True, "quiet": True, "last": 2}, ()),
        (
            ["ps", "-f", "Status=exited", "--filter", "label=a=b"],
            {"filter": [("status", "exited"), ("label", "a=b")]},
            (),
        ),
        (["plan", "--format", "json", "x", "y"], {"format": "json"}, ("x", "y")),
        (
            ["pack", "-t", "n", "sh", "--add", "/etc", "--add=/x", "ls"],
            {"tag": "n", "add": ["/etc", "/x"]},
            ("sh", "ls"),
        ),
    ],
)
def test_words_become_flags_and_arguments(
    argv: list[str], values: dict[str, object], arguments: tuple[str, ...]
) -> None:
    parsed = parse(argv)
    assert (parsed.verb, parsed.values, parsed.arguments) == (argv[0], values, arguments)
    assert not parsed.help


def test_typed_access() -> None:
    parsed = parse(["run", "-t", "-e", "A", "-e", "B=", "--stop-timeout", "0", "--name", "n", "x"])
    assert parsed.on("tty") and not parsed.on("init") and parsed.on("sig-proxy", True)
    assert parsed.every("env") == ("A", "B=") and parsed.every("label") == ()
    assert parsed.number("stop-timeout") == 0 and parsed.number("cpu-shares") is None
    assert parsed.text("name") == "n" and parsed.text("network", "none") == "none"
    assert parse(["ps", "-f", "a=b"]).filters() == (("a", "b"),)


@pytest.mark.parametrize(
    ("argv", "verb_", "help_", "root", "debug"),
    [
        ([], "", True, "", False),
        (["--help"], "", True, "", False),
        (["-h"], "", True, "", False),
        (["help"], "", True, "", False),
        (["help", "run"], "run", True, "", False),
        (["run", "--help"], "run", True, "", False),
        (["run", "--rm", "--help"], "run", True, "", False),
        (["ps", "-h"], "ps", True, "", False),
        (["exec", "--help"], "exec", True, "", False),
        (["--version"], "version", False, "", False),
        (["-v"], "version", False, "", False),
        (["--root", "/x", "ps"], "ps", False, "/x", False),
        (["--root=/x", "-D", "ps"], "ps", False, "/x", True),
        (["--debug", "ps"], "ps", False, "", True),
    ],
)
def test_global_flags_stand_before_the_verb(argv: list[str], verb_: str, help_: bool, root: str, debug: bool) -> None:
    parsed = parse(argv)
    assert (parsed.verb, parsed.help, parsed.root, parsed.debug) == (verb_, help_, root, debug)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["run", "--foo", "x"], "unknown flag: --foo; hint: see 'cloche run --help'"),
        (["run", "--memroy", "1g", "x"], "unknown flag: --memroy; hint: did you mean --memory?"),
        (["ps", "--rm"], "unknown flag: --rm; hint: see 'cloche ps --help'"),
        (["run", "-Z", "x"], "unknown shorthand flag: 'Z' in -Z; hint: see 'cloche run --help'"),
        (["run", "-itZq", "x"], "unknown shorthand flag: 'Z' in -Zq"),
        (["run", "-=x", "y"], "unknown shorthand flag: '=' in -=x"),
        (["run", "---x", "y"], "bad flag syntax: ---x"),
        (["run", "--=x", "y"], "bad flag syntax: --=x"),
        (["run", "--name"], "flag needs an argument: --name"),
        (["run", "-it", "-e"], "flag needs an argument: 'e' in -e"),
        (["run", "--init=maybe", "x"], 'invalid argument "maybe" for "--init" flag: invalid boolean value: \'maybe\''),
        (["run", "-it=x", "y"], 'invalid argument "x" for "-t, --tty" flag'),
        (
            ["run", "--oom-score-adj", "x", "y"],
            'invalid argument "x" for "--oom-score-adj" flag: invalid number: \'x\'',
        ),
        (["ps", "-nq"], 'invalid argument "q" for "-n, --last" flag'),
        (["stop", "-t", "99999999999999999999", "c"], "invalid number"),
        (["stop", "-t", "٣", "c"], "invalid number"),
        (["ps", "--filter", "foo"], "bad format of filter: expected name=value"),
        (["inspect", "--type", "plugin", "x"], "it is not one of: container, image, volume"),
        (["plan", "--format", "yaml", "x"], "it is not one of: text, json"),
        (["run"], "'cloche run' requires at least 1 argument; hint: cloche run [OPTIONS] IMAGE [COMMAND] [ARG...]"),
        (["run", "-it"], "'cloche run' requires at least 1 argument"),
        (["exec", "x"], "'cloche exec' requires at least 2 arguments"),
        (["tag", "a"], "'cloche tag' requires 2 arguments"),
        (["logs", "a", "b"], "'cloche logs' requires 1 argument"),
        (["images", "a", "b"], "'cloche images' requires at most 1 argument"),
        (["ps", "x"], "'cloche ps' accepts no arguments"),
        (["rn", "x"], "unknown command: cloche rn; hint: did you mean 'cloche run'?"),
        (["frobnicate"], "unknown command: cloche frobnicate; hint: see 'cloche --help'"),
        (["help", "frobnicate"], "unknown command: cloche frobnicate"),
        (["--foo", "ps"], "unknown flag: --foo; hint: see 'cloche --help'"),
        (["--root"], "flag needs an argument: --root"),
        (["run", "--name", "a\0b", "x"], "it has a NUL byte in it"),
        (["run", "--\x1b[31m", "x"], "unknown flag: --\\x1b[31m"),
        (["\x1b[2J\n"], "unknown command: cloche \\x1b[2J\\n"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(argv: list[str], message: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(argv)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert caught.value.exit_code == 125


@pytest.mark.parametrize("name", ["run", "create"])
def test_every_flag_of_docker_run_is_there_or_refused_by_name(name: str) -> None:
    there = verb(name).rows()
    for flag in DOCKER_RUN:
        if ALIASES.get(flag, flag) in there:
            continue
        for word in (f"--{flag}", f"--{flag}=x"):
            with pytest.raises(Unsupported, match=f"^--{flag} is not there yet") as caught:
                parse([name, word, "x", "y"])
            assert caught.value.exit_code == 125
    short = {row[1] for row in there.values()}
    for letter in DOCKER_SHORT:
        if letter not in short:
            with pytest.raises(Unsupported, match=rf"^-{letter}, --[a-z-]+ is not there yet"):
                parse([name, f"-{letter}", "x", "y"])


def test_publish_is_read_however_it_is_typed() -> None:
    for words in (["-p", "80:80"], ["-p80:80"], ["-itp", "80:80"], ["--publish", "80:80"], ["--publish=80:80"]):
        assert parse(["run", *words, "x"]).every("publish") == ("80:80",)
    assert parse(["run", "-P", "x"]).on("publish-all")


def test_verbs_of_two_words() -> None:
    parsed = parse(["network", "create", "--internal", "back"])
    assert (parsed.verb, parsed.arguments, parsed.on("internal")) == ("network create", ("back",), True)
    assert parse(["container", "ls", "-aq"]).verb == "ps" and parse(["image", "rm", "-f", "x"]).verb == "rmi"
    assert parse(["network"]).help and parse(["network", "--help"]).verb == "network"
    assert parse(["network", "rm", "--help"]).verb == parse(["help", "network", "rm"]).verb == "network rm"
    with pytest.raises(Invalid, match="did you mean 'cloche network connect'"):
        parse(["network", "conect", "a", "b"])
    assert parse(["volume", "list"]).verb == "volume ls" and parse(["volume"]).help
    with pytest.raises(Unsupported, match="cloche plugin is not there yet"):
        parse(["plugin", "ls"])


@pytest.mark.parametrize(
    ("argv", "flag"),
    [
        (["rm", "-l", "x"], "link"),
        (["rm", "-fvl", "x"], "link"),
        (["volume", "ls", "--cluster"], "cluster"),
        (["rm", "-l", "x"], "link"),
        (["rmi", "--platform", "x", "y"], "platform"),
        (["create", "-d", "x"], "detach"),
        (["plan", "--explain", "x"], "explain"),
        (["start", "--checkpoint", "x", "y"], "checkpoint"),
    ],
)
def test_flags_of_other_verbs_that_are_not_there_yet(argv: list[str], flag: str) -> None:
    with pytest.raises(Unsupported, match=f"--{flag} is not there yet"):
        parse(argv)


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_sound(name: str) -> None:
    table = verb(name)
    rows = [row for _, group in table.groups for row in group]
    names = [row[0] for row in rows]
    assert len(set(names)) == len(names)
    shorts = [row[1] for row in rows if row[1]]
    assert len(set(shorts)) == len(shorts)
    assert {row[2] for row in rows} <= {"bool", "text", "int", "list", "choice", "filter"}
    assert all((row[2] == "bool") == (not row[3]) for row in rows)
    missing = [word.partition("|") for word in table.missing.split()]
    assert not {word[0] for word in missing} & set(names)
    assert not {word[2] for word in missing if word[2]} & set(shorts)
    assert "help" in names
    assert table.most == -1 or table.least <= table.most


WORDS = st.one_of(
    st.sampled_from([f"--{flag}" for flag in DOCKER_RUN] + [f"-{letter}" for letter in DOCKER_SHORT] + list(VERBS)),
    st.sampled_from(
        ["--", "-", "", "-it", "--rm", "starter", "-e=A", "=", "--=", "-=", "a:b:c", "type=bind,target=/x", '"']
    ),
    st.text(max_size=12).map(lambda text: "--" + text),
    st.text(max_size=12).map(lambda text: "-" + text),
    st.text(st.characters(), max_size=20),
    st.builds(
        "{}={}".format, st.sampled_from([f"--{flag}" for flag in DOCKER_RUN]), st.text(st.characters(), max_size=20)
    ),
)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from([*VERBS, "", "--debug"]), st.lists(WORDS, max_size=8))
def test_whatever_is_typed_only_errors_of_ours_are_raised(name: str, words: list[str]) -> None:
    def read_file(path: str) -> bytes:
        raise FileNotFoundError(2, "no such file", path)

    try:
        parsed = parse([name, *words])
        assert isinstance(parsed, Parsed)
        if parsed.verb in ("run", "create", "plan") and not parsed.help:
            run_request(parsed, "/cwd", {"A": "b"}, read_file)
        if parsed.verb == "exec" and not parsed.help:
            exec_request(parsed, "/cwd", {"A": "b"}, read_file)
    except Error as error:
        assert str(error).isprintable()


VALUES = {
    "--memory": ["64m", "6m", "x", "1e9", "-1", "9" * 30, "1.5g", ""],
    "--cpus": ["0.5", "x", "1/2", "-1", "", "."],
    "--ulimit": ["nofile=1:2", "nofile", "nofile=2:1", "x=1", "core=-1:5", "="],
    "--volume": ["/a:/b", ":", "/a:/b:ro", "/a:/b:ro,rw", "a:/b", "/a:b", "/a:/b:c:d", "./x:/y", "..:/x", "/a:/../b"],
    "--mount": [
        "type=bind,source=/a,target=/b",
        'type=bind,"source=/a,b",target=/c',
        '"',
        'a"b',
        "type=tmpfs,target=/x,tmpfs-mode=9",
    ],
    "--tmpfs": ["/x", "/x:size=64m,mode=1777", "x", ":", "/x:evil=1", "/"],
    "--device": ["/dev/x", "/dev/x:rw", "/dev/x:/dev/y:m", "x", ":", "/dev/x:/dev/y:z", "/dev/../x"],
    "--userns": ["host", "auto", "0:1:2", "0:1", "0:0:0", "0:1:2,0:3:4", "x", "9999999999:0:1"],
    "--security-opt": [
        "no-new-privileges",
        "seccomp=unconfined",
        "seccomp=/x",
        "x",
        "seccomp=",
        "apparmor=x",
        "no-new-privileges=x",
    ],
    "--sysctl": [
        "net.ipv4.ip_forward=1",
        "kernel.msgmax=1",
        "x",
        "net/../kernel/panic=1",
        "kernel.panic=1",
        "net..x=1",
        "net.=1",
    ],
    "--stop-signal": ["TERM", "SIGRTMIN+3", "x", "0", "99", "RTMAX-", "RTMIN-1", "15"],
    "--cap-add": ["NET_ADMIN", "cap_sys_admin", "ALL", "", "X"],
    "--network": ["none", "host", "container:x", "container:", "bridge", "", "x:y", "n,alias=a,ip=10.0.0.9", "a=b"],
    "--publish": ["80", "8080:80/udp", "127.0.0.1::80", "[::1]:80:80", "8000-8010:80", "1-2:3-5", "x", ":", "70000:1"],
    "--expose": ["80", "80-90/udp", "90-80", "x", "1/icmp"],
    "--add-host": ["a:1.2.3.4", "a:host-gateway", "a:[::1]", "a", ":x", "a:x"],
    "--mac-address": ["02:42:ac:11:00:02", "01:00:00:00:00:00", "x"],
    "--dns": ["1.1.1.1", "::1", "x"],
    "--pid": ["host", "container:a", "x", "container:../x"],
    "--env": ["A=b", "A", "", "=", "B"],
    "--label": ["a=b", "a", "=b", " ", "a b=c"],
    "--detach-keys": ["ctrl-p,ctrl-q", "a", "ctrl-", "x,", "DEL"],
    "--cpuset-cpus": ["0-3", "3-0", "x", "0,", "-"],
    "--shm-size": ["1m", "x", "0"],
    "--hostname": ["box", "-x", "a b", "x" * 65],
    "--user": ["1000:1000", "a:b:c", "", "\n"],
    "--workdir": ["/x", "x", ""],
}
PAIRS = st.sampled_from([(flag, value) for flag, values in VALUES.items() for value in values])


@settings(max_examples=600, deadline=None)
@given(st.lists(PAIRS, max_size=6))
def test_values_of_all_kinds_are_taken_or_refused(pairs: list[tuple[str, str]]) -> None:
    words = [word for pair in pairs for word in pair]
    try:
        run_request(parse(["run", *words, "starter", "true"]), "/cwd", {"A": "b"}, lambda _: b"{}")
    except Error as error:
        assert str(error).isprintable() and error.exit_code == 125
