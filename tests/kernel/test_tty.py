"""The real command line on a real terminal: what is typed, resized, interrupted, left, hung up and killed.

The test is the person at the terminal: it holds the master of a pseudo-terminal of which the client has the other side
as its controlling terminal, as under a shell. It waits for what the screen shows, never for time to pass.
"""

from __future__ import annotations

import os
import random
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche.kernel.terminal import attributes
from commands import COMMAND, cloche, ok
from probes import requires
from screens import PROMPT, SECONDS, Screen, eventually

pytestmark = [requires("root", "overlay"), pytest.mark.usefixtures("store")]

DETACH = b"\x10\x11"  # ctrl-p ctrl-q
SHELL = f"export PS1='{PROMPT}'; exec sh"
VERBS = pytest.mark.parametrize("verb", ["run", "exec", "attach", "start"])
one_lane = pytest.mark.one_lane


@pytest.fixture
def screen(store: Path) -> Iterator[Screen]:
    made = Screen()
    yield made
    made.close()


def running(name: str) -> bool:
    return ok("inspect", "-f", "{{.State.Running}}", name) == "true"


def idle(name: str) -> None:
    ok("run", "-d", "--name", name, "starter", "sleep", "1000")


def session(screen: Screen, verb: str, script: str, name: str = "box", flags: tuple[str, ...] = ()) -> None:
    """A client of one of the verbs in front of a shell script, in a new container (exec: one that sleeps)."""
    if verb == "run":
        screen.start("run", "-it", "--name", name, *flags, "starter", "sh", "-c", script)
    elif verb == "exec":
        idle(name)
        screen.start("exec", "-it", *flags, name, "sh", "-c", script)
    elif verb == "start":
        ok("create", "-it", "--name", name, "starter", "sh", "-c", script)
        screen.start("start", "-ai", *flags, name)
    else:  # attach: so that its first output is not written before somebody looks
        ok("run", "-dit", "--name", name, "starter", "sh", "-c", f"read go; {script}")
        screen.attach("attach", *flags, name)
        screen.type("\r")


def back(screen: Screen, name: str, *flags: str, verb: str = "attach") -> None:
    """In front of a shell that waits at its prompt."""
    screen.attach(*({"attach": ["attach"], "start": ["start", "-ai"]}[verb]), *flags, name)
    screen.clear()
    screen.type("\r")
    screen.until(PROMPT)


# Typing, sizes, interrupting


def test_what_is_typed_reaches_the_program_and_its_answer_the_screen(screen: Screen) -> None:
    session(screen, "run", SHELL, flags=("--rm",))
    screen.until(PROMPT)
    assert screen.ask("echo $((40 + 2)); echo to-stderr >&2") == "42\nto-stderr"
    assert re.fullmatch(r"/dev/(console|pts/\d+)", screen.ask("tty"))
    assert screen.ask("stty size") == "24 80"
    assert screen.ask("test -t 0 && test -t 1 && test -t 2 && echo all three") == "all three"
    screen.type("cat; echo $((5)) ended\r")
    screen.type(b"\x04")  # ctrl-d ends what the program reads, not the session
    screen.until(f"5 ended\r\n.*{PROMPT}")
    screen.type("exit 7\r")
    assert screen.ended() == 7


def test_the_size_is_there_before_the_program_looks(screen: Screen) -> None:
    screen.resize(33, 101)
    screen.start("run", "-it", "--name", "box", "starter", "stty", "size")
    screen.until("33 101\r\n")
    assert screen.ended() == 0
    idle("other")
    screen.start("exec", "-it", "other", "stty", "size")
    screen.until("33 101\r\n")
    assert screen.ended() == 0
    screen.resize(12, 34)
    screen.start("start", "-ai", "box")
    screen.until("12 34\r\n")
    assert screen.ended() == 0


@VERBS
def test_a_resize_is_seen_inside(screen: Screen, verb: str) -> None:
    """The program gets SIGWINCH and finds the new size."""
    script = 'trap \'stty size; [ "$(stty size)" = "41 142" ] && exit 6\' WINCH; echo up; while :; do read x; done'
    session(screen, verb, script)
    screen.until("up\r\n")
    screen.resize(30, 90)
    screen.until("30 90\r\n")
    screen.resize(41, 142)
    screen.until("41 142\r\n")
    assert screen.ended() == 6


def test_attached_anew_it_has_the_size_of_the_new_terminal(screen: Screen) -> None:
    session(screen, "run", SHELL)
    screen.until(PROMPT)
    screen.type(DETACH)
    assert screen.ended() == 0
    screen.resize(26, 82)
    back(screen, "box")
    assert screen.ask("stty size") == "26 82"
    screen.type("exit\r")
    assert screen.ended() == 0


@VERBS
@one_lane
def test_ctrl_c_is_the_programs_and_the_client_lives_on(screen: Screen, verb: str) -> None:
    script = "trap 'echo caught' INT; echo waiting; sleep 1000; echo after; read x; echo got $x; exit 9"
    session(screen, verb, script)
    screen.until("waiting\r\n")
    newest = ("exec", "box", "pgrep", "-n", "-f", "^sleep 1000$")
    eventually(lambda: cloche(*newest).out.strip() not in {"", "1"}, "it sleeps")
    screen.type(b"\x03")
    screen.until(r"\^C.*caught\r\n.*after\r\n")
    screen.type("more\r")
    screen.until("got more\r\n")
    assert screen.ended() == 9


@one_lane
def test_a_program_in_raw_mode_gets_every_byte_as_it_was_typed(screen: Screen) -> None:
    every = bytes(code for code in range(256) if code not in DETACH) + b"\x10x\x11"  # a beginning of the keys, an end
    session(screen, "run", f"stty raw -echo; echo up; head -c {len(every)} | od -v -An -tu1; stty sane; echo done")
    screen.until("up\n")
    screen.type(every)
    assert bytes(int(code) for code in screen.until("done").split()[:-1]) == every
    assert screen.ended() == 0


# Leaving and coming back


def test_detached_it_goes_on_and_attach_gets_back_in(screen: Screen) -> None:
    session(screen, "run", SHELL)
    screen.until(PROMPT)
    assert screen.ask("kept=here") == ""
    for _ in range(2):
        screen.type(DETACH)
        assert screen.ended() == 0
        assert running("box")
        back(screen, "box")
        assert screen.ask("echo $kept again") == "here again"
    screen.type("exit 23\r")
    assert screen.ended() == 23
    assert ok("wait", "box") == "23"
    assert ok("logs", "box").count("here again") == 2


def test_started_again_with_a_terminal(screen: Screen) -> None:
    session(screen, "run", SHELL)
    screen.until(PROMPT)
    screen.type("exit 3\r")
    assert screen.ended() == 3
    screen.start("start", "-ai", "box")
    screen.until(PROMPT)
    screen.type(DETACH)
    assert screen.ended() == 0
    back(screen, "box", verb="start")  # it runs: the same as attach
    screen.type("exit 4\r")
    assert screen.ended() == 4


def test_what_it_wrote_while_nobody_looked_is_in_the_log_alone(screen: Screen) -> None:
    session(screen, "run", "echo up; read a; echo first; read b; echo second $b; exit 5")
    screen.until("up\r\n")
    screen.type(b"\r" + DETACH)
    assert screen.ended() == 0
    eventually(lambda: "first" in ok("logs", "box"), "what was typed before the keys has arrived")
    screen.clear()
    screen.attach("attach", "box")
    screen.type("typed\r")
    assert b"first" not in screen.until("second typed\r\n")
    assert screen.ended() == 5
    assert ok("logs", "box").replace("\r", "").splitlines() == ["up", "", "first", "typed", "second typed"]


@pytest.mark.parametrize(("keys", "typed"), [("ctrl-a,d", b"\x01d"), ("ctrl-@,DEL,x", b"\0\x7fx")])
@one_lane
def test_other_keys_detach(screen: Screen, keys: str, typed: bytes) -> None:
    flags = ("--detach-keys", keys)
    session(screen, "run", SHELL, flags=flags)
    screen.until(PROMPT)
    for verb in ("attach", "start", "exec", "none"):
        screen.type(DETACH)  # these are the program's now
        screen.type(typed)
        assert screen.ended() == 0
        assert running("box")
        if verb == "exec":
            screen.start("exec", "-it", *flags, "box", "sh", "-c", SHELL)
            screen.until(PROMPT)
        elif verb != "none":
            back(screen, "box", *flags, verb=verb)
    back(screen, "box")
    screen.type(typed)
    screen.type(DETACH)
    assert screen.ended() == 0


def test_an_exec_that_was_left_goes_on(screen: Screen) -> None:
    """Also when it writes far more than a terminal holds: nobody reads that, and it does not wait for a reader."""
    script = "echo up; while [ ! -e /left ]; do sleep 0.02; done; seq 50000; echo done > /done; exit 3"
    session(screen, "exec", script)
    screen.until("up\r\n")
    screen.type(DETACH)
    assert screen.ended() == 0
    ok("exec", "box", "touch", "/left")
    eventually(lambda: cloche("exec", "box", "cat", "/done").out == "done\n", "it writes on")
    assert running("box")


@VERBS
@one_lane
def test_a_program_that_never_reads_its_terminal_can_be_left(screen: Screen, verb: str) -> None:
    for settings in ("raw -echo", "sane"):
        session(screen, verb, f"stty {settings}; echo deaf; exec sleep 1000", name=settings[:3])
        screen.until("deaf\r?\n")
        for _ in range(100):
            screen.type(b"nobody reads this\r" * 60)
            if select.select([screen.keyboard], [], [], 0)[0]:
                screen.look()  # what the container's terminal echoes
        screen.type(DETACH)
        assert screen.ended() == 0
        assert running(settings[:3])
        screen.clear()


# Giving the terminal back


@VERBS
@one_lane
def test_a_signal_ends_the_client_alone(screen: Screen, verb: str) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        session(screen, verb, SHELL, name=f"box{number}")
        screen.until(PROMPT)
        assert attributes(screen.terminal) != screen.found, "it is raw now"
        screen.signal(number)
        assert screen.ended() == 128 + number
        assert running(f"box{number}")
        screen.clear()


def test_a_window_that_is_closed_ends_the_client_alone(screen: Screen) -> None:
    session(screen, "run", SHELL)
    screen.until(PROMPT)
    assert screen.client
    for fd in (screen.terminal, screen.keyboard):
        os.close(fd)
    screen.terminal = screen.keyboard = -1
    assert screen.client.wait(SECONDS) in (128 + signal.SIGHUP, 141)
    assert running("box")
    other = Screen()
    try:
        back(other, "box")
        other.type("exit 8\r")
        assert other.ended() == 8
    finally:
        other.close()


@pytest.mark.parametrize("verb", ["run", "run --rm", "exec", "attach", "start"])
@one_lane
def test_ended_from_elsewhere(screen: Screen, verb: str) -> None:
    for number, end in enumerate((["kill"], ["rm", "-f"], ["stop", "-t", "0"])):
        verb, *flags = verb.split()
        session(screen, verb, SHELL, name=f"box{number}", flags=(*flags,))
        screen.until(PROMPT)
        ok(*end, f"box{number}")
        assert screen.ended() == 137
        assert screen.shown == b"", "it is no error"


def test_an_error_leaves_the_terminal_as_it_was(screen: Screen) -> None:
    idle("box")
    ok("run", "-dit", "--name", "term", "starter", "sh")
    for arguments, code, says in (
        (["run", "-it", "starter", "no-such-program"], 127, "no-such-program"),
        (["run", "-it", "--rm", "starter", "/"], 126, "permission denied|is a directory"),
        (["run", "-it", "no-such-image", "sh"], 125, "no-such-image"),
        (["run", "-it", "--detach-keys", "what", "starter", "sh"], 125, "detach keys"),
        (["exec", "-it", "box", "no-such-program"], 127, "no-such-program"),
        (["exec", "-it", "no-such-box", "sh"], 125, "no-such-box"),
        (["attach", "no-such-box"], 1, "no-such-box"),
        (["attach", "--detach-keys", "ctrl-p,,", "term"], 1, "detach keys"),
    ):
        screen.start(*arguments)
        screen.until(f"(?i)({says})[^\n]*\r\n")
        assert screen.ended() == code, arguments
        screen.clear()


# Kills


def pids() -> tuple[int, int]:
    """Holder and keeper."""
    holder, keeper = (Path(os.environ["CLOCHE_ROOT"]) / "run/keeper/pids").read_text().split()
    return int(holder), int(keeper)


def kill_and_wait(which: int) -> None:
    """End the holder (0) or the keeper (1) with -9, and wait until others have taken their places."""
    before = pids()
    handle = os.pidfd_open(before[which])
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    os.close(handle)
    eventually(lambda: pids() != before, "there is a new pair")


LINES = 300
SLOWLY = f"""stty -echo; i=0
while [ $i -lt {LINES} ]; do
    echo "line $i."
    i=$((i + 1)); [ $((i % 10)) = 0 ] && sleep 0.02
done
read answer; echo "and $answer"; exit 9"""
WRITTEN = b"".join(b"line %d.\r\n" % number for number in range(LINES)) + b"and typed\r\n"


@VERBS
@pytest.mark.parametrize(
    "victims",
    [
        pytest.param((1,), id="keeper"),
        pytest.param((0,), id="holder"),
        # who has lost both its parents is nobody's child: its end must be told by its pidfd
        pytest.param((1, 0, 1, 0), id="both", marks=requires("exit_info")),
    ],
)
def test_a_session_goes_on_when_its_keeper_or_holder_is_killed(
    screen: Screen, verb: str, victims: tuple[int, ...]
) -> None:
    session(screen, verb, SLOWLY)
    seen = b""
    for turn, victim in enumerate(victims):
        seen += screen.until(f"line {20 + turn * 50}\\.\r\n")
        kill_and_wait(victim)
    seen += screen.until(f"line {LINES - 1}\\.\r\n")
    screen.resize(29, 77)
    screen.type("typed\r")
    assert screen.ended() == 9
    assert (seen + screen.shown).removeprefix(b"\r\n") == WRITTEN  # an attached one's first line is echoed


# Without a terminal


def piped(*arguments: str, input: bytes = b"") -> tuple[int, bytes, bytes]:
    done = subprocess.run([*COMMAND, *arguments], input=input, capture_output=True, timeout=SECONDS)
    return done.returncode, done.stdout, done.stderr


def test_piped_input_ends_properly() -> None:
    assert piped("run", "--rm", "-i", "starter", "cat", input=b"x") == (0, b"x", b"")
    assert piped("run", "--rm", "-i", "starter", "cat") == (0, b"", b"")
    assert piped("run", "--rm", "starter", "cat", input=b"not asked for") == (0, b"", b"")
    assert piped("run", "--rm", "-i", "starter", "sh", "-c", "read x; echo $x; exit 3", input=b"a\nb\n") == (
        3,
        b"a\n",
        b"",
    )
    idle("box")
    assert piped("exec", "-i", "box", "cat", input=b"x") == (0, b"x", b"")
    assert piped("exec", "box", "cat", input=b"not asked for") == (0, b"", b"")
    ok("create", "-i", "--name", "again", "starter", "cat")
    for text in (b"once", b"twice"):
        assert piped("start", "-ai", "again", input=text) == (0, text, b"")


@pytest.mark.parametrize("verb", ["run", "exec"])
@one_lane
def test_four_megabytes_come_back_byte_for_byte(verb: str) -> None:
    data = random.Random(4).randbytes(4 << 20)
    idle("box")
    start = ["run", "--rm", "-i", "starter"] if verb == "run" else ["exec", "-i", "box"]
    code, out, err = piped(*start, "cat", input=data)
    assert (code, err) == (0, b"")
    assert len(out) == len(data) and out == data


@pytest.mark.parametrize("verb", ["run", "exec"])
@one_lane
def test_input_that_is_closed_early_or_was_never_open(verb: str) -> None:
    idle("box")
    words = ["run", "--rm", "-i", "starter"] if verb == "run" else ["exec", "-i", "box"]

    def closed() -> None:
        os.close(0)

    done = subprocess.run([*COMMAND, *words, "cat"], preexec_fn=closed, capture_output=True, timeout=SECONDS)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    with subprocess.Popen(
        [*COMMAND, *words, "sh", "-c", "echo up; cat; echo ended"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as client:
        assert client.stdin and client.stdout
        assert client.stdout.readline() == b"up\n"
        client.stdin.close()
        assert client.stdout.read() == b"ended\n"
        assert client.wait(SECONDS) == 0


@pytest.mark.parametrize("verb", ["run", "exec"])
@one_lane
def test_a_program_that_reads_no_more_ends_the_session_and_not_its_writer(verb: str) -> None:
    idle("box")
    words = ["run", "--rm", "-i", "starter"] if verb == "run" else ["exec", "-i", "box"]
    with subprocess.Popen(
        [*COMMAND, *words, "head", "-c", "3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as client:
        assert client.stdin and client.stdout
        os.write(client.stdin.fileno(), b"abcdef" * 1000)
        assert client.stdout.read() == b"abc", "the writer has not closed its end"
        assert client.wait(SECONDS) == 0


def test_a_terminal_is_refused_where_there_is_none() -> None:
    idle("box")
    for words in (["run", "-it", "--rm", "starter", "true"], ["exec", "-it", "box", "true"]):
        result = cloche(*words)
        assert (result.code, result.out) == (125, "")
        assert "the input device is not a TTY" in result.err
    ok("run", "-dit", "--name", "runs", "starter", "sh")
    result = cloche("attach", "runs")
    assert result.code == 1 and "the input device is not a TTY" in result.err
    assert piped("run", "-t", "--rm", "starter", "sh", "-c", "test -t 0 && echo yes") == (0, b"yes\r\n", b"")
