"""What the user has said about registries: which may be spoken to without TLS, which have mirrors.

# /etc/cloche/config.toml, or the file that CLOCHE_CONFIG names
[registry."registry.example.org:5000"]
insecure = true                                # plain http, or a certificate that nobody knows
[registry."docker.io"]
mirrors = ["https://mirror.example.org"]       # asked first, in this order
"""

from __future__ import annotations

from cloche.errors import Invalid
from cloche.settings import config_path, section
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Endpoint(Value):
    """Where a registry's content is asked for. insecure: without TLS, or without a certificate that can be checked."""

    host: str
    insecure: bool = False
    schemes: tuple[str, ...] = ("https",)


def is_loopback(host: str) -> bool:
    """Whether a host, with a port or without, is this machine."""
    name = host[1:].partition("]")[0] if host[:1] == "[" else host.partition(":")[0]
    return name in ("localhost", "::1") or (name[:4] == "127." and all(p.isdigit() for p in name.split(".")))


def endpoints(domain: str, environ: Mapping[str, str]) -> tuple[Endpoint, ...]:
    """The mirrors of a registry, then the registry itself. Raises Invalid, Error."""
    table = _table(environ)
    entry = table.get(domain, {})
    host = "registry-1.docker.io" if domain == "docker.io" else domain
    found = [_mirror(text) for text in entry.get("mirrors", [])]
    return (*found, _endpoint(host, bool(entry.get("insecure", False))))


def _endpoint(host: str, insecure: bool) -> Endpoint:
    # a registry on this machine mostly has no certificate; whoever could listen in there is root
    plain = insecure or is_loopback(host)
    return Endpoint(host, plain, ("https", "http") if plain else ("https",))


def _mirror(text: str) -> Endpoint:
    scheme, sign, rest = text.partition("://")
    host = rest.rstrip("/")
    if not sign or scheme not in ("https", "http") or not host or "/" in host or "@" in host:
        raise Invalid(f"use the mirror {text!r}", "it is not of the form https://HOST[:PORT]")
    if scheme == "http" and not is_loopback(host):
        raise Invalid(f"use the mirror {text!r}", "a mirror that is not on this machine is spoken to by https")
    return Endpoint(host, scheme == "http", (scheme,))


def _table(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    table = section(environ, "registry")
    for domain, entry in table.items():
        what = f'read {config_path(environ)}: registry."{domain}"'
        if not isinstance(entry, dict) or set(entry) - {"insecure", "mirrors"}:
            raise Invalid(what, "unknown key", "insecure = true, mirrors = [...]")
        mirrors = entry.get("mirrors", [])
        if not isinstance(mirrors, list) or not all(isinstance(m, str) for m in mirrors):
            raise Invalid(what, "mirrors is a list of addresses")
        if not isinstance(entry.get("insecure", False), bool):
            raise Invalid(what, "insecure is true or false")
    return table
