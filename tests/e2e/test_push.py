"""Images given to registries: a real one with real clients beside it, and some that cut, refuse, redirect and lie."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from cloche.sdk import Client
from commands import COMMAND, cloche, ok
from registries import Made, Server, busybox, digest, layout, real, say, skopeo

pytestmark = [
    pytest.mark.requires("root", "overlay", "file:/bin/busybox"),
    pytest.mark.usefixtures("store", "home"),
    pytest.mark.timeout(180),
]
needs_registry = pytest.mark.requires("program:docker-registry", "program:skopeo")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with real(tmp_path_factory.mktemp("registry") / "server") as found:
        yield found


def loaded(tmp_path: Path, name: str, hello: bytes = b"hello\n", **options: str) -> None:
    """The image of busybox, here under a name."""
    layout(tmp_path / "layout", [busybox(hello, **options)])
    ident = ok("load", "-i", str(tmp_path / "layout")).rpartition(" ")[2]
    ok("tag", ident if ident.startswith("sha256:") else "it", name)


def inspected(name: str) -> dict[str, object]:
    out = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", f"docker://{name}"], check=True, capture_output=True
    )
    return dict(json.loads(out.stdout))


@needs_registry
def test_what_is_pushed_is_what_others_pull(host: str, tmp_path: Path) -> None:
    name = f"{host}/push/app:1"
    loaded(tmp_path, name, compress="")
    first = ok("push", name).splitlines()
    assert first[0] == f"The push refers to repository [{host}/push/app]"
    assert sum(line.endswith(": Pushed") for line in first) == 2
    found = inspected(name)
    assert first[-1].startswith(f"1: digest: {found['Digest']} size: ")
    again = ok("push", name).splitlines()
    assert sum(line.endswith(": Layer already exists") for line in again) == 2 and again[-1] == first[-1]
    assert ok("push", "-q", name) == name
    with Client() as client:
        assert client.images.push(name) == found["Digest"]
    digests = json.loads(ok("inspect", name))[0]["RepoDigests"]
    assert digests == [f"{host}/push/app@{found['Digest']}"]
    ident = ok("inspect", "-f", "{{.Id}}", name)
    ok("rmi", "-f", ident)
    assert ok("run", "--rm", "-q", name) == "hello" and ok("inspect", "-f", "{{.Id}}", name) == ident
    assert "push" in ok("events", "--since", "60s", "--until", "0s", "--filter", "event=push")


@needs_registry
@pytest.mark.parametrize(("form", "compress"), [("oci", "gzip"), ("v2s2", "gzip"), ("oci", "zstd")])
def test_a_pulled_image_keeps_its_digest(host: str, tmp_path: Path, form: str, compress: str) -> None:
    layout(tmp_path / "layout", [busybox(f"{form}{compress}\n".encode(), compress=compress)])
    source = f"{host}/from/{form}{compress}:1"
    skopeo(f"oci:{tmp_path}/layout:it", f"docker://{source}", "--format", form)
    wanted = inspected(source)["Digest"]
    ok("pull", "-q", source)
    target = f"{host}/to/{form}{compress}:2"
    ok("tag", source, target)
    lines = ok("push", target).splitlines()
    assert f"digest: {wanted} " in lines[-1] and inspected(target)["Digest"] == wanted
    assert any("Mounted from" in line or "already exists" in line for line in lines)
    ok("save", "-o", str(tmp_path / "a.tar"), source)
    with tarfile.open(tmp_path / "a.tar") as archive:
        index = archive.extractfile("index.json")
        assert index and json.load(index)["manifests"][0]["digest"] == wanted


@needs_registry
def test_an_image_that_was_loaded_and_is_pulled_leaves_as_the_registry_has_it(host: str, tmp_path: Path) -> None:
    made = busybox(b"twice\n")
    layout(tmp_path / "layout", [made])
    skopeo(f"oci:{tmp_path}/layout:it", f"docker://{host}/twice:1")
    skopeo(f"oci:{tmp_path}/layout:it", f"docker-archive:{tmp_path}/plain.tar:other:1")
    ok("load", "-i", str(tmp_path / "plain.tar"))
    ok("pull", "-q", f"{host}/twice:1")
    ok("tag", f"{host}/twice:1", f"{host}/thrice:1")
    assert digest(made.manifest) in ok("push", f"{host}/thrice:1")


@needs_registry
def test_all_tags_both_ways(host: str, tmp_path: Path) -> None:
    for tag in ("1", "2"):
        (tmp_path / tag).mkdir()
        loaded(tmp_path / tag, f"{host}/all/tags:{tag}", tag.encode())
    out = ok("push", "-a", f"{host}/all/tags")
    assert "\n1: digest: " in out and "\n2: digest: " in out
    ok("rmi", "-f", f"{host}/all/tags:1", f"{host}/all/tags:2")
    assert ok("pull", "-a", "-q", f"{host}/all/tags").split("\n") == [f"{host}/all/tags:{tag}" for tag in ("1", "2")]
    assert ok("run", "--rm", f"{host}/all/tags:2") == "2"
    for wrong in (("push", "-a", f"{host}/all/tags:1"), ("pull", "-a", f"{host}/all/tags:1")):
        assert "tag can't be used with --all-tags/-a" in cloche(*wrong).err
    missing = cloche("push", f"{host}/all/other")
    assert missing.code == 1 and f"does not exist locally with the tag: {host}/all/other" in missing.err
    assert cloche("pull", "-a", f"{host}/nobody/here").code == 1


@needs_registry
@pytest.mark.requires("program:htpasswd")
def test_who_may_push(tmp_path: Path) -> None:
    place = tmp_path / "server"
    place.mkdir()
    line = subprocess.run(["htpasswd", "-Bbn", "me", "secret"], check=True, capture_output=True, text=True).stdout
    (place / "htpasswd").write_text(line)
    with real(place, f"auth: {{htpasswd: {{realm: here, path: {place}/htpasswd}}}}\n") as found:
        loaded(tmp_path, f"{found}/app:1")
        stranger = cloche("push", f"{found}/app:1")
        assert stranger.code == 1 and f"cloche login {found}" in stranger.err
        ok("login", "-u", "me", "--password-stdin", found, input="secret\n")
        assert "digest: sha256:" in ok("push", f"{found}/app:1")


class Taking(Server):
    """Takes uploads, and misbehaves: `cuts` is how many uploads are cut."""

    def __init__(self, *images: Made) -> None:
        super().__init__(*images)
        self.cuts = 0
        self.location = ""
        self.lie = False

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        base = super()._handler()

        class Handler(base):  # type: ignore[valid-type, misc]
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_PUT(self) -> None:
                self.do_GET()

        return Handler

    def before(self, handler: BaseHTTPRequestHandler) -> bool:
        length = int(handler.headers.get("Content-Length") or 0)
        path, _, query = handler.path.partition("?")
        if handler.command == "HEAD":
            handler.send_response(200 if path.rpartition("/")[2] in self.blobs else 404)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return True
        if handler.command == "POST":
            return say(handler, 202, b"", {"Location": self.location or "/v2/app/blobs/uploads/1?state=x"})
        if handler.command != "PUT":
            return False
        if "/blobs/" in path and self.cuts:
            self.cuts -= 1
            handler.rfile.read(min(length, 1000))
            handler.connection.close()
            handler.close_connection = True
            return True
        data = handler.rfile.read(length)
        found = "sha256:" + hashlib.sha256(data).hexdigest()
        if "/blobs/" in path:
            assert query.startswith("state=x&digest=")
            self.blobs[found] = data
        else:
            self.manifests[path.rpartition("/")[2]] = data, handler.headers["Content-Type"]
        said = "sha256:" + "0" * 64 if self.lie else found
        return say(handler, 201, b"", {"Docker-Content-Digest": said})


def test_what_was_cut_is_sent_again(tmp_path: Path) -> None:
    with Taking() as server:
        loaded(tmp_path, f"{server.host}/app:1")
        server.cuts = 2
        ok("push", f"{server.host}/app:1")
        assert server.cuts == 0 and "1" in server.manifests and len(server.blobs) == 3


def test_a_registry_that_cuts_all_gets_no_manifest(tmp_path: Path) -> None:
    with Taking() as server:
        loaded(tmp_path, f"{server.host}/app:1")
        server.cuts = 1000
        failed = cloche("push", f"{server.host}/app:1")
        assert failed.code == 1 and failed.err.count("\n") == 1 and "push sha256:" in failed.err
        assert not server.manifests and not json.loads(ok("inspect", f"{server.host}/app:1"))[0]["RepoDigests"]


def test_a_registry_that_has_another_digest_is_not_believed(tmp_path: Path) -> None:
    with Taking() as server:
        loaded(tmp_path, f"{server.host}/app:1")
        server.lie = True
        failed = cloche("push", f"{server.host}/app:1")
        assert failed.code == 1 and "says that its digest is" in failed.err
        assert not json.loads(ok("inspect", f"{server.host}/app:1"))[0]["RepoDigests"]


def test_credentials_stay_with_the_registry_where_uploads_go_elsewhere(tmp_path: Path, home: Path) -> None:
    with Taking() as elsewhere, Taking() as server:
        loaded(tmp_path, f"{server.host}/app:1")
        home.mkdir(exist_ok=True)
        auth = base64.b64encode(b"me:secret").decode()
        (home / "config.json").write_text(json.dumps({"auths": {server.host: {"auth": auth}}}))
        server.location = f"http://{elsewhere.host}/v2/app/blobs/uploads/1?state=x"
        ok("push", f"{server.host}/app:1")
        assert elsewhere.asked("/uploads/") and not any("authorization" in h for h in elsewhere.asked("/"))
        for place in ("file:///etc/passwd", "ftp://example.org/x", f"http://me:x@{elsewhere.host}/"):
            server.location = place
            server.blobs.clear()
            failed = cloche("push", f"{server.host}/app:1")
            assert failed.code == 1 and "which is not safe" in failed.err


@needs_registry
def test_killed_while_it_pushes(host: str, tmp_path: Path, kills: int, store: Path) -> None:
    name = f"{host}/killed:1"
    loaded(tmp_path, name, compress="")
    before = ok("images", "-q")
    for attempt in range(min(kills, 10)):
        process = subprocess.Popen([*COMMAND, "push", "-q", name], stdout=subprocess.DEVNULL)
        try:
            process.wait(0.1 + 0.1 * attempt)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert ok("images", "-q") == before
    ok("push", "-q", name)
    assert inspected(name)["Digest"] in ok("inspect", name)
    ok("rmi", "-f", ok("inspect", "-f", "{{.Id}}", name))
    assert set(os.listdir(store / "aside")) == {"lock"} and not os.listdir(store / "layers")


@pytest.mark.requires("program:skopeo", "program:podman")
def test_what_is_saved_is_read_by_others(tmp_path: Path) -> None:
    loaded(tmp_path, "example.org/team/app:1", compress="")
    ok("run", "--name", "box", "example.org/team/app:1", "/bin/busybox", "rm", "/hello")
    ident = ok("commit", "box", "example.org/team/less:1")
    archive = tmp_path / "a.tar"
    ok("save", "-o", str(archive), "example.org/team/less:1")
    for source in (f"docker-archive:{archive}", f"oci-archive:{archive}"):
        skopeo(source, f"oci:{tmp_path}/copy:it")
        index = json.loads((tmp_path / "copy/index.json").read_text())
        manifest = json.loads((tmp_path / "copy/blobs/sha256" / index["manifests"][-1]["digest"][7:]).read_text())
        assert manifest["config"]["digest"] == ident
    place = Path(tempfile.mkdtemp(prefix="podman-", dir="/tmp"))  # podman refuses run directories with long names
    podman = ["podman", "--root", f"{place}/root", "--runroot", f"{place}/run", "--storage-driver", "vfs"]
    said = subprocess.run([*podman, "load", "-i", str(archive)], check=True, capture_output=True, text=True)
    assert "example.org/team/less:1" in said.stdout
    back = subprocess.run([*podman, "save", "example.org/team/less:1"], check=True, capture_output=True).stdout
    shutil.rmtree(place)
    ok("rm", "box")
    ok("rmi", "-f", "example.org/team/less:1")
    (tmp_path / "b.tar").write_bytes(back)
    assert "Loaded image: example.org/team/less:1" in ok("load", "-i", str(tmp_path / "b.tar"))
    assert ok("inspect", "-f", "{{.Id}}", "example.org/team/less:1") == ident
