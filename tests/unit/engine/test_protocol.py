"""Messages with descriptors: what comes whole is taken, of the rest nothing stays open."""

from __future__ import annotations

import os
import socket
from array import array
from collections.abc import Iterator

import pytest

from cloche.engine.protocol import DONTWAIT, MOST, pair, receive, send

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Pair]:
    made = pair()
    yield made  # type: ignore[misc]
    for end in made:
        end.close()


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_a_message_arrives_with_its_descriptors(ends: Pair) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    send(ends[0], {"op": "put", "names": ["a", "b"]}, (null, null))
    message, fds = receive(ends[1])
    assert message == {"op": "put", "names": ["a", "b"]}
    assert len(fds) == 2
    assert all(not os.get_inheritable(fd) for fd in fds)
    for fd in (null, *fds):
        os.close(fd)


def test_the_end_is_none_and_nothing_yet_is_an_error(ends: Pair) -> None:
    with pytest.raises(BlockingIOError):
        receive(ends[1], DONTWAIT)
    ends[0].close()
    assert receive(ends[1]) == (None, [])


@pytest.mark.parametrize(
    ("data", "count"),
    [(b"{", 3), (b"[1]", 3), (b"\xff", 3), (b"[" * 100_000, 3), (b"x" * (MOST + 1), 3), (b"{}", 100), (b"NaN", 0)],
    ids=["cut", "list", "bytes", "deep", "long", "many", "nan"],
)
def test_nonsense_is_refused_and_its_descriptors_are_closed(ends: Pair, data: bytes, count: int) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    before = open_descriptors()
    ends[0].sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [null] * count))] if count else [])
    with pytest.raises(ValueError, match=r"."):
        receive(ends[1])
    assert open_descriptors() == before
    os.close(null)


def test_what_a_dead_peer_had_sent_is_read_before_its_end(ends: Pair) -> None:
    send(ends[1], {"never": "read"})
    send(ends[0], {"last": "words"})
    ends[0].close()  # with bytes unread: the kernel says ECONNRESET first
    assert receive(ends[1])[0] == {"last": "words"}
    assert receive(ends[1])[0] is None
