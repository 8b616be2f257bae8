"""Log drivers on the real kernel: sizes are kept, `none` keeps nothing and shows all, what is said of lines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cloche.sdk import Client
from commands import COMMAND, cloche, ok

pytestmark = [
    pytest.mark.one_lane,
    pytest.mark.requires("root", "overlay"),
    pytest.mark.usefixtures("store"),
    pytest.mark.timeout(120),
]
NONE = ("--network", "none")
MANY = "i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done"


def kept(store: Path) -> int:
    return sum(path.stat().st_size for path in store.glob("containers/*/log/*"))


def test_sizes_bound_what_is_kept(store: Path) -> None:
    big = "yes 0123456789 | head -c 300000; echo end"
    ok(
        "run",
        "--name",
        "box",
        *NONE,
        "--log-opt",
        "max-size=10k",
        "--log-opt",
        "max-file=2",
        "starter",
        "sh",
        "-c",
        big,
    )
    assert kept(store) <= 3 * ((10 << 10) + 32), "and one file more, which the client that was attached may have held"
    assert ok("logs", "-n", "1", "box").endswith("end")
    assert json.loads(ok("inspect", "-f", "{{json .HostConfig.LogConfig}}", "box")) == {
        "Type": "json-file",
        "Config": {"max-size": "10k", "max-file": "2"},
    }


def test_none_shows_all_to_who_is_attached_and_keeps_nothing(store: Path) -> None:
    """More than passes at once."""
    script = "yes 0123456789012345678901234567890 | head -n 200000; echo end"
    out = ok("run", "--name", "box", *NONE, "--log-driver", "none", "starter", "sh", "-c", script)
    assert out.count("\n") == 200_000 and out.endswith("\nend")
    assert kept(store) == 0
    refused = cloche("logs", "box")
    assert refused.code == 1 and "configured logging driver does not support reading" in refused.err
    assert ok("inspect", "-f", "{{.HostConfig.LogConfig.Type}} {{.LogPath}}.", "box") == "none ."
    assert ok("start", "-a", "box").endswith("\nend"), "and again"
    assert kept(store) == 0


def test_none_detached_passes_and_does_not_grow(store: Path) -> None:
    with Client(str(store)) as client:
        script = "while :; do echo 0123456789012345678901234567890123456789; done"
        box = client.run("starter", ["sh", "-c", script], detach=True, network="none", log_driver="none")
        deadline = time.monotonic() + 30
        while max((int(p.name.split(".")[1]) for p in store.glob("containers/*/log/*.raw")), default=0) < 4:
            assert time.monotonic() < deadline, "it goes on"
            time.sleep(0.02)
        assert kept(store) < 4 << 20
        attached = subprocess.Popen([*COMMAND, "attach", "--no-stdin", box.name], stdout=subprocess.PIPE)
        assert attached.stdout
        assert len(attached.stdout.read(1 << 20)) == 1 << 20
        attached.terminate()
        attached.stdout.close()
        attached.wait()
        box.kill()
        box.wait()
        assert kept(store) == 0


def test_none_and_the_death_of_its_keeper(store: Path) -> None:
    with Client(str(store)) as client:
        box = client.run("starter", ["sh", "-c", MANY + "; sleep 100"], detach=True, network="none", log_driver="none")
        os.kill(client.engine.keeper.ask({"op": "info"})[0]["keeper"], signal.SIGKILL)
        box.kill()
        assert box.wait() == 137
        deadline = time.monotonic() + 10
        while kept(store):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_up_to_a_moment_and_details() -> None:
    flags = [
        "--log-opt",
        "labels=team,none",
        "--log-opt",
        "env=WHO",
        "-l",
        "team=db x",
        "-e",
        "WHO=me",
        "--log-opt",
        "tag=t",
    ]
    ok("run", "--name", "box", *NONE, *flags, "starter", "sh", "-c", "echo one; sleep 1.2; echo two")
    first = ok("logs", "-t", "box").split()[0]
    assert ok("logs", "--until", first[:19] + "Z", "box") == ""
    assert ok("logs", "--until", "0s", "box") == "one\ntwo"
    later = first[:-1].ljust(30, "0")
    assert ok("logs", "--until", f"{later[:20]}999999999Z", "box").splitlines()[0] == "one"
    assert ok("logs", "--details", "-n", "1", "box") == "WHO=me,tag=t,team=db%20x two"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--log-driver", "syslog"], "log driver syslog is not there yet"),
        (["--log-driver", "no/such"], "no log driver named"),
        (["--log-opt", "compress=true"], "not there yet"),
        (["--log-opt", "max-buffer-size=1m"], "only supported with 'mode=non-blocking'"),
        (["--log-driver", "none", "--log-opt", "max-size=1m"], "unknown log opt"),
    ],
)
def test_what_is_refused(flags: list[str], words: str) -> None:
    refused = cloche("run", *flags, "starter", "true")
    assert refused.code == 125 and words in refused.err and len(refused.err.splitlines()) == 1
    assert ok("ps", "-aq") == ""


def test_the_configuration_file_names_a_default(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[log]\ndriver = "local"\noptions = { max-size = "1m" }\n')
    env = {"CLOCHE_CONFIG": str(tmp_path / "c.toml")}
    ok("create", "--name", "box", *NONE, "starter", "true", env=env)
    assert ok("inspect", "-f", "{{json .HostConfig.LogConfig}}", "box") == '{"Type":"local","Config":{"max-size":"1m"}}'
    (tmp_path / "c.toml").write_text("[lo]\n")
    refused = cloche("create", *NONE, "starter", "true", env=env)
    assert refused.code == 125 and "unknown key 'lo'" in refused.err
    assert len(ok("ps", "-aq").split()) == 1
