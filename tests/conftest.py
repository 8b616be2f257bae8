"""What every test gets: a mount namespace of the run's own, a time limit, skips by probing, a store that cleans up.

With `CLOCHE_LANE_REPORT` the outcome of each test is also written to that file as a line of JSON when the test ends;
tools/lanes.py puts the lanes' reports together.
"""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import signal
import tarfile
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

import leftovers
import probes
from archives import docker_files, files_tar, tar_of
from commands import ok

LIMIT = float(os.environ.get("CLOCHE_TEST_LIMIT", "0"))


def pytest_sessionstart(session: pytest.Session) -> None:
    """No mount of a test reaches the host, however the test ends: the whole run lives in a slave namespace. Whoever was
    started in the background of a shell, or by nohup(1), ignores the terminal's signals, and so would all that is
    tested."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if probes.available("root"):
        probes.private_mount_namespace()
        if os.environ.get("CLOCHE_APART"):
            probes.network_of_its_own()


# A time limit for each phase of a test, without a plugin. Failed is no Exception, so the code under test cannot swallow
# it by accident, and the alarm repeats. A C call that never returns is ended by faulthandler_timeout.


def _limited(item: pytest.Item) -> Generator[None, Any, Any]:
    marker = item.get_closest_marker("timeout")
    seconds = max(float(marker.args[0]) if marker else 60.0, LIMIT)

    def ring(*_: object) -> None:
        pytest.fail(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 5)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    names = [name for marker in item.iter_markers("requires") for name in marker.args]
    if lacking := probes.missing(*names):
        pytest.skip(f"needs {', '.join(lacking)}")
    slow = os.environ.get("CLOCHE_LANE") == "v2" and not os.environ.get("CLOCHE_ALL_LANES")
    if slow and item.get_closest_marker("one_lane"):
        pytest.skip("one lane is enough")
    return (yield from _limited(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    return (yield from _limited(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    return (yield from _limited(item))


class LaneReport:
    """Writes the run as lines of JSON: what the lane is, each test's outcome as it ends, the exit status."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.outcomes: dict[str, dict[str, Any]] = {}

    def write(self, **line: Any) -> None:
        self.stream.write(json.dumps(line) + "\n")
        self.stream.flush()

    def pytest_sessionstart(self) -> None:
        lane, root = os.environ.get("CLOCHE_LANE", "host"), probes.available("root")
        self.write(lane=lane, layout=probes.layout(), root=root, kernel=platform.release())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        entry = self.outcomes.setdefault(report.nodeid, {"outcome": "passed", "seconds": 0.0, "reason": ""})
        entry["seconds"] += report.duration
        if report.failed or (report.skipped and entry["outcome"] == "passed"):
            entry["outcome"] = "xfailed" if hasattr(report, "wasxfail") else report.outcome
            entry["reason"] = getattr(report, "wasxfail", "") or _reason(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        entry = self.outcomes.pop(nodeid, None)
        if entry:
            self.write(test=nodeid, **{**entry, "seconds": round(entry["seconds"], 3)})

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed or report.skipped:
            self.write(test=report.nodeid, outcome=report.outcome, seconds=0.0, reason=_reason(report))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self.write(end=int(exitstatus))
        self.stream.close()


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """A skip's reason, a failure's last line."""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    lines = str(report.longrepr).strip().splitlines()
    return lines[-1] if lines else ""


def pytest_configure(config: pytest.Config) -> None:
    if path := os.environ.pop("CLOCHE_LANE_REPORT", ""):  # not for a pytest that a test starts
        stream = open(path, "w", encoding="utf-8")  # noqa: SIM115 - the report closes it
        config.pluginmanager.register(LaneReport(stream), "lane-report")


@pytest.fixture
def kills() -> int:
    """How often a test of the crash promise kills a process: a few dozen in the suite, a thousand by `make torture`.

    Fewer in User Mode Linux, where everything takes ten times as long.
    """
    return int(os.environ.get("CLOCHE_KILLS", "6" if os.environ.get("CLOCHE_LANE") == "v2" else "30"))


@pytest.fixture
def private_mounts() -> Iterator[None]:
    """The test may mount what it likes: no mount reaches the host, and one that it leaves behind fails it."""
    if not probes.available("root"):
        pytest.skip("needs root")
    before = leftovers.mount_ids()
    yield
    left = [path for number, path in leftovers.mount_ids().items() if number not in before]
    for path in reversed(left):
        probes.libc.umount2(path.encode(), probes.MNT_DETACH)
    assert not left, f"left mounted: {', '.join(left)}"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A CLOCHE_ROOT of the test's own (short: sockets live in it). Fails the test that leaves anything on the host."""
    root = Path(tempfile.mkdtemp(prefix="cloche-", dir="/tmp"))
    monkeypatch.setenv("CLOCHE_ROOT", str(root))
    if not probes.available("nf_tables"):  # the default network cannot be had there
        monkeypatch.setenv("CLOCHE_NETWORK", "none")
    yield root
    try:
        leftovers.end_store(root)
    finally:
        left = leftovers.traces(root)
        leftovers.sweep(root)
        if not leftovers.mounts((str(root),)):  # never remove through a mount
            shutil.rmtree(root)
    assert not left, "left behind: " + "; ".join(left)


@pytest.fixture
def image(store: Path, tmp_path: Path) -> Callable[..., None]:
    """Makes the image `made`: the starter's files under a layer of these members, with this configuration."""

    def make(*members: tuple[tarfile.TarInfo, bytes], **config: object) -> None:
        ok("run", "--rm", "--network", "none", "starter", "true")
        base = io.BytesIO()
        with tarfile.open(fileobj=base, mode="w") as tar:
            tar.add(min((store / "layers").glob("*/diff")), ".")
        configured = {"Cmd": ["sh"], "Env": ["PATH=/usr/bin:/bin"], **config}
        archive = tmp_path / "made.tar"
        archive.write_bytes(
            files_tar(docker_files([base.getvalue(), tar_of(*members)], ["made:latest"], config=configured))
        )
        ok("load", "-q", "-i", str(archive))

    return make
