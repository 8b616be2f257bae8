"""Handing over between actors: start bell, wait for a report, open a gate.

    host: StartBell ... Await("cloned") ... Await("ready") ... Open("go") ... Await("started")
    stage/init:         Report("cloned")    Report("ready")    Gate("go")     Execute (its success closes the status
    pipe)

Everything that init does before its gate is disposable: when its keeper dies, the gate reads end-of-file, init says
"aborted"
and exits, and the whole plan is executed again.
"""

from __future__ import annotations

from cloche.step.base import Flat, Ref, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar


class StartBell(Step):
    """Start bell, the small static program that does the container's side: a process of it, from a sealed copy in
    memory, gets the descriptors and forks itself."""

    because = "No interpreter may stand inside a container's root; bell does what the plan says and nothing else."
    descriptors: tuple[Ref, ...] = ()

    def needs(self) -> tuple[Ref, ...]:
        return self.descriptors

    def call(self) -> str:
        return "sendmsg(bell, SCM_RIGHTS); there clone3(CLONE_PARENT)"

    def name(self) -> str:
        return "start bell"


class Await(Step):
    """The host waits for a report of the container's side."""

    because = "What follows needs what the other side has made."
    token: str
    made: tuple[Ref, ...] = ()

    def gives(self) -> tuple[Ref, ...]:
        return self.made

    def call(self) -> str:
        return f'recvmsg(control) = "{self.token}"'

    def name(self) -> str:
        return f"wait until the container's side is {self.token}"


class Open(Step):
    """The host opens a gate: the container's side may go on."""

    because = "Everything outside is ready and recorded; from here on the container belongs to its user."
    token: str

    def call(self) -> str:
        return f'sendmsg(control, "{self.token}")'

    def name(self) -> str:
        return f"open the gate {self.token}"


class Report(Step):
    """The container's side says how far it is, and passes on a descriptor that the host needs."""

    because = "The host must know, and must own a handle, before anything irrevocable happens."
    op: ClassVar[str] = "REPORT"
    token: str
    descriptor: tuple[Ref, ...] = ()

    def needs(self) -> tuple[Ref, ...]:
        return self.descriptor

    def call(self) -> str:
        passed = f", SCM_RIGHTS [{self.descriptor[0].name}]" if self.descriptor else ""
        return f'sendmsg(control, "{self.token}"{passed})'

    def name(self) -> str:
        return f"report {self.token}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (slot(self.descriptor[0]) if self.descriptor else -1,), (self.token.encode(),)


class Gate(Step):
    """The container's side waits; end-of-file means that nobody is left to open the gate, and it ends."""

    because = "Nothing of the user's runs before the host has recorded what it needs to find this process again."
    op: ClassVar[str] = "GATE"
    token: str

    def call(self) -> str:
        return f'read(control) = "{self.token}"'

    def name(self) -> str:
        return f"wait at the gate {self.token}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), (self.token.encode(),)


class Meet(Step):
    """As Gate, for what the host has to do in between; end-of-file ends the container's side here, too."""

    because = "The host has something to do while the container is half made, and is not overtaken."
    op: ClassVar[str] = "MEET"
    token: str

    def call(self) -> str:
        return f'read(control) = "{self.token}"'

    def name(self) -> str:
        return f"wait until the host has {self.token}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), (self.token.encode(),)


class WaitForStart(Step):
    """The gate of a container that was created and not started: a fifo(7) in its state's directory.

    It is open for reading and writing, so that read(2) waits, and whoever can open it for writing without waiting knows
    that somebody stands here. What comes after is reported through the status fifo.
    """

    because = "A created container executes nothing of the user's before it is started, however long that takes."
    op: ClassVar[str] = "START"
    fifo: Ref

    def needs(self) -> tuple[Ref, ...]:
        return (self.fifo,)

    def call(self) -> str:
        return f"read({self.fifo.name})"

    def name(self) -> str:
        return "wait for the start"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (slot(self.fifo),), ()
