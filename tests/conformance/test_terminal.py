"""Terminals: the master goes over the console socket, the program has the other side; the sockets of pidfds."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from conformance.console import Master, reception
from conformance.harness import Bundle, differs, eventually, wait_for_end
from probes import requires

NO_PIDFD = differs("crun", "has no --pidfd-socket")


@contextmanager
def on_a_terminal(bundle: Bundle, script: str) -> Iterator[Master]:
    """A container that runs the script on a terminal of its own, whose master this is."""
    bundle.process["terminal"] = True
    with reception(bundle.runtime.folder) as waiting:
        flags = ("--console-socket", str(waiting.path))
        with bundle.running("sh", "-c", script, flags=flags), Master(waiting.receive()) as master:
            yield master


def test_a_terminals_master_is_sent_to_the_console_socket(bundle: Bundle) -> None:
    with on_a_terminal(bundle, "test -t 0 && test -t 1 && test -t 2 && echo all three") as master:
        assert master.rest() == "all three\n"


def test_the_terminal_is_one_of_the_containers_own(bundle: Bundle) -> None:
    with on_a_terminal(bundle, "tty") as master:
        assert master.rest().startswith("/dev/pts/")


def test_the_program_is_the_leader_of_a_session_with_the_terminal(bundle: Bundle) -> None:
    with on_a_terminal(bundle, "echo by name > /dev/tty; cut -d' ' -f1,5,6 /proc/$$/stat") as master:
        assert master.rest() == "by name\n1 1 1\n"


def test_the_terminal_is_the_containers_console_too(bundle: Bundle) -> None:
    with on_a_terminal(bundle, "echo on the console > /dev/console") as master:
        assert master.rest() == "on the console\n"


def test_what_is_typed_is_read_and_echoed(bundle: Bundle) -> None:
    with on_a_terminal(bundle, "read line; echo got $line") as master:
        master.type("hello\n")
        assert master.rest() == "hello\ngot hello\n"


def test_an_interrupt_key_is_a_signal(bundle: Bundle) -> None:
    with on_a_terminal(bundle, "trap 'echo interrupted; exit' INT; echo ready; while :; do sleep 0.05; done") as master:
        master.until("ready")
        master.type("\x03")
        assert "interrupted" in master.rest()


def test_the_terminal_has_the_size_of_the_configuration(bundle: Bundle) -> None:
    bundle.process["consoleSize"] = {"height": 33, "width": 99}
    with on_a_terminal(bundle, "stty size") as master:
        assert master.rest() == "33 99\n"


def test_a_new_size_reaches_the_program(bundle: Bundle) -> None:
    with on_a_terminal(bundle, "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done") as master:
        master.until("ready")
        master.resize(40, 120)
        assert master.rest() == "ready\n40 120\n"


def test_the_size_is_ignored_without_a_terminal(bundle: Bundle) -> None:
    """ "Runtimes MUST ignore `consoleSize` if `terminal` is `false` or unset."""
    bundle.process["consoleSize"] = {"height": 33, "width": 99}
    assert bundle.says("test -t 1 || echo none") == "none"


def test_the_terminal_belongs_to_the_processs_user(bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    with on_a_terminal(bundle, "echo opened again > $(tty); stat -c %u $(tty)") as master:
        assert master.rest() == "opened again\n1000\n"


@requires("userns")
def test_the_terminal_belongs_to_the_user_in_a_user_namespace(bundle: Bundle) -> None:
    bundle.namespace("user")
    for kind in ("uidMappings", "gidMappings"):
        bundle.linux[kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    with on_a_terminal(bundle, "echo opened again > $(tty); stat -c %u $(tty)") as master:
        assert master.rest() == "opened again\n0\n"


def test_a_terminal_without_a_socket_for_it_is_an_error(bundle: Bundle) -> None:
    bundle.process["terminal"] = True
    bundle.refused("true")


def test_a_console_socket_that_nobody_listens_at_is_an_error(bundle: Bundle) -> None:
    bundle.process["terminal"] = True
    bundle.refused("true", flags=("--console-socket", str(bundle.path / "missing")))


def test_run_detached_sends_the_master_too(bundle: Bundle) -> None:
    bundle.process["terminal"] = True
    with reception(bundle.runtime.folder) as waiting:
        done = bundle.run("sh", "-c", "tty", flags=("--detach", "--console-socket", str(waiting.path)))
        assert done.code == 0, done
        with Master(waiting.receive()) as master:
            assert master.rest().startswith("/dev/pts/")


@contextmanager
def called_from_a_terminal(bundle: Bundle, *args: str) -> Iterator[tuple[Master, subprocess.Popen[bytes]]]:
    """The runtime in the foreground of a terminal, whose master this is."""
    ours, theirs = os.openpty()
    with Master(ours) as master:
        master.resize(30, 90)
        streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        with bundle.runtime.spawn(*args, **streams, start_new_session=True) as process:
            os.close(theirs)
            yield master, process


ASKING = "test -t 0 && test -t 1 && echo ready; read line; echo got $line; exit 5"


def test_run_in_the_foreground_lends_the_callers_terminal(bundle: Bundle) -> None:
    """The caller's is raw meanwhile, so nothing is echoed twice."""
    bundle.process["terminal"] = True
    bundle.argv("sh", "-c", ASKING)
    bundle.write()
    with called_from_a_terminal(bundle, "run", "--bundle", str(bundle.path), bundle.id) as (master, process):
        master.until("ready\n")
        master.type("hello\r")
        assert master.until("got hello\n") == "ready\nhello\ngot hello\n"
        assert process.wait(20) == 5


def test_exec_in_the_foreground_lends_the_callers_terminal(bundle: Bundle) -> None:
    with bundle.running():
        with called_from_a_terminal(bundle, "exec", "--tty", bundle.id, "sh", "-c", ASKING) as (master, process):
            master.until("ready\n")
            master.type("hello\r")
            assert master.until("got hello\n") == "ready\nhello\ngot hello\n"
            assert process.wait(20) == 5


def test_exec_with_a_terminal_sends_its_master(bundle: Bundle) -> None:
    with bundle.running(), reception(bundle.runtime.folder) as waiting:
        flags = ("--tty", "--detach", "--console-socket", str(waiting.path))
        done = bundle.exec("sh", "-c", "tty; echo by name > /dev/tty", flags=flags)
        assert done.code == 0, done
        with Master(waiting.receive()) as master:
            said = master.rest()
        assert said.startswith("/dev/pts/")
        assert said.endswith("by name\n")


def test_exec_of_a_process_file_has_a_terminal_of_its_size(bundle: Bundle) -> None:
    """Sooner or later: crun sets it when the process may have begun."""
    file = bundle.path / "process.json"
    script = "until stty size 2>/dev/null | grep '^12 34$'; do usleep 1000; done"
    process = {**bundle.process, "args": ["sh", "-c", script], "terminal": True}
    file.write_text(json.dumps({**process, "consoleSize": {"height": 12, "width": 34}}))
    with bundle.running(), reception(bundle.runtime.folder) as waiting:
        flags = ("--process", str(file), "--detach", "--console-socket", str(waiting.path))
        done = bundle.exec(flags=flags)
        assert done.code == 0, done
        with Master(waiting.receive()) as master:
            assert master.rest() == "12 34\n"


# Pidfds


@NO_PIDFD
def test_the_first_processs_pidfd_is_sent_to_its_socket(bundle: Bundle) -> None:
    with reception(bundle.runtime.folder) as waiting:
        with bundle.running(flags=("--pidfd-socket", str(waiting.path))) as pid:
            fd = waiting.receive()
            try:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                assert select.select([fd], [], [], 20)[0]
            finally:
                os.close(fd)
            assert wait_for_end(pid) == -signal.SIGKILL


@NO_PIDFD
def test_exec_sends_its_processs_pidfd_too(bundle: Bundle) -> None:
    with bundle.running(), reception(bundle.runtime.folder) as waiting:
        pid_file = bundle.path / "exec.pid"
        flags = ("--detach", "--pid-file", str(pid_file), "--pidfd-socket", str(waiting.path))
        assert bundle.exec("sleep", "1000", flags=flags).code == 0
        fd = waiting.receive()
        try:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)
        assert wait_for_end(int(pid_file.read_text())) == -signal.SIGKILL
        eventually(lambda: bundle.status() == "running", "the first process goes on")
