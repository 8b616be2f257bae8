"""Builds bell, the static executor: its table from the step classes, then the program, each only when out of date.

    python tools/build_bell.py [--force]

Run by `make bell` in a working tree and by the build hook when a wheel or an editable install is made; the compiler is
`$BELL_CC`, else musl-gcc, else gcc or cc with a static libc. Needs no package but the standard library. Exit status 1
and one line on stderr when it fails; files appear by rename, so that a half-built one is never seen.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
ROOM = TREE / "src/cloche/runtime"
SOURCE, HEADER, PROGRAM = ROOM / "bell.c", ROOM / "bell_table.h", ROOM / "bell"
FLAGS = ("-static", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-s")


class BuildError(Exception):
    """Bell could not be built; the text says why and what to install."""


def compiler() -> list[str]:
    """The command of a compiler that can link statically, best first."""
    if chosen := os.environ.get("BELL_CC"):
        return shlex.split(chosen)
    for name in ("musl-gcc", "gcc", "cc"):
        if shutil.which(name):
            return [name]
    raise BuildError("build bell: no C compiler found; hint: apt-get install musl-tools gcc")


def write_header() -> None:
    """Generates the table that bell.c includes; an unchanged text leaves the file as it was."""
    made = subprocess.run(
        [sys.executable, "-B", "-m", "cloche.step.table"],
        cwd=TREE,
        env={**os.environ, "PYTHONPATH": str(TREE / "src")},
        capture_output=True,
        text=True,
    )
    if made.returncode:
        raise BuildError(f"generate {HEADER.name}: {made.stderr.strip()}")
    if HEADER.exists() and HEADER.read_text() == made.stdout:
        return
    draft = HEADER.with_suffix(f".{os.getpid()}")
    draft.write_text(made.stdout)
    draft.replace(HEADER)


def stale() -> bool:
    """Whether the program is missing or older than what it is made from."""
    if not PROGRAM.exists():
        return True
    built = PROGRAM.stat().st_mtime_ns
    return any(path.stat().st_mtime_ns > built for path in (*ROOM.glob("*.[ch]"), Path(__file__)))


def compile_program() -> None:
    draft = PROGRAM.with_name(f"bell.{os.getpid()}")
    command = [*compiler(), *FLAGS, "-o", str(draft), str(SOURCE)]
    print(shlex.join(command), file=sys.stderr)
    try:
        if subprocess.run(command, cwd=TREE).returncode:
            raise BuildError(f"build bell: {command[0]} failed; hint: apt-get install musl-tools gcc")
        draft.replace(PROGRAM)
    finally:
        draft.unlink(missing_ok=True)


def build(force: bool = False) -> bool:
    """Brings bell up to date and says whether it was compiled anew. Raises BuildError."""
    write_header()
    if not (force or stale()):
        return False
    compile_program()
    return True


if __name__ == "__main__":
    try:
        build(force="--force" in sys.argv[1:])
    except BuildError as error:
        sys.exit(str(error))
