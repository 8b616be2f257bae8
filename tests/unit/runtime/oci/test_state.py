"""A container's directory: what is kept, what follows from it, who may change it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cloche.errors import Conflict, Error, Invalid, NotFound
from cloche.kernel.processes import start_time
from cloche.runtime.oci.state import FILTERS, Directory, Record, around_pid, check_id, names

RECORD = Record("1.3.0", "box", "/bundle", "/bundle/rootfs", "2026-01-01T00:00:00Z", "root", (("a", 'b"\n'),))


@pytest.fixture
def place(tmp_path: Path) -> Directory:
    with Directory.create(str(tmp_path), "box") as made:
        made.keep(RECORD, "")
    return made


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", "a\n", "x" * 256, FILTERS, "../x", "a\0"])
def test_a_name_that_could_lead_elsewhere_is_none(name: str) -> None:
    with pytest.raises(Invalid):
        check_id(name)


@pytest.mark.parametrize("name", ["a", "A_b+c-d.e", "x" * 255, "..."])
def test_other_names_are_taken(name: str) -> None:
    check_id(name)


def test_what_is_kept_is_read_back(place: Directory) -> None:
    assert place.record() == RECORD
    assert os.stat(place.path).st_mode & 0o777 == 0o700


def test_a_name_is_given_once(place: Directory, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="already exists"):
        Directory.create(str(tmp_path), "box")
    assert names(str(tmp_path)) == ["box"]


def test_a_damaged_record_is_an_error_and_no_traceback(place: Directory) -> None:
    for content in (b"", b"{}", b'{"_": "Record"}', b'{"_": "Other"}', b"[", b"\xff"):
        place.write("record", content)
        with pytest.raises(Error, match="damaged"):
            place.record()


def test_a_process_of_another_start_time_is_not_the_containers(place: Directory) -> None:
    place.write("process", f"{os.getpid()} {start_time(os.getpid()) + 1}\n".encode())
    assert place.status() == "stopped"
    place.write("process", f"{os.getpid()} {start_time(os.getpid())}\n".encode())
    assert place.status() == "running"
    os.mkfifo(place.at("start"))
    assert place.status() == "running", "nobody stands at the gate"
    waiting = os.open(place.at("start"), os.O_RDWR)
    assert place.status() == "creating", "who makes it has more to do"
    place.write("made", b"")
    assert place.status() == "created"
    os.close(waiting)


def test_a_container_without_a_process_is_stopped_or_being_made(place: Directory) -> None:
    assert place.status() == "stopped"
    with place:
        assert Directory(os.path.dirname(place.path), "box").status() == "creating"


def test_the_state_is_the_specifications(place: Directory) -> None:
    told = place.state()
    assert told == {
        "ociVersion": "1.3.0",
        "id": "box",
        "status": "stopped",
        "pid": 0,
        "bundle": "/bundle",
        "rootfs": "/bundle/rootfs",
        "created": "2026-01-01T00:00:00Z",
        "owner": "root",
        "annotations": {"a": 'b"\n'},
    }
    version, rest = place.read("told").decode().split("\n", 1)
    assert json.loads("{" + rest) == {k: told[k] for k in list(told)[4:]} and version == "1.3.0"


def test_hooks_get_json_whatever_is_in_it() -> None:
    before, after = around_pid(RECORD, "creating")
    assert json.loads(f"{before}42{after}")["annotations"] == {"a": 'b"\n'}
    assert json.loads(f"{before}42{after}")["pid"] == 42


def test_what_is_removed_is_not_there(place: Directory, tmp_path: Path) -> None:
    with place:
        place.remove()
    with pytest.raises(NotFound, match="does not exist"):
        place.record()
    with pytest.raises(NotFound), place:
        pass
    assert names(str(tmp_path)) == []
