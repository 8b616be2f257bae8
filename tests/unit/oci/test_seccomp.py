"""Reading profiles: the spec's form, Docker's form, and what is wrong with both."""

from __future__ import annotations

from typing import Any

import pytest

from cloche.errors import Invalid
from cloche.oci.seccomp import Arg, Rule, Seccomp, parse, profile_key, resolve_profile

KERNEL = (6, 1)


def test_the_specs_form() -> None:
    document = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
            {
                "names": ["clone"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 1,
                "args": [{"index": 0, "value": 7, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}],
            },
        ],
    }
    assert parse(document) == Seccomp(
        "ERRNO",
        38,
        ("X86_64",),
        ("LOG",),
        (Rule(("read", "write"), "ALLOW"), Rule(("clone",), "ERRNO", 1, (Arg(0, 7, 1, "MASKED_EQ"),))),
    )


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ([], "linux.seccomp"),
        ({}, "linux.seccomp.defaultAction"),
        ({"defaultAction": "SCMP_ACT_NONSENSE"}, "linux.seccomp.defaultAction"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}}, "linux.seccomp.syscalls"),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_ALLOW"}]},
            "syscalls[0].names",
        ),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [3], "action": "SCMP_ACT_ALLOW"}]},
            "syscalls[0].names[0]",
        ),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [
                    {
                        "names": ["a"],
                        "action": "SCMP_ACT_ALLOW",
                        "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}],
                    }
                ],
            },
            "syscalls[0].args[0].index",
        ),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 0x7FFA0000}, "linux.seccomp.defaultErrnoRet"),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read\0x"], "action": "SCMP_ACT_ERRNO"}]},
            "syscalls[0].names[0]",
        ),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["\ud800"], "action": "SCMP_ACT_ERRNO"}]},
            "syscalls[0].names[0]",
        ),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "a", "names": ["b"], "action": "SCMP_ACT_LOG"}]},
            "syscalls[0].name:",
        ),
        ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [7]}, "linux.seccomp.architectures[0]"),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_PDP11"]},
            "architectures[1]",
        ),
        ({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NEW"]}, "linux.seccomp.flags[0]"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": 7}, "linux.seccomp.listenerPath"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/a\0b"}, "linux.seccomp.listenerPath"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/\ud800"}, "linux.seccomp.listenerPath"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "for nobody"}, "linux.seccomp.listenerMetadata"),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "listenerPath": "/run/l",
                "listenerMetadata": {},
            },
            "linux.seccomp.listenerMetadata",
        ),
    ],
)
def test_what_is_wrong_is_named(document: Any, path: str) -> None:
    with pytest.raises(Invalid, match=path.replace("[", r"\[").replace("]", r"\]")):
        parse(document)


def test_who_is_asked_about_calls() -> None:
    document = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": "/run/häuptling.sock",
        "listenerMetadata": "line one\nline two",
        "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}],
    }
    profile = parse(document)
    assert (profile.listener_path, profile.listener_metadata) == ("/run/häuptling.sock", "line one\nline two")
    assert profile.rules == (Rule(("mount",), "NOTIFY"),)
    assert parse({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": None}).listener_path == ""


def test_dockers_conditions_are_resolved() -> None:
    document = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["always"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["admin"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["nobody"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"name": "arm", "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
            {"names": ["later"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.2"}},
            {"names": ["now"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        ],
    }
    plain = resolve_profile(document, (), "x86_64", KERNEL)
    assert [r.names[0] for r in plain.rules] == ["always", "nobody", "now"]
    assert plain.architectures == ("X86_64", "X86")
    admin = resolve_profile(document, ("CAP_SYS_ADMIN",), "aarch64", KERNEL)
    assert [r.names[0] for r in admin.rules] == ["always", "admin", "arm", "now"]
    assert profile_key(plain, "x86_64", KERNEL) != profile_key(admin, "x86_64", KERNEL)


@pytest.mark.parametrize(
    ("condition", "path"),
    [
        ({"includes": {"minKernel": "9" * 5000 + ".1"}}, "includes.minKernel"),
        ({"includes": {"minKernel": "six"}}, "includes.minKernel"),
        ({"includes": {"caps": [[]]}}, "includes.caps[0]"),
        ({"excludes": {"arches": {}}}, "excludes.arches"),
    ],
)
def test_hostile_conditions_are_named(condition: dict[str, Any], path: str) -> None:
    rule = {"names": ["read"], "action": "SCMP_ACT_ALLOW", **condition}
    document = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]}
    with pytest.raises(Invalid, match=path.replace("[", r"\[").replace("]", r"\]")):
        resolve_profile(document, frozenset(), "x86_64", KERNEL)


def test_null_is_not_given_and_architectures_are_named_once() -> None:
    document: dict[str, Any] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": None,
        "architectures": None,
        "syscalls": [
            {
                "names": ["read"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": None,
                "args": [{"index": 0, "value": 1, "valueTwo": None, "op": "SCMP_CMP_EQ"}],
            }
        ],
    }
    assert parse(document) == Seccomp("ERRNO", 1, rules=(Rule(("read",), "ERRNO", None, (Arg(0, 1),)),))
    document["architectures"] = ["SCMP_ARCH_X86_64"]
    document["archMap"] = [{"architecture": "SCMP_ARCH_X86_64"}]
    with pytest.raises(Invalid, match="archMap"):
        resolve_profile(document, (), "x86_64", KERNEL)
