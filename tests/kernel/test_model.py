"""A store and a model of it are asked the same, at random, right and wrong; after each call they agree.

The model is a few dictionaries: what exists, in which state, who uses what. Keeper and holder are killed in between,
which the model does not even know. A few hundred calls in the suite; more by CLOCHE_CALLS=10000.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import leftovers
from cloche.errors import Conflict, Error, Invalid, NotFound
from cloche.sdk import Client, Container
from probes import available

CALLS = int(os.environ.get("CLOCHE_CALLS", "400"))
STEPS = 50
# without exit_info, the end of who has lost both its parents is nobody's to know
pytestmark = [pytest.mark.requires("root", "overlay", "cgroup:pids", "exit_info"), pytest.mark.timeout(60 + CALLS)]

DEAF = ("sleep", "1000")  # a first process that no signal but SIGKILL ends
POLITE = ("sh", "-c", "trap 'exit 6' TERM; echo up; while :; do sleep 0.05; done")
QUICK = ("sh", "-c", "exit 3")
NOWHERE = ("no-such-command",)
NAMES = ("one", "two", "six", "ten")
WHICH = st.integers(0, 11)  # of those that exist, one after the other; the last two: of all names, also of nobody's
VOLUMES = st.sampled_from(["v1", "v2"])
NETWORKS = st.sampled_from(["n1", "n2"])


class Box:
    """What the model knows of a container. networks: serial numbers, for a network that is made again is another."""

    def __init__(self, program: tuple[str, ...], networks: list[int], volumes: set[str], remove: bool) -> None:
        self.program, self.networks, self.volumes, self.remove = program, networks, volumes, remove
        self.state, self.code = "created", 0
        self.connectable = bool(networks)
        self.id = ""


class Store(RuleBasedStateMachine):
    """The store beside the model."""

    root: Path
    held = 0

    def __init__(self) -> None:
        super().__init__()
        self.client = Client(str(self.root))
        self.boxes: dict[str, Box] = {}
        self.networks: dict[str, int] = {}
        self.volumes: set[str] = set()
        self.serial = 0
        self.links = available("nf_tables") and available("bridge")

    # -- asking

    def ask(self, call: Callable[[], Any], error: type[Error] | None) -> Any:
        """Ask the store; the model says how it must fail, if it must."""
        if error is None:
            return call()
        with pytest.raises(Error) as caught:
            call()
        assert type(caught.value) is error, caught.value
        assert str(caught.value).isprintable()
        return None

    def asks(self, name: str, call: Callable[[Container], Any], *wrong: tuple[str, ...]) -> bool:
        """Ask it of a container that must be there and in none of the states; whether it was done."""
        box = self.boxes.get(name)
        error = NotFound if box is None else Conflict if wrong and box.state in wrong[0] else None
        self.ask(lambda: call(self.client.get(name)), error)
        return error is None

    def ends(self, name: str, code: int) -> None:
        """The model's container has ended; one that shall be removed then is, a moment later."""
        box = self.boxes[name]
        box.state, box.code = "exited", code
        if box.remove:
            del self.boxes[name]
            self.gone(box.id)

    def gone(self, ident: str) -> None:
        deadline = time.monotonic() + 10
        while any(c.id == ident for c in self.client.engine.containers()):
            assert time.monotonic() < deadline, "--rm"
            time.sleep(0.005)

    def one(self, which: int) -> str:
        """A name, mostly of one that exists."""
        names = sorted(self.boxes) if which < 10 and self.boxes else NAMES
        return names[which % len(names)]

    def new(self, which: int) -> str:
        """A name, mostly a free one."""
        names = [name for name in NAMES if name not in self.boxes] if which < 10 else []
        return (names or NAMES)[which % len(names or NAMES)]

    @initialize()
    def begin_with_something(self) -> None:
        self.create(0, DEAF, {"v1"}, "none", False)
        self.start(0)
        if self.links:
            self.make_network("n1", False)
            self.make_network("n2", False)
            self.create(0, POLITE, set(), "n1", False)
            self.start(1)

    # -- containers

    @rule(
        which=WHICH,
        program=st.sampled_from([DEAF, DEAF, POLITE, QUICK, NOWHERE]),
        volumes=st.sets(VOLUMES),
        network=st.sampled_from(["none", "none", "host", "n1", "n2"]),
        remove=st.sampled_from([False, False, True]),
    )
    def create(self, which: int, program: tuple[str, ...], volumes: set[str], network: str, remove: bool) -> None:
        name = self.new(which)
        if network in ("n1", "n2") and not self.links:
            network = "none"
        own = network in ("n1", "n2")
        error = NotFound if own and network not in self.networks else Conflict if name in self.boxes else None
        mounts = [f"{v}:/{v}" for v in sorted(volumes)]
        made = self.ask(
            lambda: self.client.create(
                "starter", program, name=name, volumes=mounts, network=network, remove=remove, pids_limit=50
            ),
            error,
        )
        if made:
            self.boxes[name] = Box(program, [self.networks[network]] if own else [], set(volumes), remove)
            self.boxes[name].id = made.id
            self.volumes |= volumes

    @rule(
        options=st.sampled_from(
            [{"name": "/"}, {"name": "é"}, {"memory": "x"}, {"network": "n9"}, {"volumes": ["aa:b"]}, {"user": "\0"}]
        )
    )
    def create_badly(self, options: dict[str, Any]) -> None:
        with pytest.raises(Error) as caught:
            self.client.create("starter", "true", **options)
        assert type(caught.value) in (Invalid, NotFound) and str(caught.value).isprintable()

    def begin(self, name: str, call: Callable[[Container], Any], wrong: tuple[str, ...] = ()) -> None:
        """A start, however it is called."""
        box = self.boxes.get(name)
        lost = box is not None and any(n not in self.networks.values() for n in box.networks)
        if box is None or box.state in wrong:
            self.asks(name, call, wrong)
        elif lost or box.program is NOWHERE:
            with pytest.raises(Error) as caught:
                call(self.client.get(name))
            assert caught.value.exit_code == (125 if lost else 127), caught.value
            if box.state == "created":
                box.code = 0 if lost else 127
        else:
            call(self.client.get(name))
            box.state = "running"
            self.settle(name)

    def settle(self, name: str) -> None:
        """Until its program has come to where it stays."""
        box = self.boxes[name]
        found = Container(self.client, self.client.engine.find(box.id)) if box.program is not QUICK else None
        if box.program is QUICK:
            self.wait_for(box)
            self.ends(name, 3)
        elif box.program is POLITE and found:
            deadline = time.monotonic() + 20
            ups = getattr(box, "ups", 0) + 1
            while found.stdout.count(b"up\n") < ups:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            box.ups = ups  # type: ignore[attr-defined]

    def wait_for(self, box: Box) -> None:
        try:
            assert Container(self.client, self.client.engine.find(box.id)).wait() == 3
        except NotFound:
            assert box.remove

    @rule(which=WHICH)
    def start(self, which: int) -> None:
        name = self.one(which)
        self.begin(name, lambda c: c.start(), ("running", "paused"))

    @rule(which=WHICH, patience=st.sampled_from([0, 5]))
    def stop(self, which: int, patience: int) -> None:
        name = self.one(which)
        box = self.boxes.get(name)
        if box and box.program is DEAF:
            patience = 0
        if self.asks(name, lambda c: c.stop(patience)) and box and box.state in ("running", "paused"):
            if box.program is POLITE and patience == 0:
                self.either(name, (6, 137))
            else:
                self.ends(name, 6 if box.program is POLITE else 137)

    def either(self, name: str, codes: tuple[int, ...]) -> None:
        """Who was faster is for the kernel to say."""
        box = self.boxes[name]
        found = self.client.engine.db.execute("SELECT exit_code FROM containers WHERE id=?", (box.id,)).fetchone()
        assert found is None or found["exit_code"] in codes, found["exit_code"]
        self.ends(name, found["exit_code"] if found else codes[0])

    @rule(which=WHICH, number=st.sampled_from([9, 15, 0, 10, "KILL", "SIGTERM", "CHLD"]))
    def kill(self, which: int, number: int | str) -> None:
        name = self.one(which)
        box = self.boxes.get(name)
        if number == 0:
            self.ask(lambda: self.client.get(name).kill(number), NotFound if box is None else Invalid)
            return
        if number == 10 and box and box.program is POLITE:
            return  # it would end of it, or not, as its shell has it
        if not self.asks(name, lambda c: c.kill(number), ("created", "exited")) or box is None:
            return
        if number in (9, "KILL"):
            self.wait_end(box)
            self.ends(name, 137)
        elif number in (15, "SIGTERM") and box.program is POLITE:
            self.wait_end(box)
            self.ends(name, 6)
        elif number in (15, "SIGTERM") and box.state == "paused":
            box.state = "running"  # its stop signal thaws, as with Docker

    def wait_end(self, box: Box) -> None:
        try:
            Container(self.client, self.client.engine.find(box.id)).wait()
        except NotFound:
            assert box.remove

    @rule(which=WHICH)
    def pause(self, which: int) -> None:
        name = self.one(which)
        if self.asks(name, lambda c: c.pause(), ("created", "exited", "paused")):
            self.boxes[name].state = "paused"

    @rule(which=WHICH)
    def unpause(self, which: int) -> None:
        name = self.one(which)
        if self.asks(name, lambda c: c.unpause(), ("created", "exited", "running")):
            self.boxes[name].state = "running"

    @rule(which=WHICH)
    def restart(self, which: int) -> None:
        name = self.one(which)
        box = self.boxes.get(name)
        if box and box.state in ("running", "paused"):
            lost = any(n not in self.networks.values() for n in box.networks)
            code = 6 if box.program is POLITE else 137
            if lost:  # it was connected to a network that was removed: that cannot be, for it runs
                raise AssertionError(name)
            box.state, box.code = "exited", code
        self.begin(name, lambda c: c.restart(0 if box and box.program is DEAF else 5))

    @rule(which=WHICH, other=st.sampled_from(["one", "two", "six", "ten", "", "/", "-x", "a b"]))
    def rename(self, which: int, other: str) -> None:
        name = self.one(which)
        box = self.boxes.get(name)
        valid = other in ("one", "two", "six", "ten")
        error = NotFound if box is None else Invalid if not valid else Conflict if other in self.boxes else None
        self.ask(lambda: self.client.get(name).rename(other), error)
        if error is None:
            self.boxes[other] = self.boxes.pop(name)

    @rule(which=WHICH, force=st.booleans(), volumes=st.booleans())
    def remove(self, which: int, force: bool, volumes: bool) -> None:
        name = self.one(which)
        wrong = () if force else ("running", "paused")
        if self.asks(name, lambda c: c.remove(force=force, volumes=volumes), wrong):
            del self.boxes[name]

    @rule(which=WHICH, command=st.sampled_from(["exit 4", "true"]))
    def execute(self, which: int, command: str) -> None:
        name = self.one(which)
        codes: list[int] = []
        done = self.asks(
            name,
            lambda c: codes.append(c.exec(["sh", "-c", command]).exit_code),
            ("created", "exited", "paused"),
        )
        assert not done or codes == [4 if "4" in command else 0]

    @rule(which=WHICH, limit=st.sampled_from([20, 60, -5]))
    def update(self, which: int, limit: int) -> None:
        name = self.one(which)
        box = self.boxes.get(name)
        error = NotFound if box is None else Invalid if limit < -1 else None
        self.ask(lambda: self.client.get(name).update(pids_limit=limit), error)

    @rule(which=WHICH)
    def inspect(self, which: int) -> None:
        name = self.one(which)
        box = self.boxes.get(name)
        found = self.ask(lambda: self.client.get(name).inspect(), NotFound if box is None else None)
        if box:
            state = found["State"]
            assert (found["Name"], found["Id"]) == (f"/{name}", box.id)
            assert (state["Running"], state["Paused"]) == (box.state in ("running", "paused"), box.state == "paused")
            assert (state["Pid"] > 0) == state["Running"]

    @rule()
    def prune_containers(self) -> None:
        from cloche.engine.pruning import prune_containers

        removed = set(prune_containers(self.client.engine).removed)
        idle = {name for name, box in self.boxes.items() if box.state in ("created", "exited")}
        assert removed == {self.boxes[name].id for name in idle}
        for name in idle:
            del self.boxes[name]

    # -- volumes

    @rule(name=st.sampled_from(["v1", "v2", "-", "a/b", "x"]))
    def make_volume(self, name: str) -> None:
        valid = name in ("v1", "v2")
        self.ask(lambda: self.client.volumes.create(name), None if valid else Invalid)
        if valid:
            self.volumes.add(name)

    @rule(name=VOLUMES)
    def remove_volume(self, name: str) -> None:
        used = any(name in box.volumes for box in self.boxes.values())
        error = NotFound if name not in self.volumes else Conflict if used else None
        self.ask(lambda: self.client.volumes.get(name).remove(), error)
        if error is None:
            self.volumes.discard(name)

    @rule(everything=st.booleans())
    def prune_volumes(self, everything: bool) -> None:
        removed = self.client.volumes.prune(all=everything).removed
        used = {v for box in self.boxes.values() for v in box.volumes}
        assert set(removed) == (self.volumes - used if everything else set())
        self.volumes -= set(removed)

    # -- networks

    @precondition(lambda self: self.links)
    @rule(name=NETWORKS, internal=st.booleans())
    def make_network(self, name: str, internal: bool) -> None:
        error = Conflict if name in self.networks else None
        self.ask(lambda: self.client.networks.create(name, internal=internal), error)
        if error is None:
            self.serial += 1
            self.networks[name] = self.serial

    @rule(name=NETWORKS)
    def remove_network(self, name: str) -> None:
        serial = self.networks.get(name)
        busy = any(serial in b.networks and b.state in ("running", "paused") for b in self.boxes.values())
        error = NotFound if serial is None else Conflict if busy else None
        self.ask(lambda: self.client.networks.get(name).remove(), error)
        if error is None:
            del self.networks[name]

    @rule(name=NETWORKS, which=WHICH)
    def connect(self, name: str, which: int) -> None:
        box = self.one(which)
        serial, found = self.networks.get(name), self.boxes.get(box)
        error: type[Error] | None = NotFound if serial is None or found is None else None
        if found and serial and (not found.connectable or serial in found.networks):
            error = Conflict
        self.ask(lambda: self.client.networks.get(name).connect(box), error)
        if error is None and found and serial:
            found.networks.append(serial)

    @rule(name=NETWORKS, which=WHICH)
    def disconnect(self, name: str, which: int) -> None:
        box = self.one(which)
        serial, found = self.networks.get(name), self.boxes.get(box)
        error = None if found and serial in found.networks else NotFound
        self.ask(lambda: self.client.networks.get(name).disconnect(box), error)
        if error is None and found and serial:
            found.networks.remove(serial)

    @rule()
    def prune_networks(self) -> None:
        used = {n for box in self.boxes.values() for n in box.networks}
        wanted = {name for name, serial in self.networks.items() if serial not in used}
        assert set(self.client.networks.prune()) == wanted
        for name in wanted:
            del self.networks[name]

    # -- who is not in the model

    @rule(whom=st.sampled_from(["keeper", "holder"]))
    def kill_one_of_ours(self, whom: str) -> None:
        pid = int((self.root / "run/keeper/pids").read_text().split()[whom == "keeper"])
        try:
            fd = os.pidfd_open(pid)
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            os.close(fd)
        except ProcessLookupError:
            return

    # -- agreement

    @invariant()
    def they_agree(self) -> None:
        found = {c.name: c for c in self.client.engine.containers()}
        assert {n: c.state for n, c in found.items()} == {n: b.state for n, b in self.boxes.items()}
        codes = {n: c.exit_code for n, c in found.items() if c.status in ("exited", "created")}
        assert codes == {n: b.code for n, b in self.boxes.items() if b.state in ("exited", "created")}
        shown = {c.name for c in self.client.containers()}
        assert shown == {n for n, b in self.boxes.items() if b.state in ("running", "paused")}
        assert {v.name for v in self.client.volumes.list()} == self.volumes
        for name in self.volumes:
            users = {n for n, b in self.boxes.items() if name in b.volumes}
            assert set(self.client.volumes.get(name).users) == users
        networks = {n.name: n for n in self.client.engine.networks.all() if n.name != "bridge"}
        assert set(networks) == set(self.networks)
        for name, serial in self.networks.items():
            users = {n for n, b in self.boxes.items() if serial in b.networks}
            assert set(self.client.networks.get(name).users) == users

    def teardown(self) -> None:
        try:
            for box in self.client.containers(all=True):
                box.remove(force=True)
            self.client.networks.prune()
            self.client.volumes.prune(all=True)
            self.nothing_is_left()
        finally:
            self.client.close()

    def nothing_is_left(self) -> None:
        engine, deadline = self.client.engine, time.monotonic() + 10
        marks = leftovers.marks(self.root)
        most = 2 + 2 * 2  # who answers for names, and where; until the next network comes, or the keeper ends
        while True:
            left = os.listdir(engine.store.run + "/plans")
            left += os.listdir(self.root / "containers")
            left += [f"link {name}" for name in leftovers.interfaces(marks)]
            left += [f"group {path}" for path in leftovers.cgroups(marks) if path[-65:-64] == "/"]
            for table in ("containers", "connections", "mounted", "ranges", "volumes"):
                left += [f"{table} {tuple(row)}" for row in engine.db.execute(f"SELECT * FROM {table}")]
            answer, _ = engine.keeper.ask({"op": "info"})
            count = len(os.listdir(f"/proc/{answer['holder']}/fd"))
            left += [f"{count} descriptors in the holder, not {self.held}"] if count > self.held + most else []
            if not left:
                return
            assert time.monotonic() < deadline, left
            time.sleep(0.02)


def test_a_store_agrees_with_its_model(store: Path) -> None:
    with Client(str(store)) as client:
        client.run("starter", "true", network="none", remove=True)
        answer, _ = client.engine.keeper.ask({"op": "info"})
        Store.root, Store.held = store, len(os.listdir(f"/proc/{answer['holder']}/fd"))
    bounds = settings(
        max_examples=max(1, CALLS // STEPS),
        stateful_step_count=STEPS,
        derandomize=CALLS <= 1000,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    run_state_machine_as_test(Store, settings=bounds)
