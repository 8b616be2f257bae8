"""What is accepted on the command line and cannot be done is said, and never ignored."""

from __future__ import annotations

import os

import pytest

from cloche.errors import Invalid, Unsupported
from cloche.oci.runtime import Resources
from cloche.runtime.oci.bundle import settle_resources
from cloche.runtime.oci.options import parse_global
from cloche.runtime.oci.program import _refuse


@pytest.mark.parametrize("words", [["--rootless", "true"], ["--systemd-cgroup"]])
def test_what_is_not_built_is_refused_by_name(words: list[str]) -> None:
    with pytest.raises(Unsupported, match="not built yet"):
        _refuse(parse_global([*words, "create"])[0], "create")


def test_a_value_that_means_nothing_is_an_error() -> None:
    with pytest.raises(Invalid, match="--rootless perhaps"):
        _refuse(parse_global(["--rootless=perhaps", "state"])[0], "state")


@pytest.mark.parametrize("command", ["create", "run"])
def test_whoever_is_not_root_is_told_so_before_anything_is_made(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unsupported, match="hint: run as root"):
        _refuse(parse_global([command])[0], command)
    _refuse(parse_global(["list"])[0], "list")


def test_limits_that_no_kernel_has_are_warned_of() -> None:
    said: list[str] = []
    assert settle_resources(Resources(kernel_memory=0, cpu_shares=0), said.append).cpu_shares is None
    assert not said
    settle_resources(Resources(kernel_memory=1 << 20), said.append)
    assert "kernel memory" in said[0]
