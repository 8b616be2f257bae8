"""Hostile roots: what an image or a neighbour tries must touch nothing outside of the container, and say one line.

Each attack is made before bell comes; the host is compared before and after: its files, its mounts, its programs.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import leftovers
from cloche.errors import Error
from cloche.oci.runtime import Capabilities, Mount, Spec
from cloche.runtime.bell import binary
from cloche.step.base import Act, Plan, Ref
from cloche.step.cgroup import OpenForJoining
from cloche.step.mount import MountFilesystem
from rootfs import CAPABILITIES, Glass, join, making, place_before, running, streams, unpack

pytestmark = [pytest.mark.requires("root"), pytest.mark.usefixtures("private_mounts")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("base"))


def pictured(folder: Path) -> dict[str, tuple[int, int, int, str]]:
    """Every name below a folder: type and mode, owner, size, content or target."""
    picture = {}
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(where, name)
            s = os.lstat(path)
            said = os.readlink(path) if os.path.islink(path) else ""
            if os.path.isfile(path) and not said:
                said = Path(path).read_text()
            picture[path] = (s.st_mode, s.st_uid, s.st_size if said else 0, said)
    return picture


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """The host's precious files, at a path that the attacks name."""
    folder = tmp_path / "outside"
    (folder / "folder").mkdir(parents=True)
    (folder / "secret").write_text("of the host\n")
    (folder / "passwd").write_text("root:x:0:0::/outside:/bin/sh\nada:x:0:0::/outside:/bin/sh\n")
    return folder


@pytest.fixture
def glass(base: Path, tmp_path: Path, outside: Path) -> Iterator[Glass]:
    """A root to be made hostile. Whatever the test does, the host is afterwards as it was before."""
    made = Glass(base, tmp_path)
    before, files = leftovers.census(str(tmp_path)), pictured(outside)
    programs, parent = _digest(binary()), sorted(os.listdir(tmp_path))
    yield made
    assert pictured(outside) == files
    assert _digest(binary()) == programs
    assert sorted(os.listdir(tmp_path)) == parent
    assert not leftovers.grown(before, leftovers.census(str(tmp_path)))


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def refused(glass: Glass, spec: Spec | Plan) -> str:
    """The one line with which it is refused."""
    with pytest.raises(Error) as caught:
        glass.run(spec)
    assert str(caught.value).isprintable()
    return str(caught.value)


def links(outside: Path) -> dict[str, str]:
    """Where links of a hostile image lead."""
    return {
        "absolute": str(outside / "folder"),
        "climbing": "../" * 20 + str(outside / "folder"),
        "dangling": str(outside / "new/deep"),
        "within": "/elsewhere",
    }


@pytest.mark.parametrize("kind", ["absolute", "climbing", "dangling", "within"])
@pytest.mark.parametrize("name", ["proc", "sys"])
def test_a_link_at_proc_or_sys_is_refused(glass: Glass, outside: Path, name: str, kind: str) -> None:
    (glass.root / name).rmdir()
    (glass.root / name).symlink_to(links(outside)[kind])
    (glass.root / "elsewhere").mkdir()
    line = refused(glass, glass.spec("true"))
    assert f"on /{name}: the image has no real directory at /{name}: too many levels of symbolic links" in line


def test_a_link_that_leads_to_itself_is_refused(glass: Glass) -> None:
    (glass.root / "proc").rmdir()
    (glass.root / "proc").symlink_to("proc")
    assert "(ELOOP)" in refused(glass, glass.spec("true"))


def test_a_file_in_the_place_of_proc_is_refused(glass: Glass) -> None:
    (glass.root / "proc").rmdir()
    (glass.root / "proc").write_text("")
    assert "on /proc: the image has no real directory at /proc" in refused(glass, glass.spec("true"))


@pytest.mark.parametrize("kind", ["absolute", "climbing", "dangling", "within"])
def test_a_link_at_dev_stays_inside(glass: Glass, outside: Path, kind: str) -> None:
    """A directory may be a link: what it names is inside the root. The mask's null device may not."""
    (glass.root / "dev").rmdir()
    (glass.root / "dev").symlink_to(links(outside)[kind])
    assert "no /dev/null to mask with" in refused(glass, glass.spec("true"))
    spec = glass.spec("sh", "-c", "echo > /dev/null; cat /proc/self/mountinfo").replace(masked_paths=())
    code, said = glass.run(spec)
    assert code == 0
    points = (line.split()[4] for line in said.splitlines() if " - tmpfs " in line)
    inside = [point for point in points if point != "/"]  # the root itself may be on one
    assert inside == [{"within": "/elsewhere", "dangling": f"{outside}/new/deep"}.get(kind, f"{outside}/folder")]


@pytest.mark.parametrize("kind", ["absolute", "climbing", "dangling", "within"])
def test_a_link_at_a_mounts_target_stays_inside(glass: Glass, outside: Path, tmp_path: Path, kind: str) -> None:
    (glass.root / "etc/resolv.conf").unlink()
    (glass.root / "etc/resolv.conf").symlink_to(links(outside)[kind].replace("folder", "secret"))
    (glass.root / "data").symlink_to(links(outside)[kind])
    (glass.root / "way").symlink_to(links(outside)[kind].replace("folder", "other"))
    mounts = (
        Mount("/etc/resolv.conf", "bind", str(outside / "secret"), ("bind", "ro")),
        Mount("/data", "bind", str(outside / "folder"), ("bind",)),
        Mount("/way/new", "bind", str(outside / "secret"), ("bind", "ro")),
        Mount("/way/deep/er", "tmpfs", "tmpfs"),
    )
    if kind in ("dangling", "within"):
        mounts = mounts[:1]  # one place cannot be a file and a directory
    if kind == "dangling":
        mounts += (Mount("/data2/deep", "tmpfs", "tmpfs"),)
        (glass.root / "data2").symlink_to(str(outside / "other/place"))
    code, said = glass.run(glass.spec("cat", "/etc/resolv.conf", mounts=mounts))
    assert (code, said) == (0, "of the host\n")


def test_a_link_that_loops_at_a_mounts_target_is_refused(glass: Glass, outside: Path) -> None:
    (glass.root / "data").symlink_to("/other")
    (glass.root / "other").symlink_to("/data")
    spec = glass.spec("true", mounts=(Mount("/data/x", "bind", str(outside), ("bind",)),))
    assert "(ELOOP)" in refused(glass, spec)


@pytest.mark.parametrize("place", ["/proc/sys/kernel", "/proc/self/attr", "/proc/1"])
def test_a_mount_through_a_link_into_proc_is_refused(glass: Glass, outside: Path, place: str) -> None:
    """CVE-2019-19921 and its sisters: what hides a part of /proc takes what is written there for itself."""
    (glass.root / "data").symlink_to(place)
    spec = glass.spec("true", mounts=(Mount("/data", "bind", str(outside / "folder"), ("bind",)),))
    assert "leads into /proc: /data" in refused(glass, spec)


def test_a_replaced_null_device_masks_nothing(glass: Glass, outside: Path) -> None:
    null = outside.parent / "null"
    null.write_text("what the mask would show")
    spec = glass.spec("true", mounts=(Mount("/dev/null", "bind", str(null), ("bind",)),))
    assert "/dev/null is not the null device" in refused(glass, spec.replace(devices=()))
    null.unlink()


def test_what_is_mounted_over_proc_is_not_taken_for_it(glass: Glass, outside: Path) -> None:
    spec = glass.spec("true")
    assert "only proc may be mounted there" in refused(glass, with_proc(spec, Mount("/proc", "tmpfs", "tmpfs")))
    for path in ("sys", "keys", "bus"):
        (glass.root / "proc" / path).mkdir()
    wanted = glass.plan(spec.replace(sysctl=(("kernel.domainname", "x"),)))
    fake = [
        a.replace(step=MountFilesystem("tmpfs", "/proc")) if a.step.name() == "mount proc on /proc" else a
        for a in wanted.acts
    ]
    assert "set the kernel parameter kernel.domainname to x: " in refused(glass, Plan(tuple(fake)))
    bound = with_proc(spec, Mount("/proc", "bind", str(outside), ("rbind",)))
    assert "only what the kernel shows may be mounted on /proc" in refused(glass, bound)


def with_proc(spec: Spec, mount: Mount) -> Spec:
    return spec.replace(mounts=tuple(mount if m.destination == "/proc" else m for m in spec.mounts))


def test_a_list_of_users_that_is_the_hosts_is_not_read(glass: Glass, outside: Path) -> None:
    """An absolute link is the container's own; one through an open descriptor of the host finds it closed."""
    (glass.root / "etc/passwd").unlink()
    (glass.root / "etc/passwd").symlink_to(outside / "passwd")
    assert "no matching entries in passwd file for ada" in refused(glass, glass.spec("true", user="ada"))
    for fd in (*range(3, 16), 64):
        (glass.root / "etc/passwd").unlink()
        (glass.root / "etc/passwd").symlink_to(f"/proc/self/fd/{fd}/{'../' * 20}{outside}/passwd")
        assert "passwd" in refused(glass, _leaking(glass, "true", outside, user="ada"))


def _leaking(glass: Glass, command: str, outside: Path, **changes: Any) -> Plan:
    """A plan in which bell holds a directory of the host, as it does on cgroup v2."""
    held = OpenForJoining(str(outside), Ref("held"), directory=True)
    wanted = glass.plan(glass.spec(command, **changes))
    return place_before(wanted, "Clone", Act("stage", held))


@pytest.mark.parametrize("fd", [*range(3, 16), 64])
def test_a_command_through_a_descriptor_of_the_host_is_not_there(glass: Glass, outside: Path, fd: int) -> None:
    """CVE-2024-21626: /proc/self/fd/N of a directory of the host, and up from there."""
    way = f"/proc/self/fd/{fd}"
    for command in (f"{way}/{'../' * 20}bin/true", f"{way}/folder/../{'../' * 20}bin/sh"):
        refused(glass, _leaking(glass, command, outside))
    line = refused(glass, _leaking(glass, "true", outside, cwd=way))
    assert "working directory" in line or "make directory" in line


@pytest.mark.parametrize("fd", [*range(3, 24), 64])
def test_a_joining_command_through_a_descriptor_is_not_there(glass: Glass, outside: Path, fd: int) -> None:
    held = Act("stage", OpenForJoining(str(outside), Ref("held"), directory=True))
    with streams() as stdio, running(glass.plan(glass.spec("sleep", "60")), stdio) as first:
        way = f"/proc/self/fd/{fd}"
        for spec in (glass.spec("true", cwd=way), glass.spec(f"{way}/{'../' * 20}bin/true")):
            wanted = place_before(join(first.pid, spec.process, glass.host), "SetNamespace", held)
            with pytest.raises(Error):
                glass.run(wanted)


def test_a_working_directory_that_is_a_link_stays_inside(glass: Glass, outside: Path) -> None:
    (glass.root / "way").symlink_to(outside / "folder")
    assert glass.sh("/bin/readlink /proc/self/cwd", cwd="/way") == f"{outside}/folder"
    assert glass.sh("/bin/readlink /proc/self/cwd", cwd="/../../x") == "/x"


@pytest.mark.parametrize("way", ["command", "script", "link", "PATH"])
def test_bell_as_the_command_is_a_copy_that_nobody_can_write(glass: Glass, way: str) -> None:
    """CVE-2019-5736: the container executes /proc/self/exe, which is bell, and would write to it."""
    (glass.root / "bin/script").write_text("#!/proc/self/exe\n")
    (glass.root / "bin/script").chmod(0o755)
    (glass.root / "bin/link").symlink_to("/proc/self/exe")
    command = {"command": "/proc/self/exe", "script": "/bin/script", "link": "/bin/link", "PATH": "link"}[way]
    code, said = glass.run(glass.spec(command))
    assert (code, said.count("\n")) == (125, 1)
    assert "cloche starts this program, people do not" in said


ATTACK = """
for p in /proc/[0-9]*; do
    [ "$(cat $p/comm)" = bell ] || continue
    echo found
    readlink $p/exe
    cat $p/exe > /copy && echo read
    echo x > $p/exe && echo wrote
    echo x >> $p/exe && echo wrote
    cp /bin/true $p/exe && echo wrote
    for f in $p/fd/*; do readlink $f >/dev/null && echo followed $f; done
    cat $p/environ && echo environ
done 2>/errors
echo done
"""


@pytest.mark.parametrize("powerful", [False, True], ids=["default", "ptrace"])
def test_bell_that_joins_cannot_be_written_by_who_is_inside(glass: Glass, powerful: bool) -> None:
    """/proc/PID/exe of bell, from another process in the pid namespace, while bell waits at its gate."""
    names = (*CAPABILITIES, *(("CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH") if powerful else ()))
    rights = Capabilities(names, names, names)
    with streams() as quiet, running(glass.plan(glass.spec("sleep", "60")), quiet) as first:
        waiting = join(first.pid, glass.spec("true").process, glass.host)
        with streams() as stdio, making(waiting, stdio) as made:
            while made.advance() != "ready":
                made.wait()
            made.wait()
            attack = glass.spec("sh", "-c", ATTACK, capabilities=rights).process
            code, said = glass.run(join(first.pid, attack, glass.host))
            assert (code, said.split()[0], said.split()[-1]) == (0, "found", "done")
            assert "wrote" not in said
            if powerful:
                assert "/memfd:bell (deleted)" in said
                assert said.count("followed") == 5  # standard streams, control, status: nothing of the host's files
            else:
                assert said.split() == ["found", "done"]
                assert "Permission denied" in (glass.root / "errors").read_text()


def test_a_hostile_root_cannot_stop_or_redirect_the_terminal(glass: Glass, outside: Path) -> None:
    (glass.root / "dev/console").symlink_to(outside / "secret")
    (glass.root / "elsewhere").mkdir()
    spec = glass.spec("true", terminal=True)
    mounts = tuple(m for m in spec.mounts if m.destination not in ("/dev", "/dev/pts"))
    (glass.root / "dev/pts").symlink_to("/elsewhere")
    assert "open the terminal: " in refused(glass, spec.replace(mounts=mounts, devices=(), masked_paths=()))


def test_nodes_and_links_are_made_inside(glass: Glass, outside: Path) -> None:
    spec = glass.spec("true")
    mounts = tuple(m for m in spec.mounts if m.destination not in ("/dev", "/dev/pts"))
    (glass.root / "dev").rmdir()
    (glass.root / "dev").symlink_to(outside / "folder")
    bare = spec.replace(mounts=mounts, masked_paths=())
    assert glass.run(bare)[0] == 0
    inside = glass.root / str(outside).lstrip("/") / "folder"
    assert (inside / "null").is_char_device()
    assert glass.run(bare)[0] == 0  # the node that is there is the one that is wanted
    (inside / "null").unlink()
    (inside / "null").write_text("hostile\n")
    assert "make device /dev/null: something else is there: null: file exists" in refused(glass, bare)


def test_renames_elsewhere_do_not_keep_a_link_from_being_followed(
    glass: Glass, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """openat2(2): EAGAIN, whenever anything on the machine is renamed while `..` is resolved."""
    (glass.root / "real").mkdir()
    (glass.root / "link").symlink_to("/".join([*[".."] * 30, "real"]))
    renaming = "import os\nwhile True: os.rename('a', 'b'); os.rename('b', 'a')"
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "a").mkdir()
    with subprocess.Popen([sys.executable, "-c", renaming], cwd=elsewhere) as somebody:
        try:
            spec = glass.spec("true", mounts=tuple(Mount(f"/link/{n}", "tmpfs", "tmpfs") for n in range(20)))
            assert [glass.run(spec)[0] for _ in range(10)] == [0] * 10
        finally:
            somebody.kill()
