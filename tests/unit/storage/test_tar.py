"""The tar reader agrees with tarfile and GNU tar on what they wrote, and refuses what nobody should have written."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archives import folder, hardlink, member, symlink, tar_of
from cloche.errors import Invalid
from cloche.storage import tar
from cloche.storage.tar import Member, TarReader
from probes import requires

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def in_chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def read(data: bytes, size: int = 1 << 20) -> list[tuple[Member, bytes]]:
    reader = TarReader(in_chunks(data, size), "read it")
    found = [(each, b"".join(map(bytes, reader.payload()))) for each in reader.members()]
    reader.drain()
    return found


def only(data: bytes) -> Member:
    ((found, _),) = read(data)
    return found


def header(**fields: bytes) -> bytes:
    """A ustar header of which some fields are as given."""
    values = {"name": b"f", "mode": b"0000644\0", "uid": b"0000000\0", "gid": b"0000000\0", "size": b"00000000000\0"}
    values |= {"mtime": b"00000000000\0", "kind": b"0", "link": b"", "magic": b"ustar\x0000", "prefix": b""}
    values |= fields
    places = {"name": (0, 100), "mode": (100, 8), "uid": (108, 8), "gid": (116, 8), "size": (124, 12)}
    places |= {"mtime": (136, 12), "kind": (156, 1), "link": (157, 100), "magic": (257, 8), "prefix": (345, 155)}
    block = bytearray(512)
    for key, (at, length) in places.items():
        block[at : at + len(values[key])] = values[key][:length]
    block[148:156] = b" " * 8
    block[148:156] = values.get("checksum", b"%06o\0 " % sum(block))
    return bytes(block)


def pax(*records: bytes) -> bytes:
    """A pax header of records given with their `key=value`, or whole where they start with a digit."""
    data = b""
    for record in records:
        length = len(record) + 3
        while len(b"%d " % length) + len(record) + 1 != length:
            length += 1
        data += record if record[:1].isdigit() else b"%d %s\n" % (length, record)
    return header(kind=b"x", size=b"%011o\0" % len(data)) + data + bytes(-len(data) % 512)


END = bytes(1024)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("size", [1, 511, 512, 4096, 1 << 20])
def test_members_are_read_as_tarfile_wrote_them(form: int, size: int) -> None:
    long = "d" * 90 + "/" + "f" * 60
    data = tar_of(
        folder("dir/", mode=0o1777),
        member("dir/file", b"x" * 1000, mode=0o4755, owner=(1000, 100)),
        member(long, b"long"),
        member("empty"),
        symlink("link", "../elsewhere"),
        hardlink("hard", "dir/file"),
        member("null", kind=tarfile.CHRTYPE, device=(1, 3)),
        member("disk", kind=tarfile.BLKTYPE, device=(8, 0)),
        member("pipe", kind=tarfile.FIFOTYPE),
        form=form,
    )
    found = read(data, size)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        wanted = archive.getmembers()
    assert len(found) == len(wanted) == 9
    for (each, payload), info in zip(found, wanted, strict=True):
        assert each.name.rstrip(b"/").decode() == info.name
        assert (each.mode, each.uid, each.gid, each.size) == (info.mode, info.uid, info.gid, info.size)
        assert (each.kind, each.target.decode()) == (info.type[0], info.linkname)
        assert each.mtime == info.mtime * 10**9
        assert (each.major, each.minor) == (info.devmajor, info.devminor)
        assert len(payload) == info.size
    assert found[1][1] == b"x" * 1000 and found[2][0].name.decode() == long


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_big_numbers(form: int) -> None:
    name, link = "n/" * 400 + "end", "l/" * 400 + "end"
    found = only(tar_of(symlink(name, link, owner=(4_000_000_000, 3_000_000_000), mtime=10**10), form=form))
    assert (found.name.decode(), found.target.decode()) == (name, link)
    assert (found.uid, found.gid, found.mtime) == (4_000_000_000, 3_000_000_000, 10**19)


def test_names_are_bytes() -> None:
    name = os.fsdecode(b"\xff\xfe name \n")
    for form in FORMATS:
        assert only(tar_of(member(name), form=form)).name == b"\xff\xfe name \n"


def test_pax_records() -> None:
    data = pax(
        b"path=real", b"mtime=1.5", b"uid=7", b"size=3", b"SCHILY.xattr.user.k=v\0=\n", b"SCHILY.xattr.user.e=", b"gid="
    )
    ((found, payload),) = read(data + header(gid=b"0000011\0") + b"abc" + bytes(509) + END)
    assert (found.name, found.mtime, found.uid, found.gid, payload) == (b"real", 1_500_000_000, 7, 9, b"abc")
    assert found.xattrs == (("user.k", b"v\0=\n"), ("user.e", b""))
    times = {b"-1": -(10**9), b"-1.5": -1_500_000_000, b"0.123456789123": 123_456_789, b"7.": 7 * 10**9}
    for text, wanted in times.items():
        assert only(pax(b"mtime=" + text) + header() + END).mtime == wanted


def test_records_count_for_the_next_member_only() -> None:
    first, second = (each for each, _ in read(pax(b"path=real", b"SCHILY.xattr.user.a=b") + header() + header() + END))
    assert (first.name, second.name, second.xattrs) == (b"real", b"f", ())


def test_a_global_header_changes_nothing() -> None:
    data = header(kind=b"g", size=b"00000000017\0") + b"15 path=global\n" + bytes(512 - 15)
    assert only(data + header() + END).name == b"f"


def test_what_is_old() -> None:
    assert only(header(kind=b"\0", name=b"dir/", magic=b"") + END).kind == tar.DIRECTORY
    assert only(header(kind=b"\0", name=b"file", magic=b"") + END).kind == tar.FILE
    assert only(header(kind=b"7") + END).kind == tar.FILE
    assert only(header(name=b"f", prefix=b"a/b") + END).name == b"a/b/f"
    assert only(header(name=b"f", prefix=b"junk", magic=b"ustar  \0") + END).name == b"f"
    assert only(header(mode=b" 644 \0 \0", uid=b"\0" * 8) + END).mode == 0o644


def test_checksums_with_signed_bytes_are_those_of_very_old_tars() -> None:
    plain = header(name=b"\xff\xfe")
    total = sum(b - 256 if b > 127 else b for b in plain[:148] + plain[156:]) + 256
    assert only(header(name=b"\xff\xfe", checksum=b"%06o\0 " % total) + END).name == b"\xff\xfe"


def test_binary_numbers() -> None:
    big = b"\x80" + (5 << 30).to_bytes(11, "big")
    assert only(header(kind=b"5", size=big) + END).size == 0, "directories have no payload, whatever they say"
    assert only(header(uid=b"\x80\0\0\0\xff\xff\xff\xfe") + END).uid == 0xFFFFFFFE
    assert only(header(mtime=b"\xff" * 12) + END).mtime == -(10**9)


def test_the_end_may_be_missing_where_a_member_ends() -> None:
    assert [each.name for each, _ in read(header())] == [b"f"]
    assert read(b"") == []
    assert read(END + b"junk that counts for the digest only") == []


@pytest.mark.parametrize("kind", [b"L", b"K", b"x"])
def test_an_announced_member_must_come(kind: bytes) -> None:
    data = header(kind=kind, size=b"00000000014\0") + b"12 path=abc\n" + bytes(500)
    for end in (b"", END):
        with pytest.raises(Invalid, match="where a member was announced"):
            read(data + end)


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"x" * 512,
        header()[:511],
        header(size=b"00000001000\0"),
        header(size=b"00000001000\0") + bytes(511),
        header(checksum=b"000000\0 ") + END,
        header(checksum=b"zzzzzz\0 ") + END,
        header(size=b"0000000000x\0") + END,
        header(size=b"-0000000001\0") + END,
        header(size=b"0o000000017\0") + END,
        header(size=b"00000000_17\0") + END,
        header(size=b"\xff" * 12) + END,
        header(size=b"\x80" + b"\xff" * 11) + END,
        header(kind=b"x", size=b"\x80" + bytes(7) + b"\x7f\xff\xff\xff") + END,
        header(kind=b"L", size=b"77777777777\0") + END,
        pax(b"0 path=a\n") + header() + END,
        pax(b"8 path=a\n") + header() + END,
        pax(b"99 path=a\n") + header() + END,
        pax(b"99999999999999999999 path=a\n") + header() + END,
        pax(b"6 abc\n") + header() + END,
        pax(b"path=a\0b") + header() + END,
        pax(b"linkpath=a\0b") + header() + END,
        pax(b"a\0b=c") + header() + END,
        pax(b"size=-1") + header() + END,
        pax(b"size=1e3") + header() + END,
        pax(b"size=" + b"9" * 19) + header() + END,
        pax(b"size=" + b"9" * 400) + header() + END,
        pax(b"uid=\xb2") + header() + END,
        pax(b"mtime=now") + header() + END,
        pax(b"mtime=" + b"9" * 400) + header() + END,
    ],
)
def test_damaged_archives_are_refused(data: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        read(data)
    assert str(caught.value).startswith("read it: ")


def test_archives_cut_anywhere_are_refused_or_end_between_members() -> None:
    data = tar_of(member("a" * 150, b"x" * 700), symlink("b", "c" * 150), form=tarfile.GNU_FORMAT)
    whole = [each.name for each, _ in read(data)]
    for end in range(0, len(data), 64):
        try:
            found = [each.name for each, _ in read(data[:end])]
        except Invalid:
            continue
        assert found == whole[: len(found)]


@settings(max_examples=300)
@given(st.binary(max_size=3), st.integers(0, 4000), st.integers(1, 700))
def test_no_damage_brings_anything_but_an_error(damage: bytes, at: int, size: int) -> None:
    data = bytearray(tar_of(member("a" * 150, b"x" * 700), folder("d", pax={"SCHILY.xattr.user.a": "b"})))
    data[at : at + len(damage)] = damage
    try:
        read(bytes(data), size)
    except Invalid:
        pass


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["name", "mode", "uid", "size", "mtime", "kind", "link", "magic", "prefix"]),
            st.binary(max_size=12),
        )
    )
)
def test_no_header_brings_anything_but_an_error(fields: list[tuple[str, bytes]]) -> None:
    try:
        read(header(**dict(fields)) + bytes(2048))
    except Invalid:
        pass


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=4))
def test_no_pax_record_brings_anything_but_an_error(records: list[bytes]) -> None:
    try:
        read(pax(*records) + header() + END)
    except Invalid:
        pass


def sparse_file(path: Path) -> bytes:
    """Data in pieces with holes between; as many as need GNU's extension blocks."""
    with path.open("wb") as file:
        for n in range(40):
            file.seek(n * 65536 + 4096)
            file.write(bytes([n + 1]) * 4096)
        file.truncate(40 * 65536)
    return path.read_bytes()


@requires("program:tar")
@pytest.mark.parametrize(
    "flags",
    [["--format=gnu"], *(["--format=posix", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))],
    ids=lambda flags: flags[-1],
)
def test_sparse_files_of_gnu_tar(tmp_path: Path, flags: list[str]) -> None:
    content = sparse_file(tmp_path / "holes")
    command = ["tar", "-C", tmp_path, "--sparse", "--hole-detection=raw", *flags, "-cf", "-", "holes"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    assert len(data) < len(content) / 4
    for size in (511, 1 << 20):
        ((found, payload),) = read(data, size)
        assert (found.name, found.kind, found.length) == (b"holes", tar.FILE, len(content))
        whole, at = bytearray(found.length), 0
        for offset, length in found.sparse or ():
            whole[offset : offset + length] = payload[at : at + length]
            at += length
        assert bytes(whole) == content and at == len(payload)


@pytest.mark.parametrize(
    ("records", "payload"),
    [
        ((b"GNU.sparse.map=0,4,2,4", b"GNU.sparse.size=100"), b"12345678"),
        ((b"GNU.sparse.map=96,8", b"GNU.sparse.size=100"), b"12345678"),
        ((b"GNU.sparse.map=0,4", b"GNU.sparse.size=100"), b"12345678"),
        ((b"GNU.sparse.map=0", b"GNU.sparse.size=100"), b"12345678"),
        ((b"GNU.sparse.map=0,x", b"GNU.sparse.size=100"), b"12345678"),
        ((b"GNU.sparse.map=0,8",), b"12345678"),
        ((b"GNU.sparse.map=0,8", b"GNU.sparse.size=" + b"9" * 19), b"12345678"),
        ((b"GNU.sparse.major=2", b"GNU.sparse.size=100"), b"12345678"),
        ((b"GNU.sparse.major=1", b"GNU.sparse.minor=0", b"GNU.sparse.realsize=9"), b"12345678"),
        ((b"GNU.sparse.major=1", b"GNU.sparse.minor=0", b"GNU.sparse.realsize=9"), b"1\n0\n9\n" + bytes(506)),
        ((b"GNU.sparse.major=1", b"GNU.sparse.minor=0", b"GNU.sparse.realsize=9"), b"9999999\n" * 64),
        ((b"GNU.sparse.major=1", b"GNU.sparse.minor=0", b"GNU.sparse.realsize=9"), b"2\n0\n1\n" + bytes(506)),
    ],
)
def test_hostile_sparse_maps_are_refused(records: tuple[bytes, ...], payload: bytes) -> None:
    data = pax(*records) + header(size=b"%011o\0" % len(payload)) + payload + bytes(-len(payload) % 512) + END
    with pytest.raises(Invalid):
        read(data)
