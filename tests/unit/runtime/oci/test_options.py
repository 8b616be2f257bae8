"""The command line, read."""

from __future__ import annotations

import pytest

from cloche.errors import Invalid
from cloche.runtime.oci.options import COMMANDS, help_of, parse_command, parse_global


def test_global_options_end_at_the_command() -> None:
    given, command, rest = parse_global(["--root", "/r", "--log=/l", "--debug", "create", "--bundle", "/b", "id"])
    assert (given.text("root"), given.text("log"), given.flag("debug")) == ("/r", "/l", True)
    assert (command, rest) == ("create", ["--bundle", "/b", "id"])


@pytest.mark.parametrize(
    "words", [["--bundle", "/b", "id"], ["-b", "/b", "id"], ["--bundle=/b", "id"], ["id", "-b=/b"]]
)
def test_every_way_to_write_an_option_is_the_same(words: list[str]) -> None:
    given = parse_command("create", words)
    assert (given.text("bundle"), given.arguments) == ("/b", ("id",))


def test_one_dash_does_for_two_as_go_takes_it() -> None:
    assert parse_command("delete", ["-force", "id"]).flag("force")


def test_what_follows_execs_id_is_another_programs() -> None:
    given = parse_command("exec", ["-t", "--env", "A=1", "-e", "B=2", "id", "ls", "-l", "--env", "C=3"])
    assert given.many("env") == ("A=1", "B=2")
    assert given.arguments == ("id", "ls", "-l", "--env", "C=3")


def test_two_dashes_end_the_options() -> None:
    assert parse_command("kill", ["--", "id", "-9"]).arguments == ("id", "-9")


@pytest.mark.parametrize(("text", "meant"), [("true", True), ("1", True), ("false", False), ("0", False)])
def test_a_flag_may_have_a_value(text: str, meant: bool) -> None:
    assert parse_command("delete", [f"--force={text}", "id"]).flag("force") is meant


@pytest.mark.parametrize(
    ("command", "words", "cause"),
    [
        ("create", [], "create: 0 arguments"),
        ("create", ["a", "b"], "create: 2 arguments"),
        ("create", ["--nope", "a"], "unknown option 'nope'"),
        ("create", ["a", "--bundle"], "option --bundle: its value is missing"),
        ("delete", ["--force=maybe", "a"], "expected true or false"),
        ("fly", [], "there is no command 'fly'"),
    ],
)
def test_what_is_not_meant_is_named(command: str, words: list[str], cause: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_command(command, words)
    assert cause in str(caught.value)


@pytest.mark.parametrize("number", ["-1", "x", "1e3", "٣", "9" * 30])
def test_a_number_is_a_whole_one(number: str) -> None:
    given = parse_command("create", [f"--preserve-fds={number}", "id"])
    with pytest.raises(Invalid, match="whole number"):
        given.number("preserve-fds")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    text = help_of(command)
    assert text.startswith(f"cloche-oci {command}")
    assert all("--" + option.names[0] in text for option in COMMANDS[command].options)
    assert parse_command(command, ["--help"]).flag("help")
    assert f"  {command} " in help_of()
