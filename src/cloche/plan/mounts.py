"""What the container sees as files: its root, its mounts in the spec's order, devices, links."""

from __future__ import annotations

from cloche.errors import Invalid, Unsupported
from cloche.step.base import Act, Ref
from cloche.step.files import CopyUp, MakeLink, MakeNode, OpenInside
from cloche.step.mount import (
    ATTR_RDONLY,
    MS_PRIVATE,
    MS_REC,
    MS_SLAVE,
    AttachTree,
    ChangeMount,
    ChangeTree,
    MakeReadonly,
    MountFilesystem,
    MountOverlay,
    OpenTree,
    SetPropagation,
    mount_options,
)
from cloche.step.namespace import MakeUserNamespace, OpenNamespace, SetNamespace
from cloche.step.root import EnterRoot
from cloche.step.rootfs import Overlay
from cloche.value import remembered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.oci.runtime import Device, Mount
    from cloche.plan.bundle import Bundle
    from cloche.step.host import Host

WHY = {
    "proc": "Processes as files; in a pid namespace of its own it shows only the container's.",
    "sysfs": "Devices and kernel objects as files, read-only.",
    "devpts": "Terminals of the container's own.",
    "mqueue": "POSIX message queues of the container's IPC namespace.",
    "tmpfs": "Files in memory.",
    "cgroup": "The container may read its own limits and use.",
    "cgroup2": "The container may read its own limits and use.",
}
_BELONGS = "Its files belong inside to whom they belong outside."
_MAPPED = "Only its maps are needed: of this mount's owners."
LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
    ("pts/ptmx", "/dev/ptmx"),
)
# what may be mounted below /proc: files that stand in for what lxcfs and the like emulate
_BELOW_PROC = (
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "sys/kernel/ns_last_pid",
)
_TYPES = {"c": 0o020000, "u": 0o020000, "b": 0o060000, "p": 0o010000}


def overlay_data(root: Overlay) -> str:
    """The overlay's mount options; lower paths are relative to its directory. Raises Unsupported when they do not
    fit."""
    parts = ["lowerdir=" + ":".join(root.lower), f"upperdir={root.upper}", f"workdir={root.work}", *root.options]
    data = ",".join(parts)
    if len(data.encode()) > 4095:
        raise Unsupported(
            f"mount an overlay of {len(root.lower)} layers", "their names do not fit in one page", "squash layers"
        )
    return data


def enter(bundle: Bundle) -> list[Act]:
    """Mount the root where only this mount namespace sees it, and go there."""
    if isinstance(bundle.root, Overlay):
        acts = [Act("init", MountOverlay(bundle.root.directory, bundle.mountpoint, overlay_data(bundle.root)))]
    else:
        why = "The folder that becomes the container's root."
        # a shared one is made so behind pivot_root, which refuses it
        follows = "slave" in bundle.spec.rootfs_propagation or "shared" in bundle.spec.rootfs_propagation
        propagation = (MS_SLAVE if follows else MS_PRIVATE) | MS_REC
        acts = [Act("init", AttachTree(Ref("root"), bundle.mountpoint, propagation=propagation, host=True), why)]
    return [
        Act("init", SetPropagation("/", MS_REC | MS_PRIVATE)),
        *acts,
        Act("init", EnterRoot(bundle.mountpoint)),
    ]


def _check(mount: Mount) -> None:
    path = mount.destination
    if path[:1] != "/" or "\0" in path:
        raise Invalid(
            f"mount on {path!r}", "the target is not an absolute path", "give the path inside the container, from /"
        )
    parts = [p for p in path.split("/") if p not in ("", ".")]
    if ".." in parts:
        raise Invalid(f"mount on {path}", "the target has .. in it", "give the path without ..")
    if not parts:
        raise Invalid("mount on /", "the root is the image's", "mount on a directory below /")
    if parts == ["proc"] and mount.type != "proc" and not mount_options(mount.options).bind and mount.type != "bind":
        raise Invalid(f"mount {mount.type} on {path}", "only proc may be mounted there", "programs would believe it")
    if parts[0] == "proc" and len(parts) > 1 and "/".join(parts[1:]) not in _BELOW_PROC:
        raise Invalid(f"mount on {path}", "it is inside /proc", "nothing but emulated files may be mounted there")


def _bind(mount: Mount, number: int, userns: Ref) -> tuple[list[Act], list[Act]]:
    options = mount_options(mount.options)
    if options.data:
        raise Invalid(f"mount {mount.source} on {mount.destination}", f"a bind mount has no option {options.data[0]}")
    ref = Ref(f"tree.{number}")
    own = Ref(f"idmap.{number}") if mount.uid_mappings else userns
    # without ridmap what is mounted below keeps its owners
    alone = options.idmap and (bool(mount.uid_mappings) or (options.recursive and not options.recursive_idmap))
    mapped = (own,) if options.idmap and not alone else ()
    attach = AttachTree(
        ref,
        mount.destination,
        options.set,
        options.clear,
        options.recursive_set,
        options.propagation or MS_PRIVATE | MS_REC,
        source=mount.source,
    )
    why = f"{mount.source} of the host, {'read-only' if (options.set | options.recursive_set) & 1 else 'writable'}."
    opened = OpenTree(mount.source, ref, options.recursive, mapped, mount.below)
    opening = [Act("stage", opened, _BELONGS if mapped else "")]
    if mount.uid_mappings:
        opening.append(Act("stage", MakeUserNamespace(own, mount.uid_mappings, mount.gid_mappings), _MAPPED))
    if alone:
        opening.append(Act("stage", ChangeTree(ref, recursive=options.recursive_idmap, idmap=(own,)), _BELONGS))
    if options.recursive_clear:
        opening.append(Act("stage", ChangeTree(ref, clear=options.recursive_clear, recursive=True)))
    if mount.pid:
        there, back = Ref(f"mnt.{mount.pid}"), Ref("mnt.host")
        opening = [
            Act("stage", SetNamespace(there, "mount"), "The source is in the other container's mount namespace."),
            *opening,
            Act("stage", SetNamespace(back, "mount"), "And back."),
        ]
    return opening, [Act("init", attach, why)]


def others(bundle: Bundle) -> list[Act]:
    """The host's steps that open the mount namespaces of containers whose files are shared."""
    acts: list[Act] = []
    for pid, start in dict.fromkeys((m.pid, m.start_time) for m in bundle.spec.mounts if m.pid):
        if not acts:
            acts.append(Act("host", OpenNamespace("/proc/self/ns/mnt", Ref("mnt.host"))))
        acts.append(Act("host", OpenNamespace(f"/proc/{pid}/ns/mnt", Ref(f"mnt.{pid}"), pid, start)))
    return acts


@remembered
def _cgroups(mount: Mount, host: Host, path: str) -> tuple[tuple[Act, ...], tuple[Act, ...]]:
    """/sys/fs/cgroup: v2 is one file system; v1 is a tmpfs with one directory a hierarchy. Seen through the cgroup
    namespace. Without one (`path` is the container's group) v1 has the container's own groups bound there, and v2 has
    what the host has, in which /proc/self/cgroup says where: so it is with runc and crun, and programs look there.

    What the stage opens (for a `path`), what init attaches.
    """
    options = mount_options(mount.options)
    attributes = options.set
    target = mount.destination.rstrip("/")
    if host.cgroups.version == 2:
        if path:
            return _bound_group(host.cgroups.hierarchies[0].path, target, attributes)
        return (), (Act("init", MountFilesystem("cgroup2", target, attributes), WHY["cgroup2"]),)
    opening: tuple[Act, ...] = ()
    acts = [
        Act(
            "init",
            MountFilesystem("tmpfs", target, attributes & ~1, ("mode=755", "size=1m")),
            "A place for the hierarchies.",
        )
    ]
    for hierarchy in host.cgroups.hierarchies:
        name = hierarchy.path.rsplit("/", 1)[1]
        if path:
            opened, bound = _bound_group(hierarchy.path + path, f"{target}/{name}", attributes)
            opening = (*opening, *opened)
            acts += bound
        else:
            named = ("none",) if "=" in hierarchy.controllers[0] else ()  # a hierarchy without a controller
            step = MountFilesystem("cgroup", f"{target}/{name}", attributes, (*named, *hierarchy.controllers))
            acts.append(Act("init", step, WHY["cgroup"]))
        acts += [
            Act("init", MakeLink(name, f"{target}/{c}"), "Each controller can be found by its own name.")
            for c in hierarchy.controllers
            if c != name and "=" not in c
        ]
    if attributes & ATTR_RDONLY:
        acts.append(
            Act("init", MakeReadonly(target, whole=True), "The hierarchies are in place; nothing is to be added.")
        )
    return opening, tuple(acts)


def _again(mount: Mount) -> Act:
    """A mount that is there already, with other attributes."""
    options = mount_options(mount.options)
    if options.data:
        raise Unsupported(f"mount again on {mount.destination}", f"{options.data[0]} cannot be changed any more")
    return Act("init", ChangeMount(mount.destination, options.set, options.clear, options.propagation))


def _bound_group(group: str, target: str, attributes: int) -> tuple[tuple[Act, ...], tuple[Act, ...]]:
    tree = Ref("group." + target)
    attach = AttachTree(tree, target, attributes, propagation=MS_PRIVATE | MS_REC, source=group)
    return (Act("stage", OpenTree(group, tree)),), (Act("init", attach, WHY["cgroup"]),)


@remembered
def _filesystem(mount: Mount) -> tuple[Act, ...]:
    options = mount_options(mount.options)
    target, attributes = mount.destination, options.set | options.recursive_set
    why = WHY.get(mount.type, "")
    if options.copy_up and mount.type != "tmpfs":
        raise Invalid(f"mount {mount.type} on {target}", "only a tmpfs can begin with what it covers (tmpcopyup)")
    if options.idmap:
        raise Unsupported(f"mount {mount.type} on {target}", "only a bind mount can have mapped ids")
    strict = mount.type in ("proc", "sysfs")
    last: tuple[Act, ...] = ()
    if options.propagation:
        last = (Act("init", ChangeMount(target, propagation=options.propagation)),)
    if not options.copy_up:
        step = MountFilesystem(mount.type, target, attributes, options.data, mount.source, strict)
        return (Act("init", step, why), *last)
    covered = Ref("covered." + target)
    writable = MountFilesystem(mount.type, target, attributes & ~ATTR_RDONLY, options.data, mount.source)
    copying = (
        Act("init", OpenInside(target, covered)),
        Act("init", writable, why),
        Act("init", CopyUp(covered, target)),
    )
    if attributes & ATTR_RDONLY:
        last = (Act("init", ChangeMount(target, ATTR_RDONLY)), *last)
    return (*copying, *last)


def mounts(bundle: Bundle, host: Host, userns: Ref) -> tuple[list[Act], list[Act], list[Act]]:
    """All mounts of the spec: what the stage opens, and what once there is a user namespace; what init attaches.

    Raises Invalid, Unsupported.
    """
    opening: list[Act] = []
    mapping: list[Act] = []
    attaching: list[Act] = []
    shared = not any(n.type == "cgroup" for n in bundle.spec.namespaces)
    for number, mount in enumerate(bundle.spec.mounts, 1):
        _check(mount)
        if mount_options(mount.options).remount:
            attaching.append(_again(mount))
        elif mount.type == "bind" or mount_options(mount.options).bind:
            first, second = _bind(mount, number, userns)
            if mount_options(mount.options).idmap and not mount.uid_mappings:
                mapping += first
            else:
                opening += first
            attaching += second
        elif mount.type in ("cgroup", "cgroup2"):
            groups, bound = _cgroups(mount, host, bundle.spec.cgroups_path if shared else "")
            opening += groups
            attaching += bound
        else:
            attaching += _filesystem(mount)
    return opening, mapping, attaching


@remembered
def _node(node: Device) -> Act:
    mode = _TYPES[node.type] | node.mode
    return Act("init", MakeNode(node.path, mode, node.major, node.minor, node.uid, node.gid))


@remembered
def _links() -> tuple[Act, ...]:
    return tuple(Act("init", MakeLink(target, path)) for target, path in LINKS)


def devices(nodes: tuple[Device, ...], userns: bool) -> tuple[list[Act], list[Act]]:
    """Device nodes and the links that programs expect in /dev. In a user namespace nodes cannot be made: the host's are
    bound."""
    opening: list[Act] = []
    making: list[Act] = []
    for node in nodes:
        if userns:
            ref = Ref("device." + node.path)
            opening.append(Act("stage", OpenTree(node.source or node.path, ref)))
            making.append(
                Act(
                    "init", AttachTree(ref, node.path), "In a user namespace no device can be made; this is the host's."
                )
            )
        else:
            making.append(_node(node))
    return opening, [*making, *_links()]
