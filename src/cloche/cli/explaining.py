"""Showing a plan to people: every step with its actor, reason and system call; with times once it was executed."""

from __future__ import annotations

import sys

from cloche.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloche.step.base import Act, Plan

DIM, BOLD, RESET = "\x1b[2m", "\x1b[1m", "\x1b[0m"
COLOURS = {"host": "\x1b[34m", "stage": "\x1b[33m", "init": "\x1b[32m", "joiner": "\x1b[32m"}


def lines(acts: Sequence[Act], colour: bool, times: Sequence[str] = ()) -> list[str]:
    """A line a step: its time, number, actor, call; below steps in a row that share a reason, why they are there."""
    out = []
    on = COLOURS if colour else dict.fromkeys(COLOURS, "")
    off, dim = (RESET, DIM) if colour else ("", "")
    for at, act in enumerate(acts):
        took = f"{times[at]:>9}  " if times else ""
        out.append(f"{took}{at + 1:3}  {on[act.actor]}{act.actor:6}{off} {printable(act.step.call())}")
        after = acts[at + 1] if at + 1 < len(acts) else None
        if after is None or (after.actor, after.reason()) != (act.actor, act.reason()):
            out.append(f"{' ' * (len(took) + 12)}{dim}{printable(act.reason())}{off}")
    return out


def show(plan: Plan) -> None:
    """The whole plan on stdout."""
    print("\n".join(lines(plan.acts, sys.stdout.isatty())))
    print(f"{len(plan.acts)} steps; none was done")


class Explainer:
    """For `run --explain`: gets the plan before it is executed, shows it with the time each step took, on stderr."""

    def __init__(self) -> None:
        self.plan: Plan | None = None

    def __call__(self, plan: Plan) -> None:
        self.plan = plan

    def show(self, records: tuple[tuple[int, int], ...]) -> None:
        """`records`: step number and monotonic nanoseconds of its end, in the order that they were done."""
        assert self.plan is not None
        colour = sys.stderr.isatty()
        last: dict[str, int] = {}
        took: dict[int, int] = {}
        for number, ended in sorted(records, key=lambda r: r[1]):
            actor = self.plan.acts[number - 1].actor
            began = last.get(actor, max(last.values(), default=ended))
            took[number], last[actor] = ended - began, ended
        numbers = range(1, len(self.plan.acts) + 1)
        times = [f"{took[number] / 1000:.0f} µs" if number in took else "·" for number in numbers]
        print("\n".join(lines(self.plan.acts, colour, times)), file=sys.stderr)
        if records:
            ends = [ns for _, ns in records]
            print(f"{len(self.plan.acts)} steps in {(max(ends) - min(ends)) / 1e6:.2f} ms", file=sys.stderr)
