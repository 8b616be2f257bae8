"""From the host's root to the container's: into it while it is filled, and then there is no other."""

from __future__ import annotations

from cloche.step.base import Flat, Ref, Step, quote, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar


class EnterRoot(Step):
    """chdir(2) to what becomes the root; every later target is resolved inside it."""

    because = "All that follows is done relative to the container's root, and cannot lead out of it."
    op: ClassVar[str] = "ROOT"
    path: str

    def call(self) -> str:
        return f'chdir({quote(self.path)}); open(".", O_PATH|O_DIRECTORY)'

    def shell(self) -> str:
        return f"cd {word(self.path)}"

    def name(self) -> str:
        return f"enter the root {self.path}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), (self.path.encode(),)


class OntoCopy(Step):
    """open_tree(2) of where we stand, move_mount(2) over itself, fchdir(2) onto the copy."""

    because = "A mount that came from outside a user namespace is locked; a copy of it may become the root."
    op: ClassVar[str] = "ONTOCOPY"

    def call(self) -> str:
        return 'open_tree(".", OPEN_TREE_CLONE|AT_RECURSIVE); move_mount("."); fchdir'

    def shell(self) -> str:
        return 'mount --rbind . . && cd "$PWD"'

    def name(self) -> str:
        return "step onto a copy of the root"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), ()


class PivotRoot(Step):
    """pivot_root(2) of "." onto itself, and the old root is unmounted from under it."""

    because = (
        "The container's root becomes the root; the host's files are out of reach: no path leads to them any more."
    )
    op: ClassVar[str] = "PIVOT"

    def call(self) -> str:
        return 'pivot_root(".", "."); umount2(".", MNT_DETACH); chdir("/")'

    def shell(self) -> str:
        return "pivot_root . . && umount -l ."

    def name(self) -> str:
        return "pivot_root into the container's root"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), ()


class MoveRoot(Step):
    """mount(2) with MS_MOVE of "." onto the root, and chroot(2) into it: for where pivot_root(2) cannot be had."""

    because = "On an initial RAM file system pivot_root is refused; whoever asked for this knows that it is weaker."
    op: ClassVar[str] = "MOVEROOT"

    def call(self) -> str:
        return 'mount(".", "/", NULL, MS_MOVE); chroot("."); chdir("/")'

    def shell(self) -> str:
        return "mount --move . / && chroot ."

    def name(self) -> str:
        return "move the container's root over the root"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), ()


class ChangeRoot(Step):
    """chroot(2) into where we stand."""

    because = "In a mount namespace that others have, only this process's idea of the root can be changed."
    op: ClassVar[str] = "CHROOT"

    def call(self) -> str:
        return 'chroot("."); chdir("/")'

    def shell(self) -> str:
        return "chroot ."

    def name(self) -> str:
        return "change the root"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), ()
