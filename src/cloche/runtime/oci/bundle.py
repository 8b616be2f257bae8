"""A bundle's folder as a plan's Bundle: config.json is read, paths are made absolute, what the host cannot do is said.

Source: runtime-spec, bundle.md, config.md, config-linux.md. What the specification asks for and cloche-oci does not do
yet is refused by name: no container is made that has less around it than was asked for.
"""

from __future__ import annotations

import os

from cloche.errors import Error, Invalid, Unsupported
from cloche.kernel.capabilities import mask
from cloche.oci.config import UMASK_OF_CALLER, parse
from cloche.oci.runtime import Capabilities, Mount, Process, Resources, Spec
from cloche.plan.bundle import Bundle
from cloche.plan.defaults import NODES
from cloche.runtime.oci.state import FILTERS
from cloche.step.rootfs import Folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.step.host import Host

    Warn = Callable[[str], None]

_ZERO_IS_NONE = (  # Go's programs write 0 for what they do not ask for
    *("memory_limit", "memory_swap", "memory_reservation", "cpu_shares", "cpu_quota", "cpu_period"),
    *("cpu_rt_period", "cpu_rt_runtime", "blkio_weight", "blkio_leaf_weight", "kernel_memory", "kernel_memory_tcp"),
)
_ASKED_ALWAYS = {"read", "write"}  # what bell itself must call behind the filter, before anybody can answer
_IPC = frozenset("kernel." + n for n in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split())


def read(folder: str) -> tuple[bytes, Spec]:
    """config.json of a bundle, as it is and as a value. Raises Invalid, Error."""
    path = folder + "/config.json"
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise Error(f"read {path}", error.errno or 5, "is it a bundle? see --bundle") from error
    return content, parse(content)


def rootfs(spec: Spec, folder: str) -> str:
    """The root's absolute path, no link in it. Raises Error."""
    path = os.path.realpath(os.path.join(folder, spec.root_path))
    if not os.path.isdir(path):
        raise Error(f"open the root file system {path}", "no such file or directory (ENOENT)", "root.path names it")
    return path


def settle(spec: Spec, folder: str, name: str, warn: Warn) -> Spec:
    """The document as it is meant here: paths from the bundle's folder, unknown capabilities left out, default devices,
    nothing that would change the host. Raises Invalid, Unsupported."""
    _check_namespaces(spec)
    _refuse(spec)
    if any(n.type == "mount" and n.path for n in spec.namespaces):
        warn("root, mounts, maskedPaths and readonlyPaths are those of the mount namespace that is joined")
    mounts = tuple(_settle_mount(mount, folder) for mount in spec.mounts)
    given = {device.path for device in spec.devices}
    devices = (*(d for d in NODES if d.path not in given), *spec.devices)
    if any(_is_bind(m) and m.destination.rstrip("/") == "/dev" for m in mounts):
        devices = ()  # the host's own: nothing is to be made in it
    return spec.replace(
        process=settle_process(spec.process, warn),
        mounts=mounts,
        devices=devices,
        cgroups_path=group(spec.cgroups_path, name),
        resources=settle_resources(spec.resources, warn),
    )


def group(path: str, name: str) -> str:
    """cgroupsPath, from the hierarchies' roots in any case; without one, the container's name. Raises Invalid."""
    wanted = f"/{path or name}"
    parts = [part for part in wanted.split("/") if part not in ("", ".")]
    if ".." in parts or not parts:
        raise Invalid(f"linux.cgroupsPath: {path!r}", "it leads out of the hierarchy, or is its root")
    return "/" + "/".join(parts)


def settle_process(process: Process, warn: Warn) -> Process:
    """Capabilities that nobody knows are left out, and said (config.md, Linux Process), and so are ambient ones that
    cannot be had: capabilities(7) wants them permitted and inheritable, and buildah asks for them all the same."""
    unknown: set[str] = set()

    def known(names: tuple[str, ...]) -> tuple[str, ...]:
        kept = []
        for name in names:
            try:
                mask((name,))
                kept.append(name)
            except KeyError:
                unknown.add(name)
        return tuple(kept)

    sets = Capabilities(*(known(names) for names in process.capabilities))
    if unknown:
        warn(f"unknown capabilities are ignored: {', '.join(sorted(unknown))}")
    possible = {*sets.permitted} & {*sets.inheritable}
    if refused := [name for name in sets.ambient if name not in possible]:
        warn(f"ambient capabilities that are not permitted and inheritable are ignored: {', '.join(sorted(refused))}")
        sets = sets.replace(ambient=tuple(name for name in sets.ambient if name in possible))
    user = process.user
    if user.umask == UMASK_OF_CALLER:
        user = user.replace(umask=_umask())
    return process.replace(capabilities=sets, user=user)


def _umask() -> int:
    """Our own. The call that reads it sets it."""
    found = os.umask(0o077)
    os.umask(found)
    return found


def settle_resources(wanted: Resources, warn: Warn) -> Resources:
    """Where 0 is written for "none"; what no kernel limits any more is said (config-linux.md, Memory)."""
    if wanted.kernel_memory or wanted.kernel_memory_tcp:
        warn("limits of kernel memory are ignored: it is a part of memory, and kernels from 5.4 on limit it so")
    zeros = {name: None for name in _ZERO_IS_NONE if getattr(wanted, name) == 0}
    rates = tuple(rate for rate in wanted.rates if rate.rate or rate.kind not in ("weight", "leaf_weight"))
    return wanted.replace(**zeros, rates=rates)


def notifies(spec: Spec) -> bool:
    """Whether an agent is asked about calls. Raises Invalid when nobody could answer."""
    profile = spec.seccomp
    if profile is None or not any(rule.action == "NOTIFY" for rule in profile.rules):
        if profile and profile.default_action == "NOTIFY":
            raise Invalid("linux.seccomp.defaultAction", "every call would wait for an agent that is told by one")
        return False
    for number, rule in enumerate(profile.rules):
        if rule.action == "NOTIFY" and _ASKED_ALWAYS & set(rule.names):
            cause = "read and write are called before the agent can answer"
            raise Invalid(f"linux.seccomp.syscalls[{number}].action", cause)
    if not profile.listener_path:
        raise Invalid("linux.seccomp.listenerPath", "it is missing: SCMP_ACT_NOTIFY needs somebody who answers")
    return True


def filter_of(spec: Spec, root: str, host: Host) -> tuple[bytes, int]:
    """The seccomp program and its flags, compiled once for each profile. Raises Invalid, Unsupported."""
    if spec.seccomp is None:
        return b"", 0
    from cloche.oci.seccomp import profile_key
    from cloche.runtime.filters import kept, library

    profile, asked = spec.seccomp, notifies(spec)

    def make() -> tuple[bytes, int]:
        from cloche.kernel.seccomp import compile_filter

        return compile_filter(profile, listener=asked)

    plain = profile.replace(listener_path="", listener_metadata="")  # who answers is not in the program
    return kept(f"{root}/{FILTERS}/{profile_key(plain, host.arch, host.kernel, library(host.arch))}", make)


def bundle_of(name: str, spec: Spec, root: str, program: tuple[bytes, int]) -> Bundle:
    """What a plan is made of; the root is mounted over itself."""
    return Bundle(name, spec, Folder(root, spec.root_readonly, mapped=False), root, *program)


def check_labels(process: Process) -> None:
    """Labels of security modules. Raises Unsupported."""
    for label, what, place in (
        (process.apparmor_profile, "AppArmor profile", "/sys/kernel/security/apparmor"),
        (process.selinux_label, "SELinux label", "/sys/fs/selinux/enforce"),
    ):
        if label and not os.path.exists(place):
            raise Unsupported(f"run with the {what} {label}", f"this kernel has no {what.split()[0]}")
        if label:
            raise Unsupported(f"run with the {what} {label}", "it is not built yet")


def _is_bind(mount: Mount) -> bool:
    return mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options


def _settle_mount(mount: Mount, folder: str) -> Mount:
    target = os.path.normpath("/" + mount.destination)
    if ".." in mount.destination.split("/"):
        mount = mount.replace(destination=target[1:] if target[:2] == "//" else target)
    if _is_bind(mount) and mount.source[:1] != "/":
        return mount.replace(source=os.path.join(folder, mount.source))
    return mount


def _check_namespaces(spec: Spec) -> None:
    """What would change the host because the namespace for it is the host's. Raises Invalid."""
    kinds = {namespace.type for namespace in spec.namespaces}
    if "mount" not in kinds and (spec.mounts or spec.masked_paths or spec.readonly_paths or spec.root_readonly):
        cause = "there is no mount namespace: what is mounted, masked or made read-only would be so for the host"
        raise Invalid("linux.namespaces", cause, "add one, or leave out mounts, maskedPaths, readonlyPaths")
    if spec.net_devices and "network" not in kinds:
        raise Invalid("linux.netDevices", "there is no network namespace for them")
    for value, key in ((spec.hostname, "hostname"), (spec.domainname, "domainname")):
        if value and "uts" not in kinds:
            raise Invalid(key, "it would be the host's: there is no uts namespace")
    for key, _ in spec.sysctl:
        name = key.replace("/", ".")
        needed = "network" if name[:4] == "net." else "ipc" if name in _IPC or name[:10] == "fs.mqueue." else ""
        needed = "uts" if name in ("kernel.domainname", "kernel.hostname") else needed
        if not needed:
            raise Invalid(f"linux.sysctl.{key}", "it is not in a separate kernel namespace: it would change the host")
        if needed not in kinds:
            raise Invalid(f"linux.sysctl.{key}", f"it would be the host's: there is no {needed} namespace")


def _refuse(spec: Spec) -> None:
    """What is not built yet. Raises Unsupported."""
    check_labels(spec.process)
    for asked, key in (
        (spec.mount_label, "linux.mountLabel"),
        (spec.intel_rdt, "linux.intelRdt"),
    ):
        if asked:
            raise Unsupported(key, "it is not built yet")
