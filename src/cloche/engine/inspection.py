"""What is known of a container or an image, in the shapes of Docker's API: names, nesting and types as scripts expect
them."""

from __future__ import annotations

from cloche.engine.bundle import MASKED, READONLY
from cloche.engine.database import RESTARTING, RUNNING
from cloche.engine.netinspection import bindings, networking
from cloche.engine.request import bounding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloche.engine.containers import Container, Engine
    from cloche.engine.request import FileMount
    from cloche.image.store import Image

NEVER = "0001-01-01T00:00:00Z"


def moment(ns: int) -> str:
    """RFC 3339 with nanoseconds; Go's zero time for 0."""
    if not ns:
        return NEVER
    from cloche.runtime.timestamp import format_time

    return format_time(ns)


def container(engine: Engine, found: Container) -> dict[str, Any]:
    """docker inspect CONTAINER."""
    config, request = found.config, found.config.request
    return {
        "Id": found.id,
        "Created": moment(found.created),
        "Path": config.args[0],
        "Args": list(config.args[1:]),
        "State": _state(found),
        "Image": found.image_id,
        "ResolvConfPath": engine.store.container(found.id) + "/resolv.conf",
        "HostnamePath": engine.store.container(found.id) + "/hostname",
        "HostsPath": engine.store.container(found.id) + "/hosts",
        "LogPath": engine.log_directory(found),
        "Name": "/" + found.name,
        "RestartCount": found.restarts,
        "Driver": "overlay2",
        "Platform": "linux",
        "AppArmorProfile": "",
        "HostConfig": _host_config(found),
        "GraphDriver": {"Name": "overlay2", "Data": _layers(engine, found)},
        "Mounts": [
            {
                "Type": m.kind,
                "Source": m.source,
                "Destination": m.target,
                "Mode": _mode(m),
                "RW": not m.read_only,
                "Propagation": m.propagation or ("rprivate" if m.kind == "bind" else ""),
            }
            for m in request.files.mounts
        ],
        "Config": {
            "Hostname": config.hostname,
            "Domainname": "",
            "AttachStdin": request.process.interactive and not request.detach,
            "AttachStdout": not request.detach,
            "AttachStderr": not request.detach,
            "User": request.process.user or ("" if config.user == "0" else config.user),
            "Tty": request.process.tty,
            "OpenStdin": request.process.interactive,
            "Env": list(config.env),
            "Cmd": list(config.args[len(config.entrypoint) :]) or None,
            "Image": found.image,
            "WorkingDir": config.cwd,
            "Entrypoint": list(config.entrypoint) or None,
            "Labels": dict(config.labels),
            "ExposedPorts": {f"{port}/{protocol}": {} for port, protocol in config.exposed} or None,
            "StopSignal": _signal(config.stop_signal),
            "StopTimeout": config.stop_timeout,
        },
        "NetworkSettings": networking(engine, found),
    }


def _signal(number: int) -> str:
    from cloche.engine.signals import signal_name

    return signal_name(number)


def _state(found: Container) -> dict[str, Any]:
    running = found.status == RUNNING
    return {
        "Status": found.state,
        "Running": running,
        "Paused": found.paused,
        "Restarting": found.status == RESTARTING,
        "OOMKilled": found.oom,
        "Dead": False,
        "Pid": found.pid if running else 0,
        "ExitCode": found.exit_code,
        "Error": found.error,
        "StartedAt": moment(found.started),
        "FinishedAt": moment(found.finished),
    }


def _mode(mount: FileMount) -> str:
    """As it stands behind -v: `ro,rshared`."""
    return ",".join(filter(None, ("ro" * mount.read_only, mount.propagation)))


def _host_config(found: Container) -> dict[str, Any]:
    request = found.config.request
    limits, namespaces, security = request.resources, request.namespaces, request.security
    return {
        "NetworkMode": request.network,
        "PortBindings": bindings(request.networking.ports),
        "PublishAllPorts": request.networking.publish_all,
        "Dns": list(request.networking.dns),
        "DnsOptions": list(request.networking.dns_options),
        "DnsSearch": list(request.networking.dns_search),
        "ExtraHosts": [f"{name}:{address}" for name, address in request.networking.hosts] or None,
        "AutoRemove": found.remove,
        "Binds": [
            ":".join((m.source, m.target, *filter(None, [_mode(m)]))) for m in request.files.mounts if m.kind == "bind"
        ]
        or None,
        "Tmpfs": {m.target: ",".join(m.options) for m in request.files.mounts if m.kind == "tmpfs"} or None,
        "Memory": limits.memory,
        "MemorySwap": limits.memory_swap or limits.memory * 2,
        "MemoryReservation": limits.memory_reservation,
        "NanoCpus": limits.nano_cpus,
        "CpuShares": limits.cpu_shares,
        "CpusetCpus": limits.cpuset_cpus,
        "PidsLimit": limits.pids or None,
        "Ulimits": [{"Name": u.name, "Soft": u.soft, "Hard": u.hard} for u in request.process.ulimits] or None,
        "ShmSize": request.files.shm_size or 64 << 20,
        "OomScoreAdj": request.process.oom_score_adj,
        "CapAdd": list(security.cap_add) or None,
        "CapDrop": list(security.cap_drop) or None,
        "EffectiveCapabilities": list(bounding(security)),
        "SecurityOpt": (
            ["no-new-privileges"] * security.no_new_privileges
            + ["seccomp=" + security.seccomp] * bool(security.seccomp)
        )
        or None,
        "Privileged": security.privileged,
        "MaskedPaths": None if security.privileged else list(MASKED),
        "ReadonlyPaths": None if security.privileged else list(READONLY),
        "ContainerIDFile": request.cidfile,
        "ReadonlyRootfs": request.files.read_only,
        "Sysctls": dict(security.sysctls) or None,
        "Init": request.process.init,
        "PidMode": namespaces.pid,
        "IpcMode": namespaces.ipc or "private",
        "UTSMode": namespaces.uts,
        "CgroupnsMode": namespaces.cgroup or "private",
        "UsernsMode": namespaces.user,
        "IdMappings": [[m.container, m.host, m.size] for m in found.config.mapping],
        "GroupAdd": list(request.process.groups) or None,
        "Devices": [
            {"PathOnHost": d.source, "PathInContainer": d.target, "CgroupPermissions": d.access}
            for d in request.files.devices
        ],
        "RestartPolicy": {"Name": request.restart, "MaximumRetryCount": request.restart_tries},
        "LogConfig": {"Type": "cloche", "Config": {}},
        "Annotations": dict(request.annotations) or None,
    }


def _layers(engine: Engine, found: Container) -> dict[str, str]:
    from cloche.step.rootfs import Overlay
    from cloche.storage.overlay import existing, layer_folder

    overlay = existing(engine.store.root, found.id, found.config.layers).mounts[0]
    assert isinstance(overlay, Overlay)
    lower = ":".join(layer_folder(engine.store.root, n) for n in reversed(found.config.layers))
    return {"LowerDir": lower, "UpperDir": overlay.upper, "WorkDir": overlay.work}


def image(engine: Engine, found: Image) -> dict[str, Any]:
    """docker inspect IMAGE."""
    from json import loads

    document, config = found.config, found.config.config
    tags = [_familiar(r) for r in found.references if "@" not in r]
    return {
        "Id": found.id,
        "RepoTags": tags,
        "RepoDigests": [_familiar(r) for r in found.references if "@" in r],
        "Created": document.created or NEVER,
        "Author": document.author,
        "Architecture": document.architecture,
        "Variant": document.variant,
        "Os": document.os,
        "Size": found.size,
        "Config": {
            "User": config.user,
            "Env": list(config.env),
            "Cmd": list(config.cmd) or None,
            "Entrypoint": list(config.entrypoint) or None,
            "WorkingDir": config.working_dir,
            "Labels": dict(config.labels) or None,
            "StopSignal": config.stop_signal,
            "ExposedPorts": {p: {} for p in config.exposed_ports} or None,
            "Volumes": {v: {} for v in config.volumes} or None,
            "Healthcheck": loads(config.healthcheck) if config.healthcheck else None,
        },
        "RootFS": {"Type": "layers", "Layers": list(document.diff_ids)},
        "GraphDriver": {"Name": "overlay2", "Data": {"Layers": list(found.layers)}},
    }


def _familiar(reference: str) -> str:
    from cloche.oci.reference import parse

    return parse(reference).familiar()


def _operating_system() -> str:
    """As os-release(5) calls it."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    key, _, value = line.strip().partition("=")
                    if key == "PRETTY_NAME":
                        return value.strip("\"'")
        except OSError:
            continue
    return "Linux"


def info(engine: Engine) -> dict[str, Any]:
    """docker info, and what is cloche's own: the pids of keeper and holder (0 when none runs), the cgroup layout."""
    import os

    from cloche.engine.client import connect
    from cloche.engine.protocol import receive, send
    from cloche.version import VERSION

    keeper = {"keeper": 0, "holder": 0}
    if sock := connect(engine.store, start=False):
        send(sock, {"op": "info"})
        keeper = receive(sock)[0] or keeper
        sock.close()
    layout = engine.host.cgroups
    found = engine.containers()
    paused = sum(c.paused for c in found)
    running = sum(c.status == RUNNING for c in found) - paused
    uname = os.uname()
    controllers = {c for h in layout.hierarchies for c in h.controllers}
    return {
        "ServerVersion": VERSION,
        "Containers": len(found),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(found) - running - paused,
        "Images": len(engine.images.images()),
        "Driver": "overlay2",
        "DockerRootDir": engine.store.root,
        "RunDirectory": engine.store.run,
        "KeeperPid": keeper["keeper"],
        "HolderPid": keeper["holder"],
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": str(layout.version),
        "CgroupHybrid": layout.hybrid,
        "CgroupHierarchies": {h.path: list(h.controllers) for h in layout.hierarchies},
        "MemoryLimit": "memory" in controllers,
        "SwapLimit": "memory" in controllers and engine.host.swap_accounting,
        "CpuCfsQuota": "cpu" in controllers,
        "CPUShares": "cpu" in controllers,
        "CPUSet": "cpuset" in controllers,
        "PidsLimit": "pids" in controllers,
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
        "OperatingSystem": _operating_system(),
        "KernelVersion": uname.release,
        "Architecture": uname.machine,
        "OSType": "linux",
        "NCPU": os.cpu_count(),
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "Name": uname.nodename,
    }
