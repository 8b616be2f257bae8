"""Images made of nothing, and registries to fetch them from: a real one, and one of ours that can be made to lie."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import select
import socket
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

OCI = "application/vnd.oci.image."
MANIFEST, INDEX, CONFIG, LAYER = (
    OCI + "manifest.v1+json",
    OCI + "index.v1+json",
    OCI + "config.v1+json",
    OCI + "layer.v1.tar",
)
DOCKER = "application/vnd.docker.distribution.manifest."


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer(files: dict[str, bytes]) -> bytes:
    """A tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


class Made:
    """An image: its blobs by digest, its manifest's bytes."""

    def __init__(self, tars: list[bytes], architecture: str = "amd64", compress: str = "gzip", **config: Any) -> None:
        self.blobs: dict[str, bytes] = {}
        kinds = {"gzip": "+gzip", "zstd": "+zstd", "": ""}
        self.config = json.dumps(
            {
                "os": "linux",
                "architecture": architecture,
                "config": {"Cmd": ["/bin/busybox", "cat", "/hello"], "Env": ["PATH=/bin"], **config},
                "rootfs": {"type": "layers", "diff_ids": [digest(t) for t in tars]},
            }
        ).encode()
        layers = [self._compressed(t, compress) for t in tars]
        self.layers = [self.keep(data, LAYER + kinds[compress]) for data in layers]
        self.manifest = self.document({"config": self.keep(self.config, CONFIG), "layers": self.layers}, MANIFEST)

    @staticmethod
    def _compressed(data: bytes, kind: str) -> bytes:
        if kind == "zstd":
            import zstandard

            return bytes(zstandard.ZstdCompressor().compress(data))
        return gzip.compress(data, mtime=0) if kind == "gzip" else data

    def keep(self, data: bytes, kind: str) -> dict[str, Any]:
        self.blobs[digest(data)] = data
        return {"mediaType": kind, "digest": digest(data), "size": len(data)}

    @staticmethod
    def document(content: dict[str, Any], kind: str) -> bytes:
        return json.dumps({"schemaVersion": 2, "mediaType": kind, **content}).encode()


def busybox(hello: bytes = b"hello\n", **options: Any) -> Made:
    """An image that says hello; busybox is the host's static one."""
    program = Path("/bin/busybox").read_bytes()
    return Made([layer({"bin/busybox": program}), layer({"hello": hello})], **options)


def layout(folder: Path, images: list[Made], index: bool = False) -> None:
    """An OCI layout, of one image or of an index of them."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    described = []
    for made in images:
        for name, data in {**made.blobs, digest(made.manifest): made.manifest}.items():
            (blobs / name[7:]).write_bytes(data)
        architecture = json.loads(made.config)["architecture"]
        described.append(
            {
                "mediaType": MANIFEST,
                "digest": digest(made.manifest),
                "size": len(made.manifest),
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    if index:
        whole = Made.document({"manifests": described}, INDEX)
        (blobs / digest(whole)[7:]).write_bytes(whole)
        described = [{"mediaType": INDEX, "digest": digest(whole), "size": len(whole)}]
    described[0]["annotations"] = {"org.opencontainers.image.ref.name": "it"}
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_bytes(Made.document({"manifests": described}, INDEX))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def real(place: Path, auth: str = "") -> Iterator[str]:
    """Debian's docker-registry on loopback; gives host:port."""
    port = free_port()
    place.mkdir(exist_ok=True)
    config = place / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {place}/data}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n{auth}"
    )
    with open(place / "log", "wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
    try:
        while True:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (place / "log").read_text()
            select.select([], [], [], 0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def skopeo(source: str, target: str, *flags: str) -> None:
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", *flags, source, target]
    subprocess.run(command, check=True, capture_output=True, timeout=120, env={**os.environ, "TMPDIR": "/tmp"})


class Server:
    """A registry of ours: what it has, what it was asked, how it misbehaves. `before` may answer in its place."""

    def __init__(self, *images: Made, tls: tuple[str, str] | None = None) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[bytes, str]] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.cut: list[int] = []  # bytes after which the next blobs are cut
        self.ranges = True
        for made in images:
            self.add("latest", made)
        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.httpd.daemon_threads = True
        if tls:
            import ssl

            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.httpd.socket = context.wrap_socket(self.httpd.socket, server_side=True)
        self.host = f"127.0.0.1:{self.httpd.server_port}"
        self.thread = threading.Thread(target=self.httpd.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def add(self, tag: str, made: Made, kind: str = MANIFEST) -> None:
        self.blobs |= made.blobs
        self.manifests[tag] = self.manifests[digest(made.manifest)] = made.manifest, kind

    def close(self) -> None:
        self.httpd.shutdown()
        self.httpd.server_close()
        self.thread.join()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def before(self, handler: BaseHTTPRequestHandler) -> bool:
        """Answer instead; False to go on."""
        return False

    def asked(self, word: str) -> list[dict[str, str]]:
        """The headers of each request whose path has `word` in it."""
        return [headers for _, path, headers in self.seen if word in path]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                server.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
                try:
                    if not server.before(self):
                        server.serve(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

        return Handler

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """As a registry does."""
        words = handler.path.partition("?")[0].split("/")
        if words[-2:-1] == ["manifests"] and words[-1] in self.manifests:
            data, kind = self.manifests[words[-1]]
            say(handler, 200, data, {"Content-Type": kind})
        elif words[-2:-1] == ["blobs"] and words[-1] in self.blobs:
            self._blob(handler, self.blobs[words[-1]])
        elif handler.path == "/v2/":
            say(handler, 200, b"{}")
        else:
            say(handler, 404, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest \\u001b[31munknown"}]}')

    def _blob(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        start = 0
        if self.ranges and (wanted := handler.headers.get("Range")):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        if self.cut and len(data) > 10_000:
            handler.wfile.write(data[start : start + self.cut.pop(0)])
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
            return
        handler.wfile.write(data[start:])


def say(handler: BaseHTTPRequestHandler, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> bool:
    """A whole answer."""
    handler.send_response(status)
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)
    return True
