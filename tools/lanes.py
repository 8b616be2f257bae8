"""Puts the lanes' reports together: what ran where, what was skipped why, and whether a test ran nowhere.

    python tools/lanes.py [--record] REPORT...

A report is the JSON lines that tests/conftest.py writes. It is an error when a test failed, a lane has no report or
ended early, a lane ran fewer tests than tests/lanes.json says, or a test was skipped on every lane though all ran as
root and tests/known-skips.txt does not list it. `--record` writes the numbers of this run to tests/lanes.json. The
last line is the sum over the lanes in pytest's form. Exit status 1 on an error.
"""

from __future__ import annotations

import fnmatch
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

TREE = Path(__file__).resolve().parent.parent
NUMBERS = TREE / "tests/lanes.json"
KNOWN = TREE / "tests/known-skips.txt"
RAN = ("passed", "failed", "xfailed")


class Lane:
    """One report: what the lane is, the outcome of each of its tests, and whether it came to its end."""

    def __init__(self, path: Path) -> None:
        self.name, self.root, self.kernel, self.ended = path.stem, False, "", False
        self.tests: dict[str, dict[str, Any]] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            self._take(json.loads(line))

    def _take(self, said: dict[str, Any]) -> None:
        if "test" in said:
            self.tests[said["test"]] = said
        elif "lane" in said:
            named = said["lane"] in ("unit", said["layout"])
            self.name = said["lane"] if named else f"{said['lane']}-{said['layout']}"
            self.root, self.kernel = said["root"], said["kernel"]
        elif "end" in said:
            self.ended = True

    def count(self, *outcomes: str) -> int:
        return sum(test["outcome"] in outcomes for test in self.tests.values())


def known_skips() -> dict[str, str]:
    """Patterns of test names and why each may skip everywhere: `PATTERN  # reason`."""
    lines = KNOWN.read_text().splitlines() if KNOWN.exists() else []
    pairs = [line.partition("  # ") for line in lines if line.strip() and not line.startswith("#")]
    return {pattern.strip(): reason for pattern, _, reason in pairs}


def print_lanes(lanes: list[Lane], numbers: dict[str, int]) -> None:
    print(f"\n{'lane':<14}{'kernel':<28}{'root':<6}{'ran':>6}{'failed':>8}{'skipped':>9}{'at least':>10}{'seconds':>9}")
    for lane in lanes:
        seconds = sum(test["seconds"] for test in lane.tests.values())
        print(
            f"{lane.name:<14}{lane.kernel[:27]:<28}{'yes' if lane.root else 'no':<6}{lane.count(*RAN):>6}"
            f"{lane.count('failed'):>8}{lane.count('skipped'):>9}{numbers.get(lane.name, '-'):>10}{seconds:>9.1f}"
        )


def print_skips(lanes: list[Lane]) -> None:
    """A line for each reason: how many tests it made skip on each lane."""
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for lane in lanes:
        for test in lane.tests.values():
            if test["outcome"] == "skipped":
                reasons[test["reason"]][lane.name] += 1
    if reasons:
        print("\nskipped, by reason:")
    for reason, counts in sorted(reasons.items()):
        print(f"  {reason}: {', '.join(f'{number} on {lane}' for lane, number in counts.items())}")


def skipped_everywhere(lanes: list[Lane]) -> list[str]:
    """Names of the tests that no lane ran."""
    ran = {name for lane in lanes for name, test in lane.tests.items() if test["outcome"] in RAN}
    skipped = {name for lane in lanes for name, test in lane.tests.items() if test["outcome"] == "skipped"}
    return sorted(skipped - ran)


def lane_problems(lane: Lane, at_least: int) -> list[str]:
    problems = [f"{name} failed on {lane.name}" for name, t in lane.tests.items() if t["outcome"] == "failed"]
    if not lane.ended:
        last = next(reversed(lane.tests), "its start")
        problems.append(f"lane {lane.name} has no end: the last that was heard of it was {last}")
    elif lane.count(*RAN) < at_least and (lane.root or lane.name == "unit"):
        problems.append(f"lane {lane.name} ran {lane.count(*RAN)} tests; tests/lanes.json says at least {at_least}")
    return problems


def missing_tests(lanes: list[Lane]) -> list[str]:
    """Tests that ran nowhere and are not known for it; without root on every lane that says nothing."""
    known = known_skips()
    missing = [n for n in skipped_everywhere(lanes) if not any(fnmatch.fnmatchcase(n, pattern) for pattern in known)]
    if not all(lane.root for lane in lanes):
        if missing:
            print(f"\n{len(missing)} tests ran on no lane; as root more of them would")
        return []
    return [f"{name} skips on every lane: make it run on one, or list it in tests/known-skips.txt" for name in missing]


def main(arguments: list[str]) -> int:
    lanes = [Lane(Path(path)) for path in arguments if path != "--record"]
    numbers: dict[str, int] = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
    if "--record" in arguments:
        numbers |= {lane.name: lane.count(*RAN) for lane in lanes if lane.ended}
        NUMBERS.write_text(json.dumps(dict(sorted(numbers.items())), indent=2) + "\n")
    print_lanes(lanes, numbers)
    print_skips(lanes)
    problems = [line for lane in lanes for line in lane_problems(lane, numbers.get(lane.name, 0))]
    problems += missing_tests(lanes)
    if problems:
        print("\nproblems:", *problems, sep="\n  ")
    passed, failed, skipped = (sum(lane.count(*o) for lane in lanes) for o in (RAN, ("failed",), ("skipped",)))
    seconds = sum(test["seconds"] for lane in lanes for test in lane.tests.values())
    parts = [f"{failed} failed"] * bool(failed) + [f"{passed - failed} passed"] + [f"{skipped} skipped"] * bool(skipped)
    closing = f" {', '.join(parts)} in {seconds:.2f}s "
    print(f"\n{closing:=^78}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
