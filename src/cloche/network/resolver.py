"""resolv.conf(5) and hosts(5) of a container, from the host's and from what was asked for. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.network.model import Endpoint

LOOPBACK = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
IPV6 = "fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"


def nameservers(text: str) -> list[str]:
    """The servers of a resolv.conf that can be reached from another network namespace."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["nameserver"] and len(words) > 1 and not _is_local(words[1]):
            found.append(words[1])
    return found


def _is_local(address: str) -> bool:
    """Loopback, or of a link that is the host's (fe80::1%eth0)."""
    return address[:4] == "127." or address in ("::1", "0.0.0.0", "::") or "%" in address or address[:4] == "fe80"


def resolv_conf(
    host: str, upstreams: str, dns: tuple[str, ...], search: tuple[str, ...], options: tuple[str, ...]
) -> str:
    """The file. host: /etc/resolv.conf; upstreams: what a resolver on the host's loopback (systemd-resolved's) asks.

    What was asked for replaces what the host has, kind by kind; the search domain `.` is none.
    """
    lines = [line.split() for line in host.splitlines()]
    servers = list(dns) or nameservers(host) or nameservers(upstreams)
    domains = list(search) or next((w[1:] for w in reversed(lines) if w[:1] in (["search"], ["domain"])), [])
    wanted = list(options) or [o for words in lines if words[:1] == ["options"] for o in words[1:]]
    text = "".join(f"nameserver {server}\n" for server in servers)
    if not servers:
        text = "# the host names no server that a container could reach; give one with --dns\n"
    if domains and domains != ["."]:
        text += f"search {' '.join(domains)}\n"
    if wanted:
        text += f"options {' '.join(wanted)}\n"
    return text


def hosts(hostname: str, endpoints: tuple[Endpoint, ...], added: tuple[tuple[str, str], ...]) -> str:
    """The file: loopback, what was asked for, the container's own addresses."""
    gateway = next((s.gateway for e in endpoints for s in e.network.subnets if not s.range.wide), "")
    lines = [f"{gateway if address == 'host-gateway' else address}\t{name}\n" for name, address in added]
    short = hostname.partition(".")[0]
    names = hostname if short == hostname else f"{hostname} {short}"
    lines += [f"{address}\t{names}\n" for endpoint in endpoints for address in endpoint.addresses]
    if not endpoints:
        lines.append(f"127.0.1.1\t{names}\n")
    return LOOPBACK + IPV6 + "".join(lines)
