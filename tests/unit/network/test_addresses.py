"""Addresses and subnets as numbers."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.errors import Invalid
from cloche.network.addresses import Range, address, free_subnet, number, pools, subnet


@given(st.ip_addresses())
def test_addresses_are_read_and_written_as_the_standard_library_does(
    found: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    assert number(str(found)) == int(found)
    assert ipaddress.ip_address(address(int(found), found.version == 6)) == found


@pytest.mark.parametrize(
    "text", ["", "x", "1.2.3", "1.2.3.4.5", "256.1.1.1", "::g", "1.2.3.4/8", "1.2.3.4\0", "fe80::1%0"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(Invalid, match="invalid IP address"):
        number(text)


@given(st.integers(0, 32), st.integers(0, (1 << 32) - 1), st.integers(0, 32), st.integers(0, (1 << 32) - 1))
def test_ranges_overlap_as_the_standard_library_says(bits: int, base: int, others: int, other: int) -> None:
    one = ipaddress.ip_network((base, bits), strict=False)
    two = ipaddress.ip_network((other, others), strict=False)
    mine, theirs = subnet(str(one)), subnet(str(two))
    assert mine.text() == str(one) and mine.size == one.num_addresses
    assert mine.overlaps(theirs) == theirs.overlaps(mine) == one.overlaps(two)
    assert mine.has(other) == (ipaddress.ip_address(other) in one)
    assert not mine.overlaps(subnet("::/0"))


@pytest.mark.parametrize(
    "text", ["", "1.2.3.4", "10.0.0.0/33", "10.0.0.0/x", "10.0.0.0/-1", "10.0.0.0/８", "::/129", "/8"]
)
def test_what_is_no_subnet(text: str) -> None:
    with pytest.raises(Invalid):
        subnet(text)


def test_bits_behind_the_prefix_are_named() -> None:
    with pytest.raises(Invalid, match=r"it should be 10\.1\.0\.0/16"):
        subnet("10.1.2.3/16")


def test_the_first_free_pool_is_taken() -> None:
    everything = list(pools())
    assert everything[0].text() == "172.17.0.0/16" and len(everything) == 15 + 16 + 256
    assert free_subnet([]).text() == "172.17.0.0/16"
    assert free_subnet([subnet("172.16.0.0/12")]).text() == "192.168.0.0/20"
    assert free_subnet([subnet("172.17.3.0/24"), subnet("::/0"), subnet("0.0.0.0/0")]).text() == "172.18.0.0/16"
    assert free_subnet([subnet("172.16.0.0/12"), subnet("192.168.0.0/16")]).text() == "10.0.0.0/16"
    with pytest.raises(Invalid, match="--subnet"):
        free_subnet([subnet("0.0.0.0/1"), subnet("128.0.0.0/1")])
    assert Range(0, 0).size == 1 << 32
