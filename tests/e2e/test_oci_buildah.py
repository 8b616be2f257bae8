"""buildah with the runtime under test: images are built by what runs in containers that are made of their layers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.engines import NEEDED, Buildah, buildah
from e2e.places import IMAGE
from probes import requires
from screens import PROMPT

pytestmark = [
    pytest.mark.requires(*NEEDED, "program:buildah"),
    pytest.mark.timeout(120),
    pytest.mark.one_lane,
]
FILE = f"""
FROM {IMAGE}
COPY given /given
RUN cat /given > /made && echo step >> /made && chown app /made
ENV GREETING=hello
WORKDIR /tmp
USER app
RUN id -u > mine; pwd >> mine; echo $GREETING >> mine; test ! -w /given
CMD ["cat", "/made"]
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Buildah]:
    with buildah() as started:
        yield started


def built(engine: Buildah, place: Path, file: str, *flags: str) -> str:
    """The name of an image built of a file."""
    (place / "Dockerfile").write_text(file)
    (place / "given").write_text("given\n")
    done = engine.with_runtime("build-using-dockerfile", "--tag", "localhost/built", *flags, str(place))
    assert done.code == 0, done
    return "localhost/built"


def test_a_file_is_built_step_by_step(engine: Buildah, tmp_path: Path) -> None:
    name = built(engine, tmp_path, FILE)
    shown = json.loads(engine.ok("inspect", "--type", "image", name))["OCIv1"]
    assert shown["config"]["Cmd"] == ["cat", "/made"] and shown["config"]["User"] == "app"
    box = engine.ok("from", name)
    done = engine.with_runtime("run", box, "sh", "-c", "cat /made; stat -c %U /made; cat /tmp/mine")
    assert done.out.split() == ["given", "step", "app", "1000", "/tmp", "hello"], done
    engine.ok("rm", box)
    assert engine.place.containers() == []


def test_a_step_that_fails_fails_the_build_with_its_code(engine: Buildah, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo going >&2; exit 9\nRUN touch /never\n")
    failed = engine.with_runtime("build-using-dockerfile", str(tmp_path))
    assert failed.code == 9 and "going" in failed.err and "exit status 9" in failed.err
    assert engine.place.containers() == []


def test_run_gives_output_and_exit_code(engine: Buildah) -> None:
    box = engine.ok("from", IMAGE)
    done = engine.with_runtime("run", box, "sh", "-c", "echo out; echo err >&2; touch /kept; exit 4")
    assert done.code == 4 and done.out == "out\n" and "err\n" in done.err
    again = engine.with_runtime("run", "--user", "app", "--env", "A=b", box, "sh", "-c", "ls /kept; id -u; echo $A")
    assert again.out.split() == ["/kept", "1000", "b"]
    failed = engine.with_runtime("run", box, "/nonexistent")
    assert failed.code != 0 and "no such file" in failed.err.lower()
    engine.ok("rm", box)


def test_run_on_a_terminal(engine: Buildah) -> None:
    box = engine.ok("from", IMAGE)
    with engine.screen("run", *engine.flags, "--terminal", box, "sh") as screen:
        screen.until(PROMPT)
        assert screen.ask("tty") == "/dev/pts/0"
        screen.type("exit 0\r")
        assert screen.ended() == 0
    engine.ok("rm", box)


def test_run_has_what_the_flags_give(engine: Buildah, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content\n")
    box = engine.ok("from", "--cap-drop", "CAP_CHOWN", "--cgroup-parent", f"/{engine.place.name}", IMAGE)
    script = "cat /given/file; touch /given/no 2>&1; grep CapEff /proc/self/status; hostname; ls /sys/class/net"
    flags = ("--volume", f"{tmp_path}:/given:ro", "--hostname", "bell")
    done = engine.with_runtime("run", *flags, box, "sh", "-c", script)
    content, refused, capabilities, name, link = done.out.splitlines()
    assert content == "content" and refused.endswith("Read-only file system") and (name, link) == ("bell", "lo")
    assert not int(capabilities.split()[1], 16) & 1
    engine.ok("rm", box)


@requires("userns")
def test_a_user_namespace_maps_ids(engine: Buildah) -> None:
    maps = ("--userns-uid-map", "0:100000:2000", "--userns-gid-map", "0:200000:2000")
    box = engine.ok("from", *maps, IMAGE)
    done = engine.with_runtime("run", box, "sh", "-c", "cat /proc/self/uid_map; id -u; stat -c %u /bin/busybox")
    assert done.out.split() == ["0", "100000", "2000", "0", "0"], done
    engine.ok("rm", box)
