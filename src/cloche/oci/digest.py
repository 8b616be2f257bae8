"""Digests of content (`sha256:` and 64 hexadecimal digits), and the chain ids of layers.

Source: image-spec descriptor.md (Digests) and config.md (Layer ChainID).
"""

from __future__ import annotations

from cloche.errors import Invalid, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_HEX = frozenset("0123456789abcdef")
_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}


def is_hex(text: str) -> bool:
    """Whether `text` is nothing but lower-case hexadecimal digits, one at least."""
    return bool(text) and _HEX.issuperset(text)


def is_digest(text: str) -> bool:
    """Whether `text` is a digest of an algorithm that the specification registers."""
    algorithm, _, encoded = text.partition(":")
    return len(encoded) == _LENGTHS.get(algorithm) and is_hex(encoded)


def check_digest(text: str, what: str = "read a digest") -> str:
    """`text`, a digest that content can be stored under. Raises Invalid; Unsupported for all but sha256."""
    if not is_digest(text):
        raise Invalid(what, f"{text[:160]!r} is not a digest", "sha256: and 64 digits from 0-9a-f are expected")
    if not text.startswith("sha256:"):
        raise Unsupported(what, f"digests by {text.partition(':')[0]}", "sha256 is the one that every registry has")
    return text


def digest_of(data: bytes) -> str:
    """The sha256 digest of `data`."""
    from hashlib import sha256

    return "sha256:" + sha256(data).hexdigest()


def chain_ids(diff_ids: Iterable[str]) -> tuple[str, ...]:
    """The chain id of each layer, bottom first: it names the layer together with all below it."""
    chains: list[str] = []
    for diff_id in diff_ids:
        chains.append(digest_of(f"{chains[-1]} {diff_id}".encode()) if chains else diff_id)
    return tuple(chains)
