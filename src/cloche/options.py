"""The keyword arguments of the SDK, with the names of the command line's flags, and the request that they mean."""

from __future__ import annotations

import os

from cloche.engine import limits, notation, ports, units
from cloche.engine.request import (
    Connection,
    Files,
    Health,
    Limits,
    Logging,
    Namespaces,
    Networking,
    Program,
    RunRequest,
    Security,
)
from cloche.engine.validation import check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from typing import Any, TypeAlias, TypedDict, Unpack

    # "10m" ago, "2024-01-02T03:04:05Z"; seconds since 1970; a datetime (one without a zone is local)
    Moment: TypeAlias = str | float | datetime
    Filters: TypeAlias = Mapping[str, str | Sequence[str]]

    class Options(TypedDict, total=False):
        """What a container is besides image and command; each as the flag of `cloche run` with this name."""

        name: str
        hostname: str
        env: Mapping[str, str] | Sequence[str]
        user: str
        group_add: Sequence[str]
        working_directory: str
        entrypoint: str | Sequence[str] | None
        interactive: bool
        tty: bool
        init: bool
        stop_signal: str
        stop_timeout: int
        ulimits: Sequence[str]
        oom_score_adj: int
        memory: int | str
        memory_swap: int | str
        memory_reservation: int | str
        cpus: float | str
        cpu_shares: int
        cpuset_cpus: str
        pids_limit: int
        cpu_period: int
        cpu_quota: int
        cpu_rt_period: int
        cpu_rt_runtime: int
        cpuset_mems: str
        memory_swappiness: int
        oom_kill_disable: bool
        blkio_weight: int
        blkio_weight_device: Sequence[str]
        device_read_bps: Sequence[str]
        device_write_bps: Sequence[str]
        device_read_iops: Sequence[str]
        device_write_iops: Sequence[str]
        device_cgroup_rules: Sequence[str]
        cgroup_parent: str
        log_driver: str
        log_options: Mapping[str, str]
        domainname: str
        volumes: Sequence[str]
        mounts: Sequence[str]
        volumes_from: Sequence[str]
        tmpfs: Sequence[str]
        devices: Sequence[str]
        gpus: str
        read_only: bool
        shm_size: int | str
        network: str | Sequence[str]
        publish: Sequence[str]
        publish_all: bool
        expose: Sequence[str]
        network_aliases: Sequence[str]
        ip: str
        ip6: str
        mac_address: str
        extra_hosts: Mapping[str, str]
        dns: Sequence[str]
        dns_search: Sequence[str]
        dns_options: Sequence[str]
        pid: str
        ipc: str
        uts: str
        cgroupns: str
        userns: str
        cap_add: Sequence[str]
        cap_drop: Sequence[str]
        seccomp: str
        no_new_privileges: bool
        privileged: bool
        sysctls: Mapping[str, str]
        labels: Mapping[str, str]
        annotations: Mapping[str, str]
        remove: bool
        restart: str
        health_cmd: str | Sequence[str]
        health_interval: float | str
        health_timeout: float | str
        health_start_period: float | str
        health_start_interval: float | str
        health_retries: int
        health_on_failure: str
        no_healthcheck: bool


def moment(value: Moment | None) -> int | None:
    """Nanoseconds since 1970. Raises Invalid."""
    if value is None:
        return None
    if isinstance(value, str):
        from time import time

        return units.moment(value, time())
    return int((value if isinstance(value, (int, float)) else value.timestamp()) * 1e9)


def filter_pairs(filters: Filters | None) -> tuple[tuple[str, str], ...]:
    """As the command line's --filter has them."""
    return tuple((name, each) for name, value in (filters or {}).items() for each in words(value))


_RATES = (
    ("blkio_weight_device", "weight"),
    ("device_read_bps", "read_bps"),
    ("device_write_bps", "write_bps"),
    ("device_read_iops", "read_iops"),
    ("device_write_iops", "write_iops"),
)


def _bytes(value: int | str) -> int:
    return units.size(value) if isinstance(value, str) else value


def words(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def variables(value: Mapping[str, str] | Sequence[str]) -> tuple[str, ...]:
    return tuple(value) if not hasattr(value, "items") else tuple(f"{k}={v}" for k, v in value.items())


def _each(reading: Callable[..., Any], texts: Iterable[str], *rest: Any) -> tuple[Any, ...]:
    return tuple(reading(text, *rest) for text in texts)


def request(image: str, command: str | Sequence[str] = (), **options: Unpack[Options]) -> RunRequest:
    """The checked request that these arguments mean; a command that is a string is one word. Raises Invalid,
    Unsupported."""
    taken: set[str] = set()

    def option(name: str, default: Any) -> Any:
        taken.add(name)
        return options.get(name, default)

    cwd = os.getcwd()
    entrypoint = option("entrypoint", None)
    userns = option("userns", "")
    mapped = notation.id_map(userns) if ":" in userns else ()
    process = Program(
        words(command),
        None if entrypoint is None else words(entrypoint),
        variables(option("env", ())),
        option("working_directory", ""),
        option("user", ""),
        tuple(option("group_add", ())),
        option("interactive", False),
        option("tty", False),
        option("init", False),
        option("stop_signal", ""),
        option("stop_timeout", None),
        _each(notation.ulimit, option("ulimits", ())),
        option("oom_score_adj", 0),
    )
    resources = Limits(
        _bytes(option("memory", 0)),
        _bytes(option("memory_swap", 0)),
        _bytes(option("memory_reservation", 0)),
        units.cpus(str(option("cpus", 0))),
        option("cpu_shares", 0),
        option("cpuset_cpus", ""),
        option("pids_limit", 0),
        option("cpu_period", 0),
        option("cpu_quota", 0),
        option("cpu_rt_period", 0),
        option("cpu_rt_runtime", 0),
        option("cpuset_mems", ""),
        option("memory_swappiness", -1),
        option("oom_kill_disable", False),
        option("blkio_weight", 0),
        tuple(limits.device_limit(kind, text) for name, kind in _RATES for text in option(name, ())),
    )
    mounts = (
        *_each(notation.volume, option("volumes", ()), cwd),
        *_each(notation.mount, option("mounts", ()), cwd),
        *_each(notation.tmpfs, option("tmpfs", ())),
    )
    devices, cdi = notation.split_devices(_each(notation.device_or_name, option("devices", ())))
    others = _each(notation.volumes_from, option("volumes_from", ()))
    rules = _each(limits.device_rule, option("device_cgroup_rules", ()))
    files = Files(
        mounts,
        devices,
        option("read_only", False),
        _bytes(option("shm_size", 0)),
        others,
        rules,
        cdi,
        option("gpus", ""),
    )
    shared = [option(name, "") for name in ("pid", "ipc", "uts", "cgroupns")]
    security = Security(
        option("privileged", False),
        tuple(option("cap_add", ())),
        tuple(option("cap_drop", ())),
        option("no_new_privileges", False),
        option("seccomp", ""),
        tuple(dict(option("sysctls", {})).items()),
    )
    network, networking = _networks(option)
    policy, tries = notation.restart(option("restart", "no"))
    made = RunRequest(
        image,
        process,
        resources,
        files,
        Namespaces(shared[0], shared[1], shared[2], shared[3], "map" if mapped else userns, mapped),
        network,
        security,
        option("name", ""),
        option("hostname", ""),
        tuple(dict(option("labels", {})).items()),
        tuple(dict(option("annotations", {})).items()),
        option("remove", False),
        networking=networking,
        restart=policy,
        restart_tries=tries,
        health=_health(option),
        domainname=option("domainname", ""),
        cgroup_parent=option("cgroup_parent", ""),
        log=Logging(option("log_driver", ""), tuple(dict(option("log_options", {})).items())),
    )
    if unknown := set(options) - taken:
        raise TypeError(f"unexpected argument {min(unknown)!r}")
    return check(made)


def _health(option: Callable[[str, Any], Any]) -> Health:
    """A command that is a text is the shell's; durations are seconds or `1m30s`."""

    def duration(name: str) -> int:
        value = option(f"health_{name}", 0)
        return int((units.seconds(value) if isinstance(value, str) else value) * 1e9)

    command = option("health_cmd", ())
    test = ("CMD-SHELL", command) if isinstance(command, str) else ("CMD", *command)
    return Health(
        ("NONE",) if option("no_healthcheck", False) else test if command else (),
        duration("interval"),
        duration("timeout"),
        duration("start_period"),
        duration("start_interval"),
        option("health_retries", 0),
        option("health_on_failure", ""),
    )


def _networks(option: Callable[[str, Any], Any]) -> tuple[str, Networking]:
    """The mode, or the first network's name; and all else about networks."""
    connections = _each(notation.connection, words(option("network", os.environ.get("CLOCHE_NETWORK") or "bridge")))
    first = connections[0]
    first = Connection(
        first.network,
        option("ip", "") or first.ip,
        option("ip6", "") or first.ip6,
        (*first.aliases, *option("network_aliases", ())),
        option("mac_address", "") or first.mac,
    )
    asked = len(connections) > 1 or first != Connection(first.network)
    return first.network, Networking(
        (first, *connections[1:]) if asked else (),
        sum(_each(ports.published, option("publish", ())), ()),
        option("publish_all", False),
        sum(_each(ports.exposed, option("expose", ())), ()),
        tuple(option("dns", ())),
        tuple(option("dns_search", ())),
        tuple(option("dns_options", ())),
        tuple(dict(option("extra_hosts", {})).items()),
    )
