"""mount(2), umount2(2), pivot_root(2) and the newer mount calls' constants; the options of mount(8) as flags."""

from __future__ import annotations

from cloche.value import Value

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC = 32, 4096, 16384
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
MNT_DETACH = 2

# mount_setattr(2), fsmount(2)
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC = 1, 2, 4, 8
ATTR__ATIME, ATTR_RELATIME, ATTR_NOATIME, ATTR_STRICTATIME, ATTR_NODIRATIME = 0x70, 0, 0x10, 0x20, 0x80
ATTR_IDMAP, ATTR_NOSYMFOLLOW = 0x100000, 0x200000
AT_RECURSIVE = 0x8000

_ATTRIBUTES = {  # option: (set, clear)
    "ro": (ATTR_RDONLY, 0),
    "rw": (0, ATTR_RDONLY),
    "nosuid": (ATTR_NOSUID, 0),
    "suid": (0, ATTR_NOSUID),
    "nodev": (ATTR_NODEV, 0),
    "dev": (0, ATTR_NODEV),
    "noexec": (ATTR_NOEXEC, 0),
    "exec": (0, ATTR_NOEXEC),
    "relatime": (ATTR_RELATIME, ATTR__ATIME),
    "noatime": (ATTR_NOATIME, ATTR__ATIME),
    "strictatime": (ATTR_STRICTATIME, ATTR__ATIME),
    "nodiratime": (ATTR_NODIRATIME, 0),
    "diratime": (0, ATTR_NODIRATIME),
    "nosymfollow": (ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, ATTR_NOSYMFOLLOW),
    "atime": (ATTR_RELATIME, ATTR__ATIME),
    "norelatime": (0, 0),  # the kernel's default all the same: relatime, unless one of the others is asked for
    "nostrictatime": (0, 0),
}
# of mount(2), and without an effect on any file system: not to be taken for the file system's own
_WITHOUT_EFFECT = ("defaults", "silent", "loud", "iversion", "noiversion")
# of the super block, by name: fsconfig(2) takes them for every file system
_SUPER = ("async", "sync", "dirsync", "lazytime", "nolazytime", "mand", "nomand")
_PROPAGATIONS = {"private": MS_PRIVATE, "slave": MS_SLAVE, "shared": MS_SHARED, "unbindable": MS_UNBINDABLE}
_PROPAGATIONS |= {"r" + name: flag | MS_REC for name, flag in list(_PROPAGATIONS.items())}

# every option that is not the file system's own
OPTION_NAMES = (
    *_ATTRIBUTES,
    *(f"r{name}" for name in _ATTRIBUTES if name != "relatime"),
    *_PROPAGATIONS,
    *_SUPER,
    *_WITHOUT_EFFECT,
    *("bind", "rbind", "remount", "idmap", "ridmap", "tmpcopyup"),
)

ATTRIBUTE_NAMES = {
    ATTR_RDONLY: "RDONLY",
    ATTR_NOSUID: "NOSUID",
    ATTR_NODEV: "NODEV",
    ATTR_NOEXEC: "NOEXEC",
    ATTR_NOATIME: "NOATIME",
    ATTR_STRICTATIME: "STRICTATIME",
    ATTR_NODIRATIME: "NODIRATIME",
    ATTR_NOSYMFOLLOW: "NOSYMFOLLOW",
}


class MountOptions(Value):
    """The options of one mount, sorted by who reads them: attributes of the mount, propagation, the file system's
    own."""

    set: int = 0
    clear: int = 0
    recursive_set: int = 0
    bind: bool = False
    recursive: bool = False
    propagation: int = 0
    data: tuple[str, ...] = ()
    idmap: bool = False
    recursive_clear: int = 0
    recursive_idmap: bool = False
    copy_up: bool = False
    remount: bool = False


def mount_options(names: tuple[str, ...]) -> MountOptions:
    """Sort the option strings of mount(8) and of the runtime spec. What is no known flag is the file system's own."""
    on = off = every = none = propagation = 0
    bind = recursive = copied = again = False
    mapped = ""
    data = []
    for name in names:
        if name in _ATTRIBUTES:
            add, remove = _ATTRIBUTES[name]
            on, off = (on & ~remove) | add, (off & ~add) | remove
        elif name[:1] == "r" and name[1:] in _ATTRIBUTES and name != "relatime":
            add, remove = _ATTRIBUTES[name[1:]]
            every, none = (every & ~remove) | add, (none & ~add) | remove
        elif name in _PROPAGATIONS:
            propagation = _PROPAGATIONS[name]
        elif name in ("bind", "rbind"):
            bind, recursive = True, name == "rbind"
        elif name in ("idmap", "ridmap"):
            mapped = name
        elif name == "tmpcopyup":
            copied = True
        elif name == "remount":
            again = True
        elif name and name not in _WITHOUT_EFFECT:
            data.append(name)
    return MountOptions(
        on,
        off,
        every,
        bind,
        recursive,
        propagation,
        tuple(data),
        bool(mapped),
        none,
        mapped == "ridmap",
        copied,
        again,
    )


def attribute_names(attributes: int) -> str:
    """`MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOSUID`, or `0`."""
    return "|".join("MOUNT_ATTR_" + name for bit, name in ATTRIBUTE_NAMES.items() if attributes & bit) or "0"


def propagation_names(flags: int) -> str:
    """`MS_PRIVATE|MS_REC`, or `0`."""
    known = {
        MS_PRIVATE: "MS_PRIVATE",
        MS_SLAVE: "MS_SLAVE",
        MS_SHARED: "MS_SHARED",
        MS_UNBINDABLE: "MS_UNBINDABLE",
        MS_REC: "MS_REC",
    }
    return "|".join(name for bit, name in known.items() if flags & bit) or "0"


def mount(source: str | None, target: str, fstype: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """mount(2). Raises OSError."""
    from cloche.kernel.libc import check, mount_

    encoded = [None if text is None else text.encode() for text in (source, target, fstype, data)]
    check(mount_(encoded[0], encoded[1], encoded[2], flags, encoded[3]), f"mount {fstype or source} on {target}")


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2). Raises OSError."""
    from cloche.kernel.libc import check, umount2_

    check(umount2_(target.encode(), flags), f"umount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2). Raises OSError."""
    from cloche.kernel.libc import number, syscall

    syscall(number("pivot_root"), new_root.encode(), put_old.encode(), what=f"pivot_root {new_root}")
