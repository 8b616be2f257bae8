"""wait_until: a line, a port, an answer, health; it is over when the container is, or the time."""

from __future__ import annotations

import os
import re
import subprocess
from time import monotonic

import pytest

import cloche
from cloche.image.pack import create
from cloche.image.packing import collect
from probes import available

pytestmark = [pytest.mark.one_lane, pytest.mark.requires("root", "overlay"), pytest.mark.usefixtures("store")]

SERVER = """
import http.server, socket, sys, time
address, port, later, status = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
class Handler(http.server.BaseHTTPRequestHandler):
    first = 0
    def do_GET(self):
        Handler.first = Handler.first or time.monotonic()
        early = time.monotonic() < Handler.first + later
        self.send_response(503 if early else status if self.path == "/ready" else 404)
        self.end_headers()
    def log_message(self, *_): pass
print("not yet", flush=True)
time.sleep(later)
http.server.HTTPServer((address, port), Handler).serve_forever()
"""


@pytest.fixture
def python(store: object) -> str:
    """An image with the machine's own Python, which serves HTTP."""
    program = "/usr/bin/python3"
    if not os.path.exists(program):
        pytest.skip("needs the system's Python")
    code = "import sysconfig; print(sysconfig.get_path('stdlib'))"
    library = subprocess.run([program, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    with cloche.Client() as client:
        create(client.engine.changing_images(), "py", collect([program], [library]))
    return "py"


def test_a_line() -> None:
    script = "echo old; sleep 0.2; echo began 17; sleep 1000"
    with cloche.run("starter", ["sh", "-c", script], network="none", detach=True) as box:
        box.wait_until(log="began")
        box.wait_until(log=re.compile(r"began \d+$"), timeout=0.5)
        with pytest.raises(cloche.TimedOut, match=r"writes 'never': not within 0.2 seconds") as caught:
            box.wait_until(log="never", timeout=0.2)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.__notes__ == ["the last lines of its log:\n    old\n    began 17"]
        box.restart(timeout=0)
        began = monotonic()
        box.wait_until(log="began")
        assert monotonic() - began > 0.1, "what it wrote before it was started again does not count"


def test_it_is_over_when_the_container_is() -> None:
    with cloche.run(
        "starter", ["sh", "-c", "sleep 0.3; echo '\033[31mwoe'; exit 7"], network="none", detach=True
    ) as box:
        for wanted in ({"port": 80}, {"log": "never"}, {"http": ":80/x"}):
            began = monotonic()
            with pytest.raises(cloche.Conflict, match="it has ended with exit code 7") as caught:
                box.wait_until(timeout=50, **wanted)  # type: ignore[arg-type]
            assert monotonic() - began < 10
            assert caught.value.__notes__ == ["the last lines of its log:\n    \\x1b[31mwoe"]
    for hundredths in range(12):  # it ends at any moment of the waiting
        script = f"sleep 0.{hundredths:02}; exit 3"
        with cloche.run("starter", ["sh", "-c", script], network="none", detach=True) as box:
            with pytest.raises(cloche.Conflict, match="it has ended with exit code 3"):
                box.wait_until(port=80, timeout=30)
    again = {"network": "none", "detach": True, "restart": "on-failure:2"}
    with cloche.run("starter", ["sh", "-c", "sleep 0.05; exit 3"], **again) as box:  # type: ignore[arg-type]
        with pytest.raises(cloche.Conflict, match="it has ended with exit code 3"):
            box.wait_until(port=80, timeout=30)
        assert box.inspect()["RestartCount"] == 2
    gone = cloche.run("starter", ["sleep", "0.2"], network="none", detach=True, remove=True)
    with pytest.raises(cloche.Error, match="wait until container"):
        gone.wait_until(port=80)
    with cloche.create("starter", ["true"], network="none") as box, pytest.raises(cloche.Conflict, match="created"):
        box.wait_until(port=80)


def test_what_nobody_can_wait_for_is_refused() -> None:
    with cloche.create("starter", ["true"], network="none") as box:
        for wanted in ({"port": 0}, {"port": "53/udp"}, {"http": "https://x"}, {"http": "80/a b"}, {"status": 200}):
            with pytest.raises(cloche.Invalid):
                box.wait_until(**wanted)  # type: ignore[arg-type]


@pytest.mark.parametrize("network", ["none", "bridge"])
def test_a_port_and_an_answer(python: str, network: str) -> None:
    if network == "bridge" and not available("nf_tables"):
        pytest.skip("needs nf_tables")
    address = "127.0.0.1" if network == "none" else "0.0.0.0"
    command = ["/usr/bin/python3", "-c", SERVER, address, "8080", "0.3", "200"]
    with cloche.run(python, command, network=network, detach=True) as box:
        box.wait_until(port=8080)
        with pytest.raises(cloche.TimedOut, match="its last answer was 503"):
            box.wait_until(http=":8080/ready", timeout=0.1)
        box.wait_until(http=":8080/ready")
        box.wait_until(http=8080, status=404)
        with pytest.raises(cloche.TimedOut, match=r"with 201: .*its last answer was 200"):
            box.wait_until(http=":8080/ready", status=201, timeout=0.3)
        with pytest.raises(cloche.TimedOut, match="listens on port 8081"):
            box.wait_until(port="8081/tcp", timeout=0.2)


def test_health() -> None:
    check = {"health_cmd": "test -e /well", "health_interval": 0.05}
    with cloche.run("starter", ["sleep", "1000"], network="none", detach=True, **check) as box:  # type: ignore[arg-type]
        with pytest.raises(cloche.TimedOut, match="is healthy"):
            box.wait_until(healthy=True, timeout=0.3)
        box.exec(["touch", "/well"])
        box.wait_until(healthy=True)
        assert box.health == "healthy"
        box.wait_until(healthy=True, timeout=0)
    with cloche.run("starter", ["sleep", "0.3"], network="none", detach=True, **check) as box:  # type: ignore[arg-type]
        with pytest.raises(cloche.Conflict, match="it has ended"):
            box.wait_until(healthy=True)
    with cloche.run("starter", ["sleep", "1000"], network="none", detach=True) as box:
        with pytest.raises(cloche.Invalid, match="it has no health check"):
            box.wait_until(healthy=True)
