"""Golden plans: what containers ask of the kernel, without root. `CLOCHE_GOLDEN=1 pytest tests/unit/plan` renews them.

For each: every ref is given once and before its use, no two actors wait for each other, the flat form says the same.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from cloche.errors import Invalid, Unsupported
from cloche.kernel.capabilities import DEFAULT
from cloche.kernel.cgroups import Hierarchy, Layout
from cloche.network.addresses import subnet
from cloche.network.attachment import attach
from cloche.network.model import Endpoint, Network, Port, Subnet
from cloche.oci.runtime import (
    Capabilities,
    Device,
    DeviceRule,
    IdMapping,
    Mount,
    Namespace,
    Process,
    Resources,
    Rlimit,
    Spec,
    User,
)
from cloche.plan import Bundle, Joining, plan, plan_joining
from cloche.step import stored
from cloche.step.base import Plan
from cloche.step.cgroup import DelegateCgroup
from cloche.step.flat import MAGIC, OPS, TABLE, VERSION, flatten
from cloche.step.host import Host
from cloche.step.mount import OpenTree
from cloche.step.rootfs import Folder, Overlay
from cloche.step.sync import Await, Gate, Open, Report

GOLDEN = Path(__file__).with_name("golden")
V1 = Layout(1, tuple(Hierarchy((c,), f"/sys/fs/cgroup/{c}") for c in ("cpu", "cpuset", "memory", "devices", "pids")))
V2 = Layout(2, (Hierarchy(("cpu", "io", "memory", "pids"), "/sys/fs/cgroup"),))
HOSTS = {
    "v1": Host((6, 1), "x86_64", V1, (1 << 41) - 1),
    "v2": Host((6, 1), "x86_64", V2, (1 << 41) - 1),
    "none": Host((6, 1), "x86_64", Layout(0, ()), (1 << 41) - 1),
}
ROOT = Overlay("/store/layers", ("2/diff", "1/diff"), "/store/containers/ID/upper", "/store/containers/ID/work")
SETS = Capabilities(DEFAULT, DEFAULT, DEFAULT)
NAMESPACES = tuple(Namespace(kind) for kind in ("mount", "pid", "network", "ipc", "uts", "cgroup"))
SHELL = Process(("sh", "-c", "echo hi"), ("PATH=/bin",), "/tmp", User(name="0"), capabilities=SETS, oom_score_adj=0)
MOUNTS = (
    Mount("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
    Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "mode=755")),
    Mount("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance")),
    Mount("/sys", "sysfs", "sysfs", ("ro", "nosuid", "noexec", "nodev")),
    Mount("/sys/fs/cgroup", "cgroup", "cgroup", ("ro", "nosuid", "noexec", "nodev")),
    Mount("/data", "bind", "/srv/data", ("rbind", "rro")),
)
LIMITS = Resources(64 << 20, 128 << 20, None, 512, 50000, 100000, "0", "", 100, (DeviceRule(False),))
FULL = Spec(
    SHELL.replace(rlimits=(Rlimit("RLIMIT_NOFILE", 100, 200),)),
    True,
    "glass",
    "",
    MOUNTS,
    NAMESPACES,
    devices=(Device("/dev/null", "c", 1, 3),),
    resources=LIMITS,
    cgroups_path="/cloche/ID",
    sysctl=(("net.ipv4.ip_forward", "1"),),
    masked_paths=("/proc/kcore",),
    readonly_paths=("/proc/sys",),
)
MAPPING = (IdMapping(0, 1000000, 65536),)
JOINED = tuple(n if n.type not in ("pid", "network", "ipc") else Namespace(n.type, "", 42, 4711) for n in NAMESPACES)
FILTER = bytes(8 * 3)
RANGE4, RANGE6 = subnet("172.17.0.0/16"), subnet("fd00:1::/64")
SUBNETS = (Subnet(RANGE4, "172.17.0.1", RANGE4), Subnet(RANGE6, "fd00:1::1", RANGE6))
NETWORKS = (
    Network("ab" * 32, "bridge", "bridge", "cloche0", SUBNETS),
    Network("cd" * 32, "back", "bridge", "clo-cdcdcdcdcd", (SUBNETS[0],), True),
    Network("ef" * 32, "lan", "macvlan", "eth0", (SUBNETS[0],)),
)
ENDPOINTS = (
    Endpoint(NETWORKS[1], ("172.17.0.3",), "02:42:ac:11:00:03", (), "clID-10", "eth0"),
    Endpoint(NETWORKS[0], ("172.17.0.2", "fd00:1::2"), "02:42:ac:11:00:02", (), "clID-11", "eth1"),
    Endpoint(NETWORKS[2], ("172.17.0.4",), "02:42:ac:11:00:04", (), "clID-12", "eth2"),
)
PORTS = (Port("0.0.0.0", "tcp", 8080, 80), Port("::", "tcp", 8080, 80), Port("127.0.0.1", "udp", 5353, 53))
VOLUMES = (
    Mount("/data", "bind", "/store/volumes/data/_data", ("bind", "rw", "rprivate", "idmap")),
    Mount("/part", "bind", "/store/volumes/data/_data", ("bind", "ro", "rprivate", "idmap"), below="some/part"),
    Mount("/host", "bind", "/srv", ("rbind", "rw", "rprivate")),
)


def bundle(spec: Spec, root: Overlay | Folder = ROOT) -> Bundle:
    return Bundle("ID", spec, root, "/run/mnt" if spec.uid_mappings else "/run/mnt/root", FILTER)


def made() -> dict[str, Plan]:
    """Every golden plan, by name."""
    userns = FULL.replace(namespaces=(Namespace("user"), *NAMESPACES), uid_mappings=MAPPING, gid_mappings=MAPPING)
    terminal = FULL.replace(process=FULL.process.replace(terminal=True, console_size=(24, 80), no_new_privileges=True))
    shared = FULL.replace(
        namespaces=JOINED, mounts=(*MOUNTS, Mount("/dev/shm", "bind", "/dev/shm", ("bind",), 42, 4711))
    )
    without = FULL.replace(resources=Resources(), cgroups_path="", process=SHELL.replace(reaper=True))
    joining = Joining(
        "EXEC", SHELL.replace(terminal=True), 42, 4711, (Namespace("user"), *NAMESPACES), "/cloche/ID", FILTER
    )
    v1 = {
        name: plan(bundle(spec), HOSTS["v1"])
        for name, spec in (("v1", FULL), ("terminal", terminal), ("shared", shared))
    }
    attached = bundle(FULL).replace(network=attach("cloche", "cloche web", ENDPOINTS, PORTS, True))
    return v1 | {
        "network": plan(attached, HOSTS["v1"]),
        "v2": plan(bundle(FULL.replace(resources=LIMITS.replace(cpuset_cpus=""))), HOSTS["v2"]),
        "volumes": plan(bundle(userns.replace(resources=Resources(), mounts=(*MOUNTS[:4], *VOLUMES))), HOSTS["v2"]),
        "userns": plan(bundle(userns.replace(resources=Resources(), mounts=MOUNTS[:4])), HOSTS["v2"]),
        "folder": plan(bundle(without.replace(mounts=MOUNTS[:4]), Folder("/srv/root")), HOSTS["none"]),
        "exec-v1": plan_joining(joining, HOSTS["v1"]),
        "exec-v2": plan_joining(joining.replace(namespaces=NAMESPACES), HOSTS["v2"]),
    }


PLANS = made()


def text(of: Plan) -> str:
    return "".join(f"{n:3} {act.actor:6} {act.step.call()}\n    {act.reason()}\n" for n, act in enumerate(of.acts, 1))


@pytest.mark.parametrize("name", PLANS)
def test_plans_are_the_golden_ones(name: str) -> None:
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("CLOCHE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(text(PLANS[name]))
    assert text(PLANS[name]) == path.read_text()
    assert made()[name] == PLANS[name], "the same request gives the same plan"


@pytest.mark.parametrize("name", PLANS)
def test_each_ref_is_given_once_and_before_its_use(name: str) -> None:
    given: set[object] = set()
    for number, act in enumerate(PLANS[name].acts, 1):
        for ref in act.step.needs():
            assert ref in given, f"step {number} needs {ref}"
        for ref in act.step.gives():
            assert ref not in given, f"step {number} gives {ref} again"
            given.add(ref)


@pytest.mark.parametrize("name", PLANS)
def test_no_two_actors_wait_for_each_other(name: str) -> None:
    """Run the actors as processes that only know their own steps: all come to their end."""
    queues: dict[str, list[object]] = {}
    for act in PLANS[name].acts:
        queues.setdefault(act.actor, []).append(act.step)
    said = {"started"}  # exec's success, which closes the status pipe
    while any(queues.values()):
        moved = False
        for queue in queues.values():
            while queue:
                step = queue[0]
                waits = isinstance(step, (Await, Gate)) and step.token not in said
                if waits:
                    break
                if isinstance(step, (Report, Open)):
                    said.add(step.token)
                queue.pop(0)
                moved = True
        assert moved, f"all wait: {[q[0] for q in queues.values() if q]}"


@pytest.mark.parametrize("name", PLANS)
def test_the_flat_form_says_what_the_steps_say(name: str) -> None:
    flat, acts = flatten(PLANS[name]), [(n, a) for n, a in enumerate(PLANS[name].acts, 1) if a.actor != "host"]
    magic, version, count, size = struct.unpack_from("=4I", flat)
    assert (magic, version, count, size) == (MAGIC, VERSION, len(acts), len(flat))
    at = 16
    for number, act in acts:
        op, actor, step, integers, strings, length = struct.unpack_from("=4H2I", flat, at)
        kind, ints, few, many = TABLE[op - 1]
        assert (OPS[act.step.op], kind.op, step, actor) == (op, act.step.op, number, 1 if act.actor == "stage" else 2)
        assert integers == ints
        assert few <= strings <= many
        inside = at + 16 + 8 * integers
        for _ in range(strings):
            (n,) = struct.unpack_from("=I", flat, inside)
            assert flat[inside + 4 + n] == 0
            inside += 5 + n
        assert inside == at + length
        at += length
    assert at == len(flat)


@pytest.mark.parametrize("name", PLANS)
def test_the_flat_form_is_the_same_however_often_its_parts_were_used(name: str) -> None:
    """That of steps that come again is kept by identity; numbers and slots are each plan's own."""
    plan = made()[name]
    first = flatten(plan)
    assert flatten(Plan((*plan.acts[:1], *plan.acts))) != first
    assert flatten(plan) == first == flatten(PLANS[name])


@pytest.mark.parametrize("name", PLANS)
def test_a_stored_plan_is_read_back(name: str) -> None:
    kept = stored.stored(PLANS[name], flatten(PLANS[name]), {"tty": False})
    assert stored.load(stored.dump(kept)) == kept
    assert json.loads(json.dumps(PLANS[name].data()))[0]["step"] == 1
    with pytest.raises(Invalid):
        stored.load(stored.dump(kept)[5:])


def test_planning_opens_nothing_and_loads_no_ctypes() -> None:
    script = f"import sys; sys.path[:0] = {sys.path!r}\nimport cloche.plan\nprint(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"ctypes", "socket", "subprocess", "json", "re", "typing", "enum", "dataclasses"} & set(loaded)


@pytest.mark.parametrize(
    ("spec", "cause"),
    [
        (FULL.replace(process=SHELL.replace(args=())), "no command specified"),
        (FULL.replace(process=SHELL.replace(cwd="relative")), "not an absolute path"),
        (FULL.replace(process=SHELL.replace(args=("a\0b",))), "NUL byte"),
        (FULL.replace(namespaces=(*NAMESPACES, Namespace("pid"))), "given twice"),
        (FULL.replace(namespaces=(Namespace("moon"),)), "none of this name"),
        (FULL.replace(mounts=(Mount("/proc/self", "bind", "/x", ("bind",)),)), "inside /proc"),
        (FULL.replace(mounts=(Mount("/a/../b", "bind", "/x", ("bind",)),)), ".."),
        (FULL.replace(mounts=(Mount("/", "tmpfs", "tmpfs"),)), "the root is the image's"),
        (
            FULL.replace(process=SHELL.replace(rlimits=(Rlimit("RLIMIT_CPU", 1, 1), Rlimit("RLIMIT_CPU", 1, 1)))),
            "given twice",
        ),
        (FULL.replace(process=SHELL.replace(capabilities=Capabilities(("CAP_MOON",)))), "none of this name"),
    ],
)
def test_what_cannot_be_meant_is_one_clear_error(spec: Spec, cause: str) -> None:
    with pytest.raises(Invalid, match=cause.replace(".", r"\.")):
        plan(bundle(spec), HOSTS["v1"])


def test_a_limit_without_its_controller_is_an_error() -> None:
    with pytest.raises(Unsupported, match="no cpuset cgroup controller"):
        plan(bundle(FULL), HOSTS["v2"])
    with pytest.raises(Unsupported, match="their names do not fit"):
        layers = tuple(f"{n}/diff" for n in range(1000))
        plan(bundle(FULL, ROOT.replace(lower=layers)), HOSTS["v1"])


WRITABLE = FULL.replace(
    process=SHELL.replace(user=User(1000, 1000)),
    resources=Resources(),
    mounts=(*MOUNTS[:4], Mount("/sys/fs/cgroup", "cgroup", "cgroup", ("nosuid", "noexec", "nodev"))),
)
MAPPED = WRITABLE.replace(namespaces=(Namespace("user"), *NAMESPACES), uid_mappings=MAPPING, gid_mappings=MAPPING)


@pytest.mark.parametrize(
    ("spec", "host", "owner"),
    [
        (WRITABLE, "v2", 1000),
        (MAPPED, "v2", 1001000),
        (MAPPED.replace(process=SHELL.replace(user=User())), "v2", 1000000),
        (MAPPED.replace(process=SHELL.replace(user=User(name="7:8"))), "v2", 1000007),
        (MAPPED.replace(process=SHELL.replace(user=User(name="web"))), "v2", None),  # only the root says who that is
        (MAPPED.replace(process=SHELL.replace(user=User(65536))), "v2", None),
        (WRITABLE.replace(process=SHELL.replace(user=User())), "v2", None),
        (WRITABLE.replace(mounts=MOUNTS), "v2", None),
        (WRITABLE.replace(mounts=MOUNTS[:4]), "v2", None),
        (WRITABLE.replace(namespaces=NAMESPACES[:-1]), "v2", None),
        (WRITABLE, "v1", None),
    ],
)
def test_a_group_belongs_to_who_may_write_it(spec: Spec, host: str, owner: int | None) -> None:
    """config-linux.md, Cgroup ownership."""
    made = [act.step for act in plan(bundle(spec), HOSTS[host]).acts if isinstance(act.step, DelegateCgroup)]
    assert made == ([] if owner is None else [DelegateCgroup("/sys/fs/cgroup/cloche/ID", owner)])


def test_a_stored_plan_with_an_owner_is_read_back() -> None:
    of = plan(bundle(WRITABLE), HOSTS["v2"])
    kept = stored.stored(of, flatten(of), {})
    assert stored.load(stored.dump(kept)) == kept


def test_without_a_cgroup_namespace_version_1_shows_the_containers_groups_and_version_2_all() -> None:
    spec = FULL.replace(resources=Resources(), namespaces=NAMESPACES[:-1], mounts=MOUNTS[:-1])
    trees = {
        host: [act.step.source for act in plan(bundle(spec), HOSTS[host]).acts if isinstance(act.step, OpenTree)]
        for host in ("v1", "v2")
    }
    assert trees["v1"] == [f"{h.path}/cloche/ID" for h in V1.hierarchies]
    assert trees["v2"] == ["/sys/fs/cgroup"], "where /proc/self/cgroup is a path in it"
