"""Memory policy (`linux.memoryPolicy`), as numa_maps of a container's processes shows it."""

from __future__ import annotations

import pytest

from conformance.harness import Bundle, differs
from probes import requires

OLD = differs("runc", "is of specification 1.2, and ignores it; 1.3 has 'memoryPolicy sets the NUMA memory policy'")
pytestmark = [requires("file:/proc/self/numa_maps"), OLD]
POLICY = "head -n 1 /proc/self/numa_maps | sed 's/^[0-9a-f]* //; s/ file=.*//; s/ anon=.*//'"


def policy(bundle: Bundle, mode: str, nodes: str | None = None, *flags: str) -> str:
    set_policy(bundle, mode, nodes, *flags)
    return bundle.says(POLICY)


def set_policy(bundle: Bundle, mode: str, nodes: str | None = None, *flags: str) -> None:
    wanted = {"mode": mode, "nodes": nodes, "flags": list(flags)}
    bundle.linux["memoryPolicy"] = {name: value for name, value in wanted.items() if value}


@pytest.mark.parametrize(
    ("mode", "nodes", "said"),
    [
        ("MPOL_BIND", "0", "bind:0"),
        ("MPOL_INTERLEAVE", "0", "interleave:0"),
        ("MPOL_PREFERRED", "0", "prefer:0"),
        ("MPOL_PREFERRED_MANY", "0", "prefer (many):0"),
        ("MPOL_LOCAL", None, "local"),
    ],
)
def test_a_policy_is_set(bundle: Bundle, mode: str, nodes: str | None, said: str) -> None:
    assert policy(bundle, mode, nodes) == said


@pytest.mark.parametrize(("flag", "said"), [("STATIC", "bind=static:0"), ("RELATIVE", "bind=relative:0")])
def test_a_policy_has_flags(bundle: Bundle, flag: str, said: str) -> None:
    assert policy(bundle, "MPOL_BIND", "0", f"MPOL_F_{flag}_NODES") == said


def test_nodes_are_a_list_of_ranges(bundle: Bundle) -> None:
    assert policy(bundle, "MPOL_BIND", "0-0,0") == "bind:0"


@differs("crun", "leaves them out; 'memoryPolicy sets the NUMA memory policy for the container'")
def test_a_policy_is_that_of_executed_processes_too(bundle: Bundle) -> None:
    set_policy(bundle, "MPOL_BIND", "0")
    with bundle.running():
        assert bundle.sh(POLICY) == "bind:0"


@pytest.mark.parametrize(
    ("mode", "nodes", "flag"),
    [
        ("MPOL_WEATHER", "0", ""),
        ("MPOL_BIND", None, ""),
        ("MPOL_BIND", "", ""),
        ("MPOL_BIND", "many", ""),
        ("MPOL_BIND", "1-0", ""),
        ("MPOL_BIND", "1000", ""),
        ("MPOL_DEFAULT", "0", ""),
        ("MPOL_LOCAL", "0", ""),
        ("MPOL_BIND", "0", "MPOL_F_WEATHER"),
    ],
)
def test_a_policy_that_cannot_be_set_is_an_error(bundle: Bundle, mode: str, nodes: str | None, flag: str) -> None:
    set_policy(bundle, mode, nodes, *filter(None, [flag]))
    bundle.refused()
