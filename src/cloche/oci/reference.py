"""Names of images, by Docker's rules: `alpine` is docker.io/library/alpine:latest.

    [DOMAIN[:PORT]/]PATH[:TAG][@DIGEST]

What stands before the first slash is a domain if it is `localhost` or has a dot, a colon or a capital letter. No
regular expressions: a start imports this. Not its business: ids of images, which look like names (see image/store).
Source: github.com/distribution/reference (normalize.go, regexp.go).
"""

from __future__ import annotations

from cloche.errors import Invalid
from cloche.oci.digest import is_digest, is_hex
from cloche.value import Value

DOMAIN, OFFICIAL, TAG = "docker.io", "library/", "latest"
_PATH_MAX = 255
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_LETTERS = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_TAG = _LETTERS | frozenset("_.-")


class Reference(Value):
    """A name, complete: a tag, a digest or both are there. `str()` gives the whole of it."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Domain and path: which repository."""
        return f"{self.domain}/{self.path}"

    @property
    def key(self) -> str:
        """What a store keeps it under. With a digest the tag says nothing more, as in Docker."""
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"

    def __str__(self) -> str:
        return self.name + self._suffix()

    def familiar(self) -> str:
        """The short form that people write: alpine:latest."""
        return self.familiar_name() + self._suffix()

    def familiar_name(self) -> str:
        """The short form of the repository: alpine."""
        if self.domain != DOMAIN:
            return self.name
        short = self.path.removeprefix(OFFICIAL)
        return self.path if "/" in short else short

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """The reference that `text` means; the tag is `latest` where it has neither tag nor digest. Raises Invalid."""
    if len(text) == 64 and is_hex(text):
        raise _invalid(text, "64 hexadecimal digits are an id, not a name")
    name, at, digest = text.partition("@")
    domain, rest = _split(name)
    path, colon, tag = rest.partition(":")
    if path.lower() != path:
        raise _invalid(text, f"the repository name {path} must be lowercase")
    if not (_is_domain(domain) and all(map(_is_component, path.split("/")))):
        raise _invalid(text)
    if len(path) > _PATH_MAX:
        raise _invalid(text, f"the repository name is longer than {_PATH_MAX} characters")
    if (colon and not is_tag(tag)) or (at and not is_digest(digest)):
        raise _invalid(text)
    return Reference(domain, path, tag or ("" if at else TAG), digest)


def is_tag(text: str) -> bool:
    """Whether `text` can be a tag: at most 128 letters, digits, `_`, `.`, `-`, the first no `.` or `-`."""
    return 0 < len(text) <= 128 and _TAG.issuperset(text) and text[0] not in ".-"


def _invalid(text: str, why: str = "") -> Invalid:
    shown = text if len(text) <= 300 else text[:300] + "..."
    cause = "invalid reference format" + (f": {why}" if why else "")
    return Invalid(
        f"read the image name {shown!r}", cause, "names look like alpine, alpine:3.20 or host:5000/team/app:1.0"
    )


def _split(name: str) -> tuple[str, str]:
    """The domain, written or meant, and the rest."""
    first, slash, rest = name.partition("/")
    if not slash:
        return DOMAIN, OFFICIAL + name
    if first == "index.docker.io":
        domain = DOMAIN
    elif first == "localhost" or "." in first or ":" in first or first.lower() != first:
        domain = first
    else:
        domain, rest = DOMAIN, name
    return domain, OFFICIAL + rest if domain == DOMAIN and "/" not in rest else rest


def _is_domain(text: str) -> bool:
    """A host name, an IPv4 address, or an IPv6 address in brackets without a zone; and a port."""
    if text[:1] == "[":
        host, bracket, port = text[1:].partition("]")
        if not (bracket and host and set(host.lower()) <= set("0123456789abcdef:") and port[:1] in ("", ":")):
            return False
        colon, port = port[:1], port[1:]
    else:
        host, colon, port = text.partition(":")
        if not all(p and (_LETTERS | {"-"}).issuperset(p) and "-" not in (p[0], p[-1]) for p in host.split(".")):
            return False
    return not colon or (port.isascii() and port.isdigit())


def _is_component(text: str) -> bool:
    """Lower-case letters and digits, with one dot, one or two underscores, or dashes between them."""
    if not text or text[0] not in _LOWER or text[-1] not in _LOWER:
        return False
    separator = ""
    for c in text:
        if c not in _LOWER:
            separator += c
        elif separator:
            if separator not in (".", "_", "__") and separator.strip("-"):
                return False
            separator = ""
    return True
