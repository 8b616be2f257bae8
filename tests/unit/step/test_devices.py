"""Device rules as a BPF program: interpreted here, compared with the rules as a person reads them."""

from __future__ import annotations

from struct import iter_unpack

from hypothesis import given
from hypothesis import strategies as st

from cloche.oci.runtime import DeviceRule
from cloche.step.devices import v1_line, v2_program

LETTERS = {"m": 1, "r": 2, "w": 4}
numbers = st.sampled_from([-1, 1, 5, 10])
rules = st.builds(
    DeviceRule,
    st.booleans(),
    st.sampled_from(["a", "b", "c"]),
    numbers,
    numbers,
    st.sampled_from(["r", "w", "m", "rw", "rm", "rwm"]),
)


def interpret(program: bytes, kind: str, major: int, minor: int, access: int) -> int:
    """The few instructions that these programs have."""
    code = list(iter_unpack("=BBhi", program))
    r = [0] * 11
    context = {0: access << 16 | (1 if kind == "b" else 2), 4: major, 8: minor}
    at = 0
    while True:
        op, registers, offset, value = code[at]
        target, source = registers & 15, registers >> 4
        at += 1
        if op == 0x61:
            r[target] = context[offset]
        elif op == 0xBC:
            r[target] = r[source]
        elif op == 0xB7:
            r[target] = value
        elif op == 0x54:
            r[target] &= value
        elif op == 0x74:
            r[target] >>= value
        elif op == 0x55:
            at += offset if r[target] != value else 0
        elif op == 0x15:
            at += offset if r[target] == value else 0
        elif op == 0x95:
            return r[0]
        else:
            raise AssertionError(hex(op))


def allowed(given_rules: list[DeviceRule], kind: str, major: int, minor: int, access: int) -> bool:
    """Of each kind of access the last rule decides that speaks of it; without one it is denied."""
    for letter in (letter for letter, bit in LETTERS.items() if access & bit):
        speaking = [
            rule
            for rule in given_rules
            if rule.type in ("a", kind)
            and rule.major in (-1, major)
            and rule.minor in (-1, minor)
            and letter in rule.access
        ]
        if not speaking or not speaking[-1].allow:
            return False
    return True


@given(
    st.lists(rules, max_size=6),
    st.sampled_from(["b", "c"]),
    st.sampled_from([1, 5]),
    st.sampled_from([1, 10]),
    st.integers(1, 7),
)
def test_the_program_decides_as_the_rules_say(
    given_rules: list[DeviceRule], kind: str, major: int, minor: int, access: int
) -> None:
    program = v2_program(tuple(given_rules))
    assert bool(interpret(program, kind, major, minor, access)) == allowed(given_rules, kind, major, minor, access)


def test_lines_of_version_one() -> None:
    assert v1_line(DeviceRule(False)) == "a"
    assert v1_line(DeviceRule(True, "c", 136, -1)) == "c 136:* rwm"
    assert v1_line(DeviceRule(True, "b", -1, -1, "m")) == "b *:* m"
