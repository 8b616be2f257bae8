"""What the lanes' reports say, and that a lane or a test that silently ran nowhere is an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import lanes
import pytest

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "NUMBERS", tmp_path / "lanes.json")
    monkeypatch.setattr(lanes, "SECONDS", tmp_path / "seconds.json")
    monkeypatch.setattr(lanes, "KNOWN", tmp_path / "known-skips.txt")


def report(folder: Path, lane: str, *, root: bool = True, ended: bool = True, **outcomes: str) -> str:
    lines: list[dict[str, object]] = [{"lane": lane, "layout": "v2", "root": root, "kernel": "6.1"}]
    lines += [{"test": n, "outcome": o, "seconds": 0.1, "reason": "why"} for n, o in outcomes.items()]
    lines += [{"end": 0}] * ended
    path = folder / f"{lane}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_a_test_that_runs_on_one_lane_may_skip_on_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = [report(tmp_path, "host", a="passed", b="skipped"), report(tmp_path, "v2", a="skipped", b="passed")]
    assert lanes.main(reports) == 0
    said = capsys.readouterr().out
    assert "why: 1 on host-v2, 1 on v2" in said
    assert said.splitlines()[-1].strip("= ") == "2 passed, 2 skipped in 0.40s"


def test_a_test_that_skips_everywhere_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = [report(tmp_path, "host", a="skipped", b="passed"), report(tmp_path, "v2", a="skipped")]
    assert lanes.main(reports) == 1
    assert "a skips on every lane" in capsys.readouterr().out
    lanes.KNOWN.write_text("# comment\na  # no such hardware\n")
    assert lanes.main(reports) == 0


def test_without_root_a_skip_everywhere_is_no_error(tmp_path: Path) -> None:
    assert lanes.main([report(tmp_path, "host", root=False, a="skipped", b="passed")]) == 0


def test_a_lane_that_ran_fewer_tests_than_recorded_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = {"a": "passed", **{f"b.py::{number}": "passed" for number in range(20)}}
    assert lanes.main(["--record", report(tmp_path, "v2", **outcomes)]) == 0
    assert json.loads(lanes.NUMBERS.read_text()) == {"v2": 21}
    assert json.loads(lanes.SECONDS.read_text()) == {"v2": {"a": 0, "b.py": 2}}
    assert lanes.main([report(tmp_path, "v2", a="passed")]) == 1
    assert "ran 1 tests; tests/lanes.json says at least 21" in capsys.readouterr().out


def test_a_lane_that_ended_early_or_never_began_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lanes.main([report(tmp_path, "v2", ended=False, a="passed")]) == 1
    assert "the last that was heard of it was a" in capsys.readouterr().out
    assert lanes.main([str(tmp_path / "none.jsonl")]) == 1
    assert "lane none has no end" in capsys.readouterr().out


def test_a_failure_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lanes.main([report(tmp_path, "v2", a="failed", b="passed", c="xfailed")]) == 1
    assert capsys.readouterr().out.splitlines()[-1].strip("= ") == "1 failed, 2 passed in 0.30s"


def test_the_fixtures_report_limit_and_skip(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import time, pytest\n"
        "from probes import requires\n"
        "def test_good(): pass\n"
        "@pytest.mark.timeout(0.2)\n"
        "def test_slow():\n"
        "    try: time.sleep(30)\n"
        "    except Exception: pass\n"
        "@requires('program:no-such-program')\n"
        "def test_skipped(): raise AssertionError\n"
    )
    out = tmp_path / "report.jsonl"
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-p", "no:cacheprovider", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(TESTS), "CLOCHE_LANE_REPORT": str(out), "CLOCHE_TEST_LIMIT": "0"}
    done = subprocess.run([*pytest_command, "-c", "/dev/null"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout
    said = [json.loads(line) for line in out.read_text().splitlines()]
    outcomes = {line["test"].split("::")[1]: (line["outcome"], line["reason"]) for line in said if "test" in line}
    assert outcomes["test_good"] == ("passed", "")
    assert outcomes["test_slow"][0] == "failed"
    assert "not done after 0.2 s" in done.stdout
    assert outcomes["test_skipped"] == ("skipped", "needs program:no-such-program")
    assert said[-1] == {"end": 1}


def test_a_probe_that_does_not_exist_is_an_error() -> None:
    from probes import requires

    with pytest.raises(ValueError, match="no probe named 'rooot'"):
        requires("rooot")


def test_parts_of_a_lane_are_one_when_all_have_ended(tmp_path: Path) -> None:
    parts = [Path(report(tmp_path, "one", a="passed")), Path(report(tmp_path, "two", b="passed"))]
    lanes.join(parts, tmp_path / "host.jsonl")
    whole = lanes.Lane(tmp_path / "host.jsonl")
    assert (sorted(whole.tests), whole.ended, whole.count("passed")) == (["a", "b"], True, 2)
    assert not any(part.exists() for part in parts)


def test_a_part_that_died_is_no_end_and_one_that_left_nothing_is_none(tmp_path: Path) -> None:
    for dead in (Path(report(tmp_path, "two", ended=False, b="passed")), tmp_path / "never"):
        lanes.join([Path(report(tmp_path, "one", a="passed")), dead], tmp_path / "host.jsonl")
        assert not lanes.Lane(tmp_path / "host.jsonl").ended


def test_files_are_spread_by_what_they_took_and_what_is_there_counts() -> None:
    seconds = {"a": 100.0, "b": 50.0, "c": 40.0, "e2e": 30.0}
    assert lanes.spread(["c", "a", "new", "b"], [["e2e"], []], seconds) == [["e2e", "new", "b"], ["a", "c"]]


def test_parts_run_at_once_and_the_first_bad_status_counts(tmp_path: Path) -> None:
    both = threading.Barrier(3)

    def run(at: int, part: Path) -> int:
        both.wait(10)
        part.write_text(Path(report(tmp_path, f"made{at}", **{f"t{at}": "passed"})).read_text())
        return (0, 3, 4)[at]

    assert lanes.at_once(3, run, tmp_path / "sub/host.jsonl") == 3
    whole = lanes.Lane(tmp_path / "sub/host.jsonl")
    assert (sorted(whole.tests), whole.ended) == (["t0", "t1", "t2"], True)
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["host.jsonl"]
