"""Step, Act, Plan, Ref: the values that a container is made of.

A `Step` asks ONE thing of the kernel. An `Act` is a step in its place: who does it and why. A `Plan` is acts in an
order that is
right for everybody: each actor does its own in that order, and `Await`/`Gate` steps (step.sync) hand over between them.

Steps whose class has an `op` run on the container's side, in bell; the others are executed here, in Python, by
`execute`.
Not its business: which steps a container needs (that is plan()), who runs them when (that is the runtime).
"""

from __future__ import annotations

from cloche.value import Value, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, Protocol

    class World(Protocol):
        """What executing steps may know: values made by earlier steps, by the name of their Ref."""

        def give(self, ref: Ref, value: int) -> None: ...
        def take(self, ref: Ref) -> int: ...


class Ref(Value):
    """The name of something that one step makes and another needs: a descriptor (`kind` fd), a pid, a user's ids."""

    name: str
    kind: str = "fd"


Flat = tuple[tuple[int, ...], tuple[bytes, ...]]


class Step(Value):
    """The base of every kind. `because` is the one sentence why such a step is there at all."""

    because: ClassVar[str] = ""
    op: ClassVar[str] = ""
    later: ClassVar[bool] = False  # what it made ends by itself soon after the container; undo() is for when it did not

    def needs(self) -> tuple[Ref, ...]:
        """The refs that must have been given before."""
        return ()

    def gives(self) -> tuple[Ref, ...]:
        """The refs that this step makes."""
        return ()

    def call(self) -> str:
        """The system call with its decoded arguments."""
        raise NotImplementedError

    def shell(self) -> str:
        """A shell command that does the same; empty where there is none."""
        return ""

    def name(self) -> str:
        """Verb and object, as an error message begins: `mount proc on /proc`."""
        return self.call()

    def execute(self, world: World) -> None:
        """Do it, on the host's side. Raises OSError."""
        raise NotImplementedError(f"{type(self).__name__} is bell's")

    def undo(self) -> None:
        """Take it back; harmless when done twice or when it was never done. Raises OSError."""

    def take_down(self) -> None:
        """Take back what is shared by many plans, when nobody shall have it any more. Raises OSError."""

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        """Integers and byte strings for bell, in the order that its table says."""
        raise NotImplementedError(f"{type(self).__name__} is executed by the host")


class Act(Value):
    """One step in its place: `actor` is host, stage, init or joiner."""

    actor: str
    step: Step
    why: str = ""

    def reason(self) -> str:
        """Why it is there, one sentence."""
        return self.why or self.step.because


class Plan(Value):
    """Every step of making one container (or of executing in one), in order."""

    acts: tuple[Act, ...]

    def undo(self) -> list[OSError]:
        """Take back what the host's steps made, last first; everything is tried. Returns what went wrong."""
        problems = []
        for act in reversed(self.acts):
            if act.actor == "host":
                try:
                    act.step.undo()
                except OSError as problem:
                    problems.append(problem)
        return problems

    def data(self) -> list[dict[str, Any]]:
        """The plan as JSON can write it, one object a step."""
        return [
            {
                "step": number,
                "actor": act.actor,
                "kind": type(act.step).__name__,
                "why": act.reason(),
                "call": act.step.call(),
                "fields": plain(act.step),
            }
            for number, act in enumerate(self.acts, 1)
        ]


def quote(value: str | bytes) -> str:
    """A string argument as strace would show it, short and on one line."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    shown = text if len(text) <= 72 else f"{text[:44]}...{text[-25:]}"  # the end of a path says most
    return (
        '"' + "".join(c if c.isprintable() and c != '"' else c.encode("unicode_escape").decode() for c in shown) + '"'
    )


def word(value: str) -> str:
    """A string as one word of a POSIX shell."""
    if value and all(c.isascii() and (c.isalnum() or c in "/._-+=:,@%") for c in value):
        return value
    return "'" + value.replace("'", "'\\''") + "'"
