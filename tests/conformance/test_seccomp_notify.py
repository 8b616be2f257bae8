"""SCMP_ACT_NOTIFY: the container process state and the filter's descriptor, which an agent's socket is sent."""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.filters import profile, rule
from conformance.harness import SECONDS, Bundle, differs, eventually
from probes import requires

pytestmark = requires("seccomp", "libseccomp")
NOTIFY = "SCMP_ACT_NOTIFY"
CONNECTS = differs("crun", "connects; 'If the SCMP_ACT_NOTIFY action is not used this value is ignored'")
RECEIVE, SEND = 0xC0502100, 0xC0182101  # ioctls of seccomp_unotify(2)


class Agent:
    """Listens where states are sent, and answers every call of every filter with an error."""

    def __init__(self, path: Path, error: int) -> None:
        self.path, self.error = path, error
        self.states: list[dict[str, Any]] = []
        self.descriptors: list[list[int]] = []
        self.more: list[str] = []  # what came after a state on its connection, once that is closed
        self.closed = threading.Event()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(str(path))
        self.socket.listen(8)
        self.threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, work: Callable[..., None], *arguments: object) -> None:
        self.threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self.threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:  # it is closed
                return
            self._begin(self._receive, connection)

    def _receive(self, connection: socket.socket) -> None:
        text, fds, end = "", array.array("i"), 0
        with connection:
            while True:
                part, ancillary, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(64))
                for _, _, content in ancillary:
                    fds.frombytes(content)
                text += part.decode()
                if not part:
                    break
                if not end and (end := _end_of_value(text)):
                    self.descriptors.append(list(fds))
                    self.states.append(json.loads(text[:end]))
                    self._begin(self._answer, fds[0])
        self.more.append(text[end:].strip())
        self.closed.set()

    def _answer(self, fd: int) -> None:
        """Polls first: older kernels (6.1) do not tell who waits in RECEIVE that nobody is left with the filter."""
        waiting = select.poll()
        waiting.register(fd, select.POLLIN)
        while waiting.poll()[0][1] & select.POLLIN:
            request = bytearray(80)
            try:
                fcntl.ioctl(fd, RECEIVE, request)
                (number,) = struct.unpack_from("Q", request)
                fcntl.ioctl(fd, SEND, struct.pack("QqiI", number, 0, -self.error, 0))
            except FileNotFoundError:  # who has called was killed meanwhile
                continue

    def sent(self, number: int) -> list[dict[str, Any]]:
        """Waits until so many states have arrived, and gives all that have."""
        eventually(lambda: len(self.states) >= number, f"{number} states")
        return self.states

    def close(self) -> None:
        """Waits for everybody who has been given an answer, and for the ends of their filters."""
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for thread in self.threads:
            thread.join(SECONDS)
        for fds in self.descriptors:
            for fd in fds:
                os.close(fd)


def _end_of_value(text: str) -> int:
    """Where the first JSON value of a text ends; 0 when it is not all there yet."""
    try:
        return json.JSONDecoder().raw_decode(text)[1]
    except json.JSONDecodeError:
        return 0


@pytest.fixture
def agent(bundle: Bundle) -> Iterator[Agent]:
    """An agent by which kill(2) fails with EIO."""
    made = Agent(bundle.runtime.folder / "agent", errno.EIO)
    profile(bundle, rule("kill", NOTIFY), listenerPath=str(made.path))
    yield made
    made.close()


def test_the_agent_answers_for_the_kernel(bundle: Bundle, agent: Agent) -> None:
    assert "Input/output error" in bundle.says("kill -10 1 2>&1 || true")


def test_a_state_is_all_that_is_sent_on_a_connection(bundle: Bundle, agent: Agent) -> None:
    """The runtime MUST send exactly one container process state per connection."""
    bundle.says("true")
    assert agent.closed.wait(SECONDS)
    assert len(agent.states) == 1
    assert agent.more == [""]


@differs("crun", "keeps it open as long as run waits; 'it MUST be closed after sending a seccomp state'")
def test_a_connection_is_closed_when_the_state_is_sent(bundle: Bundle, agent: Agent) -> None:
    bundle.argv("sh", "-c", "until [ -e /tmp/go ]; do usleep 5000; done")
    bundle.write()
    with bundle.runtime.spawn("run", "--bundle", str(bundle.path), bundle.id) as run:
        closed = agent.closed.wait(SECONDS / 10)
        (bundle.rootfs / "tmp/go").touch()
    assert closed
    assert run.returncode == 0


def test_the_descriptor_is_the_filters(bundle: Bundle, agent: Agent) -> None:
    bundle.says("true")
    (state,) = agent.sent(1)
    assert state["fds"] == ["seccompFd"]
    assert len(agent.descriptors[0]) == 1
    assert "seccomp" in os.readlink(f"/proc/self/fd/{agent.descriptors[0][0]}")


def test_a_state_says_whose_it_is(bundle: Bundle, agent: Agent) -> None:
    bundle.config["annotations"] = {"org.example.key": "value"}
    with bundle.running() as pid:
        (sent,) = agent.sent(1)
        assert sent["pid"] == pid
        assert sent["ociVersion"]
        state = sent["state"]
        assert state["id"] == bundle.id
        assert state["pid"] == pid
        assert state["bundle"] == str(bundle.path)
        assert state["status"] in ("creating", "created", "running")
        assert state["ociVersion"]
        assert state["annotations"]["org.example.key"] == "value"


def test_metadata_is_passed_on(bundle: Bundle, agent: Agent) -> None:
    bundle.linux["seccomp"]["listenerMetadata"] = 'any "text"\nof the configuration'
    bundle.says("true")
    assert agent.sent(1)[0]["metadata"] == 'any "text"\nof the configuration'


def test_without_metadata_there_is_none(bundle: Bundle, agent: Agent) -> None:
    bundle.says("true")
    assert not agent.sent(1)[0].get("metadata")


def test_an_executed_process_has_a_state_of_its_own(bundle: Bundle, agent: Agent) -> None:
    with bundle.running():
        agent.sent(1)  # it may come as late as the program
        assert "Input/output error" in bundle.sh("kill -10 $$ 2>&1 || true")
        second = agent.sent(2)[1]
        assert second["fds"] == ["seccompFd"]
        assert second["state"]["id"] == bundle.id


@differs("crun", "says 0; 'pid (int, REQUIRED) is the container process ID, as seen by the runtime'")
def test_the_state_of_an_executed_process_says_which_it_is(bundle: Bundle, agent: Agent) -> None:
    file = bundle.path / "pid"
    with bundle.running() as first:
        agent.sent(1)
        assert bundle.exec("sleep", "1000", flags=("--detach", "--pid-file", str(file))).code == 0
        state = agent.sent(2)[1]
        assert state["pid"] == int(file.read_text())
        assert state["state"]["pid"] == first


def test_other_rules_hold_beside_it(bundle: Bundle, agent: Agent) -> None:
    bundle.linux["seccomp"]["syscalls"].append(rule("mkdir mkdirat", "SCMP_ACT_ERRNO", errnoRet=28))
    said = bundle.says("kill -10 1 2>&1; mkdir /made 2>&1; true")
    assert "Input/output error" in said
    assert "No space left" in said


def test_a_call_of_a_process_without_privileges_is_answered(bundle: Bundle, agent: Agent) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    assert "Input/output error" in bundle.says("kill -10 1 2>&1 || true")


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_it_is_sent_with_and_without_privileges_to_gain(bundle: Bundle, agent: Agent, no_new_privileges: bool) -> None:
    bundle.process["noNewPrivileges"] = no_new_privileges
    assert "Input/output error" in bundle.says("kill -10 1 2>&1 || true")


@differs("runc", "does not know it; it is in the specification's 'valid list of constants'")
def test_a_call_waits_killable(bundle: Bundle, agent: Agent) -> None:
    bundle.linux["seccomp"]["flags"] = ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
    assert "Input/output error" in bundle.says("kill -10 1 2>&1 || true")


def test_an_agent_that_is_not_there_is_an_error(bundle: Bundle) -> None:
    """If sending to this socket fails, the runtime MUST generate an error."""
    profile(bundle, rule("kill", NOTIFY), listenerPath=str(bundle.path / "nothing"))
    assert bundle.run("true").code != 0


@differs("crun", "takes it; 'If the runtime cannot apply a property as specified ..., it MUST generate an error'")
def test_notifying_without_a_path_is_an_error(bundle: Bundle) -> None:
    profile(bundle, rule("kill", NOTIFY))
    assert bundle.run("true").code != 0


@CONNECTS
def test_a_path_is_ignored_when_nobody_is_to_be_notified(bundle: Bundle) -> None:
    """If the SCMP_ACT_NOTIFY action is not used this value is ignored."""
    profile(bundle, rule("kill", "SCMP_ACT_ERRNO"), listenerPath=str(bundle.path / "nothing"))
    assert "not permitted" in bundle.says("kill -10 1 2>&1 || true")


@CONNECTS
def test_nobody_is_notified_of_other_filters(bundle: Bundle) -> None:
    profile(bundle, rule("kill", "SCMP_ACT_ERRNO"), listenerPath=str(bundle.path / "agent"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(bundle.path / "agent"))
        listening.listen(1)
        bundle.says("true")
        assert not select.select([listening], [], [], 0)[0]
