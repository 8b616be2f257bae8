"""commit, save, import, history: images of containers and of files, on the real kernel; whole or not at all."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import sqlite3
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

import leftovers
import probes
from archives import entry, packed
from cloche.sdk import Client
from commands import COMMAND, Result, cloche, ok
from probes import requires

pytestmark = [
    pytest.mark.one_lane,
    requires("root", "overlay"),
    pytest.mark.usefixtures("store"),
    pytest.mark.timeout(180),
]


def box(script: str = "true", *flags: str, name: str = "box") -> None:
    """A container that has done `script` and goes on."""
    ok(
        "run",
        "-d",
        "--name",
        name,
        "--network",
        "none",
        *flags,
        "starter",
        "sh",
        "-c",
        f"{script}\ntouch /dev/shm/ready; exec sleep 1000",
    )
    end = time.monotonic() + 20
    while cloche("exec", name, "test", "-e", "/dev/shm/ready").code:
        assert time.monotonic() < end


def inside(image: str, script: str, *flags: str) -> str:
    return ok("run", "--rm", "--network", "none", "--pull", "never", *flags, image, "sh", "-c", script)


def refused(result: Result, *said: str) -> None:
    assert result.code and result.err.count("\n") == 1, result
    assert all(text in result.err for text in said), result.err


FILES = """
echo new >/new; chmod 4751 /new; chown 12:34 /new; touch -d @1000000000 /new
mkdir -p /deep/er; echo a >/deep/er/a; ln /deep/er/a /deep/b; ln -s /nowhere /deep/link; mknod /deep/pipe p
mknod /deep/null c 1 3; chmod 1777 /deep
rm /usr/bin/wc; rm -r /etc/ssl; mkdir -p /gone; rmdir /gone
rm -rf /usr/share; mkdir /usr/share; echo only >/usr/share/only
truncate -s 8M /sparse; echo end >>/sparse
"""
LOOK = """
stat -c '%a %u:%g %Y' /new; cat /new; cat /deep/b; readlink /deep/link; stat -c %a /deep
[ /deep/b -ef /deep/er/a ] && echo linked; [ -p /deep/pipe ] && echo pipe; stat -c '%t:%T' /deep/null
[ -e /usr/bin/wc ] || echo removed; [ -e /gone ] || echo never; ls /usr/share
stat -c %s /sparse; tail -c 4 /sparse
"""


@pytest.mark.parametrize("flags", [(), ("--userns", "auto")], ids=["host", "userns"])
def test_all_that_a_container_changed_and_nothing_else(store: Path, flags: tuple[str, ...]) -> None:
    mapped = "id-mapped" not in cloche("run", "--rm", "--network", "none", "--userns", "auto", "starter", "true").err
    if flags and not mapped:
        pytest.skip("needs a file system that can be mounted id-mapped")
    script = FILES.replace("mknod /deep/null c 1 3;", "") if flags else FILES
    look = LOOK.replace("stat -c '%t:%T' /deep/null", "true") if flags else LOOK
    box(script, *flags)
    before = ok("exec", "box", "sh", "-c", look)
    assert "removed" in before and "linked" in before and "12:34" in before
    ident = ok("commit", "box", "made:1")
    assert ident.startswith("sha256:") and ok("inspect", "-f", "{{.Id}}", "made:1") == ident
    assert inside("made:1", look) == before
    assert not mapped or inside("made:1", look, "--userns", "auto") == before
    assert ok("ps", "--format", "{{.State}}") == "running"
    layer = max((store / "layers").iterdir(), key=lambda p: int(p.name)) / "diff"
    assert {p.name for p in layer.iterdir()} <= {"new", "deep", "usr", "etc", "sparse"}
    assert not any((layer / "etc" / name).exists() for name in ("hosts", "hostname", "resolv.conf"))
    assert all(p.lstat().st_uid < 65536 for p in layer.rglob("*"))
    status = layer.stat()
    assert (status.st_uid, status.st_gid) == (0, 0)


def test_layers_stack_and_an_unchanged_container_adds_none() -> None:
    box("echo 1 >/one; echo 1 >/both")
    ok("commit", "box", "first")
    ok("run", "--name", "second", "--network", "none", "first", "sh", "-c", "rm /one; echo 2 >/both")
    ok("commit", "second", "second")
    assert inside("second", "cat /both; ls /one 2>&1 || true").startswith("2\n")
    ok("create", "--name", "third", "second", "true")
    ok("commit", "-m", "nothing", "third", "third")
    layers = [
        json.loads(ok("inspect", "--type", "image", name))[0]["RootFS"]["Layers"]
        for name in ("starter", "first", "second", "third")
    ]
    assert [len(each) for each in layers] == [1, 2, 3, 3] and layers[3] == layers[2] and layers[2][:2] == layers[1]
    rows = ok("history", "--no-trunc", "--format", "{{.Size}} {{.Comment}}", "third").split("\n")
    assert len(rows) == 4 and rows[0] == "0B nothing"
    assert len(ok("history", "-q", "third").split()) == 4
    assert json.loads(ok("history", "--format", "json", "third").split("\n")[0])["Comment"] == "nothing"


def test_the_configuration_is_the_containers_with_changes() -> None:
    box("true", "-e", "A=1", "-e", "B=2", "-l", "x=y", "-w", "/usr", "--expose", "99", "--health-cmd", "true")
    changes = ("-c", "ENV B=3 C=$A", "-c", 'CMD ["env"]', "-c", "LABEL z=1", "-c", "USER 5:6", "-c", "EXPOSE 80")
    ok("commit", "-a", "me", "-m", "why", *changes, "box", "made")
    found = json.loads(ok("inspect", "made"))[0]
    config = found["Config"]
    assert found["Author"] == "me" and found["Comment"] == "why"
    assert {"A=1", "B=3", "C=1"} <= set(config["Env"]) and not any(e.startswith("HOSTNAME") for e in config["Env"])
    assert config["Cmd"] == ["env"] and config["User"] == "5:6" and config["WorkingDir"] == "/usr"
    assert config["Labels"]["x"] == "y" and config["Labels"]["z"] == "1"
    assert set(config["ExposedPorts"]) == {"80/tcp", "99/tcp"} and config["Healthcheck"]["Test"] == [
        "CMD-SHELL",
        "true",
    ]
    ok("commit", "box", "plain")
    assert json.loads(ok("inspect", "plain"))[0]["Config"]["Cmd"][:2] == ["sh", "-c"]
    assert "B=3" in ok("run", "--rm", "--network", "none", "made").split("\n")


def test_volumes_and_binds_are_not_in_it(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("bound")
    box("echo v >/vol/v; echo t >/tmp2/t", "-v", "/vol", "-v", f"{tmp_path}:/bound", "--tmpfs", "/tmp2")
    ok("commit", "box", "made")
    assert json.loads(ok("inspect", "made"))[0]["Config"]["Volumes"] == {"/vol": {}}
    with tarfile.open(fileobj=io.BytesIO(_saved("made"))) as outer:
        manifest = json.load(outer.extractfile("manifest.json") or io.BytesIO())
        layer = outer.extractfile(manifest[0]["Layers"][-1])
        assert layer is not None
        with tarfile.open(fileobj=layer) as inner:
            assert {name.strip("./") for name in inner.getnames()} <= {"vol", "bound", "tmp2", ""}


def _saved(*names: str) -> bytes:
    return subprocess.run([*COMMAND, "save", *names], check=True, capture_output=True).stdout


def _is_marked(store: Path) -> bool:
    """Whether the record of a container says that it is paused: then its health is not checked."""
    db = sqlite3.connect(store / "db")
    try:
        return bool(db.execute("SELECT sum(paused) FROM containers").fetchone()[0])
    finally:
        db.close()


@requires("cgroup:freezer")
def test_it_stands_still_meanwhile_and_goes_on_whoever_is_killed(store: Path, kills: int) -> None:
    box(
        "mkdir /many; for i in $(seq 300); do echo $i >/many/$i; done\n"
        "dd if=/dev/zero of=/big bs=1M count=40 2>/dev/null"
    )
    ok("commit", "box", "whole")
    events = ok("events", "--since", "20s", "--until", "0s", "--format", "{{.Action}}").split("\n")
    assert events.index("pause") < events.index("unpause") < events.index("commit")
    before = ok("images", "-q", "--no-trunc")
    layers = set(os.listdir(store / "layers"))
    for attempt in range(kills):
        process = subprocess.Popen([*COMMAND, "commit", "box"], stdout=subprocess.PIPE, start_new_session=True)
        select.select([], [], [], 0.05 + 0.4 * attempt / kills)
        process.send_signal(signal.SIGKILL)
        out = process.communicate()[0].decode().strip()
        end = time.monotonic() + 5
        while ok("ps", "--format", "{{.State}}") != "running" or _is_marked(store):
            assert time.monotonic() < end, "it is frozen for ever"
        assert ok("exec", "box", "echo", "alive") == "alive"
        made = set(ok("images", "-q", "--no-trunc").split()) - set(before.split())
        assert not out or out in made
        for ident in made:
            assert inside(ident, "ls /many | wc -l; stat -c %s /big") == f"300\n{40 << 20}"
            ok("rmi", ident)
    ok("commit", "box", "again")
    ok("rmi", "again")
    assert set(os.listdir(store / "layers")) == layers
    assert set(os.listdir(store / "aside")) == {"lock"}


def test_a_paused_or_ended_container_is_left_as_it_was() -> None:
    box("echo 1 >/f")
    if probes.available("cgroup:freezer"):
        ok("pause", "box")
        ok("commit", "box", "paused")
        assert ok("ps", "--format", "{{.State}}") == "paused"
        ok("unpause", "box")
    ok("commit", "--pause=false", "box", "running")
    ok("kill", "box")
    ok("wait", "box")
    ok("commit", "box", "ended")
    assert inside("running", "cat /f") == inside("ended", "cat /f") == "1"


def test_bad_commits_change_nothing() -> None:
    box("touch /.wh.hidden")
    before = ok("images", "-aq")
    refused(cloche("commit", "box"), ".wh.hidden", "whiteout")
    ok("exec", "box", "rm", "/.wh.hidden")
    refused(cloche("commit", "-c", "RUN x", "box"), "RUN is no change")
    refused(cloche("commit", "-c", "NOPE", "box"), "unknown instruction")
    refused(cloche("commit", "box", "UPPER"), "lowercase")
    refused(cloche("commit", "box", "../x"), "invalid reference format")
    refused(cloche("commit", "box", "sha256"), "cannot be an image's")
    refused(cloche("commit", "box", "x@sha256:" + "0" * 64), "digest")
    refused(cloche("commit", "nobody"), "No such container: nobody")
    assert ok("images", "-aq") == before
    assert ok("ps", "--format", "{{.State}}") == "running"


def test_file_capabilities_of_a_user_namespace_are_the_layers_own() -> None:
    give = (
        "import os; os.setxattr('/f', 'security.capability', bytes.fromhex('0100000200040000000000000000000000000000'))"
    )
    if not Path("/usr/bin/python3").exists():
        pytest.skip("there is no python3 to be packed")
    ok("pack", "-t", "py", "/usr/bin/python3", "sh", "cp", "sleep", "touch", "--add", "/usr/lib/python3.11")
    flags = ("run", "--name", "box", "--network", "none", "--userns", "auto")
    done = cloche(*flags, "py", "sh", "-c", f'touch /f; /usr/bin/python3 -c "{give}"')
    if "id-mapped" in done.err:
        pytest.skip("needs a file system that can be mounted id-mapped")
    assert done.code == 0, done
    ok("commit", "box", "made")
    show = "import os; print(os.getxattr('/f', 'security.capability').hex())"
    value = ok("run", "--rm", "--network", "none", "--entrypoint", "/usr/bin/python3", "made", "-c", show)
    assert value == "0100000200040000000000000000000000000000"


@pytest.mark.usefixtures("private_mounts")
def test_a_full_disk_leaves_nothing_half_made(store: Path) -> None:
    probes.mount("tmpfs", str(store), "tmpfs", 0, "size=100m,mode=755")
    try:
        box("dd if=/dev/urandom of=/big bs=1M count=22 2>/dev/null")
        before = ok("images", "-q")
        refused(cloche("commit", "box", "big"), "ENOSPC")
        assert ok("images", "-q") == before and ok("ps", "--format", "{{.State}}") == "running"
        assert set(os.listdir(store / "aside")) <= {"lock"}
        assert len(os.listdir(store / "layers")) == 1
    finally:
        leftovers.end_store(store)
        probes.libc.umount2(str(store).encode(), probes.MNT_DETACH)


# save


def test_what_is_saved_is_loaded_and_is_the_same_again(store: Path, tmp_path: Path) -> None:
    box("echo 1 >/f")
    ok("commit", "box", "team/made:1")
    ok("tag", "team/made:1", "team/made:2")
    ok("save", "-o", str(tmp_path / "a.tar"), "team/made", "starter")
    assert _saved("team/made", "starter") == (tmp_path / "a.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        manifest = json.load(archive.extractfile("manifest.json") or io.BytesIO())
        assert manifest[0]["RepoTags"] == ["team/made:1", "team/made:2"]
        assert archive.getnames() == [*archive.getnames()[:2], *sorted(archive.getnames()[2:])]
    ident = ok("inspect", "-f", "{{.Id}}", "team/made:1")
    ok("rm", "-f", "box")
    ok("rmi", "-f", "team/made:1", "team/made:2")
    assert "Loaded image: team/made:1" in ok("load", "-i", str(tmp_path / "a.tar"))
    assert ok("inspect", "-f", "{{.Id}}", "team/made:2") == ident and inside("team/made:2", "cat /f") == "1"
    assert _saved("team/made", "starter") == (tmp_path / "a.tar").read_bytes()
    ok("save", "-o", str(tmp_path / "b.tar"), ident)
    with tarfile.open(tmp_path / "b.tar") as archive:
        assert json.load(archive.extractfile("manifest.json") or io.BytesIO())[0]["RepoTags"] is None
    assert "save" in ok("events", "--since", "60s", "--until", "0s", "--filter", "event=save")


def test_what_cannot_be_saved_leaves_no_file(tmp_path: Path) -> None:
    inside("starter", "true")
    target = tmp_path / "x.tar"
    refused(cloche("save", "-o", str(target), "nosuch"), "No such image")
    refused(cloche("save", "-o", str(target), "--platform", "linux/s390x", "starter"), "not for linux/s390x")
    refused(cloche("save", "-o", str(tmp_path / "no" / "x.tar"), "starter"), "ENOENT")
    ok(
        "save",
        "--platform",
        f"linux/{ok('inspect', '-f', '{{.Architecture}}', 'starter')}",
        "-o",
        str(target),
        "starter",
    )
    target.unlink()


def test_a_save_that_is_killed_leaves_a_whole_file_or_none(tmp_path: Path, kills: int) -> None:
    whole, target, cut = _saved("starter"), tmp_path / "x.tar", 0
    for attempt in range(kills):
        process = subprocess.Popen([*COMMAND, "save", "-o", str(target), "starter"])
        select.select([], [], [], 0.3 * attempt / kills)
        process.kill()
        process.wait()
        if target.exists():
            assert target.read_bytes() == whole
            target.unlink()
        else:
            cut += 1
    assert cut, "none was cut short"


# import


def pour(data: bytes, *words: str) -> Result:
    done = subprocess.run([*COMMAND, *words], input=data, capture_output=True)
    assert b"Traceback" not in done.stderr, done.stderr
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_files_become_an_image(tmp_path: Path) -> None:
    box("echo 1 >/f; rm /usr/bin/wc")
    archive = subprocess.run([*COMMAND, "export", "box"], check=True, capture_output=True).stdout
    made = pour(archive, "import", "-m", "flat", "-c", 'CMD ["cat","/f"]', "-", "flat:1")
    assert made.code == 0 and made.out.startswith("sha256:")
    assert ok("run", "--rm", "--network", "none", "flat:1") == "1"
    assert ok("history", "--format", "{{.Comment}}", "flat:1") == "flat"
    (tmp_path / "x.tar.gz").write_bytes(packed((entry("hello"), b"x"), mode="w:gz"))
    ident = ok("import", "--platform", "linux/arm64", str(tmp_path / "x.tar.gz"))
    assert ok("inspect", "-f", "{{.Architecture}}", ident) == "arm64"
    assert ok("history", "--format", "{{.Comment}}", ident) == f"Imported from {tmp_path}/x.tar.gz"
    assert "import" in ok("events", "--since", "60s", "--until", "0s", "--filter", "event=import")


def test_hostile_archives_are_refused_or_stay_inside(store: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    before = ok("images", "-aq")
    for member, said in [
        (entry("../../../../../../tmp/escaped"), ""),
        (entry("/abs/olute"), ""),
        (entry("x", tarfile.LNKTYPE, linkname="../../etc/passwd"), "may lead out"),
        (entry("a/.wh.."), "whiteout"),
    ]:
        done = pour(packed((member, b"")), "import", "-")
        if said:
            refused(done, said)
        elif done.code == 0:
            ok("rmi", done.out.strip())
    link = entry("d", tarfile.SYMTYPE, linkname=str(tmp_path))
    done = pour(packed((link, b""), (entry("d/secret"), b"written")), "import", "-")
    assert not secret.exists() and not Path("/tmp/escaped").exists() and not (store.parent / "tmp/escaped").exists()
    if done.code == 0:
        ok("rmi", done.out.strip())
    refused(pour(b"", "import", "-"), "no tar archive") if pour(b"", "import", "-").code else None
    refused(pour(b"no tar at all" * 100, "import", "-"), "no tar archive")
    refused(pour(packed((entry("f"), b"x" * 5000))[:3000], "import", "-"), "too early")
    refused(cloche("import", "https://example.org/x.tar"), "curl -fL https://example.org/x.tar | cloche import -")
    refused(cloche("import", str(tmp_path / "none.tar")), "there is no such file")
    refused(cloche("import", str(tmp_path)), "EISDIR")
    refused(cloche("import", "-c", "NOPE x", "-"), "unknown instruction")
    refused(cloche("import", "-", "UPPER"), "lowercase")
    for ident in set(ok("images", "-aq").split()) - set(before.split()):
        ok("rmi", ident)


# the rest of the verbs about images


def test_filters_of_images() -> None:
    box()
    ok("commit", "-c", "LABEL stage=1", "box", "team/one:1")
    ok("commit", "-c", "LABEL stage=2", "box", "team/two:1")
    ok("commit", "box")

    def named(*filters: str) -> set[str]:
        flags = [word for each in filters for word in ("-f", each)]
        return set(ok("images", *flags, "--format", "{{.Repository}}").split())

    assert named("since=team/one:1") == {"team/two", "<none>"}
    assert named("before=team/two:1") == {"team/one", "starter"}
    assert named("dangling=true") == {"<none>"} and "<none>" not in named("dangling=false")
    assert named("label=stage") == {"team/one", "team/two"} and named("label=stage=2") == {"team/two"}
    assert named("reference=team/*") == {"team/one", "team/two"} and named("reference=*") == {"starter", "<none>"}
    assert named("reference=team/o*", "reference=team/t*:1") == {"team/one", "team/two"}
    assert named("until=1h") == {"starter"} and named("until=1h", "label=stage") == set()
    refused(cloche("images", "-f", "colour=red"), "invalid filter")
    refused(cloche("images", "-f", "dangling=maybe"), "true or false")
    refused(cloche("images", "-f", "since=nosuch"), "No such image: nosuch")


def test_the_sdk_commits(store: Path) -> None:
    box("echo 1 >/f")
    with Client(str(store)) as client:
        image = client.get("box").commit("sdk:1", message="m", changes=['CMD ["cat", "/f"]'])
        assert image.tags == ["sdk:1"]
    assert ok("run", "--rm", "--network", "none", "sdk:1") == "1"
