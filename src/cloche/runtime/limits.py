"""Limits of a group that has processes in it: all of them are changed, or none.

What was there before is read first, and written back, last first, when one is refused.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloche.step.cgroup import LimitCgroup

    Before = list[tuple[LimitCgroup, str]]

_SUM = "/memory.memsw.limit_in_bytes"


class Refused(OSError):
    """A limit that the kernel did not take; what had been changed before is as it was. step: which one."""

    def __init__(self, step: LimitCgroup, cause: OSError) -> None:
        super().__init__(cause.errno, cause.strerror, cause.filename)
        self.step = step


def change(steps: Sequence[LimitCgroup]) -> Before:
    """Write them, as this kernel names them. Returns what restore() takes back. Raises Refused."""
    before: Before = []
    for step in _ordered([step.here() for step in steps]):
        try:
            present = _present(step.path)
            step.write()
        except OSError as error:
            restore(before)
            raise Refused(step, error) from error
        before.append((step, present))
    return before


def restore(before: Before) -> None:
    """Take changes back, last first."""
    for step, content in reversed(before):
        try:
            step.replace(content=content).write()
        except OSError:
            continue  # the container has ended, or uses more by now than it was allowed before


def _ordered(steps: list[LimitCgroup]) -> list[LimitCgroup]:
    """As the kernel takes them: on cgroup v1 memory never exceeds memory and swap, so what grows, grows there first."""
    both = next((step for step in steps if step.path.endswith(_SUM)), None)
    if both and (int(both.content) < 0 or int(both.content) > int(_present(both.path))):
        steps.remove(both)
        steps.insert(0, both)
    return steps


def _present(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()
