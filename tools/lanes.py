"""Puts the lanes' reports together: what ran where, what was skipped why, and whether a test ran nowhere.

    python tools/lanes.py [--record] REPORT...

A report is the JSON lines that tests/conftest.py writes. It is an error when a test failed, a lane has no report or
ended early, a lane ran fewer tests than tests/lanes.json says, or a test was skipped on every lane though all ran as
root and tests/known-skips.txt does not list it. `--record` writes the numbers of this run to tests/lanes.json, and how
long each file took to tests/seconds.json, for tools/uml-lane and tools/host-lane. The last line is the sum over the
lanes in pytest's form. Exit status 1 on an error.
"""

from __future__ import annotations

import fnmatch
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TREE = Path(__file__).resolve().parent.parent
NUMBERS = TREE / "tests/lanes.json"
SECONDS = TREE / "tests/seconds.json"
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

    def seconds(self) -> dict[str, int]:
        """How long each file took."""
        found: Counter[str] = Counter()
        for name, test in self.tests.items():
            found[name.partition("::")[0]] += test["seconds"]
        return {file: round(seconds) for file, seconds in found.items()}

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


def seconds_of(lane: str) -> dict[str, float]:
    """How long each file took on this lane in the last run that was recorded."""
    taken: dict[str, dict[str, float]] = json.loads(SECONDS.read_text()) if SECONDS.exists() else {}
    return taken.get(lane, {})


def spread(files: list[str], groups: list[list[str]], seconds: dict[str, float]) -> list[list[str]]:
    """Put the files into groups that run at once: what took longest first, each into the one that has the least yet. Of
    a file that nobody has measured it is supposed that it takes a minute."""
    for file in sorted(files, key=lambda file: (-seconds.get(file, 60.0), file)):
        min(groups, key=lambda group: sum(seconds.get(f, 60.0) for f in group)).append(file)
    return groups


def join(parts: list[Path], report: Path) -> None:
    """The reports of a lane's parts as one. It has an end when all of them have: `end` is the first that is not 0."""
    lines = [json.loads(line) for part in parts if part.exists() for line in part.read_text().splitlines()]
    ends = [line["end"] for line in lines if "end" in line]
    whole = [line for line in lines if "end" not in line]
    if len(ends) == len(parts):
        whole.append({"end": next((end for end in ends if end), 0)})
    report.write_text("".join(json.dumps(line) + "\n" for line in whole))
    for part in parts:
        part.unlink(missing_ok=True)


def at_once(parts: int, run: Callable[[int, Path], int], report: Path) -> int:
    """Run a lane's parts, by number from 0 and the report that each writes; their reports as one. The first bad
    status, or 0."""
    reports = [report.with_suffix(f".{number + 1}") for number in range(parts)]
    report.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(parts) as pool:
        statuses = list(pool.map(run, range(parts), reports))
    join(reports, report)
    return next((status for status in statuses if status), 0)


def record(path: Path, numbers: dict[str, Any]) -> None:
    path.write_text(json.dumps(dict(sorted(numbers.items())), indent=2) + "\n")


def main(arguments: list[str]) -> int:
    lanes = [Lane(Path(path)) for path in arguments if path != "--record"]
    numbers: dict[str, int] = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
    if "--record" in arguments:
        numbers |= {lane.name: lane.count(*RAN) for lane in lanes if lane.ended}
        record(NUMBERS, numbers)
        taken = json.loads(SECONDS.read_text()) if SECONDS.exists() else {}
        taken |= {lane.name.partition("-")[0]: lane.seconds() for lane in lanes if lane.ended and lane.name != "unit"}
        record(SECONDS, taken)
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
