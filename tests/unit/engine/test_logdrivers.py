"""Log drivers: what is kept, what is refused by name, where defaults come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloche.engine.logdrivers import ANY, PASSAGE, check, limits, settle
from cloche.engine.request import Logging
from cloche.errors import Error, Invalid, Unsupported


def log(driver: str = "", **options: str) -> Logging:
    return Logging(driver, tuple((key.replace("_", "-"), value) for key, value in options.items()))


def test_sizes() -> None:
    assert limits(log()) == limits(log("json-file")) == (10 << 20, 3)
    assert limits(log("local")) == (20 << 20, 5)
    assert limits(log(max_size="5m", max_file="2")) == (5 << 20, 2)
    assert limits(log(max_size="-1")) == (ANY, 3)
    assert limits(log("none")) == PASSAGE


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (log("file"), "no log driver named 'file'"),
        (log("none", max_size="1m"), "unknown log opt 'max-size' for none"),
        (log(size="1m"), "unknown log opt 'size'"),
        (log(max_size="much"), "invalid value 'much'"),
        (log(max_size="0"), "1 or more"),
        (log(max_file="0"), "1 or more"),
        (log(max_file="-1"), "1 or more"),
        (log(max_file="1001"), "1 or more"),
        (log(mode="sometimes"), "can only be"),
        (log(max_buffer_size="1m"), "only supported with 'mode=non-blocking'"),
        (log(mode="non-blocking", max_buffer_size="0"), "1 or more"),
        (log(mode="non-blocking", max_buffer_size="much"), "much"),
        (log(env_regex="("), "not a regular expression"),
        (log(compress="maybe"), "true or false"),
    ],
)
def test_what_cannot_be_meant(wanted: Logging, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        check(wanted)


@pytest.mark.parametrize("wanted", [log("syslog"), log("fluentd"), log(compress="true")])
def test_what_is_not_there_yet_is_refused_by_name(wanted: Logging) -> None:
    with pytest.raises(Unsupported, match="not there yet"):
        check(wanted)


@pytest.mark.parametrize(
    "wanted",
    [
        log("local", compress="false"),
        log(mode="blocking", labels="a,b", env="C", tag="x"),
        log(mode="non-blocking", max_buffer_size="4m", labels_regex="^a"),
    ],
)
def test_what_is_there(wanted: Logging) -> None:
    assert check(wanted) is wanted


def test_the_configuration_files_default(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    environ = {"CLOCHE_CONFIG": str(file)}
    file.write_text('[log]\ndriver = "local"\noptions = { max-size = "1m", max-file = "9" }\n')
    assert settle(log(), environ) == log("local", max_size="1m", max_file="9")
    assert settle(log(max_file="2"), environ) == log("local", max_size="1m", max_file="2"), "more is asked for"
    assert settle(log("json-file"), environ) == log("json-file"), "another is asked for"
    file.write_text('[registry."x"]\ninsecure = true\n')
    assert settle(log(), environ) == log()


NO_FILES = (
    "[log]\ndrive = 1",
    "[log]\ndriver = 1",
    "[log]\noptions = 1",
    "log = 1",
    '[log]\ndriver = "gelf"',
    "x",
    "[log]\noptions = { max-size = 1 }",
)


@pytest.mark.parametrize("text", NO_FILES)
def test_a_configuration_file_that_is_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(Error):
        settle(log(), {"CLOCHE_CONFIG": str(file)})
