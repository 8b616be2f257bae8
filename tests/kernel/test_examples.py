"""The examples do what they say."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import cloche
from registries import Made, layout, real, skopeo

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.requires("root")
def test_forty_lines_are_a_container(tmp_path: Path) -> None:
    from cloche.image.entries import write_layer
    from cloche.image.packing import collect
    from cloche.storage.layers import unpack

    layer, root = tmp_path / "layer.tar", tmp_path / "root"
    with open(layer, "wb") as out:
        write_layer(collect(["sh", "cat", "ls"]).entries, out)
    with open(layer, "rb") as source:
        unpack(source, str(root))
    command = "cat /proc/sys/kernel/hostname; echo $$; test -e /proc/2 || echo alone; exit 7"
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / "forty_lines.py"), str(root), "sh", "-c", command],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent / "src")},
    )
    assert (ran.stdout.split(), ran.stderr, ran.returncode) == (["forty-lines", "1", "alone"], "", 7)


def redis() -> Made:
    """Debian's redis as an image: `redis-server` is, as in Debian's package of that name, a link to redis-check-rdb."""
    from cloche.image.entries import write_layer
    from cloche.image.packing import collect

    programs, link = io.BytesIO(), io.BytesIO()
    write_layer(collect(["redis-check-rdb", "redis-cli"]).entries, programs)
    with tarfile.open(fileobj=link, mode="w") as tar:
        info = tarfile.TarInfo("usr/bin/redis-server")
        info.type, info.linkname = tarfile.SYMTYPE, "redis-check-rdb"
        tar.addfile(info)
    command = {"Cmd": ["redis-server"], "Env": ["PATH=/usr/bin:/bin"], "ExposedPorts": {"6379/tcp": {}}}
    return Made([programs.getvalue(), link.getvalue()], **command)


@pytest.mark.requires(
    "root", "overlay", "nf_tables", "program:redis-check-rdb", "program:docker-registry", "program:skopeo"
)
def test_redis_is_pulled_run_and_ended(store: Path, tmp_path: Path) -> None:
    layout(tmp_path / "layout", [redis()])
    with real(tmp_path / "registry") as registry:
        name = f"{registry}/library/redis:7"
        skopeo(f"oci:{tmp_path}/layout:it", f"docker://{name}")
        ran = subprocess.run(
            [sys.executable, str(EXAMPLES / "redis_task.py"), name],
            capture_output=True,
            text=True,
            timeout=50,
            env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent / "src")},
        )
    assert (ran.stderr, ran.returncode) == ("", 0)
    pulled, started, ended = ran.stdout.splitlines()
    assert pulled.startswith(f"pulled {name}: ")
    assert started.startswith("started process ") and started.endswith(": PONG")
    assert ended == "redis-server exited with status: 0"
    with cloche.Client() as client:
        assert client.containers(all=True) == []
        assert [image.tags for image in client.images.list()] == [[name]]
