"""What must be looked up for one start: other containers' processes, devices of the host, the compiled seccomp filter,
files."""

from __future__ import annotations

import os
from stat import S_ISBLK, S_ISCHR

from cloche.engine.bundle import Edits, Facts, Other
from cloche.engine.request import bounding
from cloche.errors import Conflict, Invalid, NotFound, Unsupported
from cloche.oci.runtime import Device, DeviceRate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.engine.config import ContainerConfig
    from cloche.engine.request import DeviceLimit, Limits, RunRequest
    from cloche.engine.store import Store
    from cloche.network.model import Endpoint
    from cloche.step.host import Host


REVISION = 3  # of the default seccomp profile: raised with every change of it, for filters are kept by this name


def check_host(request: RunRequest, host: Host) -> None:
    """What was asked for and this machine has not got, said before anything is made. Raises Invalid, Unsupported."""
    check_limits(request.resources, host)


def check_limits(limits: Limits, host: Host) -> None:
    """The same of limits alone."""
    if limits.nano_cpus:
        count = os.cpu_count() or 1
        if limits.nano_cpus > count * 10**9:
            cause = f"range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
            raise Invalid(f"limit to {limits.nano_cpus / 1e9:g} CPUs", cause)
    if limits.cpuset_cpus:
        available = _cpus_available(host)
        if available and not _cpu_numbers(limits.cpuset_cpus) <= _cpu_numbers(available):
            what = f"Requested CPUs are not available - requested {limits.cpuset_cpus}, available: {available}"
            raise Invalid(what)
    if limits.memory_swap > 0 and limits.memory_swap != limits.memory * 2 and not host.swap_accounting:
        what = f"limit memory and swap to {limits.memory_swap} bytes"
        raise Unsupported(what, "this kernel does not count swap", "boot it with swapaccount=1, or leave the limit out")


def _cpu_numbers(text: str) -> set[int]:
    """`0-3,7` as numbers."""
    ends = [part.split("-") for part in text.split(",")]
    return {number for end in ends for number in range(int(end[0]), int(end[-1]) + 1)}


def _cpus_available(host: Host) -> str:
    """The CPUs that groups of this host may use, as cpuset(7) lists them; "" without that controller."""
    for hierarchy in host.cgroups.hierarchies:
        if "cpuset" in hierarchy.controllers:
            for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
                if text := _read(f"{hierarchy.path}/{name}").decode().strip():
                    return text
    return ""


def devices(config: ContainerConfig) -> tuple[Device, ...]:
    """The host's devices that were asked for; with --privileged all of /dev. Raises NotFound, Invalid."""
    found = [each for d in config.request.files.devices for each in _devices(d.source, d.target)]
    if config.request.security.privileged:
        have = {d.path for d in found} | {
            "/dev/" + n for n in ("null", "zero", "full", "random", "urandom", "tty", "console", "ptmx")
        }
        found += [d for d in _all_devices("/dev") if d.path not in have]
    return tuple(found)


def _devices(source: str, target: str) -> list[Device]:
    """A device; of a directory all that are in it."""
    if not os.path.isdir(source):
        return [_device(source, target)]
    found = _all_devices(source)
    if not found:
        raise Invalid(f"use the device {source}", "there is no device in that directory")
    if source.rstrip("/") == target.rstrip("/"):
        return found
    return [d.replace(path=target.rstrip("/") + d.path[len(source.rstrip("/")) :], source=d.path) for d in found]


def injected(config: ContainerConfig) -> Edits:
    """What devices by the Container Device Interface bring. Raises NotFound, Invalid, Unsupported."""
    files = config.request.files
    if not files.cdi and not files.gpus:
        return Edits()
    from cloche.engine.cdi import Known, directories

    known = Known(directories())
    return known.edits((*files.cdi, *(known.gpus(files.gpus) if files.gpus else ())))


def _device(source: str, target: str) -> Device:
    try:
        status = os.stat(source)
    except OSError as error:
        raise NotFound(
            f"use the device {source}", error.errno or 2, "give the path of a device node of this host"
        ) from None
    if not (S_ISCHR(status.st_mode) or S_ISBLK(status.st_mode)):
        raise Invalid(f"use the device {source}", "it is not a device node", "mount it with -v instead")
    kind = "c" if S_ISCHR(status.st_mode) else "b"
    numbers = os.major(status.st_rdev), os.minor(status.st_rdev)
    mode = status.st_mode & 0o7777
    return Device(target, kind, *numbers, mode, status.st_uid, status.st_gid, "" if source == target else source)


def _rate(limit: DeviceLimit) -> DeviceRate:
    """A limit with the device's numbers. Raises NotFound, Invalid."""
    what = f"limit {limit.kind.replace('_', ' ')} of {limit.path}"
    try:
        status = os.stat(limit.path)
    except OSError as error:
        raise NotFound(what, error.errno or 2, "`lsblk -p` lists block devices") from None
    if not S_ISBLK(status.st_mode):
        raise Invalid(what, "it is not a block device", "`lsblk -p` lists them")
    return DeviceRate(limit.kind, os.major(status.st_rdev), os.minor(status.st_rdev), limit.rate)


def _all_devices(directory: str) -> list[Device]:
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_symlink() or entry.name in ("pts", "shm", "mqueue", "fd"):
                continue
            if entry.is_dir():
                found += _all_devices(entry.path)
            elif S_ISCHR(mode := entry.stat().st_mode) or S_ISBLK(mode):
                found.append(_device(entry.path, entry.path))
    return found


def referred(config: ContainerConfig) -> set[str]:
    """The containers whose namespaces are joined, as the user named them."""
    request = config.request
    modes = (request.network, request.namespaces.pid, request.namespaces.ipc)
    return {mode[10:] for mode in modes if mode[:10] == "container:"}


def seccomp(config: ContainerConfig, store: Store, host: Host) -> tuple[bytes, int]:
    """The filter as BPF and its flags; compiled once for each profile and kept by its digest. Raises Invalid,
    Unsupported."""
    from cloche.runtime.filters import kept, library

    security = config.request.security
    if security.privileged or security.seccomp == "unconfined":
        return b"", 0
    names = bounding(security)
    if security.seccomp:
        from json import loads

        from cloche.oci.seccomp import profile_key, resolve_profile

        try:
            document = loads(security.seccomp)
        except ValueError as error:
            raise Invalid("read the seccomp profile", f"it is not JSON ({error})") from None
        profile = resolve_profile(document, names, host.arch, host.kernel)
        key = profile_key(profile, host.arch, host.kernel, library(host.arch))
    else:
        # the default profile depends on nothing else, so its name is found without making it
        from cloche.kernel.capabilities import mask
        from cloche.version import VERSION

        where = f"{host.arch}-{host.kernel[0]}.{host.kernel[1]}-{library(host.arch)}"
        key = f"default-{VERSION}.{REVISION}-{where}-{mask(names):x}"
    return kept(store.root + "/cache/seccomp-" + key, lambda: _compile(config, host, names))


def _compile(config: ContainerConfig, host: Host, names: tuple[str, ...]) -> tuple[bytes, int]:
    from cloche.kernel.seccomp import compile_filter

    if text := config.request.security.seccomp:
        from json import loads

        from cloche.oci.seccomp import resolve_profile

        return compile_filter(resolve_profile(loads(text), names, host.arch, host.kernel))
    from cloche.plan.seccomp import default_profile

    return compile_filter(default_profile(names, host.arch, host.kernel))


def gather(
    config: ContainerConfig,
    store: Store,
    host: Host,
    find: Callable[[str], tuple[str, Other]],
    console: tuple[int, int],
) -> Facts:
    """Everything for one start. `find` gives a running container by name. Raises NotFound, Conflict, Invalid,
    Unsupported."""
    others = []
    for name in sorted(referred(config)):
        _, other = find(name)
        if not other.pid:
            raise Conflict(
                f"join a namespace of {name}", "that container is not running", f"start it first: cloche start {name}"
            )
        others.append((name, other))
    program, flags = seccomp(config, store, host)
    rates = tuple(_rate(limit) for limit in config.request.resources.rates)
    brought = injected(config)
    return Facts(tuple(others), devices(config), program, flags, console, rates=rates, injected=brought)


def write_files(config: ContainerConfig, store: Store, ident: str, endpoints: tuple[Endpoint, ...] = ()) -> None:
    """The three files that are bound into /etc. With the host's network they are the host's."""
    directory, request = store.container(ident), config.request
    wanted = request.networking
    if request.network == "host":
        hosts = _read("/etc/hosts") + "".join(f"{address}\t{name}\n" for name, address in wanted.hosts).encode()
    else:
        from cloche.network import resolver

        hosts = resolver.hosts(_full_name(config), endpoints, wanted.hosts).encode()
    resolv = _resolv_conf(config, endpoints)
    for name, content in (("hosts", hosts), ("resolv.conf", resolv), ("hostname", config.hostname.encode() + b"\n")):
        _write(f"{directory}/{name}", content)
    _write(f"{directory}/resolv.conf.made", resolv)


def _full_name(config: ContainerConfig) -> str:
    domain = config.request.domainname
    return f"{config.hostname}.{domain}" if domain else config.hostname


def _resolv_conf(config: ContainerConfig, endpoints: tuple[Endpoint, ...]) -> bytes:
    """Of the host, as far as it holds in the container, with what was asked for. On networks with names they are asked
    for there, and what is not known there is asked of the servers that were asked for, or the host's."""
    from cloche.engine.networks import resolvers

    request, wanted = config.request, config.request.networking
    if named := resolvers(endpoints):
        wanted = wanted.replace(dns=named[:3], dns_options=wanted.dns_options or ("ndots:0",))
    asked = (wanted.dns, wanted.dns_search, wanted.dns_options)
    if request.network == "none" and not any(asked):
        return b"# no network: there is nobody to ask\n"
    if request.network == "host" and not any(asked):
        return _read("/etc/resolv.conf")
    from cloche.network.resolver import resolv_conf

    host = _read("/etc/resolv.conf").decode("utf-8", "replace")
    upstreams = _read("/run/systemd/resolve/resolv.conf").decode("utf-8", "replace")
    return resolv_conf(host, upstreams, *asked).encode()


def refresh_files(config: ContainerConfig, store: Store, ident: str, endpoints: tuple[Endpoint, ...]) -> None:
    """Before a start: the host's resolver may have changed; a file that somebody in the container has changed stays."""
    directory = store.container(ident)
    now = _resolv_conf(config, endpoints)
    before = _read(directory + "/resolv.conf.made")
    if now != before and _read(directory + "/resolv.conf") == before:
        _write(directory + "/resolv.conf", now)
        _write(directory + "/resolv.conf.made", now)


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except FileNotFoundError:
        return b""
