"""What shells are offered: verbs, flags, values, names of what is in the store; and what real shells make of it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from cloche.cli.completing import FILES, SCRIPTS, complete
from cloche.cli.flags import OWN_NOUNS, VERBS
from cloche.engine.database import connect
from cloche.engine.store import locate, prepare
from commands import SOURCE
from probes import requires


def words(*typed: str) -> list[str]:
    return [line.partition("\t")[0] for line in complete(typed)]


@pytest.fixture
def stocked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with things of every kind, some with hostile names."""
    monkeypatch.setenv("CLOCHE_ROOT", str(tmp_path))
    store = locate()
    prepare(store)
    db = connect(store)
    for name, status, paused in (
        ("web", "running", 0),
        ("db", "exited", 0),
        ("ice", "running", 1),
        ("a b$(x)\n", "running", 0),
    ):
        values = (name * 3, name, "starter", "sha256:1", len(name), json.dumps({}), 0, status, paused)
        db.execute(
            "INSERT INTO containers (id, name, image, image_id, created, config, remove, status, paused)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
    db.execute("INSERT INTO volumes (name, created) VALUES ('data', 1)")
    db.execute("INSERT INTO networks (id, name, created, config, cursor) VALUES ('1', 'back', 1, '{}', 0)")
    for reference in ("docker.io/library/alpine:latest", "localhost:5000/team/app:1.0"):
        db.execute("INSERT INTO tags (reference, image) VALUES (?, 'sha256:1')", (reference,))
    db.close()
    return tmp_path


def test_verbs() -> None:
    assert set(VERBS) | set(OWN_NOUNS) <= set(words(""))
    assert words("unp") == ["unpause"]
    assert words("--root", "/x", "unp") == words("--root=/x", "-D", "unp") == ["unpause"]
    assert "--root" in words("--")
    assert words("frobnicate", "") == words("build", "") == []


def test_second_words() -> None:
    assert {"create", "ls", "rm", "prune", "connect"} <= set(words("network", ""))
    assert words("volume", "pr") == ["prune"]
    assert "--filter" in words("volume", "ls", "--f")
    assert words("container", "rena") == ["rename"]


def test_flags_and_their_values() -> None:
    assert words("run", "--restart", "on") == ["on-failure"]
    assert words("run", "--health-on-failure=re") == ["--health-on-failure=restart"]
    assert words("run", "--pull", "") == ["missing", "always", "never"]
    assert words("run", "--env-file", "") == words("load", "-i", "/x") == [FILES]
    assert words("run", "-it", "--name", "") == [], "a value that is nobody's to know"
    assert "--rm" in words("run", "-it", "--r")
    assert words("run", "starter", "") == words("run", "starter", "--r") == [FILES], "the command's own"


def test_names(stocked: Path) -> None:
    assert words("run", "") == ["alpine", "localhost:5000/team/app:1.0"]
    assert words("run", "-d", "loc") == ["localhost:5000/team/app:1.0"]
    assert set(words("stop", "")) == {"web", "ice"} and words("unpause", "") == ["ice"] and words("start", "") == ["db"]
    assert set(words("rm", "-f", "web", "")) == {"web", "db", "ice"}
    assert words("exec", "w") == ["web"] and words("exec", "web", "") == []
    assert words("volume", "rm", "") == ["data"] and words("run", "-v", "") == ["data", FILES]
    assert words("run", "--network", "") == ["none", "host", "back"]
    assert words("network", "connect", "") == ["back"] and words("network", "connect", "back", "w") == ["web"]
    assert set(words("inspect", "")) == {"web", "db", "ice", "alpine", "localhost:5000/team/app:1.0", "data"}
    assert FILES in words("cp", "")


def test_nothing_is_made_and_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOCHE_ROOT", str(tmp_path / "none"))
    assert words("rm", "") == [] and not (tmp_path / "none").exists()
    (tmp_path / "none").mkdir()
    (tmp_path / "none/db").write_text("no database")
    assert words("rm", "") == []


LAUNCH = f"""#!/usr/bin/env python3
import sys; sys.path.insert(0, {SOURCE!r}); from cloche.cli.main import program; program()
"""


def in_shell(place: Path, *command: str) -> list[str]:
    (place / "bin").mkdir(exist_ok=True)
    program = place / "bin/cloche"
    program.write_text(LAUNCH)
    program.chmod(0o755)
    env = {**os.environ, "PATH": f"{place}/bin:{os.environ['PATH']}", "HOME": str(place), "TERM": "dumb"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=50)
    assert done.returncode == 0 and done.stderr == "", done
    return done.stdout.splitlines()


@requires("program:bash")
def test_in_bash(stocked: Path, tmp_path: Path) -> None:
    (tmp_path / "script").write_text(SCRIPTS["bash"])

    def shown(*typed: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in ("cloche", *typed))
        script = f"source {tmp_path}/script; COMP_WORDS=({line}); COMP_CWORD={len(typed)}; _cloche; "
        return in_shell(tmp_path, "bash", "--norc", "-c", script + 'printf "%s\\n" "${COMPREPLY[@]}"')

    assert shown("unp") == ["unpause"]
    assert set(shown("stop", "")) == {"web", "ice"}
    assert shown("network", "connect", "") == ["back"]


@requires("program:zsh")
def test_in_zsh(stocked: Path, tmp_path: Path) -> None:
    """The function as zsh runs it; what offers the candidates prints them."""
    (tmp_path / "script").write_text(SCRIPTS["zsh"])

    def shown(*typed: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in ("cloche", *typed))
        stubs = "compdef() { }; _describe() { print -rl -- ${(P)3} }; _files() { print files }; "
        script = f"{stubs} source {tmp_path}/script; words=({line}); CURRENT={len(typed) + 1}; _cloche"
        return in_shell(tmp_path, "zsh", "-f", "-c", script)

    assert shown("unp") == ["unpause:let paused containers go on"]
    assert shown("run", "loc") == ["localhost\\:5000/team/app\\:1.0:image"]
    assert shown("load", "-i", "") == ["files"]


@requires("program:fish")
def test_in_fish(stocked: Path, tmp_path: Path) -> None:
    (tmp_path / "script").write_text(SCRIPTS["fish"])

    def shown(line: str) -> list[str]:
        return in_shell(tmp_path, "fish", "--no-config", "-c", f'source {tmp_path}/script; complete -C "cloche {line}"')

    assert shown("unp") == ["unpause\tlet paused containers go on"]
    assert [each.partition("\t")[0] for each in shown("run ")] == ["alpine", "localhost:5000/team/app:1.0"]
    assert "/etc/" in shown("load -i /et")
