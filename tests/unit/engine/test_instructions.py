"""--change: instructions of a Dockerfile on an image's configuration; what is none is refused, and says why."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.engine.instructions import change
from cloche.errors import Error, Invalid, Unsupported
from cloche.oci import image as image_config
from cloche.oci.image import Config, ImageConfig

BASE = Config(
    env=("PATH=/bin", "NAME=world"), cmd=("old",), entrypoint=("/run",), working_dir="/srv", labels=(("a", "1"),)
)


@pytest.mark.parametrize(
    ("instruction", "changed"),
    [
        ('CMD ["a", "b c"]', {"cmd": ("a", "b c")}),
        ("cmd echo $NAME 'x y'", {"cmd": ("/bin/sh", "-c", "echo $NAME 'x y'")}),
        ("CMD []", {"cmd": ()}),
        ("CMD [broken", {"cmd": ("/bin/sh", "-c", "[broken")}),
        ('ENTRYPOINT ["/x"]', {"entrypoint": ("/x",), "cmd": ()}),
        ("ENV A=1 B=\"two words\" C='$NAME'", {"env": (*BASE.env, "A=1", "B=two words", "C=$NAME")}),
        ("ENV PATH=/opt/bin:$PATH", {"env": ("PATH=/opt/bin:/bin", "NAME=world")}),
        ("ENV A hello ${NAME}", {"env": (*BASE.env, "A=hello world")}),
        ("ENV A=${NONE:-x}${NAME:+y}\\$NAME", {"env": (*BASE.env, "A=xy$NAME")}),
        ("ENV A=a\\ b", {"env": (*BASE.env, "A=a b")}),
        ('LABEL a=2 b.c="x"', {"labels": (("a", "2"), ("b.c", "x"))}),
        ("EXPOSE 80 53/UDP 8000-8002", {"exposed_ports": ("53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp")}),
        ("VOLUME /data /log", {"volumes": ("/data", "/log")}),
        ('VOLUME ["/a b"]', {"volumes": ("/a b",)}),
        ("WORKDIR app/../lib", {"working_dir": "/srv/lib"}),
        ("WORKDIR /x", {"working_dir": "/x"}),
        ("USER 1000:1000", {"user": "1000:1000"}),
        ("USER $NAME", {"user": "world"}),
        ("STOPSIGNAL SIGINT", {"stop_signal": "SIGINT"}),
        ("ONBUILD RUN make", {"onbuild": ("RUN make",)}),
    ],
)
def test_what_each_instruction_changes(instruction: str, changed: dict[str, Any]) -> None:
    assert change(BASE, [instruction]) == BASE.replace(**changed)


def test_a_command_given_with_its_entrypoint_stays() -> None:
    assert change(BASE, ['CMD ["x"]', 'ENTRYPOINT ["/e"]']).cmd == ("x",)
    assert change(BASE, ['ENTRYPOINT ["/e"]', 'CMD ["x"]']).cmd == ("x",)


def test_health_checks() -> None:
    made = change(BASE, ["HEALTHCHECK --interval=5s --retries=2 CMD curl -f localhost"])
    assert json.loads(made.healthcheck) == {
        "Test": ["CMD-SHELL", "curl -f localhost"],
        "Interval": 5 * 10**9,
        "Retries": 2,
    }
    assert json.loads(change(BASE, ['HEALTHCHECK CMD ["a", "b"]']).healthcheck) == {"Test": ["CMD", "a", "b"]}
    assert json.loads(change(BASE, ["HEALTHCHECK NONE"]).healthcheck) == {"Test": ["NONE"]}


@pytest.mark.parametrize(
    ("instruction", "said"),
    [
        ("", "unknown instruction"),
        ("FETCH x", "unknown instruction 'FETCH'"),
        ("ENV", "needs an argument"),
        ("ENV A", "has no value"),
        ("ENV A=1 B", "cannot read"),
        ('ENV A="x', "not closed"),
        ("ENV A=${NAME", "not closed"),
        ("ENV A=${NAME:?x}", "cannot read"),
        ("ENV =x", "cannot read"),
        ("EXPOSE 0", "invalid containerPort"),
        ("EXPOSE 65536", "invalid containerPort"),
        ("EXPOSE 90-80", "invalid containerPort"),
        ("EXPOSE 80/icmp", "invalid protocol"),
        ("VOLUME [broken", "array"),
        ('VOLUME [""]', "cannot be empty"),
        ("STOPSIGNAL NOPE", "NOPE"),
        ("ONBUILD ONBUILD RUN x", "isn't allowed"),
        ("ONBUILD FROM x", "isn't allowed"),
        ("HEALTHCHECK x", "NONE, or CMD"),
        ("HEALTHCHECK --interval=x CMD y", "--interval=x"),
        ("HEALTHCHECK --colour=red CMD y", "invalid option"),
        ("HEALTHCHECK --interval=1ns CMD y", "less than 1ms"),
        ("USER $NOBODY", "empty"),
        ("CMD a\nRUN b", "no line has"),
        ("LABEL a=\x1b[31m", "no line has"),
        ("LABEL a=\udcff", "no line has"),
    ],
)
def test_what_is_none_is_refused(instruction: str, said: str) -> None:
    with pytest.raises(Invalid) as error:
        change(BASE, [instruction])
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["RUN", "COPY", "ADD", "FROM", "ARG", "SHELL"])
def test_what_makes_files_is_no_change(name: str) -> None:
    with pytest.raises(Unsupported, match=f"{name} is no change"):
        change(BASE, [f"{name} x"])


@given(
    st.sampled_from("CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD STOPSIGNAL USER VOLUME WORKDIR".split()),
    st.text(st.sampled_from("aA1 =\"'\\${}:-+[],/\t-"), max_size=30) | st.text(max_size=20),
)
def test_any_text_is_read_or_refused(name: str, rest: str) -> None:
    try:
        made = change(BASE, [f"{name} {rest}"])
    except Error:
        return
    document = ImageConfig("amd64", "linux", made)
    assert image_config.parse(image_config.write(document)) == document
