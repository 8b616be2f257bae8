"""The heat map of real containers: on a terminal, resized, ended in each way; without one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche.engine.containers import Engine
from cloche.engine.meters import Meters
from cloche.sdk import Client
from commands import cloche, ok
from probes import requires
from screens import Screen

pytestmark = [
    pytest.mark.one_lane,
    requires("root", "overlay"),
    pytest.mark.usefixtures("store"),
    pytest.mark.timeout(120),
]
ENTERED, LEFT = b"\x1b[?1049h", b"\x1b[?1049l"


@pytest.fixture
def screen(store: Path) -> Iterator[Screen]:
    made = Screen()
    yield made
    made.close()


def boxes(store: Path) -> None:
    with Client(str(store)) as client:
        client.run("starter", ["sleep", "1000"], detach=True, network="none", name="calm")
        client.run("starter", ["sh", "-c", "while :; do :; done"], detach=True, network="none", name="hot")


def test_without_a_terminal_one_frame(store: Path) -> None:
    assert ok("tiles", "--interval", "100ms").splitlines()[-1] == "nobody uses any"
    boxes(store)
    text = ok("tiles", "--interval", "500ms")
    assert "busiest: hot " in text and "\x1b" not in text
    assert ok("tiles", "--by", "memory").count("busiest: ") == 1
    assert "nobody uses any" in ok("tiles", "--by", "network", "--interval", "100ms")


def test_numbers_are_those_of_the_kernel(store: Path) -> None:
    boxes(store)
    engine = Engine(str(store))
    meters = Meters(engine, "memory")
    readings = {reading.name: reading.value for reading in meters.look()}
    assert set(readings) == {"calm", "hot"} and all(50_000 < value < 100e6 for value in readings.values())
    cpu = Meters(engine, "cpu")
    assert [reading.value for reading in cpu.look()] == [0, 0], "nothing to compare with yet"
    engine.close()


@pytest.mark.parametrize("end", [b"q", b"\x03", signal.SIGTERM, signal.SIGHUP])
def test_live_and_back(screen: Screen, store: Path, end: bytes | int) -> None:
    boxes(store)
    screen.start("tiles", "--interval", "100ms")
    assert ENTERED in screen.until("busiest: hot")
    screen.resize(10, 40)
    screen.type(b"m")
    screen.until("by memory")
    screen.type(b"n")
    screen.until("by network")
    assert screen.client
    if isinstance(end, bytes):
        screen.type(end)
    else:
        os.kill(screen.client.pid, end)
    code = screen.ended()
    assert code == (0 if isinstance(end, bytes) else 128 + end)
    assert screen.shown.rstrip().endswith(LEFT)


def test_arrows_choose_one_and_it_is_told_of(screen: Screen, store: Path) -> None:
    boxes(store)
    screen.start("tiles", "--interval", "100ms")
    screen.until("busiest: hot")
    with Client(str(store)) as client:
        calm, hot = client.get("calm").id[:12], client.get("hot").id[:12]
    screen.type(b"\x1b[C")
    screen.until(f"{calm} calm ")
    screen.type(b"\x1b[C")
    screen.until(f"{hot} hot ")
    screen.type(b"m\x1b[D")
    screen.until("by memory")
    screen.type(b"\x1b")
    assert screen.ended() == 0


def test_an_interval_that_cannot_be_meant() -> None:
    for text in ("0", "50ms", "2h", "soon"):
        refused = cloche("tiles", "--interval", text)
        assert refused.code == 1, refused
        assert len(refused.err.splitlines()) == 1
