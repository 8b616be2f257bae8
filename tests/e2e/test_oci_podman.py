"""podman with the runtime under test, where it goes its own ways: pods, Kubernetes' files, hooks, descriptors."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.engines import NEEDED, PODMAN, Podman, podman
from e2e.places import IMAGE, cgroup_files, exists, frozen, links, memory_limit, placed, take_away
from leftovers import cgroups
from probes import requires
from screens import eventually

pytestmark = [
    pytest.mark.requires(*NEEDED, *PODMAN),
    pytest.mark.timeout(120),
    pytest.mark.one_lane,
]
SLEEPS = "echo ready; sleep 1000"
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: played}}
spec:
  containers:
  - name: writer
    image: {image}
    imagePullPolicy: Never
    command: ["sh", "-c", "echo $GREETING > /shared/file; sleep 1000"]
    env: [{{name: GREETING, value: hello}}]
    resources: {{limits: {{memory: 64Mi}}}}
    volumeMounts: [{{name: shared, mountPath: /shared}}]
  - name: reader
    image: {image}
    imagePullPolicy: Never
    command: ["sleep", "1000"]
    securityContext: {{runAsUser: 1000, readOnlyRootFilesystem: true}}
    volumeMounts: [{{name: shared, mountPath: /shared}}]
  volumes: [{{name: shared, emptyDir: {{}}}}]
"""
STAGES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


@pytest.fixture(scope="module")
def engine() -> Iterator[Podman]:
    with podman() as started:
        yield started


def test_init_makes_the_container_and_start_begins_its_program(engine: Podman) -> None:
    engine.ok(*engine.making("create", "--name", "made", IMAGE, "sh", "-c", "echo begun"))
    engine.ok("init", "made")
    assert engine.status("made")[0] == "initialized" and engine.ok("logs", "made") == ""
    assert [box["status"] for box in engine.place.containers()] == ["created"]
    pid = int(engine.inspect("made", ".State.Pid"))
    assert exists(pid) and cgroup_files(pid, "pids").exists()
    assert engine.ok("start", "--attach", "made") == "begun"
    engine.ok("rm", "made")


def test_a_container_that_was_made_and_never_started_is_removed(engine: Podman) -> None:
    engine.ok(*engine.making("create", "--name", "made", IMAGE, "true"))
    engine.ok("init", "made")
    pid = int(engine.inspect("made", ".State.Pid"))
    engine.ok("rm", "--force", *engine.at_once, "made")
    assert not exists(pid) and engine.place.containers() == []


def test_podman_asks_the_runtime_for_the_state_and_for_its_version(engine: Podman) -> None:
    with engine.running("asked", SLEEPS):
        assert engine.ok("ps", "--sync", "--filter", "status=running", "--format", "{{.Names}}") == "asked"
    shown = json.loads(engine.ok("info", "--format", "json"))["host"]["ociRuntime"]
    assert shown["path"] == engine.place.runtime
    version = subprocess.run([engine.place.runtime, "--version"], check=True, capture_output=True, text=True).stdout
    assert shown["version"].strip().endswith(version.strip()) and "spec:" in version


def test_a_log_in_json_is_read_where_the_runtime_is_known_to_write_it(engine: Podman) -> None:
    """podman passes --log-format=json only to runtimes of which its configuration says so."""
    settings = engine.place.root / "containers_conf"
    plain = settings.read_text()
    name = os.path.basename(engine.place.runtime)
    settings.write_text(plain.replace("[engine]", f'[engine]\nruntime_supports_json = ["{name}"]'))
    try:
        failed = engine.run("--rm", IMAGE, "/nonexistent")
        assert failed.code == 127 and "level=" not in failed.err and '"level"' not in failed.err
        with engine.running("logged", SLEEPS):
            assert engine.ok("exec", "logged", "echo", "here") == "here"
            assert engine("exec", "logged", "/nonexistent").code == 127
    finally:
        settings.write_text(plain)


def test_descriptors_are_passed_on_when_asked_for_and_no_others(engine: Podman, tmp_path: Path) -> None:
    for name in ("three", "four", "five"):
        (tmp_path / name).write_text(f"{name}\n")
    opened = ("sh", "-c", 'exec "$@" 3<three 4<four 5<five', "sh", *engine.command)
    look = "for n in 3 4 5; do cat /proc/self/fd/$n 2>&1; done; true"
    ours = engine.making("run", "--rm", "--preserve-fds", "2", IMAGE, "sh", "-c", look)
    said = engine.place.run(*opened, *ours, cwd=tmp_path).out.splitlines()
    assert said[:2] == ["three", "four"] and said[2].endswith("No such file or directory")
    with engine.running("given", SLEEPS):
        ours = ["exec", "--preserve-fds", "1", "given", "sh", "-c", look]
        said = engine.place.run(*opened, *ours, cwd=tmp_path).out.splitlines()
        assert said[0] == "three" and all(line.endswith("No such file or directory") for line in said[1:])


def test_a_container_in_the_hosts_pid_namespace_is_stopped_with_all_its_processes(engine: Podman) -> None:
    with engine.running("host", "sleep 1001 & sleep 1002 & echo ready; wait", "--pid", "host") as pid:
        groups = cgroup_files(pid, "pids")
        processes = [int(word) for word in (groups / "cgroup.procs").read_text().split()]
        assert len(processes) == 3
        engine.ok("stop", "--time", "1", "host")
        eventually(lambda: not any(exists(number) for number in processes), "all have ended")
        assert not groups.exists()


def test_user_namespaces_map_ids_and_exec_is_in_them(engine: Podman, tmp_path: Path) -> None:
    flags = ("--uidmap", "0:100000:2000", "--gidmap", "0:200000:2000", "-v", f"{tmp_path}:/host")
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents[:2]:  # pytest's own are for their owner only
        folder.chmod(0o755)
    script = f"cat /proc/self/uid_map /proc/self/gid_map; touch /host/file; stat -c %u:%g /bin/busybox; {SLEEPS}"
    with engine.running("mapped", script, *flags) as pid:
        said = [line.split() for line in engine.ok("logs", "mapped").splitlines()]
        assert said[:3] == [["0", "100000", "2000"], ["0", "200000", "2000"], ["0:0"]]
        made = (tmp_path / "file").stat()
        assert (made.st_uid, made.st_gid) == (100000, 200000)
        status = Path(f"/proc/{pid}/status").read_text()
        assert "Uid:\t100000\t" in status and "Gid:\t200000\t" in status
        assert os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")
        script = "id -u; cat /proc/self/uid_map; readlink /proc/self/ns/user"
        said = engine.ok("exec", "--user", "app", "mapped", "sh", "-c", script).split()
        assert said == ["1000", "0", "100000", "2000", os.readlink(f"/proc/{pid}/ns/user")]
        assert engine.ok("exec", "mapped", "ls", "-ld", "/proc/1/root").split()[2] == "root"


def test_hooks_are_called_at_their_stages_with_the_containers_state(engine: Podman, tmp_path: Path) -> None:
    hooks, said = tmp_path / "hooks", tmp_path / "said"
    for made in (hooks, said):
        made.mkdir()
    for stage in STAGES:
        hook = {"path": "/bin/sh", "args": ["sh", "-c", f"cat > {said}/{stage}; echo {stage} >> {said}/order"]}
        content = {"version": "1.0.0", "hook": hook, "when": {"always": True}, "stages": [stage]}
        (hooks / f"{stage}.json").write_text(json.dumps(content))
    flags = ("--rm", "--name", "hooked", "--annotation", "org.example.key=value", "-v", f"{said}:{said}")
    program = (IMAGE, "sh", "-c", f"echo program >> {said}/order")
    done = engine("--hooks-dir", str(hooks), *engine.making("run", *flags, *program))
    assert done.code == 0, done
    eventually(lambda: (said / "poststop").exists(), "the last hook is called")
    order = (said / "order").read_text().split()
    assert [stage for stage in order if stage not in ("poststart", "program")] == [
        stage for stage in STAGES if stage != "poststart"
    ]
    assert sorted(order) == sorted([*STAGES, "program"])
    states = {stage: json.loads((said / stage).read_text()) for stage in STAGES}
    assert {state["id"] for state in states.values()} == {states["prestart"]["id"]}
    assert states["createRuntime"]["status"] in ("creating", "created") and states["createRuntime"]["pid"] > 0
    assert states["poststop"]["status"] == "stopped"
    assert states["createRuntime"]["annotations"]["org.example.key"] == "value"
    assert Path(states["createRuntime"]["bundle"]).is_relative_to(engine.place.root)


def test_a_hook_that_fails_fails_the_start_and_leaves_nothing(engine: Podman, tmp_path: Path) -> None:
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "echo the hook says no >&2; exit 3"]}
    content = {"version": "1.0.0", "hook": hook, "when": {"always": True}, "stages": ["createRuntime"]}
    (tmp_path / "hook.json").write_text(json.dumps(content))
    failed = engine("--hooks-dir", str(tmp_path), *engine.making("run", "--rm", IMAGE, "echo", "no"))
    assert failed.code in (125, 126) and failed.out == "" and "the hook says no" in failed.err, failed
    assert engine.place.containers() == []


def test_a_health_check_is_an_exec(engine: Podman) -> None:
    flags = ("--health-cmd", "test -e /healthy", "--health-interval", "disable", "--health-retries", "1")
    with engine.running("checked", SLEEPS, *flags):
        assert engine("healthcheck", "run", "checked").code == 1
        assert engine.inspect("checked", ".State.Health.Status") == "unhealthy"
        engine.ok("exec", "checked", "touch", "/healthy")
        assert engine("healthcheck", "run", "checked").code == 0
        assert engine.inspect("checked", ".State.Health.Status") == "healthy"


def test_exec_can_be_privileged_in_a_container_that_is_not(engine: Podman) -> None:
    look = ("grep", "CapEff", "/proc/self/status")
    with engine.running("plain", SLEEPS):
        plain, privileged = engine.ok("exec", "plain", *look), engine.ok("exec", "--privileged", "plain", *look)
    assert plain != privileged and privileged in Path("/proc/self/status").read_text()


def test_a_commit_pauses_and_goes_on(engine: Podman) -> None:
    with engine.running("source", "echo kept > /kept; echo ready; sleep 1000") as pid:
        engine.ok("commit", "--pause", "--quiet", "source", "localhost/committed")
        assert not frozen(pid)
    assert engine.run("--rm", "localhost/committed", "cat", "/kept").out == "kept\n"


def test_a_pod_shares_namespaces_and_is_paused_stopped_and_started_as_one(engine: Podman) -> None:
    flags = ("--cgroup-parent", f"/{engine.place.name}", "--network", "none", "--hostname", "together")
    engine.ok("pod", "create", "--name", "pod", *flags)
    for name in ("one", "two"):
        engine.ok("run", "--detach", "--pod", "pod", "--name", name, IMAGE, "sleep", "1000")
    of = [engine.ok("exec", name, "sh", "-c", links(kinds="net ipc uts pid mnt")).split() for name in ("one", "two")]
    assert of[0][:3] == of[1][:3] and not set(of[0][3:]) & set(of[1][3:])
    assert engine.ok("exec", "two", "hostname") == "together"
    pid = int(engine.inspect("two", ".State.Pid"))
    pod = engine.ok("pod", "inspect", "pod", "--format", "{{.ID}}")
    assert f"/{engine.place.name}/{pod}/" in str(cgroup_files(pid, "pids"))
    assert engine.ok("pod", "top", "pod").count("sleep 1000") >= 2
    engine.ok("pod", "pause", "pod")
    assert frozen(pid) and engine.ok("pod", "ps", "--format", "{{.Status}}") == "Paused"
    engine.ok("pod", "unpause", "pod")
    engine.ok("pod", "stop", "--time", "0", "pod")
    assert not exists(pid)
    engine.ok("pod", "start", "pod")
    assert engine.ok("pod", "ps", "--format", "{{.Status}}") == "Running"
    engine.ok("pod", "rm", "--force", *engine.at_once, "pod")
    assert engine.place.containers() == [] and not [path for path in cgroups((pod,)) if "/libpod-" in path]
    take_away(pod)


def test_a_pod_is_played_from_a_file_of_kubernetes(engine: Podman, tmp_path: Path) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text(POD.format(image=IMAGE))
    engine.ok("play", "kube", "--network", "none", str(file))
    try:
        eventually(lambda: engine("exec", "played-reader", "cat", "/shared/file").out == "hello\n", "it is written")
        identity = "id -u; touch /no 2>&1; true"
        user, refused = engine.ok("exec", "played-reader", "sh", "-c", identity).splitlines()
        assert user == "1000" and refused.endswith("Read-only file system")
        assert memory_limit(int(engine.inspect("played-writer", ".State.Pid"))) == 64 << 20
        pod = engine.ok("pod", "inspect", "played", "--format", "{{.ID}}")
    finally:
        engine.ok("play", "kube", "--down", str(file))
    assert engine.place.containers() == [] and not [path for path in cgroups((pod,)) if "/libpod-" in path]
    take_away(pod, "libpod_parent")


@requires("program:nsenter", "program:unshare", "program:ip", "bridge", "nf_tables", "file:/usr/lib/podman/netavark")
def test_containers_on_a_bridge_reach_each_other() -> None:
    """In a network namespace that stands for the host: the rules that netavark makes end with it."""
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "ip link set lo up; echo ready; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdin and holder.stdout
    try:
        assert holder.stdout.readline() == b"ready\n"
        with placed() as place:
            engine = Podman(place, "nsenter", f"--net=/proc/{holder.pid}/ns/net")
            engine.ok("load", "--quiet", "--input", str(place.images))
            run = ("run", "--cgroup-parent", f"/{place.name}", "--network", "podman")
            engine.ok(*run, "--detach", "--name", "server", IMAGE, "sleep", "1000")
            address = engine.inspect("server", ".NetworkSettings.IPAddress")
            assert address.startswith("10.88.")
            assert "1 packets received" in engine.ok(*run, "--rm", IMAGE, "ping", "-c", "1", "-W", "5", address)
            engine.ok("rm", "--force", *engine.at_once, "server")
            engine("unmount", "--all")
    finally:
        holder.stdin.close()
        holder.stdout.close()
        holder.wait()
