"""What goes into a packed image, and the layer made of it."""

from __future__ import annotations

import errno
import io
import os
import socket
import sys
import tarfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloche.errors import Error, Invalid, NotFound
from cloche.image.entries import Entry, is_secret, write_layer
from cloche.image.ldcache import CacheEntry, format_cache, parse_cache
from cloche.image.pack import PATH, Packing, collect, configure, create
from cloche.image.tree import Tree
from elf_files import write_elf

LOADER = "/lib64/ld-linux-x86-64.so.2"
BASE = {"dev", "etc", "proc", "root", "sys", "tmp"} | {
    f"etc/{name}" for name in ("group", "hostname", "hosts", "nsswitch.conf", "passwd", "resolv.conf")
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small host with a merged /usr: a shell, a library, a link to a program by way of /etc."""
    for name in ("bin", "sbin", "lib", "lib64"):
        (tmp_path / "usr" / name).mkdir(parents=True)
        (tmp_path / name).symlink_to(f"usr/{name}")
    write_elf(tmp_path / LOADER[1:], soname="ld-linux-x86-64.so.2")
    with (tmp_path / LOADER[1:]).open("ab") as file:
        file.write(b"\0/lib/\0/usr/lib/\0")
    write_elf(tmp_path / "usr/lib/libc.so.6.1", 0o644, soname="libc.so.6", strings=("GLIBC_2.34",))
    (tmp_path / "usr/lib/libc.so.6").symlink_to("libc.so.6.1")
    write_elf(tmp_path / "usr/bin/dash", interpreter=LOADER, needed=("libc.so.6",))
    (tmp_path / "usr/bin/sh").symlink_to("dash")
    (tmp_path / "etc").mkdir()
    return tmp_path


def gather(root: Path, *programs: str, add: tuple[str, ...] = (), path: str = "/usr/bin:/bin") -> Packing:
    return collect(programs, add, path, str(root))


def paths(packing: Packing) -> dict[str, Entry]:
    return {e.path: e for e in packing.entries}


def script(root: Path, path: str, first_line: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{first_line}\necho hi\n")
    file.chmod(0o755)


def layer(packing: Packing, root: Path, mtime: int = 0) -> bytes:
    out = io.BytesIO()
    write_layer(packing.entries, out, Tree(str(root)), mtime)
    return out.getvalue()


def test_a_program_comes_with_loader_library_and_every_link_on_the_way(root: Path) -> None:
    packing = gather(root, "sh")
    assert packing.programs == ("/usr/bin/sh",)
    found = paths(packing)
    links = {e.path: e.target for e in packing.entries if e.kind == "symlink"}
    assert links == {
        "bin": "usr/bin",
        "sbin": "usr/sbin",
        "lib": "usr/lib",
        "lib64": "usr/lib64",
        "usr/bin/sh": "dash",
        "usr/lib/libc.so.6": "libc.so.6.1",
    }
    files = {e.path for e in packing.entries if e.kind == "file"} - BASE
    assert files == {"usr/bin/dash", "usr/lib/libc.so.6.1", "usr/lib64/ld-linux-x86-64.so.2"}
    assert found["usr/lib/libc.so.6.1"].why == "needed by /usr/bin/sh"
    assert found.keys() >= BASE


def test_the_base_is_the_same_on_every_host(root: Path) -> None:
    (root / "root").mkdir(mode=0o777)
    write_elf(root / "root/prog")
    found = paths(gather(root, "/root/prog"))
    modes = {p: found[p].mode for p in ("root", "tmp", "proc", "sys", "dev", "etc")}
    assert modes == {"root": 0o700, "tmp": 0o1777, "proc": 0o555, "sys": 0o555, "dev": 0o755, "etc": 0o755}
    assert found["etc/passwd"].data.decode().splitlines()[0] == "root:x:0:0:root:/root:/bin/sh"
    assert [line.split(":")[0] for line in found["etc/passwd"].data.decode().splitlines()] == ["root", "nobody"]


def test_programs_are_found_as_a_shell_does(root: Path) -> None:
    write_elf(root / "first/tool", 0o644)  # not executable: passed over
    (root / "second/tool").mkdir(parents=True)  # a folder: passed over
    write_elf(root / "third/tool")
    assert gather(root, "tool", path="/absent:/first:/second:/third").programs == ("/third/tool",)
    with pytest.raises(NotFound, match="PATH"):
        gather(root, "tool", path="/first:/second")
    with pytest.raises(NotFound):
        gather(root, "")
    with pytest.raises(NotFound, match="ENOENT"):
        gather(root, "/third/gone")
    with pytest.raises(Invalid, match="no program"):
        collect([])


def test_a_search_goes_on_past_folders_and_links_that_cannot_be_entered(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "loops").mkdir()
    (root / "loops/sh").symlink_to("sh")
    lstat = os.lstat

    def forbidding(path: str) -> os.stat_result:
        if "/forbidden" in path:
            raise PermissionError(errno.EACCES, "no")
        return lstat(path)

    monkeypatch.setattr(os, "lstat", forbidding)
    assert gather(root, "sh", path="/loops:/forbidden/bin:/bin").programs == ("/bin/sh",)
    with pytest.raises(Error, match="EACCES"):
        gather(root, "/forbidden/bin/sh")


def test_a_lost_working_directory_matters_only_for_relative_paths(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lost").mkdir()
    monkeypatch.chdir(tmp_path / "lost")
    (tmp_path / "lost").rmdir()
    assert gather(root, "/bin/sh").programs == ("/bin/sh",)
    with pytest.raises(Error, match="working directory"):
        gather(root, "./sh")


def test_links_of_many_steps_are_kept(root: Path) -> None:
    (root / "etc/alternatives").mkdir()
    (root / "etc/alternatives/awk").symlink_to("/usr/bin/../bin/mawk")
    (root / "usr/bin/awk").symlink_to("/etc/alternatives/awk")
    write_elf(root / "usr/bin/mawk")
    found = paths(gather(root, "awk"))
    assert found["usr/bin/awk"].target == "/etc/alternatives/awk"
    assert found["etc/alternatives/awk"].target == "/usr/bin/../bin/mawk"
    assert found["usr/bin/mawk"].kind == "file"


def test_a_loop_of_links_is_an_error(root: Path) -> None:
    (root / "usr/bin/one").symlink_to("two")
    (root / "usr/bin/two").symlink_to("/usr/bin/one")
    with pytest.raises(Invalid, match="ELOOP"):
        gather(root, "/usr/bin/one")


def test_what_cannot_be_run_is_refused(root: Path) -> None:
    script(root, "usr/bin/text", "just words")
    with pytest.raises(Invalid, match="neither an ELF program nor a script"):
        gather(root, "text")
    with pytest.raises(Invalid, match="is a directory"):
        gather(root, "/usr/bin")
    write_elf(root / "usr/bin/plain", 0o644)
    with pytest.raises(Invalid, match="not an executable file"):
        gather(root, "/usr/bin/plain")
    os.mkfifo(root / "usr/bin/pipe", 0o755)
    with pytest.raises(Invalid, match="not packed"):
        gather(root, "/usr/bin/pipe")
    write_elf(root / "usr/lib/libx.so", needed=("libc.so.6",))
    with pytest.raises(Invalid, match="a library, not a program"):
        gather(root, "/usr/lib/libx.so")
    (root / "usr/bin/cut").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(20))
    (root / "usr/bin/cut").chmod(0o755)
    with pytest.raises(Invalid, match="/usr/bin/cut"):
        gather(root, "cut")


def test_a_missing_library_is_an_error_for_a_program_and_a_note_for_what_is_added(root: Path) -> None:
    write_elf(root / "usr/bin/prog", interpreter=LOADER, needed=("libgone.so",))
    with pytest.raises(NotFound, match=r"libgone\.so for /usr/bin/prog"):
        gather(root, "prog")
    packing = gather(root, "sh", add=("/usr/bin/prog",))
    assert packing.notes == ("/usr/bin/prog: packed without libgone.so, which is not on this host",)


def test_an_optional_program_that_is_broken_is_left_out_whole_with_a_note(root: Path) -> None:
    write_elf(root / "usr/bin/broken", interpreter=LOADER, needed=("libc.so.6", "libgone.so"))
    script(root, "usr/bin/orphan", "#!/bin/gone")
    packing = collect(["sh"], path="/bin", root=str(root), optional=["broken", "orphan", "absent"])
    assert packing.entries == gather(root, "sh", path="/bin").entries
    assert [n.partition(":")[0] for n in packing.notes] == ["broken", "orphan", "absent"]


def test_scripts_come_with_their_interpreters(root: Path) -> None:
    write_elf(root / "usr/bin/env")
    write_elf(root / "opt/bin/snake", interpreter=LOADER)
    script(root, "one", "#! \t/bin/sh -e")
    script(root, "two", "#!/usr/bin/env snake")
    script(root, "three", "#!/usr/bin/env -S -i A=b snake -u")
    script(root, "four", "#!/two x")
    assert "usr/bin/dash" in paths(gather(root, "/one"))
    for name in ("/two", "/three", "/four"):
        found = paths(gather(root, name, path="/opt/bin"))
        assert found.keys() >= {"usr/bin/env", "opt/bin/snake", "usr/lib64/ld-linux-x86-64.so.2"}
    assert found["opt/bin/snake"].why == "runs /two"


@pytest.mark.parametrize(
    ("line", "error", "cause"),
    [
        ("#!/bin/gone", NotFound, "/bin/gone"),
        ("#!", Invalid, "absolute"),
        ("#!bin/sh", Invalid, "absolute"),
        ("#!/script", Invalid, "too many"),
        ("#!/usr/bin/env gone", NotFound, "gone"),
        ("#!/usr/bin/env sh -e", NotFound, "sh -e"),
        ("#!/usr/bin", Invalid, "not an executable"),
        ("#!/proc/self/exe", (Invalid, NotFound), "proc"),
    ],
)
def test_hostile_first_lines(root: Path, line: str, error: type[Error], cause: str) -> None:
    write_elf(root / "usr/bin/env")
    script(root, "script", line)
    with pytest.raises(error, match=cause):
        gather(root, "/script")


def test_too_many_levels_of_scripts_are_refused(root: Path) -> None:
    script(root, "s0", "#!/bin/sh")
    for n in range(1, 8):
        script(root, f"s{n}", f"#!/s{n - 1}")
    assert "usr/bin/dash" in paths(gather(root, "/s4"))
    with pytest.raises(Invalid, match="too many"):
        gather(root, "/s7")


def test_added_folders_come_whole_with_what_their_links_lead_to(root: Path) -> None:
    write_elf(root / "opt/app/plugin.so", 0o644, needed=("libdeep.so",))
    write_elf(root / "usr/lib/libdeep.so")
    (root / "opt/app/data").write_text("x")
    (root / "opt/app/empty").mkdir()
    (root / "opt/app/inside").symlink_to("data")
    (root / "opt/app/outside").symlink_to("/srv/file")
    (root / "opt/app/folder").symlink_to("../../srv/folder")
    (root / "opt/app/gone").symlink_to("/nowhere")
    (root / "opt/app/up").symlink_to("..")
    (root / "opt/app/all").symlink_to("/")
    (root / "opt/app/mounts").symlink_to("/proc/self/mounts")
    (root / "srv/folder").mkdir(parents=True)
    (root / "srv/file").write_text("y")
    (root / "srv/folder/further").symlink_to("/srv/never")
    (root / "srv/never").write_text("z")
    (root / "opt/other").write_text("not asked for")
    packing = gather(root, "sh", add=("/opt/app",))
    found = paths(packing)
    wanted = {"data", "empty", "inside", "outside", "folder", "gone", "up", "all", "plugin.so"}
    assert {f"opt/app/{n}" for n in wanted} | {"srv/file", "srv/folder", "srv/folder/further"} <= found.keys()
    assert "usr/lib/libdeep.so" in found
    assert not {"srv/never", "opt/other"} & found.keys()
    assert {n.partition(":")[0] for n in packing.notes} == {f"/opt/app/{n}" for n in ("gone", "up", "all", "mounts")}


def test_added_files_stand_for_the_generated_ones(root: Path) -> None:
    (root / "etc/passwd").write_text("me:x:1:1::/:/bin/sh\n")
    found = paths(gather(root, "sh", add=("/etc/passwd",)))
    assert found["etc/passwd"].source == "/etc/passwd"
    assert found["etc/group"].data


def test_password_hashes_are_never_packed(root: Path) -> None:
    (root / "etc/shadow").write_text("root:hash\n")
    os.link(root / "etc/shadow", root / "etc/innocent")
    for name in ("gshadow", "shadow-", "gshadow-", "shadow.bak"):
        (root / "etc" / name).write_text("hash")
    (root / "etc/hosts").write_text("")
    (root / "srv").mkdir()
    (root / "srv/link").symlink_to("/etc/shadow")
    packing = gather(root, "sh", add=("/etc", "/srv"))
    assert {p for p in paths(packing) if p.startswith("etc/")} == BASE & {p for p in BASE if "/" in p} | {"etc/hosts"}
    assert sum("password hashes" in note for note in packing.notes) == 6
    for path in ("/etc/shadow", "/etc/innocent", "/srv/link"):
        with pytest.raises(Invalid, match="password hashes"):
            gather(root, "sh", add=(path,))
    (root / "etc/shadow").chmod(0o755)
    with pytest.raises(Invalid, match="password hashes"):
        gather(root, "/etc/innocent")


@pytest.mark.parametrize(
    ("path", "secret"),
    [
        ("/etc/shadow", True),
        ("/etc/gshadow-", True),
        ("/srv/tree/etc/shadow.lock", True),
        ("/etc/security/opasswd", True),
        ("/etc/passwd", False),
        ("/usr/share/doc/shadow", False),
        ("/etc/shadowsocks", False),
    ],
)
def test_which_files_are_secret(path: str, secret: bool) -> None:
    assert is_secret(path) is secret


def test_sockets_pipes_and_the_kernels_folders_are_refused(root: Path) -> None:
    (root / "srv").mkdir()
    os.mkfifo(root / "srv/pipe")
    with pytest.raises(Invalid, match="/srv/pipe"):
        gather(root, "sh", add=("/srv",))
    (root / "srv/pipe").unlink()
    here = os.getcwd()
    os.chdir(root / "srv")  # a socket's name is at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("socket")
    finally:
        os.chdir(here)
    with pytest.raises(Invalid, match="/srv/socket"):
        gather(root, "sh", add=("/srv/socket",))
    for path in ("/proc", "/proc/self/status", "/proc/self/exe", "/sys", "/dev/null"):
        with pytest.raises(Invalid, match="the kernel makes"):
            collect(["sh"], [path])
    with pytest.raises(Invalid, match="the kernel makes"):
        collect(["/proc/self/exe"])
    (root / "opt").mkdir()
    with pytest.raises(Invalid, match="whole host"):
        gather(root, "sh", add=("/opt/..",))


def test_a_name_that_layers_take_for_a_deletion_is_refused(root: Path) -> None:
    (root / "srv").mkdir()
    (root / "srv/.wh.data").write_text("")
    with pytest.raises(Invalid, match=r"/srv/\.wh\.data.*deleted"):
        gather(root, "sh", add=("/srv",))


def test_setuid_setgid_and_sticky_files_lose_their_bits_and_root_owns_all(root: Path) -> None:
    write_elf(root / "usr/bin/su", 0o6755)
    (root / "srv").mkdir()
    (root / "srv").chmod(0o2775)
    packing = gather(root, "su", add=("/srv",))
    with tarfile.open(fileobj=io.BytesIO(layer(packing, root))) as tar:
        members = {m.name: m for m in tar}
    assert members["usr/bin/su"].mode == 0o755
    assert members["srv"].mode == 0o775
    assert members["tmp"].mode == 0o1777
    assert not [m for m in members.values() if m.mode & 0o6000]
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members.values()} == {(0, 0, "", "", 0)}


def test_the_layer_is_the_same_twice_and_only_what_is_in_it_counts(root: Path) -> None:
    (root / "srv").mkdir()
    for name in ("b", "a", "ü", "x" * 150):
        (root / "srv" / name).write_text(name)
    (root / os.fsdecode(b"srv/\xff\n")).write_text("odd")
    one = layer(gather(root, "sh", add=("/srv",)), root)
    for file in root.rglob("*"):
        os.utime(file, (1e9, 1e9), follow_symlinks=False)
    two = layer(gather(root, "sh", add=("/srv",)), root)
    assert sha256(one).digest() == sha256(two).digest()
    with tarfile.open(fileobj=io.BytesIO(one)) as tar:
        names = [os.fsencode(m.name) for m in tar]
        assert names == sorted(names)
        assert tar.extractfile("srv/b").read() == b"b"  # type: ignore[union-attr]
    assert b"srv/\xff\n" in names and os.fsencode("srv/ü") in names


def test_the_time_of_entries_is_asked_for_by_source_date_epoch(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = gather(root, "sh").entries
    for text, wanted in (("1700000000", 1700000000), ("", 0)):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
        out = io.BytesIO()
        write_layer(entries, out, Tree(str(root)))
        out.seek(0)
        with tarfile.open(fileobj=out) as tar:
            assert {m.mtime for m in tar} == {wanted}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(Invalid, match="SOURCE_DATE_EPOCH"):
        write_layer(entries, io.BytesIO(), Tree(str(root)))


def test_one_file_with_many_names_is_stored_once(root: Path) -> None:
    write_elf(root / "usr/bin/busybox")
    for name in ("cat", "ls"):
        os.link(root / "usr/bin/busybox", root / "usr/bin" / name)
    packing = gather(root, "ls", "cat", "busybox")
    found = paths(packing)
    assert found["usr/bin/busybox"].kind == "file"
    assert [(found[f"usr/bin/{n}"].kind, found[f"usr/bin/{n}"].target) for n in ("cat", "ls")] == [
        ("hardlink", "usr/bin/busybox")
    ] * 2
    with tarfile.open(fileobj=io.BytesIO(layer(packing, root))) as tar:
        assert tar.getmember("usr/bin/ls").linkname == "usr/bin/busybox"


def test_a_file_swapped_or_changed_before_it_is_written_is_an_error(root: Path) -> None:
    (root / "srv").mkdir()
    (root / "srv/data").write_text("some data")
    packing = gather(root, "sh", add=("/srv",))
    (root / "srv/data").write_text("less")
    with pytest.raises(Error, match="changed"):
        layer(packing, root)
    (root / "srv/data").unlink()
    (root / "srv/data").symlink_to("/etc/passwd")
    with pytest.raises(Error, match="ELOOP"):
        layer(packing, root)
    (root / "srv/data").unlink()
    (root / "srv").rename(root / "was")
    (root / "srv").symlink_to("was")
    with pytest.raises(Error, match=r"ENOTDIR|ELOOP"):
        layer(packing, root)


def test_a_full_disk_is_one_error(root: Path) -> None:
    packing = gather(root, "sh")
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(Error, match="ENOSPC"):
        write_layer(packing.entries, full, Tree(str(root)), 0)


def test_name_service_modules_come_with_a_libc_that_has_none_inside(root: Path) -> None:
    for name in ("libnss_files.so.2", "libnss_dns.so.2"):
        write_elf(root / "usr/lib" / name, needed=("libresolv.so.2",))
    write_elf(root / "usr/lib/libresolv.so.2")
    modules = {"usr/lib/libnss_files.so.2", "usr/lib/libnss_dns.so.2", "usr/lib/libresolv.so.2"}
    assert not modules & paths(gather(root, "sh")).keys()
    write_elf(root / "usr/lib/libc.so.6.1", soname="libc.so.6", strings=("GLIBC_2.33",))
    assert modules <= paths(gather(root, "sh")).keys()


def test_programs_that_end_threads_come_with_libgcc(root: Path) -> None:
    write_elf(root / "usr/lib/libgcc_s.so.1", needed=("libc.so.6",))
    write_elf(root / "usr/bin/threads", interpreter=LOADER, needed=("libc.so.6",), strings=("pthread_exit",))
    assert "usr/lib/libgcc_s.so.1" not in paths(gather(root, "sh"))
    assert "usr/lib/libgcc_s.so.1" in paths(gather(root, "threads"))
    (root / "usr/lib/libgcc_s.so.1").unlink()
    assert "libgcc_s.so.1" in gather(root, "threads").notes[0]


def test_terminal_programs_come_with_the_usual_terminals(root: Path) -> None:
    write_elf(root / "usr/lib/libtinfo.so.6")
    write_elf(root / "usr/bin/bash", interpreter=LOADER, needed=("libtinfo.so.6",))
    for name in ("x/xterm", "a/adm3a"):
        (root / "usr/share/terminfo" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "usr/share/terminfo" / name).write_text("")
    found = paths(gather(root, "bash"))
    assert "usr/share/terminfo/x/xterm" in found and "usr/share/terminfo/a/adm3a" not in found


def test_libraries_in_folders_of_their_own_get_a_cache(root: Path) -> None:
    write_elf(root / "opt/lib/libown.so")
    write_elf(root / "usr/bin/prog", interpreter=LOADER, needed=("libown.so", "libc.so.6"))
    lines = (CacheEntry("libown.so", "/opt/lib/libown.so", 0x303), CacheEntry("libc.so.6", "/lib/libc.so.6", 0x303))
    (root / "etc/ld.so.cache").write_bytes(format_cache(lines))
    assert "etc/ld.so.cache" not in paths(gather(root, "sh"))
    cache = paths(gather(root, "prog"))["etc/ld.so.cache"]
    assert parse_cache(cache.data) == (lines[0],)


def test_the_configuration_runs_the_first_program_and_says_where_all_came_from(root: Path) -> None:
    write_elf(root / "opt/tool/bin/tool", machine=183)
    write_elf(root / "odd:folder/odd")
    (root / "etc/os-release").write_text('ID=small\nPRETTY_NAME="Small 1"\n')
    packing = gather(root, "/opt/tool/bin/tool", "sh", "/odd:folder/odd")
    image = configure(packing, root=str(root))
    assert (image.os, image.architecture, image.variant, image.created) == (
        "linux",
        "arm64",
        "v8",
        "1970-01-01T00:00:00Z",
    )
    assert image.config.cmd == ("/opt/tool/bin/tool",)
    assert image.config.env == (f"PATH={PATH}:/opt/tool/bin",)
    assert dict(image.config.labels) == {
        "cloche.pack.programs": "/opt/tool/bin/tool /usr/bin/sh /odd:folder/odd",
        "cloche.pack.host": "Small 1",
    }
    assert configure(packing, ["sh"]).config.cmd == ("sh",)


def test_a_program_whose_name_is_not_text_is_refused(root: Path) -> None:
    name = os.fsdecode(b"/usr/bin/\xff")
    write_elf(root / name[1:])
    with pytest.raises(Invalid, match="not UTF-8"):
        configure(gather(root, name))


def test_create_hands_over_one_layer_a_configuration_and_the_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seam to image/load alone: what becomes of these four is tested there, and with a real store beside it."""
    calls: list[tuple[Any, ...]] = []

    def create_image(store: Any, layers: Sequence[Any], config: Any, references: Sequence[str]) -> str:
        calls.append((store, [each.read() for each in layers], config, list(references)))
        return "image"

    monkeypatch.setitem(sys.modules, "cloche.image.load", SimpleNamespace(create_image=create_image))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")
    packing = gather(root, "sh")
    assert create("store", "mine:1", packing, root=str(root)) == "image"  # type: ignore[arg-type,comparison-overlap]
    assert calls == [("store", [layer(packing, root, 5)], configure(packing, root=str(root)), ["mine:1"])]
    assert calls[0][2].created == "1970-01-01T00:00:05Z"
