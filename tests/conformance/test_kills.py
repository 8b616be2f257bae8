"""A call that is killed: whatever is left, `delete --force` takes away, and the id can be used again.

The specification asks for it of errors only ("as if the operation were never attempted"); who is killed cannot clean
up. Of the peers that is not known.
"""

from __future__ import annotations

import random
import subprocess
import time

import pytest

from conformance.harness import Bundle, differs, eventually, runtime_name, wait_for_end
from stepping import killed_at

pytestmark = [
    differs("runc", "leaves what its init has made until then", always=False),
    differs("crun", "leaves a directory that nothing removes", always=False),
    pytest.mark.timeout(240),
]


def creating(bundle: Bundle) -> subprocess.Popen[bytes]:
    bundle.argv("sleep", "1000")
    bundle.write()
    out = bundle.runtime.output()
    return bundle.runtime.spawn("create", "--bundle", str(bundle.path), bundle.id, stdout=out.fd, stderr=out.fd)


def nothing_is_left(bundle: Bundle) -> None:
    """Once it was deleted; what waited for the killed one notices its end a moment later."""
    assert bundle.delete("--force").code == 0
    assert bundle.status() == "missing"
    eventually(lambda: not bundle.runtime.left_behind(), "nothing is left")


def test_create_is_killed_at_random_moments(bundle: Bundle, kills: int) -> None:
    for _ in range(kills):
        process = creating(bundle)
        time.sleep(random.uniform(0, 0.06))  # a random moment, not a wait for anything
        process.kill()
        process.wait()
        nothing_is_left(bundle)
    assert creating(bundle).wait(10) == 0, "the id is free"


@pytest.mark.skipif(runtime_name() != "cloche-oci", reason="one process at a time is traced")
def test_create_is_killed_at_its_system_calls(bundle: Bundle, kills: int) -> None:
    """From where the container's directory is made on; each moment is another one."""
    stops, step = 1200, max(1, 2400 // kills)
    while True:
        process = creating(bundle)
        try:
            with killed_at(process.pid, stops) as killer:
                process.wait(30)
        except ProcessLookupError:
            pass  # it was quicker than we
        process.wait(30)
        ended = process.returncode
        nothing_is_left(bundle)
        if ended == 0 and not killer.done:
            return
        stops += step


def test_start_is_killed_at_random_moments(bundle: Bundle, kills: int) -> None:
    """Afterwards it is created or runs, and in both cases can be killed and deleted."""
    for _ in range(kills // 2):
        assert bundle.create("sleep", "1000").code == 0
        process = bundle.runtime.spawn("start", bundle.id)
        time.sleep(random.uniform(0, 0.002))
        process.kill()
        process.wait()
        assert bundle.status() in ("created", "running")
        nothing_is_left(bundle)


def test_delete_is_killed_at_random_moments(bundle: Bundle, kills: int) -> None:
    for _ in range(kills // 2):
        assert bundle.create("true").code == 0
        first = bundle.first
        bundle.start()
        wait_for_end(first)
        process = bundle.runtime.spawn("delete", bundle.id)
        time.sleep(random.uniform(0, 0.003))
        process.kill()
        process.wait()
        nothing_is_left(bundle)
