"""The SDK for asyncio: the same calls, awaited.

    async with aio.Client() as client:
        box = await client.run("starter", ["sleep", "60"], detach=True)
        async for line in box.logs(follow=True):
            print(line)

There is one implementation, cloche.sdk; each method here is named after one of its methods and has that one's arguments
and result (what is a property there is a method here, for it asks). Short calls and the steps of long ones are done by
the one worker thread of a client, which has the engine to itself; what a call may be long at (a registry, an archive,
many files) has a thread and an engine of its own; a thousand waits are one connection to the keeper. A call that is
cancelled takes back what it has made. A `Client` belongs to one loop.
"""

from __future__ import annotations

import asyncio

from cloche import images, networks, sdk, volumes
from cloche.awaited import Face, aside, asked, awaited, iterated, piecewise
from cloche.awaiting import Driver, Ends, Worker, done
from cloche.blocking import course_of
from cloche.display import Table, card, container_facts
from cloche.engine.waiting import Endings
from cloche.errors import Error, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import BinaryIO, ParamSpec, Self, TypeVar, Unpack

    from cloche.engine.events import Event
    from cloche.image.pull import Progress, Stop
    from cloche.options import Filters, Moment, Options

    P = ParamSpec("P")
    T = TypeVar("T")


class Container(Face):
    """A container: by its id, whatever its state. As a context manager it is killed and removed at the end."""

    def __init__(self, client: Client, inner: sdk.Container) -> None:
        self._client, self._inner, self.id = client, inner, inner.id

    def _of(self, client: sdk.Client) -> sdk.Container:
        return client.get(self.id)

    @property
    def name(self) -> str:
        """Its name."""
        return str(self._inner.name)

    def _row_(self) -> dict[str, str]:
        return container_facts(self._inner._record, self._inner._record.state)  # as it was when it was looked at

    def _repr_html_(self) -> str:
        facts = self._row_()
        return card(facts.pop("name"), facts)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.remove(force=True)
        except NotFound:
            return  # it removed itself

    status = asked(sdk.Container.status, str)  # type: ignore[arg-type]
    health = asked(sdk.Container.health, str)  # type: ignore[arg-type]
    pid = asked(sdk.Container.pid, int)  # type: ignore[arg-type]
    stdout = asked(sdk.Container.stdout, bytes)  # type: ignore[arg-type]
    stderr = asked(sdk.Container.stderr, bytes)  # type: ignore[arg-type]
    output = asked(sdk.Container.output, str)  # type: ignore[arg-type]

    async def exit_code(self) -> int | None:
        """The exit code once it has ended: the program's own, 128 + n for signal n."""
        return await self._client._call(lambda: self._inner.exit_code)

    async def start(self) -> Self:
        """Start it. Raises the error of the step that was refused."""
        await self._client._call(self._inner.start)
        return self

    wait = awaited(sdk.Container.wait)
    stop = awaited(sdk.Container.stop)
    kill = awaited(sdk.Container.kill)
    restart = awaited(sdk.Container.restart)
    remove = awaited(sdk.Container.remove)
    inspect = awaited(sdk.Container.inspect)
    plan = awaited(sdk.Container.plan)
    chunks = awaited(sdk.Container.chunks)
    logs = iterated(sdk.Container.logs)
    exec = awaited(sdk.Container.exec)
    wait_until = awaited(sdk.Container.wait_until)
    rename = awaited(sdk.Container.rename)
    pause = awaited(sdk.Container.pause)
    unpause = awaited(sdk.Container.unpause)
    top = awaited(sdk.Container.top)
    update = awaited(sdk.Container.update)
    stats = awaited(sdk.Container.stats)
    stats_stream = iterated(sdk.Container.stats_stream)
    diff = aside(sdk.Container.diff)
    copy_in = aside(sdk.Container.copy_in)
    copy_out = aside(sdk.Container.copy_out)
    put_archive = aside(sdk.Container.put_archive)
    get_archive = piecewise(sdk.Container.get_archive)

    async def commit(
        self,
        name: str = "",
        author: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
    ) -> Image:
        """Make an image of it; see `cloche.Container.commit`."""
        found = await self._client._aside(
            lambda client: client.get(self.id).commit(name, author, message, changes, pause)
        )
        return Image(self._client, images.Image(self._client._sync.engine, found._record))

    export = piecewise(sdk.Container.export)


class Image(Face):
    """An image, by its id."""

    def __init__(self, client: Client, inner: images.Image) -> None:
        self._client, self._inner = client, inner
        self.id, self.size, self.labels = inner.id, inner.size, inner.labels
        self.digests = inner.digests

    def _of(self, client: sdk.Client) -> images.Image:
        return client.images.get(self.id)

    @property
    def tags(self) -> list[str]:
        """Its names with a tag, short."""
        return list(self._inner.tags)

    def _row_(self) -> dict[str, str]:
        return self._inner._row_()  # type: ignore[no-any-return]

    def _repr_html_(self) -> str:
        return str(self._inner._repr_html_())

    inspect = awaited(images.Image.inspect)
    tag = awaited(images.Image.tag)
    remove = aside(images.Image.remove)


class Images(Face):
    """The images of a client's store."""

    def __init__(self, client: Client, inner: images.Images) -> None:
        self._client, self._inner = client, inner

    def _of(self, client: sdk.Client) -> images.Images:
        return client.images

    def _own(self, found: images.Image) -> Image:
        return Image(self._client, images.Image(self._client._sync.engine, found._record))

    async def list(self) -> Table[Image]:
        """All, the one built last first."""
        return Table(map(self._own, await self._client._call(self._inner.list)))

    async def get(self, name: str) -> Image:
        """By name, id, or the beginning of an id. Raises NotFound, Conflict, Invalid."""
        return self._own(await self._client._call(self._inner.get, name))

    async def pull(self, name: str, platform: str = "", progress: Callable[[Progress], None] | None = None) -> Image:
        """Fetch an image from its registry. progress: is told of each layer, in the loop. Raises NotFound, Invalid,
        Unsupported, Error."""
        tell, stop = self._telling(f"pull {name}", progress)
        work = self._client._aside(lambda client: client.images._pull(name, platform, tell, stop), stop.ask)
        return self._own(await work)

    def _telling(
        self, what: str, progress: Callable[[Progress], None] | None
    ) -> tuple[Callable[[Progress], None], Stop]:
        """What is called by the threads that work, and what ends them."""
        from cloche.image.pull import Stop

        loop, stop = asyncio.get_running_loop(), Stop()

        def tell(step: Progress) -> None:
            if stop.asked:
                raise Error(what, "it was cancelled")
            if progress:
                loop.call_soon_threadsafe(progress, step)

        return tell, stop

    async def push(self, name: str, progress: Callable[[Progress], None] | None = None) -> str:
        """Give an image to the registry that its name says; returns its digest there. progress: is told of each layer,
        in the loop. Raises NotFound, Invalid, Error."""
        tell, stop = self._telling(f"push {name}", progress)
        return await self._client._aside(lambda client: client.images.push(name, tell), stop.ask)

    async def load(self, source: str | os.PathLike[str] | BinaryIO, platform: str = "") -> Table[Image]:
        """The images of an archive, as `docker save` writes it, or of an OCI layout: a file, a folder, a stream.

        Raises NotFound, Invalid, Unsupported, Error.
        """
        found = await self._client._aside(lambda client: client.images.load(source, platform))
        return Table(map(self._own, found))

    async def tag(self, source: str, name: str) -> Image:
        """Give an image one name more. Raises NotFound, Conflict, Invalid."""
        return self._own(await self._client._call(self._inner.tag, source, name))

    save = piecewise(images.Images.save)
    remove = aside(images.Images.remove)
    prune = aside(images.Images.prune)


class Network(Face):
    """A network, by its id."""

    def __init__(self, client: Client, inner: networks.Network) -> None:
        self._client, self._inner = client, inner
        self.id, self.name, self.driver = inner.id, inner.name, inner.driver
        self.subnets, self.internal, self.labels = inner.subnets, inner.internal, inner.labels

    def _row_(self) -> dict[str, str]:
        return self._inner._row_()  # type: ignore[no-any-return]

    def _repr_html_(self) -> str:
        return str(self._inner._repr_html_())

    async def connect(
        self, container: Container | str, *, ip: str = "", ip6: str = "", aliases: Sequence[str] = ()
    ) -> None:
        """Put a container on it, also one that runs. Raises NotFound, Conflict, Invalid, Error."""
        name = container if isinstance(container, str) else container.id
        await self._client._call(networks.Network.connect, self._inner, name, ip=ip, ip6=ip6, aliases=aliases)

    async def disconnect(self, container: Container | str, force: bool = False) -> None:
        """Take a container off it, also one that runs. Raises NotFound, Error."""
        name = container if isinstance(container, str) else container.id
        await self._client._call(networks.Network.disconnect, self._inner, name, force)

    async def users(self) -> list[str]:
        """The names of the containers that are on it, also of those that do not run."""
        return await self._client._call(lambda: list(self._inner.users))

    inspect = awaited(networks.Network.inspect)
    remove = awaited(networks.Network.remove)


class Networks(Face):
    """The networks of a client's store."""

    def __init__(self, client: Client, inner: networks.Networks) -> None:
        self._client, self._inner = client, inner

    async def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        subnets: Sequence[str] = (),
        gateways: Sequence[str] = (),
        ip_ranges: Sequence[str] = (),
        ipv6: bool = False,
        internal: bool = False,
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Network:
        """Make one; without a subnet it gets one that is free. Raises Invalid, Conflict, Unsupported."""
        found = await self._client._call(
            networks.Networks.create,
            self._inner,
            name,
            driver=driver,
            subnets=subnets,
            gateways=gateways,
            ip_ranges=ip_ranges,
            ipv6=ipv6,
            internal=internal,
            options=options,
            labels=labels,
        )
        return Network(self._client, found)

    async def get(self, name: str) -> Network:
        """By name, id, or the beginning of an id; `bridge`, `host` and `none` are always there. Raises NotFound,
        Conflict."""
        return Network(self._client, await self._client._call(networks.Networks.get, self._inner, name))

    async def list(self) -> Table[Network]:
        """All, `bridge`, `host` and `none` among them; by name."""
        found = await self._client._call(networks.Networks.list, self._inner)
        return Table(Network(self._client, each) for each in found)

    prune = awaited(networks.Networks.prune)


class Volume(Face):
    """A volume, by its name."""

    def __init__(self, client: Client, inner: volumes.Volume) -> None:
        self._client, self._inner = client, inner
        self.name, self.labels, self.path = inner.name, inner.labels, inner.path

    def _of(self, client: sdk.Client) -> volumes.Volume:
        return client.volumes.get(self.name)

    def _row_(self) -> dict[str, str]:
        return self._inner._row_()  # type: ignore[no-any-return]

    async def users(self) -> list[str]:
        """The names of the containers that have it, also of those that do not run."""
        return await self._client._call(lambda: list(self._inner.users))

    inspect = awaited(volumes.Volume.inspect)
    remove = aside(volumes.Volume.remove)


class Volumes(Face):
    """The volumes of a client's store."""

    def __init__(self, client: Client, inner: volumes.Volumes) -> None:
        self._client, self._inner = client, inner

    def _of(self, client: sdk.Client) -> volumes.Volumes:
        return client.volumes

    async def create(self, name: str = "", labels: Mapping[str, str] | None = None) -> Volume:
        """Make one, or give the one of this name; without a name it gets one. Raises Invalid."""
        return Volume(self._client, await self._client._call(lambda: self._inner.create(name, labels)))

    async def get(self, name: str) -> Volume:
        """By its whole name. Raises NotFound."""
        return Volume(self._client, await self._client._call(lambda: self._inner.get(name)))

    async def list(self, dangling: bool | None = None) -> Table[Volume]:
        """All, or those that no container has (`dangling`), or those that one has; by name."""
        found = await self._client._call(lambda: self._inner.list(dangling))
        return Table(Volume(self._client, each) for each in found)

    prune = aside(volumes.Volumes.prune)


class Client:
    """One store, for one loop. Without `root`: CLOCHE_ROOT, else the machine's /var/lib/cloche."""

    def __init__(self, root: str | None = None) -> None:
        self._sync = sdk.Client(root)
        self._root = self._sync.engine.store.root
        self._worker, self._endings = Worker(), Endings(self._sync.engine.store)
        self._driver = Driver(self._worker, Ends(self._worker, self._endings))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close database and connections, and end the worker; containers run on."""
        await self._call(self._endings.close)
        await self._call(self._sync.close)
        self._worker.close()

    # -- containers

    async def create(self, image: str, command: str | Sequence[str] = (), **options: Unpack[Options]) -> Container:
        """A container that is not started yet."""
        return Container(self, await self._call(sdk.Client.create, self._sync, image, command, **options))

    async def run(
        self,
        image: str,
        command: str | Sequence[str] = (),
        *,
        detach: bool = False,
        input: bytes | None = None,
        **options: Unpack[Options],
    ) -> Container:
        """Create and start a container; without `detach` wait for its end and keep what it wrote.

        input: what it reads from its standard input. An exit code other than 0 is no error; see `exit_code`.
        Cancelled, it is killed, and removed where `remove` or `detach` says so: nobody has a handle on it yet.
        """
        run = sdk.Client.run
        return Container(self, await self._call(run, self._sync, image, command, detach=detach, input=input, **options))

    async def get(self, name: str) -> Container:
        """A container by name, id, or the beginning of an id. Raises NotFound, Conflict."""
        return Container(self, await self._call(sdk.Client.get, self._sync, name))

    async def containers(self, all: bool = False) -> Table[Container]:
        """Those that run, or all; newest first."""
        return Table(Container(self, each) for each in await self._call(sdk.Client.containers, self._sync, all))

    def events(
        self, since: Moment | None = None, until: Moment | None = None, filters: Filters | None = None
    ) -> AsyncIterator[Event]:
        """What happens to containers and images, as it happens: from now on, or from `since` to `until`.

        filters: container, event, image, label, type; as `cloche events --filter`. Raises Invalid.
        """
        return self._each(sdk.Client.events, self._sync, since, until, filters)

    async def pull(self, name: str, platform: str = "") -> Image:
        """`images.pull`."""
        return await self.images.pull(name, platform)

    @property
    def images(self) -> Images:
        """The store's images."""
        return Images(self, self._sync.images)

    @property
    def networks(self) -> Networks:
        """The store's networks."""
        return Networks(self, self._sync.networks)

    @property
    def volumes(self) -> Volumes:
        """The store's volumes."""
        return Volumes(self, self._sync.volumes)

    # -- how

    async def _call(self, method: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """A call of the SDK: driven, if it is written as a course, else done by the worker."""
        if course := course_of(method):
            return await self._driver.finish(self._worker.put(course, *args, **options))
        found, cancelled = await done(self._worker.put(method, *args, **options))
        if cancelled:
            raise cancelled
        return found

    def _each(self, method: Callable[P, Iterator[T]], *args: P.args, **options: P.kwargs) -> AsyncIterator[T]:
        """What a stream of the SDK gives; it begins now, whenever it is looked at."""
        course = course_of(method)
        assert course
        return self._driver.each(self._worker.put(course, *args, **options))

    async def _aside(self, call: Callable[[sdk.Client], T], stop: Callable[[], None] | None = None) -> T:
        """With a thread and an engine of its own."""
        worker = Worker()

        def work() -> T:
            with sdk.Client(self._root) as client:
                return call(client)

        try:
            found, cancelled = await done(worker.put(work), stop)
        finally:
            worker.close()
        if cancelled:
            raise cancelled
        return found

    async def _pieces(self, call: Callable[[sdk.Client], Iterator[bytes]]) -> AsyncIterator[bytes]:
        """The same, piece by piece."""
        worker, own = Worker(), sdk.Client(self._root)
        pieces = None
        try:
            pieces, cancelled = await worker.do(call, own)
            while not cancelled:
                piece, cancelled = await worker.do(next, pieces, None)
                if piece is None:
                    return
                if not cancelled:
                    yield piece
            raise cancelled
        finally:
            for close in (getattr(pieces, "close", None), own.close):
                if close:
                    await worker.do(close)
            worker.close()
