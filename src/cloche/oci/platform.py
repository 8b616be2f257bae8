"""Which machine an image is for, and which of an index's manifests fits one.

Source: image-spec image-index.md (platform).
"""

from __future__ import annotations

from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloche.oci.descriptor import Descriptor

# uname(2)'s machine: GOARCH and GOARM's variant
_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "i386": ("386", ""),
    "loongarch64": ("loong64", ""),
    "riscv64": ("riscv64", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
}
# variants in the order of preference; "" is the plainest that all have
_VARIANTS = {
    ("amd64", ""): ("", "v1"),
    ("arm64", "v8"): ("v8", ""),
    ("arm", "v7"): ("v7", "v6", "v5", ""),
    ("arm", "v6"): ("v6", "v5", ""),
}


class Platform(Value):
    """platform: of a descriptor in an index. Names are Go's (GOOS, GOARCH)."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join(p for p in (self.os, self.architecture, self.variant) if p)


def platform_of(machine: str) -> Platform:
    """The platform of a Linux whose uname(2) says `machine`."""
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform("linux", architecture, variant)


def choose(descriptors: Iterable[Descriptor], platform: Platform) -> Descriptor | None:
    """The manifest that fits `platform` best, or None. One without a platform fits where no other does."""
    wanted = _VARIANTS.get((platform.architecture, platform.variant), (platform.variant, ""))
    best: tuple[int, Descriptor] | None = None
    for each in descriptors:
        if each.platform is None:
            rank = len(wanted)
        elif (each.platform.os, each.platform.architecture) != (platform.os, platform.architecture):
            continue
        elif each.platform.variant in wanted:
            rank = wanted.index(each.platform.variant)
        else:
            continue
        if best is None or rank < best[0]:
            best = rank, each
    return best[1] if best else None
