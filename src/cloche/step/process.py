"""What a process is besides its namespaces: session, terminal, user, capabilities, limits, filter, program."""

from __future__ import annotations

from cloche.kernel.capabilities import mask as mask
from cloche.kernel.capabilities import names
from cloche.step.base import Flat, Ref, Step, quote, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar

RLIMITS = ("CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME").split()


def _words(bits: int, every: int = (1 << 41) - 1) -> str:
    return "all" if bits & every == every else ",".join(n[4:].lower() for n in names(bits)) or "none"


class NewSession(Step):
    """setsid(2)."""

    because = "A session of its own: no controlling terminal of the host can be reached."
    op: ClassVar[str] = "SETSID"

    def call(self) -> str:
        return "setsid()"

    def shell(self) -> str:
        return "setsid ..."

    def name(self) -> str:
        return "start a new session"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), ()


class NewKeyring(Step):
    """keyctl(2), KEYCTL_JOIN_SESSION_KEYRING; kernels without keyrings are left alone.

    It has no name: by a name one would join what somebody else has made under it, and the kernel looks through the
    names of all.
    """

    because = "The keys of the one who started it are not the container's."
    op: ClassVar[str] = "KEYRING"

    def call(self) -> str:
        return "keyctl(KEYCTL_JOIN_SESSION_KEYRING, NULL)"

    def shell(self) -> str:
        return "keyctl new_session"

    def name(self) -> str:
        return "join a new session keyring"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), ()


class WriteSelf(Step):
    """Write to a file below /proc/self before the clone; the child inherits it."""

    because = "Whom the kernel prefers to kill when memory runs out."
    op: ClassVar[str] = "PUT"
    path: str
    content: str

    def call(self) -> str:
        return f"write({quote(self.path)}, {quote(self.content)})"

    def shell(self) -> str:
        return f"echo {word(self.content)} > {word(self.path)}"

    def name(self) -> str:
        return f"write {self.content} to {self.path}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), (self.path.encode(), self.content.encode())


class OpenTerminal(Step):
    """pty(7): open the container's own /dev/pts/ptmx, take the other end (TIOCGPTPEER) as stdin, stdout, stderr."""

    because = "A terminal that lives inside the container; the engine holds its other end."
    op: ClassVar[str] = "TERMINAL"
    made: Ref
    rows: int = 0
    columns: int = 0
    console: bool = True  # also show it as /dev/console

    def gives(self) -> tuple[Ref, ...]:
        return (self.made,)

    def call(self) -> str:
        size = f"{self.rows}x{self.columns}"
        return f'open("/dev/pts/ptmx"); ioctl(TIOCGPTPEER); ioctl(TIOCSWINSZ, {size}); ioctl(TIOCSCTTY)'

    def name(self) -> str:
        return "open the terminal"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (slot(self.made), self.rows, self.columns, self.console), ()


class CloseOthers(Step):
    """close_range(2) of every descriptor but the container's own, the reports' and `keep`.

    CVE-2024-21626: a directory of the host that is open while the container's paths are followed is a way out,
    /proc/self/fd/N/../.., for a link in the image, a working directory or a command.
    """

    because = "No path through /proc/self/fd may lead to what was opened with the host's rights."
    op: ClassVar[str] = "CLOSE"
    keep: tuple[Ref, ...] = ()

    def needs(self) -> tuple[Ref, ...]:
        return self.keep

    def call(self) -> str:
        return f"close_range(5, ~0U){f' except {self.keep[0].name}' if self.keep else ''}"

    def name(self) -> str:
        return "close the host's descriptors"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (slot(self.keep[0]) if self.keep else -1,), ()


class HoldDescriptors(Step):
    """Names the descriptors that closing the others leaves open."""

    because = "They are meant for the program."
    op: ClassVar[str] = "HOLD"
    held: tuple[Ref, ...]

    def needs(self) -> tuple[Ref, ...]:
        return self.held

    def call(self) -> str:
        return f"(descriptors {', '.join(ref.name for ref in self.held)} stay)"

    def name(self) -> str:
        return "hold descriptors"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), (bytes(slot(ref) for ref in self.held),)


class HandOn(Step):
    """dup2(2): the descriptors become the program's 3, 4, ...; they are passed in this order when bell is started."""

    because = "Descriptors of the caller's that the program shall have, as sd_listen_fds(3) finds them."
    op: ClassVar[str] = "HANDON"
    passed: tuple[Ref, ...]

    def needs(self) -> tuple[Ref, ...]:
        return self.passed

    def call(self) -> str:
        return f"dup2 of {len(self.passed)} descriptors to 3 and on"

    def name(self) -> str:
        return "hand on descriptors"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (slot(self.passed[0]), len(self.passed)), ()


class LookUpUser(Step):
    """passwd(5), group(5) of the container's root: names to numbers, as Docker reads USER[:GROUP]."""

    because = "Names of users mean what the container's own files say."
    op: ClassVar[str] = "LOOKUP"
    user: str
    groups: tuple[str, ...] = ()
    uid: int = 0
    gid: int = 0
    gids: tuple[int, ...] = ()

    def gives(self) -> tuple[Ref, ...]:
        return (Ref("user", "ids"),)

    def call(self) -> str:
        return f'read("/etc/passwd"); read("/etc/group") for {quote(self.user or f"{self.uid}:{self.gid}")}'

    def name(self) -> str:
        return f"look up the user {self.user or self.uid}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        texts = [self.user, *self.groups, *(str(g) for g in self.gids)]
        return (self.uid, self.gid), tuple(t.encode() for t in texts)


class SetUser(Step):
    """setgroups(2), setresgid(2), setresuid(2); permitted capabilities are kept for the step that sets them."""

    because = "The program runs as the user that was asked for."
    op: ClassVar[str] = "USER"
    umask: int

    def needs(self) -> tuple[Ref, ...]:
        return (Ref("user", "ids"),)

    def call(self) -> str:
        return f"setgroups(user.gids); setresgid(user.gid); setresuid(user.uid); umask({self.umask:#o})"

    def shell(self) -> str:
        return "setpriv --reuid ... --regid ... --groups ... --"

    def name(self) -> str:
        return "become the user"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (self.umask,), ()


class DropBounding(Step):
    """prctl(2), PR_CAPBSET_DROP for every capability that is not in the mask."""

    because = "What is not in the bounding set can never be had again, not by a setuid program either."
    op: ClassVar[str] = "BOUNDING"
    keep: int

    def call(self) -> str:
        return f"prctl(PR_CAPBSET_DROP) except {_words(self.keep)}"

    def shell(self) -> str:
        return f"setpriv --bounding-set -all,+{_words(self.keep).replace(',', ',+')} --"

    def name(self) -> str:
        return "drop capabilities from the bounding set"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (self.keep,), ()


class SetCapabilities(Step):
    """capset(2), and the ambient set by prctl(2). A user who is not root keeps only the ambient ones at exec."""

    because = "Root's power is forty capabilities; the program gets the few that it needs."
    op: ClassVar[str] = "CAPS"
    effective: int
    permitted: int
    inheritable: int
    ambient: int

    def call(self) -> str:
        sets = {"effective": self.effective, "permitted": self.permitted, "inheritable": self.inheritable}
        return f"capset({', '.join(f'{name}={_words(bits)}' for name, bits in sets.items())})"

    def shell(self) -> str:
        return f"capsh --caps=cap_{_words(self.permitted).replace(',', ',cap_')}+ep --"

    def name(self) -> str:
        return "set the capabilities"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (self.effective, self.permitted, self.inheritable, self.ambient), ()


class ForbidNewPrivileges(Step):
    """prctl(2), PR_SET_NO_NEW_PRIVS."""

    because = "No setuid program and no file capability can give more than there is now."
    op: ClassVar[str] = "NNP"

    def call(self) -> str:
        return "prctl(PR_SET_NO_NEW_PRIVS, 1)"

    def shell(self) -> str:
        return "setpriv --no-new-privs --"

    def name(self) -> str:
        return "forbid new privileges"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), ()


class LoadFilter(Step):
    """seccomp(2), SECCOMP_SET_MODE_FILTER."""

    because = "System calls that containers have no use for are refused by the kernel before they do anything."
    op: ClassVar[str] = "SECCOMP"
    filter: bytes
    flags: int = 0

    def call(self) -> str:
        return f"seccomp(SECCOMP_SET_MODE_FILTER, {self.flags:#x}, {len(self.filter) // 8} instructions)"

    def name(self) -> str:
        return "load the seccomp filter"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (self.flags,), (self.filter,)


class SetLimit(Step):
    """setrlimit(2)."""

    because = "A limit of the process, inherited by its children."
    op: ClassVar[str] = "RLIMIT"
    resource: str  # as RLIMITS, without RLIMIT_
    soft: int
    hard: int
    lower: bool = False

    def call(self) -> str:
        return f"setrlimit(RLIMIT_{self.resource}, {{{self.soft}, {self.hard}}})"

    def shell(self) -> str:
        return f"prlimit --pid $$ --{self.resource.lower()}={self.soft}:{self.hard}"

    def name(self) -> str:
        return f"set the limit {self.resource.lower()} to {self.soft}:{self.hard}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (RLIMITS.index(self.resource), self.soft, self.hard, self.lower), ()


class ChangeDirectory(Step):
    """chdir(2). First as root, who may enter what the user may not; what fails so is tried again as the user."""

    because = "The program starts in its working directory."
    op: ClassVar[str] = "CHDIR"
    path: str
    again: bool = False

    def call(self) -> str:
        return f"chdir({quote(self.path)})"

    def shell(self) -> str:
        return f"cd {word(self.path)}"

    def name(self) -> str:
        return f"change to the working directory {self.path}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (self.again,), (self.path.encode(),)


class FindProgram(Step):
    """faccessat2(2) along PATH: whether execve(2) will find the program, and its user may execute it."""

    because = "Who creates a container is told that its program is missing; its start may be much later."
    op: ClassVar[str] = "FIND"
    program: str
    path: str

    def call(self) -> str:
        return f"faccessat2({quote(self.program)}, X_OK, AT_EACCESS)"

    def shell(self) -> str:
        return f"command -v {word(self.program)}"

    def name(self) -> str:
        return f'execute "{self.program}"'

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        return (), tuple(t.encode("utf-8", "surrogateescape") for t in (self.program, self.path))


class Execute(Step):
    """execve(2), found along PATH; with `reaper`, as the child of a process that stays and reaps orphans."""

    because = "bell is replaced by the user's program: from now on only the kernel's walls are around it."
    op: ClassVar[str] = "EXEC"
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    reaper: bool = False

    def call(self) -> str:
        return f"execve({quote(self.args[0])}, [{', '.join(quote(a) for a in self.args)}], {len(self.env)} variables)"

    def shell(self) -> str:
        return "exec " + " ".join(word(a) for a in self.args)

    def name(self) -> str:
        return f'execute "{self.args[0]}"'

    def needs(self) -> tuple[Ref, ...]:
        return (Ref("user", "ids"),)

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        texts = tuple(t.encode("utf-8", "surrogateescape") for t in (*self.args, *self.env))
        return (len(self.args), self.reaper, not any(e[:5] == "HOME=" for e in self.env)), texts
