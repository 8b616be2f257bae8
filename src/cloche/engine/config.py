"""ContainerConfig: what a container is, decided once at its creation from a request and an image; kept in the database.

Pure. What changes from start to start (pids of other containers, device numbers) is found by engine.facts at each
start.
"""

from __future__ import annotations

from cloche.document import dumps, loads
from cloche.engine import request as requests
from cloche.engine.environment import merge
from cloche.engine.request import Health, Logging, RunRequest
from cloche.errors import Invalid
from cloche.kernel.signalnames import signal_number
from cloche.oci.runtime import DeviceRule, IdMapping
from cloche.value import Value, decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.request import FileMount
    from cloche.oci.image import Config, ImageConfig

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KINDS: dict[str, type[Value]] = {
    name: kind for name, kind in vars(requests).items() if isinstance(kind, type) and issubclass(kind, Value)
} | {"IdMapping": IdMapping, "DeviceRule": DeviceRule}


class ContainerConfig(Value):
    """A container's settled facts. `args` is entrypoint and command; `stop_signal` a number; ids are mapped by
    `mapping`; `settled` is what was asked for with what image and other containers add; `probe` is what its health
    check executes, () when there is none."""

    request: RunRequest
    args: tuple[str, ...]
    entrypoint: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    hostname: str
    labels: tuple[tuple[str, str], ...]
    stop_signal: int
    stop_timeout: int
    layers: tuple[int, ...]
    mapping: tuple[IdMapping, ...] = ()
    exposed: tuple[tuple[int, str], ...] = ()
    settled: tuple[FileMount, ...] = ()
    health: Health = Health()
    probe: tuple[str, ...] = ()
    log: Logging = Logging()

    @property
    def mounts(self) -> tuple[FileMount, ...]:
        """All mounts that are the user's to choose; a container without volumes has just those of its request."""
        return self.settled or self.request.files.mounts

    @property
    def comes_back(self) -> bool:
        """Whether it may be made again when it ends, unless somebody asks for its end."""
        return self.request.restart != "no" or self.health.on_failure == "restart"


_KINDS["ContainerConfig"] = ContainerConfig


def dump(config: ContainerConfig) -> str:
    """As JSON text."""
    return dumps(encode(config))


def load(text: str) -> ContainerConfig:
    """What dump() wrote."""
    config: ContainerConfig = decode(loads(text), _KINDS)
    return config


def configure(
    request: RunRequest, image: ImageConfig, layers: tuple[int, ...], ident: str, mapping: tuple[IdMapping, ...] = ()
) -> ContainerConfig:
    """Settle a checked request on an image. Raises Invalid when neither says what to execute."""
    wanted, defaults = request.process, image.config
    entrypoint = defaults.entrypoint if wanted.entrypoint is None else wanted.entrypoint
    # Docker's rule: a new entrypoint drops the image's command
    command = wanted.command or (defaults.cmd if wanted.entrypoint is None else ())
    args = (*entrypoint, *command)
    if not args:
        raise Invalid(f"run {request.image}", "no command specified", "give a command behind the image's name")
    hostname = request.hostname or ident[:12]
    added = ("TERM=xterm",) if wanted.tty else ()
    env = merge((PATH, f"HOSTNAME={hostname}", *added, *defaults.env), wanted.env)
    stop = wanted.stop_signal or defaults.stop_signal
    timeout = wanted.stop_timeout if wanted.stop_timeout is not None else defaults.stop_timeout
    labels = dict(defaults.labels) | dict(request.labels)
    return ContainerConfig(
        request,
        args,
        entrypoint,
        tuple(env),
        wanted.working_directory or defaults.working_dir or "/",
        wanted.user or defaults.user or "0",
        hostname,
        tuple(labels.items()),
        signal_number(stop) if stop else 15,
        10 if timeout is None else timeout,
        layers,
        mapping,
        _exposed(defaults.exposed_ports, request),
        (),
        *_health(request, defaults),
        request.log,
    )


def _health(request: RunRequest, image: Config) -> tuple[Health, tuple[str, ...]]:
    """The settled health check, and what it executes. Raises Invalid."""
    if not image.healthcheck and request.health == Health():
        return request.health, ()
    from cloche.engine import healthchecks

    settled = healthchecks.settle(request.health, image.healthcheck)
    return settled, healthchecks.command(settled, image.shell) if healthchecks.is_on(settled) else ()


def _exposed(image: tuple[str, ...], request: RunRequest) -> tuple[tuple[int, str], ...]:
    """The ports that the image and the request name; what of an image's cannot be read is no port."""
    found = dict.fromkeys(request.networking.expose)
    for text in image:
        port, _, protocol = text.partition("/")
        if port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16:
            found[int(port), protocol.lower() or "tcp"] = None
    found |= dict.fromkeys((p.inside, p.protocol) for p in request.networking.ports)
    return tuple(sorted(found))
