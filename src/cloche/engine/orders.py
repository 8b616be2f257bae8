"""A start as it is handed to the keeper: the plan, with notes on what shall be done with the process that it makes."""

from __future__ import annotations

import os

from cloche.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloche.engine.containers import Container, Engine
    from cloche.engine.planning import Start


def order(engine: Engine, container: Container, start: Start, attach: bool, explained: bool) -> bytes:
    """The plan as the keeper wants it. Raises Error."""
    from cloche.step.flat import flatten
    from cloche.step.stored import dump, stored

    request = container.config.request
    wanted = request.process
    notes: dict[str, Any] = {
        "tty": wanted.tty,
        "stdin": wanted.interactive,
        "stdin_once": wanted.interactive and attach and not wanted.tty,
        "attach": attach,
        "detached": False,
        "remove": container.remove,
        "oom": _oom_files(engine, container),
        "explain": explained,
        "names": list(start.names),
        "restart": None,
        "health": None,
    }
    if container.config.comes_back:
        notes["restart"] = [request.restart, request.restart_tries]
        notes["steps"] = [act.step.name() for act in start.plan.acts]  # no client is there to explain a failure
    if any(container.config.log):
        from cloche.engine.logdrivers import buffer, limits

        notes["log_size"], notes["log_files"] = limits(container.config.log)
        notes["log_passes"] = container.config.log.driver == "none"
        notes["log_buffer"] = buffer(container.config.log)
    if start.probe:
        _keep_probe(engine, container, start.probe, notes)
    return dump(stored(start.plan, flatten(start.plan), notes))


def _oom_files(engine: Engine, container: Container) -> list[str]:
    """Where the kernel counts whom it killed for want of memory."""
    layout = engine.host.cgroups
    memory = next((h for h in layout.hierarchies if "memory" in h.controllers), None)
    if memory is None:
        return []
    group = engine.store.cgroup(container.id, container.config.request.cgroup_parent)
    return [f"{memory.path}{group}/{'memory.events' if layout.version == 2 else 'memory.oom_control'}"]


def _keep_probe(engine: Engine, container: Container, probe: bytes, notes: dict[str, Any]) -> None:
    """What its health check executes. Raises Error."""
    from cloche.engine.health import probe_file
    from cloche.engine.healthchecks import filled
    from cloche.engine.store import write_whole
    from cloche.value import encode

    path = probe_file(engine.store.container(container.id))
    try:
        write_whole(path + ".new", probe)
        os.rename(path + ".new", path)
    except OSError as error:
        raise Error("write the health check", error.errno or 5, "is the disk full?") from error
    notes["health"] = encode(filled(container.config.health))
    notes["stop"] = [container.config.stop_signal, container.config.stop_timeout]
