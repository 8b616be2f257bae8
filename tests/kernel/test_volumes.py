"""Volumes on the real kernel: made at first use, filled from the image, shared, kept, removed; hostile images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from stat import S_IMODE, S_ISFIFO

import pytest

import probes
from archives import folder, hardlink, member, symlink
from cloche import Client
from cloche.engine import filling
from cloche.engine.containers import Engine
from cloche.engine.removal import sweep_forsaken
from cloche.errors import Conflict, NotFound
from commands import COMMAND, cloche, ok, sh

pytestmark = [
    pytest.mark.one_lane,
    pytest.mark.requires("root", "overlay"),
    pytest.mark.usefixtures("store"),
    pytest.mark.timeout(120),
]
NONE = ("--network", "none")
ROOT = (0, 0)


def volumes(*flags: str) -> list[str]:
    return ok("volume", "ls", "-q", *flags).split()


def content(store: Path, name: str) -> Path:
    return store / "volumes" / name / "_data"


def run(script: str, *flags: str, image: str = "starter") -> str:
    return sh(script, *NONE, *flags, image=image)


def test_a_named_volume_is_made_at_first_use_and_outlives_containers(store: Path) -> None:
    assert run("echo kept > /data/file; ls -A /data", "-v", "data:/data") == "file"
    assert volumes() == ["data"]
    assert run("cat /there/file", "-v", "data:/there:ro") == "kept"
    refused = cloche("run", "--rm", *NONE, "-v", "data:/data:ro", "starter", "touch", "/data/x")
    assert refused.code != 0 and "Read-only file system" in refused.err
    mount = "type=volume,source=data,target=/m,readonly"
    assert run("cat /m/file; touch /m/x 2>&1 || true", "--mount", mount).startswith("kept\ntouch: ")
    assert (content(store, "data") / "file").read_text() == "kept\n"


def test_volumes_as_docker_shows_them(store: Path) -> None:
    assert ok("volume", "create", "--label", "team=db", "one") == "one"
    nameless = ok("volume", "create")
    assert len(nameless) == 64
    assert ok("volume", "ls").splitlines()[0].split() == ["DRIVER", "VOLUME", "NAME"]
    assert ok("volume", "ls", "--format", '{{.Name}} {{.Driver}} {{.Labels}} {{.Label "team"}}', "-f", "name=on") == (
        "one local team=db db"
    )
    (shown,) = json.loads(ok("volume", "inspect", "one"))
    assert shown.pop("CreatedAt").endswith("Z")
    assert shown == {
        "Driver": "local",
        "Labels": {"team": "db"},
        "Mountpoint": f"{store}/volumes/one/_data",
        "Name": "one",
        "Options": None,
        "Scope": "local",
    }
    assert ok("inspect", "--type", "volume", "-f", "{{.Name}}", "one") == "one"
    ok("create", "--name", "box", *NONE, "-v", "one:/one:ro,nocopy", "-v", "/own", "starter", "true")
    (own,) = set(volumes()) - {"one", nameless}
    facts = json.loads(ok("inspect", "box"))[0]
    by_target = {m["Destination"]: m for m in facts["Mounts"]}
    assert by_target["/one"] == {
        "Type": "volume",
        "Name": "one",
        "Driver": "local",
        "Source": f"{store}/volumes/one/_data",
        "Destination": "/one",
        "Mode": "ro,nocopy",
        "RW": False,
        "Propagation": "",
    }
    assert by_target["/own"]["Name"] == own and by_target["/own"]["RW"] is True
    assert facts["HostConfig"]["Binds"] == ["one:/one:ro,nocopy"] and facts["Config"]["Volumes"] == {"/own": {}}
    assert volumes("-f", "dangling=true") == [nameless] and set(volumes("-f", "dangling=0")) == {"one", own}
    assert volumes("-f", "label=team=db", "-f", "driver=local") == ["one"] and volumes("-f", "driver=nfs") == []
    assert ok("ps", "-aq", "--filter", "volume=one") and ok("ps", "-aq", "--filter", "volume=/own")
    assert not ok("ps", "-aq", "--filter", "volume=two")
    assert "one" in ok("ps", "-a", "--format", "{{.Mounts}}")
    assert cloche("volume", "ls", "-f", "foo=x").code == 1


def test_removal(store: Path) -> None:
    ok("run", "--name", "box", *NONE, "-v", "named:/n", "-v", "/own", "starter", "touch", "/n/x", "/own/x")
    busy = cloche("volume", "rm", "named", "nope")
    assert busy.code == 1
    assert "volume is in use - [box]" in busy.err and "get nope: no such volume" in busy.err
    ok("start", "-a", "box")
    ok("rm", "box")
    assert len(volumes()) == 2, "a plain rm removes no volume"
    pruned = ok("volume", "prune", "-f").splitlines()
    assert pruned[0] == "Deleted Volumes:" and pruned[-1] == "Total reclaimed space: 0B"
    assert volumes() == ["named"]
    ok("run", "--name", "box", *NONE, "-v", "named:/n", "-v", "/own", "starter", "true")
    ok("rm", "-v", "box")
    run("true", "-v", "/own")
    assert cloche("run", "--rm", *NONE, "-v", "/own", "starter", "/no/such").code == 127
    assert volumes() == ["named"], "--rm and rm -v remove what nobody named"
    assert "Go on?" in cloche("volume", "prune", "-a", input="n\n").err and volumes() == ["named"]
    ok("volume", "create", "--label", "keep", "other")
    assert "named" in ok("volume", "prune", "-af", "--filter", "label!=keep")
    assert ok("volume", "rm", "-f", "nope", "other") == "nope\nother"
    assert volumes() == [] and os.listdir(store / "volumes") == []


def test_volumes_of_other_containers(store: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("host's")
    ok(
        "create",
        "--name",
        "first",
        *NONE,
        "-v",
        "data:/data",
        "-v",
        "/own",
        "-v",
        f"{tmp_path}:/bind",
        "starter",
        "true",
    )
    ok("create", "--name", "second", *NONE, "--volumes-from", "first:ro", "-v", "mine:/data", "starter", "true")
    assert run("echo x > /own/x; cat /bind/file", "--volumes-from", "first") == "host's"
    assert run(
        "cat /own/x; touch /own/y 2>/dev/null || echo no; touch /data/x && echo yes", "--volumes-from", "second"
    ) == ("x\nno\nyes")
    assert os.listdir(content(store, "mine")) == ["x"]
    assert json.loads(ok("inspect", "second"))[0]["HostConfig"]["VolumesFrom"] == ["first:ro"]
    ok("rm", "-v", "first")
    assert len(volumes()) == 3, "the other one has it still"
    ok("rm", "-v", "second")
    assert volumes() == ["data", "mine"]
    missing = cloche("run", "--rm", *NONE, "--volumes-from", "nope", "starter", "true")
    assert missing.code == 125 and "No such container: nope" in missing.err


def test_an_empty_volume_is_filled_from_the_image(store: Path, image: Callable[..., None]) -> None:
    image(
        folder("srv", mode=0o2775, owner=(33, 44)),
        member("srv/program", b"#!/bin/sh\n", mode=0o4755, owner=(5, 6)),
        hardlink("srv/again", "srv/program"),
        symlink("srv/link", "/etc/passwd", owner=(7, 8)),
        symlink("srv/up", "../../../etc"),
        member("srv/pipe", kind=tarfile.FIFOTYPE, mode=0o622),
        folder("srv/sub", mode=0o700, owner=(1, 1)),
        member("srv/sub/file", b"deep"),
        folder("bare", mode=0o1777, owner=(99, 99)),
        Volumes=None,
    )
    script = (
        "stat -c '%n %F %a %u %g %h' /srv /srv/program /srv/again /srv/link /srv/sub /srv/sub/file; cat /srv/sub/file"
    )
    assert run(script, "-v", "data:/srv", image="made") == run(script, image="made")
    data = content(store, "data")
    status = os.stat(data)
    assert (S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o2775, 33, 44)
    assert os.stat(data / "again").st_ino == os.stat(data / "program").st_ino
    assert S_IMODE(os.stat(data / "program").st_mode) == 0o4755
    assert os.readlink(data / "link") == "/etc/passwd" and os.lstat(data / "link").st_uid == 7
    assert S_ISFIFO(os.stat(data / "pipe").st_mode)
    assert sorted(os.listdir(store / "volumes/data")) == ["_data"]
    run("rm /srv/again; echo changed > /srv/sub/file", "-v", "data:/srv", image="made")
    assert run("ls /srv; cat /srv/sub/file", "-v", "data:/srv", image="made") == "link\npipe\nprogram\nsub\nup\nchanged"
    for flags in (("-v", "no1:/srv:nocopy"), ("--mount", "src=no2,dst=/srv,volume-nocopy")):
        assert run("ls -A /srv", *flags, image="made") == ""
    run("true", "-v", "bare:/bare", image="made")
    bare = os.stat(content(store, "bare"))
    assert (S_IMODE(bare.st_mode), bare.st_uid) == (0o1777, 99)
    assert run("ls -A /new", "-v", "new:/new", image="made") == ""


def test_what_is_whited_out_is_not_copied(store: Path, image: Callable[..., None]) -> None:
    image(member("etc/.wh.passwd"), folder("etc/alternatives"), member("etc/alternatives/.wh..wh..opq"))
    ok("create", *NONE, "-v", "data:/etc", "made", "true")
    there = os.listdir(content(store, "data"))
    assert "passwd" not in there and "group" in there
    assert os.listdir(content(store, "data") / "alternatives") == []


def test_the_image_volumes(store: Path, image: Callable[..., None]) -> None:
    image(folder("srv"), member("srv/file", b"of the image"), Volumes={"/srv/": {}, "/new": {}})
    ok("run", "--name", "box", *NONE, "made", "sh", "-c", "echo more >> /srv/file; touch /new/x")
    assert len(volumes()) == 2
    assert json.loads(ok("inspect", "box"))[0]["Config"]["Volumes"] == {"/srv": {}, "/new": {}}
    assert json.loads(ok("volume", "inspect", volumes()[0]))[0]["Labels"] == {"com.docker.volume.anonymous": ""}
    ok("start", "-a", "box")
    assert run("cat /srv/file", "--volumes-from", "box", image="made") == "of the imagemore\nmore"
    ok("rm", "-v", "box")
    assert run("cat /srv/file", "-v", "data:/srv", image="made") == "of the image"
    assert run("cat /srv/file 2>&1 || true", "--tmpfs", "/srv", image="made").startswith("cat: ")
    assert volumes() == ["data"]


def test_a_volume_in_use_gets_the_content_where_it_is_mounted(store: Path, image: Callable[..., None]) -> None:
    image(folder("srv", mode=0o750), member("srv/file", b"of the image"))
    ok("run", "-d", "--name", "first", *NONE, "-v", "data:/d", "starter", "sleep", "1000")
    ok("create", *NONE, "-v", "data:/srv", "made", "true")
    assert ok("exec", "first", "cat", "/d/file") == "of the image"


def test_many_at_once(store: Path, image: Callable[..., None]) -> None:
    """Who is first makes and fills it, the others wait; who removes it meanwhile is told that it is in use."""
    image(folder("srv"), *(member(f"srv/file{n}", b"x" * 20_000) for n in range(MEMBERS)))
    command = [*COMMAND, "run", "--rm", *NONE, "-v", "data:/srv", "made", "sh", "-c", "ls /srv | grep -c file"]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    removed = 0
    while any(child.poll() is None for child in children):
        removed += cloche("volume", "rm", "data").code == 0
    assert [child.communicate()[0].strip() for child in children] == [str(MEMBERS)] * 6
    assert not removed or "data" not in volumes() or whole(content(store, "data"))


def secret(path: Path) -> Path:
    """A directory of the host that no container may see."""
    path.mkdir()
    (path / "secret").write_text("of the host")
    return path


@pytest.mark.parametrize("kind", ["absolute", "climbing", "proc", "loop"])
def test_a_hostile_image_leads_nowhere(store: Path, tmp_path: Path, image: Callable[..., None], kind: str) -> None:
    outside = secret(tmp_path / "outside")
    target = {
        "absolute": str(outside),
        "climbing": "../" * 30 + str(outside).lstrip("/"),
        "proc": "/proc/1/root" + str(outside),
        "loop": "data",
    }[kind]
    image(symlink("data", target), symlink("within", "elsewhere"), folder("elsewhere"), member("elsewhere/x", b"mine"))
    done = cloche("run", "--rm", *NONE, "-v", "data:/data", "made", "sh", "-c", "ls -A /data; touch /data/mine")
    assert "secret" not in done.out
    assert os.listdir(outside) == ["secret"]
    if kind == "loop":
        assert done.code == 125 and "(ELOOP)" in done.err and volumes() == []
    assert run("cat /within/x", "-v", "other:/within", image="made") == "mine", "links within the image are followed"


def test_what_is_no_directory_in_the_image(store: Path, image: Callable[..., None]) -> None:
    image(member("data", b"file"), folder("srv"))
    refused = cloche("run", "--rm", *NONE, "-v", "data:/data", "made", "true")
    assert refused.code == 125 and "it is no directory there" in refused.err
    assert volumes() == [] and os.listdir(store / "volumes") == [], "a failed create leaves nothing"
    for path in ("/", "/.."):
        image(folder("srv"), Volumes={path: {}})
        assert "invalid specification" in cloche("run", "--rm", *NONE, "made", "true").err
    ok("create", "--name", "taken", *NONE, "starter", "true")
    assert cloche("create", "--name", "taken", *NONE, "-v", "data:/etc", "starter", "true").code == 125
    assert volumes() == []


def test_a_part_of_a_volume(store: Path, tmp_path: Path) -> None:
    outside = secret(tmp_path / "outside")
    run(
        f"mkdir -p /d/a/b; echo deep > /d/a/b/file; ln -s a/b /d/in; ln -s {outside} /d/out; ln -s /a /d/abs",
        "-v",
        "data:/d",
    )

    def part(path: str) -> str:
        return f"source=data,target=/part,volume-subpath={path}"

    assert run("cat /part/file", "--mount", part("a/b")) == "deep"
    assert run("cat /part/file", "--mount", part("in")) == "deep"
    assert run("cat /part", "--mount", part("a/b/file")) == "deep"
    for path, cause in (("out", "EXDEV"), ("abs", "EXDEV"), ("nope", "ENOENT")):
        done = cloche("run", "--rm", *NONE, "--mount", part(path), "starter", "ls", "/part")
        assert done.code == 125 and "secret" not in done.out and cause in done.err, path


@pytest.mark.requires("userns")
def test_owners_are_right_in_a_user_namespace(store: Path, tmp_path: Path, image: Callable[..., None]) -> None:
    if "id-mapped" in cloche("run", "--rm", *NONE, "--userns", "auto", "starter", "true").err:
        pytest.skip("needs a file system that can be mounted id-mapped")
    image(folder("srv", owner=(33, 44)), member("srv/file", b"x", owner=(33, 44)))
    auto = ("--userns", "auto")
    assert run("touch /srv/new; stat -c %u:%g /srv /srv/file /srv/new", *auto, "-v", "data:/srv", image="made") == (
        "33:44\n33:44\n0:0"
    )
    assert [os.stat(content(store, "data") / n).st_uid for n in ("file", "new")] == [33, 0]
    assert run("stat -c %u /srv/new; rm /srv/new", *auto, "-v", "data:/srv") == "0", "another range of ids"
    os.chmod(tmp_path, 0o700)
    (tmp_path / "mine").touch()
    assert cloche("run", "--rm", *NONE, *auto, "-v", f"{tmp_path}:/b", "starter", "ls", "/b").code != 0
    assert run("stat -c %u /b/mine; touch /b/theirs", *auto, "-v", f"{tmp_path}:/b:idmap") == "0"
    assert os.stat(tmp_path / "theirs").st_uid == 0
    refused = cloche("run", "--rm", *NONE, *auto, "-v", "/sys:/b:idmap", "starter", "true")
    assert refused.code == 125 and "cannot be mounted id-mapped" in refused.err
    assert "leave out the option idmap" in refused.err


def test_the_sdk(store: Path) -> None:
    with Client() as client:
        volume = client.volumes.create("data", {"team": "db"})
        assert volume.labels == {"team": "db"} and client.volumes.create("data").name == "data"
        box = client.run("starter", ["touch", "/data/x", "/own/x"], volumes=["data:/data", "/own"], network="none")
        assert box.exit_code == 0 and os.listdir(volume.path) == ["x"]
        assert volume.users == [box.name]
        with pytest.raises(Conflict, match="in use"):
            volume.remove()
        assert [v.name for v in client.volumes.list(dangling=True)] == []
        box.remove(volumes=True)
        assert [v.name for v in client.volumes.list()] == ["data"]
        client.volumes.get("data").remove()
        with pytest.raises(NotFound):
            volume.inspect()


def test_a_plan_makes_nothing(store: Path) -> None:
    assert f"{store}/volumes/data/_data" in ok("plan", *NONE, "-v", "data:/etc", "-v", "/own", "starter", "true")
    assert volumes() == []


MEMBERS = 40


def whole(data: Path) -> bool:
    """Nothing of it, or all."""
    there = [name for name in os.listdir(data) if name.startswith("file")]
    if not there:
        return False
    assert sorted(there) == sorted(f"file{n}" for n in range(MEMBERS))
    assert all((data / name).read_bytes() == b"x" * 20_000 for name in there)
    return True


@pytest.mark.timeout(600)
def test_a_kill_in_the_middle_of_the_copy(store: Path, image: Callable[..., None], kills: int) -> None:
    """Before and after system calls over the whole way of a create; who comes next finds nothing, or all of it."""
    image(folder("srv"), *(member(f"srv/file{n}", b"x" * 20_000) for n in range(MEMBERS)))
    command = [*COMMAND, "create", *NONE, "-v", "data:/srv", "made", "true"]
    cut = 0
    for attempt in range(kills):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        place, deadline = store / "volumes/data", time.monotonic() + 20
        while not (place / "_making").exists() and not (place / "_ready").exists() and child.poll() is None:
            assert time.monotonic() < deadline
        time.sleep(attempt % 10 * 0.0004)
        child.send_signal(signal.SIGKILL)
        child.wait()
        cut += (place / "_making").exists() or (place / "_ready").exists()
        ident = ok("create", *NONE, "-v", "data:/srv", "made", "true")
        assert whole(content(store, "data")) and os.listdir(place) == ["_data"]
        ok("rm", ident)
        for container in store.glob("containers/*"):
            os.utime(container, (0, 0))
        engine = Engine(str(store))
        for row in engine.db.execute("SELECT id FROM containers").fetchall():
            engine.remove(engine.find(row["id"]))
        sweep_forsaken(engine.store, engine.db)
        engine.close()
        ok("volume", "rm", "data")
    assert cut, "no kill came while it was copied"


def test_a_kill_between_the_moves(store: Path, image: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    image(folder("srv"), *(member(f"srv/file{n}", b"x" * 20_000) for n in range(MEMBERS)))
    child = os.fork()
    if child == 0:
        moves = iter(range(MEMBERS))
        rename_new = filling.rename_new

        def killed(*way: object) -> None:
            if next(moves) == 17:
                os.kill(os.getpid(), signal.SIGKILL)
            rename_new(*way)  # type: ignore[arg-type]

        filling.rename_new = killed
        Client(str(store)).create("made", "true", volumes=["data:/srv"], network="none")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(os.listdir(content(store, "data"))) == 17
    assert run("ls /srv | grep -c file", "-v", "data:/srv") == str(MEMBERS), "another image, another container"
    assert whole(content(store, "data"))


def test_a_full_disk_leaves_no_half_copy(tmp_path: Path, image: Callable[..., None], store: Path) -> None:
    if not probes.available("filesystem:tmpfs"):
        pytest.skip("needs tmpfs")
    image(folder("srv"), member("srv/big", os.urandom(1 << 20)))
    os.makedirs(store / "volumes", exist_ok=True)
    probes.mount("tmpfs", str(store / "volumes"), "tmpfs", 0, "size=200k")
    try:
        refused = cloche("create", *NONE, "-v", "data:/srv", "made", "true")
        assert refused.code == 125
    finally:
        probes.libc.umount2(str(store / "volumes").encode(), probes.MNT_DETACH)
    assert not list(store.glob("containers/*"))
