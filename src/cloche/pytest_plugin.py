"""Containers for tests, as pytest fixtures: they are gone when the tests are, however these end.

    def test_it(cloche_container):
        redis = cloche_container("redis:alpine")
        redis.wait_until(log="Ready to accept connections")

`cloche_container` makes containers that live as long as a test; those of `cloche_container_module` and
`cloche_container_session` live longer. What they wrote is in the report of a test that fails. A run that is killed
leaves its containers to the next one, which removes them: they bear the label of who made them. pytest imports this
module by its entry point; cloche itself does not.
"""

from __future__ import annotations

import os
from typing import Protocol

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from typing import Unpack

    from cloche.options import Options
    from cloche.sdk import Client, Container

LABEL = "org.cloche.pytest"  # whose it is: the run and the fixture in it
_SHOWN = 100  # lines of each container in a report
_KEPT = pytest.StashKey[list["_Factory"]]()


class ContainerFactory(Protocol):
    """`cloche_container`: makes a container, which runs when it returns, with the arguments of `Client.run`."""

    def __call__(
        self, image: str, command: str | Sequence[str] = (), *, start: bool = True, **options: Unpack[Options]
    ) -> Container: ...


class _Factory:
    """Makes containers, and removes them: all with its label, also such whose maker was interrupted."""

    def __init__(self, client: Client, number: int) -> None:
        self._client = client
        self._label = f"{_run()}:{number}"
        self.made: list[Container] = []

    def __call__(
        self, image: str, command: str | Sequence[str] = (), *, start: bool = True, **options: Unpack[Options]
    ) -> Container:
        options["labels"] = {**options.get("labels", {}), LABEL: self._label}
        box = self._client.create(image, command, **options)
        self.made.append(box)
        return box.start() if start else box

    def end(self) -> None:
        """Remove them, the last one first."""
        from cloche.errors import NotFound

        for box in self._client.containers(all=True):
            if dict(box._record.config.labels).get(LABEL) == self._label:
                try:
                    box.remove(force=True, volumes=True)
                except NotFound:
                    continue  # it removed itself


def _run() -> str:
    """What this process is called by no other: its pid namespace, its pid there, and when it started."""
    from cloche.kernel.processes import start_time

    return f"{os.stat('/proc/self/ns/pid').st_ino}:{os.getpid()}:{start_time(os.getpid())}"


def _sweep(client: Client) -> None:
    """Remove what runs have left that were killed; of those in another pid namespace nothing is known."""
    from cloche.errors import NotFound
    from cloche.kernel.processes import start_time

    for box in client.containers(all=True):
        words = dict(box._record.config.labels).get(LABEL, "").split(":")
        if len(words) == 4 and words[0] == _run().partition(":")[0] and str(start_time(int(words[1]))) != words[2]:
            try:
                box.remove(force=True, volumes=True)
            except NotFound:
                continue  # another run was faster


@pytest.fixture(scope="session")
def cloche_client() -> Iterator[Client]:
    """A `cloche.Client` of the store that CLOCHE_ROOT names, else of the machine's."""
    from cloche.sdk import Client

    with Client() as client:
        _sweep(client)
        yield client


def _factories(request: pytest.FixtureRequest, client: Client) -> Iterator[ContainerFactory]:
    every = request.config.stash.setdefault(_KEPT, [])
    factory = _Factory(client, len(every))
    every.append(factory)
    try:
        yield factory
    finally:
        factory.end()
        factory.made.clear()


@pytest.fixture
def cloche_container(request: pytest.FixtureRequest, cloche_client: Client) -> Iterator[ContainerFactory]:
    """Makes containers for one test: call it with what `cloche.run` takes, `start=False` for one that does not run."""
    yield from _factories(request, cloche_client)


@pytest.fixture(scope="module")
def cloche_container_module(request: pytest.FixtureRequest, cloche_client: Client) -> Iterator[ContainerFactory]:
    """Makes containers that live as long as the tests of a module."""
    yield from _factories(request, cloche_client)


@pytest.fixture(scope="session")
def cloche_container_session(request: pytest.FixtureRequest, cloche_client: Client) -> Iterator[ContainerFactory]:
    """Makes containers that live as long as the run of tests."""
    yield from _factories(request, cloche_client)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The logs of all containers of the fixtures, in the report of a test that failed."""
    report = yield
    if report.failed:
        for factory in item.config.stash.get(_KEPT, []):
            report.sections += [(f"cloche logs {box.name} ({box.status})", _log(box)) for box in factory.made]
    return report


def _log(box: Container) -> str:
    from cloche.errors import Error, printable

    try:
        return "\n".join(printable(line) for line in box.logs(tail=_SHOWN))
    except Error as error:
        return str(error)
