"""Hooks of the runtime spec (config.md, POSIX-platform Hooks) as steps: programs that are executed in between.

Each gets the container's state on stdin, and an environment of its own, nothing inherited. Those of the runtime's side
run on the host; the others are executed by bell in the container's namespaces, before or after the root has changed.
"""

from __future__ import annotations

import os
from errno import ECANCELED

from cloche.oci.runtime import Hook
from cloche.step.base import Flat, Ref, Step, quote, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar

    from cloche.step.base import World

_WAIT_MOST = (1 << 31) - 1  # milliseconds, poll(2)
_SAID_MAX = 512  # bytes of what a hook that failed has printed, in the error


class HookFailed(OSError):
    """A hook that did not succeed; `sentence` says how it ended and what it said."""

    def __init__(self, sentence: str) -> None:
        super().__init__(ECANCELED, sentence)
        self.sentence = sentence


def _program(hook: Hook) -> tuple[str, ...]:
    return hook.args or (hook.path,)


def run(hook: Hook, state: bytes) -> None:
    """Execute one hook on the host, with `state` on its stdin. Raises HookFailed, OSError."""
    given, said = os.memfd_create("state", os.MFD_CLOEXEC), os.memfd_create("output", os.MFD_CLOEXEC)
    try:
        os.write(given, state)
        os.lseek(given, 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, given, 0), (os.POSIX_SPAWN_DUP2, said, 1), (os.POSIX_SPAWN_DUP2, said, 2)]
        environment = dict(v.split("=", 1) for v in hook.env if "=" in v)
        pid = os.posix_spawn(
            hook.path, _program(hook), environment, file_actions=actions, setsigmask=[], setsigdef=range(1, 32)
        )
        ended = _end(pid, hook.timeout)
        if ended:
            words = os.pread(said, _SAID_MAX, 0).decode("utf-8", "backslashreplace").strip()
            raise HookFailed(f"{ended}: {words}" if words else ended)
    finally:
        os.close(given)
        os.close(said)


def _end(pid: int, timeout: int | None) -> str:
    """Wait for it; how it failed, or "". One that takes too long is killed."""
    import select

    handle = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        late = not poll.poll(None if timeout is None else min(timeout * 1000, _WAIT_MOST))
        if late:
            os.kill(pid, 9)  # our own child, not yet waited for
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(handle)
    if late:
        return f"it took longer than {timeout} s"
    return "" if status == 0 else f"exit status {status}" if status > 0 else f"killed by signal {-status}"


class RunHook(Step):
    """posix_spawn(3) on the host; `before` and `after` are the state's JSON around the container's pid."""

    because = "What the caller wants to be done at this moment of the container's life."
    hook: Hook
    moment: str
    before: str
    after: str

    def needs(self) -> tuple[Ref, ...]:
        return (Ref("pid", "pid"),)

    def call(self) -> str:
        return f"execve({quote(self.hook.path)}, [{', '.join(quote(a) for a in _program(self.hook))}])"

    def shell(self) -> str:
        return " ".join(word(a) for a in (self.hook.path, *_program(self.hook)[1:])) + " < state.json"

    def name(self) -> str:
        return f"run the {self.moment} hook {self.hook.path}"

    def execute(self, world: World) -> None:
        run(self.hook, f"{self.before}{world.take(Ref('pid', 'pid'))}{self.after}".encode())


class RunHookInside(Step):
    """fork(2), execve(2) by the container's first process, who knows which pid it has."""

    because = "What the caller wants to be done in the container's own namespaces."
    op: ClassVar[str] = "HOOK"
    hook: Hook
    moment: str
    before: str
    after: str

    def call(self) -> str:
        return f"fork(); execve({quote(self.hook.path)}, [{', '.join(quote(a) for a in _program(self.hook))}])"

    def shell(self) -> str:
        return " ".join(word(a) for a in (self.hook.path, *_program(self.hook)[1:])) + " < state.json"

    def name(self) -> str:
        return f"run the {self.moment} hook {self.hook.path}"

    def flat(self, slot: Callable[[Ref], int]) -> Flat:
        args = _program(self.hook)
        texts = (self.before, self.after, self.hook.path, *args, *self.hook.env)
        limit = -1 if self.hook.timeout is None else min(self.hook.timeout * 1000, _WAIT_MOST)
        return (limit, len(args)), tuple(t.encode("utf-8", "surrogateescape") for t in texts)
