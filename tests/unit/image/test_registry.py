"""What is said to registries and about them: challenges, credentials, configuration, redirects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.errors import Error, Invalid
from cloche.image import credentials
from cloche.image.challenge import challenges
from cloche.image.credentials import HUB, Credentials
from cloche.image.registries import endpoints, is_loopback


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ('Basic realm="here"', [("basic", {"realm": "here"})]),
        (
            'Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push"',
            [
                (
                    "bearer",
                    {"realm": "https://auth.example/token", "service": "reg", "scope": "repository:a/b:pull,push"},
                )
            ],
        ),
        ('Bearer realm=x, Basic realm="y \\"z\\""', [("bearer", {"realm": "x"}), ("basic", {"realm": 'y "z"'})]),
        ("Negotiate", [("negotiate", {})]),
        ("BEARER  REALM = x", [("bearer", {"realm": "x"})]),
        ("", []),
        (",,,", []),
        ('Bearer realm="unended', [("bearer", {"realm": "unended"})]),
    ],
)
def test_challenges_are_read(header: str, found: list[tuple[str, dict[str, str]]]) -> None:
    assert [(c.scheme, dict(c.parameters)) for c in challenges(header)] == found


@given(st.text(max_size=300))
def test_no_header_is_too_strange(header: str) -> None:
    for challenge in challenges(header):
        assert challenge.scheme == challenge.scheme.lower()


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "127.0.0.1:80", "127.9.9.9", "[::1]:5000"])
def test_what_is_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["localhost.evil.org", "127.evil.org", "10.0.0.1", "[::2]:1", "example.org:127", ""])
def test_what_is_not(host: str) -> None:
    assert not is_loopback(host)


def test_credentials_are_kept_and_forgotten(tmp_path: Path) -> None:
    file = str(tmp_path / "docker/config.json")
    assert credentials.find(file, "a.b") == Credentials()
    assert credentials.store(file, "a.b:5000", Credentials("me", "p:w")) == file
    credentials.store(file, "docker.io", Credentials("hub", "secret", "token"))
    assert Path(file).stat().st_mode & 0o777 == 0o600
    assert set(json.loads(Path(file).read_text())["auths"]) == {"a.b:5000", HUB}
    assert credentials.find(file, "a.b:5000") == Credentials("me", "p:w")
    assert credentials.find(file, "docker.io") == Credentials("hub", "secret", "token")
    assert credentials.find(file, "a.b") == Credentials()
    assert credentials.forget(file, "a.b:5000") and not credentials.forget(file, "a.b:5000")
    assert "secret" not in repr(Credentials("hub", "secret"))


def test_other_keys_of_the_file_stay(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"detachKeys": "ctrl-a", "auths": {"https://old.example/v1/": {"auth": "bWU6cHc="}}}')
    assert credentials.find(str(file), "old.example") == Credentials("me", "pw")
    credentials.store(str(file), "new.example", Credentials("me", "pw"))
    kept = json.loads(file.read_text())
    assert kept["detachKeys"] == "ctrl-a" and set(kept["auths"]) == {"https://old.example/v1/", "new.example"}


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": {"a.b": {"auth": "!"}}}', '{"credsStore": "../../evil"}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(Error):
        credentials.find(str(tmp_path / "config.json"), "a.b")


def test_where_a_registry_is(tmp_path: Path) -> None:
    nothing = {"CLOCHE_CONFIG": str(tmp_path / "config.toml")}
    (tmp_path / "config.toml").write_text("")
    assert [(e.host, e.schemes) for e in endpoints("docker.io", nothing)] == [("registry-1.docker.io", ("https",))]
    assert endpoints("localhost:5000", nothing)[0].schemes == ("https", "http")
    (tmp_path / "config.toml").write_text(
        '[registry."a.b"]\ninsecure = true\nmirrors = ["https://m.example", "http://127.0.0.1:5000/"]\n'
    )
    found = endpoints("a.b", nothing)
    assert [(e.host, e.insecure, e.schemes) for e in found] == [
        ("m.example", False, ("https",)),
        ("127.0.0.1:5000", True, ("http",)),
        ("a.b", True, ("https", "http")),
    ]


@pytest.mark.parametrize(
    "text",
    ["x", "a = 1", "[registry.x]\nb = 1", "registry = 1", '[registry.x]\nmirrors = "y"', "[registry.x]\ninsecure = 1"],
)
def test_a_configuration_that_cannot_be_meant(tmp_path: Path, text: str) -> None:
    (tmp_path / "c").write_text(text)
    with pytest.raises(Invalid):
        endpoints("x", {"CLOCHE_CONFIG": str(tmp_path / "c")})


@pytest.mark.parametrize(
    "mirror", ["m.example", "http://m.example", "ftp://x", "https://user@x", "https://x/path", "https://"]
)
def test_mirrors_that_are_not_safe(tmp_path: Path, mirror: str) -> None:
    (tmp_path / "c").write_text(f'[registry.x]\nmirrors = ["{mirror}"]\n')
    with pytest.raises(Invalid, match="use the mirror"):
        endpoints("x", {"CLOCHE_CONFIG": str(tmp_path / "c")})
