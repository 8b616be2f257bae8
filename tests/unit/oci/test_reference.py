"""Names of images mean what they mean to Docker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.errors import Invalid
from cloche.oci.reference import Reference, parse

SHA = "sha256:" + "f" * 64


@pytest.mark.parametrize(
    ("text", "whole", "familiar"),
    [
        ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
        ("library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("index.docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("index.docker.io/foo/bar:1", "docker.io/foo/bar:1", "foo/bar:1"),
        ("docker.io/library/foo/bar", "docker.io/library/foo/bar:latest", "library/foo/bar:latest"),
        ("user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("test_com/foo", "docker.io/test_com/foo:latest", "test_com/foo:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost", "docker.io/library/localhost:latest", "localhost:latest"),
        ("host:5000", "docker.io/library/host:5000", "host:5000"),
        ("host:5000/app", "host:5000/app:latest", "host:5000/app:latest"),
        ("test-com:8080/foo/bar:Tag_1.x", "test-com:8080/foo/bar:Tag_1.x", "test-com:8080/foo/bar:Tag_1.x"),
        ("192.168.0.1", "docker.io/library/192.168.0.1:latest", "192.168.0.1:latest"),
        ("192.168.0.1:80", "docker.io/library/192.168.0.1:80", "192.168.0.1:80"),
        ("192.168.0.1:8/debian", "192.168.0.1:8/debian:latest", "192.168.0.1:8/debian:latest"),
        ("[fc00::1]:5000/docker", "[fc00::1]:5000/docker:latest", "[fc00::1]:5000/docker:latest"),
        ("[2001:db8::1]/repo:tag", "[2001:db8::1]/repo:tag", "[2001:db8::1]/repo:tag"),
        ("Docker/docker", "Docker/docker:latest", "Docker/docker:latest"),
        ("xn--n3h.com/myimage:xn--n3h.com", "xn--n3h.com/myimage:xn--n3h.com", "xn--n3h.com/myimage:xn--n3h.com"),
        ("docker---rules/dock__er", "docker.io/docker---rules/dock__er:latest", "docker---rules/dock__er:latest"),
        ("foo_bar.com:8080", "docker.io/library/foo_bar.com:8080", "foo_bar.com:8080"),
        (f"redis@{SHA}", f"docker.io/library/redis@{SHA}", f"redis@{SHA}"),
        (f"busybox:latest@{SHA}", f"docker.io/library/busybox:latest@{SHA}", f"busybox:latest@{SHA}"),
        (f"a.b/c@sha512:{'0' * 128}", f"a.b/c@sha512:{'0' * 128}", f"a.b/c@sha512:{'0' * 128}"),
        ("docker.io/" + "1a" * 32, f"docker.io/library/{'1a' * 32}:latest", f"{'1a' * 32}:latest"),
        ("dbcc1", "docker.io/library/dbcc1:latest", "dbcc1:latest"),
        ("a/" * 127 + "a:tag-puts-this-over-max", "docker.io/" + "a/" * 127 + "a:tag-puts-this-over-max", None),
        ("a:" + "t" * 128, "docker.io/library/a:" + "t" * 128, "a:" + "t" * 128),
    ],
)
def test_a_name_is_made_whole(text: str, whole: str, familiar: str | None) -> None:
    reference = parse(text)
    assert str(reference) == whole
    assert familiar is None or reference.familiar() == familiar
    assert parse(whole) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":justtag",
        f"@{SHA}",
        "repo@sha256:ffffffffffffffffffffffffffffffffff",
        f"repo@sha256:{'F' * 64}",
        f"validname@invaliddigest:{'f' * 64}",
        "repo@",
        "repo:",
        "repo: ",
        "Uppercase:tag",
        "test:5000/Uppercase/lowercase:tag",
        "https://github.com/docker/docker",
        "docker/Docker",
        "-docker",
        "-docker/docker",
        "docker-/docker",
        "-docker.io/docker/docker",
        "docker///docker",
        "docker/",
        "/docker",
        "docker.io/docker///docker",
        "____/____",
        "_docker/_docker",
        "dock..er/docker",
        "dock_.er/docker",
        "dock-.er/docker",
        "dock___er/docker",
        "[fc00::1]",
        "[fc00::1]:5000",
        "[]/x",
        "[fc00::1/x",
        "[fc00::1]x/y",
        "fc00::1:5000/debian",
        "[fe80::1%eth0]:5000/debian",
        "[fe80::1%@invalidzone]:5000/repo",
        "[2001:db8:3:4::192.0.2.33]:5000/debian",
        "1a" * 32,
        "a:" + "t" * 129,
        "a:-t",
        "a:.t",
        "a/" * 128 + "a:tag",
        "aa/asdf$$^/aa",
        "host:/app",
        "host:٣/app",
        "a\u00e4b",
        "a b",
        "a\nb",
        "a\0b",
        "café.com/x",
        "..",
        "../../etc",
        "a/../b",
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="invalid reference format") as caught:
        parse(text)
    assert str(caught.value).isprintable()


def test_the_key_of_a_name_with_a_digest_leaves_the_tag_out() -> None:
    assert parse(f"alpine:3@{SHA}").key == f"docker.io/library/alpine@{SHA}"
    assert parse("alpine").key == "docker.io/library/alpine:latest"


@given(st.text(alphabet="aZ0.:/@-_[]%f ", max_size=30))
def test_what_is_accepted_reads_the_same_again(text: str) -> None:
    try:
        reference = parse(text)
    except Invalid:
        return
    assert parse(str(reference)) == reference
    assert parse(reference.familiar()) == reference
    assert isinstance(reference, Reference) and (reference.tag or reference.digest)
