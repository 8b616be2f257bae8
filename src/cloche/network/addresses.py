"""Internet addresses and subnets as numbers: reading, writing, what lies in what, which subnet is free. Pure.

The standard library's ipaddress would cost a start 5 ms.
"""

from __future__ import annotations

from cloche.errors import Invalid
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def number(text: str) -> int:
    """An address as a number. Raises Invalid."""
    from _socket import inet_pton

    try:
        return int.from_bytes(inet_pton(10 if ":" in text else 2, text), "big")
    except (OSError, ValueError):
        raise Invalid(f"invalid IP address: {text}") from None


def address(value: int, wide: bool) -> str:
    """A number as an address, of IPv6 where `wide`."""
    from _socket import inet_ntop

    return inet_ntop(10 if wide else 2, value.to_bytes(16 if wide else 4, "big"))


class Range(Value):
    """The addresses that share the first `prefix` bits with `base`, whose other bits are zero."""

    base: int
    prefix: int
    wide: bool = False

    @property
    def size(self) -> int:
        """How many addresses."""
        return 1 << (128 if self.wide else 32) - self.prefix

    def text(self) -> str:
        """As people write it: 172.17.0.0/16."""
        return f"{address(self.base, self.wide)}/{self.prefix}"

    def has(self, other: int) -> bool:
        """Whether an address is one of them."""
        return self.base <= other < self.base + self.size

    def overlaps(self, other: Range) -> bool:
        """Whether they share an address."""
        mine, theirs = self.base + self.size, other.base + other.size
        return self.wide == other.wide and self.base < theirs and other.base < mine


def subnet(text: str) -> Range:
    """`172.20.0.0/16`; bits behind the prefix are an error. Raises Invalid."""
    head, slash, tail = text.partition("/")
    wide = ":" in head
    bits = 128 if wide else 32
    if not slash or not (tail.isascii() and tail.isdigit()) or int(tail) > bits:
        raise Invalid(f"invalid subnet {text}", "it is not of the form ADDRESS/BITS", "such as 172.28.0.0/16")
    made = Range(number(head), int(tail), wide)
    if made.base % made.size:
        whole = made.replace(base=made.base - made.base % made.size)
        raise Invalid(f"invalid subnet {text}", "bits are set behind the prefix", f"it should be {whole.text()}")
    return made


def pools() -> Iterator[Range]:
    """Where networks without a subnet of their own are put: Docker's pools, in its order."""
    yield from (Range((172 << 24) | (second << 16), 16) for second in range(17, 32))
    yield from (Range((192 << 24) | (168 << 16) | (third << 8), 20) for third in range(0, 256, 16))
    yield from (Range((10 << 24) | (second << 16), 16) for second in range(256))


def free_subnet(taken: Iterable[Range]) -> Range:
    """The first pool that overlaps with none of these. Raises Invalid."""
    known = [r for r in taken if r.prefix]  # a default route says nothing about who is where
    for pool in pools():
        if not any(pool.overlaps(other) for other in known):
            return pool
    raise Invalid("find a subnet", "all pools overlap with routes of this host", "say which: --subnet 10.99.0.0/16")
