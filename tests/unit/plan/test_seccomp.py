"""The default profile as a value: what a capability opens, and that its data says each thing once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cloche.kernel.capabilities import DEFAULT, NAMES
from cloche.oci.seccomp import ENOSYS, EPERM, Rule, Seccomp, profile_key
from cloche.plan.seccomp import default_profile
from cloche.plan.seccomp_calls import ALWAYS, BY_ARCH, WITH, WITH_LINUX_4_8

KERNEL = (6, 1)


def allowed(profile: Seccomp) -> set[str]:
    """The calls that are allowed whatever their arguments are."""
    return {name for rule in profile.rules if rule.action == "ALLOW" and not rule.args for name in rule.names}


def test_each_call_stands_in_one_group() -> None:
    names = [name for group in ALWAYS.values() for name in group.split()]
    assert len(names) == len(set(names))
    assert not set(names) & {name for group in (*WITH.values(), *BY_ARCH.values()) for name in group.split()}
    assert set(WITH) <= set(NAMES)
    assert set(WITH_LINUX_4_8.split()) <= set(WITH["CAP_SYS_PTRACE"].split())


def test_what_is_not_allowed_is_eperm() -> None:
    profile = default_profile(DEFAULT, "x86_64", KERNEL)
    assert (profile.default_action, profile.default_errno) == ("ERRNO", EPERM)
    assert profile.architectures == ("X86_64", "X86", "X32")
    assert default_profile(DEFAULT, "aarch64", KERNEL).architectures == ("AARCH64", "ARM")


@pytest.mark.parametrize("capability", WITH)
def test_a_capability_opens_its_calls_and_no_others(capability: str) -> None:
    without, held = default_profile((), "x86_64", (4, 7)), default_profile((capability,), "x86_64", (4, 7))
    assert allowed(held) - allowed(without) == set(WITH[capability].split())
    assert not allowed(without) & set(WITH[capability].split())


@pytest.mark.parametrize("name", "keyctl add_key request_key pivot_root kexec_load io_uring_setup userfaultfd".split())
def test_no_capability_opens_these(name: str) -> None:
    assert name not in allowed(default_profile(NAMES, "x86_64", KERNEL))


def test_namespaces_are_for_administrators() -> None:
    plain, admin = default_profile(DEFAULT, "x86_64", KERNEL), default_profile(("CAP_SYS_ADMIN",), "x86_64", KERNEL)
    assert Rule(("clone3",), "ERRNO", ENOSYS) in plain.rules
    assert not {"clone", "clone3", "unshare", "setns", "mount"} & allowed(plain)
    assert {"clone", "clone3", "unshare", "setns", "mount"} <= allowed(admin)
    assert Rule(("clone3",), "ERRNO", ENOSYS) not in admin.rules


def test_the_flags_of_clone_are_where_the_machine_has_them() -> None:
    for machine, index in (("x86_64", 0), ("aarch64", 0), ("s390x", 1)):
        rules = [r for r in default_profile(DEFAULT, machine, KERNEL).rules if r.names == ("clone",)]
        assert [(a.index, a.value, a.op) for r in rules for a in r.args] == [(index, 0x7E020000, "MASKED_EQ")], machine


def test_tracing_is_allowed_since_a_tracer_cannot_change_what_was_checked() -> None:
    assert "ptrace" not in allowed(default_profile(DEFAULT, "x86_64", (4, 7)))
    assert "ptrace" in allowed(default_profile(DEFAULT, "x86_64", (4, 8)))


def test_architectures_have_calls_of_their_own() -> None:
    assert "arch_prctl" in allowed(default_profile((), "x86_64", KERNEL))
    assert "arch_prctl" not in allowed(default_profile((), "aarch64", KERNEL))
    assert "set_tls" in allowed(default_profile((), "aarch64", KERNEL))


def test_a_key_names_all_that_a_program_depends_on() -> None:
    plain, admin = default_profile((), "x86_64", KERNEL), default_profile(NAMES, "x86_64", KERNEL)
    keys = {
        profile_key(plain, "x86_64", KERNEL),
        profile_key(admin, "x86_64", KERNEL),
        profile_key(plain, "aarch64", KERNEL),
        profile_key(plain, "x86_64", (6, 2)),
        profile_key(plain, "x86_64", KERNEL, "libseccomp.so.2.5.4"),
        profile_key(plain, "x86_64", KERNEL, "libseccomp.so.2.6.0"),
    }
    assert len(keys) == 6
    assert profile_key(default_profile((), "x86_64", KERNEL), "x86_64", KERNEL) in keys


def test_no_native_code_is_loaded() -> None:
    code = "import sys, cloche.plan.seccomp, cloche.oci.seccomp; sys.exit('ctypes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
