"""What is known of a container or an image, in the shapes of Docker's API: names, nesting and types as scripts expect
them."""

from __future__ import annotations

from cloche.engine.database import RESTARTING, RUNNING
from cloche.engine.netinspection import bindings, networking
from cloche.engine.request import bounding
from cloche.plan.defaults import MASKED, READONLY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloche.engine.containers import Container, Engine
    from cloche.engine.request import FileMount, Files
    from cloche.image.store import Image
    from cloche.oci.runtime import DeviceRule

NEVER = "0001-01-01T00:00:00Z"


def moment(ns: int) -> str:
    """RFC 3339 with nanoseconds; Go's zero time for 0."""
    if not ns:
        return NEVER
    from cloche.runtime.timestamp import format_time_short

    return format_time_short(ns)


def container(engine: Engine, found: Container) -> dict[str, Any]:
    """docker inspect CONTAINER."""
    config, request = found.config, found.config.request
    return {
        "Id": found.id,
        "Created": moment(found.created),
        "Path": config.args[0],
        "Args": list(config.args[1:]),
        "State": _state(engine, found),
        "Image": found.image_id,
        "ResolvConfPath": engine.store.container(found.id) + "/resolv.conf",
        "HostnamePath": engine.store.container(found.id) + "/hostname",
        "HostsPath": engine.store.container(found.id) + "/hosts",
        "LogPath": "" if config.log.driver == "none" else engine.log_directory(found),
        "Name": "/" + found.name,
        "RestartCount": found.restarts,
        "Driver": "overlay2",
        "Platform": "linux",
        "AppArmorProfile": "",
        "HostConfig": _host_config(found),
        "GraphDriver": {"Name": "overlay2", "Data": _layers(engine, found)},
        "Mounts": [_mount(engine, m) for m in config.mounts],
        "Config": {
            "Hostname": config.hostname,
            "Domainname": request.domainname,
            "AttachStdin": request.attached("stdin"),
            "AttachStdout": request.attached("stdout"),
            "AttachStderr": request.attached("stderr"),
            "User": request.process.user or ("" if config.user == "0" else config.user),
            "Tty": request.process.tty,
            "OpenStdin": request.process.interactive,
            "Env": list(config.env),
            "Cmd": list(config.args[len(config.entrypoint) :]) or None,
            "Image": found.image,
            "Volumes": {m.target: {} for m in config.mounts if m.anonymous and m.origin != "container"} or None,
            "WorkingDir": config.cwd,
            "Entrypoint": list(config.entrypoint) or None,
            "Labels": dict(config.labels),
            "ExposedPorts": {f"{port}/{protocol}": {} for port, protocol in config.exposed} or None,
            "StopSignal": _signal(config.stop_signal),
            "StopTimeout": config.stop_timeout,
            **_healthcheck(found),
        },
        "NetworkSettings": networking(engine, found),
    }


def _signal(number: int) -> str:
    from cloche.kernel.signalnames import signal_name

    return signal_name(number)


def _healthcheck(found: Container) -> dict[str, Any]:
    health = found.config.health
    if not any(health):
        return {}
    from cloche.engine.healthchecks import document

    action = {"HealthcheckOnFailureAction": health.on_failure} if health.on_failure else {}  # podman's word
    return {"Healthcheck": document(health), **action}


def _health(engine: Engine, found: Container) -> dict[str, Any]:
    """What the checks said: nothing of a container that never ran, or has none."""
    if not found.health:
        return {}
    from cloche.engine.health import read_state

    row = engine.db.execute("SELECT checks FROM containers WHERE id=?", (found.id,)).fetchone()
    state = read_state(row["checks"] if row else "")
    log = [
        {"Start": moment(each.start), "End": moment(each.end), "ExitCode": each.code, "Output": each.output}
        for each in state.log
    ]
    return {"Health": {"Status": found.health, "FailingStreak": state.streak, "Log": log}}


def _state(engine: Engine, found: Container) -> dict[str, Any]:
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
        **_health(engine, found),
    }


def _mount(engine: Engine, mount: FileMount) -> dict[str, Any]:
    volume = {"Name": mount.source, "Driver": "local"} if mount.kind == "volume" else {}
    return {
        "Type": mount.kind,
        **volume,
        "Source": engine.store.volume(mount.source) + "/_data" if volume else mount.source,
        "Destination": mount.target,
        "Mode": _mode(mount),
        "RW": not mount.read_only,
        "Propagation": mount.propagation or ("rprivate" if mount.kind == "bind" else ""),
    }


def _mode(mount: FileMount) -> str:
    """As it stands behind -v: `ro,rshared`."""
    return ",".join(
        filter(None, ("ro" * mount.read_only, mount.propagation, "nocopy" * (not mount.copy), "idmap" * mount.idmap))
    )


def _binds(found: Container) -> list[str]:
    """Binds and named volumes that were asked for, as -v has them."""
    mounts = [m for m in found.config.request.files.mounts if m.kind != "tmpfs" and m.source and not m.subpath]
    return [":".join((m.source, m.target, *filter(None, [_mode(m)]))) for m in mounts]


def _rates(found: Container) -> dict[str, Any]:
    """Limits of block devices, by Docker's names."""
    rates = found.config.request.resources.rates
    made: dict[str, Any] = {
        "BlkioWeightDevice": [{"Path": r.path, "Weight": r.rate} for r in rates if r.kind == "weight"] or None
    }
    for kind, name in (("read_bps", "ReadBps"), ("write_bps", "WriteBps"), ("read_iops", "ReadIOps")):
        made["BlkioDevice" + name] = [{"Path": r.path, "Rate": r.rate} for r in rates if r.kind == kind] or None
    made["BlkioDeviceWriteIOps"] = [{"Path": r.path, "Rate": r.rate} for r in rates if r.kind == "write_iops"] or None
    return made


def _device_requests(files: Files) -> list[dict[str, Any]]:
    """CDI devices, as Docker shows those that a driver is asked for."""
    found: list[dict[str, Any]] = []
    if files.cdi:
        found.append({"Driver": "cdi", "Count": 0, "DeviceIDs": list(files.cdi), "Capabilities": None, "Options": None})
    if files.gpus:
        from cloche.engine.cdi import parse_gpus

        count, names, maker = parse_gpus(files.gpus)
        kind = {"Driver": maker, "Count": count, "DeviceIDs": list(names) or None}
        found.append({**kind, "Capabilities": [["gpu"]], "Options": {}})
    return found


def _rule(rule: DeviceRule) -> str:
    major, minor = ("*" if n < 0 else n for n in (rule.major, rule.minor))
    return f"{rule.type} {major}:{minor} {rule.access}"


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
        "Binds": _binds(found) or None,
        "VolumesFrom": list(request.files.volumes_from) or None,
        "Tmpfs": {m.target: ",".join(m.options) for m in request.files.mounts if m.kind == "tmpfs"} or None,
        "VolumeDriver": "",
        "Memory": limits.memory,
        "MemorySwap": limits.memory_swap or limits.memory * 2,
        "MemoryReservation": limits.memory_reservation,
        "NanoCpus": limits.nano_cpus,
        "CpuShares": limits.cpu_shares,
        "CpusetCpus": limits.cpuset_cpus,
        "CpusetMems": limits.cpuset_mems,
        "CpuPeriod": limits.cpu_period,
        "CpuQuota": limits.cpu_quota,
        "CpuRealtimePeriod": limits.cpu_rt_period,
        "CpuRealtimeRuntime": limits.cpu_rt_runtime,
        "MemorySwappiness": None if limits.swappiness < 0 else limits.swappiness,
        "OomKillDisable": limits.oom_kill_disable,
        "BlkioWeight": limits.blkio_weight,
        **_rates(found),
        "CgroupParent": request.cgroup_parent,
        "DeviceCgroupRules": [_rule(rule) for rule in request.files.device_rules] or None,
        "Runtime": "cloche",
        "Isolation": "",
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
        "DeviceRequests": _device_requests(request.files) or None,
        "RestartPolicy": {"Name": request.restart, "MaximumRetryCount": request.restart_tries},
        "LogConfig": {"Type": found.config.log.driver or "json-file", "Config": dict(found.config.log.options)},
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
        "Comment": document.history[-1].comment if document.history else "",
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
            "OnBuild": list(config.onbuild) or None,
            "Shell": list(config.shell) or None,
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
