"""The process (config.md, "Process"): arguments, environment, folder, user, capabilities, limits."""

from __future__ import annotations

import os
import resource

import pytest

from conformance.harness import Bundle, differs

# Arguments


@pytest.mark.parametrize(
    "argument",
    ["", " ", "a b", "'\"$(id)", "*", "\\n", "line\nline", "\t", "é", "--", "-x", "x" * 100_000],
    ids=range(12),
)
def test_an_argument_reaches_the_program_as_it_is(bundle: Bundle, argument: str) -> None:
    done = bundle.run("printf", "<%s>", argument)
    assert (done.code, done.out) == (0, f"<{argument}>")


def test_the_first_argument_is_the_programs_name_as_written(bundle: Bundle) -> None:
    """execvp(3): the file is looked for, the argument stays."""
    assert bundle.run("cat", "/proc/self/cmdline").out == "cat\0/proc/self/cmdline\0"
    assert bundle.run("/bin/cat", "/proc/self/cmdline").out == "/bin/cat\0/proc/self/cmdline\0"


def test_a_program_is_looked_for_in_the_containers_path(bundle: Bundle) -> None:
    for folder, said in (("opt/one", "one"), ("opt/two", "two")):
        (bundle.rootfs / folder).mkdir(parents=True)
        (bundle.rootfs / folder / "prog").write_text(f"#!/bin/sh\necho {said}\n")
        (bundle.rootfs / folder / "prog").chmod(0o755)
    (bundle.rootfs / "opt/one/prog").chmod(0o644)  # execvp(3) goes on after EACCES
    bundle.process["env"] = ["PATH=/nowhere:/opt/one:/opt/two:/bin"]
    assert bundle.run("prog").out == "two\n"


def test_a_program_with_a_slash_is_not_looked_for_but_taken_from_the_working_folder(bundle: Bundle) -> None:
    (bundle.rootfs / "opt").mkdir()
    (bundle.rootfs / "opt/prog").write_text("#!/bin/sh\necho here\n")
    (bundle.rootfs / "opt/prog").chmod(0o755)
    bundle.process["cwd"] = "/opt"
    assert bundle.run("./prog").out == "here\n"


# Environment


def test_the_environment_is_exactly_the_configurations(bundle: Bundle) -> None:
    wanted = ["PATH=/bin", "HOME=/here", "EMPTY=", "SPACES=a  b", "EQUALS=a=b", "UNICODE=é", "lower_9=x"]
    bundle.process["env"] = wanted
    assert sorted(bundle.run("env").out.splitlines()) == sorted(wanted)


def test_of_a_variable_that_is_set_twice_the_last_counts(bundle: Bundle) -> None:
    bundle.process["env"] += ["TWICE=first", "TWICE=last"]
    assert bundle.says("echo $TWICE") == "last"


@pytest.mark.parametrize(("uid", "home"), [(0, "/root"), (65534, "/"), (4321, "/")], ids=["root", "nobody", "unknown"])
def test_home_is_the_users_in_the_container_unless_it_is_set(bundle: Bundle, uid: int, home: str) -> None:
    """Engines leave this to the runtime."""
    bundle.process["user"] = {"uid": uid, "gid": uid}
    assert bundle.says("echo $HOME") == home
    bundle.process["env"].append("HOME=/set")
    assert bundle.says("echo $HOME") == "/set"


def test_a_process_needs_no_environment(bundle: Bundle) -> None:
    del bundle.process["env"]
    assert {line.split("=")[0] for line in bundle.run("/bin/env").out.splitlines()} <= {"HOME"}


# Working folder


def test_the_program_begins_in_its_working_folder(bundle: Bundle) -> None:
    bundle.process["cwd"] = "/usr/bin"
    assert bundle.run("pwd").out == "/usr/bin\n"


def test_a_working_folder_that_is_not_there_is_made(bundle: Bundle) -> None:
    """Images name folders that only the engine's user expects; engines rely on it."""
    bundle.process["cwd"] = "/made/for/it"
    assert bundle.run("pwd").out == "/made/for/it\n"


def test_a_working_folder_may_be_the_users_alone(bundle: Bundle) -> None:
    (bundle.rootfs / "private").mkdir(mode=0o700)
    os.chown(bundle.rootfs / "private", 1000, 1000)
    bundle.process.update(cwd="/private", user={"uid": 1000, "gid": 1000}, capabilities={})
    assert bundle.run("pwd").out == "/private\n"


RELATIVE = differs("crun", 'takes it as one of the root: "This value MUST be an absolute path"')


def test_a_working_folder_stays_in_the_root(bundle: Bundle) -> None:
    (bundle.rootfs / "up").symlink_to("../../../../usr")
    bundle.process["cwd"] = "/up"
    assert bundle.run("ls").out == "bin\n"


@pytest.mark.parametrize(
    "cwd",
    ["", pytest.param("relative", marks=RELATIVE), pytest.param("./here", marks=RELATIVE), "/etc/passwd"],
    ids=["empty", "name", "dot", "file"],
)
def test_a_working_folder_that_is_none_or_not_absolute_is_an_error(bundle: Bundle, cwd: str) -> None:
    """ "This value MUST be an absolute path"."""
    bundle.process["cwd"] = cwd
    bundle.refused("true")


# User


def test_the_program_runs_as_the_user_and_in_the_groups(bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [1003, 1002]}
    said = bundle.says("grep -E '^(Uid|Gid|Groups)' /proc/self/status | tr -s '\\t ' ' '")
    uid, gid, groups = said.splitlines()
    assert uid == "Uid: 1000 1000 1000 1000"
    assert gid == "Gid: 1001 1001 1001 1001"
    assert set(groups.split()[1:]) - {"1001"} == {"1002", "1003"}


def test_no_group_of_the_caller_stays(bundle: Bundle) -> None:
    through = ("setpriv", "--groups", "4,5", "--")
    assert bundle.says("id -G", through=through) == "0"
    bundle.process["user"] = {"uid": 1000, "gid": 1001}
    assert bundle.says("id -G", through=through) == "1001"


def test_a_user_may_be_any_number(bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 4294967294, "gid": 4294967294}
    assert bundle.says("id -u; id -g") == "4294967294\n4294967294"


@pytest.mark.parametrize("umask", [0, 0o22, 0o27, 0o77, 0o777], ids=oct)
def test_the_umask_is_the_users(bundle: Bundle, umask: int) -> None:
    bundle.process["user"]["umask"] = umask
    assert bundle.says("umask") == f"{umask:04o}"


UNCHANGED = '"If unspecified, the umask should not be changed from the calling process\' umask"'


@differs("runc", f"sets 0022: {UNCHANGED}")
@differs("crun", f"sets 0022: {UNCHANGED}")
def test_the_umask_is_the_callers_unless_it_is_set(bundle: Bundle) -> None:
    assert bundle.says("umask", umask=0o35) == "0035"


# Capabilities

A, B, C = "CAP_CHOWN", "CAP_NET_BIND_SERVICE", "CAP_KILL"  # bits 0, 10 and 5


def capabilities(bundle: Bundle) -> dict[str, str]:
    said = bundle.says("grep ^Cap /proc/self/status | tr -s '\\t' ' '")
    return {line[3:6]: line.split()[1].lstrip("0") or "0" for line in said.splitlines()}


def test_each_set_of_capabilities_is_the_configurations(bundle: Bundle) -> None:
    """What the kernel makes of them at execve(2) is capabilities(7)'s matter: for a user, what is ambient."""
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["capabilities"] = {
        "bounding": [A, B, C],
        "permitted": [A, B],
        "inheritable": [A, B],
        "effective": [A, B],
        "ambient": [A],
    }
    assert capabilities(bundle) == {"Bnd": "421", "Inh": "401", "Amb": "1", "Prm": "1", "Eff": "1"}


def test_root_has_the_bounding_set(bundle: Bundle) -> None:
    bundle.process["capabilities"] = {"bounding": [A, B], "permitted": [A, B], "effective": [A, B]}
    assert capabilities(bundle) == {"Bnd": "401", "Inh": "0", "Amb": "0", "Prm": "401", "Eff": "401"}


def test_a_user_has_no_capability_that_is_not_ambient(bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["capabilities"] = {"bounding": [A], "permitted": [A], "effective": [A]}
    assert capabilities(bundle) == {"Bnd": "1", "Inh": "0", "Amb": "0", "Prm": "0", "Eff": "0"}


@pytest.mark.parametrize("uid", [0, 1000])
def test_with_no_capability_in_any_set_the_process_has_none(bundle: Bundle, uid: int) -> None:
    bundle.process["user"] = {"uid": uid, "gid": uid}
    bundle.process["capabilities"] = {}
    assert set(capabilities(bundle).values()) == {"0"}


@differs("runc", 'leaves the process all that the caller has; the sets are those "that are kept for the process"')
def test_without_sets_of_capabilities_the_process_has_none(bundle: Bundle) -> None:
    del bundle.process["capabilities"]
    assert set(capabilities(bundle).values()) == {"0"}


def test_what_is_not_in_the_bounding_set_cannot_be_had(bundle: Bundle) -> None:
    bundle.process["capabilities"] = {"bounding": [], "permitted": [], "effective": []}
    (bundle.rootfs / "file").write_text("")
    assert bundle.says("chown 5 /file 2>&1 || echo refused").splitlines()[-1] == "refused"


# Signals


def test_no_signal_is_blocked_or_ignored(bundle: Bundle) -> None:
    """Whatever the runtime does with its own."""
    said = bundle.says("grep -E '^Sig(Blk|Ign)' /proc/self/status | cut -f2")
    assert set(said.split()) == {"0" * 16}


# no_new_privs, oom_score_adj


@pytest.mark.parametrize(("wanted", "found"), [(True, "1"), (False, "0"), (None, "0")], ids=["true", "false", "unset"])
def test_no_new_privileges_are_gained_when_the_configuration_says_so(
    bundle: Bundle, wanted: bool | None, found: str
) -> None:
    bundle.process["noNewPrivileges"] = wanted
    if wanted is None:
        del bundle.process["noNewPrivileges"]
    assert bundle.says("grep NoNewPrivs /proc/self/status").split()[1] == found


SCORE = ("sh", "-c", 'echo 123 > /proc/self/oom_score_adj; exec "$@"', "sh")


@pytest.mark.parametrize("score", [0, 456, 1000])
def test_the_processs_score_when_memory_is_out_is_set(bundle: Bundle, score: int) -> None:
    """ "If `oomScoreAdj` is set, the runtime MUST set `oom_score_adj` to the given value"."""
    bundle.process["oomScoreAdj"] = score
    assert bundle.says("cat /proc/self/oom_score_adj", through=SCORE) == str(score)


def test_the_processs_score_when_memory_is_out_is_the_callers_unless_it_is_set(bundle: Bundle) -> None:
    """ "If `oomScoreAdj` is not set, the runtime MUST NOT change the value of `oom_score_adj`"."""
    assert bundle.says("cat /proc/self/oom_score_adj", through=SCORE) == "123"


@pytest.mark.parametrize("score", [-1001, 1001])
def test_a_score_that_there_is_not_is_an_error(bundle: Bundle, score: int) -> None:
    bundle.process["oomScoreAdj"] = score
    bundle.refused("true")


# Limits

INFINITE = 2**64 - 1


def limits(bundle: Bundle) -> dict[str, list[str]]:
    """What /proc shows: soft and hard limit by the start of the limit's name."""
    lines = bundle.run("cat", "/proc/self/limits").out.splitlines()[1:]
    return {line[:26].strip(): line[26:].split()[:2] for line in lines}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("AS", "Max address space"),
        ("CORE", "Max core file size"),
        ("CPU", "Max cpu time"),
        ("DATA", "Max data size"),
        ("FSIZE", "Max file size"),
        ("LOCKS", "Max file locks"),
        ("MEMLOCK", "Max locked memory"),
        ("MSGQUEUE", "Max msgqueue size"),
        ("NICE", "Max nice priority"),
        ("NOFILE", "Max open files"),
        ("NPROC", "Max processes"),
        ("RSS", "Max resident set"),
        ("RTPRIO", "Max realtime priority"),
        ("RTTIME", "Max realtime timeout"),
        ("SIGPENDING", "Max pending signals"),
        ("STACK", "Max stack size"),
    ],
)
def test_a_limit_is_set(bundle: Bundle, kind: str, name: str) -> None:
    """ "`rlim.rlim_cur` MUST match the configured value", and so must `rlim_max`."""
    number = next(value for key, value in _kinds().items() if key == kind)
    most = resource.getrlimit(number)[1]
    hard = 1 << 30 if most == resource.RLIM_INFINITY else most
    soft = hard // 2
    bundle.process["rlimits"] = [{"type": f"RLIMIT_{kind}", "soft": soft, "hard": hard}]
    assert limits(bundle)[name] == [str(soft), str(hard)]


def _kinds() -> dict[str, int]:
    """setrlimit(2)'s numbers: Python's module does not name all."""
    names = "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME"
    return {name: number for number, name in enumerate(names.split())}


def test_a_limit_may_be_infinite(bundle: Bundle) -> None:
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY:
        pytest.skip("needs an infinite hard limit")
    bundle.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": INFINITE, "hard": INFINITE}]
    assert limits(bundle)["Max core file size"] == ["unlimited", "unlimited"]


def test_limits_that_are_not_set_are_the_callers(bundle: Bundle) -> None:
    bundle.process["rlimits"] = []
    through = ("sh", "-c", 'ulimit -n 777; ulimit -c 0; exec "$@"', "sh")
    bundle.write()
    said = bundle.says("ulimit -n; ulimit -c", through=through)
    assert said == "777\n0"


def _twice(runtime: str) -> pytest.MarkDecorator:
    reason = 'accepts them: "If `rlimits` contains duplicated entries ..., the runtime MUST generate an error"'
    return differs(runtime, reason)


TWICE = (_twice("runc"), _twice("crun"))


@pytest.mark.parametrize(
    "entries",
    [
        [{"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1}],
        [{"type": "NOFILE", "soft": 1, "hard": 1}],
        [{"type": "RLIMIT_NOFILE", "soft": 200, "hard": 100}],
        pytest.param([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 100}] * 2, marks=TWICE),
    ],
    ids=["unknown", "prefix", "soft-over-hard", "duplicate"],
)
def test_a_limit_that_cannot_be_is_an_error(bundle: Bundle, entries: list[dict[str, object]]) -> None:
    """ "The runtime MUST generate an error for any values which cannot be mapped to a relevant kernel interface"; "If
    `rlimits` contains duplicated entries with same `type`, the runtime MUST generate an error"."""
    bundle.process["rlimits"] = entries
    bundle.refused("true")
