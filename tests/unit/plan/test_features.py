"""What each part of the runtime specification adds to a plan, without root: config.json in, steps out.

The golden file has for each part the steps that are there with it and not without. `CLOCHE_GOLDEN=1 pytest` renews it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from cloche.errors import Error
from cloche.kernel.cgroups import KNOWN, Hierarchy, Layout
from cloche.oci.config import parse
from cloche.plan import Bundle, plan
from cloche.plan.bundle import Listener
from cloche.runtime.oci.bundle import notifies, settle
from cloche.step.base import Plan
from cloche.step.flat import TABLE, flatten
from cloche.step.host import Host
from cloche.step.rootfs import Folder
from configs import documents

GOLDEN = Path(__file__).with_name("golden") / "features.txt"
NAMES = (*KNOWN, "net_cls", "net_prio", "rdma", "name=systemd")
V1 = Host((6, 1), "x86_64", Layout(1, tuple(Hierarchy((c,), f"/cg/{c}") for c in NAMES)), (1 << 41) - 1)
V2 = V1.replace(cgroups=Layout(2, (Hierarchy(("cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma"), "/cg"),)))
KINDS = ("mount", "pid", "network", "ipc", "uts", "cgroup")
BASE: dict[str, Any] = {
    "ociVersion": "1.3.0",
    "process": {"args": ["sh"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0, "umask": 18}},
    "root": {"path": "rootfs"},
    "mounts": [{"destination": "/proc", "type": "proc"}],
    "linux": {"namespaces": [{"type": kind} for kind in KINDS], "cgroupsPath": "/group"},
}
MAPS = [{"containerID": 0, "hostID": 100000, "size": 65536}]
USERNS = {"namespaces": [{"type": kind} for kind in (*KINDS, "user")], "uidMappings": MAPS, "gidMappings": MAPS}
TIME = {"namespaces": [{"type": kind} for kind in (*KINDS, "time")], "timeOffsets": {"boottime": {"secs": 10}}}
HOOK = {"path": "/bin/hook", "args": ["hook", "--now"], "env": ["A=1"], "timeout": 5}
SCHEDULER = {"policy": "SCHED_FIFO", "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
CPU = {"shares": 512, "quota": 5, "period": 10, "burst": 3, "idle": 1, "cpus": "0"}
NOTIFY = {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}
SECCOMP = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent", "syscalls": [NOTIFY]}


def bound(*options: str, **more: Any) -> dict[str, Any]:
    return {"mounts": [{"destination": "/in", "type": "bind", "source": "/out", "options": list(options), **more}]}


def tmpfs(*options: str) -> dict[str, Any]:
    return {"mounts": [{"destination": "/in", "type": "tmpfs", "options": list(options)}]}


PARTS: dict[str, dict[str, Any]] = {
    "user namespace": {"linux": USERNS},
    "time offsets": {"linux": TIME},
    "namespace by path": {"linux": {"namespaces": [{"type": "mount"}, {"type": "network", "path": "/run/netns/x"}]}},
    "mount namespace by path": {"linux": {"namespaces": [{"type": "mount", "path": "/run/mnt"}]}, "mounts": []},
    "no mount namespace": {"linux": {"namespaces": [{"type": "pid"}]}, "mounts": []},
    "bind": bound("rbind", "ro", "nosuid"),
    "recursive attributes": bound("rbind", "rro", "rsuid", "rslave"),
    "mapped ids": bound("rbind", "idmap", uidMappings=MAPS, gidMappings=MAPS),
    "recursively mapped ids": bound("rbind", "ridmap", uidMappings=MAPS, gidMappings=MAPS),
    "tmpfs with what it covers": tmpfs("tmpcopyup", "ro", "mode=700"),
    "propagation of a tmpfs": tmpfs("rshared"),
    "remount": tmpfs("remount", "ro"),
    "cgroup mount": {"mounts": [{"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro"]}]},
    "root propagation": {"linux": {"rootfsPropagation": "rshared"}},
    "readonly root": {"root": {"path": "rootfs", "readonly": True}},
    "devices": {"linux": {"devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "uid": 5}]}},
    "hidden paths": {"linux": {"maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"]}},
    "names": {"hostname": "glass", "domainname": "dome"},
    "sysctl": {"linux": {"sysctl": {"net.ipv4.ip_forward": "1"}}},
    "terminal": {"process": {"terminal": True, "consoleSize": {"height": 24, "width": 80}}},
    "scheduler": {"process": {"scheduler": SCHEDULER}},
    "I/O priority": {"process": {"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 6}}},
    "memory policy": {"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-1"}}},
    "working directory": {"process": {"cwd": "/work"}},
    "personality": {"linux": {"personality": {"domain": "LINUX32"}}},
    "OOM score": {"process": {"oomScoreAdj": 100}},
    "limits of a process": {"process": {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}]}},
    "no new privileges": {"process": {"noNewPrivileges": True}},
    "network devices": {"linux": {"netDevices": {"eth9": {"name": "inner%d"}}}},
    "hooks": {"hooks": {k: [HOOK] for k in ("prestart", "createRuntime", "createContainer", "startContainer")}},
    "notifications": {"linux": {"seccomp": SECCOMP}},
    "memory": {"linux": {"resources": {"memory": {"limit": 1 << 20, "swap": 2 << 20, "reservation": 1 << 19}}}},
    "CPU": {"linux": {"resources": {"cpu": CPU}}},
    "processes": {"linux": {"resources": {"pids": {"limit": 9}}}},
    "huge pages, RDMA": {
        "linux": {
            "resources": {
                "hugepageLimits": [{"pageSize": "2MB", "limit": 4096}],
                "rdma": {"mlx5_1": {"hcaHandles": 3}},
            }
        }
    },
}  # fmt: skip
V1_ONLY = {
    "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 5}]},
    "blockIO": {"leafWeight": 10},
}
V2_ONLY = {"unified": {"memory.high": "1048576", "cgroup.max.depth": "3"}}


def merged(base: Any, part: Any) -> Any:
    if isinstance(base, dict) and isinstance(part, dict):
        return {
            k: merged(base[k], part[k]) if k in base and k in part else part.get(k, base.get(k))
            for k in {**base, **part}
        }
    return (
        base + part if isinstance(base, list) and isinstance(part, list) and part and "destination" in part[0] else part
    )


def made(document: Any, host: Host, **more: Any) -> Plan:
    """The plan of a container that waits for its start; a filter stands for any."""
    spec = settle(parse(json.dumps(document)), "/bundle", "name", lambda message: None)
    found = Bundle("name", spec, Folder("/bundle/rootfs", mapped=False), "/bundle/rootfs", b"12345678")
    states = ('{"status":"creating","pid":', "}")
    if notifies(spec):
        more["listener"] = Listener("/run/agent", "", states, "1.3.0")
    return plan(found.replace(created=True, state=states, **more), host)


def lines(of: Plan) -> list[str]:
    return [f"{act.actor:6} {act.step.call()}" for act in of.acts]


def added(document: Any, host: Host, **more: Any) -> str:
    """What is there with it, and what is not any more."""
    before, after = lines(made(BASE, host)), lines(made(document, host, **more))
    gone = [line for line in before if line not in after]
    return "".join([f"+ {line}\n" for line in after if line not in before] + [f"- {line}\n" for line in gone])


def golden() -> str:
    texts = {name: added(merged(BASE, part), V1) for name, part in PARTS.items()}
    texts["limits of cgroup v1"] = added(merged(BASE, {"linux": {"resources": V1_ONLY}}), V1)
    for name in ("cgroup mount", "memory", "CPU", "processes", "huge pages, RDMA"):
        texts[f"{name}, cgroup v2"] = added(merged(BASE, PARTS[name]), V2)
    texts["unified"] = added(merged(BASE, {"linux": {"resources": V2_ONLY}}), V2)
    texts["passed descriptors"] = added(BASE, V1, passed=2)
    texts["no pivot, no keyring"] = added(BASE, V1, pivot=False, keyring=False)
    return "".join(f"# {name}\n{text}\n" for name, text in texts.items())


def test_what_each_part_adds_is_the_golden_one() -> None:
    if os.environ.get("CLOCHE_GOLDEN"):
        GOLDEN.write_text(golden())
    assert golden() == GOLDEN.read_text()


def test_every_kind_of_step_that_bell_knows_is_in_a_golden_plan() -> None:
    ours = {type(act.step).__name__ for part in PARTS.values() for act in made(merged(BASE, part), V1).acts}
    ours |= {type(act.step).__name__ for act in made(BASE, V1, passed=2, pivot=False).acts}
    others = {"MountOverlay", "JoinCgroup", "Gate", "SetAffinity", "OpenForJoining"}  # in the plans beside this one
    assert {kind.__name__ for kind, *_ in TABLE} <= ours | others


@pytest.mark.parametrize("host", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("name", PARTS)
def test_what_is_needed_has_been_given(name: str, host: Host) -> None:
    wanted = made(merged(BASE, PARTS[name]), host)
    known = {"start"}
    for act in wanted.acts:
        for ref in act.step.needs():
            assert ref.name in known or ref.name.startswith("passed."), (act, ref)
        known |= {ref.name for ref in act.step.gives()}
    assert flatten(wanted)


@settings(max_examples=100, deadline=None)
@given(documents())
def test_every_valid_document_gives_a_plan_or_one_error(document: Any) -> None:
    for host in (V1, V2):
        try:
            wanted = made(document, host)
        except Error as error:
            assert str(error).isprintable()
        else:
            assert flatten(wanted)
