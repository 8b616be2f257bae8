"""The flat form, damaged: bell refuses what it cannot read, and is led to no place outside of its own memory.

bell is compiled with the sanitizers of gcc and run as nobody, without a right, in namespaces of its own that end with
the test; CLOCHE_FUZZ says how many damaged plans are tried.
"""

from __future__ import annotations

import fcntl
import os
import random
import resource
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from struct import pack, unpack_from

import pytest
from tests.unit.plan.test_features import BASE, PARTS, V1, made, merged
from tests.unit.plan.test_plans import PLANS as ENGINES

from cloche.kernel.libc import prctl
from cloche.kernel.namespaces import unshare
from cloche.runtime.bell import DONE, FAILED, binary, parse, sealed
from cloche.step.flat import TABLE, flatten
from probes import private_mount_namespace, requires

pytestmark = [pytest.mark.one_lane, requires("root"), pytest.mark.timeout(600)]
PLANS = ENGINES | {name: made(merged(BASE, part), V1, passed=2) for name, part in PARTS.items()}
TRIES = int(os.environ.get("CLOCHE_FUZZ", "300"))
EPROTO = 71
NEWPID, NEWNET, NEWIPC, NEWUTS = 0x20000000, 0x40000000, 0x08000000, 0x04000000
DEADLY = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP}
WORDS = (0, 1, 2, 7, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 20, (1 << 20) + 1)


@pytest.fixture(scope="module")
def bell() -> Iterator[int]:
    """A sealed copy of a bell that ends with an error wherever it leaves its memory; the usual one where there is no
    such compiler, or no room for its tables (User Mode Linux)."""
    folder = Path(tempfile.mkdtemp(prefix="cloche-fuzz-"))
    source = Path(binary()).with_suffix(".c")
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-std=gnu11", "-O1", "-g")
    compiler = ["gcc", *flags, "-o", folder / "bell", source]
    compiled = shutil.which("gcc") and not subprocess.run(compiler, capture_output=True, timeout=120).returncode
    # without a plan it says so and ends
    said = compiled and subprocess.run([folder / "bell"], capture_output=True, timeout=30).stderr
    works = said and b"cloche starts this program" in said
    copy = sealed(str(folder / "bell") if works else binary())
    shutil.rmtree(folder)
    os.set_inheritable(copy, True)
    yield copy
    os.close(copy)


def offsets(flat: bytes) -> list[int]:
    """Where each act begins, as far as that can be read."""
    found, at = [], 16
    while at + 16 <= len(flat):
        found.append(at)
        at += max(16, unpack_from("=I", flat, at + 12)[0])
    return found or [0]


def damaged(chance: random.Random) -> bytes:
    """A good plan, changed in one to four places: most of it still makes sense, so that all of bell is reached."""
    flat = bytearray(flatten(PLANS[chance.choice(sorted(PLANS))]))
    for _ in range(chance.randint(1, 4)):
        begins = offsets(bytes(flat)) if chance.random() < 0.5 else [16]
        at = chance.choice(begins)
        way = chance.randrange(8)
        if way == 0:  # a word of the head: operation, actor, number, counts, size
            place = at + chance.choice((0, 2, 4, 6, 8, 12))
            flat[place : place + 2] = pack("=H", chance.choice(WORDS) & 0xFFFF)
        elif way == 1:  # an integer or a length
            place = at + 16 + 4 * chance.randrange(12)
            flat[place : place + 4] = pack("=I", chance.choice(WORDS))
        elif way == 2:
            flat[chance.randrange(len(flat))] ^= 1 << chance.randrange(8)
        elif way == 3:
            del flat[chance.randrange(len(flat)) :]
        elif way == 4:  # another operation on these fields
            flat[at : at + 2] = pack("=H", chance.randint(1, len(TABLE)))
        elif way == 5:
            flat += chance.randbytes(chance.randint(1, 64))
        elif way == 6 and len(begins) > 1:  # an act more than once, or left out
            at, end = sorted(chance.sample([*begins, len(flat)], 2))
            flat[at:end] = flat[at:end] * chance.randint(0, 2)
        else:  # a string without its end
            place = flat.find(b"\0", at + 16)
            if place > 0:
                flat[place] = 0x41
        if len(flat) < 17:
            break
    if len(flat) >= 16 and chance.random() < 0.9:  # the size is right more often than not: else nothing is read
        flat[12:16] = pack("=I", len(flat))
    return bytes(flat)


def fenced() -> None:
    """In the child: nobody, who may use little."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (2, 2))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    prctl(38, 1)  # PR_SET_NO_NEW_PRIVS


def one(bell: int, flat: bytes) -> tuple[int, bytes, bytes]:
    """Exit status, what it reported, what it said on stderr."""
    memory = os.memfd_create("plan", 0)
    os.write(memory, flat)
    ours, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reading, status = os.pipe()
    errors = os.memfd_create("errors", 0)
    null = os.open("/dev/null", os.O_RDWR)
    pid = os.fork()
    if pid == 0:
        try:
            given = (null, null, errors, control.fileno(), status, memory)
            *high, program = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in (*given, bell)]
            for place, fd in enumerate(high):
                os.dup2(fd, place)
            os.closerange(6, program)
            fenced()
            os.execve(program, ["bell"], {"ASAN_OPTIONS": "detect_leaks=0"})
        finally:
            os._exit(99)
    for fd in (memory, status, null):
        os.close(fd)
    control.close()
    ours.shutdown(socket.SHUT_WR)  # no gate is opened
    handle = os.pidfd_open(pid)
    if not select.select([handle], [], [], 10)[0]:
        os.kill(pid, signal.SIGKILL)
    os.close(handle)
    _, ended = os.waitpid(pid, 0)
    ours.setblocking(False)
    said = b""
    try:
        said = ours.recv(1 << 16)
    except BlockingIOError:
        pass
    ours.close()
    os.close(reading)
    text = os.pread(errors, 1 << 16, 0)
    os.close(errors)
    return os.waitstatus_to_exitcode(ended), said, text


def apart(bell: int, seeds: range) -> str:
    """All of them in namespaces that end with their first process; "" or what went wrong first."""
    reading, writing = os.pipe()
    outer = os.fork()
    if outer == 0:
        try:
            private_mount_namespace()
            unshare(NEWPID | NEWNET | NEWIPC | NEWUTS)
            inner = os.fork()
            if inner == 0:
                os.write(writing, try_all(bell, seeds).encode())
                os._exit(0)
            os.waitpid(inner, 0)
        except OSError as problem:
            os.write(writing, repr(problem).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        found = answer.read().decode()
    os.waitpid(outer, 0)
    return found


def try_all(bell: int, seeds: range) -> str:
    refused = 0
    try:
        for seed in seeds:
            code, said, text = one(bell, damaged(random.Random(seed)))
            if -code in DEADLY or b"Sanitizer" in text or b"runtime error" in text:
                return f"seed {seed}: {code} {text.decode(errors='replace')}"
            if code == 99:
                return f"seed {seed}: bell could not be executed"
            _, failure = parse(said)
            refused += bool(failure and failure.errno == EPROTO)
    except (OSError, ValueError) as problem:
        return f"{problem!r}"
    return f"done {refused}"


def test_damaged_plans_are_refused_and_lead_nowhere(bell: int) -> None:
    found = apart(bell, range(TRIES))
    assert found.startswith("done "), found
    assert int(found[5:]) > TRIES // 10, "most were not damaged at all"


def test_good_plans_are_read_to_where_nobody_may_go_on(bell: int) -> None:
    """The fence itself refuses none of them before bell has begun."""
    flat = flatten(PLANS["folder"])
    code, said, text = one(bell, flat)
    records, failure = parse(said)
    assert (code, text) == (125, b"")
    assert failure is not None
    assert failure.errno != EPROTO
    assert all(record[0] in (DONE, FAILED) for record in records)


@pytest.mark.parametrize("length", [*range(20), 40, 100])
def test_plans_that_are_cut_are_refused(bell: int, length: int) -> None:
    flat = flatten(PLANS["v2"])[:length]
    for sized in (flat, flat[:12] + pack("=I", len(flat)) + flat[16:]) if length >= 16 else (flat,):
        code, said, _ = one(bell, sized)
        _, failure = parse(said)
        assert code == 125
        assert failure is None or failure.errno in (EPROTO, 22)
