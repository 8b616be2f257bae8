"""What is made inside the new root: device nodes, links, directories, copies. Paths are resolved in it (openat2(2))."""

from __future__ import annotations

from cloche.step.base import Flat, Ref, Step, quote, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar


class MakeNode(Step):
    """mknod(2) inside the root, with the mode as given whatever the umask."""

    because = "A device that every program may expect."
    op: ClassVar[str] = "MKNOD"
    path: str
    mode: int
    major: int = 0
    minor: int = 0
    uid: int = 0
    gid: int = 0

    def call(self) -> str:
        return f"mknodat(root, {quote(self.path)}, {self.mode:#o}, makedev({self.major}, {self.minor}))"

    def shell(self) -> str:
        kind = {0o020000: "c", 0o060000: "b"}.get(self.mode & 0o170000, "p")
        numbers = "" if kind == "p" else f" {self.major} {self.minor}"
        return f"mknod -m {self.mode & 0o7777:o} .{word(self.path)} {kind}{numbers}"

    def name(self) -> str:
        return f"make device {self.path}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (self.mode, self.major, self.minor, self.uid, self.gid), (self.path.encode(),)


class MakeLink(Step):
    """symlink(2) inside the root; one that is there already is left as it is."""

    because = "A link that programs expect."
    op: ClassVar[str] = "SYMLINK"
    target: str
    path: str

    def call(self) -> str:
        return f"symlinkat({quote(self.target)}, root, {quote(self.path)})"

    def shell(self) -> str:
        return f"ln -s {word(self.target)} .{word(self.path)}"

    def name(self) -> str:
        return f"make link {self.path}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), (self.target.encode(), self.path.encode())


class MakeFolder(Step):
    """mkdir(2) inside the root, with missing parents; one that is there is left as it is."""

    because = "The directory that the program shall start in."
    op: ClassVar[str] = "MKDIR"
    path: str

    def call(self) -> str:
        return f"mkdirat(root, {quote(self.path)}, 0755)"

    def shell(self) -> str:
        return f"mkdir -p .{word(self.path)}"

    def name(self) -> str:
        return f"make directory {self.path}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), (self.path.encode(),)


class OpenInside(Step):
    """openat2(2) of a directory inside the root, made when it is missing."""

    because = "What is there now will be covered by a mount, and is needed then."
    op: ClassVar[str] = "OPENINSIDE"
    path: str
    made: Ref

    def gives(self) -> tuple[Ref, ...]:
        return (self.made,)

    def call(self) -> str:
        return f"openat2(root, {quote(self.path)}, O_RDONLY|O_DIRECTORY, RESOLVE_IN_ROOT)"

    def name(self) -> str:
        return f"open {self.path}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (slot(self.made),), (self.path.encode(),)


class CopyUp(Step):
    """Copy a tree of files into what is mounted at a path inside the root: modes, owners, links, nodes."""

    because = "The new file system begins with what it covers (tmpcopyup)."
    op: ClassVar[str] = "COPYUP"
    source: Ref
    path: str

    def needs(self) -> tuple[Ref, ...]:
        return (self.source,)

    def call(self) -> str:
        return f"(copy {self.source.name} to {quote(self.path)})"

    def shell(self) -> str:
        return f"cp -a ... .{word(self.path)}"

    def name(self) -> str:
        return f"copy what was in {self.path}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (slot(self.source),), (self.path.encode(),)
