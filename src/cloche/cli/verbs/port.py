"""port: which ports of the host lead to a container."""

from __future__ import annotations

from cloche.engine.containers import Engine
from cloche.engine.database import RUNNING
from cloche.engine.ports import exposed
from cloche.errors import Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed
    from cloche.network.model import Port


def _host(port: Port) -> str:
    return f"[{port.address}]:{port.port}" if ":" in port.address else f"{port.address}:{port.port}"


def main(parsed: Parsed) -> int:
    """See `cloche port --help`."""
    found = Engine(parsed.root or None).find(parsed.arguments[0])
    ports = found.ports if found.status == RUNNING else ()
    if len(parsed.arguments) == 1:
        for port in ports:
            print(f"{port.inside}/{port.protocol} -> {_host(port)}")
        return 0
    text = parsed.arguments[1]
    wanted = exposed(text)
    if len(wanted) != 1:
        raise Invalid(f"port {text}", "it is a range", "one port, such as 80/tcp")
    led = [port for port in ports if (port.inside, port.protocol) == wanted[0]]
    if not led:
        whole = f"{wanted[0][0]}/{wanted[0][1]}"
        raise NotFound(f"No public port '{whole}' published for {parsed.arguments[0]}")
    for port in led:
        print(_host(port))
    return 0
