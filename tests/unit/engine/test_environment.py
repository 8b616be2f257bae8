"""Environment variables: the caller's, files of them, an image's and a request's together."""

from __future__ import annotations

import pytest

from cloche.engine.environment import merge, read_variables, variable, variables
from cloche.errors import Invalid

CALLER = {"HOME": "/root", "EMPTY": "", "ODD": "\x1b[2J\n"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=b", "A=b"),
        ("A=", "A="),
        ("A=b=c", "A=b=c"),
        ("A= b ", "A= b "),
        ("HOME", "HOME=/root"),
        ("EMPTY", "EMPTY="),
        ("ODD", "ODD=\x1b[2J\n"),
        ("NOT_THERE", "NOT_THERE"),
        ("A=\x1b[31m", "A=\x1b[31m"),
    ],
)
def test_one_variable(text: str, expected: str) -> None:
    assert variable(text, CALLER) == expected


@pytest.mark.parametrize("text", ["", "=", "=x", "A=\0", "A\0=x"])
def test_what_is_no_variable(text: str) -> None:
    with pytest.raises(Invalid, match="invalid environment variable") as caught:
        variable(text, CALLER)
    assert str(caught.value).isprintable()


def test_several_keep_their_order() -> None:
    assert variables(["B=1", "HOME", "B=2"], CALLER) == ("B=1", "HOME=/root", "B=2")


def test_a_file() -> None:
    content = (
        b'\xef\xbb\xbf# comment\n\nA=b\r\n  C = d \n\tHOME\n  NOT_THERE  \nQ="quoted"\nE=\nX=y # no comment\nU=\xc3\xa9'
    )
    with pytest.raises(Invalid, match="line 4: variable 'C ' contains whitespaces"):
        read_variables(content, "vars", CALLER)
    found = read_variables(content.replace(b"C =", b"C="), "vars", CALLER)
    assert found == ("A=b", "C= d ", "HOME=/root", "NOT_THERE", 'Q="quoted"', "E=", "X=y # no comment", "U=é")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"=x", "line 1: no variable name on line '=x'"),
        (b"A=b\nB C=x", "line 2: variable 'B C' contains whitespaces"),
        (b"A B", "line 1: variable 'A B' contains whitespaces"),
        (b"A=\xff", "line 1: invalid utf8 bytes"),
        (b"A=\x00", "line 1: variable 'A' has a NUL byte in it"),
    ],
)
def test_a_file_that_cannot_be_read(content: bytes, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_variables(content, "the\nfile", CALLER)
    assert message in str(caught.value)
    assert str(caught.value).startswith("read the environment file the\\nfile")


def test_a_request_over_an_image() -> None:
    image = ("PATH=/bin", "A=1", "B=2")
    assert merge(image, ("A=3", "C=4", "B", "NOT_THERE", "C=5")) == ("PATH=/bin", "A=3", "C=5")
