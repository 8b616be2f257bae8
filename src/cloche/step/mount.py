"""mount(2) and its newer sisters as steps: from the copy of the host's mounts to a root of the container's own.

Targets are resolved by the kernel inside the new root (openat2(2), RESOLVE_IN_ROOT), whatever symbolic links an image
holds.
Sources are opened by the throw-away process while it sees the host (open_tree(2)), and attached by the new one
(move_mount(2)).
"""

from __future__ import annotations

from cloche.kernel.mounts import ATTR_RDONLY as ATTR_RDONLY
from cloche.kernel.mounts import MS_PRIVATE as MS_PRIVATE
from cloche.kernel.mounts import MS_REC as MS_REC
from cloche.kernel.mounts import MS_SLAVE as MS_SLAVE
from cloche.kernel.mounts import attribute_names, propagation_names
from cloche.kernel.mounts import mount_options as mount_options
from cloche.step.base import Flat, Ref, Step, quote, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar


def _option_words(attributes: int) -> list[str]:
    return [name.lower() for name in attribute_names(attributes).replace("MOUNT_ATTR_", "").split("|") if name != "0"]


class SetPropagation(Step):
    """mount(2) with only a propagation flag."""

    because = "Mounts made in here must not appear on the host."
    op: ClassVar[str] = "PROPAGATION"
    path: str
    flags: int

    def call(self) -> str:
        return f"mount(NULL, {quote(self.path)}, NULL, {propagation_names(self.flags)}, NULL)"

    def shell(self) -> str:
        words = propagation_names(self.flags).replace("MS_", "").lower().split("|")
        return f"mount --make-{'r' if 'rec' in words else ''}{words[0]} {word(self.path)}"

    def name(self) -> str:
        return f"set the propagation of {self.path}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (self.flags,), (self.path.encode(),)


class MountOverlay(Step):
    """mount(2) of an overlay. Not fsconfig(2): that takes at most 255 bytes of lowerdir before Linux 6.5."""

    because = "The image's layers, read-only and shared, under a writable layer of the container's own."
    op: ClassVar[str] = "OVERLAY"
    directory: str
    target: str
    data: str

    def call(self) -> str:
        return (
            f'chdir({quote(self.directory)}); mount("overlay", {quote(self.target)}, "overlay", 0, {quote(self.data)})'
        )

    def shell(self) -> str:
        return f"cd {word(self.directory)} && mount -t overlay overlay -o {word(self.data)} {word(self.target)}"

    def name(self) -> str:
        return f"mount overlay on {self.target}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), (self.directory.encode(), self.target.encode(), self.data.encode())


class OpenTree(Step):
    """open_tree(2), OPEN_TREE_CLONE: a private, detached copy of a mount, not yet anywhere."""

    because = (
        "The source is opened while the host's files are in sight; it becomes the container's when it is attached."
    )
    op: ClassVar[str] = "OPENTREE"
    source: str
    made: Ref
    recursive: bool = False
    idmap: tuple[Ref, ...] = ()  # the user namespace whose ids the tree's owners are shown as
    below: str = ""  # a path in the source, which containers write to: no link in it may lead out (openat2(2))

    def gives(self) -> tuple[Ref, ...]:
        return (self.made,)

    def needs(self) -> tuple[Ref, ...]:
        return self.idmap

    def call(self) -> str:
        source = f"AT_FDCWD, {quote(self.source)}"
        opened = ""
        if self.below:
            opened = f"openat2({quote(self.source)}, {quote(self.below)}, RESOLVE_BENEATH); "
            source = '..., ""'
        mapped = f"; mount_setattr({self.made.name}, IDMAP)" if self.idmap else ""
        return f"{opened}open_tree({source}, OPEN_TREE_CLONE{'|AT_RECURSIVE' if self.recursive else ''}){mapped}"

    def name(self) -> str:
        return f"open the mount source {self.source}{'/' if self.below else ''}{self.below}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        texts = (self.source, self.below) if self.below else (self.source,)
        mapped = slot(self.idmap[0]) if self.idmap else -1
        return (slot(self.made), self.recursive, mapped), tuple(text.encode() for text in texts)


class AttachTree(Step):
    """mount_setattr(2) and move_mount(2) of a detached tree onto a target inside the new root (or of the host,
    `host`)."""

    because = "A file or directory of the host, made visible inside."
    op: ClassVar[str] = "ATTACH"
    tree: Ref
    target: str
    set: int = 0
    clear: int = 0
    recursive_set: int = 0
    propagation: int = 0
    host: bool = False
    idmap: tuple[Ref, ...] = ()
    source: str = ""  # where the tree is from, for people

    def needs(self) -> tuple[Ref, ...]:
        return (self.tree, *self.idmap)

    def call(self) -> str:
        attributes = f"{attribute_names(self.set | self.recursive_set)}{'|IDMAP' if self.idmap else ''}"
        return f"mount_setattr({self.tree.name}, {attributes}); move_mount({self.tree.name}, {quote(self.target)})"

    def shell(self) -> str:
        options = ",".join(["bind", *_option_words(self.set | self.recursive_set)])
        return f"mount -o {options} ... {word(self.target)}"

    def name(self) -> str:
        return f"mount {self.source or self.tree.name} on {self.target}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        mapped = slot(self.idmap[0]) if self.idmap else -1
        numbers = (slot(self.tree), self.set, self.clear, self.recursive_set, self.propagation, self.host, mapped)
        return numbers, (self.target.encode(),)


class ChangeTree(Step):
    """mount_setattr(2) of a detached tree; recursive: of every mount in it."""

    because = "What the mount may be used for, and whose its files look like, before anybody sees it."
    op: ClassVar[str] = "CHANGETREE"
    tree: Ref
    set: int = 0
    clear: int = 0
    recursive: bool = False
    idmap: tuple[Ref, ...] = ()

    def needs(self) -> tuple[Ref, ...]:
        return (self.tree, *self.idmap)

    def call(self) -> str:
        changes = attribute_names(self.set) + ("|MOUNT_ATTR_IDMAP" if self.idmap else "")
        how = "AT_RECURSIVE" if self.recursive else "0"
        return f"mount_setattr({self.tree.name}, {how}, set {changes}, clear {attribute_names(self.clear)})"

    def shell(self) -> str:
        return "mount -o remount,bind,... (X-mount.idmap=...)"

    def name(self) -> str:
        return f"change the mount {self.tree.name}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        mapped = slot(self.idmap[0]) if self.idmap else -1
        return (slot(self.tree), self.set, self.clear, self.recursive, mapped), ()


class ChangeMount(Step):
    """mount_setattr(2) of what is mounted at a path inside the root."""

    because = "As asked, once it is in its place."
    op: ClassVar[str] = "CHANGEMOUNT"
    path: str
    set: int = 0
    clear: int = 0
    propagation: int = 0

    def call(self) -> str:
        changes = f"set {attribute_names(self.set)}, clear {attribute_names(self.clear)}"
        return f"mount_setattr({quote(self.path)}, {changes}, {propagation_names(self.propagation)})"

    def shell(self) -> str:
        words = propagation_names(self.propagation).replace("MS_", "").lower().split("|")
        propagated = f"--make-{'r' if 'rec' in words else ''}{words[0]}" if self.propagation else "-o remount,bind,..."
        return f"mount {propagated} .{word(self.path)}"

    def name(self) -> str:
        return f"change the mount on {self.path}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (self.set, self.clear, self.propagation), (self.path.encode(),)


class MountFilesystem(Step):
    """fsopen(2), fsconfig(2), fsmount(2), move_mount(2): a new instance of a file system, inside the root."""

    because = "A file system that the program expects."
    op: ClassVar[str] = "FSMOUNT"
    type: str
    target: str
    attributes: int = 0
    data: tuple[str, ...] = ()
    source: str = ""
    strict: bool = False  # the target must be a real directory, no symbolic link anywhere on its way

    def call(self) -> str:
        data = ",".join(self.data)
        config = f"fsconfig(fs, {quote(data)}); " if data else ""
        mount = f"fsmount(fs, {attribute_names(self.attributes)}); move_mount({quote(self.target)})"
        return f"fsopen({quote(self.type)}); {config}{mount}"

    def shell(self) -> str:
        options = ",".join([*_option_words(self.attributes), *self.data])
        chosen = f" -o {word(options)}" if options else ""
        return f"mount -t {self.type}{chosen} {word(self.source or self.type)} .{word(self.target)}"

    def name(self) -> str:
        return f"mount {self.type} on {self.target}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        texts = (self.type, self.target, self.source or self.type, *self.data)
        return (self.attributes, self.strict), tuple(t.encode() for t in texts)


class Mask(Step):
    """Cover a path: a file by /dev/null, a directory by an empty read-only tmpfs. A path that is not there needs no
    cover."""

    because = "It tells or changes something of the whole machine."
    op: ClassVar[str] = "MASK"
    path: str

    def call(self) -> str:
        return f'move_mount("/dev/null" or tmpfs, {quote(self.path)})'

    def shell(self) -> str:
        return f"mount --bind /dev/null {word(self.path)}"

    def name(self) -> str:
        return f"mask {self.path}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), (self.path.encode(),)


class MakeReadonly(Step):
    """open_tree(2), mount_setattr(2), move_mount(2): the same, read-only, over itself; of a mount (`whole`) only the
    attribute."""

    because = "Readable, but it configures the whole machine's kernel."
    op: ClassVar[str] = "READONLY"
    path: str
    attributes: int = ATTR_RDONLY
    whole: bool = False

    def call(self) -> str:
        copy = "" if self.whole else f"open_tree({quote(self.path)}, OPEN_TREE_CLONE); "
        return f"{copy}mount_setattr({quote(self.path)}, {attribute_names(self.attributes)})"

    def shell(self) -> str:
        path = word(self.path)
        again = f"mount -o remount,bind,ro {path}"
        return again if self.whole else f"mount --bind {path} {path} && {again}"

    def name(self) -> str:
        return f"make {self.path} read-only"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (self.attributes, self.whole), (self.path.encode(),)


class WriteSysctl(Step):
    """Write below /proc/sys, checked to be procfs."""

    because = "A kernel parameter of the container's own namespaces, as asked."
    op: ClassVar[str] = "SYSCTL"
    key: str
    value: str

    def _path(self) -> str:
        # sysctl(8): dots separate, unless a slash says that dots are part of names
        return "/proc/sys/" + (self.key if "/" in self.key else self.key.replace(".", "/"))

    def call(self) -> str:
        return f"write({quote(self._path())}, {quote(self.value)})"

    def shell(self) -> str:
        return f"sysctl -w {word(self.key)}={word(self.value)}"

    def name(self) -> str:
        return f"set the kernel parameter {self.key} to {self.value}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), (self._path().encode(), self.value.encode())
