"""Layers, overlays and the trash on the real kernel: owners, devices, attributes, and what an overlay makes of
whiteouts."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_IMODE, S_ISBLK, S_ISCHR

import pytest

import probes
from archives import folder, hardlink, member, symlink, tar_of
from cloche.errors import Conflict, Error, Invalid, NotFound, Unsupported
from cloche.kernel import filesystems
from cloche.plan.mounts import overlay_data
from cloche.step.rootfs import Overlay
from cloche.storage import overlay
from cloche.storage.layers import unpack
from cloche.storage.trash import discard, empty_trash
from probes import requires

pytestmark = [requires("root"), pytest.mark.usefixtures("private_mounts")]

Made = tuple[tarfile.TarInfo, bytes]
NULL = {"kind": tarfile.CHRTYPE}
MS_BIND = 0x1000


def make(path: Path, *members: Made, lower: tuple[Path, ...] = ()) -> Path:
    unpack(io.BytesIO(tar_of(*members)), str(path), [str(each) for each in lower])
    return path


@contextmanager
def mounted(kind: str, target: Path, data: str = "", directory: str = "/") -> Iterator[Path]:
    target.mkdir(exist_ok=True)
    before = os.getcwd()
    os.chdir(directory)
    try:
        probes.mount(kind, str(target), kind, 0, data)
    finally:
        os.chdir(before)
    try:
        yield target
    finally:
        assert probes.libc.umount2(str(target).encode(), 0) == 0


@contextmanager
def merged(place: Path, *layers: Path) -> Iterator[Path]:
    """Layers, bottom first, as an overlay shows them."""
    if len(layers) == 1:
        (place / "none").mkdir()
        layers = (place / "none", *layers)
    with mounted("overlay", place / "merged", "lowerdir=" + ":".join(map(str, reversed(layers)))) as root:
        yield root


def names(root: Path) -> list[str]:
    """Every path below, folders with a slash."""
    paths = [Path(at, name) for at, folders, files in os.walk(root) for name in folders + files]
    return sorted(f"{path.relative_to(root)}{'' if path.is_symlink() or not path.is_dir() else '/'}" for path in paths)


def test_owners_and_modes_are_kept(tmp_path: Path) -> None:
    root = make(
        tmp_path / "layer",
        folder("home", mode=0o2770, owner=(1000, 100)),
        member("home/tool", b"x", mode=0o6755, owner=(1000, 4_000_000_000)),
        member("plain", mode=0o400, owner=(0, 0)),
        member("home/inherits", owner=(0, 0)),
        symlink("link", "home", owner=(4_294_967_294, 7)),
        member("pipe", kind=tarfile.FIFOTYPE, mode=0o606, owner=(3, 4)),
        hardlink("same", "home/tool"),
    )
    found = {
        name: os.lstat(root / name) for name in ("home", "home/tool", "plain", "home/inherits", "link", "pipe", "same")
    }
    assert {name: (s.st_uid, s.st_gid, oct(S_IMODE(s.st_mode))) for name, s in found.items()} == {
        "home": (1000, 100, "0o2770"),
        "home/tool": (1000, 4_000_000_000, "0o6755"),
        "plain": (0, 0, "0o400"),
        "home/inherits": (0, 0, "0o644"),
        "link": (4_294_967_294, 7, "0o777"),
        "pipe": (3, 4, "0o606"),
        "same": (1000, 4_000_000_000, "0o6755"),
    }


def test_a_store_in_a_setgid_folder_does_not_leak_into_layers(tmp_path: Path) -> None:
    os.chown(tmp_path, 0, 1234)
    os.chmod(tmp_path, 0o2755)
    root = make(
        tmp_path / "layer", folder("d", owner=(0, 0)), member("d/f", owner=(0, 0)), symlink("l", "d", owner=(0, 0))
    )
    assert {os.lstat(root / name).st_gid for name in ("d", "d/f", "l")} == {0}
    assert {S_IMODE(os.lstat(root / name).st_mode) for name in ("", "d")} == {0o755}


def test_devices_are_made(tmp_path: Path) -> None:
    root = make(
        tmp_path / "layer",
        member("null", kind=tarfile.CHRTYPE, device=(1, 3), mode=0o666, owner=(0, 5)),
        member("disk", kind=tarfile.BLKTYPE, device=(4000, 1_000_000), mode=0o640),
    )
    null, disk = os.stat(root / "null"), os.stat(root / "disk")
    assert S_ISCHR(null.st_mode) and (S_IMODE(null.st_mode), null.st_gid) == (0o666, 5)
    assert (os.major(null.st_rdev), os.minor(null.st_rdev)) == (1, 3)
    assert S_ISBLK(disk.st_mode) and (os.major(disk.st_rdev), os.minor(disk.st_rdev)) == (4000, 1_000_000)


CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw+ep


def xattrs(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


NOT_KEPT = {
    "user.overlay.opaque": b"y",
    "trusted.overlay.opaque": b"y",
    "trusted.overlay.redirect": b"/etc",
    "trusted.overlay.metacopy": b"",
    "trusted.other": b"x",
    "security.selinux": b"x",
    "security.ima": b"x",
    "system.posix_acl_access": b"x",
}


def with_attributes(path: Path, given: dict[str, bytes]) -> Path:
    pax = {f"SCHILY.xattr.{name}": os.fsdecode(value) for name, value in given.items()}
    return make(
        path,
        folder("d", pax=pax),
        member("d/ping", b"x", mode=0o755, owner=(5, 5), pax=pax),
        symlink("link", "d", pax=pax),
        member("pipe", kind=tarfile.FIFOTYPE, pax=pax),
    )


def test_capabilities_are_kept_and_other_attributes_not(tmp_path: Path) -> None:
    root = with_attributes(tmp_path / "layer", {"security.capability": CAPABILITY, **NOT_KEPT})
    assert xattrs(root / "d/ping") == {"security.capability": CAPABILITY}
    assert xattrs(root / "d") == {}
    assert os.listxattr(root / "link", follow_symlinks=False) == []
    top = make(tmp_path / "top", hardlink("copy", "d/ping"), lower=(root,))
    assert xattrs(top / "copy") == {"security.capability": CAPABILITY}


def test_user_attributes_are_kept(tmp_path: Path) -> None:
    kept = {"user.mark": b"a\0b\xff", "user.empty": b""}
    try:
        os.setxattr(tmp_path, "user.mark", b"x")
    except OSError as e:
        pytest.skip(f"no user attributes on {filesystems.type_of(str(tmp_path))}: {e.strerror}")
    root = with_attributes(tmp_path / "layer", kept)
    assert xattrs(root / "d/ping") == xattrs(root / "d") == kept
    top = make(tmp_path / "top", member("d/new"), lower=(root,))
    assert xattrs(top / "d") == kept, "a parent that the tar leaves out looks as below"


BELOW = [
    folder("etc", mode=0o750, owner=(0, 42)),
    member("etc/passwd", b"old"),
    member("etc/group", b"old"),
    folder("etc/deep"),
    member("etc/deep/file"),
    folder("opt"),
    member("opt/a"),
    folder("opt/sub"),
    member("opt/sub/b"),
    symlink("link", "etc"),
]


@pytest.mark.parametrize(
    ("above", "gone", "new"),
    [
        ([member("etc/.wh.passwd")], ["etc/passwd"], []),
        ([folder("etc", mode=0o750, owner=(0, 42)), member("etc/.wh.deep")], ["etc/deep/", "etc/deep/file"], []),
        ([member(".wh.opt")], ["opt/", "opt/a", "opt/sub/", "opt/sub/b"], []),
        ([member("opt/.wh..wh..opq")], ["opt/a", "opt/sub/", "opt/sub/b"], []),
        ([member("opt/new"), member("opt/.wh..wh..opq")], ["opt/a", "opt/sub/", "opt/sub/b"], ["opt/new"]),
        ([member("opt/.wh..wh..opq"), member("opt/sub/new")], ["opt/a", "opt/sub/b"], ["opt/sub/new"]),
        ([member(".wh.link")], ["link"], []),
        ([member(".wh.gone"), member("etc/.wh.gone"), member("opt/.wh.gone")], [], []),
        ([member(".wh.opt"), folder("opt"), member("opt/new")], ["opt/a", "opt/sub/", "opt/sub/b"], ["opt/new"]),
        ([folder("opt"), member("opt/new"), member(".wh.opt")], ["opt/a", "opt/sub/", "opt/sub/b"], ["opt/new"]),
        ([member(".wh.opt"), member("opt/new")], ["opt/a", "opt/sub/", "opt/sub/b"], ["opt/new"]),
        ([member(".wh.opt"), member("opt")], ["opt/", "opt/a", "opt/sub/", "opt/sub/b"], ["opt"]),
        ([member(".wh.opt"), member("opt"), folder("opt")], ["opt/a", "opt/sub/", "opt/sub/b"], []),
        ([member("etc/passwd", b"new"), member("etc/.wh.passwd")], [], []),
        ([member("etc/.wh.passwd"), member("etc/passwd", b"new")], [], []),
        ([member("opt", b"now a file")], ["opt/", "opt/a", "opt/sub/", "opt/sub/b"], ["opt"]),
        ([folder("link"), member("link/x")], ["link"], ["link/", "link/x"]),
        ([member("etc/passwd", **NULL)], ["etc/passwd"], []),
        ([member(".wh..wh.aufs"), folder(".wh..wh.plnk"), member(".wh..wh.plnk/1.2"), member("etc/.wh..wh.x")], [], []),
    ],
    ids=lambda value: ",".join(info.name for info, _ in value) if value and isinstance(value[0], tuple) else "",
)
@requires("overlay")
def test_an_overlay_shows_what_the_specification_says(
    tmp_path: Path, above: list[Made], gone: list[str], new: list[str]
) -> None:
    bottom = make(tmp_path / "bottom", *BELOW)
    top = make(tmp_path / "top", *above, lower=(bottom,))
    with merged(tmp_path, bottom, top) as root:
        assert names(root) == sorted({*names(bottom), *new} - set(gone))
        if (root / "etc").exists():
            status = (root / "etc").stat()
            assert (S_IMODE(status.st_mode), status.st_gid) == (0o750, 42)
    assert not [name for name in names(top) if ".wh." in name]


@requires("overlay")
def test_whiteouts_of_what_is_already_gone_are_not_seen(tmp_path: Path) -> None:
    """In a directory that only one layer has, an overlay would show the mark itself."""
    bottom = make(tmp_path / "bottom", *BELOW)
    middle = make(tmp_path / "middle", member(".wh.opt"), member("etc/.wh.passwd"), lower=(bottom,))
    top = make(tmp_path / "top", folder("opt"), member("opt/.wh.a"), member("etc/.wh.passwd"), lower=(middle, bottom))
    alone = make(tmp_path / "alone", member(".wh.x"), folder("d"), member("d/.wh.y"), member("d/.wh..wh..opq"))
    assert names(alone) == ["d/"]
    with merged(tmp_path, bottom, middle, top) as root:
        assert names(root / "opt") == []
        wanted = {name for name in names(bottom) if not name.startswith("opt/")} - {"etc/passwd"}
        assert names(root) == sorted({*wanted, "opt/"})


@pytest.mark.parametrize("name", [".wh.", "d/.wh.", ".wh..", ".wh...", "d/.wh...", ".wh.a/b", "d/.wh..wh..opq/x"])
def test_whiteouts_of_nothing_and_below_whiteouts_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(Invalid, match="whiteout"):
        make(tmp_path / "layer", folder("d"), member(name), lower=(tmp_path,))
    assert (tmp_path / "precious").read_text() == "x"


def test_a_hard_link_to_what_is_hidden_is_refused(tmp_path: Path) -> None:
    bottom = make(tmp_path / "bottom", *BELOW)
    for number, made in enumerate(([member("etc/.wh.passwd")], [member("etc/.wh..wh..opq")], [member(".wh.etc")])):
        middle = make(tmp_path / f"middle{number}", *made, lower=(bottom,))
        with pytest.raises(Invalid, match="which is no file"):
            make(tmp_path / f"top{number}", hardlink("x", "etc/passwd"), lower=(middle, bottom))
    with pytest.raises(Invalid, match="which is no file"):
        make(tmp_path / "top", member("etc/.wh.passwd"), hardlink("x", "etc/passwd"), lower=(bottom,))


@requires("program:tar")
def test_a_real_tree_comes_out_as_tar_unpacks_it(tmp_path: Path) -> None:
    """Of this host's own /etc, with its owners, modes, times and links."""
    command = ["tar", "-C", "/etc", "--format=posix", "--xattrs", "--one-file-system", "-cf", tmp_path / "etc.tar", "."]
    subprocess.run(command, check=True, capture_output=True)
    with (tmp_path / "etc.tar").open("rb") as source:
        unpack(source, str(tmp_path / "ours"))
    (tmp_path / "theirs").mkdir()
    subprocess.run(["tar", "-C", tmp_path / "theirs", "-xpf", tmp_path / "etc.tar", "--same-owner"], check=True)

    def described(root: Path) -> dict[str, tuple[object, ...]]:
        found = {}
        for name in [".", *names(root)]:
            path = root / name
            s = path.lstat()
            content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
            found[name] = (s.st_mode, s.st_uid, s.st_gid, s.st_mtime_ns, s.st_nlink, content)
        return found

    ours = described(tmp_path / "ours")
    assert ours == described(tmp_path / "theirs") and len(ours) > 100


# Snapshots


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with three layers."""
    for number, members in enumerate(
        (
            [folder(".", mode=0o711), folder("etc"), member("etc/a", b"1"), member("etc/b", b"1")],
            [member("etc/a", b"2"), member("etc/.wh.b")],
            [folder(".", mode=0o751, owner=(7, 8)), member("top")],
        ),
        1,
    ):
        (tmp_path / f"layers/{number}").mkdir(parents=True)
        lower = tuple(tmp_path / f"layers/{n}/diff" for n in range(number - 1, 0, -1))
        make(tmp_path / f"layers/{number}/diff", *members, lower=lower)
    return tmp_path


@requires("overlay")
def test_a_snapshot_can_be_mounted_and_written(root: Path) -> None:
    overlay.probe(str(root))
    snapshots = [overlay.prepare(str(root), name, (1, 2, 3)) for name in ("one", "two")]
    roots = [snapshot.mounts[0] for snapshot in snapshots]
    assert isinstance(roots[0], Overlay) and isinstance(roots[1], Overlay)
    assert roots[0].lower == ("3/diff", "2/diff", "1/diff") and roots[0].directory == str(root / "layers")
    before = [names(root / f"layers/{n}/diff") for n in (1, 2, 3)]
    with (
        mounted("overlay", root / "m1", overlay_data(roots[0]), roots[0].directory) as one,
        mounted("overlay", root / "m2", overlay_data(roots[1]), roots[1].directory) as two,
    ):
        status = one.stat()
        assert (S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o751, 7, 8)
        assert names(one) == ["etc/", "etc/a", "top"] and (one / "etc/a").read_text() == "2"
        (one / "etc/a").write_text("mine")
        (one / "new").mkdir()
        (one / "top").unlink()
        assert (one / "etc/a").read_text() == "mine" and (two / "etc/a").read_text() == "2"
        assert names(two) == ["etc/", "etc/a", "top"]
        with pytest.raises(OSError, match="cross-device"):
            os.rename(one / "etc", one / "etc2")
    assert names(root / "containers/one/upper") == ["etc/", "etc/a", "new/", "top"]
    assert [names(root / f"layers/{n}/diff") for n in (1, 2, 3)] == before
    overlay.remove(str(root), "one")
    overlay.remove(str(root), "one")
    assert os.listdir(root / "containers") == ["two"]
    assert empty_trash(str(root)) and os.listdir(root / "trash") == []


@requires("overlay")
def test_many_layers_can_be_mounted(root: Path) -> None:
    for number in range(4, 201):
        (root / f"layers/{number}").mkdir()
        make(root / f"layers/{number}/diff", member(f"f{number}"))
    (top,) = overlay.prepare(str(root), "many", tuple(range(1, 201))).mounts
    assert isinstance(top, Overlay)
    with mounted("overlay", root / "m", overlay_data(top), top.directory) as merge:
        assert len([name for name in names(merge) if name.startswith("f")]) == 197


def test_a_snapshot_is_made_once_and_only_of_what_is_there(root: Path) -> None:
    overlay.prepare(str(root), "one", (1,))
    with pytest.raises(Conflict, match="it has files already"):
        overlay.prepare(str(root), "one", (1,))
    with pytest.raises(NotFound, match="the layer 9 is not there"):
        overlay.prepare(str(root), "two", (1, 9))
    with pytest.raises(Invalid):
        overlay.prepare(str(root), "two", ())
    assert os.listdir(root / "containers") == ["one"]


@requires("overlay")
def test_a_store_on_an_overlay_is_refused(root: Path) -> None:
    (top,) = overlay.prepare(str(root), "one", (1,)).mounts
    assert isinstance(top, Overlay)
    with mounted("overlay", root / "m", overlay_data(top), top.directory) as merge:
        assert filesystems.type_of(str(merge)) == "overlay"
        with pytest.raises(Unsupported, match="is on overlay, which cannot be the upper side; hint: set CLOCHE_ROOT"):
            overlay.probe(str(merge))


def test_a_kernel_without_overlay_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="No such device"):
        filesystems.probe("no-such-filesystem")

    real = filesystems.probe
    monkeypatch.setattr(filesystems, "probe", lambda name: real("no-such-filesystem"))
    with pytest.raises(Unsupported, match="no overlay file system; hint: "):
        overlay.probe(str(root))


# The trash


def mount_points(below: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if line.split()[4].startswith(f"{below}/")]


def test_the_trash_crosses_no_mount(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("still here")
    for name in ("bound", "deep/er/bound", "deep/other"):
        (tmp_path / "thing" / name).mkdir(parents=True)
    for name in ("file", "covered"):
        (tmp_path / "thing" / name).write_text("x")
    for source, name in ((outside, "bound"), (outside, "deep/er/bound"), (outside / "precious", "covered")):
        probes.mount(str(source), str(tmp_path / "thing" / name), "", MS_BIND)
    discard(str(tmp_path), str(tmp_path / "thing"))
    assert empty_trash(str(tmp_path)), "nothing more can be done for now"
    points = mount_points(tmp_path / "trash")
    assert len(points) == 3
    for point in points:
        assert point.endswith("covered") or os.listdir(point) == ["precious"]
        assert probes.libc.umount2(point.encode(), 0) == 0
    assert empty_trash(str(tmp_path)) and os.listdir(tmp_path / "trash") == []
    assert (outside / "precious").read_text() == "still here"


def test_a_mount_point_cannot_be_discarded(tmp_path: Path) -> None:
    with mounted("tmpfs", tmp_path / "thing") as thing:
        with pytest.raises(Error, match=r"EBUSY|EXDEV"):
            discard(str(tmp_path), str(thing))


@requires("overlay")
def test_a_really_full_disk(tmp_path: Path) -> None:
    """A layer does not fit; all that was made of it can be taken away although there is no room for one more name."""
    with mounted("tmpfs", tmp_path / "small", "size=256k,nr_inodes=60") as small:
        with pytest.raises(Error, match=r"no space left on device \(ENOSPC\)"):
            make(small / "big", folder("d"), *(member(f"d/{n}/f", b"x" * 20_000) for n in range(99)))
        discard(str(small), str(small / "big"))
        assert empty_trash(str(small))
        make(small / "little", member("f", b"x" * 20_000))
