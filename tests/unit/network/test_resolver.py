"""resolv.conf and hosts of a container."""

from __future__ import annotations

import pytest

from cloche.network.addresses import subnet
from cloche.network.model import Endpoint, Network, Subnet
from cloche.network.resolver import hosts, nameservers, resolv_conf

HOST = "# made\nnameserver 127.0.0.53\nnameserver 10.0.0.1\noptions edns0 trust-ad\nsearch example.org corp\n"
REAL = "nameserver 192.168.1.1\nnameserver 2001:db8::1\n"
RANGE = subnet("172.20.0.0/16")
ENDPOINT = Endpoint(
    Network("ab" * 32, "n", "bridge", "b", (Subnet(RANGE, "172.20.0.1", RANGE),)), ("172.20.0.5",), "02:42:ac:14:00:05"
)


@pytest.mark.parametrize("local", ["127.0.0.53", "127.1.2.3", "::1", "fe80::1%eth0", "fe80::1", "0.0.0.0"])
def test_servers_of_the_hosts_own_are_left_out(local: str) -> None:
    assert nameservers(f"nameserver {local}\nnameserver 9.9.9.9\n#nameserver 8.8.8.8\nnameserver\n") == ["9.9.9.9"]


def test_a_resolver_on_loopback_is_replaced_by_those_it_asks() -> None:
    stub = "nameserver 127.0.0.53\noptions edns0\n"
    assert resolv_conf(stub, REAL, (), (), ()) == REAL + "options edns0\n"
    assert resolv_conf(HOST, REAL, (), (), ()) == (
        "nameserver 10.0.0.1\nsearch example.org corp\noptions edns0 trust-ad\n"
    )
    assert "--dns" in resolv_conf(stub, "", (), (), ())


def test_what_is_asked_for_replaces_kind_by_kind() -> None:
    text = resolv_conf(HOST, REAL, ("1.1.1.1", "::2"), ("a.b",), ("ndots:1",))
    assert text == "nameserver 1.1.1.1\nnameserver ::2\nsearch a.b\noptions ndots:1\n"
    assert resolv_conf(HOST, REAL, (), (".",), ()) == "nameserver 10.0.0.1\noptions edns0 trust-ad\n"


def test_hosts_name_the_container_and_what_was_asked_for() -> None:
    lines = hosts("box.example.org", (ENDPOINT,), (("db", "10.0.0.9"), ("me", "host-gateway"))).splitlines()
    assert lines[0].split() == ["127.0.0.1", "localhost"]
    assert ["10.0.0.9", "db"] in [line.split() for line in lines]
    assert ["172.20.0.1", "me"] in [line.split() for line in lines]
    assert lines[-1].split() == ["172.20.0.5", "box.example.org", "box"]
    assert hosts("box", (), ()).splitlines()[-1].split() == ["127.0.1.1", "box"]
