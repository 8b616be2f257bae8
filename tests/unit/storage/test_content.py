"""Content is there whole, under its digest, or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from cloche.errors import Error, Invalid, NotFound, Unsupported
from cloche.oci.digest import digest_of
from cloche.storage.content import Blob, ContentStore

DATA = b"some content" * 1000
DIGEST = digest_of(DATA)


@pytest.fixture
def content(tmp_path: Path) -> ContentStore:
    return ContentStore(str(tmp_path))


def left(content: ContentStore) -> list[str]:
    return os.listdir(content.root + "/aside")


def test_content_is_kept_and_read(content: ContentStore) -> None:
    assert content.ingest(io.BytesIO(DATA)) == Blob(DIGEST, len(DATA))
    assert content.ingest(io.BytesIO(DATA), DIGEST, len(DATA)) == Blob(DIGEST, len(DATA))
    assert content.has(DIGEST) and content.digests() == [DIGEST]
    with content.open(DIGEST) as file:
        assert file.read() == DATA
    assert Path(content.path(DIGEST)) == Path(content.root, "content/sha256", DIGEST[7:])
    assert Path(content.path(DIGEST)).stat().st_mode & 0o777 == 0o600
    assert not left(content)
    content.remove(DIGEST)
    content.remove(DIGEST)
    assert content.digests() == []


@pytest.mark.parametrize(
    ("digest", "size", "said"),
    [
        (digest_of(b"other"), None, "it has the digest"),
        (DIGEST, len(DATA) - 1, "larger than"),
        (DIGEST, len(DATA) + 1, "not 12001"),
        ("", 5, "larger than 5 bytes"),
    ],
)
def test_other_content_than_announced_is_refused(
    content: ContentStore, digest: str, size: int | None, said: str
) -> None:
    with pytest.raises(Invalid, match=said):
        content.ingest(io.BytesIO(DATA), digest, size)
    assert content.digests() == [] and not left(content)


def test_a_stream_that_breaks_leaves_nothing(content: ContentStore) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise OSError(5, "input/output error")
            return super().read(10)

    with pytest.raises(Error, match="EIO"):
        content.ingest(cast("BinaryIO", Broken(DATA)))
    assert content.digests() == [] and not left(content)


def test_a_stream_is_not_read_beyond_what_was_announced(content: ContentStore) -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return bytes(size)

    with pytest.raises(Invalid, match="larger than 100 bytes"):
        content.ingest(cast("BinaryIO", Endless()), size=100)


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../../etc/passwd", "sha256:" + "A" * 64, "x" * 64])
def test_what_is_no_digest_is_no_path(content: ContentStore, digest: str) -> None:
    with pytest.raises(Invalid):
        content.path(digest)


def test_what_is_not_there_is_not_found(content: ContentStore) -> None:
    with pytest.raises(NotFound, match="not in the store"):
        content.open(DIGEST)
    with pytest.raises(Unsupported):
        content.open("sha512:" + "0" * 128)
    assert not content.has(DIGEST)
