"""Which requests cannot be meant: refused before anything is done, whoever asks (command line, SDK, API).

The request comes back in canonical spelling. Words are Docker's where its users know them.
Not its business: what depends on the host, the image or other containers.
"""

from __future__ import annotations

from cloche.engine.request import PROPAGATIONS, RECURSIONS, Limits, Logging, capability
from cloche.errors import Invalid

TYPE_CHECKING = False  # importing typing would cost a start 8 ms
if TYPE_CHECKING:
    from cloche.engine.request import (
        Connection,
        ExecRequest,
        FileMount,
        Files,
        Program,
        RunRequest,
        Security,
        Ulimit,
    )
    from cloche.oci.runtime import IdMapping

_ID_MOST = 1 << 32
_MAPS_MOST = 340  # user_namespaces(7): lines of a map

# setrlimit(2), but `as`, as in Docker
ULIMITS = "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
_TMPFS_FLAGS = (
    "ro rw suid nosuid dev nodev exec noexec noatime diratime nodiratime relatime strictatime nosymfollow defaults"
).split()
_TMPFS_VALUES = "size mode uid gid nr_inodes nr_blocks mpol huge".split()  # tmpfs(5)
_SYSCTLS = (
    "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem "
    "kernel.shmall kernel.shmmax kernel.shmmni kernel.shm_rmid_forced"
).split()  # those of the IPC namespace, ipc_namespaces(7)
_HEX = frozenset("0123456789abcdefABCDEF")
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME = _LETTERS | frozenset("_.-")
_TMPFS_WORD = _LETTERS | frozenset("_.-%:=")  # mpol=prefer=static:0; a comma would begin another option


def check(request: RunRequest) -> RunRequest:
    """The request in canonical spelling (capabilities, signals, sysctls). Raises Invalid."""
    if not request.image:
        raise Invalid("run a container", "no image is named")
    process = _check_process(request.process)
    _check_identity(request)
    if request.resources != Limits() or request.cgroup_parent:
        from cloche.engine import limits

        limits.check(request.resources)
        limits.check_parent(request.cgroup_parent)
    _check_files(request.files)
    _check_network(request)
    check_restart(request)
    if request.log != Logging():
        from cloche.engine.logdrivers import check as check_log

        check_log(request.log)
    if any(request.health):
        from cloche.engine.healthchecks import check as check_health

        _check_words(request.health.test, (), "", "")
        check_health(request.health)
    if request.attach:
        if unknown := [stream for stream in request.attach if stream not in ("stdin", "stdout", "stderr")]:
            raise Invalid(f"attach to {unknown[0] or 'nothing'}", "valid streams are STDIN, STDOUT and STDERR")
        if request.detach:
            what = "conflicting options: cannot specify both --attach and --detach"
            raise Invalid(what, "", "leave one of them out")
    _check_namespaces(request)
    security = _check_security(request.security).replace(sysctls=_check_sysctls(request))
    return request.replace(process=process, security=security)


def check_exec(request: ExecRequest) -> ExecRequest:
    """The same for a command in a running container. Raises Invalid."""
    if not request.container:
        raise Invalid("execute a command", "no container is named")
    if not request.command or not request.command[0]:
        raise Invalid(f"execute a command in {request.container}", "no exec command specified")
    _check_words(request.command, request.env, request.working_directory, request.user)
    return request


def _check_text(what: str, text: str) -> None:
    """What is stored, shown and made part of files: valid UTF-8 without NUL bytes."""
    if "\0" in text:
        raise Invalid(what, "it has a NUL byte in it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Invalid(what, "it is not valid UTF-8") from None


def _check_words(command: tuple[str, ...], env: tuple[str, ...], directory: str, user: str) -> None:
    from cloche.engine.environment import variables

    variables(env, {})
    for text in (*command, *env):
        try:
            bad = "\0" in text and "has a NUL byte in it"
            text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            bad = "cannot be written as bytes"
        if bad:
            raise Invalid(f"execute {command[0] if command else 'the command'!r}", f"an argument or variable {bad}")
    if directory and directory[0] != "/":
        raise Invalid(f"the working directory '{directory}' is invalid", "it needs to be an absolute path")
    _check_text(f"the working directory '{directory}' is invalid", directory)
    if user.count(":") > 1 or user[:1] == ":" or any(not c.isprintable() or c == " " for c in user):
        raise Invalid(f"user '{user}'", "it is not of the form USER[:GROUP]", "names or numbers, such as 1000:1000")


def _check_process(process: Program) -> Program:
    _check_words((*(process.entrypoint or ()), *process.command), process.env, process.working_directory, process.user)
    for group in process.groups:
        if not group or not all(c.isprintable() and c not in ": " for c in group):
            raise Invalid(f"additional group '{group}'", "it is neither a name nor a number")
    if not -1000 <= process.oom_score_adj <= 1000:
        cause = f"invalid value {process.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        raise Invalid("set the OOM score", cause)
    if process.stop_timeout is not None and not -1 <= process.stop_timeout < 1 << 31:
        raise Invalid("set the stop timeout", f"invalid value {process.stop_timeout}", "seconds; -1 waits for ever")
    seen: set[str] = set()
    for limit in process.ulimits:
        _check_ulimit(limit, seen)
    if not process.stop_signal:
        return process
    from cloche.kernel.signalnames import signal_name, signal_number

    return process.replace(stop_signal=signal_name(signal_number(process.stop_signal)))


def _check_ulimit(limit: Ulimit, seen: set[str]) -> None:
    if limit.name not in ULIMITS:
        raise Invalid("invalid ulimit type", limit.name or "''", f"one of {' '.join(ULIMITS)}")
    if limit.name in seen:
        raise Invalid(f"ulimit {limit.name}", "given twice")
    seen.add(limit.name)
    if min(limit.soft, limit.hard) < -1 or max(limit.soft, limit.hard) >= 1 << 63:
        raise Invalid(f"ulimit {limit.name}={limit.soft}:{limit.hard}", "out of range", "-1 is unlimited")
    if limit.hard != -1 and (limit.soft == -1 or limit.soft > limit.hard):
        soft = "unlimited" if limit.soft == -1 else limit.soft
        cause = f"ulimit soft limit must be less than or equal to hard limit: {soft} > {limit.hard}"
        raise Invalid(f"ulimit {limit.name}", cause)


def check_name(given: str) -> None:
    """A container's name. Raises Invalid."""
    name = given.removeprefix("/")
    if len(name) < 2 or len(name) > 255 or name[0] not in _LETTERS or not _NAME.issuperset(name):
        cause = f"Invalid container name ({given}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        raise Invalid("name the container", cause, "at least two characters" if len(name) < 2 else "")


def _check_identity(request: RunRequest) -> None:
    if request.name:
        check_name(request.name)
    host = request.hostname
    if host and (len(host) > 64 or host[0] in ".-" or not _NAME.issuperset(host)):
        cause = "more than 64 characters" if len(host) > 64 else "only letters, digits, '-', '.' and '_' are allowed"
        raise Invalid(f"invalid hostname '{host}'", cause)
    domain = request.domainname
    if domain and (len(domain) > 64 or domain[0] in ".-" or not _NAME.issuperset(domain)):
        raise Invalid(f"invalid domain name '{domain}'", "letters, digits, '-', '.' and '_', at most 64 of them")
    for kind, pairs in (("label", request.labels), ("annotation", request.annotations)):
        for key, value in pairs:
            if not key.strip():
                raise Invalid(f"invalid {kind} '{key}={value}'", "empty name")
            _check_text(f"invalid {kind} '{key}={value}'", key + value)
    _check_text(f"write the container's id to {request.cidfile}", request.cidfile)


def is_clean(path: str) -> bool:
    """Absolute, and without `..`, which a symbolic link on the way would turn into something else."""
    return path[:1] == "/" and ".." not in path.split("/")


def _check_files(files: Files) -> None:
    if files.shm_size < 0 or files.shm_size >= 1 << 63:
        raise Invalid(f"make /dev/shm of {files.shm_size} bytes", "SHM size can not be less than 0")
    for text in files.volumes_from:
        name, _, mode = text.partition(":")
        if not name or not _NAME.issuperset(name.removeprefix("/")) or mode not in ("", "ro", "rw"):
            raise Invalid(f"invalid volumes-from '{text}'", "", "CONTAINER or CONTAINER:ro")
    targets: set[str] = set()
    for mount in files.mounts:
        target = "/" + "/".join(p for p in mount.target.split("/") if p not in ("", "."))
        if target in targets:
            raise Invalid(f"mount on {mount.target}", f"Duplicate mount point: {target}")
        targets.add(target)
        _check_mount(mount)
    for rule in files.device_rules:
        if rule.type not in ("a", "b", "c") or not rule.access or set(rule.access) - set("rwm"):
            raise Invalid(f"invalid device cgroup format '{rule.type}'", "", "such as 'c 13:* rmw'")
        if min(rule.major, rule.minor) < -1 or max(rule.major, rule.minor) >= 1 << 32:
            raise Invalid(f"device rule {rule.major}:{rule.minor}", "a number that is no device's")
    if files.cdi or files.gpus:
        from cloche.engine.cdi import is_name, parse_gpus

        for name in files.cdi:
            if not is_name(name):
                raise Invalid(f"add device {name}", "it is no name of a CDI device", "VENDOR/CLASS=NAME")
        if files.gpus:
            parse_gpus(files.gpus)
    for device in files.devices:
        what = f"add device {device.source}"
        for path in (device.source, device.target):
            if not is_clean(path) or "*" in path:
                raise Invalid(what, f"{path or 'nothing'} is not an absolute path", "without .. and *")
            _check_text(what, path)
        if not device.access or set(device.access) - set("rwm") or len(set(device.access)) != len(device.access):
            raise Invalid(what, f"bad mode specified: {device.access}", "made of r, w and m")


def _check_mount(mount: FileMount) -> None:
    what = f"mount {mount.source or mount.kind} on {mount.target}"
    if mount.kind not in ("bind", "volume", "tmpfs"):
        raise Invalid(what, f"mount type unknown: {mount.kind or 'none given'}", "bind, volume or tmpfs")
    if not is_clean(mount.target):
        raise Invalid(what, f"invalid mount path: '{mount.target}' mount path must be absolute", "without ..")
    if not mount.target.strip("/."):
        raise Invalid(what, "invalid specification: destination can't be '/'")
    _check_text(what, mount.target + mount.source)
    if mount.kind == "volume":
        _check_volume(what, mount)
        return
    if not mount.copy or mount.subpath or mount.labels:
        raise Invalid(what, f"cannot mix 'volume-*' options with mount type '{mount.kind}'")
    if mount.propagation and mount.propagation not in PROPAGATIONS:
        raise Invalid(what, f"invalid propagation mode: {mount.propagation}", f"one of {' '.join(PROPAGATIONS)}")
    if mount.kind == "bind":
        if not is_clean(mount.source):
            cause = f"invalid mount path: '{mount.source}' mount path must be absolute"
            raise Invalid(what, cause if mount.source else "field Source must not be empty", "without ..")
        if mount.recursion not in RECURSIONS:
            raise Invalid(
                what, f"invalid value for bind-recursive: {mount.recursion}", f"one of {' '.join(RECURSIONS)}"
            )
        if mount.recursion == "readonly" and not mount.read_only:
            raise Invalid(what, "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
        if mount.size or mount.mode is not None or mount.options:
            raise Invalid(what, "cannot mix 'tmpfs-*' options with mount type 'bind'")
        return
    if mount.source or mount.propagation or mount.recursion != "enabled" or mount.idmap:
        raise Invalid(what, "a tmpfs has no source, propagation, recursion or idmap")
    if not 0 <= mount.size < 1 << 63 or not 0 <= (mount.mode or 0) <= 0o7777:
        raise Invalid(what, "the size or mode is out of range")
    for option in mount.options:
        key, equals, value = option.partition("=")
        if key not in (_TMPFS_VALUES if equals else _TMPFS_FLAGS) or (
            equals and not _TMPFS_WORD.issuperset(value or ",")
        ):
            raise Invalid(what, f"invalid tmpfs option '{option}'", "such as size=64m, mode=1777, noexec")


def _check_volume(what: str, mount: FileMount) -> None:
    if mount.source:
        check_volume_name(mount.source)
    if mount.propagation or mount.recursion != "enabled" or mount.idmap:
        raise Invalid(what, "cannot mix 'bind-*' options with mount type 'volume'")
    if mount.size or mount.mode is not None or mount.options:
        raise Invalid(what, "cannot mix 'tmpfs-*' options with mount type 'volume'")
    if mount.subpath and (mount.subpath[0] == "/" or ".." in mount.subpath.split("/") or not mount.source):
        cause = "must be a relative path within the volume" if mount.source else "a new volume has nothing below it"
        raise Invalid(what, f"subpath {mount.subpath}: {cause}")
    for text in (mount.subpath, *(text for label in mount.labels for text in label)):
        _check_text(what, text)


def check_volume_name(name: str) -> None:
    """As Docker's local driver names volumes. Raises Invalid."""
    if len(name) > 1 and name[0] in _LETTERS and _NAME.issuperset(name) and len(name) < 256:
        return
    if _NAME.issuperset(name) and len(name) == 1:
        raise Invalid(
            f"create {name}", "volume name is too short, names should be at least two alphanumeric characters"
        )
    cause = "invalid characters for a local volume name: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    if len(name) > 255:
        cause = "a name of more than 255 characters"
    raise Invalid(f"create {name}", cause, "a directory of the host is given by its absolute path, or with ./")


def _check_shared(what: str, mode: str, *others: str) -> None:
    """`mode` is "" (the container's own), `host`, one of `others`, or `container:ID`."""
    other = mode[10:] if mode[:10] == "container:" else ""
    if mode not in ("", "host", *others) and (not other or not _NAME.issuperset(other)):
        words = ", ".join(("host", *others, "container:ID"))
        raise Invalid(what, f"'{mode}'", f"one of {words}")


RESTARTS = ("no", "always", "unless-stopped", "on-failure")


def check_restart(request: RunRequest) -> None:
    """What follows its end. Raises Invalid."""
    if request.restart not in RESTARTS:
        raise Invalid(
            f"invalid restart policy: unknown policy '{request.restart}'", "", f"one of {', '.join(RESTARTS)}"
        )
    if request.restart_tries and request.restart != "on-failure":
        raise Invalid("invalid restart policy", "maximum retry count can only be used with 'on-failure'")
    if request.restart_tries < 0:
        raise Invalid("invalid restart policy", "maximum retry count cannot be negative")
    if request.remove and request.restart != "no":
        raise Invalid("Conflicting options", "cannot specify both --restart and --rm")


def _check_network(request: RunRequest) -> None:
    network, wanted = request.network, request.networking
    name, colon, _ = network.partition(":")
    if not network:
        raise Invalid("network ''", "no name set for network", "none, host, container:ID or a network's name")
    if name == "container" and colon:
        _check_shared("--network: invalid network mode", network, "none")
    elif not is_network_name(network):
        raise Invalid(f"network '{network}'", "it is no network's name", "`cloche network ls` lists them")
    if network in ("none", "host") or colon:
        _check_without_network(request)
    from cloche.network.addresses import number

    for text in (*wanted.dns, *(a for _, a in wanted.hosts if a != "host-gateway")):
        number(text)
    for text in (*wanted.dns_search, *wanted.dns_options, *(n for n, _ in wanted.hosts)):
        if not text or any(c.isspace() or not c.isprintable() for c in text):
            raise Invalid(f"name resolution: '{text}'", "it is empty, or has blanks in it")
    ports: set[tuple[str, str, int]] = set()
    for port in wanted.ports:
        key = port.address, port.protocol, port.port
        if port.port and not port.last and key in ports:
            raise Invalid(f"publish port {port.port}/{port.protocol}", "given twice")
        ports.add(key)
    for connection in wanted.connections:
        _check_connection(connection)


def is_network_name(text: str) -> bool:
    """A letter or digit, then also `_`, `.` and `-`, as of containers."""
    return bool(text) and text[0] in _LETTERS and _NAME.issuperset(text) and len(text) < 256


def _check_connection(wanted: Connection) -> None:
    from cloche.network.addresses import number

    what = f"connect to network {wanted.network}"
    if not is_network_name(wanted.network) or wanted.network in ("none", "host"):
        raise Invalid(f"network '{wanted.network}'", "it cannot be one of several", "`cloche network ls` lists them")
    for text, wide in ((wanted.ip, False), (wanted.ip6, True)):
        if text:
            number(text)
            if (":" in text) != wide:
                raise Invalid(f"{what}: invalid IPv{6 if wide else 4} address: {text}")
    for alias in wanted.aliases:
        if not is_network_name(alias):
            raise Invalid(f"{what}: alias '{alias}'", "only letters, digits, '-', '.' and '_' are allowed")
    octets = wanted.mac.split(":")
    if wanted.mac and (len(octets) != 6 or not all(len(o) == 2 and set(o) <= _HEX for o in octets)):
        raise Invalid(f"{what}: invalid MAC address: {wanted.mac}", "", "such as 02:42:ac:11:00:02")
    if wanted.mac and int(octets[0], 16) & 1:
        raise Invalid(f"{what}: invalid MAC address: {wanted.mac}", "it is of a group of interfaces")


def _check_without_network(request: RunRequest) -> None:
    """What a container without links of its own cannot have."""
    network, wanted = request.network, request.networking
    what = f"conflicting options: network {network}"
    if wanted.connections:
        raise Invalid(what, "addresses, aliases and other networks need a network with links")
    if network == "none":
        return  # Docker takes published ports there, and publishes none
    if network[:10] == "container:":
        for given, flag in (
            (wanted.ports or wanted.publish_all, "port publishing"),
            (wanted.expose, "port exposing"),
            (wanted.dns or wanted.dns_search or wanted.dns_options, "dns"),
            (wanted.hosts, "custom host-to-IP mapping"),
        ):
            if given:
                raise Invalid(f"conflicting options: {flag} and the container type network mode", "it is the other's")


def _check_namespaces(request: RunRequest) -> None:
    wanted = request.namespaces
    _check_shared("--pid: invalid PID mode", wanted.pid)
    _check_shared("--ipc: invalid IPC mode", wanted.ipc, "private", "shareable")
    for what, mode, modes in (
        ("--uts: invalid UTS mode", wanted.uts, ("", "host")),
        ("--cgroupns: invalid CGROUP mode", wanted.cgroup, ("", "host", "private")),
        ("--userns: invalid USER mode", wanted.user, ("", "host", "auto", "map")),
    ):
        if mode not in modes:
            raise Invalid(what, f"'{mode}'", f"one of {', '.join(m for m in modes if m)}")
    if request.hostname and wanted.uts == "host":
        raise Invalid("conflicting options: hostname and the UTS mode", "the host's name would change")
    if request.hostname and request.network[:10] == "container:":
        raise Invalid("conflicting options: hostname and the network mode", "the name is the other container's")
    if bool(wanted.user_map) != (wanted.user == "map"):
        raise Invalid("map user ids", "a map and the mode 'map' go together", "CONTAINER:HOST:SIZE[,...]")
    if wanted.user in ("", "host"):
        for mount in request.files.mounts:
            if mount.idmap:
                raise Invalid(
                    f"mount {mount.source} with idmap", "the container has no user namespace", "--userns auto"
                )
        return
    _check_map(wanted.user_map)
    if request.security.privileged:
        cause = "privileged mode is incompatible with user namespaces"
        raise Invalid(f"user namespace {wanted.user}", cause, "run the container in the host's: --userns host")
    for shared, name in ((wanted.pid, "PID"), (wanted.ipc, "IPC"), (wanted.uts, "UTS"), (request.network, "network")):
        if shared == "host":
            cause = f"cannot share the host's {name} namespace when user namespaces are enabled"
            raise Invalid(f"user namespace {wanted.user}", cause)


def _check_map(maps: tuple[IdMapping, ...]) -> None:
    if len(maps) > _MAPS_MOST:
        raise Invalid("map user ids", f"{len(maps)} ranges, and {_MAPS_MOST} is the most", "see user_namespaces(7)")
    for number, entry in enumerate(maps):
        text = f"map user ids {entry.container}:{entry.host}:{entry.size}"
        if (
            entry.size < 1
            or min(entry.container, entry.host) < 0
            or max(entry.container, entry.host) + entry.size >= _ID_MOST
        ):
            raise Invalid(text, "out of range", "ids of 32 bits, a size of 1 or more")
        for other in maps[:number]:
            for start, before in ((entry.container, other.container), (entry.host, other.host)):
                if start < before + other.size and before < start + entry.size:
                    raise Invalid(text, f"it overlaps with {other.container}:{other.host}:{other.size}")
    if maps and not any(entry.container == 0 for entry in maps):
        raise Invalid("map user ids", "the container's id 0 is in no range", "such as 0:100000:65536")


def _check_security(security: Security) -> Security:
    from cloche.kernel.capabilities import NUMBERS

    add, drop = (tuple(map(capability, names)) for names in (security.cap_add, security.cap_drop))
    for flag, names in (("CapAdd", add), ("CapDrop", drop)):
        for name in names:
            if name != "ALL" and name not in NUMBERS:
                raise Invalid(
                    f"invalid {flag}", f'unknown capability: "{name}"', "such as NET_ADMIN; see capabilities(7)"
                )
    return security.replace(cap_add=add, cap_drop=drop)


def _sysctl_path(key: str) -> str:
    """Where a kernel parameter is below /proc/sys: what separates first separates, the other is in names, sysctl(8)."""
    slash, dot = key.find("/"), key.find(".")
    return key if slash >= 0 and (dot < 0 or slash < dot) else key.translate({46: "/", 47: "."})


def _check_sysctls(request: RunRequest) -> tuple[tuple[str, str], ...]:
    checked = []
    for key, value in request.security.sysctls:
        path = _sysctl_path(key)
        ours = path.startswith(("net/", "fs/mqueue/")) or path.replace("/", ".") in _SYSCTLS
        if not ours or not (_NAME | {"/"}).issuperset(path) or {"", ".", ".."} & set(path.split("/")):
            raise Invalid(
                f"sysctl '{key}={value}' is not allowed", "", "net.*, fs.mqueue.* and the IPC ones of kernel.*"
            )
        if path[:4] == "net/" and request.network == "host":
            raise Invalid(f"sysctl '{key}' not allowed in host network namespace")
        if path[:4] != "net/" and request.namespaces.ipc == "host":
            raise Invalid(f"sysctl '{key}' not allowed in host ipc namespace")
        _check_text(f"sysctl '{key}'", value)
        checked.append((path if "." in path else path.replace("/", "."), value))
    return tuple(checked)
