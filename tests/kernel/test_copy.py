"""diff, cp and export: a container's files from outside, running or not, whatever it does meanwhile."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from archives import entry, packed
from cloche.sdk import Client
from commands import COMMAND, cloche, ok
from probes import requires

pytestmark = [pytest.mark.one_lane, requires("root", "overlay"), pytest.mark.usefixtures("store")]


def box(script: str = "", *flags: str, name: str = "box", run: bool = True) -> None:
    """A container that has done `script` and, if it shall, goes on."""
    end = "exec sleep 1000" if run else "true"
    ok(
        "run",
        "-d",
        "--name",
        name,
        "--network",
        "none",
        *flags,
        "starter",
        "sh",
        "-c",
        f"{script}\ntouch /ready; {end}",
    )
    deadline = time.monotonic() + 20
    if not run:
        ok("wait", name)
        return
    while cloche("exec", name, "test", "-e", "/ready").code:
        assert time.monotonic() < deadline


def inside(script: str, name: str = "box") -> str:
    return ok("exec", name, "sh", "-c", script)


def pour(data: bytes, *words: str) -> tuple[int, str]:
    done = subprocess.run([*COMMAND, *words], input=data, capture_output=True)
    assert b"Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr.decode()


def tar_of(*words: str) -> tarfile.TarFile:
    done = subprocess.run([*COMMAND, *words], capture_output=True, check=True)
    return tarfile.open(fileobj=io.BytesIO(done.stdout))


# diff


@pytest.mark.parametrize("run", [True, False])
def test_diff(run: bool) -> None:
    box(
        "echo a > /new; mkdir /d; echo b > /d/e; rm /bin/yes; chmod 700 /tmp; rm -r /etc; mkdir /etc; echo x > /etc/z",
        run=run,
    )
    found = ok("diff", "box").splitlines()
    for line in ("A /new", "A /d", "A /d/e", "C /tmp", "C /etc", "A /etc/z", "D /etc/passwd", "A /ready"):
        assert line in found, (line, found)
    assert any(line.startswith("D ") and line.endswith("/yes") for line in found)
    assert found == sorted(found, key=lambda line: line[2:])
    assert not any(line[2:] in ("/proc", "/dev", "/sys", "/dev/pts") for line in found)


def test_diff_of_one_that_did_nothing_is_empty() -> None:
    ok("create", "--name", "box", "--network", "none", "starter", "true")
    assert ok("diff", "box") == ""
    ok("start", "box")
    ok("wait", "box")
    assert ok("diff", "box") == ""
    assert cloche("diff", "none").code == 1


# cp: rules of paths


@pytest.mark.parametrize("run", [True, False])
def test_paths_out(run: bool, tmp_path: Path) -> None:
    box("mkdir -p /d/sub; echo 1 > /d/one; echo 2 > /d/sub/two; ln -s one /d/link; ln -s /d /way", run=run)
    out = str(tmp_path)
    ok("cp", "box:/d/one", f"{out}/file")
    assert (tmp_path / "file").read_text() == "1\n"
    ok("cp", "box:d/sub/two", "file", cwd=tmp_path)
    assert (tmp_path / "file").read_text() == "2\n", "an existing file is replaced"
    ok("cp", "box:/d", f"{out}/new")
    assert (tmp_path / "new/sub/two").read_text() == "2\n", "it is made, and has the contents"
    ok("cp", "box:/d", f"{out}/new")
    assert (tmp_path / "new/d/sub/two").read_text() == "2\n", "it is there: the directory goes into it"
    (tmp_path / "flat").mkdir()
    ok("cp", "box:/d/.", f"{out}/flat/")
    assert sorted(os.listdir(tmp_path / "flat")) == ["link", "one", "sub"]
    assert os.readlink(tmp_path / "flat/link") == "one"
    ok("cp", "box:/d/link", f"{out}/as-link")
    assert os.readlink(tmp_path / "as-link") == "one"
    ok("cp", "-L", "box:/d/link", f"{out}/followed")
    assert not (tmp_path / "followed").is_symlink() and (tmp_path / "followed").read_text() == "1\n"
    ok("cp", "box:/way/", f"{out}/through")
    assert (tmp_path / "through/one").read_text() == "1\n"
    for words, cause in {
        ("box:/none", out): "no such file",
        ("box:/d/one/", out): "not a directory",
        ("box:/d/one", f"{out}/none/"): "destination directory must exist",
        ("box:/d/one", f"{out}/none/x"): "no such file",
        ("box:/d", f"{out}/file"): "cannot copy a directory to a file",
        ("box:/d", "box:/e"): "between containers",
        ("/d", "/e"): "must specify at least one container",
        ("none:/d", out): "No such container: none",
    }.items():
        result = cloche("cp", *words)
        assert result.code != 0 and cause in result.err, result


@pytest.mark.parametrize("run", [True, False])
def test_paths_in(run: bool, tmp_path: Path) -> None:
    box("mkdir /d; ln -s /d/real /d/link; echo old > /d/real", run=run)
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "one").write_text("1")
    (tree / "sub/two").write_text("2" * 5000)
    os.chown(tree / "one", 1234, 1234)
    os.chmod(tree / "one", 0o4750)
    os.link(tree / "one", tree / "again")
    ok("cp", str(tree / "one"), "box:/d/one")
    ok("cp", "tree", "box:/made", cwd=tmp_path)
    ok("cp", "./tree/.", "box:/d/", cwd=tmp_path)
    ok("cp", str(tree), "box:/d")
    ok("cp", "-a", str(tree / "one"), "box:/kept")
    ok("cp", str(tree / "sub/two"), "box:/d/link")
    if not run:
        ok("cp", "box:/d", str(tmp_path / "back"))
        assert (tmp_path / "back/tree/sub/two").read_text() == "2" * 5000
        assert os.readlink(tmp_path / "back/link") == "/d/real"
        assert (tmp_path / "back/real").read_text() == "2" * 5000
        return
    assert inside("stat -c '%u:%g %a %h' /d/one /kept /made/again") == "0:0 4750 2\n1234:1234 4750 1\n0:0 4750 2"
    assert inside("wc -c < /d/tree/sub/two; wc -c < /made/sub/two; wc -c < /d/real; readlink /d/link").split() == [
        "5000", "5000", "5000", "/d/real",
    ]  # fmt: skip
    for words, cause in {
        (str(tree), "box:/d/one"): "cannot copy a directory to a file",
        (str(tree / "one"), "box:/no/such"): "no such file",
        (str(tree / "one"), "box:/no/"): "destination directory must exist",
        (str(tree / "none"), "box:/d"): "no such file",
        (str(tree / "one"), "box:/proc/sys/kernel/x"): "",
    }.items():
        result = cloche("cp", *words)
        assert result.code != 0 and cause in result.err, result


def test_owners_and_rights_on_the_way_out(tmp_path: Path) -> None:
    box("cp /bin/true /s; chown 1234:1234 /s; chmod 6755 /s")
    ok("cp", "box:/s", str(tmp_path / "mine"))
    ok("cp", "-a", "box:/s", str(tmp_path / "kept"))
    mine, kept = os.stat(tmp_path / "mine"), os.stat(tmp_path / "kept")
    assert (mine.st_uid, stat.S_IMODE(mine.st_mode)) == (os.geteuid(), 0o755), "a stranger's program gets no rights"
    assert (kept.st_uid, stat.S_IMODE(kept.st_mode)) == (1234, 0o6755)


@pytest.mark.parametrize("run", [True, False])
def test_streams(run: bool) -> None:
    box("mkdir /d; echo 1 > /d/one; chown 7:8 /d/one", run=run)
    with tar_of("cp", "box:/d", "-") as found:
        assert found.getnames() == ["d", "d/one"]
        member = found.getmember("d/one")
        assert (member.uid, member.gid) == (7, 8)
    long = "n" * 200 + "/" + "m" * 120
    data = packed((entry(long, uid=5, gid=6), b"long"), (entry("two"), b"2"))
    assert pour(data, "cp", "-", "box:/d") == (0, "")
    with tar_of("cp", "box:/d/.", "-") as found:
        stream = found.extractfile("./" + long if "./" + long in found.getnames() else long)
        assert stream is not None and stream.read() == b"long"
    code, err = pour(data, "cp", "-", "box:/d/one")
    assert code == 1 and "it is not a directory" in err
    code, err = pour(b"nonsense" * 100, "cp", "-", "box:/d")
    assert code == 1 and "tar" in err
    code, err = pour(data[:900], "cp", "-", "box:/d")
    assert code == 1 and "ends too early" in err


# Mounts, read-only roots, user namespaces


@pytest.mark.parametrize("run", [True, False])
def test_mounts_are_seen_and_refuse_what_they_refuse(run: bool, tmp_path: Path) -> None:
    (tmp_path / "rw").mkdir()
    (tmp_path / "ro").mkdir()
    (tmp_path / "ro/there").write_text("seen")
    box("", "-v", f"{tmp_path}/rw:/rw", "-v", f"{tmp_path}/ro:/ro:ro", run=run)
    ok("cp", "box:/ro/there", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_text() == "seen"
    ok("cp", str(tmp_path / "copy"), "box:/rw/new")
    assert (tmp_path / "rw/new").read_text() == "seen"
    refused = cloche("cp", str(tmp_path / "copy"), "box:/ro/new")
    assert refused.code == 1 and "read-only file system" in refused.err
    with tar_of("export", "box") as found:
        assert not any(name.lstrip("./").startswith(("rw/", "ro/", "proc/")) for name in found.getnames())


def test_a_read_only_root_refuses(tmp_path: Path) -> None:
    ok("run", "-d", "--name", "box", "--network", "none", "--read-only", "--tmpfs", "/t", "starter", "sleep", "1000")
    (tmp_path / "f").write_text("x")
    assert "read-only" in cloche("cp", str(tmp_path / "f"), "box:/f").err
    ok("cp", str(tmp_path / "f"), "box:/t/f")
    assert inside("cat /t/f") == "x"
    ok("kill", "box")
    ok("wait", "box")
    refused = cloche("cp", str(tmp_path / "f"), "box:/f")
    assert refused.code == 1 and "read-only" in refused.err


@requires("userns")
@pytest.mark.parametrize("run", [True, False])
def test_owners_in_a_user_namespace(run: bool, tmp_path: Path) -> None:
    if "id-mapped" in cloche("run", "--rm", "--network", "none", "--userns", "auto", "starter", "true").err:
        pytest.skip("needs a file system that can be mounted id-mapped")
    box("echo 1 > /f; chown 5:6 /f", "--userns", "auto", run=run)
    with tar_of("cp", "box:/f", "-") as found:
        assert (found.getmember("f").uid, found.getmember("f").gid) == (5, 6)
    with tar_of("export", "box") as found:
        passwd = next(m for m in found.getmembers() if m.name.lstrip("./") == "etc/passwd")
        assert (passwd.uid, passwd.gid) == (0, 0)
    (tmp_path / "in").write_text("x")
    os.chown(tmp_path / "in", 33, 34)
    ok("cp", str(tmp_path / "in"), "box:/root-owned")
    ok("cp", "-a", str(tmp_path / "in"), "box:/etc/kept")
    if not run:
        ok("start", "box")
        ok("wait", "box")
    with tar_of("cp", "box:/root-owned", "-") as found:
        assert found.getmembers()[0].uid == 0
    with tar_of("cp", "box:/etc/kept", "-") as found:
        assert (found.getmembers()[0].uid, found.getmembers()[0].gid) == (33, 34)
    assert "A /f" in ok("diff", "box").splitlines() and "A /etc/kept" in ok("diff", "box").splitlines()
    assert "C /bin" not in ok("diff", "box").splitlines()


# Hostile containers, hostile archives


def test_links_never_lead_out_of_the_container(tmp_path: Path) -> None:
    secret, target = tmp_path / "secret", tmp_path / "victim"
    secret.write_text("host")
    target.mkdir()
    up = "../" * 20
    box(f"ln -s {up}{target} /up; ln -s {target} /abs; ln -s {up}{secret} /read; ln -s /proc/self/root /magic")
    for link in ("/up/x", "/abs/x", "/magic/x"):
        (tmp_path / "f").write_text("x")
        assert cloche("cp", str(tmp_path / "f"), f"box:{link}").code != 0
    assert cloche("cp", "-L", "box:/read", str(tmp_path / "got")).code != 0
    assert os.listdir(target) == [] and not (tmp_path / "got").exists()


def test_links_that_are_swapped_while_files_are_copied(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "f").write_text("host")
    swap = f"mkdir /d /e; ln -s {victim} /l; echo box > /e/f; cp /e/f /d/f"
    box(f"{swap}; (while :; do mv /d /t; mv /l /d; mv /d /l; mv /t /d; done) >/dev/null 2>&1 &")
    (tmp_path / "new").write_text("new")
    for number in range(12):
        cloche("cp", str(tmp_path / "new"), f"box:/d/w{number}")
        got = tmp_path / f"got{number}"
        if cloche("cp", "-L", "box:/d/f", str(got)).code == 0:
            assert got.read_text() != "host"
    assert os.listdir(victim) == ["f"] and (victim / "f").read_text() == "host"


def test_what_is_no_file_does_not_hang_or_appear(tmp_path: Path) -> None:
    box("mkdir /d; mkfifo /d/pipe; echo 1 > /d/f; mknod /d/null c 1 3", "--cap-add", "MKNOD")
    refused = cloche("cp", "box:/d", str(tmp_path / "out"))
    assert refused.code == 1 and "a device node of a container is not made on the host" in refused.err
    inside("rm /d/null")
    ok("cp", "box:/d", str(tmp_path / "out2"))
    assert stat.S_ISFIFO(os.stat(tmp_path / "out2/pipe").st_mode)
    ok("cp", "box:/proc/version", str(tmp_path / "version"))


def test_hostile_archives(tmp_path: Path) -> None:
    box("mkdir -p /d/full; touch /d/full/f /d/plain")
    for members, cause in (
        ([(entry("../out"), b"x")], ".. in it"),
        ([(entry("l", tarfile.SYMTYPE, linkname="/tmp"), b""), (entry("l/x"), b"x")], "l/x"),
        ([(entry("h", tarfile.LNKTYPE, linkname="../../etc/passwd"), b"")], ".. in it"),
        ([(entry("h", tarfile.LNKTYPE, linkname="none"), b"")], "which is no file"),
        ([(entry("full"), b"x")], "cannot overwrite directory with non-directory"),
        ([(entry("plain", tarfile.DIRTYPE), b"")], "cannot overwrite non-directory with directory"),
    ):
        code, err = pour(packed(*members), "cp", "-", "box:/d")
        assert code == 1 and cause in err, (cause, err)
    assert inside("ls /tmp /out 2>/dev/null; true").strip() == "/tmp:"


# export


@pytest.mark.parametrize("run", [True, False])
def test_export_has_all_the_files_and_none_that_is_mounted(run: bool, tmp_path: Path) -> None:
    box("mkdir /d; echo 1 > /d/one; ln /d/one /d/two; ln -s one /d/link; rm /bin/yes", run=run)
    ok("export", "-o", str(tmp_path / "out.tar"), "box")
    with tarfile.open(tmp_path / "out.tar") as found:
        names = {name.removeprefix("./"): found.getmember(name) for name in found.getnames()}
        assert {"d/one", "d/two", "d/link", "ready", "etc/passwd"} <= names.keys()
        assert names["d/two"].islnk() and names["d/link"].linkname == "one"
        assert not any(name.endswith("bin/yes") for name in names)
        assert not any(name.startswith(("proc/", "sys/", "dev/pts")) for name in names)
    assert os.listdir(tmp_path) == ["out.tar"]
    failed = cloche("export", "-o", str(tmp_path / "none/out.tar"), "box")
    assert failed.code == 1 and os.listdir(tmp_path) == ["out.tar"]
    with open("/dev/full", "wb") as nowhere:
        full = subprocess.run([*COMMAND, "export", "box"], stdout=nowhere, stderr=subprocess.PIPE)
    assert full.returncode != 0 and b"Traceback" not in full.stderr


def test_from_python(store: Path, tmp_path: Path) -> None:
    with Client(str(store)) as client:
        one = client.run("starter", ["sh", "-c", "echo hi > /f"], network="none")
        before = set(os.listdir("/proc/self/fd"))
        assert ("A", "/f") in one.diff()
        one.copy_out("/f", str(tmp_path / "f"))
        one.copy_in(str(tmp_path / "f"), "/g")
        one.put_archive("/", one.get_archive("/g"))
        assert b"".join(one.export())[257:262] == b"ustar"
        assert set(os.listdir("/proc/self/fd")) == before, "no descriptor stays open"
        one.remove()
