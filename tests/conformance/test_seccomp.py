"""Seccomp filters: what becomes of a call for each action, comparison of arguments, architecture and flag."""

from __future__ import annotations

import platform
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conformance.filters import USUAL, argument, killed, outcomes, profile, rule
from conformance.harness import Bundle, differs
from probes import requires

pytestmark = requires("seccomp", "libseccomp")
DENIED = "Operation not permitted"
BY_SIGSYS = 128 + 31
ERRNO = "SCMP_ACT_ERRNO"


def test_without_a_filter_there_is_none(bundle: Bundle) -> None:
    assert "Seccomp:\t0" in bundle.says("cat /proc/self/status")


def test_a_filter_is_there(bundle: Bundle) -> None:
    profile(bundle, rule("kill", ERRNO))
    assert "Seccomp:\t2" in bundle.says("cat /proc/self/status")


def test_a_call_that_is_denied_fails(bundle: Bundle) -> None:
    """If not specified its default value is EPERM."""
    profile(bundle, rule("kill", ERRNO))
    assert outcomes(bundle, 10) == [DENIED]


def test_a_call_fails_with_the_error_of_its_rule(bundle: Bundle) -> None:
    profile(bundle, rule("kill", ERRNO, errnoRet=5))
    assert outcomes(bundle, 10) == ["Input/output error"]


def test_several_calls_are_denied_by_one_rule(bundle: Bundle) -> None:
    profile(bundle, rule("mkdir mkdirat kill", ERRNO))
    assert bundle.says(f"{killed(10)}; mkdir /made 2>/dev/null || echo no").split()[-1] == "no"


def test_several_rules_have_errors_of_their_own(bundle: Bundle) -> None:
    profile(bundle, rule("kill", ERRNO, errnoRet=5), rule("mkdir mkdirat", ERRNO, errnoRet=28))
    said = bundle.says(f"{killed(10)}; mkdir /made 2>&1 || true")
    assert "Input/output error" in said
    assert "No space left on device" in said


@pytest.mark.parametrize("action", ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"])
def test_a_call_ends_its_process(bundle: Bundle, action: str) -> None:
    profile(bundle, rule("kill", action))
    assert bundle.says("(kill -10 1) 2>/dev/null; echo $?") == str(BY_SIGSYS)


@pytest.mark.parametrize("action", ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"])
def test_a_call_is_allowed(bundle: Bundle, action: str) -> None:
    profile(bundle, rule("kill", action), rule("mkdir mkdirat", ERRNO))
    assert outcomes(bundle, 10) == ["sent"]


def test_a_call_for_a_tracer_fails_without_one(bundle: Bundle) -> None:
    profile(bundle, rule("kill", "SCMP_ACT_TRACE"))
    assert outcomes(bundle, 10) == ["Function not implemented"]


def test_a_call_without_a_rule_is_what_the_default_says(bundle: Bundle) -> None:
    profile(bundle, rule(USUAL, "SCMP_ACT_ALLOW"), default=ERRNO)
    assert outcomes(bundle, 10) == [DENIED]


def test_the_default_has_an_error_of_its_own(bundle: Bundle) -> None:
    profile(bundle, rule(USUAL, "SCMP_ACT_ALLOW"), default=ERRNO, defaultErrnoRet=5)
    assert outcomes(bundle, 10) == ["Input/output error"]


@pytest.mark.parametrize("default", ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP"])
def test_the_default_ends_a_process(bundle: Bundle, default: str) -> None:
    profile(bundle, rule(USUAL, "SCMP_ACT_ALLOW"), default=default)
    assert bundle.says("(kill -10 1) 2>/dev/null; echo $?") == str(BY_SIGSYS)


@pytest.mark.parametrize("default", ["SCMP_ACT_LOG", "SCMP_ACT_ALLOW"])
def test_the_default_allows(bundle: Bundle, default: str) -> None:
    profile(bundle, rule("mkdir mkdirat", ERRNO), default=default)
    assert outcomes(bundle, 10) == ["sent"]


@pytest.mark.parametrize(
    ("op", "denied"),
    [
        ("SCMP_CMP_NE", [9 + 1, 12]),
        ("SCMP_CMP_LT", [10]),
        ("SCMP_CMP_LE", [10, 11]),
        ("SCMP_CMP_EQ", [11]),
        ("SCMP_CMP_GE", [11, 12]),
        ("SCMP_CMP_GT", [12]),
    ],
)
def test_a_call_is_denied_by_an_argument(bundle: Bundle, op: str, denied: list[int]) -> None:
    profile(bundle, rule("kill", ERRNO, argument(1, op, 11)))
    assert outcomes(bundle, 10, 11, 12) == [DENIED if number in denied else "sent" for number in (10, 11, 12)]


def test_a_call_is_denied_by_bits_of_an_argument(bundle: Bundle) -> None:
    """`value` is the mask, `valueTwo` what it must leave."""
    profile(bundle, rule("kill", ERRNO, argument(1, "SCMP_CMP_MASKED_EQ", 0b110, 0b100)))
    assert outcomes(bundle, 4, 5, 10, 12) == [DENIED, DENIED, "sent", DENIED]


def test_all_arguments_of_a_rule_must_match(bundle: Bundle) -> None:
    profile(bundle, rule("kill", ERRNO, argument(0, "SCMP_CMP_EQ", 1), argument(1, "SCMP_CMP_EQ", 10)))
    said = bundle.says(f"{killed(10, 11)}; sleep 1000 & kill -10 $! && echo other").splitlines()
    assert [line.rpartition(": ")[2] for line in said] == [DENIED, "sent", "other"]


def test_one_of_several_rules_must_match(bundle: Bundle) -> None:
    profile(bundle, *(rule("kill", ERRNO, argument(1, "SCMP_CMP_EQ", number)) for number in (10, 12)))
    assert outcomes(bundle, 10, 11, 12) == [DENIED, "sent", DENIED]


def test_an_argument_has_64_bits(bundle: Bundle) -> None:
    four_gib = 1 << 32
    profile(bundle, rule("ftruncate", ERRNO, argument(1, "SCMP_CMP_EQ", four_gib + 5)))
    script = "for size in 5 4294967296 4294967301; do truncate -s $size /tmp/file 2>/dev/null || echo no $size; done"
    assert bundle.says(script) == f"no {four_gib + 5}"


def test_a_large_number_is_compared_as_a_whole(bundle: Bundle) -> None:
    profile(bundle, rule("ftruncate", ERRNO, argument(1, "SCMP_CMP_GT", 1 << 32)))
    script = (
        "for size in 4294967295 4294967296 4294967297; do truncate -s $size /tmp/file 2>/dev/null || echo $size; done"
    )
    assert bundle.says(script) == "4294967297"


def test_a_name_that_there_is_not_is_left_out(bundle: Bundle) -> None:
    """A profile is written for many kernels and machines; what this one does not have, nobody can call."""
    profile(bundle, rule("weather kill", ERRNO))
    assert outcomes(bundle, 10) == [DENIED]


def test_an_executed_process_has_the_filter_too(bundle: Bundle) -> None:
    profile(bundle, rule("mkdir mkdirat", ERRNO))
    with bundle.running():
        assert "Seccomp:\t2" in bundle.sh("cat /proc/self/status")
        assert bundle.sh("mkdir /made 2>/dev/null || echo no") == "no"


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_users_process_has_the_filter(bundle: Bundle, no_new_privileges: bool) -> None:
    profile(bundle, rule("kill", ERRNO))
    bundle.process["noNewPrivileges"] = no_new_privileges
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    assert outcomes(bundle, 10) == [DENIED]
    assert f"NoNewPrivs:\t{int(no_new_privileges)}" in bundle.says("cat /proc/self/status")


@pytest.mark.parametrize("flag", ["TSYNC", "LOG", "SPEC_ALLOW"])
def test_a_filter_has_a_flag(bundle: Bundle, flag: str) -> None:
    profile(bundle, rule("kill", ERRNO), flags=[f"SECCOMP_FILTER_FLAG_{flag}"])
    assert outcomes(bundle, 10) == [DENIED]


def test_a_filter_has_several_flags(bundle: Bundle) -> None:
    profile(bundle, rule("kill", ERRNO), flags=["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"])
    assert outcomes(bundle, 10) == [DENIED]


WRONG: dict[str, dict[str, Any]] = {
    "default": {"defaultAction": "SCMP_ACT_WEATHER"},
    "no default": {"syscalls": [rule("kill", ERRNO)]},
    "action": {"syscalls": [rule("kill", "SCMP_ACT_WEATHER")]},
    "operator": {"syscalls": [rule("kill", ERRNO, argument(1, "SCMP_CMP_WEATHER", 1))]},
    "index": {"syscalls": [rule("kill", ERRNO, argument(6, "SCMP_CMP_EQ", 1))]},
    "architecture": {"architectures": ["SCMP_ARCH_WEATHER"]},
    "flag": {"flags": ["SECCOMP_FILTER_FLAG_WEATHER"], "syscalls": [rule("kill", ERRNO)]},
    "no names": {"syscalls": [{"names": [], "action": ERRNO}]},
    "error of an action without one": {"syscalls": [rule("kill", "SCMP_ACT_KILL", errnoRet=5)]},
    "error of what is allowed": {"syscalls": [rule("kill", "SCMP_ACT_LOG", errnoRet=5)]},
    "error of a default without one": {"defaultErrnoRet": 5, "syscalls": [rule("kill", ERRNO)]},
}


NO_ERROR = differs(
    "runc", "takes it; 'When the action doesn't support an errno, the runtime MUST print and error and fail'"
)
NAMELESS = "takes it; 'names MUST contain at least one entry'"
KNOWN = {
    "flag": [differs("crun", "takes it; 'A valid list of constants is shown below', and this is not one of them")],
    "no names": [differs("runc", NAMELESS), differs("crun", NAMELESS)],
    **{name: [NO_ERROR] for name in WRONG if name.startswith("error of")},
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=KNOWN.get(name, [])) for name in WRONG])
def test_a_filter_that_means_nothing_is_an_error(bundle: Bundle, name: str) -> None:
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", **WRONG[name]}
    if name == "no default":
        del bundle.linux["seccomp"]["defaultAction"]
    bundle.refused()


# Architectures: a program that makes a call of 32-bit x86 (int 0x80), sched_yield(2), and exits with its result.

CODE = bytes.fromhex("b89e000000 cd80 89c7 b83c000000 0f05".replace(" ", ""))


def program(path: Path) -> None:
    base, offset = 0x400000, 64 + 56
    header = (
        b"\x7fELF\2\1\1"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + offset, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, offset + len(CODE), offset + len(CODE), 0x1000)
    path.write_bytes(header + segment + CODE)
    path.chmod(0o755)


@pytest.fixture
def foreign(bundle: Bundle) -> str:
    """Such a program in the root file system."""
    path = bundle.rootfs / "bin/foreign"
    program(path)
    if platform.machine() != "x86_64" or subprocess.run([str(path)]).returncode:
        pytest.skip("needs a machine that makes calls of 32-bit x86")
    return "/bin/foreign; echo $?"


def test_a_call_of_an_architecture_that_is_not_listed_ends_its_process(bundle: Bundle, foreign: str) -> None:
    profile(bundle, rule("kill", ERRNO), architectures=["SCMP_ARCH_X86_64"])
    assert bundle.says(f"({foreign}) 2>/dev/null") == str(BY_SIGSYS)


def test_a_call_of_an_architecture_that_is_listed_is_allowed(bundle: Bundle, foreign: str) -> None:
    profile(bundle, rule("kill", ERRNO), architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])
    assert bundle.says(foreign) == "0"


def test_a_rule_is_for_all_architectures_that_are_listed(bundle: Bundle, foreign: str) -> None:
    profile(bundle, rule("sched_yield", "SCMP_ACT_KILL"), architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"])
    assert bundle.says(f"({foreign}) 2>/dev/null") == str(BY_SIGSYS)


def test_the_machines_own_calls_are_filtered_without_a_list(bundle: Bundle) -> None:
    profile(bundle, rule("kill", ERRNO), architectures=[])
    assert outcomes(bundle, 10) == [DENIED]
