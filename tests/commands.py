"""The command line as a test calls it: a process of its own, with the environment's CLOCHE_ROOT."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

SOURCE = str(Path(__file__).resolve().parents[1] / "src")
START = f"import sys; sys.path.insert(0, {SOURCE!r}); from cloche.cli.main import program; program()"
COMMAND = [sys.executable, "-I", "-B", "-c", START]  # as it is for users: no variable of ours changes its streams


class Result(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def cloche(
    *arguments: str, input: str | None = None, env: dict[str, str] | None = None, cwd: Path | None = None
) -> Result:
    """Run it to its end; its standard input is empty unless `input` is given."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=input if input is not None else "",
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **(env or {})},
        cwd=cwd,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Result(done.returncode, done.stdout, done.stderr)


def ok(*arguments: str, input: str | None = None, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """What a command that must succeed says on stdout, without the last line's end."""
    result = cloche(*arguments, input=input, env=env, cwd=cwd)
    assert result.code == 0, result
    return result.out.rstrip("\n")


def sh(script: str, *flags: str, image: str = "starter") -> str:
    """The output of a shell script in a container that is removed afterwards."""
    return ok("run", "--rm", *flags, image, "sh", "-c", script)
