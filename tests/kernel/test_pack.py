"""Packed layers are unpacked, entered with chroot(2) and used: what is in there has to be enough for real programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cloche.image.entries import write_layer
from cloche.image.pack import PATH, Packing, collect
from cloche.image.starter import collect_starter
from cloche.image.tree import Tree
from cloche.storage import layers
from probes import mount, private_mount_namespace, requires

pytestmark = [pytest.mark.one_lane, requires("root")]

GLIBC = "/lib64/ld-linux-x86-64.so.2"
MUSL = "/lib/ld-musl-x86_64.so.1"


def unpack(packing: Packing, folder: Path, host: Path = Path("/")) -> Path:
    """The layer of `packing`, made from the files of the root `host`, as a folder."""
    root = folder / "root"
    with (folder / "layer.tar").open("w+b") as layer:
        write_layer(packing.entries, layer, Tree(str(host)), mtime=0)
        layer.seek(0)
        layers.unpack(layer, str(root))
    return root


def run(root: Path, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A program with `root` as its root, /proc there ($ORIGIN is read from it) and an environment of its own."""

    def enter() -> None:
        private_mount_namespace()
        mount("proc", f"{root}/proc", "proc")
        os.chroot(root)
        os.chdir("/")

    return subprocess.run(
        argv, preexec_fn=enter, env={"PATH": PATH}, capture_output=True, text=True, check=check, timeout=30
    )


def compile_c(source: str, out: Path, *flags: str, compiler: str = "cc") -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([compiler, "-x", "c", "-o", out, "-", *flags], input=source, text=True, check=True)


def pack_and_run(folder: Path, programs: Sequence[str], *argv: str, add: Sequence[str] = ()) -> str:
    return run(unpack(collect(programs, add), folder), *argv).stdout


def test_a_shell_and_a_tool_run(tmp_path: Path) -> None:
    out = pack_and_run(tmp_path, ["sh", "ls"], "/bin/sh", "-c", "ls -ld /tmp /root; echo $((6 * 7))")
    assert [line[:10] for line in out.splitlines()] == ["drwx------", "drwxrwxrwt", "42"]


def test_names_of_users_are_known(tmp_path: Path) -> None:
    root = unpack(collect(["id", "sh"]), tmp_path)
    assert run(root, "id", "-un").stdout == "root\n"
    assert "nobody" in run(root, "id", "nobody").stdout


def test_a_script_runs_by_its_own_first_line(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/usr/bin/env sh\necho from $0\n")
    script.chmod(0o755)
    assert pack_and_run(tmp_path, [str(script)], str(script)) == f"from {script}\n"


def test_every_tool_of_the_starter_image_finds_its_libraries(tmp_path: Path) -> None:
    packing = collect_starter()
    assert not packing.notes
    root = unpack(packing, tmp_path)
    assert run(root, "sh", "-c", "echo one two | awk '{ print $2 }' | sed s/w/x/ | tr a-z A-Z").stdout == "TXO\n"
    assert run(root, "sh", "-c", "mkdir /a && cp /etc/passwd /a/b && mv /a/b /a/c && sort /a/c | wc -l").stdout == "2\n"
    for program in packing.programs:
        result = run(root, program, "--help" if program.endswith("busybox") else "--version", check=False)
        assert result.returncode not in (126, 127), program
        assert "loading shared libraries" not in result.stderr, program


@requires("program:busybox")
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_host_of_busybox_gives_one_program_with_many_names(
    tmp_path: Path, link: Callable[[str | Path, str | Path], None]
) -> None:
    host = unpack(collect(["busybox"]), tmp_path)
    names = ("sh", "ls", "cat", "echo")
    for name in names:
        here = host / "usr/bin" / name
        link("/usr/bin/busybox" if link is os.symlink else host / "usr/bin/busybox", here)
    packing = collect_starter(str(host))
    assert [e.path for e in packing.entries if e.kind == "file" and e.size > 100_000] == ["usr/bin/busybox"]
    inside = tmp_path / "inside"
    inside.mkdir()
    assert run(unpack(packing, inside, host), "sh", "-c", "ls /usr/bin").stdout.split() == sorted([*names, "busybox"])


def test_nothing_is_in_the_layer_that_can_gain_rights(tmp_path: Path) -> None:
    root = unpack(collect(["su", "sh"]) if shutil.which("su") else collect_starter(), tmp_path)
    everything = [os.path.join(at, name) for at, folders, names in os.walk(root) for name in folders + names]
    assert len(everything) > 20
    for path in everything:
        status = os.lstat(path)
        assert not status.st_mode & 0o6000, path
        assert (status.st_uid, status.st_gid) == (0, 0), path
        assert os.path.basename(path) not in ("shadow", "gshadow"), path


LIBRARY = "int answer(void) { return 42; }"
PROGRAM = '#include <stdio.h>\nint answer(void);\nint main(void) { printf("%d\\n", answer()); }'


@requires("program:cc", f"file:{GLIBC}")
@pytest.mark.parametrize(
    "flags",
    [
        ["-Wl,--enable-new-dtags,-rpath,$ORIGIN/../lib"],
        ["-Wl,--disable-new-dtags,-rpath,$ORIGIN/../lib"],
        ["-Wl,--enable-new-dtags,-rpath,${ORIGIN}/../lib", "-m64", "-no-pie"],
    ],
)
def test_libraries_beside_the_program_are_found_inside(tmp_path: Path, flags: list[str]) -> None:
    compile_c(LIBRARY, tmp_path / "app/lib/libanswer.so", "-shared", "-fPIC")
    compile_c(PROGRAM, tmp_path / "app/bin/prog", "-L", str(tmp_path / "app/lib"), "-lanswer", *flags)
    (tmp_path / "link").symlink_to("app/bin/prog")
    assert pack_and_run(tmp_path, [str(tmp_path / "link")], str(tmp_path / "link")) == "42\n"


@requires("program:cc", "program:ldconfig", f"file:{GLIBC}")
def test_a_library_that_only_ld_so_cache_leads_to_is_found_inside(tmp_path: Path) -> None:
    """Packed from a small host of its own, whose ld.so.cache its ldconfig wrote; the image's cache is cloche's."""
    host = unpack(collect(["sh"]), tmp_path)
    names = ["libanswer.so.9", "libanswer.so.10", "libquestion.so", "lib9.so", "libz.so.1.2"]
    for name in names:
        compile_c(LIBRARY.replace("answer", f"f{names.index(name)}"), host / "opt/deep" / name, "-shared", "-fPIC")
    calls = " + ".join(f"f{n}()" for n in range(len(names)))
    source = "".join(f"int f{n}(void);\n" for n in range(len(names)))
    source += f'#include <stdio.h>\nint main(void) {{ printf("%d\\n", {calls}); }}'
    libraries = [f"-l:{name}" for name in names]
    compile_c(source, host / "usr/bin/prog", "-L", str(host / "opt/deep"), *libraries)
    (host / "etc/ld.so.conf").write_text("/opt/deep\n")
    subprocess.run(["ldconfig", "-X", "-r", host], check=True)
    (tmp_path / "inside").mkdir()
    inside = unpack(collect(["prog"], path="/usr/bin", root=str(host)), tmp_path / "inside", host)
    assert run(inside, "/usr/bin/prog").stdout == f"{42 * len(names)}\n"
    (inside / "etc/ld.so.cache").unlink()
    assert run(inside, "/usr/bin/prog", check=False).returncode == 127, "it was needed"


@requires("program:cc", f"file:{GLIBC}")
def test_threads_may_end_inside(tmp_path: Path) -> None:
    source = """
        #include <pthread.h>
        #include <stdio.h>
        static void *work(void *x) { puts("worked"); fflush(stdout); pthread_exit(x); }
        int main(void) { pthread_t t; pthread_create(&t, 0, work, 0); pthread_join(t, 0); return 0; }
    """
    compile_c(source, tmp_path / "prog", "-pthread")
    assert pack_and_run(tmp_path, [str(tmp_path / "prog")], str(tmp_path / "prog")) == "worked\n"


@requires("program:musl-gcc", f"file:{MUSL}")
def test_a_program_for_musl_brings_musls_loader(tmp_path: Path) -> None:
    compile_c(LIBRARY, tmp_path / "lib/libanswer.so", "-shared", "-fPIC", compiler="musl-gcc")
    compile_c(
        PROGRAM,
        tmp_path / "prog",
        f"-L{tmp_path}/lib",
        "-lanswer",
        "-Wl,-rpath,$ORIGIN/lib",
        compiler="musl-gcc",
    )
    packing = collect([str(tmp_path / "prog")])
    names = {e.path for e in packing.entries}
    assert not any("libc.so.6" in n or "ld-linux" in n for n in names)
    assert MUSL[1:] in names or f"usr{MUSL}" in names
    assert run(unpack(packing, tmp_path), str(tmp_path / "prog")).stdout == "42\n"


@requires("program:cc")
def test_a_static_program_comes_alone(tmp_path: Path) -> None:
    compiler = "musl-gcc" if shutil.which("musl-gcc") else "cc"
    compile_c('#include <stdio.h>\nint main(void) { puts("alone"); }', tmp_path / "prog", "-static", compiler=compiler)
    packing = collect([str(tmp_path / "prog")])
    assert not [e for e in packing.entries if ".so" in e.path]
    assert run(unpack(packing, tmp_path), str(tmp_path / "prog")).stdout == "alone\n"


@requires("program:python3")
def test_an_interpreter_with_its_library_folder_works(tmp_path: Path) -> None:
    """The standard library's extension modules need libraries that python itself does not."""
    stdlib = sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix})
    without = ("site-packages", "dist-packages", "test", "idlelib", "__pycache__")  # of any size
    parts = [str(path) for path in Path(stdlib).iterdir() if path.name not in without and path.name[:7] != "config-"]
    python = os.path.realpath(sys.executable)
    out = pack_and_run(tmp_path, [python], python, "-c", "import ctypes, json, sys; print(json.dumps([1]))", add=parts)
    assert out == "[1]\n"
