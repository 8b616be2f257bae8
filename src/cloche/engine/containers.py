"""Containers: create, start, end, remove, find. The engine is this library in the caller's process; the keeper does the
rest.

create: request + image -> configuration -> snapshot -> row            start: facts -> bundle -> plan -> stored ->
keeper
"""

from __future__ import annotations

import os

from cloche.engine import config as configs
from cloche.engine import ranges
from cloche.engine.bundle import Other
from cloche.engine.database import CREATED, RESTARTING, RUNNING, connect
from cloche.engine.removal import remove_container, sweep
from cloche.engine.sqlite import sqlite3
from cloche.engine.store import locate, prepare
from cloche.errors import Conflict, Error, NotFound
from cloche.network.model import Port
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cloche.engine.client import Keeper
    from cloche.engine.config import ContainerConfig
    from cloche.engine.courses import Course
    from cloche.engine.networks import Networks
    from cloche.engine.request import RunRequest
    from cloche.image.removal import Removal
    from cloche.image.store import Image, ImageStore, Use
    from cloche.step.base import Plan
    from cloche.step.host import Host

_PORT_TRIES = 5  # of a start whose published port may be any


class Container(Value):
    """A container as the database knows it. Times: nanoseconds since 1970, 0 when not yet. exit_code -1: unknown."""

    id: str
    name: str
    image: str
    image_id: str
    created: int
    config: ContainerConfig
    remove: bool
    status: str
    pid: int
    start_time: int
    started: int
    finished: int
    exit_code: int
    oom: bool
    error: str
    ports: tuple[Port, ...] = ()
    restarts: int = 0
    paused: bool = False
    health: str = ""

    @property
    def state(self) -> str:
        """The status as people see it: `paused` is one of those that run."""
        return "paused" if self.paused else self.status


class Started(Value):
    """What the keeper gives to who started or attached: descriptors by name, step times for --explain."""

    pid: int
    fds: dict[str, int]
    records: tuple[tuple[int, int], ...] = ()


class Engine:
    """One store: its database, its images, its keeper. Not for several threads at once."""

    def __init__(self, root: str | None = None) -> None:
        """Open the store, made where it is missing. Raises Error when this user cannot have one."""
        self.store = locate(root)
        try:
            prepare(self.store)
        except OSError as error:
            hint = "run as root: containers of other users are not there yet" if os.geteuid() else ""
            raise Error(f"open the store {self.store.root}", error.errno or 5, hint) from error
        self._keeper: Keeper | None = None
        self._db: sqlite3.Connection | None = None
        self._host: Host | None = None
        self._images: ImageStore | None = None
        self._networks: Networks | None = None
        self.notify: Callable[[str], None] = lambda _: None  # is told what a caller should know, and is no error

    def close(self) -> None:
        """Close database and connection; containers run on."""
        if self._keeper:
            self._keeper.close()
        if self._db:
            self._db.close()
        self._keeper = self._db = self._images = self._networks = None

    @property
    def keeper(self) -> Keeper:
        """The connection to the keeper, which is started by the first thing that needs it."""
        if self._keeper is None:
            from cloche.engine.client import Keeper

            self._keeper = Keeper(self.store)
        return self._keeper

    @property
    def db(self) -> sqlite3.Connection:
        """The store's database."""
        if self._db is None:
            self._db = connect(self.store)
        return self._db

    @property
    def images(self) -> ImageStore:
        """The store's images."""
        if self._images is None:
            from cloche.image.store import ImageStore

            self._images = ImageStore(self.store.root, self.db)
        return self._images

    @property
    def networks(self) -> Networks:
        """The store's networks."""
        if self._networks is None:
            from cloche.engine.networks import Networks

            self._networks = Networks(self.store, self.db)
        return self._networks

    @property
    def host(self) -> Host:
        """The machine's facts, probed once."""
        if self._host is None:
            from cloche.step.host import probe

            self._host = probe()
        return self._host

    # -- finding

    def container(self, row: sqlite3.Row) -> Container:
        """A row as a value."""
        found = {field: row[field] for field in Container._fields}
        found["config"] = configs.load(row["config"])
        found |= {name: bool(found[name]) for name in ("remove", "oom", "paused")}
        if found["paused"]:
            from cloche.engine.pausing import stands_still

            found["paused"] = row["status"] == RUNNING and stands_still(self, row["id"], found["config"])
        if found["ports"]:
            from cloche.document import loads

            found["ports"] = tuple(Port(*each) for each in loads(found["ports"]))
        return Container(**found)

    def containers(self) -> list[Container]:
        """All, newest first. After a machine's or all processes' end, the states are put right first."""
        rows = self.db.execute("SELECT * FROM containers ORDER BY created DESC").fetchall()
        if any(r["status"] in (RUNNING, RESTARTING) for r in rows) and self._refresh():
            rows = self.db.execute("SELECT * FROM containers ORDER BY created DESC").fetchall()
        return [self.container(r) for r in rows]

    def _refresh(self) -> bool:
        """Where something should run, somebody must be there who knows: start the keeper, which looks."""
        from cloche.engine.client import connect as reach

        if sock := reach(self.store, start=False):
            sock.close()
            return False
        self.keeper.ask({"op": "info"})
        return True

    def find(self, name: str) -> Container:
        """By name, id, or a prefix of an id that fits one. Raises NotFound, Conflict."""
        row = self.db.execute("SELECT * FROM containers WHERE name=? OR id=?", (name.lstrip("/"), name)).fetchone()
        if row is None and name and all(c in "0123456789abcdef" for c in name):
            rows = self.db.execute(
                "SELECT * FROM containers WHERE id >= ? AND id < ? LIMIT 2", (name, name + "g")
            ).fetchall()
            if len(rows) > 1:
                raise Conflict(f"find container {name}", "more than one id begins so", "give more of it")
            row = rows[0] if rows else None
        if row is None:
            raise NotFound(f"No such container: {name}", "", "`cloche ps -a` lists them")
        if row["status"] in (RUNNING, RESTARTING) and self._refresh():
            return self.find(row["id"])
        return self.container(row)

    def running(self, name: str) -> Container:
        """The same, of one that runs. Raises Conflict when it does not."""
        found = self.find(name)
        if found.status != RUNNING:
            raise Conflict(f"use container {name}", "it is not running", f"start it with: cloche start {name}")
        return found

    def other(self, name: str) -> tuple[str, Other]:
        """A container whose namespaces shall be joined: its id, its first process (pid 0: it does not run)."""
        found = self.find(name)
        ipc = found.config.request.namespaces.ipc
        pid = found.pid if found.status == RUNNING else 0
        return found.id, Other(pid, found.start_time, ipc)

    def uses(self) -> list[Use]:
        """Which images and layers containers need."""
        from cloche.image.store import Use

        rows = self.db.execute("SELECT id, image_id, status, config FROM containers").fetchall()
        return [Use(r["id"], r["image_id"], r["status"] == RUNNING, configs.load(r["config"]).layers) for r in rows]

    def remove_image(self, name: str, force: bool = False) -> Removal:
        """Docker's rmi. Raises NotFound, Conflict."""
        removal = self.changing_images().remove(name, force, self.uses)
        sweep(self.store)
        return removal

    def changing_images(self) -> ImageStore:
        """The images, for who adds or removes some: what a killed process left half made is discarded first.

        Raises Unsupported when overlays cannot be mounted here.
        """
        from cloche.storage.overlay import probe

        probe(self.store.root)
        self.images.recover()
        return self.images

    # -- creating

    def image(self, name: str) -> Image:
        """The image; the starter image is made when it is first asked for. Raises NotFound."""
        try:
            return self.images.resolve(name)
        except NotFound:
            from cloche.oci.reference import parse

            if str(parse(name)) != "docker.io/library/starter:latest":
                raise
        from cloche.image.starter import ensure_starter

        return ensure_starter(self.changing_images())

    def create(self, request: RunRequest) -> Container:
        """Settle a request and record it. Nothing of the kernel's is asked yet. Raises Error and its kinds."""
        from cloche.engine.facts import check_host, referred, write_files
        from cloche.engine.mounting import settle
        from cloche.storage.overlay import prepare as prepare_files

        check_host(request, self.host)
        image = self.image(request.image)
        for name in referred(configs.configure(request, image.config, image.layers, "0" * 64)):
            self.find(name)
        ident = os.urandom(32).hex()
        try:
            prepare_files(self.store.root, ident, image.layers)
            mapping = ranges.mapping(self.db, request, ident)  # behind the directory: see sweep_forsaken
            config = configs.configure(request, image.config, image.layers, ident, mapping)
            ranges.give_to_root(self.store.container(ident) + "/upper", mapping)
            config = settle(self, ident, config, image)
            config = self._logged(config)
            self.networks.connect(ident, request)
            write_files(config, self.store, ident, self.networks.endpoints(ident))
            os.mkdir(self.store.container(ident) + "/log", 0o700)
            return self._insert(ident, request, image, config)
        except BaseException as error:
            remove_container(self.store, self.db, ident, failed=True)
            if isinstance(error, OSError):
                raise Error("create the container's files", error.errno or 5, "is the disk full?") from error
            if isinstance(error, sqlite3.Error):
                raise Error("record the container", str(error), "is the disk full?") from error
            raise

    def _logged(self, config: ContainerConfig) -> ContainerConfig:
        """With the log driver that the configuration file names. Raises Error, Invalid, Unsupported."""
        from cloche.settings import exists

        if config.log.driver or not exists(os.environ):
            return config
        from cloche.engine.logdrivers import settle

        return config.replace(log=settle(config.log, os.environ))

    def _insert(self, ident: str, request: RunRequest, image: Image, config: ContainerConfig) -> Container:
        from time import time_ns

        from cloche.engine.names import random_name

        for _ in range(1000):
            name = request.name or random_name()
            try:
                self.db.execute(
                    "INSERT INTO containers (id, name, image, image_id, created, config, remove)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (ident, name, request.image, image.id, time_ns(), configs.dump(config), request.remove),
                )
            except sqlite3.IntegrityError:
                if not request.name:
                    continue
                owner = self.db.execute("SELECT id FROM containers WHERE name=?", (name,)).fetchone()
                cause = f"the name is in use by container {owner['id'][:12] if owner else ''}"
                raise Conflict(f"name a container {name}", cause, "remove that one, or use another name") from None
            row = self.db.execute("SELECT * FROM containers WHERE id=?", (ident,)).fetchone()
            os.stat(self.store.container(ident))  # we may have been stopped for so long that it was taken for forsaken
            return self.container(row)
        raise Conflict("name the container", "all tries were taken", "give it a name with --name")

    # -- starting

    def plan(self, container: Container, console: tuple[int, int] = (0, 0)) -> Plan:
        """What a start would ask of the kernel. Raises NotFound, Conflict, Invalid, Unsupported."""
        from cloche.engine.planning import plan_start

        return plan_start(self, container, console).plan

    def dry_plan(self, request: RunRequest) -> Plan:
        """The plan of a `run` that is not done."""
        from cloche.engine.planning import plan_request

        return plan_request(self, request)

    def start(
        self,
        container: Container,
        *,
        attach: bool = False,
        console: tuple[int, int] = (0, 0),
        explain: Callable[[Plan], None] | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Started:
        """Start it; returns when its program has been executed. `meanwhile` is done while the keeper works.

        Raises the error of the step that was refused.
        """
        from cloche.engine.orders import order
        from cloche.engine.planning import plan_start

        if container.paused:
            raise Conflict(f"start container {container.name}", "it is paused", "unpause it with: cloche unpause")
        if container.config.comes_back or container.config.health.on_failure:
            self.db.execute("UPDATE containers SET restarts=0, stopped=0 WHERE id=?", (container.id,))
        for tries in range(_PORT_TRIES, 0, -1):
            attempt = os.urandom(8).hex()
            start = plan_start(self, container, console)
            made = start.plan
            if start.ports:
                self._note_ports(container, start.ports)
            if explain:
                explain(made)
            content = order(self, container, start, attach, explain is not None)
            answer, fds = self.keeper.ask({"op": "start", "id": container.id, "attempt": attempt}, content, meanwhile)
            if "failure" not in answer:
                break
            if tries == 1 or not self._was_taken(container, made, answer["failure"]):
                raise self._failed(container, made, answer["failure"])
        records = tuple((number, ns) for number, ns in answer["records"])
        return Started(answer["pid"], dict(zip(answer["fds"], fds, strict=True)), records)

    def _note_ports(self, container: Container, ports: tuple[Port, ...]) -> None:
        """For `ps`, `port` and `inspect`; of a container that does not run they say nothing."""
        from cloche.document import dumps

        text = dumps([[p.address, p.protocol, p.port, p.inside] for p in ports])
        self.db.execute("UPDATE containers SET ports=? WHERE id=?", (text, container.id))

    def _was_taken(self, container: Container, made: Plan, failure: list[Any]) -> bool:
        """Whether a port that could be any was taken between its choice and its reservation."""
        wanted = container.config.request.networking
        chosen = wanted.publish_all or any(not p.port or p.last for p in wanted.ports)
        return chosen and failure[1] == 98 and type(made.acts[failure[0] - 1].step).__name__ == "ReservePort"

    def _failed(self, container: Container, made: Plan, failure: list[Any]) -> Error:
        from cloche.runtime.bell import Failure
        from cloche.runtime.execution import explain as explain_failure

        error = explain_failure(made, Failure(*failure))
        self.db.execute(
            "UPDATE containers SET error=?, exit_code=? WHERE id=? AND status=?",
            (str(error), error.exit_code, container.id, CREATED),
        )
        return error

    # -- running

    def wait(self, container: Container) -> tuple[int, str]:
        """The exit code, when it has ended, and "" or why it is not known (then the code is -1). Raises NotFound."""
        from cloche.engine.courses import ending, finish

        return finish(self.store, ending(self, container))

    def attach(self, container: Container) -> Started:
        """Descriptors to talk to it. Raises Conflict when it does not run, or is paused."""
        if container.paused:
            raise Conflict(f"attach to container {container.name}", "it is paused", "unpause it before")
        answer, fds = self.keeper.ask({"op": "attach", "id": container.id})
        return Started(answer["pid"], dict(zip(answer["fds"], fds, strict=True)))

    def signal(self, container: Container, number: int) -> None:
        """Send a signal to its first process, by a handle that cannot mean another process. Raises Conflict."""
        from cloche.engine.stopping import send

        send(self, container, number)

    def stop(self, container: Container, timeout: int | None = None) -> None:
        """The stop signal, and after `timeout` seconds (-1: never) SIGKILL; returns when it has ended. A stopped one is
        no error."""
        from cloche.engine.courses import finish
        from cloche.engine.stopping import stopping

        finish(self.store, stopping(self, container, timeout))

    def remove(self, container: Container, force: bool = False, volumes: bool = False) -> None:
        """Remove it and its files, and with `volumes` those that nobody named. Raises Conflict when it runs and `force`
        is not given."""
        from cloche.engine.courses import finish

        finish(self.store, self.removing(container, force, volumes))

    def removing(self, container: Container, force: bool = False, volumes: bool = False) -> Course[None]:
        """`remove` as a course."""
        if container.status in (RUNNING, RESTARTING):
            if not force:
                cause = "it is paused" if container.paused else f"it is {container.status}"
                raise Conflict(f"remove container {container.name}", cause, "stop it before, or force it: cloche rm -f")
            from cloche.engine.stopping import killing

            yield from killing(self, container)
        self._undo(container.id)
        remove_container(self.store, self.db, container.id, volumes or container.remove)
        if not self.db.execute("SELECT 1 FROM images WHERE id=?", (container.image_id,)).fetchone():
            self.images.collect(self.uses)  # it stood on layers of an image that is gone
        sweep(self.store)

    def _undo(self, ident: str) -> None:
        """A plan that is still stored is of a start that failed half-way with nobody left to undo it."""
        from cloche.step.stored import load

        path = self.store.plan(ident)
        try:
            with open(path, "rb") as file:
                problems = load(file.read()).undo()
        except FileNotFoundError:
            return
        if problems:
            raise Error(f"remove container {ident[:12]}", str(problems[0]))
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass  # a new keeper did the same meanwhile

    def log_directory(self, container: Container) -> str:
        """Where its output is kept."""
        return self.store.container(container.id) + "/log"
