"""Sequence number arithmetic, as tables across the wrap-around (rows as in mediasoup's TestSeqManager)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sfu.media.sequence import distance, extend, newer


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (0, 0, False),
        (1, 0, True),
        (0, 1, False),
        (0, 65535, True),
        (65535, 0, False),
        (0, 65000, True),
        (65000, 0, False),
        (32767, 0, True),
        (0, 32767, False),
        (32768, 0, False),
        (0, 32768, False),
        (32769, 0, False),
        (0, 32769, True),
        (100, 32868, False),
        (100, 32869, True),
        (65535, 65534, True),
        (65534, 65535, False),
    ],
)
def test_newer(a: int, b: int, expected: bool) -> None:
    assert newer(a, b) is expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (0, 0, 0),
        (1, 65535, 2),
        (65535, 1, -2),
        (32767, 0, 32767),
        (32768, 0, -32768),
        (0, 32768, -32768),
        (5, 0x10004, 1),
        (65535, 0x10000, -1),
    ],
)
def test_distance(a: int, b: int, expected: int) -> None:
    assert distance(a, b) == expected


@pytest.mark.parametrize(
    ("last", "seq", "expected"),
    [
        (0x10000, 0, 0x10000),
        (0x10000, 1, 0x10001),
        (0x10000, 65535, 0xFFFF),
        (0x1FFFF, 65535, 0x1FFFF),
        (0x1FFFF, 0, 0x20000),
        (0x1FFFF, 100, 0x20064),
        (0x1FFFE, 65530, 0x1FFFA),
        (0x10000, 32767, 0x17FFF),
        (0x10000, 32768, 0x8000),
        (0x12345678, 0x5679, 0x12345679),
        (2, 65535, -1),
    ],
)
def test_extend(last: int, seq: int, expected: int) -> None:
    assert extend(last, seq) == expected


u16 = st.integers(0, 0xFFFF)


@given(u16, u16)
def test_of_two_numbers_at_most_one_is_newer(a: int, b: int) -> None:
    assert not (newer(a, b) and newer(b, a))
    assert newer(a, b) or newer(b, a) or a == b or abs(a - b) == 0x8000
    assert newer(a, b) is (distance(a, b) > 0)


@given(st.integers(0x10000, 2**40), st.integers(-0x8000, 0x7FFF))
def test_extend_follows_any_step_below_half_the_space(last: int, step: int) -> None:
    assert extend(last, last + step & 0xFFFF) == last + step
