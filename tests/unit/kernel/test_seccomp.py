"""What a filter answers, instruction by instruction, and the programs that no filter may be."""

from __future__ import annotations

from struct import pack

import pytest

from cloche.kernel.seccomp import evaluate

K, A = 0x06, 0x16  # return k, return a


def program(*code: tuple[int, int] | tuple[int, int, int, int]) -> bytes:
    return b"".join(pack("=HBBI", *(c if len(c) == 4 else (c[0], 0, 0, c[1]))) for c in code)


@pytest.mark.parametrize(
    ("at", "word"),
    [
        (0, 39),
        (4, 0xC000003E),
        (8, 0x55667788),
        (12, 0x11223344),
        (16, 0xFFFFFFFF),
        (20, 0),
        (56, 0xFFFFFFFE),
        (60, 0xFFFFFFFF),
    ],
)
def test_a_call_is_seen_as_the_kernel_shows_it(at: int, word: int) -> None:
    seen = evaluate(
        program((0x20, at), (A, 0)), 39, 0xC000003E, (0xFFFFFFFF, 0, 0, 0, 0, -2), pointer=0x1122334455667788
    )
    assert seen == word


@pytest.mark.parametrize(
    ("op", "result"),
    [
        (0x04, 9),
        (0x14, 5),
        (0x24, 14),
        (0x34, 3),
        (0x44, 7),
        (0x54, 2),
        (0x64, 28),
        (0x74, 1),
        (0xA4, 5),
    ],
)
def test_arithmetic_with_a_number_and_with_x(op: int, result: int) -> None:
    assert evaluate(program((0x00, 7), (op, 2), (A, 0)), 0, 0) == result
    assert evaluate(program((0x00, 7), (0x01, 2), (op | 8, 0), (A, 0)), 0, 0) == result


def test_words_have_32_bits() -> None:
    assert evaluate(program((0x00, 0xFFFFFFFF), (0x04, 2), (A, 0)), 0, 0) == 1
    assert evaluate(program((0x00, 1), (0x14, 2), (A, 0)), 0, 0) == 0xFFFFFFFF
    assert evaluate(program((0x00, 1), (0x84, 0), (A, 0)), 0, 0) == 0xFFFFFFFF
    assert evaluate(program((0x00, 1), (0x01, 33), (0x6C, 0), (A, 0)), 0, 0) == 2, "a shift looks at five bits of x"


@pytest.mark.parametrize(("op", "holds"), [(0x15, (7,)), (0x25, (8, 9)), (0x35, (7, 8, 9)), (0x45, (1, 7, 9))])
def test_jumps(op: int, holds: tuple[int, ...]) -> None:
    for value in (0, 1, 7, 8, 9):
        for form in (op, op | 8):
            code = program((0x00, value), (0x01, 7), (form, 1, 0, 7), (K, 2), (K, 1))
            assert evaluate(code, 0, 0) == (1 if value in holds else 2), (form, value)
    assert evaluate(program((0x05, 1), (K, 1), (K, 2)), 0, 0) == 2


def test_memory_and_both_registers() -> None:
    store = ((0x00, 5), (0x02, 15), (0x01, 6), (0x03, 0))
    assert evaluate(program(*store, (0x60, 15), (A, 0)), 0, 0) == 5
    assert evaluate(program(*store, (0x61, 15), (0x87, 0), (A, 0)), 0, 0) == 5
    assert evaluate(program(*store, (0x07, 0), (0x00, 0), (0x0C, 0), (A, 0)), 0, 0) == 5
    assert evaluate(program((0x80, 0), (A, 0)), 0, 0) == evaluate(program((0x81, 0), (0x87, 0), (A, 0)), 0, 0) == 64


def test_division_by_nothing_ends_the_program_with_a_kill() -> None:
    assert evaluate(program((0x00, 7), (0x01, 0), (0x3C, 0), (K, 0x7FFF0000)), 0, 0) == 0


@pytest.mark.parametrize(
    "code",
    [
        (),
        ((0x00, 1),),
        ((0x05, 5), (K, 0)),
        ((0x20, 64), (A, 0)),
        ((0x20, 2), (A, 0)),
        ((0x60, 16), (A, 0)),
        ((0x02, 16), (K, 0)),
        ((0x34, 0), (K, 0)),
        ((0x64, 32), (K, 0)),
        ((0x94, 3), (K, 0)),
        ((0x8C, 0), (K, 0)),
        ((0x30, 0), (A, 0)),
        ((0x28, 0), (A, 0)),
        ((0x0D, 0), (K, 0)),
        ((0xFFFF, 0), (K, 0)),
    ],
)
def test_a_program_that_the_kernel_would_refuse_is_refused(code: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match=r"instruction|leaves"):
        evaluate(program(*code), 0, 0)
