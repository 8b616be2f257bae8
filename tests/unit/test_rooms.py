"""The rooms of docs/design.md: which package may import which, what a start may import, how modules are named.

The sources are read, not imported, so an import inside a function or under TYPE_CHECKING counts like any other.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
PACKAGE = SOURCE / "cloche"

FOUNDATION = {"errors", "value", "version", "document", "settings", "transaction"}
PLANNING = {"kernel", "oci", "step", "plan"}
ENGINE = {*PLANNING, "runtime", "microvm", "storage", "image", "network", "engine"}
# The SDK: what its modules may use of each other. Only who asks for `aio` or runs pytest gets that.
FACE = {"sdk", "handling", "options", "blocking", "display", "images", "networks", "volumes"}
ALL = {*ENGINE, *FACE, "build", "compose", "api", "see", "cli", "cloche", "awaited", "awaiting", "aio"}

# room: the rooms that it may import besides itself and the foundation. `cloche` is cloche/__init__.py, the SDK's names.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "value": set(),
    "version": set(),
    "document": set(),
    "settings": set(),
    "transaction": set(),
    "kernel": set(),
    "oci": set(),
    "step": {"kernel", "oci"},
    "plan": {"oci", "step"},
    "runtime": PLANNING,
    "microvm": PLANNING,
    "storage": {"kernel", "oci", "step"},
    "image": {"kernel", "oci", "step", "storage"},
    "network": {"kernel", "oci", "step"},
    "engine": ENGINE,
    "build": ENGINE,
    "compose": ENGINE,
    "api": {*ENGINE, "build"},
    "see": ALL - {"api", "cli"},
    "cli": ALL - {"api"},
    "cloche": {*ENGINE, "sdk"},
    "blocking": ENGINE,
    "display": ENGINE,
    "options": ENGINE,
    "images": {*ENGINE, "display", "options"},
    "networks": {*ENGINE, "display", "options", "sdk"},
    "volumes": {*ENGINE, "display", "options"},
    "handling": {*ENGINE, "blocking", "images", "options", "sdk"},
    "sdk": {*ENGINE, *FACE},
    "awaiting": ENGINE,
    "awaited": {"aio", "cloche", "sdk"},
    "aio": {*ENGINE, *FACE, "awaiting", "awaited", "cloche"},
    "pytest_plugin": {*ENGINE, *FACE, "cloche"},
}
# Only what is published under a room's own name may be imported by it from outside the standard library.
THIRD_PARTY = {
    "storage": {"zstandard", "isal"},
    "image": {"zstandard", "urllib3"},
    "engine": {"zstandard", "yaml"},
    "network": {"dnslib"},
    "pytest_plugin": {"pytest"},
}
# Rooms that may import a slow module: no start comes by them, who asks for them does.
SLOW_MAY = {"awaiting": {"asyncio"}, "aio": {"asyncio"}}
NEVER = {"asyncio", "argparse", "dataclasses", "enum", "pydantic", "pkg_resources", "distutils", "imp"}
NO_NAMES = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
LINES_AT_MOST = 500

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "cloche"


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that `path` imports; `from cloche import x` counts as cloche.x for a room."""
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                below = f"{base}.{alias.name}"
                yield node.lineno, below if base == "cloche" and room_of(below) in MAY_IMPORT else base


def test_there_is_something_to_look_at() -> None:
    assert len(MODULES) > 5
    assert {room_of(name_of(path)) for path in MODULES} >= {"kernel", "oci", "step", "plan"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_the_rooms_above_it(path: Path) -> None:
    room = room_of(name_of(path))
    if name_of(path) == "cloche.__main__":
        room = "cli"
    assert room in MAY_IMPORT, f"{room} is no room of docs/design.md"
    allowed = MAY_IMPORT[room] | FOUNDATION | {room}
    for line, module in imports_of(path):
        if module.partition(".")[0] == "cloche":
            assert room_of(module) in allowed, f"{path}:{line}: {room} may not import {module}"
        elif module.partition(".")[0] not in sys.stdlib_module_names:
            assert module.partition(".")[0] in THIRD_PARTY.get(room, ()), f"{path}:{line}: imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_keeps_the_house_rules(path: Path) -> None:
    tree = ast.parse(path.read_text(), str(path))
    assert path.stem not in NO_NAMES, "a module is named after its concept"
    assert ast.get_docstring(tree), "a module says what it does"
    if len(tree.body) > 1:
        assert "from __future__ import annotations" in path.read_text()
    assert len(path.read_text().splitlines()) <= LINES_AT_MOST
    slow = {module for _, module in imports_of(path)} & NEVER - SLOW_MAY.get(room_of(name_of(path)), set())
    assert not slow, f"{slow} cost a start more than they give"


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(name_of(p)) == "plan"], ids=name_of)
def test_planning_opens_nothing_and_asks_no_kernel(path: Path) -> None:
    banned = {"os", "posix", "pathlib", "io", "socket", "subprocess", "shutil", "time", "random", "ctypes", "sys"}
    assert not {module for _, module in imports_of(path)} & banned
    names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
    assert not names & {"open", "print", "input", "exec", "eval"}


def imported_by(statement: str) -> set[str]:
    """The modules that a bare interpreter has after `statement`, beyond what it has anyway."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - before))"
    command = [sys.executable, "-I", "-S", "-B", "-c", f"import sys; sys.path.insert(0, {str(SOURCE)!r}); {code}"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": os.defpath}, timeout=30)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


HEAVY = NEVER | {"ctypes", "json", "re", "typing", "subprocess", "socket", "tarfile", "sqlite3"}


@pytest.mark.parametrize("room", ["oci", "step", "plan"])
def test_the_planners_rooms_are_light(room: str) -> None:
    modules = [name_of(p) for p in MODULES if room_of(name_of(p)) == room and p.stem != "table"]
    heavy = imported_by(f"import {', '.join(modules)}") & HEAVY
    assert not heavy


def test_only_who_asks_for_asyncio_gets_it() -> None:
    asked_for = {*SLOW_MAY, "awaited", "pytest_plugin"}
    for path in MODULES:
        if room_of(name_of(path)) not in asked_for:
            assert not {room_of(module) for _, module in imports_of(path) if module[:7] == "cloche."} & asked_for
    assert not imported_by("import cloche.sdk, cloche.handling, cloche.images, cloche.networks") & NEVER


def test_the_sdk_imports_nothing_before_it_is_used() -> None:
    assert {m for m in imported_by("import cloche") if m.startswith("cloche.")} <= {
        "cloche.errors",
        "cloche.value",
        "cloche.version",
    }
    assert not imported_by("import cloche") & HEAVY


def test_a_wrong_import_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "cloche/kernel/mounts.py"
    module.parent.mkdir(parents=True)
    module.write_text("def f():\n    from ..engine import ids\n    from cloche import engine\n    import cloche.plan\n")
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    assert {room_of(name) for _, name in imports_of(module)} == {"engine", "plan"}
    with pytest.raises(AssertionError, match="kernel may not import"):
        test_a_module_imports_only_from_the_rooms_above_it(module)
