"""What a user writes, and the types that each call has; only checked, never run."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any, assert_type

import cloche
from cloche import aio
from cloche.display import Table
from cloche.engine.events import Event
from cloche.engine.pruning import Pruned
from cloche.engine.usage import Usage
from cloche.images import Image
from cloche.networks import Network
from cloche.options import Options
from cloche.pytest_plugin import ContainerFactory
from cloche.volumes import Volume


def blocking() -> None:
    options: Options = {"memory": "64m", "env": {"A": "b"}, "publish": ["8080:80"]}
    assert_type(cloche.run("image", ["true"], remove=True).output, str)
    with cloche.run("image", "true", detach=True, **options) as box:
        assert_type(box, cloche.Container)
        assert_type(box.start(), cloche.Container)
        assert_type(box.wait(), int)
        assert_type(box.exit_code, int | None)
        assert_type(box.exec(["cat"], input=b"", user="me"), cloche.ExecResult)
        assert_type(box.logs(follow=True, since="10m", until=datetime.now()), Iterator[str])
        assert_type(box.stats(), Usage)
        assert_type(box.stats_stream(every=0.5), Iterator[Usage])
        assert_type(box.export(), Iterator[bytes])
        assert_type(box.inspect(), dict[str, Any])
        box.wait_until(port=80, log=re.compile("ready"), http=":80/x", healthy=True, timeout=3.5)
        box.stop(timeout=3)
        box.remove(force=True, volumes=True)
    assert_type(cloche.containers(all=True), Table[cloche.Container])
    with cloche.Client("/var/lib/other") as client:
        assert_type(client.images.pull("redis:alpine", platform="linux/arm64"), Image)
        assert_type(client.images.list(), Table[Image])
        assert_type(client.networks.create("back", internal=True), Network)
        assert_type(client.volumes.create("data", labels={"a": "b"}), Volume)
        assert_type(client.volumes.prune(all=True), Pruned)
        for event in client.events(filters={"event": ["die", "start"], "label": "a=b"}):
            assert_type(event, Event)
    try:
        cloche.get("box")
    except (cloche.NotFound, cloche.TimedOut) as error:
        assert_type(error.hint, str)


async def awaited() -> None:
    async with aio.Client() as client:
        async with await client.run("image", ["true"], detach=True, memory=1 << 26) as box:
            assert_type(box, aio.Container)
            assert_type(await client.containers(), Table[aio.Container])
            assert_type(await box.start(), aio.Container)
            assert_type(await box.wait(), int)
            assert_type(await box.status(), str)
            assert_type(await box.exit_code(), int | None)
            assert_type(await box.exec(["cat"], input=b""), cloche.ExecResult)
            assert_type(box.logs(follow=True), AsyncIterator[str])
            assert_type(await box.stats(), Usage)
            assert_type(await box.diff(), list[tuple[str, str]])
            assert_type(box.stats_stream(every=2.0), AsyncIterator[Usage])
            assert_type(box.export(), AsyncIterator[bytes])
            await box.wait_until(port="80/tcp", timeout=5)
        assert_type(await client.images.pull("redis:alpine"), aio.Image)
        assert_type(await client.images.list(), Table[aio.Image])
        assert_type(await client.networks.get("back"), aio.Network)
        assert_type(await client.volumes.prune(), Pruned)
        assert_type(client.events(since=0), AsyncIterator[Event])


def test_theirs(cloche_container: ContainerFactory) -> None:
    assert_type(cloche_container("redis", ["redis-server"], memory="64m"), cloche.Container)


async def wrong(box: cloche.Container, other: aio.Container, client: aio.Client) -> None:
    """Each of these is an error to both checkers: an ignore that nothing needs is one, too."""
    cloche.run("image", bogus=1)  # type: ignore[call-arg]
    cloche.run("image", memory=[1])  # type: ignore[arg-type]
    box.wait(1)  # type: ignore[call-arg]
    box.logs(follow="yes")  # type: ignore[arg-type]
    box.exec(1)  # type: ignore[arg-type]
    await client.run("image", bogus=1)  # type: ignore[call-arg]
    await other.exec(1)  # type: ignore[arg-type]
    await other.wait_until(port=b"80")  # type: ignore[arg-type]
    other.wait()  # type: ignore[unused-coroutine]
