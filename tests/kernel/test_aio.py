"""The SDK for asyncio: the same calls, one worker, and a cancellation leaves nothing."""

from __future__ import annotations

import asyncio
import inspect
import io
import os
import select
import threading
from collections.abc import Awaitable, Callable

import pytest

import cloche
import leftovers
from cloche import aio, images, networks, sdk, volumes
from cloche.engine import protocol
from cloche.engine.client import Keeper, connect
from cloche.engine.waiting import Endings

pytestmark = [pytest.mark.one_lane, pytest.mark.requires("root", "overlay"), pytest.mark.usefixtures("store")]


def run(test: Callable[[aio.Client], Awaitable[None]]) -> None:
    """With a client of its own, after which nothing is left: no descriptor, no thread."""

    async def main() -> None:
        async with aio.Client() as client:
            await test(client)

    before, threads = leftovers.census(), threading.enumerate()
    asyncio.run(main())
    assert not leftovers.grown(before, leftovers.census())
    assert set(threading.enumerate()) <= set(threads)


def test_the_same_calls() -> None:
    async def test(client: aio.Client) -> None:
        done = await client.run("starter", ["sh", "-c", "echo out; echo err >&2; exit 3"], network="none", remove=True)
        assert (await done.output(), await done.stderr(), await done.exit_code()) == ("out\n", b"err\n", 3)
        assert await done.status() == "removed"
        counted = await client.run("starter", ["wc", "-c"], input=b"x" * 500_000, network="none", remove=True)
        assert (await counted.output()).strip() == "500000"
        async with await client.run(
            "starter", ["sh", "-c", "echo begin; sleep 1000"], network="none", detach=True, name="box"
        ) as box:
            await box.wait_until(log="begin")
            ran = await box.exec(["sh", "-c", "cat; exit 4"], input=b"typed")
            assert (ran.exit_code, ran.output) == (4, "typed")
            assert [line async for line in box.logs()] == ["begin"]
            assert (await client.get("box")).id == box.id
            assert b"etc/hostname" in b"".join([piece async for piece in box.export()])
            assert await box.diff() is not None
            await box.rename("other")
            assert [each.name for each in await client.containers()] == [box.name] == ["other"]
            with pytest.raises(cloche.CommandNotFound):
                await box.exec("nosuch")
            await box.stop(timeout=0)
            assert await box.wait() == 137
        assert await box.status() == "removed"

    run(test)


def test_the_same_names() -> None:
    pairs = [
        (sdk.Client, aio.Client),
        (sdk.Container, aio.Container),
        (images.Image, aio.Image),
        (images.Images, aio.Images),
        (networks.Network, aio.Network),
        (networks.Networks, aio.Networks),
        (volumes.Volume, aio.Volume),
        (volumes.Volumes, aio.Volumes),
    ]
    for blocking, awaited in pairs:
        wanted = {name for name in dir(blocking) if name[0] != "_"} - {"client", "engine", "written"}
        there = {*dir(awaited), *(name for name in inspect.getsource(awaited).split() if name.startswith("self."))}
        assert not {n for n in wanted if n not in there and f"self.{n}" not in inspect.getsource(awaited)}, awaited


def test_images_networks_volumes() -> None:
    async def test(client: aio.Client) -> None:
        image = await client.images.get("starter")
        await image.tag("mine:1")
        assert "mine:1" in image.tags
        assert {each.id for each in await client.images.list()} == {image.id}
        box = await client.run("starter", ["touch", "/new"], network="none")
        made = await box.commit("mine:2", changes=['CMD ["ls", "/new"]'])
        assert await (await client.run(made.id, network="none", remove=True)).output() == "/new\n"
        archive = io.BytesIO(b"".join([piece async for piece in client.images.save("mine:2")]))
        assert [each.id for each in await client.images.load(archive)] == [made.id]
        await box.remove()
        assert (await client.images.remove("mine:2")).untagged == ("mine:2",)
        assert (await client.images.remove("mine:1")).untagged == ("mine:1",)
        volume = await client.volumes.create("kept")
        assert [each.name for each in await client.volumes.list()] == ["kept"]
        assert (await client.volumes.prune(all=True)).removed == ("kept",)
        with pytest.raises(cloche.NotFound):
            await volume.inspect()
        with pytest.raises(cloche.Error):
            await client.pull("127.0.0.1:9/nobody/there")

    run(test)


def test_a_thousand_waits_are_one_connection_and_no_thread() -> None:
    async def test(client: aio.Client) -> None:
        boxes = [await client.run("starter", ["sleep", "1000"], network="none", detach=True) for _ in range(8)]
        waits = [asyncio.ensure_future(boxes[n % 8].wait()) for n in range(1000)]
        before, threads = len(os.listdir("/proc/self/fd")), threading.enumerate()
        while client._endings._asked < {box.id for box in boxes}:
            await asyncio.sleep(0.01)
        assert len(os.listdir("/proc/self/fd")) <= before + 2
        assert set(threading.enumerate()) <= set(threads)
        await asyncio.gather(*(box.kill() for box in boxes))
        assert await asyncio.gather(*waits) == [137] * 1000
        await asyncio.gather(*(box.remove() for box in boxes))

    run(test)


def test_a_cancelled_wait_leaves_nothing() -> None:
    async def test(client: aio.Client) -> None:
        async with await client.run("starter", ["sleep", "1000"], network="none", detach=True) as box:
            await box.status()
            before = leftovers.census()
            waits = [asyncio.wait_for(box.wait(), 0.2) for _ in range(100)]
            lasting = [asyncio.wait_for(_all(box.logs(follow=True)), 0.2), asyncio.wait_for(_all(client.events()), 0.2)]
            for result in await asyncio.gather(*waits, *lasting, return_exceptions=True):
                assert isinstance(result, TimeoutError)
            await box.status()  # behind all that the worker still had
            assert not leftovers.grown(before, leftovers.census())

    run(test)


async def _all(source: object) -> list[object]:
    return [each async for each in source]  # type: ignore[attr-defined]


def test_a_cancelled_exec_is_killed() -> None:
    async def test(client: aio.Client) -> None:
        async with await client.run("starter", ["sleep", "1000"], network="none", detach=True) as box:
            task = asyncio.ensure_future(box.exec(["sh", "-c", "echo begun > /begun; sleep 999"]))
            while (await box.exec(["test", "-e", "/begun"])).exit_code:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async for event in client.events(since=0, filters={"container": box.id, "event": "exec_die"}):
                assert event.action == "exec_die"
                break

    run(test)


@pytest.mark.parametrize("detach", [True, False])
def test_a_run_that_is_cancelled_at_any_moment_leaves_no_container(detach: bool) -> None:
    async def test(client: aio.Client) -> None:
        await client.images.get("starter")
        for step in range(12):
            task = asyncio.ensure_future(
                client.run("starter", ["sleep", "1000"], network="none", detach=detach, remove=not detach)
            )
            await asyncio.sleep(step * 0.002)
            task.cancel()
            try:
                await (await task).remove(force=True)
            except asyncio.CancelledError:
                pass
            assert await client.containers(all=True) == []

    run(test)


def test_a_keeper_that_is_killed_loses_no_wait() -> None:
    async def test(client: aio.Client) -> None:
        boxes = [await client.run("starter", ["sleep", "1000"], network="none", detach=True) for _ in range(3)]
        waits = [asyncio.ensure_future(box.wait()) for box in boxes]
        while client._endings._asked < {box.id for box in boxes}:
            await asyncio.sleep(0.01)
        for box in boxes:
            keeper = Keeper(client._sync.engine.store)
            os.kill(keeper.ask({"op": "info"})[0]["keeper"], 9)
            keeper.close()
            await box.kill()
        assert await asyncio.gather(*waits) == [137] * 3
        await asyncio.gather(*(box.remove() for box in boxes))

    run(test)


def test_who_is_late_with_reading_gets_an_end_and_can_ask_again() -> None:
    with cloche.Client() as client:
        with client.run("starter", ["true"], network="none", detach=True) as box:
            box.wait()
            sock = connect(client.engine.store)
            assert sock
            sock.settimeout(10)
            asked = answers = 0
            try:
                while asked < 5000:  # each is answered at once, and a socket holds a few hundred
                    protocol.send(sock, {"op": "wait", "id": box.id})
                    asked += 1
            except BrokenPipeError:
                pass
            while protocol.receive(sock)[0]:
                answers += 1
            sock.close()
            assert 50 < answers < asked < 5000, "what was under way, then the end"


def test_a_thousand_ends_that_are_all_there_at_once_are_heard() -> None:
    """More answers than a socket holds: they are read between the questions."""
    with cloche.Client() as client:
        with client.run("starter", ["true"], network="none", detach=True) as box:
            box.wait()
            client.engine.db.executemany(
                "INSERT INTO exits (id, code, time) VALUES (?, ?, 0)", [(f"{n:064x}", n) for n in range(1000)]
            )
            endings, found = Endings(client.engine.store), {}
            endings._asked = {f"{n:064x}" for n in range(1000)}
            endings._unsent = set(endings._asked)
            while len(found) < 1000:
                found |= endings.exchange()
                if len(found) < 1000:
                    assert select.select([endings], [], [], 10)[0]
            assert found == {f"{n:064x}": (n, "") for n in range(1000)}
            endings.close()
