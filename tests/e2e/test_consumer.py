"""A project that uses the installed package is understood by mypy --strict and by pyright, and finds the plugin."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ROOT / "tests/consumer"
BIN = Path(sys.executable).parent
pytestmark = [pytest.mark.timeout(300)]


def run(*command: str | Path, cwd: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=cwd, env=environ)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A virtual environment with the package in it, built as anybody's pip builds it."""
    place = tmp_path_factory.mktemp("consumer")
    assert run(sys.executable, "-m", "venv", "--without-pip", place / "venv").returncode == 0
    made = place / "venv/bin/python"
    done = run(sys.executable, "-m", "pip", "--python", made, "install", "-q", "--no-deps", ROOT)
    if done.returncode and "hatchling" in done.stderr:
        pytest.skip("needs a package index that has hatchling")
    assert done.returncode == 0, done.stderr
    yield made


def test_the_types_are_in_the_package_and_the_plugin_is_found(python: Path) -> None:
    script = (
        "import cloche, os, importlib.metadata as m; place = os.path.dirname(cloche.__file__);"
        "assert 'site-packages' in place and os.path.exists(place + '/py.typed');"
        "print(*[e.value for e in m.entry_points(group='pytest11')])"
    )
    done = run(python, "-c", script)
    assert (done.stdout.strip(), done.stderr) == ("cloche.pytest_plugin", "")


def test_mypy_understands_it(python: Path, tmp_path: Path) -> None:
    done = run(BIN / "mypy", "--python-executable", python, "--cache-dir", tmp_path, "consumer.py")
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_understands_it(python: Path) -> None:
    done = run(BIN / "pyright", "--pythonpath", python, "-p", PROJECT)
    if done.returncode and "npm" in done.stderr and "error:" not in done.stdout:
        pytest.skip("needs the npm registry, from which pyright gets its program the first time")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_oci_runtime_is_beside_it_and_finds_its_package(python: Path) -> None:
    program = python.with_name("cloche-oci")
    assert run(program, "--version").stdout.startswith("cloche-oci version ")
    features = run(program, "features", cwd=Path("/"))
    assert '"ociVersionMax": "1.3.0"' in features.stdout, features.stderr
    assert str(ROOT).encode() not in program.read_bytes(), "no path of who built it, which anybody could make elsewhere"
