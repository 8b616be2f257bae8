"""Images through the command line: packed, loaded from what skopeo makes, tagged, listed, run, removed."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from archives import docker_files, dumps, files_tar
from commands import COMMAND, cloche, ok
from probes import requires

pytestmark = [pytest.mark.one_lane, requires("root", "overlay"), pytest.mark.usefixtures("store")]

CONFIG = {
    "User": "nobody",
    "Env": ["PATH=/usr/bin:/bin", "FROM_IMAGE=yes", "BOTH=image"],
    "WorkingDir": "/work/place",
    "Entrypoint": ["sh", "-c", 'echo "$0 $*"'],
    "Cmd": ["from", "image"],
    "Labels": {"com.example.name": "app", "both": "image"},
    "StopSignal": "SIGUSR1",
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """What `docker save` would write of the packed image, with a configuration that says everything."""
    ok("run", "--rm", "-v", f"{tmp_path}:/out", "starter", "sh", "-c", "cd /; tar -cf /out/layer.tar [!dopsx]* sbin")
    path = tmp_path / "app.tar"
    layer = (tmp_path / "layer.tar").read_bytes()
    path.write_bytes(files_tar(docker_files([layer], ["example.org/team/app:1"], config=CONFIG)))
    ok("rmi", "starter")
    return path


def configured(image: str) -> None:
    """The image's configuration is what a container of it gets."""
    assert ok("run", "--rm", image) == "from image"
    assert ok("run", "--rm", image, "given") == "given "
    script = "id -un; pwd; echo $FROM_IMAGE $BOTH"
    flags = ("-e", "BOTH=user", "--entrypoint", "sh")
    assert ok("run", "--rm", *flags, image, "-c", script).split() == ["nobody", "/work/place", "yes", "user"]
    assert ok("run", "--rm", "-u", "0", "-w", "/", *flags, image, "-c", script).splitlines()[:2] == ["root", "/"]
    ok("create", "--name", "made", "--label", "both=user", image)
    shown = "{{.Config.StopSignal}} {{.Config.Labels.both}} {{.Config.User}} {{json .Config.Cmd}} {{.Path}}"
    assert ok("inspect", "-f", shown, "made") == 'SIGUSR1 user nobody ["from","image"] sh'
    assert ok("inspect", "-f", '{{index .Config.Labels "com.example.name"}}', "made") == "app"
    ok("rm", "made")


def skopeo(source: str, target: str) -> None:
    command = ["skopeo", "--insecure-policy", "--tmpdir", "/tmp", "copy", "--quiet", source, target]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HOME": "/tmp"})


def test_what_docker_saves_is_loaded_and_run(archive: Path, tmp_path: Path) -> None:
    assert ok("load", "-i", str(archive)) == "Loaded image: example.org/team/app:1"
    configured("example.org/team/app:1")
    ident = ok("images", "-q", "--no-trunc")
    (tmp_path / "app.tar.gz").write_bytes(gzip.compress(archive.read_bytes(), 1))
    for kind in (archive, tmp_path / "app.tar.gz"):
        with kind.open("rb") as stream:
            done = subprocess.run([*COMMAND, "load", "-q"], stdin=stream, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "")
    assert ok("images", "-q", "--no-trunc") == ident, "the same image again is no other image"


@requires("program:skopeo")
def test_what_skopeo_makes_of_it_is_the_same_image(archive: Path, tmp_path: Path) -> None:
    skopeo(f"docker-archive:{archive}", f"oci:{tmp_path}/layout:example.org/team/app:1")
    skopeo(f"docker-archive:{archive}", f"oci-archive:{tmp_path}/layout.tar:example.org/team/app:1")
    skopeo(f"docker-archive:{archive}", f"docker-archive:{tmp_path}/again.tar:example.org/team/app:1")
    for name in ("layout", "layout.tar", "again.tar"):
        assert ok("load", "-i", str(tmp_path / name)) == "Loaded image: example.org/team/app:1", name
        configured("example.org/team/app:1")
        assert ok("rmi", "example.org/team/app:1").splitlines()[-1].startswith("Deleted: sha256:")
    assert ok("images", "-q") == ""


def test_an_image_without_a_name(archive: Path, tmp_path: Path) -> None:
    layer = (tmp_path / "layer.tar").read_bytes()
    archive.write_bytes(files_tar(docker_files([layer], None, config={"Cmd": ["echo", "nameless"]})))
    loaded = ok("load", "-i", str(archive))
    assert loaded.startswith("Loaded image ID: sha256:")
    ident = loaded.rpartition(":")[2]
    assert ok("run", "--rm", ident[:12]) == "nameless"
    assert ok("images", "--filter", "dangling=true", "--format", "{{.Repository}} {{.Tag}}") == "<none> <none>"
    ok("tag", ident[:12], "named")
    assert ok("images", "--filter", "dangling=true", "-q") == ""
    assert ok("run", "--rm", "named") == "nameless"


def test_an_image_for_another_machine_says_so(archive: Path, tmp_path: Path) -> None:
    layer = (tmp_path / "layer.tar").read_bytes()
    foreign = docker_files([layer], ["foreign:1"], architecture="s390x")
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', **foreign}
    archive.write_bytes(files_tar({k: v for k, v in files.items() if k != "oci-layout"}))
    ok("load", "-i", str(archive))
    assert json.loads(ok("inspect", "foreign:1"))[0]["Architecture"] == "s390x"


def test_names_and_what_is_removed(store: Path) -> None:
    ok("create", "--name", "user", "starter", "true")
    ident = ok("images", "-q", "--no-trunc").removeprefix("sha256:")
    for name in ("base:1", "example.org:5000/team/base:2"):
        ok("tag", "starter", name)
    listed = ok("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines()
    assert {line.split()[0] for line in listed} == {"starter:latest", "base:1", "example.org:5000/team/base:2"}
    assert {line.split()[1] for line in listed} == {ident[:12]}
    for name in ("starter", "docker.io/library/starter:latest", ident, ident[:12], f"sha256:{ident}"):
        assert ok("inspect", "-f", "{{.Id}}", name) == f"sha256:{ident}"
        assert ok("run", "--rm", name, "echo", "hi") == "hi"
    assert ok("images", "base", "--format", "{{.Tag}}") == "1"
    assert ok("images", "--filter", "reference=example.org*/*/*", "--format", "{{.Tag}}") == "2"
    assert ok("rmi", "base:1", "example.org:5000/team/base:2").splitlines() == [
        "Untagged: base:1",
        "Untagged: example.org:5000/team/base:2",
    ]
    assert cloche("rmi", "starter").code == 1, "a container stands on it"
    assert ok("rmi", "-f", "starter").splitlines() == ["Untagged: starter:latest", f"Deleted: sha256:{ident}"]
    assert ok("images", "-q", "-a") == ""
    assert ok("start", "-a", "user") == "", "the container's layers are kept"
    ok("rm", "user")
    assert not [name for name in os.listdir(store / "layers") if name.isdigit()], "and go with the last container"


def test_a_tag_is_taken_from_the_image_that_had_it() -> None:
    ok("pack", "-t", "tool", "sh", "echo")
    first = ok("images", "-q")
    ok("pack", "-t", "tool", "sh", "echo", "cat")
    assert ok("images", "tool", "-q") != first
    assert first in ok("images", "--filter", "dangling=true", "-q")


def test_pack(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("packed data\n")
    said = ok("pack", "-t", "tools:2", "--add", str(tmp_path / "data"), "sh", "cat")
    assert said.splitlines()[0].startswith("tools:2: 2 programs, ")
    assert said.splitlines()[-1].startswith("sha256:")
    assert ok("run", "--rm", "tools:2", "cat", f"{tmp_path}/data/file") == "packed data"
    assert cloche("run", "--rm", "tools:2", "ls").code == 127, "only what was asked for"
    found = json.loads(ok("inspect", "tools:2"))[0]
    assert found["RepoTags"] == ["tools:2"]
    assert found["RootFS"]["Layers"][0].startswith("sha256:")
    assert len(found["RootFS"]["Layers"]) == 1


def test_a_script_is_packed_with_its_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "greet"
    script.write_text(f"#!{shutil.which('sh')}\necho hello $1\n")
    script.chmod(0o755)
    ok("pack", "-t", "greet", str(script))
    assert ok("run", "--rm", "greet", str(script), "you") == "hello you"


def test_listing_in_every_form() -> None:
    ok("create", "--name", "user", "starter", "true")
    header, row = ok("images").splitlines()
    assert header.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert row.split()[:2] == ["starter", "latest"]
    assert json.loads(ok("images", "--format", "json"))["Repository"] == "starter"
    assert ok("images", "--format", "table {{.Repository}}\t{{.Tag}}").splitlines()[0].split() == ["REPOSITORY", "TAG"]
    assert "DIGEST" in ok("images", "--digests").splitlines()[0]
    assert len(ok("images", "--filter", "label=no.such").splitlines()) == 1
    assert ok("images", "nosuch", "-q") == ""
    assert dumps(json.loads(ok("inspect", "-f", "{{json .}}", "starter")))
