"""containerd with the runtime under test, by the CRI, as kubelet would: pods, and containers in them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cri import Refused, ask
from e2e.engines import CONTAINERD, NEEDED, Containerd, containerd
from e2e.places import IMAGE, exists, links, memory_limit
from probes import requires
from screens import eventually

pytestmark = [
    pytest.mark.requires(*NEEDED, *CONTAINERD, "program:curl"),
    pytest.mark.timeout(120),
    pytest.mark.one_lane,
]
POD, CONTAINER, NODE = 0, 1, 2  # whose a namespace is
CREATED, RUNNING, EXITED = 0, 1, 2


@pytest.fixture(scope="module")
def engine() -> Iterator[Containerd]:
    with containerd() as started:
        yield started


class Kubelet:
    """Pods by the CRI."""

    def __init__(self, engine: Containerd) -> None:
        self.engine, self.logs = engine, engine.place.root / "logs"
        self.pods: list[str] = []

    def ask(self, call: str, **request: Any) -> dict[str, Any]:
        return ask(self.engine.socket, call, **request)

    def config(self, name: str) -> dict[str, Any]:
        security = {"namespace_options": {"network": NODE}}  # there are no plugins to make networks with
        linux = {"cgroup_parent": f"/{self.engine.place.name}", "security_context": security}
        metadata = {"name": name, "uid": name, "namespace": "default"}
        return {"metadata": metadata, "log_directory": str(self.logs), "linux": linux}

    def pod(self, name: str) -> str:
        ident = str(self.ask("RunPodSandbox", config=self.config(name))["pod_sandbox_id"])
        self.pods.append(ident)
        return ident

    def container(self, pod: str, name: str, script: str, security: Any = (), resources: Any = (), **more: Any) -> str:
        own = {"namespace_options": {"network": NODE, "pid": CONTAINER}}
        config = {
            "metadata": {"name": name},
            "image": {"image": IMAGE},
            "command": ["sh", "-c", script],
            "log_path": f"{name}.log",
            "linux": {"resources": dict(resources), "security_context": {**own, **dict(security)}},
            **more,
        }
        made = self.ask("CreateContainer", pod_sandbox_id=pod, config=config, sandbox_config=self.config("pod"))
        self.ask("StartContainer", container_id=made["container_id"])
        return str(made["container_id"])

    def sh(self, container: str, script: str) -> tuple[int, str, str]:
        done = self.ask("ExecSync", container_id=container, cmd=["sh", "-c", script], timeout=20)
        return done["exit_code"], done["stdout"], done["stderr"]

    def status(self, container: str) -> dict[str, Any]:
        return dict(self.ask("ContainerStatus", container_id=container)["status"])

    def pid(self, container: str) -> int:
        (info,) = self.ask("ContainerStatus", container_id=container, verbose=1)["info"]
        return int(json.loads(info["value"])["pid"])

    def said(self, name: str) -> list[str]:
        lines = (self.logs / f"{name}.log").read_text().splitlines()
        return [line.split(" ", 3)[3] for line in lines]

    def end(self) -> None:
        for pod in self.pods:
            self.ask("StopPodSandbox", pod_sandbox_id=pod)
            self.ask("RemovePodSandbox", pod_sandbox_id=pod)


@pytest.fixture
def kubelet(engine: Containerd) -> Iterator[Kubelet]:
    if subprocess.run(["curl", "--version"], capture_output=True, text=True).stdout.find("HTTP2") < 0:
        pytest.skip("needs a curl that speaks HTTP/2")
    client = Kubelet(engine)
    yield client
    client.end()
    assert engine.place.containers() == []


def test_the_cri_runs_pods_whose_containers_share_namespaces(kubelet: Kubelet) -> None:
    pod = kubelet.pod("pod")
    (info,) = [
        json.loads(pair["value"])
        for pair in kubelet.ask("PodSandboxStatus", pod_sandbox_id=pod, verbose=1)["info"]
        if pair["key"] == "info"
    ]
    script = "echo out; echo err >&2; trap 'exit 7' TERM; while :; do sleep 0.05; done"
    shared = {"namespace_options": {"network": NODE, "pid": POD}}
    first, second = (kubelet.container(pod, name, script, security=shared) for name in ("one", "two"))
    of = [kubelet.sh(box, links(kinds="ipc uts net pid mnt"))[1].split() for box in (first, second)]
    assert of[0][:4] == of[1][:4] and of[0][4] != of[1][4]
    assert of[0][0] == os.readlink(f"/proc/{info['pid']}/ns/ipc")
    eventually(lambda: sorted(kubelet.said("one")) == ["err", "out"], "the log is written")
    kubelet.ask("StopContainer", container_id=first, timeout=20)
    assert kubelet.status(first) == {**kubelet.status(first), "state": EXITED, "exit_code": 7}
    assert kubelet.status(second)["state"] == RUNNING
    kubelet.ask("RemoveContainer", container_id=first)
    with pytest.raises(Refused, match="not found"):
        kubelet.status(first)


def test_the_cri_executes_limits_updates_and_measures(kubelet: Kubelet) -> None:
    resources = {"cpu_period": 100000, "cpu_quota": 50000, "memory_limit_in_bytes": 64 << 20, "oom_score_adj": 500}
    box = kubelet.container(kubelet.pod("pod"), "box", "sleep 1000", resources=resources)
    pid = kubelet.pid(box)
    assert memory_limit(pid) == 64 << 20 and Path(f"/proc/{pid}/oom_score_adj").read_text() == "500\n"
    assert kubelet.sh(box, "echo out; echo err >&2; exit 3") == (3, "out\n", "err\n")
    with pytest.raises(Refused, match=r"(?i)no such file"):
        kubelet.ask("ExecSync", container_id=box, cmd=["/nonexistent"], timeout=20)
    with pytest.raises(Refused, match=r"(?i)deadline|timeout"):
        kubelet.ask("ExecSync", container_id=box, cmd=["sleep", "1000"], timeout=1)
    kubelet.ask("UpdateContainerResources", container_id=box, linux={"memory_limit_in_bytes": 32 << 20})
    assert memory_limit(pid) == 32 << 20
    assert kubelet.ask("ContainerStats", container_id=box)["stats"]["memory"]["usage"]["value"] > 0
    kubelet.ask("StopContainer", container_id=box, timeout=0)
    assert kubelet.status(box)["exit_code"] == 137 and not exists(pid)


@requires("seccomp")
def test_the_cri_sets_what_a_process_may(kubelet: Kubelet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content\n")
    tmp_path.chmod(0o777)
    security = {
        "capabilities": {"add_capabilities": ["SYS_PTRACE"], "drop_capabilities": ["ALL"]},
        "readonly_rootfs": 1,
        "run_as_user": {"value": 1000},
        "no_new_privs": 1,
        "supplemental_groups": [77],
        "seccomp": {},
        "masked_paths": ["/proc/version"],
        "readonly_paths": ["/proc/sys"],
    }
    script = (
        "id; touch /no 2>&1; cat /given/file; touch /given/no 2>&1; wc -c < /proc/version;"
        "grep -E '^(Seccomp|NoNewPrivs|CapBnd):' /proc/self/status | cut -f2"
    )
    mounts = [{"container_path": "/given", "host_path": str(tmp_path), "readonly": 1}]
    pod = kubelet.pod("pod")
    box = kubelet.container(pod, "box", script, security=security, mounts=mounts)
    eventually(lambda: kubelet.status(box)["state"] == EXITED, "it has ended")
    identity, root, content, given, masked, bounding, no_new, seccomp = kubelet.said("box")
    assert identity.startswith("uid=1000(app) gid=1000(app)") and "77" in identity
    assert root.endswith("Read-only file system") and given.endswith("Read-only file system")
    assert (content, masked, int(bounding, 16), no_new, seccomp) == ("content", "0", 1 << 19, "1", "2")


def test_the_cri_says_why_a_container_cannot_start(kubelet: Kubelet) -> None:
    pod = kubelet.pod("pod")
    for name, changes in (("one", {"command": ["/nonexistent"]}), ("two", {"working_dir": "/etc/passwd"})):
        with pytest.raises(Refused, match=r"OCI runtime create failed: .*(no such file|not a directory)"):
            kubelet.container(pod, name, "true", **changes)
    box = kubelet.container(pod, "after", "sleep 1000")
    assert kubelet.status(box)["state"] == RUNNING
