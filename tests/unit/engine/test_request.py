"""Requests: what is derived from them."""

from __future__ import annotations

import pytest

from cloche.engine.request import (
    FileMount,
    Limits,
    RunRequest,
    Security,
    bandwidth,
    bounding,
    capability,
    mount_options,
)
from cloche.kernel.capabilities import DEFAULT, NAMES
from cloche.value import plain


def test_defaults_are_dockers_and_safe() -> None:
    request = RunRequest("starter")
    assert request.network == "bridge" and request.sig_proxy and not request.security.privileged
    assert (
        request.security.seccomp == "" and request.process.entrypoint is None and request.process.stop_timeout is None
    )


def test_a_request_is_plain_data() -> None:
    request = RunRequest(
        "x", labels=(("a", "b"),), files=RunRequest("x").files.replace(mounts=(FileMount("tmpfs", "/x"),))
    )
    assert request == request.replace() and hash(request) == hash(request.replace())
    assert plain(request)["files"]["mounts"][0]["target"] == "/x"


@pytest.mark.parametrize(
    ("name", "spelt"),
    [("net_admin", "CAP_NET_ADMIN"), ("CAP_KILL", "CAP_KILL"), ("cap_kill", "CAP_KILL"), ("all", "ALL"), ("", "CAP_")],
)
def test_spelling_of_capabilities(name: str, spelt: str) -> None:
    assert capability(name) == spelt


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ((), (), set(DEFAULT)),
        (("net_admin",), (), {*DEFAULT, "CAP_NET_ADMIN"}),
        ((), ("NET_RAW",), set(DEFAULT) - {"CAP_NET_RAW"}),
        ((), ("ALL",), set()),
        (("KILL",), ("ALL",), {"CAP_KILL"}),
        (("KILL",), ("KILL",), {*DEFAULT}),
        (("ALL",), (), set(NAMES)),
        (("ALL",), ("KILL",), set(NAMES) - {"CAP_KILL"}),
        (("ALL", "KILL"), ("KILL",), set(NAMES) - {"CAP_KILL"}),
        (("ALL",), ("ALL",), set(NAMES)),
    ],
)
def test_what_a_container_may_do(add: tuple[str, ...], drop: tuple[str, ...], expected: set[str]) -> None:
    assert set(bounding(Security(cap_add=add, cap_drop=drop))) == expected


def test_privileged_has_all() -> None:
    assert bounding(Security(privileged=True, cap_drop=("ALL",))) == NAMES


@pytest.mark.parametrize(
    ("nano", "quota"), [(0, (None, None)), (500_000_000, (50_000, 100_000)), (10**7, (1000, 100_000))]
)
def test_cpus_as_quota_and_period(nano: int, quota: tuple[int | None, int | None]) -> None:
    assert bandwidth(Limits(nano_cpus=nano)) == quota


@pytest.mark.parametrize(
    ("mount", "options"),
    [
        (FileMount("bind", "/b", "/a"), "rbind rw rprivate"),
        (FileMount("bind", "/b", "/a", True), "rbind ro rro rprivate"),
        (FileMount("bind", "/b", "/a", True, "rslave", "readonly"), "rbind ro rro rslave"),
        (FileMount("bind", "/b", "/a", True, "", "writable"), "rbind ro rprivate"),
        (FileMount("bind", "/b", "/a", True, "", "disabled"), "bind ro rprivate"),
        (FileMount("tmpfs", "/x"), "noexec nosuid nodev"),
        (FileMount("tmpfs", "/x", read_only=True, size=5, mode=0o1777), "noexec nosuid nodev size=5 mode=1777 ro"),
        (FileMount("tmpfs", "/x", options=("exec", "size=1m")), "noexec nosuid nodev exec size=1m"),
    ],
)
def test_mounts_as_options(mount: FileMount, options: str) -> None:
    assert mount_options(mount) == tuple(options.split())
