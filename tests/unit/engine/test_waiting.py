"""Waiting over the deaths of keepers, with keepers that are a socket in this process."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche.engine.client import Keeper
from cloche.engine.protocol import receive, send
from cloche.engine.store import Store
from cloche.engine.waiting import Waiting


class House:
    """Listens as the pair does; the test says what its keepers do."""

    def __init__(self, root: Path) -> None:
        (root / "keeper").mkdir()
        self.store = Store(str(root), str(root), "group")
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listening.bind(self.store.socket)
        self.listening.listen(10)
        self.client = Keeper(self.store)
        self.keeper: socket.socket | None = None

    def accept(self) -> None:
        self.keeper, _ = self.listening.accept()

    def heard(self) -> str:
        assert self.keeper
        message, _ = receive(self.keeper)
        assert message
        return str(message["op"]) + " quiet" * ("quiet" in message)

    def say(self, **answer: object) -> None:
        assert self.keeper
        send(self.keeper, answer)

    def die(self) -> None:
        assert self.keeper
        self.keeper.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    path = Path(f"/tmp/w{os.getpid()}-{threading.get_ident() % 10000}")  # short: a socket's path has 108 bytes
    path.mkdir()
    made = House(path)
    yield made
    made.client.close()
    if made.keeper:
        made.keeper.close()
    made.listening.close()
    os.unlink(made.store.socket)
    (path / "keeper").rmdir()
    path.rmdir()


def started(house: House) -> Waiting:
    """As after a start that was answered on this connection."""
    house.client.connected()
    house.accept()
    house.client.answered = house.client.connection
    return Waiting(house.client, "box", attached=True)


def test_on_the_connection_of_the_start_it_only_waits(house: House) -> None:
    waiting = started(house)
    assert house.heard() == "wait"
    house.say(exit=7, reason="")
    assert waiting.result() == (7, "")


def test_after_a_death_all_is_asked_again_on_the_new_connection(house: House) -> None:
    waiting = started(house)
    waiting.end_input()
    assert [house.heard(), house.heard()] == ["wait", "end_input quiet"]
    house.die()
    assert waiting.result() is None
    house.accept()
    assert [house.heard() for _ in range(3)] == ["attach quiet", "end_input quiet", "wait"]
    house.say(exit=3, reason="")
    assert waiting.result() == (3, "")


def test_the_end_of_input_is_not_lost_when_its_keeper_dies_before_it_is_sent(house: House) -> None:
    waiting = started(house)
    assert house.heard() == "wait"
    house.die()
    waiting.end_input()
    house.accept()
    assert [house.heard() for _ in range(3)] == ["attach quiet", "end_input quiet", "wait"]
    assert waiting.fileno() == house.client.fileno()


def test_a_start_that_was_answered_by_a_dead_keeper_attaches_again(house: House) -> None:
    house.client.connected()
    house.accept()
    house.client.answered = house.client.connection
    house.die()
    waiting = Waiting(house.client, "box", attached=True)
    house.accept()
    assert [house.heard(), house.heard()] == ["attach quiet", "wait"]
    house.say(exit=None)
    assert waiting.result() == (-1, "exit status unknown: nobody saw its end")


def test_it_is_asked_again_when_another_use_of_the_keeper_has_found_the_death(house: House) -> None:
    waiting = started(house)
    assert house.heard() == "wait"
    house.die()
    house.client.close()
    house.client.send({"op": "info"})
    house.accept()
    assert house.heard() == "info"
    assert waiting.fileno() == house.client.fileno()
    assert [house.heard(), house.heard()] == ["attach quiet", "wait"]
