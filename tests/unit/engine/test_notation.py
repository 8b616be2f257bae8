"""Docker's notations: what each means, and what is malformed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cloche.engine import notation
from cloche.engine.request import FileMount, HostDevice, Ulimit
from cloche.errors import Invalid, Unsupported
from cloche.oci.runtime import IdMapping


def volume(text: str) -> FileMount:
    return notation.volume(text, "/cwd/deep")


def mount(text: str) -> FileMount:
    return notation.mount(text, "/cwd/deep")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a:/b", FileMount("bind", "/b", "/a")),
        ("/a:/b:ro", FileMount("bind", "/b", "/a", True)),
        ("/a:/b:rw", FileMount("bind", "/b", "/a")),
        ("/a:/b:ro,rshared", FileMount("bind", "/b", "/a", True, "rshared")),
        ("/a:/b:slave,ro,cached", FileMount("bind", "/b", "/a", True, "slave")),
        ("./a:/b", FileMount("bind", "/b", "/cwd/deep/a")),
        (".:/b", FileMount("bind", "/b", "/cwd/deep")),
        ("../a:/b", FileMount("bind", "/b", "/cwd/a")),
        ("..:/b", FileMount("bind", "/b", "/cwd")),
        ("/a b:/c d", FileMount("bind", "/c d", "/a b")),
        ("/a:b", FileMount("bind", "b", "/a")),
        ("/a:/b:idmap,ro", FileMount("bind", "/b", "/a", True, idmap=True)),
        ("/x", FileMount("volume", "/x")),
        ("data:/x", FileMount("volume", "/x", "data")),
        ("data:/x:ro,nocopy", FileMount("volume", "/x", "data", True, copy=False)),
        ("~/x:/x", FileMount("volume", "/x", "~/x")),
    ],
)
def test_volumes(text: str, expected: FileMount) -> None:
    assert volume(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type=bind,source=/a,target=/b", FileMount("bind", "/b", "/a")),
        ("type=bind,src=./a,dst=/b,readonly", FileMount("bind", "/b", "/cwd/deep/a", True)),
        ("type=bind,source=/a,destination=/b,ro=false", FileMount("bind", "/b", "/a")),
        ("type=BIND,source=/a,target=/b,bind-propagation=RSLAVE", FileMount("bind", "/b", "/a", propagation="rslave")),
        (
            "type=bind,source=/a,target=/b,readonly,bind-recursive=readonly",
            FileMount("bind", "/b", "/a", True, "", "readonly"),
        ),
        ('type=bind,"source=/a,b",target=/c', FileMount("bind", "/c", "/a,b")),
        ('type=bind,"source=/a""b",target=/c', FileMount("bind", "/c", '/a"b')),
        ("type=bind,source=/a=b,target=/c,consistency=cached", FileMount("bind", "/c", "/a=b")),
        ("target=/x", FileMount("volume", "/x")),
        ("type=volume,src=a,dst=/x,volume-nocopy,ro", FileMount("volume", "/x", "a", True, copy=False)),
        ("source=a,target=/x,volume-nocopy=false,volume-driver=local", FileMount("volume", "/x", "a")),
        (
            "src=a,dst=/x,volume-subpath=b/c,volume-label=k=v,volume-label=l",
            FileMount("volume", "/x", "a", subpath="b/c", labels=(("k", "v"), ("l", ""))),
        ),
        ("type=bind,src=/a,dst=/x,idmap", FileMount("bind", "/x", "/a", idmap=True)),
        ("type=tmpfs,target=/x", FileMount("tmpfs", "/x")),
        ("type=tmpfs,target=/x,tmpfs-size=1m,tmpfs-mode=1777", FileMount("tmpfs", "/x", size=1 << 20, mode=0o1777)),
    ],
)
def test_mounts(text: str, expected: FileMount) -> None:
    assert mount(text) == expected


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("a,b", ["a", "b"]),
        ("", [""]),
        (",", ["", ""]),
        ('"a,b",c', ["a,b", "c"]),
        ('"a""b"', ['a"b']),
        ('""', [""]),
        ('"",""', ["", ""]),
        ('a,""""', ["a", '"']),
    ],
)
def test_csv(text: str, fields: list[str]) -> None:
    assert notation.csv_fields(text) == fields


@pytest.mark.parametrize(
    ("reading", "text", "expected"),
    [
        (notation.tmpfs, "/x", FileMount("tmpfs", "/x")),
        (
            notation.tmpfs,
            "/x:size=64m,mode=1777,noexec",
            FileMount("tmpfs", "/x", options=("size=64m", "mode=1777", "noexec")),
        ),
        (notation.device, "/dev/x", HostDevice("/dev/x", "/dev/x", "rwm")),
        (notation.device, "/dev/x:/dev/y", HostDevice("/dev/x", "/dev/y", "rwm")),
        (notation.device, "/dev/x:rw", HostDevice("/dev/x", "/dev/x", "rw")),
        (notation.device, "/dev/x:/dev/y:m", HostDevice("/dev/x", "/dev/y", "m")),
        (notation.ulimit, "nofile=1024:2048", Ulimit("nofile", 1024, 2048)),
        (notation.ulimit, "core=-1", Ulimit("core", -1, -1)),
        (notation.ulimit, "core=0:infinity", Ulimit("core", 0, -1)),
        (notation.id_map, "0:100000:65536", (IdMapping(0, 100000, 65536),)),
        (notation.id_map, "0:1:2,3:4:5", (IdMapping(0, 1, 2), IdMapping(3, 4, 5))),
        (notation.security_option, "no-new-privileges", ("no-new-privileges", "true")),
        (notation.security_option, "no-new-privileges=false", ("no-new-privileges", "false")),
        (notation.security_option, "no-new-privileges:true", ("no-new-privileges", "true")),
        (notation.security_option, "seccomp=unconfined", ("seccomp", "unconfined")),
        (notation.security_option, "seccomp:unconfined", ("seccomp", "unconfined")),
        (notation.security_option, "seccomp=/a=b:c", ("seccomp", "/a=b:c")),
        (notation.security_option, "seccomp=builtin", ("seccomp", "")),
        (notation.pair, "a=b=c", ("a", "b=c")),
        (notation.pair, " a", ("a", "")),
        (notation.sysctl, "net.x=1=2", ("net.x", "1=2")),
        (notation.octal, "1777", 0o1777),
        (notation.truth, "T", True),
        (notation.truth, "0", False),
    ],
)
def test_other_notations(reading: Callable[[str], object], text: str, expected: object) -> None:
    assert reading(text) == expected


@pytest.mark.parametrize(
    ("reading", "text", "message"),
    [
        (volume, "", "empty section between colons"),
        (volume, ":", "empty section between colons"),
        (volume, "/a:", "empty section between colons"),
        (volume, ":/a", "empty section between colons"),
        (volume, "/a:/b:", "empty section between colons"),
        (volume, "/a:/b:ro:x", "invalid spec: /a:/b:ro:x: too many colons"),
        (volume, "/a:/b:foo", "invalid mode: foo"),
        (volume, "/a:/b:ro,rw", "invalid mode: ro,rw; hint: one option of a kind"),
        (volume, "/a:/b:shared,slave", "one option of a kind"),
        (volume, "/a:/b:nocopy", "nocopy is for a volume"),
        (volume, "/a:/b:ro,\x1b", "invalid mode: \\x1b"),
        (volume, "data:/b:rshared", "rshared is for a bind"),
        (volume, "data:/b:copy,nocopy", "one option of a kind"),
        (notation.volumes_from, "a:rx", "invalid mode: rx"),
        (notation.volumes_from, ":ro", "no container is named"),
        (mount, "target=/x,volume-nocopy=maybe", "invalid value for volume-nocopy: maybe"),
        (mount, "", "invalid field '' must be a key=value pair"),
        (mount, "foo", "invalid field 'foo' must be a key=value pair"),
        (mount, "type=bind,target", "invalid field 'target' must be a key=value pair"),
        (mount, "type=bind,foo=x,target=/x", "unexpected key 'foo' in 'foo=x'"),
        (mount, "type=bind,source=/x", "target is required"),
        (mount, "type=bind,source=/x,target=/a,dst=/b", "dst is given twice"),
        (mount, "type=bind,source=/x,target=/a,ro=x", "invalid value for ro: x"),
        (mount, "type=tmpfs,target=/x,tmpfs-size=x", "invalid value for tmpfs-size: x"),
        (mount, "type=tmpfs,target=/x,tmpfs-mode=9", "invalid value for tmpfs-mode: 9"),
        (mount, 'type=bind,source=/a"b,target=/x', 'bare " in non-quoted field'),
        (mount, '"type=bind', 'extraneous or missing " in quoted field'),
        (mount, '"type=bind"x', 'extraneous or missing " in quoted field'),
        (mount, "type=bind,source=/a\n,target=/b", "more than one line"),
        (notation.device, "", "bad format for path"),
        (notation.device, ":", "bad format for path"),
        (notation.device, "a:b:c:d", "bad format for path: a:b:c:d"),
        (notation.device, "dev/x", "dev/x is not an absolute path"),
        (notation.device, "/dev/x:", "an empty target is not an absolute path"),
        (notation.device, "/dev/x:y", "y is not an absolute path"),
        (notation.device, "/dev/x:/dev/y:z", "bad mode specified: z"),
        (notation.device, "/dev/x:/dev/y:", "bad mode specified"),
        (notation.ulimit, "", "invalid ulimit argument: ''"),
        (notation.ulimit, "nofile", "invalid ulimit argument: nofile"),
        (notation.ulimit, "nofile=", "invalid ulimit argument: nofile="),
        (notation.ulimit, "nofile=1:2:3", "too many limit value arguments - 1:2:3"),
        (notation.ulimit, "nofile=1:", "invalid number: ''"),
        (notation.ulimit, "nofile=x", "invalid number: 'x'"),
        (notation.id_map, "", "invalid USER mode: ''"),
        (notation.id_map, "0:1", "invalid USER mode: '0:1'"),
        (notation.id_map, "0:1:-1", "invalid USER mode"),
        (notation.id_map, "0:1:99999999999", "invalid USER mode"),
        (notation.id_map, "0:1:2,", "invalid USER mode"),
        (notation.security_option, "foo", 'Invalid --security-opt: "foo"'),
        (notation.security_option, "foo=bar", 'invalid --security-opt: "foo=bar"'),
        (notation.security_option, "seccomp=", "no profile is named"),
        (notation.security_option, "no-new-privileges=maybe", "invalid boolean value: 'maybe'"),
        (notation.pair, "=b", "invalid label '=b': empty name"),
        (notation.pair, "a b=c", "label 'a b' contains whitespaces"),
        (notation.sysctl, "net.x", "sysctl 'net.x' is not allowed"),
        (notation.sysctl, "=1", "sysctl '=1' is not allowed"),
        (notation.octal, "", "invalid mode: ''"),
        (notation.truth, "yes", "invalid boolean value: 'yes'"),
    ],
)
def test_what_is_malformed(reading: Callable[[str], object], text: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        reading(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("reading", "text"),
    [
        (volume, "/a:/b:z"),
        (volume, "/a:/b:Z"),
        (mount, "target=/x,volume-driver=nfs"),
        (mount, "type=volume,volume-opt=type=tmpfs,target=/x"),
        (mount, "type=bind,source=/a,target=/x,bind-nonrecursive"),
        (mount, "type=image,source=a,target=/x"),
        (notation.security_option, "apparmor=unconfined"),
        (notation.security_option, "label:disable"),
        (notation.security_option, "systempaths=unconfined"),
    ],
)
def test_what_is_not_there_yet(reading: Callable[[str], object], text: str) -> None:
    with pytest.raises(Unsupported, match="not there yet"):
        reading(text)
