"""Finding libraries as the loaders do: rule by rule in small trees, all together against the host's own loader."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cloche.errors import Invalid, NotFound
from cloche.image import elf
from cloche.image.ldcache import CacheEntry, format_cache, parse_cache
from cloche.image.libraries import Dependency, Libraries, resolve
from cloche.image.tree import Tree
from elf_files import build_elf, write_elf

LOADER = "/lib64/ld-linux-x86-64.so.2"
MUSL = "/lib/ld-musl-x86_64.so.1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with nothing but a loader that knows two folders."""
    loader = tmp_path / LOADER[1:]
    write_elf(loader, soname="ld-linux-x86-64.so.2")
    with loader.open("ab") as file:
        file.write(b"\0/lib/x86_64-linux-gnu/\0/usr/lib/x86_64-linux-gnu/\0")
    return tmp_path


def program(root: Path, path: str = "/bin/prog", **facts: object) -> str:
    write_elf(root / path[1:], **{"interpreter": LOADER, **facts})
    return path


def library(root: Path, path: str, **facts: object) -> None:
    write_elf(root / path[1:], **{"soname": os.path.basename(path), **facts})


def found(root: Path, path: str = "/bin/prog") -> dict[str, tuple[str, str]]:
    return {d.name: (d.path, d.found) for d in resolve(path, str(root)) if d.found != "interpreter"}


def test_a_static_program_needs_nothing(root: Path) -> None:
    program(root, interpreter=None, kind=elf.ET_EXEC)
    assert resolve("/bin/prog", str(root)) == ()


def test_default_folders_come_from_the_loader(root: Path) -> None:
    program(root, needed=("liba.so",))
    library(root, "/usr/lib/x86_64-linux-gnu/liba.so")
    library(root, "/lib/liba.so")
    assert resolve("/bin/prog", str(root)) == (
        Dependency(LOADER, LOADER, "/bin/prog", "interpreter"),
        Dependency("liba.so", "/usr/lib/x86_64-linux-gnu/liba.so", "/bin/prog", "default"),
    )


def test_the_order_is_breadth_first_and_each_library_comes_once(root: Path) -> None:
    program(root, needed=("liba.so", "libb.so"))
    library(root, "/lib/x86_64-linux-gnu/liba.so", needed=("libc.so", "ld-linux-x86-64.so.2"))
    library(root, "/lib/x86_64-linux-gnu/libb.so", needed=("libc.so", "liba.so"))
    library(root, "/lib/x86_64-linux-gnu/libc.so", needed=("libb.so",))
    assert list(found(root)) == ["liba.so", "libb.so", "libc.so"]


def test_a_library_of_another_machine_or_class_is_passed_over(root: Path) -> None:
    program(root, needed=("liba.so",), runpath="/wrong:/narrow:/right")
    library(root, "/wrong/liba.so", machine=183)
    library(root, "/narrow/liba.so", bits=32)
    library(root, "/right/liba.so")
    assert found(root)["liba.so"] == ("/right/liba.so", "runpath")


def test_a_library_that_is_no_elf_file_is_an_error(root: Path) -> None:
    program(root, needed=("liba.so",), runpath="/odd")
    (root / "odd").mkdir()
    (root / "odd/liba.so").write_text("INPUT(libreal.so)" + " " * 80)
    with pytest.raises(Invalid, match=r"/odd/liba\.so"):
        found(root)


def test_a_missing_library_is_named_and_who_needs_it(root: Path) -> None:
    program(root, needed=("liba.so",))
    library(root, "/lib/x86_64-linux-gnu/liba.so", needed=("libgone.so.3",))
    with pytest.raises(NotFound, match=r"libgone\.so\.3 for /lib/x86_64-linux-gnu/liba\.so"):
        found(root)
    missing: list[Dependency] = []
    rest = Libraries(Tree(str(root))).resolve("/bin/prog", missing)
    assert [d.name for d in rest] == [LOADER, "liba.so"]
    assert missing == [Dependency("libgone.so.3", "", "/lib/x86_64-linux-gnu/liba.so", "")]


def test_a_missing_loader_is_an_error(root: Path) -> None:
    program(root, interpreter="/lib/ld-gone.so.1")
    with pytest.raises(NotFound, match=r"/lib/ld-gone\.so\.1"):
        found(root)
    program(root, interpreter="ld.so")
    with pytest.raises(Invalid, match="absolute"):
        found(root)


def test_runpath_serves_only_its_own_object(root: Path) -> None:
    program(root, needed=("liba.so",), runpath="/own")
    library(root, "/own/liba.so", needed=("libb.so",))
    library(root, "/own/libb.so")
    with pytest.raises(NotFound, match=r"libb\.so"):
        found(root)


def test_rpath_serves_those_that_the_object_loads(root: Path) -> None:
    program(root, needed=("liba.so",), rpath="/own")
    library(root, "/own/liba.so", needed=("libb.so",))
    library(root, "/own/libb.so")
    assert found(root)["libb.so"] == ("/own/libb.so", "rpath")


def test_an_object_with_runpath_has_no_rpath_of_its_own_or_others(root: Path) -> None:
    program(root, needed=("liba.so",), rpath="/own")
    library(root, "/own/liba.so", needed=("libb.so",), runpath="/nowhere")
    library(root, "/own/libb.so")
    with pytest.raises(NotFound, match=r"libb\.so"):
        found(root)
    program(root, needed=("liba.so",), rpath="/own", runpath="/nowhere")
    with pytest.raises(NotFound, match=r"liba\.so"):
        found(root)


def test_rpath_of_a_loader_in_between_comes_before_the_programs(root: Path) -> None:
    program(root, needed=("liba.so",), rpath="/far:/first")
    library(root, "/first/liba.so", needed=("libb.so",), rpath="/near")
    library(root, "/near/libb.so")
    library(root, "/far/libb.so")
    assert found(root)["libb.so"] == ("/near/libb.so", "rpath")


@pytest.mark.parametrize(
    ("runpath", "folder"),
    [
        ("$ORIGIN/../lib", "/opt/app/lib"),
        ("${ORIGIN}x", "/opt/app/binx"),
        ("/p/$PLATFORM/q", "/p/x86_64/q"),
        ("/p/${LIB}", "/p/lib/x86_64-linux-gnu"),
        ("/p/$ORIGINAL", "/p/$ORIGINAL"),
        ("/p/${LIB", "/p/${LIB"),
        ("relative::/p/", "/p"),
    ],
)
def test_tokens_in_search_lists(root: Path, runpath: str, folder: str) -> None:
    program(root, "/opt/app/bin/prog", needed=("liba.so",), runpath=runpath)
    library(root, f"{folder}/liba.so")
    path, how = found(root, "/opt/app/bin/prog")["liba.so"]
    assert how == "runpath"
    assert os.path.normpath(path) == f"{folder}/liba.so"


def test_origin_of_a_program_is_where_its_file_is_and_of_a_library_where_it_was_opened(root: Path) -> None:
    program(root, "/opt/app/bin/prog", needed=("liba.so",), runpath="$ORIGIN/../lib")
    library(root, "/opt/app/lib/liba.so.1", soname="liba.so", needed=("libb.so",), runpath="$ORIGIN/more")
    library(root, "/opt/app/lib/more/libb.so")
    (root / "opt/app/lib/liba.so").symlink_to("liba.so.1")
    (root / "bin").mkdir()
    (root / "bin/link").symlink_to("../opt/app/bin/prog")
    paths = {name: os.path.normpath(path) for name, (path, _) in found(root, "/bin/link").items()}
    assert paths == {"liba.so": "/opt/app/lib/liba.so", "libb.so": "/opt/app/lib/more/libb.so"}


def test_names_with_a_slash_are_paths(root: Path) -> None:
    program(root, needed=("/opt/liba.so", "$ORIGIN/libb.so"))
    library(root, "/opt/liba.so")
    library(root, "/bin/libb.so")
    assert found(root) == {"/opt/liba.so": ("/opt/liba.so", "path"), "$ORIGIN/libb.so": ("/bin/libb.so", "path")}
    program(root, needed=("./liba.so",))
    with pytest.raises(NotFound, match=r"\./liba\.so"):
        found(root)


def write_cache(root: Path, *entries: CacheEntry) -> None:
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/ld.so.cache").write_bytes(format_cache(entries))


def test_the_cache_comes_before_the_default_folders_and_plain_libraries_before_special_ones(root: Path) -> None:
    program(root, needed=("liba.so", "libb.so"))
    for path in ("/opt/liba.so", "/opt/v3/liba.so", "/lib/x86_64-linux-gnu/liba.so", "/lib/x86_64-linux-gnu/libb.so"):
        library(root, path)
    write_cache(
        root,
        CacheEntry("liba.so", "/opt/v3/liba.so", 0x303, (1 << 62) + 1),
        CacheEntry("liba.so", "/opt/liba.so", 0x303),
        CacheEntry("libb.so", "/opt/gone/libb.so", 0x303),
    )
    assert found(root) == {
        "liba.so": ("/opt/liba.so", "cache"),
        "libb.so": ("/lib/x86_64-linux-gnu/libb.so", "default"),
    }


def test_nodeflib_keeps_to_libraries_outside_of_the_default_folders(root: Path) -> None:
    program(root, needed=("liba.so",), flags_1=0x800)
    library(root, "/lib/x86_64-linux-gnu/liba.so")
    write_cache(root, CacheEntry("liba.so", "/lib/x86_64-linux-gnu/liba.so", 0x303))
    with pytest.raises(NotFound):
        found(root)
    library(root, "/opt/liba.so")
    write_cache(root, CacheEntry("liba.so", "/opt/liba.so", 0x303))
    assert found(root)["liba.so"] == ("/opt/liba.so", "cache")


@pytest.mark.parametrize("cache", [None, b"no cache at all"])
def test_ld_so_conf_stands_in_for_an_absent_or_damaged_cache(root: Path, cache: bytes | None) -> None:
    program(root, needed=("liba.so",))
    library(root, "/opt/deep/liba.so")
    (root / "etc").mkdir()
    (root / "etc/ld.so.conf").write_text("/opt/deep\n")
    if cache is not None:
        (root / "etc/ld.so.cache").write_bytes(cache)
    assert found(root)["liba.so"] == ("/opt/deep/liba.so", "conf")


def test_an_image_gets_a_cache_of_just_the_libraries_that_need_one(root: Path) -> None:
    program(root, needed=("liba.so", "libb.so", "libc.so"), runpath="/run")
    for path in ("/opt/liba.so", "/run/libb.so", "/lib/x86_64-linux-gnu/libc.so", "/opt/libother.so"):
        library(root, path)
    names = ("/opt/liba.so", "/opt/libother.so", "/lib/x86_64-linux-gnu/libc.so")
    write_cache(root, *(CacheEntry(os.path.basename(n), n, 0x303) for n in names))
    libraries = Libraries(Tree(str(root)))
    assert libraries.cache_for_image() == b""
    libraries.resolve("/bin/prog")
    assert parse_cache(libraries.cache_for_image()) == (CacheEntry("liba.so", "/opt/liba.so", 0x303),)


def test_two_names_of_one_file_are_both_needed_and_loaded_once(root: Path) -> None:
    program(root, needed=("liba.so", "libalias.so"))
    library(root, "/lib/x86_64-linux-gnu/liba.so", needed=("libb.so",))
    library(root, "/lib/x86_64-linux-gnu/libb.so")
    (root / "lib/x86_64-linux-gnu/libalias.so").symlink_to("liba.so")
    assert list(found(root)) == ["liba.so", "libalias.so", "libb.so"]


def test_absolute_links_stay_inside_the_root(root: Path) -> None:
    program(root, needed=("liba.so",))
    library(root, "/opt/liba.so")
    (root / "lib/x86_64-linux-gnu").mkdir(parents=True)
    (root / "lib/x86_64-linux-gnu/liba.so").symlink_to("/../opt/liba.so")
    assert found(root)["liba.so"][0] == "/lib/x86_64-linux-gnu/liba.so"


@pytest.fixture
def musl(tmp_path: Path) -> Path:
    write_elf(tmp_path / MUSL[1:])
    return tmp_path


def musl_program(root: Path, **facts: object) -> None:
    write_elf(root / "bin/prog", **{"interpreter": MUSL, **facts})


def test_musls_loader_is_its_own_libc(musl: Path) -> None:
    musl_program(musl, needed=("libc.so", "libm.so.6", "libpthread.so.0", "libc.musl-x86_64.so.1"))
    assert found(musl) == {}
    (musl / "lib/libc.musl-x86_64.so.1").symlink_to("ld-musl-x86_64.so.1")
    assert list(found(musl)) == ["libc.musl-x86_64.so.1"]


def test_musl_has_fixed_folders_or_those_of_its_path_file(musl: Path) -> None:
    musl_program(musl, needed=("liba.so",))
    library(musl, "/usr/lib/liba.so")
    assert found(musl)["liba.so"] == ("/usr/lib/liba.so", "default")
    (musl / "etc").mkdir()
    (musl / "etc/ld-musl-x86_64.path").write_text("/opt\n")
    with pytest.raises(NotFound):
        found(musl)
    library(musl, "/opt/liba.so")
    libraries = Libraries(Tree(str(musl)))
    assert libraries.resolve("/bin/prog")[-1].path == "/opt/liba.so"
    assert libraries.loader_data == {"/etc/ld-musl-x86_64.path": MUSL}


def test_musl_hands_runpath_down_and_knows_only_origin(musl: Path) -> None:
    musl_program(musl, needed=("liba.so",), runpath="$ORIGIN/../opt")
    library(musl, "/opt/liba.so", needed=("libb.so",))
    library(musl, "/opt/libb.so")
    assert [os.path.normpath(p) for p, _ in found(musl).values()] == ["/opt/liba.so", "/opt/libb.so"]
    musl_program(musl, needed=("liba.so",), runpath="/opt:/x/$LIB")
    with pytest.raises(NotFound):
        found(musl)


def host_programs() -> list[str]:
    """Some dozens of this host's programs for its glibc loader."""
    if not os.path.exists(LOADER):
        return []
    programs = []
    for name in sorted(os.listdir("/usr/bin"))[::4]:
        path = f"/usr/bin/{name}"
        if os.path.isfile(path) and not os.path.islink(path):
            with open(path, "rb") as file:
                if file.read(4) == elf.MAGIC and elf.read(path).interpreter == LOADER:
                    programs.append(path)
    return programs[:80]


def test_the_hosts_own_loader_finds_the_same_files() -> None:
    programs = host_programs()
    if not programs:
        pytest.skip(f"this host has no {LOADER}")
    libraries = Libraries()
    for path in programs:
        listed = subprocess.run([LOADER, "--list", path], capture_output=True, text=True, check=True, env={}).stdout
        words = [line.split() for line in listed.splitlines()]
        wanted = {w[2] if "=>" in w else w[0] for w in words if "=>" in w or w[0].startswith("/")}
        assert {d.path for d in libraries.resolve(path)} == wanted, path


def test_built_files_are_never_executed(root: Path) -> None:
    """The loader and the program are only headers: executing either could not have worked."""
    program(root, needed=())
    assert (root / "bin/prog").read_bytes() == build_elf(interpreter=LOADER)
    assert found(root) == {}
