"""Images from registries: a real one with a real client beside it, and some that lie, cut, stall, redirect, refuse."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from commands import cloche, ok
from registries import DOCKER, INDEX, LAYER, MANIFEST, Made, Server, busybox, digest, layer, layout, real, say, skopeo

pytestmark = [
    pytest.mark.requires("root", "overlay", "file:/bin/busybox"),
    pytest.mark.usefixtures("store", "home"),
    pytest.mark.timeout(180),
]
needs_registry = pytest.mark.requires("program:docker-registry", "program:skopeo")


def runs(name: str) -> str:
    return ok("run", "--rm", "--pull", "never", name)


def images() -> set[str]:
    return set(ok("images", "-q", "--no-trunc").split())


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, Made]]]:
    """A registry with images in every form that skopeo writes."""
    place = tmp_path_factory.mktemp("registry")
    made = {
        "gzip": busybox(),
        "zstd": busybox(b"zstd\n", compress="zstd"),
        "arm": busybox(b"arm\n", architecture="arm64"),
    }
    with real(place / "server") as host:
        for name in ("gzip", "zstd"):
            layout(place / name, [made[name]])
        layout(place / "many", [made["gzip"], made["arm"]], index=True)
        skopeo(f"oci:{place}/gzip:it", f"docker://{host}/team/app:1")
        skopeo(f"oci:{place}/gzip:it", f"docker://{host}/team/app:docker", "--format", "v2s2")
        skopeo(f"oci:{place}/zstd:it", f"docker://{host}/team/app:zstd")
        skopeo(f"oci:{place}/many:it", f"docker://{host}/team/many", "--all")
        yield host, made


@needs_registry
@pytest.mark.parametrize(("tag", "said"), [("1", "hello"), ("docker", "hello"), ("zstd", "zstd")])
def test_images_in_every_form(filled: tuple[str, dict[str, Made]], tag: str, said: str) -> None:
    host, _ = filled
    name = f"{host}/team/app:{tag}"
    first = ok("pull", name).splitlines()
    assert first[0] == f"{tag}: Pulling from team/app" and first[-2] == f"Status: Downloaded newer image for {name}"
    assert first[-1] == name and sum(": Pull complete" in line for line in first) == 2
    assert "\033" not in "".join(first)
    assert runs(name) == said
    again = ok("pull", name).splitlines()
    assert again[-2] == f"Status: Image is up to date for {name}"
    assert sum(": Already exists" in line for line in again) == 2


@needs_registry
def test_by_digest_and_by_platform(filled: tuple[str, dict[str, Made]]) -> None:
    host, made = filled
    by_digest = f"{host}/team/app@{digest(made['gzip'].manifest)}"
    assert ok("pull", "-q", by_digest) == by_digest
    assert runs(by_digest) == "hello"
    assert ok("pull", "-q", f"{host}/team/many") == f"{host}/team/many:latest"
    assert ok("inspect", "-f", "{{.Architecture}}", f"{host}/team/many") == "amd64"
    shown = json.loads(ok("inspect", f"{host}/team/many"))[0]
    assert any("@sha256:" in text for text in shown["RepoDigests"])
    ok("pull", "--platform", "linux/arm64", f"{host}/team/many")
    assert ok("inspect", "-f", "{{.Architecture}}", f"{host}/team/many") == "arm64"
    refused = cloche("pull", "--platform", "linux/s390x", f"{host}/team/many")
    assert refused.code == 1 and "no matching manifest" in refused.err and "linux/arm64" in refused.err
    for wrong in (f"{host}/team/app:nosuch", f"{host}/nobody/nothing", f"{host}/team/app@sha256:{'0' * 64}"):
        missing = cloche("pull", wrong)
        assert missing.code == 1 and "not found" in missing.err and missing.err.count("\n") == 1


@needs_registry
def test_run_fetches_what_is_missing(filled: tuple[str, dict[str, Made]]) -> None:
    host, _ = filled
    name = f"{host}/team/app:1"
    never = cloche("run", "--rm", "--pull", "never", name)
    assert never.code == 125 and "No such image" in never.err
    first = cloche("run", "--rm", name)
    assert (first.code, first.out) == (0, "hello\n") and f"Unable to find image '{name}' locally" in first.err
    second = cloche("run", "--rm", name)
    assert (second.code, second.out, second.err) == (0, "hello\n", "")
    always = cloche("run", "--rm", "--pull", "always", name)
    assert always.out == "hello\n" and "Image is up to date" in always.err
    quiet = cloche("run", "--rm", "-q", "--pull", "always", name)
    assert (quiet.out, quiet.err) == ("hello\n", "")
    assert ok("create", "--name", "made", f"{host}/team/app:zstd")
    nobody = cloche("run", "--rm", f"{host}/nobody/nothing")
    assert nobody.code == 125 and "not found" in nobody.err


@needs_registry
@pytest.mark.requires("program:htpasswd")
def test_who_is_let_in(tmp_path: Path, home: Path) -> None:
    place = tmp_path / "server"
    place.mkdir()
    line = subprocess.run(["htpasswd", "-Bbn", "me", "secret"], check=True, capture_output=True, text=True).stdout
    (place / "htpasswd").write_text(line)
    layout(tmp_path / "image", [busybox()])
    auth = f"auth: {{htpasswd: {{realm: here, path: {place}/htpasswd}}}}\n"
    with real(place, auth) as host:
        skopeo(f"oci:{tmp_path}/image:it", f"docker://{host}/app", "--dest-creds", "me:secret")
        stranger = cloche("pull", f"{host}/app")
        assert stranger.code == 1 and f"cloche login {host}" in stranger.err
        wrong = cloche("login", "-u", "me", "--password-stdin", host, input="wrong\n")
        assert wrong.code == 1 and not (home / "config.json").exists()
        let_in = cloche("login", "-u", "me", "--password-stdin", host, input="secret\n")
        assert let_in.code == 0 and let_in.out == "Login Succeeded\n"
        assert (home / "config.json").stat().st_mode & 0o777 == 0o600
        kept = json.loads((home / "config.json").read_text())["auths"][host]
        assert base64.b64decode(kept["auth"]) == b"me:secret"
        assert ok("pull", "-q", f"{host}/app") == f"{host}/app:latest"
        assert "secret" not in cloche("pull", f"{host}/other").err
        assert ok("logout", host) == f"Removing login credentials for {host}"
        assert cloche("pull", f"{host}/app").code == 1
        assert ok("logout", host).startswith("Not logged in")


def login(home: Path, host: str, user: str = "me", password: str = "secret") -> None:
    home.mkdir(exist_ok=True)
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    (home / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


class TokenServer(Server):
    """Lets in who has a token, and gives tokens to those whom it knows."""

    realm = ""

    def before(self, handler: BaseHTTPRequestHandler) -> bool:
        if handler.path.startswith("/token"):
            wanted = "Basic " + base64.b64encode(b"me:secret").decode()
            if handler.headers.get("Authorization") != wanted:
                return say(handler, 401, b'{"details": "incorrect username or password"}')
            return say(handler, 200, b'{"token": "thetoken"}')
        if handler.headers.get("Authorization") != "Bearer thetoken":
            where = self.realm or f"http://{self.host}/token"
            return say(handler, 401, b"{}", {"WWW-Authenticate": f'Bearer realm="{where}",service="s",scope="ignored"'})
        return False


def test_tokens(home: Path) -> None:
    with TokenServer(busybox()) as server:
        assert cloche("pull", f"{server.host}/app").code == 1
        login(home, server.host)
        assert runs(ok("pull", "-q", f"{server.host}/app")) == "hello"
        asked = [path for _, path, _ in server.seen if path.startswith("/token")][-1]
        assert "scope=repository%3Aapp%3Apull" in asked and "service=s" in asked
        assert all(h["authorization"].startswith(("Basic", "Bearer thetoken")) for h in server.asked("/blobs/"))


def test_a_password_never_goes_to_a_realm_that_is_not_safe(home: Path) -> None:
    with Server() as thief, TokenServer(busybox()) as server:
        server.realm = f"http://registry.example:{thief.httpd.server_port}/token"
        login(home, server.host)
        refused = cloche("pull", f"{server.host}/app")
        assert refused.code == 1 and "which is not safe" in refused.err
        assert not thief.seen


def test_credentials_do_not_follow_a_redirect_to_another_host(home: Path) -> None:
    made = busybox()
    with Server(made) as storage:

        class Redirecting(TokenServer):
            def before(self, handler: BaseHTTPRequestHandler) -> bool:
                if super().before(handler):
                    return True
                if "/blobs/" in handler.path:
                    return say(handler, 307, b"", {"Location": f"http://{storage.host}{handler.path}"})
                return False

        with Redirecting(made) as server:
            login(home, server.host)
            assert runs(ok("pull", "-q", f"{server.host}/app")) == "hello"
        assert storage.asked("/blobs/") and not any("authorization" in h for h in storage.asked("/blobs/"))


def test_a_helper_of_dockers_is_asked(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "bin/docker-credential-mine"
    helper.parent.mkdir()
    helper.write_text(
        '#!/bin/sh\nread key\necho "$1 $key" >> "$0.log"\necho \'{"Username": "me", "Secret": "secret"}\'\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
    home.mkdir()
    (home / "config.json").write_text('{"credsStore": "mine"}')
    with TokenServer(busybox()) as server:
        assert runs(ok("pull", "-q", f"{server.host}/app")) == "hello"
        assert f"get {server.host}\n" in Path(f"{helper}.log").read_text()


def test_what_is_cut_is_gone_on_with(home: Path) -> None:
    for ranges in (True, False):
        with Server(busybox(os.urandom(200_000))) as server:
            server.cut, server.ranges = [70_000, 1, 0, 50_000], ranges
            ok("pull", "-q", f"{server.host}/app")
            parts = [headers.get("range") for headers in server.asked("/blobs/")]
            assert any(part and part != "bytes=0-" for part in parts)
            assert images()
        ok("rmi", "-f", *images())


def unchanged(server: Server, *words: str, code: int = 1) -> str:
    """A pull that must fail with one line and leave nothing."""
    before = images()
    refused = cloche("pull", f"{server.host}/app")
    assert refused.code == code and refused.err.count("\n") == 1 and refused.err[:-1].isprintable(), refused
    for word in words:
        assert word in refused.err, refused.err
    assert images() == before
    root = Path(os.environ["CLOCHE_ROOT"])
    assert not [p for p in (root / "aside").iterdir() if p.name != "lock"]
    return refused.err


def test_a_cut_that_does_not_end(home: Path) -> None:
    with Server(busybox()) as server:
        server.cut = [0] * 1000
        unchanged(server, "is 127.0.0.1")


def test_lies(home: Path) -> None:
    made = busybox()
    with Server(made) as server:
        first = made.layers[0]["digest"]
        honest = server.blobs[first]
        server.blobs[first] = honest[:-1] + bytes((honest[-1] ^ 1,))
        unchanged(server, "it has the digest sha256:")
        server.blobs[first] = honest + b"more"
        unchanged(server, "it is larger than")
        server.blobs[first] = honest[: len(honest) // 2]
        unchanged(server, "the connection ended after")
        server.blobs[first] = honest
        data, kind = server.manifests["latest"]
        for wrong, word in (
            (data.replace(b'"schemaVersion": 2', b'"schemaVersion": 1'), "schemaVersion"),
            (data[:-1] + b', "manifests": []}', "manifest and index at once"),
            (b"[]", "read an image manifest"),
            (b"{" * 5000, "read an image manifest"),
            (b" " * (5 << 20), "larger than 4 MiB"),
            (b"", "read an image manifest"),
        ):
            server.manifests["latest"] = wrong, kind
            unchanged(server, word)
        server.manifests["latest"] = data, INDEX
        unchanged(server, "announced as")
        server.manifests["latest"] = data, DOCKER + "v1+prettyjws"
        other = json.loads(data)
        other["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"
        server.manifests["latest"] = json.dumps(other).encode(), kind
        unchanged(server, "it is no image of files")
        wrong_digest = digest(b"x")
        server.manifests[wrong_digest] = data, kind
        assert "it was changed" in cloche("pull", f"{server.host}/app@{wrong_digest}").err


def test_layers_that_are_bombs_or_damaged(home: Path) -> None:
    bad = Made([layer({"bin/busybox": Path("/bin/busybox").read_bytes()})])
    blob = bad.blobs.pop(bad.layers[0]["digest"])
    for broken, word in ((blob[:-2000], "ends too early"), (blob[:20_000] + b"\xff" * 100 + blob[20_100:], "")):
        config = json.loads(bad.manifest)
        made = Made([layer({"a": b""})])
        made.config = bad.config
        config["layers"] = [made.keep(broken, LAYER + "+gzip")]
        config["config"] = made.keep(bad.config, config["config"]["mediaType"])
        made.manifest = json.dumps(config).encode()
        with Server(made) as server:
            unchanged(server, word)


def test_indexes_without_end(home: Path) -> None:
    with Server() as server:
        inner = busybox().manifest
        kind = MANIFEST
        for _ in range(8):
            entry = {
                "mediaType": kind,
                "digest": digest(inner),
                "size": len(inner),
                "platform": {"os": "linux", "architecture": "amd64"},
            }
            server.manifests[digest(inner)] = inner, kind
            inner, kind = Made.document({"manifests": [entry]}, INDEX), INDEX
        server.manifests["latest"] = inner, kind
        unchanged(server, "indexes in indexes")


def test_busy_registries_are_waited_for(home: Path) -> None:
    class Busy(Server):
        left = 3

        def before(self, handler: BaseHTTPRequestHandler) -> bool:
            self.left -= 1
            return self.left >= 0 and say(handler, 429 if self.left else 503, b"{}", {"Retry-After": "0"})

    with Busy(busybox()) as server:
        ok("pull", "-q", f"{server.host}/app")

    class Never(Server):
        def before(self, handler: BaseHTTPRequestHandler) -> bool:
            return say(
                handler,
                429,
                b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "slow down"}]}',
                {"Retry-After": "3600"},
            )

    with Never() as server:
        unchanged(server, "too many requests: slow down", "hint: wait, or log in")


def test_unreachable_registries(home: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        refused = cloche("pull", f"127.0.0.1:{sock.getsockname()[1]}/app")
        assert refused.code == 1 and "refused" in refused.err.lower() and "hint: " in refused.err
    nowhere = cloche("pull", "registry.invalid/app")
    assert nowhere.code == 1 and "there is no host of this name" in nowhere.err
    with Server() as server:
        unchanged(server, "manifest unknown", "\\x1b[31munknown")


def test_what_is_not_http_at_all(home: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def nonsense() -> None:
            for _ in range(2):
                try:
                    connection, _ = listening.accept()
                    connection.recv(1000)
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\x1b[2J" * 3)
                    connection.close()
                except OSError:
                    return

        thread = threading.Thread(target=nonsense, daemon=True)
        thread.start()
        refused = cloche("pull", f"127.0.0.1:{listening.getsockname()[1]}/app")
        assert refused.code == 1 and refused.err.count("\n") == 1 and refused.err[:-1].isprintable()
        thread.join()


def test_redirects_that_are_not_safe(home: Path) -> None:
    class Redirecting(Server):
        target = ""

        def before(self, handler: BaseHTTPRequestHandler) -> bool:
            return say(handler, 302, b"", {"Location": self.target})

    with Redirecting() as server:
        server.target = "file:///etc/passwd"
        unchanged(server, "which is not safe")
        server.target = "/v2/app/manifests/latest"
        unchanged(server, "redirects more than")


@pytest.mark.requires("program:openssl")
def test_tls_is_checked_unless_it_is_said_otherwise(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = str(tmp_path / "key"), str(tmp_path / "certificate")
    name = socket.gethostname()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    address = next((a[4][0] for a in socket.getaddrinfo(name, None, socket.AF_INET)), "")
    if not address.startswith("127."):
        pytest.skip("this host's name is no loopback address here")
    with Server(busybox(), tls=(certificate, key)) as server:
        host = f"{name}:{server.httpd.server_port}"
        stranger = cloche("pull", f"{host}/app")
        assert stranger.code == 1 and "certificate" in stranger.err and "insecure = true" in stranger.err
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
        assert runs(ok("pull", "-q", f"{host}/app")) == "hello"
        monkeypatch.delenv("SSL_CERT_FILE")
        config = tmp_path / "config.toml"
        config.write_text(f'[registry."{host}"]\ninsecure = true\n')
        monkeypatch.setenv("CLOCHE_CONFIG", str(config))
        ok("pull", "-q", f"{host}/app")
        config.write_text("[registry.x]\ncolour = 1\n")
        assert "unknown key" in cloche("pull", f"{host}/app").err


def test_mirrors_are_asked_first(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(busybox()) as empty_first, Server(busybox(b"mirrored\n")) as mirror, socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        empty_first.manifests.clear()
        config = tmp_path / "config.toml"
        places = ", ".join(
            f'"http://{h}"' for h in (f"127.0.0.1:{dead.getsockname()[1]}", empty_first.host, mirror.host)
        )
        config.write_text(f'[registry."docker.io"]\nmirrors = [{places}]\n')
        monkeypatch.setenv("CLOCHE_CONFIG", str(config))
        login(home, "https://index.docker.io/v1/")
        assert ok("pull", "-q", "hello") == "docker.io/library/hello:latest"
        assert runs("hello") == "mirrored"
        assert mirror.asked("/v2/library/hello/manifests/latest")
        assert not any("authorization" in h for _, _, h in (*mirror.seen, *empty_first.seen)), (
            "those are the registry's"
        )


def test_a_pull_that_is_killed_leaves_nothing_that_is_seen(home: Path, store: Path) -> None:
    class Slow(Server):
        reached = threading.Event()

        def before(self, handler: BaseHTTPRequestHandler) -> bool:
            if "/blobs/" in handler.path and len(self.blobs[handler.path.rpartition("/")[2]]) > 10_000:
                data = self.blobs[handler.path.rpartition("/")[2]]
                handler.send_response(200)
                handler.send_header("Content-Length", str(len(data)))
                handler.end_headers()
                handler.wfile.write(data[:5000])
                handler.wfile.flush()
                self.reached.set()
                threading.Event().wait(20)
            return False

    from commands import COMMAND

    with Slow(busybox()) as server:
        with subprocess.Popen([*COMMAND, "pull", f"{server.host}/app"], stdout=subprocess.DEVNULL) as pulling:
            assert server.reached.wait(30)
            pulling.kill()
    assert not images()
    with Server(busybox()) as server:
        assert runs(ok("pull", "-q", f"{server.host}/app")) == "hello"
    assert not [p for p in (store / "aside").iterdir() if p.name != "lock"]


def test_an_image_that_is_there_needs_no_network_code(store: Path) -> None:
    ok("run", "--rm", "starter", "true")
    script = (
        "import sys; from cloche.cli.main import main; code = main(['run', '--rm', 'starter', 'true'])\n"
        "print(code, sorted(m for m in sys.modules if m.split('.')[0] in ('urllib3', 'ssl', 'http', 'tomllib')))"
    )
    from commands import SOURCE

    command = ["/usr/bin/env", "python3", "-I", "-c", f"import sys; sys.path.insert(0, {SOURCE!r}); {script}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0 []"


def test_a_redirect_target_that_asks_who_we_are_learns_nothing(home: Path) -> None:
    """Only the registry itself may name a token server, or be answered at all."""
    made = busybox()
    with Server() as thief:

        class Asking(Server):
            def before(self, handler: BaseHTTPRequestHandler) -> bool:
                where = f'Bearer realm="http://{thief.host}/token",service="s"'
                return say(handler, 401, b"{}", {"WWW-Authenticate": where})

        with Asking() as storage:

            class Redirecting(TokenServer):
                def before(self, handler: BaseHTTPRequestHandler) -> bool:
                    if super().before(handler):
                        return True
                    if "/blobs/" in handler.path:
                        return say(handler, 307, b"", {"Location": f"http://{storage.host}{handler.path}"})
                    return False

            class Open(Server):
                def before(self, handler: BaseHTTPRequestHandler) -> bool:
                    return say(handler, 307, b"", {"Location": f"http://{storage.host}{handler.path}"})

            for kind in (Redirecting, Open):
                with kind(made) as server:
                    login(home, server.host)
                    unchanged(server)
            assert storage.seen and not any("authorization" in headers for _, _, headers in storage.seen)
            assert not thief.seen
