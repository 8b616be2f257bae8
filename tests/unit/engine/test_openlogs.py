"""Only so many logs are open; one that rests loses nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cloche.engine.openlogs import OpenLogs
from cloche.errors import NotFound
from cloche.runtime.log import STDOUT, LogWriter
from cloche.runtime.logview import Reader


def test_few_are_open_and_nothing_is_lost(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    logs = OpenLogs(3)
    writers = []
    for number in range(10):
        (tmp_path / str(number)).mkdir()
        writers.append(LogWriter(str(tmp_path / str(number)), 1 << 20, 3))
        logs.use(writers[-1])
    assert len(os.listdir("/proc/self/fd")) == before + 2 * 3
    out, into = os.pipe()
    for turn in range(3):
        for number, writer in enumerate(writers):
            os.write(into, f"{turn} {number}\n".encode())
            logs.use(writer)
            assert writer.take(out, STDOUT)
            assert len(os.listdir("/proc/self/fd")) <= before + 2 * 3 + 2
    for number, writer in enumerate(writers):
        logs.forget(writer)
        writer.close()
        with Reader(str(tmp_path / str(number))) as reader:
            said = b"".join(data for _, data in reader.read())
        assert said == b"".join(f"{turn} {number}\n".encode() for turn in range(3))
    os.close(out)
    os.close(into)
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_that_was_deleted_while_it_rested_is_not_made_again(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    writer = LogWriter(str(tmp_path / "log"), 1 << 20, 3)
    writer.close()
    shutil.rmtree(tmp_path / "log")
    out, into = os.pipe()
    os.write(into, b"x")
    with pytest.raises(NotFound):
        writer.take(out, STDOUT)
    os.close(out)
    os.close(into)
