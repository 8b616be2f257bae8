"""Docker's notation of ports."""

from __future__ import annotations

import pytest

from cloche.engine.ports import exposed, published, shown
from cloche.engine.request import PortMapping
from cloche.errors import Invalid
from cloche.network.model import Port


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("80", [PortMapping(80)]),
        ("80/udp", [PortMapping(80, "udp")]),
        ("8080:80", [PortMapping(80, "tcp", "", 8080)]),
        ("8080:80/UDP", [PortMapping(80, "udp", "", 8080)]),
        ("127.0.0.1:8080:80", [PortMapping(80, "tcp", "127.0.0.1", 8080)]),
        ("127.0.0.1::80", [PortMapping(80, "tcp", "127.0.0.1")]),
        ("[::1]:8080:80", [PortMapping(80, "tcp", "::1", 8080)]),
        ("[::]::80", [PortMapping(80, "tcp", "::")]),
        ("0:80", [PortMapping(80)]),
        (":80", [PortMapping(80)]),
        ("80-82", [PortMapping(80), PortMapping(81), PortMapping(82)]),
        ("8000-8001:80-81", [PortMapping(80, "tcp", "", 8000), PortMapping(81, "tcp", "", 8001)]),
        ("8000-8010:80", [PortMapping(80, "tcp", "", 8000, 8010)]),
    ],
)
def test_what_one_publish_means(text: str, found: list[PortMapping]) -> None:
    assert list(published(text)) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no port specified"),
        (":", "no port specified"),
        ("x", "invalid containerPort: x"),
        ("80:x", "invalid containerPort: x"),
        ("x:80", "invalid hostPort: x"),
        ("70000", "invalid containerPort: 70000"),
        ("70000:80", "invalid hostPort: 70000"),
        ("81-80", "invalid containerPort: 81-80"),
        ("1-2:3-5", "invalid ranges specified for container and host Ports"),
        ("80/icmp", "invalid protocol: icmp"),
        ("x:1:2", "invalid IP address: x"),
        ("1:2:3:4", "too many colons"),
        ("::1:80:80", "too many colons"),
        ("[::1]80", r"\[ADDRESS\]:HOST:PORT"),
        ("٣", "invalid containerPort"),
        ("0", "invalid containerPort: 0"),
    ],
)
def test_what_cannot_be_meant(text: str, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        published(text)


def test_exposed_ports() -> None:
    assert exposed("80") == ((80, "tcp"),) and exposed("80-81/udp") == ((80, "udp"), (81, "udp"))
    for text in ("", "x", "2-1", "1:2", "1/x"):
        with pytest.raises(Invalid):
            exposed(text)


def test_ports_as_ps_lists_them() -> None:
    ports = (
        Port("::", "tcp", 8080, 80),
        Port("0.0.0.0", "tcp", 8080, 80),
        *(Port("0.0.0.0", "tcp", 9000 + i, 90 + i) for i in range(3)),
        Port("127.0.0.1", "udp", 53, 53),
    )
    assert shown(ports, ((80, "tcp"), (443, "tcp"))) == (
        "0.0.0.0:8080->80/tcp, 0.0.0.0:9000-9002->90-92/tcp, [::]:8080->80/tcp, 127.0.0.1:53->53/udp, 443/tcp"
    )
    assert shown((), ()) == ""
