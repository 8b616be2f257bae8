"""Limits as the kernel has them: block I/O, CPUs, memory, devices, the group above; who asks for what is not there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cloche.engine.containers import Engine
from cloche.step.cgroup import LimitCgroup
from commands import cloche, ok, sh
from probes import cgroup_mounts, layout, requires

pytestmark = [requires("root", "overlay"), pytest.mark.usefixtures("store")]
V2 = layout() == "v2"
only_v1 = pytest.mark.skipif(V2, reason="cgroup v1 only")


def disk() -> str:
    """A block device of this host, as --device-read-bps wants it."""
    for entry in sorted(os.listdir("/sys/block")):
        path = f"/dev/{entry}"
        if os.path.exists(path) and stat.S_ISBLK(os.stat(path).st_mode) and not entry.startswith(("zram", "ram")):
            return path
    pytest.skip("needs a block device")


def group(name: str, controller: str, parent: str = "") -> Path:
    engine = Engine()
    tree = next(h for h in engine.host.cgroups.hierarchies if controller in h.controllers)
    found = Path(tree.path + engine.store.cgroup(engine.find(name).id, parent))
    engine.close()
    return found


@pytest.mark.skipif(not V2 and "blkio" not in cgroup_mounts(), reason="needs blkio or io")
def test_rates_of_a_device() -> None:
    device = disk()
    status = os.stat(device)
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    flags = ["--device-read-bps", f"{device}:1mb", "--device-write-iops", f"{device}:50"]
    ok("run", "-d", "--name", "box", "--network", "none", *flags, "starter", "sleep", "1000")
    if V2:
        text = (group("box", "io") / "io.max").read_text()
        assert f"{number} rbps=1048576 wbps=max riops=max wiops=50" in text
    else:
        where = group("box", "blkio")
        assert (where / "blkio.throttle.read_bps_device").read_text() == f"{number} 1048576\n"
        assert (where / "blkio.throttle.write_iops_device").read_text() == f"{number} 50\n"
    assert ok("inspect", "-f", "{{json .HostConfig.BlkioDeviceReadBps}}", "box") == (
        f'[{{"Path":"{device}","Rate":1048576}}]'
    )


@only_v1
@pytest.mark.skipif("blkio" not in cgroup_mounts(), reason="needs blkio")
def test_the_weight_of_block_io() -> None:
    made = cloche(
        "run", "-d", "--name", "box", "--network", "none", "--blkio-weight", "300", "starter", "sleep", "1000"
    )
    if made.code and "blkio.weight" in made.err:
        pytest.skip("needs a scheduler with weights")
    assert made.code == 0, made
    where = group("box", "blkio")
    weight = LimitCgroup(f"{where}/blkio.weight", "", ((f"{where}/blkio.bfq.weight", ""),)).here()
    assert Path(weight.path).read_text().split()[-1] == "300"
    ok("update", "--blkio-weight", "500", "box")
    assert Path(weight.path).read_text().split()[-1] == "500"


@only_v1
@requires("cgroup:memory", "cgroup:cpu", "cgroup:cpuset")
def test_what_version_1_alone_has() -> None:
    flags = ["--memory-swappiness", "10", "--oom-kill-disable", "--cpuset-mems", "0"]
    ok("run", "-d", "--name", "box", "--network", "none", *flags, "starter", "sleep", "1000")
    assert (group("box", "memory") / "memory.swappiness").read_text() == "10\n"
    assert "oom_kill_disable 1" in (group("box", "memory") / "memory.oom_control").read_text()
    assert (group("box", "cpuset") / "cpuset.mems").read_text() == "0\n"


@pytest.mark.skipif(not V2, reason="cgroup v2 only")
def test_what_version_2_has_not_is_refused() -> None:
    refused = cloche("run", "--rm", "--memory-swappiness", "10", "starter", "true")
    assert refused.code == 125 and "cgroup v2 has no swappiness" in refused.err
    assert ok("ps", "-aq") == ""


@requires("cgroup:devices")
@only_v1
def test_a_rule_for_devices_that_it_makes_itself() -> None:
    script = "mknod /tmp/none c 240 7; head -c 0 /tmp/none 2>&1 || true"  # there is no such device
    assert "No such device" in sh(script, "--device-cgroup-rule", "c 240:* rm")
    assert "not permitted" in sh(script)


def test_a_parent_of_the_users_own(store: Path) -> None:
    parent = f"/{store.name}-mine/web"  # the store's mark is in it: the fixture looks for what is left
    tree = Engine()
    roots = [h.path for h in tree.host.cgroups.hierarchies]
    tree.close()
    ok("run", "-d", "--name", "box", "--network", "none", "--cgroup-parent", parent, "starter", "sleep", "1000")
    ident = ok("inspect", "-f", "{{.Id}}", "box")
    assert all(Path(f"{root}{parent}/{ident}/cgroup.procs").read_text().split() for root in roots)
    assert ok("inspect", "-f", "{{.HostConfig.CgroupParent}}", "box") == parent
    assert ok("exec", "box", "echo", "inside") == "inside"
    assert ok("stats", "--no-stream", "--format", "{{.PIDs}}", "box") == "1"
    ok("rm", "-f", "box")
    assert not any(Path(f"{root}{parent}/{ident}").exists() for root in roots), "its own group goes"
    for root in roots:  # what was made above it is the user's
        Path(root + parent).rmdir()
        Path(root + parent).parent.rmdir()


def test_names_beside_the_host_name() -> None:
    script = "cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname; grep box /etc/hosts"
    assert sh(script, "-h", "box", "--domainname", "example.org", "--network", "none").split() == [
        *("box", "example.org", "127.0.1.1", "box.example.org", "box")
    ]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--device-read-bps", "/dev/null:1mb"], "not a block device"),
        (["--device-read-bps", "/dev/nosuch:1mb"], "no such file"),
        (["--cgroup-parent", "../../x"], "no plain path"),
        (["--cpus", "1", "--cpu-quota", "5000"], "cannot both be set"),
        (["--runtime", "runc"], "not one of: cloche"),
        (["--isolation", "hyperv"], "not one of: default"),
        (["--label-file", "/nosuch"], "read the label file /nosuch"),
    ],
)
def test_what_is_refused_leaves_nothing(flags: list[str], words: str) -> None:
    refused = cloche("run", *flags, "starter", "true")
    assert refused.code == 125 and words in refused.err and len(refused.err.splitlines()) == 1
    assert cloche("ps", "-aq").out == "" or cloche("rm", *ok("ps", "-aq").split()).code == 0
