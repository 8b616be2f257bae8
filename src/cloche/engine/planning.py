"""From a container, or from a request for one, to its plan: facts are looked up, the rest is pure."""

from __future__ import annotations

import os

from cloche.engine import config as configs
from cloche.engine.bundle import bundle
from cloche.engine.networks import attachment, is_own, notices, published, resolvers
from cloche.plan import plan
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.bundle import Facts
    from cloche.engine.config import ContainerConfig
    from cloche.engine.containers import Container, Engine
    from cloche.engine.request import RunRequest
    from cloche.network.model import Endpoint, Port
    from cloche.step.base import Plan

_ID = "ID"  # stands for what a start would choose


class Start(Value):
    """A start to be: its plan, the ports that it publishes, the addresses at which its networks' names are answered,
    the plan of its health check."""

    plan: Plan
    ports: tuple[Port, ...] = ()
    names: tuple[str, ...] = ()
    probe: bytes = b""


def plan_start(engine: Engine, container: Container, console: tuple[int, int]) -> Start:
    """What a start asks of the kernel. Raises NotFound, Conflict, Invalid, Unsupported."""
    from cloche.engine.facts import gather, refresh_files

    config = container.config
    if config.settled:
        from cloche.engine.mounting import complete

        complete(engine, config)
    facts = gather(config, engine.store, engine.host, engine.other, console)
    ports: tuple[Port, ...] = ()
    names: tuple[str, ...] = ()
    if is_own(config.request.network):
        endpoints = engine.networks.endpoints(container.id, os.urandom(2).hex())
        for text in notices(engine.store, endpoints):
            engine.notify(text)
        ports = published(config, endpoints)
        facts = facts.replace(network=attachment(engine.store, container.name, endpoints, ports))
        names = resolvers(endpoints)
        refresh_files(config, engine.store, container.id, endpoints)
    elif config.request.networking.ports or config.request.networking.publish_all:
        mode = config.request.network
        engine.notify(f"published ports are discarded: with the network {mode} there is nothing to lead them to")
    probe = _probe(engine, container.id, config, facts) if config.probe else b""
    return Start(plan_with(engine, container.id, config, facts), ports, names, probe)


def _probe(engine: Engine, ident: str, config: ContainerConfig, facts: Facts) -> bytes:
    """What the keeper executes to check the container's health, in whichever process it has then."""
    from cloche.engine.bundle import Other, joining
    from cloche.engine.request import ExecRequest
    from cloche.plan import plan_joining
    from cloche.step.flat import flatten
    from cloche.step.stored import dump, stored

    request = ExecRequest(ident, config.probe)
    made = plan_joining(
        joining(config, request, engine.store, ident, Other(0, 0), facts, f"health.{ident}"), engine.host
    )
    notes = {
        **dict.fromkeys(("tty", "stdin", "stdin_once", "detached"), False),
        "command": " ".join(config.probe),
        "steps": [act.step.name() for act in made.acts],
    }
    return dump(stored(made, flatten(made), notes))


def plan_with(engine: Engine, ident: str, config: ContainerConfig, facts: Facts) -> Plan:
    """The same, with facts that are known already."""
    from cloche.storage.overlay import existing

    root = existing(engine.store.root, ident, config.layers).mounts[0]
    return plan(bundle(config, root, engine.store, ident, facts), engine.host)


def plan_request(engine: Engine, request: RunRequest) -> Plan:
    """The plan of a `run` that is not done: no container is recorded, nothing is written."""
    from cloche.engine.facts import check_host, gather
    from cloche.engine.mounting import merged
    from cloche.engine.ranges import FIRST, SIZE
    from cloche.oci.runtime import IdMapping

    check_host(request, engine.host)
    image = engine.image(request.image)
    mapping = request.namespaces.user_map
    if request.namespaces.user == "auto":
        mapping = (IdMapping(0, FIRST, SIZE),)
    config = configs.configure(request, image.config, image.layers, _ID, mapping)
    config = config.replace(settled=merged(engine, config, image, lambda: _ID))
    facts = gather(config, engine.store, engine.host, engine.other, (0, 0))
    if is_own(request.network):
        endpoints: tuple[Endpoint, ...] = engine.networks.preview(_ID, request)
        facts = facts.replace(
            network=attachment(engine.store, request.name or "NAME", endpoints, published(config, endpoints))
        )
    return plan_with(engine, _ID, config, facts)
