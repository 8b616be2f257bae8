"""What a conformance test gets: the runtime under test, a bundle for it, and known differences of its peers.

The runtime is CONFORMANCE_RUNTIME (a path, or a name on PATH), else the project's own.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import leftovers
import probes
from conformance.configuration import BUSYBOX
from conformance.harness import CHOSEN, PR_SET_CHILD_SUBREAPER, Bundle, Runtime, binary, runtime_name

HERE = Path(__file__).resolve().parent


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "differs(runtime, reason, always): this runtime is known to fail the test, and why"
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A difference is expected of the runtime that it names, and strictly: one that is gone fails the test."""
    ours = [item for item in items if HERE in item.path.parents]
    name = runtime_name() if ours else ""
    for item in ours:
        for marker in item.iter_markers("differs"):
            runtime, reason = marker.args
            if runtime == name:
                strict = marker.kwargs.get("always", True)
                item.add_marker(pytest.mark.xfail(reason=f"{name}: {reason}", strict=strict))


@pytest.fixture
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    """The runtime under test with a --root of the test's own. Fails the test that leaves anything on the host.

    Orphans of the runtime become children of this process, as they do of a container's monitor.
    """
    program = binary()
    if not program:
        pytest.skip(f"needs the runtime {CHOSEN}")
    if lacking := probes.missing("root", f"file:{BUSYBOX}"):
        pytest.skip(f"needs {', '.join(lacking)}")
    folder = Path(tempfile.mkdtemp(prefix="cf-", dir="/tmp"))
    folder.chmod(0o755)  # the root of a user namespace must be able to reach what is in it
    probes.libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    runtime = Runtime(program, folder)
    try:
        yield runtime
    finally:
        try:
            left = runtime.end()
        finally:
            probes.libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        if not leftovers.mounts((str(folder),)):  # never remove through a mount
            shutil.rmtree(folder)
    if not request.node.get_closest_marker("xfail"):
        assert not left, "left behind: " + "; ".join(left)


@pytest.fixture
def bundle(runtime: Runtime) -> Bundle:
    """A bundle of busybox with the default configuration, and a container to be of it."""
    return Bundle(runtime, runtime.folder / "bundle")
