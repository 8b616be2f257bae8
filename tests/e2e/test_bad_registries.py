"""Registries that are slow, stall, drip, flood, lie in headers and documents: one clear line, and nothing is left.

In this process, so that patience can be made short. What a real registry says is in test_registry.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import signal
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

import leftovers
from archives import folder, hardlink, member, symlink, tar_of
from cloche import aio
from cloche.errors import Error
from cloche.image import registry
from cloche.sdk import Client
from commands import COMMAND
from registries import CONFIG, INDEX, LAYER, MANIFEST, Made, Server, digest, layer, say

pytestmark = [
    pytest.mark.requires("root", "overlay"),
    pytest.mark.timeout(120),
]
Answer = Callable[[BaseHTTPRequestHandler], bool]


@pytest.fixture(scope="module")
def images_only() -> Iterator[Client]:
    """A store in which nothing ever runs: one for all tests."""
    with tempfile.TemporaryDirectory(prefix="cloche-", dir="/tmp") as root, Client(root) as made:
        made.engine.changing_images()
        yield made


@pytest.fixture
def client(images_only: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """No credentials and no configuration but the test's own; a short patience; no connection that stays."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv("CLOCHE_CONFIG", raising=False)
    monkeypatch.setattr(registry, "READ", 0.4)
    monkeypatch.setattr(registry, "_PATIENCE", 3.0)
    monkeypatch.setattr(registry, "_TRIES", 3)
    before = sockets()
    yield images_only
    for image in images_only.engine.images.images():
        images_only.engine.remove_image(image.id, force=True)
    deadline = time.monotonic() + 8
    while len(sockets() - before):
        assert time.monotonic() < deadline, sockets() - before
        time.sleep(0.01)


def sockets() -> set[str]:
    return {text for text in leftovers.census()["descriptors"] if "socket:" in text}


class Odd(Server):
    """One whose answers to some paths are another's; `answers` are tried in order, by a word of the path."""

    def __init__(self, *images: Made, **answers: Answer) -> None:
        super().__init__(*images)
        self.answers = answers

    def before(self, handler: BaseHTTPRequestHandler) -> bool:
        return any(word in handler.path and answer(handler) for word, answer in self.answers.items())


def there(client: Client) -> dict[str, set[str]]:
    """What a pull could leave: files, rows, descriptors, threads."""
    root = client.engine.store.root
    names = {f"{f}/{n}" for f in ("aside", "layers", "trash", "content/sha256") for n in entries(f"{root}/{f}")}
    rows = {
        str(tuple(row))
        for table in ("images", "layers", "tags")
        for row in client.engine.db.execute(f"SELECT * FROM {table}")
    }
    found = leftovers.census(*leftovers.marks(Path(root)))
    found["descriptors"] = {d for d in found["descriptors"] if root in d}  # sockets: the server's are here, too
    return {**found, "files": names - {"aside/lock"}, "rows": rows}


def small() -> Made:
    """An image that is quickly made, of two layers."""
    return Made([layer({"a": os.urandom(20_000)}), layer({"b": b"hello"})])


def entries(path: str) -> list[str]:
    return os.listdir(path) if os.path.exists(path) else []


def fails(client: Client, server: Server, *words: str, within: float = 30.0, name: str = "app") -> str:
    """A pull that must fail with one line within so many seconds, and leave nothing."""
    before = there(client)
    started = time.monotonic()
    with pytest.raises(Error) as caught:
        client.pull(f"{server.host}/{name}")
    assert time.monotonic() - started < within
    line = str(caught.value)
    assert line.isprintable() and len(line) < 1000, line
    for word in words:
        assert word in line, line
    assert not leftovers.grown(before, there(client))
    workers = [t.name for t in threading.enumerate() if t.name.startswith(("pull", "ahead"))]
    assert not workers
    return line


def begins(handler: BaseHTTPRequestHandler, size: int | str, **headers: str) -> None:
    """The head of an answer whose body is the caller's to send."""
    handler.send_response(200)
    for key, value in {**headers, "Content-Length": str(size)}.items():
        handler.send_header(key, value)
    handler.end_headers()


def drips(handler: BaseHTTPRequestHandler) -> bool:
    """A byte now and then, for ever."""
    begins(handler, 1 << 20)
    try:
        for _ in range(60):
            handler.wfile.write(b" ")
            time.sleep(0.05)
    except OSError:
        pass
    handler.close_connection = True
    return True


def stalls(handler: BaseHTTPRequestHandler) -> bool:
    """A beginning, then nothing."""
    begins(handler, 1 << 20)
    handler.wfile.write(b"{" * 100)
    handler.wfile.flush()
    time.sleep(3)
    handler.close_connection = True
    return True


def is_silent(handler: BaseHTTPRequestHandler) -> bool:
    """Not even a head."""
    time.sleep(3)
    handler.close_connection = True
    return True


def resets(handler: BaseHTTPRequestHandler) -> bool:
    """The connection ends in front of an answer."""
    handler.connection.close()
    handler.close_connection = True
    return True


@pytest.mark.parametrize("how", [drips, stalls, is_silent, resets])
@pytest.mark.parametrize("what", ["manifests", "blobs"])
def test_registries_that_are_slow_or_stall(client: Client, how: Answer, what: str) -> None:
    with Odd(small(), **{what: how}) as server:
        fails(client, server)


def test_a_connection_that_is_reset_in_front_of_an_answer_is_made_again(client: Client) -> None:
    left = {"manifests": 2, "blobs": 2}

    def sometimes(handler: BaseHTTPRequestHandler) -> bool:
        word = "blobs" if "blobs" in handler.path else "manifests"
        left[word] -= 1
        return left[word] >= 0 and resets(handler)

    with Odd(small(), **{"/v2/": sometimes}) as server:
        assert client.pull(f"{server.host}/app")


def test_a_few_bytes_each_time_are_no_progress(client: Client) -> None:
    """A server that cuts after every byte would be asked as often as a layer has bytes."""
    with Server(small()) as server:
        server.cut = [1] * 100_000
        fails(client, server, "the connection ended after", within=60)
        assert len(server.asked("/blobs/")) < 40


def test_one_bad_layer_does_not_wait_for_the_others(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "READ", 30.0)
    made = Made([layer({"a": b"x"}), layer({"b": os.urandom(20_000)})])
    bad, slow = made.layers[0]["digest"], made.layers[1]["digest"]

    def answer(handler: BaseHTTPRequestHandler) -> bool:
        if slow in handler.path:
            return stalls_long(handler)
        if bad in handler.path:
            time.sleep(0.5)  # the other is on its way by then
            data = made.blobs[bad]
            return say(handler, 200, data[:-1] + b"\1")
        return False

    def stalls_long(handler: BaseHTTPRequestHandler) -> bool:
        begins(handler, made.layers[1]["size"])
        handler.wfile.write(b"\x1f")
        handler.wfile.flush()
        time.sleep(3)
        handler.close_connection = True
        return True

    with Odd(made, blobs=answer) as server:
        fails(client, server, "it has the digest", within=3)


def stalling() -> tuple[threading.Event, Answer]:
    """An answer that begins and does not go on, and whether it has begun."""
    reached = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> bool:
        begins(handler, 1 << 20)
        handler.wfile.write(b"\x1f\x8b")
        handler.wfile.flush()
        reached.set()
        time.sleep(15)
        return True

    return reached, answer


def test_an_interrupt_ends_a_pull_that_waits(store: Path) -> None:
    reached, answer = stalling()

    with Odd(small(), blobs=answer) as server:
        with subprocess.Popen([*COMMAND, "pull", f"{server.host}/app"], stderr=subprocess.PIPE, text=True) as pulling:
            assert reached.wait(30)
            time.sleep(0.2)
            started = time.monotonic()
            pulling.send_signal(signal.SIGINT)
            _, err = pulling.communicate(timeout=30)
            assert time.monotonic() - started < 5
        assert pulling.returncode in (130, -2) and "Traceback" not in err
    assert set(entries(f"{store}/aside")) <= {"lock"}


def test_an_awaited_pull_that_waits_ends_when_it_is_cancelled(store: Path) -> None:
    reached, answer = stalling()

    async def main(server: Server) -> float:
        async with aio.Client(str(store)) as client:
            pulling = asyncio.ensure_future(client.pull(f"{server.host}/app"))
            assert await asyncio.to_thread(reached.wait, 30)
            started = time.monotonic()
            pulling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pulling
            return time.monotonic() - started

    with Odd(small(), blobs=answer) as server:
        assert asyncio.run(main(server)) < 5
    assert set(entries(f"{store}/aside")) <= {"lock"}
    assert not [t.name for t in threading.enumerate() if t.name.startswith(("pull", "ahead"))]


def busy(status: int, times: int, **headers: str) -> Answer:
    left = [times]

    def answer(handler: BaseHTTPRequestHandler) -> bool:
        left[0] -= 1
        return left[0] >= 0 and say(handler, status, b"{}", {k.replace("_", "-"): v for k, v in headers.items()})

    return answer


@pytest.mark.parametrize(
    ("status", "after"),
    [
        (429, ""),
        (429, "1"),
        (429, "date"),
        (429, "-5"),
        (429, "soon"),
        (429, "9" * 60_000),
        (503, "1"),
        (500, ""),
        (504, ""),
    ],
    ids=lambda value: str(value)[:8],
)
def test_who_is_busy_is_asked_again_when_it_says_so(client: Client, status: int, after: str) -> None:
    made = small()
    value = formatdate(time.time() + 3, usegmt=True) if after == "date" else after
    with Odd(made, **{"/v2/": busy(status, 2, **({"Retry_After": value} if value else {}))}) as server:
        started = time.monotonic()
        if len(after) > 100:
            fails(client, server, "too many requests", "asked again in 1048576 s")
            return
        client.pull(f"{server.host}/app")
        took = time.monotonic() - started
        assert took < 20 and (after != "1" or took >= 2) and (after != "date" or took >= 1)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 418, 400, 204, 304])
def test_who_never_has_time_is_given_up(client: Client, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr(registry, "_PATIENCE", 0.9)
    with Odd(small(), **{"/v2/": busy(status, 1000)}) as server:
        fails(client, server)


def test_errors_without_end_are_not_read_to_their_end(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_PATIENCE", 0.9)
    sent = [0]

    def endless(status: int, **headers: str) -> Answer:
        def answer(handler: BaseHTTPRequestHandler) -> bool:
            handler.send_response(status)
            for key, value in {"Transfer-Encoding": "chunked", **headers}.items():
                handler.send_header(key, value)
            handler.end_headers()
            piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
            try:
                for _ in range(2000):  # 128 MiB
                    handler.wfile.write(piece)
                    sent[0] += len(piece)
            except OSError:
                pass
            handler.close_connection = True
            return True

        return answer

    for answer in (endless(503), endless(302, Location="/v2/app/manifests/latest"), endless(401), endless(404)):
        with Odd(small(), **{"/v2/": answer}) as server:
            fails(client, server)
    assert sent[0] < 200 << 20


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "ftp://example.org/x",
        "javascript:1",
        "http://[",
        "http://[::1",
        "//",
        "http://",
        "https://registry.invalid:99999999/",
        "http://\x7f/",
        "\\\\host\\x",
        "http://127.0.0.1:1/",
        "data:,x",
        "gopher://x",
        "http://user:pass@127.0.0.1:1/x",
        "http://127.0.0.1:0/",
        "unix:///var/run/docker.sock",
        "x" * 60_000,
    ],
    ids=lambda text: text[:20],
)
def test_redirects_to_nowhere(client: Client, target: str) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> bool:
        return say(handler, 307, b"", {"Location": target})

    with Odd(small(), blobs=answer) as server:
        fails(client, server)


@pytest.mark.parametrize(
    "realm", ["http://[", "", "/token", "file:///etc/passwd", "http://example.org/token", "https://["]
)
def test_token_servers_that_are_none(client: Client, realm: str) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> bool:
        return say(handler, 401, b"{}", {"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'})

    with Odd(small(), **{"/v2/": answer}) as server:
        fails(client, server, "token")


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"token": 5}',
        b'{"token": "a\\r\\nX: y"}',
        b'{"token": "\\u00e9"}',
        b'{"token": "' + b"t" * 100_000 + b'"}',
        b'{"token": null, "access_token": null}',
        b"\xff\xfe",
        b"9" * 100_000,
    ],
    ids=lambda text: repr(text)[:16],
)
def test_tokens_that_are_none(client: Client, token: bytes) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> bool:
        if handler.path.startswith("/token"):
            return say(handler, 200, token)
        where = f'Bearer realm="http://{server.host}/token",service="s"'
        return say(handler, 401, b"{}", {"WWW-Authenticate": where})

    with Odd(small(), **{"/": answer}) as server:
        fails(client, server)


def head(**headers: str) -> Answer:
    """An honest body behind a head with these."""

    def answer(handler: BaseHTTPRequestHandler) -> bool:
        server: Server = handler.server.owner  # type: ignore[attr-defined]
        data, kind = server.manifests["latest"]
        handler.send_response(200)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            handler.send_header(key.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)
        handler.close_connection = True
        return True

    return answer


@pytest.mark.parametrize(
    ("headers", "word"),
    [
        ({"Content-Length": "99999999999"}, ""),
        ({"Content-Length": "10"}, ""),
        ({"Docker-Content-Digest": digest(b"other")}, "the manifest has the digest"),
        ({"Content-Type": INDEX}, "announced as"),
        ({"X-Big": "x" * 200_000}, ""),
        ({f"X-{n}": "y" for n in range(300)}, ""),
    ],
    ids=["too long", "too short", "digest", "type", "big header", "many headers"],
)
def test_heads_that_lie(client: Client, headers: dict[str, str], word: str) -> None:
    with Odd(small(), manifests=head(**headers)) as server:
        server.httpd.owner = server  # type: ignore[attr-defined]
        fails(client, server, word)


@pytest.mark.parametrize("kind", ["text/html; charset=x", "\x1b[31m", "", "application/json"])
def test_types_that_say_nothing_do_no_harm(client: Client, kind: str) -> None:
    with Odd(small(), manifests=head(**{"Content-Type": kind})) as server:
        server.httpd.owner = server  # type: ignore[attr-defined]
        assert client.pull(f"{server.host}/app").id


def described(data: bytes, kind: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest(data), "size": len(data), **more}


def documents() -> dict[str, tuple[bytes, str]]:
    made = small()
    whole = json.loads(made.manifest)
    entry = described(made.manifest, MANIFEST, platform={"os": "linux", "architecture": "amd64"})
    changed = lambda **more: json.dumps({**whole, **more}).encode()  # noqa: E731
    first = whole["layers"][0]
    layers = lambda **more: changed(layers=[{**first, **more}, whole["layers"][1]])  # noqa: E731
    return {
        "both at once": (changed(manifests=[entry]), MANIFEST),
        "an index with layers": (
            json.dumps({**json.loads(Made.document({"manifests": [entry]}, INDEX)), "layers": []}).encode(),
            INDEX,
        ),
        "an empty index": (Made.document({"manifests": []}, INDEX), INDEX),
        "100 000 entries": (
            Made.document({"manifests": [{**entry, "platform": {"os": "x" * 3, "architecture": "y"}}] * 15_000}, INDEX),
            INDEX,
        ),
        "no layers": (changed(layers=[]), MANIFEST),
        "5000 layers": (changed(layers=[first] * 5000), MANIFEST),
        "a negative size": (layers(size=-1), MANIFEST),
        "no size": (layers(size=None), MANIFEST),
        "a size in words": (layers(size="12"), MANIFEST),
        "a size that is too large": (layers(size=1 << 70), MANIFEST),
        "a digest out of the folder": (layers(digest="sha256:../../../../etc/passwd"), MANIFEST),
        "a digest of another kind": (layers(digest="md5:" + "0" * 32), MANIFEST),
        "a digest in capitals": (layers(digest=first["digest"].upper()), MANIFEST),
        "a digest with a line": (layers(digest=first["digest"] + "\r\nX: y"), MANIFEST),
        "escapes": (layers(digest="\x1b]0;evil\x07"), MANIFEST),
        "escapes in types": (changed(config={**whole["config"], "mediaType": "\x1b[31m"}), MANIFEST),
        "a foreign address": (
            layers(digest=digest(b"none"), urls=["file:///etc/passwd", "http://127.0.0.1:1/"]),
            MANIFEST,
        ),
        "deep": (b'{"a":' * 100_000, MANIFEST),
        "a huge number": (b'{"schemaVersion": ' + b"9" * 100_000 + b"}", MANIFEST),
        "one surrogate": (changed(annotations={"a": "\ud800"}), MANIFEST),
        "UTF-16": (made.manifest.decode().encode("utf-16"), MANIFEST),
        "a config of 99 GB": (changed(config={**whole["config"], "size": 99 << 30}), MANIFEST),
        "a config that is another": (changed(config={**whole["config"], "digest": first["digest"]}), MANIFEST),
        "signed": (made.manifest, "application/vnd.docker.distribution.manifest.v1+prettyjws"),
    }


@pytest.mark.parametrize("name", list(documents()))
def test_documents_that_lie(client: Client, name: str) -> None:
    with Server(small()) as server:
        data, kind = documents()[name]
        if name == "signed":
            data = b'{"schemaVersion": 1, "fsLayers": []}'
        server.manifests["latest"] = data, kind
        fails(client, server)


@pytest.mark.parametrize(
    "config",
    [
        {"os": "windows"},
        {"rootfs": {"type": "layers", "diff_ids": []}},
        {"rootfs": {"type": "layers", "diff_ids": ["x"] * 2}},
        {"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64] * 2}},
        {"config": []},
        {"config": {"Env": [1]}},
        {"config": {"Env": ["A\0B"]}},
        {"rootfs": None},
    ],
    ids=lambda value: str(value)[:24],
)
def test_configurations_that_lie(client: Client, config: dict[str, Any]) -> None:
    made = small()
    document, whole = json.loads(made.config), json.loads(made.manifest)
    whole["config"] = made.keep(json.dumps({**document, **config}).encode(), CONFIG)
    made.manifest = json.dumps(whole).encode()
    with Server(made) as server:
        fails(client, server)


def of_layer(blob: bytes, plain: bytes, kind: str = LAYER + "+gzip") -> Made:
    """An image whose one layer is `blob`, which says that it unpacks to `plain`."""
    made = Made([plain])
    whole = json.loads(made.manifest)
    whole["layers"] = [made.keep(blob, kind)]
    made.manifest = json.dumps(whole).encode()
    return made


def many(count: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(count):
            tar.addfile(tarfile.TarInfo(f"d{number % 100}/{number}"))
    return out.getvalue()


HOSTILE = {
    "a way out": tar_of(member("../../evil", b"x")),
    "a way out by a folder": tar_of(folder("a/../../evil")),
    "through an absolute link": tar_of(symlink("way", "/etc"), member("way/evil", b"x")),
    "through a link up": tar_of(symlink("way", "../../../../../../etc"), member("way/evil", b"x")),
    "a hard link to the host": tar_of(hardlink("x", "/etc/passwd")),
    "a hard link through a link": tar_of(symlink("way", "/etc"), hardlink("x", "way/passwd")),
    "a hard link to nothing": tar_of(hardlink("x", "nothing")),
    "a hard link to a folder": tar_of(folder("d"), hardlink("x", "d")),
    "a device that is none": tar_of(member("dev", kind=tarfile.CHRTYPE, device=(4096, 1))),
    "an unknown type": tar_of(member("x", kind=b"Z")),
    "a root that is a file": tar_of(member(".", b"x")),
    "a long name": tar_of(member("n" * 300, b"")),
    "a deep name": tar_of(member("d/" * 3000 + "x", b"")),
    "escapes": tar_of(member("\x1b]0;evil\x07/../x", b"")),
    "cut short": tar_of(member("x", b"y" * 5000))[:2000],
    "no tar": b"just a text, and not even a long one\n" * 100,
    "links in a circle": tar_of(symlink("a", "b"), symlink("b", "a"), member("a/x", b"")),
    "too many entries": many(20_000),
    "too much": gzip.compress(bytes(40 << 20)),
    "too much of zstd": b"zstd",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_layers_that_are_hostile(client: Client, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from cloche.image import staging
    from cloche.storage.layers import Limits

    monkeypatch.setattr(staging, "Limits", lambda: Limits(32 << 20, 10_000))
    plain = HOSTILE[name]
    if name.startswith("too much"):
        tall = tar_of(member("x", bytes(40 << 20)))
        made = Made([tall], compress="zstd" if "zstd" in name else "gzip")
    else:
        made = Made([plain])
    with Server(made) as server:
        fails(client, server)
    assert not Path("/etc/evil").exists() and not Path("/evil").exists()


def test_layers_that_do_no_harm(client: Client) -> None:
    """Links that lead out and devices are an image's good right: they are seen from inside only."""
    data = tar_of(
        symlink("out", "/etc/passwd"),
        symlink("up", "../../../../etc/passwd"),
        member("dev", kind=tarfile.CHRTYPE, device=(1, 3)),
        member("twice", b"first"),
        member("twice", b"second"),
        folder("d"),
        folder("d"),
        symlink("d2", "d"),
        member("./d/../d/x"[5:], b""),
    )
    with Server(Made([data])) as server:
        image = client.pull(f"{server.host}/app")
    number = client.engine.images.resolve(image.id).layers[0]
    root = Path(client.engine.store.root) / f"layers/{number}/diff"
    assert (root / "twice").read_bytes() == b"second" and (root / "out").is_symlink()


def test_a_wrong_diff_id(client: Client) -> None:
    honest, other = tar_of(member("x", b"honest")), tar_of(member("x", b"other"))
    with Server(of_layer(gzip.compress(other), honest)) as server:
        fails(client, server, "its content has the digest")


def test_a_type_that_is_not_the_contents(client: Client) -> None:
    """Types are said, contents decide: a plain tar under the name of a compressed one is what its digest says."""
    plain = tar_of(member("x", b"y"))
    for kind in ("+gzip", "+zstd", "", "+nosuch"):
        with Server(of_layer(plain, plain, LAYER + kind)) as server:
            client.pull(f"{server.host}/app")


def ranged(start: str) -> Answer:
    """The first half of a layer is cut; the second is asked for, and another is given."""

    def answer(handler: BaseHTTPRequestHandler) -> bool:
        server: Server = handler.server.owner  # type: ignore[attr-defined]
        data = server.blobs[handler.path.rpartition("/")[2]]
        if not handler.headers.get("Range"):
            begins(handler, len(data))
            handler.wfile.write(data[: len(data) // 2])
            handler.wfile.flush()
            handler.connection.shutdown(2)
            handler.close_connection = True
            return True
        return say(handler, 206, data[len(data) // 2 :], {"Content-Range": start} if start else {})

    return answer


@pytest.mark.parametrize("start", ["bytes 0-9/10", "bytes 17-20/100", "", "nonsense", "bytes */0"])
def test_parts_that_are_others(client: Client, start: str) -> None:
    with Odd(small(), blobs=ranged(start)) as server:
        server.httpd.owner = server  # type: ignore[attr-defined]
        fails(client, server)
