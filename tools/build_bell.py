"""Builds bell, the static executor: its table from the step classes, then the program, each only when out of date; and
cloche-oci, the OCI runtime's command line.

    python tools/build_bell.py [--force]

Run by `make bell` in a working tree and by the build hook when a wheel or an editable install is made; the compiler is
`$BELL_CC`, else musl-gcc, else gcc or cc with a static libc. Needs no package but the standard library. Exit status 1
and one line on stderr when it fails; files appear by rename, so that a half-built one is never seen.
"""

from __future__ import annotations

import compileall
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
ROOM = TREE / "src/cloche/runtime"
HEADER = ROOM / "bell_table.h"
CARRIED = TREE / "build/carried/cloche-oci"  # what a wheel's bin gets
PROGRAMS = {ROOM / "bell": ROOM / "bell.c", ROOM / "cloche-oci": ROOM / "oci.c"}
FLAGS = ("-static", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-s")


class BuildError(Exception):
    """A program could not be built; the text says why and what to install."""


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


def stale(program: Path) -> bool:
    """Whether the program is missing or older than what it is made from."""
    if not program.exists():
        return True
    built = program.stat().st_mtime_ns
    return any(path.stat().st_mtime_ns > built for path in (*ROOM.glob("*.[ch]"), Path(__file__)))


def definitions(elsewhere: bool) -> list[str]:
    """What is written down elsewhere: this version, the specification's. In a tree also its interpreter and package;
    never in what is carried to other machines, where anybody could make these paths."""
    found = {} if elsewhere else {"PYTHON": sys.executable, "PACKAGE": str(TREE / "src")}
    for name, path, line in (
        ("VERSION", "src/cloche/version.py", "VERSION = "),
        ("SPEC", "src/cloche/runtime/oci/state.py", "SPEC_VERSION = "),
    ):
        text = next(t for t in (TREE / path).read_text().splitlines() if t.startswith(line))
        found[name] = text.split('"')[1]
    return [f'-D{name}="{value}"' for name, value in found.items()]


def compile_package() -> None:
    """The modules as the interpreter reads them: cloche-oci is not to write beside them, whoever calls it."""
    compileall.compile_dir(str(TREE / "src/cloche"), quiet=1)


def compile_program(program: Path, source: Path, elsewhere: bool = False) -> None:
    """elsewhere: to be carried to other machines."""
    program.parent.mkdir(parents=True, exist_ok=True)
    draft = program.with_name(f"{program.name}.{os.getpid()}")
    command = [*compiler(), *FLAGS, *definitions(elsewhere), "-o", str(draft), str(source)]
    print(shlex.join(command), file=sys.stderr)
    try:
        if subprocess.run(command, cwd=TREE).returncode:
            raise BuildError(f"build {program.name}: {command[0]} failed; hint: apt-get install musl-tools gcc")
        draft.replace(program)
    finally:
        draft.unlink(missing_ok=True)


def build(force: bool = False) -> bool:
    """Brings the programs up to date and says whether one was compiled anew. Raises BuildError."""
    write_header()
    wanted = [program for program in PROGRAMS if force or stale(program)]
    for program in wanted:
        compile_program(program, PROGRAMS[program])
    compile_package()
    return bool(wanted)


if __name__ == "__main__":
    try:
        build(force="--force" in sys.argv[1:])
    except BuildError as error:
        sys.exit(str(error))
