"""A create that fails leaves nothing: each step of a full plan is made to fail in turn, through the real keeper."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import leftovers
from cloche.engine import planning
from cloche.engine.containers import Engine
from cloche.engine.request import FileMount, Files, Limits, Networking, PortMapping, Program, RunRequest
from cloche.engine.settling import is_settling
from cloche.errors import Error
from cloche.kernel import nftables
from cloche.step.base import Act, Plan, Ref, Step
from cloche.step.cgroup import LimitCgroup, OpenForJoining
from cloche.step.firewall import AddElement
from cloche.step.mount import OpenTree
from cloche.step.namespace import OpenNamespace
from cloche.step.sync import Await, Gate, Open, Report, StartBell
from houses import children, stays
from probes import available

pytestmark = [
    pytest.mark.requires("root", "overlay"),
    pytest.mark.timeout(240),
]


@pytest.fixture
def engine(store: Path) -> Iterator[Engine]:
    made = Engine(str(store))
    yield made
    made.close()


def impossible(act: Act) -> Step | None:
    """A step of the same side that must fail, in the place of `act`; None where handing over itself is the step."""
    if isinstance(act.step, (Await, Open, Gate, Report, StartBell)):
        return None
    if act.actor == "host":
        made = act.step.gives()
        return OpenNamespace("/no/such/namespace", made[0]) if made else LimitCgroup("/no/such/file", "1")
    made = act.step.gives()
    if act.actor == "stage":
        return OpenTree("/no/such/source", made[0] if made else Ref("none"))
    return OpenForJoining("/no/such/file", made[0] if made and made[0].kind == "fd" else Ref("none"))


def descriptors(engine: Engine) -> tuple[int, int]:
    """How many the holder and the keeper have open."""
    answer, _ = engine.keeper.ask({"op": "info"})
    return len(os.listdir(f"/proc/{answer['holder']}/fd")), len(os.listdir(f"/proc/{answer['keeper']}/fd"))


def kernel_objects(engine: Engine) -> tuple[list[str], list[str], int]:
    """Cgroups of this store's containers, stored plans, children of the keeper (zombies too)."""
    parents = [Path(h.path) / engine.store.parent for h in engine.host.cgroups.hierarchies]
    groups = [str(p) for parent in parents for p in parent.iterdir() if p.is_dir() and p.name != "keeper"]
    answer, _ = engine.keeper.ask({"op": "info"})
    made = [pid for pid in children(answer["keeper"]) if not stays(pid)]
    plans = [name for name in os.listdir(engine.store.run + "/plans") if not is_settling(name)]
    return groups, plans, len(made)


def published(plan: Plan) -> list[str]:
    """Its ports that the rules lead to it now."""
    steps = [act.step for act in plan.acts if isinstance(act.step, AddElement) and not act.step.shared]
    assert steps or not available("nf_tables")
    return [step.name() for step in steps if nftables.has_element(nftables.host(), step._element())]


@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
def test_each_step_failing_leaves_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tty: bool
) -> None:
    files = Files((FileMount("bind", "/x", str(tmp_path), read_only=True), FileMount("tmpfs", "/t")))
    request = RunRequest(
        "starter",
        Program(("true",), tty=tty, interactive=not tty),
        Limits(memory=64 << 20, pids=100),
        files,
        network="bridge" if available("nf_tables") else "none",
        networking=Networking(ports=(PortMapping(80), PortMapping(53, "udp", "127.0.0.1"))),
    )
    engine.start(engine.create(request.replace(files=Files(), name="warm")))
    engine.remove(engine.find("warm"), force=True)
    box = engine.create(request)
    real = planning.plan
    whole = engine.plan(box)
    before = descriptors(engine)
    tried = 0
    for number, act in enumerate(whole.acts, 1):
        step = impossible(act)
        if step is None:
            continue
        acts = list(whole.acts)
        acts[number - 1] = Act(act.actor, step)
        broken = Plan(tuple(acts))
        monkeypatch.setattr(planning, "plan", lambda *_, broken=broken: broken)
        with pytest.raises(Error) as caught:
            engine.start(box)
        assert f"step {number} of {len(acts)}" in str(caught.value), str(caught.value)
        assert kernel_objects(engine) == ([], [], 0), f"after step {number}"
        assert not published(whole), f"after step {number}"
        assert engine.find(box.id).status == "created"
        tried += 1
    assert tried > 60
    deadline = time.monotonic() + 5  # the holder hears of an end a moment after the client
    while any(now > then for now, then in zip(descriptors(engine), before, strict=True)):
        assert time.monotonic() < deadline, (before, descriptors(engine))
        time.sleep(0.01)
    while left := [n for n in os.listdir("/sys/class/net") if n.startswith(f"cl{box.id[:7]}")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
    monkeypatch.setattr(planning, "plan", real)
    engine.start(box)
    if not tty:
        assert engine.wait(box)[0] == 0
    engine.remove(engine.find(box.id), force=True)
    assert not leftovers.mounts((engine.store.root,))
