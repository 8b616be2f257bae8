"""Showing a plan to people: every step with its actor, reason and system call; with times once it was executed."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.step.base import Act, Plan

DIM, BOLD, RESET = "\x1b[2m", "\x1b[1m", "\x1b[0m"
COLOURS = {"host": "\x1b[34m", "stage": "\x1b[33m", "init": "\x1b[32m", "joiner": "\x1b[32m"}


def line(number: int, act: Act, colour: bool, time: str = "") -> str:
    """One step, two lines: number, actor, call; why."""
    on, off, dim = (COLOURS[act.actor], RESET, DIM) if colour else ("", "", "")
    took = f"{time:>9}  " if time else ""
    indent = " " * (len(took) + 12)
    return f"{took}{number:3}  {on}{act.actor:6}{off} {act.step.call()}\n{indent}{dim}{act.reason()}{off}"


def show(plan: Plan) -> None:
    """The whole plan on stdout."""
    colour = sys.stdout.isatty()
    out = [line(number, act, colour) for number, act in enumerate(plan.acts, 1)]
    print("\n".join(out))


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
        for number, act in enumerate(self.plan.acts, 1):
            time = f"{took[number] / 1000:.0f} µs" if number in took else "·"
            print(line(number, act, colour, time), file=sys.stderr)
        if records:
            times = [ns for _, ns in records]
            print(f"{len(self.plan.acts)} steps in {(max(times) - min(times)) / 1e6:.2f} ms", file=sys.stderr)
