"""`exec`: a further process beside the container's program, from flags or from a file as engines write it."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from conformance.harness import Bundle, alive, differs, wait_for_end

NO_GROUPS = differs("crun", "has no --additional-gids")
WRAPS = differs("runc", "a number that does not fit wraps around, here to root")
MINUS = differs("crun", "takes a negative number for the last of all users")
STATUS = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status | tr -s '\\t' ' '"


def process_file(bundle: Bundle, *argv: str, **changes: Any) -> str:
    """A file for --process: the configuration's process with other arguments."""
    file = bundle.path / "process.json"
    file.write_text(json.dumps({**bundle.process, "args": list(argv), **changes}))
    return str(file)


def by_file(bundle: Bundle, script: str, **changes: Any) -> str:
    """What a shell script says that runs as the file says."""
    return bundle.runtime.ok("exec", "--process", process_file(bundle, "sh", "-c", script, **changes), bundle.id)


# How it ends


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_exec_ends_with_the_processs_exit_code(bundle: Bundle, code: int) -> None:
    with bundle.running():
        assert bundle.exec("sh", "-c", f"exit {code}").code == code


@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV"])
def test_exec_of_a_process_that_a_signal_ended_ends_with_128_and_the_signals_number(bundle: Bundle, name: str) -> None:
    with bundle.running():
        assert bundle.exec("sh", "-c", f"kill -{name} $$").code == 128 + signal.Signals[f"SIG{name}"]


def test_exec_gives_the_process_its_own_streams(bundle: Bundle) -> None:
    with bundle.running():
        done = bundle.exec("sh", "-c", "cat; echo out; echo err >&2", input="in\n")
        assert (done.code, done.out, done.err) == (0, "in\nout\n", "err\n")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("nonsense", r"executable file .*not found in \$PATH"),
        ("/missing", "no such file or directory"),
        ("/etc/passwd", "permission denied|operation not permitted"),
    ],
    ids=["name", "path", "not-executable"],
)
def test_exec_of_a_program_that_cannot_be_run_is_an_error_that_says_why(bundle: Bundle, argv: str, said: str) -> None:
    with bundle.running():
        error = bundle.runtime.fails("exec", bundle.id, argv)
        assert re.search(said, error, re.IGNORECASE), error
        assert bundle.status() == "running"


def test_exec_without_a_program_is_an_error(bundle: Bundle) -> None:
    with bundle.running():
        assert bundle.exec().code != 0


def test_exec_in_a_stopped_container_is_an_error(bundle: Bundle) -> None:
    with bundle.running("true") as pid:
        wait_for_end(pid)
        bundle.runtime.fails("exec", bundle.id, "true")


def test_exec_in_a_container_that_is_not_there_is_an_error(bundle: Bundle) -> None:
    assert "does not exist" in bundle.runtime.fails("exec", bundle.id, "true")


def test_exec_works_in_a_created_container(bundle: Bundle) -> None:
    """Its namespaces are there, so an engine may prepare something before the program starts."""
    with bundle.created():
        assert bundle.sh("echo here > /here; cat /here") == "here"
        assert bundle.status() == "created"
        bundle.start()
        assert bundle.sh("cat /here") == "here"


# Where it runs


def test_the_process_is_in_the_containers_namespaces_and_cgroups(bundle: Bundle) -> None:
    look = "cd /proc/self/ns; for name in *; do readlink $name; done; cat /proc/self/cgroup"
    with bundle.running("sh", "-c", f"{look}; sleep 1000"):
        assert bundle.sh(look) == bundle.output().rstrip("\n")


def test_the_process_sees_the_containers_root(bundle: Bundle) -> None:
    (bundle.rootfs / "marked").write_text("yes\n")
    with bundle.running():
        assert bundle.sh("cat /marked; pwd") == "yes\n/"


def test_the_process_has_no_descriptor_of_the_runtime(bundle: Bundle) -> None:
    with bundle.running():
        assert bundle.sh("cd /proc/self/fd; echo *") in ("0 1 2", "0 1 2 3")  # the shell's own to read the folder


def test_the_process_has_the_configurations_environment_and_user_unless_flags_say_other(bundle: Bundle) -> None:
    bundle.process["env"].append("FROM=config")
    bundle.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [1002]}
    with bundle.running():
        assert bundle.sh("echo $FROM; id -u; id -g; id -G") == "config\n1000\n1001\n1001 1002"


@differs("crun", "begins in / unless --cwd says where")
def test_the_process_begins_in_the_configurations_folder(bundle: Bundle) -> None:
    bundle.process["cwd"] = "/tmp"
    with bundle.running():
        assert bundle.sh("pwd") == "/tmp"


@differs("crun", 'sets no_new_privs for --no-new-privs and in a file only: "prevents the process from gaining ..."')
def test_the_process_can_gain_no_more_privileges_than_the_program(bundle: Bundle) -> None:
    with bundle.running():
        assert "NoNewPrivs: 1" in bundle.sh(STATUS)


# Flags


@pytest.mark.parametrize("flag", ["--env", "-e"])
def test_flags_add_variables_and_replace_the_configurations(bundle: Bundle, flag: str) -> None:
    bundle.process["env"] += ["KEPT=1", "CHANGED=old"]
    with bundle.running():
        flags = (flag, "CHANGED=new", flag, "ADDED=a b", flag, "EMPTY=")
        assert bundle.sh('echo "$KEPT $CHANGED $ADDED ${EMPTY-unset}"', flags) == "1 new a b "


def test_a_flag_sets_the_working_folder(bundle: Bundle) -> None:
    with bundle.running():
        assert bundle.sh("pwd", ("--cwd", "/usr/bin")) == "/usr/bin"


@pytest.mark.parametrize("flag", ["--user", "-u"])
@pytest.mark.parametrize(("user", "ids"), [("1000", "1000 0"), ("1000:1001", "1000 1001"), ("0:5", "0 5")])
def test_a_flag_sets_the_user_by_number(bundle: Bundle, flag: str, user: str, ids: str) -> None:
    with bundle.running():
        assert bundle.sh("echo $(id -u) $(id -g)", (flag, user)) == ids


@pytest.mark.parametrize(
    "user", ["nobody", "x:0", "0:x", pytest.param("-1", marks=MINUS), pytest.param("4294967296", marks=WRAPS)]
)
def test_a_user_that_is_no_number_is_an_error(bundle: Bundle, user: str) -> None:
    """Names are the engine's matter (config.md: "symbolic name for uid and gid ... are left to upper levels")."""
    with bundle.running():
        assert bundle.exec("true", flags=("--user", user)).code != 0


@NO_GROUPS
@pytest.mark.parametrize("flag", ["--additional-gids", "-g"])
def test_a_flag_adds_groups(bundle: Bundle, flag: str) -> None:
    with bundle.running():
        assert bundle.sh("id -G", (flag, "1002", flag, "1003")).split()[-2:] == ["1002", "1003"]


@differs("crun", "gives the process only these, and none of the configuration's")
@pytest.mark.parametrize("flag", ["--cap", "-c"])
def test_a_flag_adds_capabilities(bundle: Bundle, flag: str) -> None:
    with bundle.running():
        assert "CapEff: 0000000020000420" in bundle.sh(STATUS)
        said = bundle.sh(STATUS, (flag, "CAP_SYS_PTRACE", flag, "CAP_CHOWN"))
        assert "CapEff: 0000000020080421" in said
        assert "CapBnd: 0000000020080421" in said


def test_a_flag_sets_no_new_privileges(bundle: Bundle) -> None:
    bundle.process["noNewPrivileges"] = False
    with bundle.running():
        assert "NoNewPrivs: 0" in bundle.sh(STATUS)
        assert "NoNewPrivs: 1" in bundle.sh(STATUS, ("--no-new-privs",))


def test_flags_of_the_program_are_the_programs(bundle: Bundle) -> None:
    with bundle.running():
        assert bundle.exec("echo", "--cwd", "/x", "-e", "A=b").out == "--cwd /x -e A=b\n"


# A process from a file


@pytest.mark.parametrize("flag", ["--process", "-p"])
def test_a_process_comes_from_a_file(bundle: Bundle, flag: str) -> None:
    with bundle.running():
        file = process_file(bundle, "sh", "-c", "echo $0 $1", "a", "b c")
        assert bundle.runtime.ok("exec", flag, file, bundle.id) == "a b c"


def test_a_file_says_all_of_the_process(bundle: Bundle) -> None:
    script = f"echo $ONLY ${{FROM-unset}}; pwd; id -u; id -g; id -G; {STATUS}; ulimit -S -n; ulimit -H -n"
    bundle.process["env"].append("FROM=config")
    changes = {
        "env": ["PATH=/bin", "ONLY=file"],
        "cwd": "/usr",
        "user": {"uid": 7, "gid": 8, "additionalGids": [9]},
        "capabilities": {
            kind: ["CAP_KILL"] for kind in ("bounding", "permitted", "effective", "inheritable", "ambient")
        },
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}],
        "noNewPrivileges": False,
    }
    with bundle.running():
        assert by_file(bundle, script, **changes).splitlines() == [
            *("file unset", "/usr", "7", "8", "8 9"),
            *(f"Cap{name}: 0000000000000020" for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")),
            *("NoNewPrivs: 0", "100", "200"),
        ]


@differs("runc", 'leaves the mask: "specifies the umask of the user", and the file has a user')
def test_a_file_says_the_umask(bundle: Bundle) -> None:
    with bundle.running():
        assert by_file(bundle, "umask", user={"uid": 0, "gid": 0, "umask": 0o27}) == "0027"


@differs("runc", "leaves the score, as crun does")
@differs("crun", 'leaves the score: "If `oomScoreAdj` is set, the runtime MUST set `oom_score_adj` to the given value"')
def test_a_file_says_who_is_killed_when_memory_is_out(bundle: Bundle) -> None:
    with bundle.running():
        assert by_file(bundle, "cat /proc/self/oom_score_adj", oomScoreAdj=345) == "345"


def test_a_file_without_capabilities_leaves_the_process_the_containers(bundle: Bundle) -> None:
    with bundle.running():
        file = Path(process_file(bundle, "sh", "-c", STATUS))
        process = json.loads(file.read_text())
        del process["capabilities"]
        file.write_text(json.dumps(process))
        assert "CapEff: 0000000020000420" in bundle.runtime.ok("exec", "--process", str(file), bundle.id)


@pytest.mark.parametrize("text", [None, "", "{]", "[]", '{"cwd": "/"}', '{"args": ["true"]}'], ids=ascii)
def test_a_file_that_is_no_process_is_an_error(bundle: Bundle, text: str | None) -> None:
    """ "cwd (string, REQUIRED)", and at least one argument."""
    file = bundle.path / "process.json"
    if text is not None:
        file.write_text(text)
    with bundle.running():
        assert bundle.runtime.fails("exec", "--process", str(file), bundle.id)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs a second processor")
def test_a_file_says_where_the_process_runs_after_it_has_joined_the_cgroup(bundle: Bundle) -> None:
    """execCPUAffinity: "`final` is a list of CPUs the process will be run on after the transition to container's
    cgroup"."""
    allowed = "grep Cpus_allowed_list /proc/self/status"
    with bundle.running():
        assert by_file(bundle, allowed, execCPUAffinity={"initial": "0", "final": "1"}).split()[-1] == "1"
        assert by_file(bundle, allowed, execCPUAffinity={"final": "0-1"}).split()[-1] == "0-1"


def test_an_affinity_that_is_no_list_of_processors_is_an_error(bundle: Bundle) -> None:
    with bundle.running():
        file = process_file(bundle, "true", execCPUAffinity={"initial": "0", "final": "x"})
        bundle.runtime.fails("exec", "--process", file, bundle.id)


# Detached


@pytest.mark.parametrize("flag", ["--detach", "-d"])
def test_exec_detached_returns_at_once_and_its_process_is_the_callers_child(bundle: Bundle, flag: str) -> None:
    pid_file = bundle.path / "exec.pid"
    with bundle.running():
        out = bundle.runtime.output()
        done = bundle.exec("sh", "-c", "echo $$; read x; exit 9", flags=(flag, "--pid-file", str(pid_file)), out=out)
        assert done.code == 0, done
        pid = int(pid_file.read_text())
        assert pid_file.read_text() == str(pid)
        assert wait_for_end(pid) == 9
        assert int(out.read()) > 1


def test_a_detached_process_is_one_of_the_containers_and_ends_with_it(bundle: Bundle) -> None:
    pid_file = bundle.path / "exec.pid"
    with bundle.running() as first:
        assert bundle.exec("sleep", "1000", flags=("--detach", "--pid-file", str(pid_file))).code == 0
        pid = int(pid_file.read_text())
        assert sorted(json.loads(bundle.runtime.ok("ps", "--format", "json", bundle.id))) == sorted([first, pid])
        bundle.kill("KILL")
        wait_for_end(first)
        assert not alive(pid)


def test_exec_in_the_foreground_writes_a_pid_file_too(bundle: Bundle) -> None:
    pid_file = bundle.path / "exec.pid"
    with bundle.running():
        assert bundle.exec("true", flags=("--pid-file", str(pid_file))).code == 0
        assert int(pid_file.read_text()) > 1


def test_processes_of_one_container_can_be_started_at_once(bundle: Bundle) -> None:
    with bundle.running():
        out = bundle.runtime.output()
        calls = [
            bundle.runtime.spawn("exec", bundle.id, "sh", "-c", f"exit {number}", stdout=out.fd, stderr=out.fd)
            for number in range(6)
        ]
        assert [call.wait(20) for call in calls] == list(range(6)), out.read()
