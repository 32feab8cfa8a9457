"""Packets in order: gaps, waits, bounds, wrap-around."""

from random import Random

import pytest

from trio_sfu.hls.reorder import Reorder


def make(wait: float = 0.2, most: int = 100, octets: int = 100_000) -> Reorder[int]:
    return Reorder(wait, most, octets)


def push(reorder: Reorder[int], *numbers: int, now: float = 0.0, size: int = 100) -> list[bool]:
    return [reorder.push(number & 0xFFFF, number, size, now) for number in numbers]


@pytest.mark.parametrize("first", [0, 100, 0x7FFE, 0x8000, 0xFFFE])
def test_order(first: int) -> None:
    reorder = make()
    push(reorder, first)
    assert reorder.pop(0.0) == [first]
    push(reorder, first + 2, first + 3)
    assert reorder.pop(0.1) == []
    push(reorder, first + 1, now=0.1)
    assert reorder.pop(0.1) == [first + 1, first + 2, first + 3]
    assert push(reorder, first + 2, first, first + 4, first + 4) == [False, False, True, False]
    assert reorder.pop(0.1) == [first + 4]


def test_a_gap_is_given_up_after_the_wait() -> None:
    reorder = make()
    push(reorder, 1)
    push(reorder, 3, now=1.0)
    push(reorder, 6, now=1.1)
    assert reorder.pop(1.19) == [1]
    assert reorder.pop(1.21) == [None, 3]
    assert push(reorder, 2, now=1.25) == [False]
    assert reorder.pop(1.29) == []
    assert reorder.pop(1.31) == [None, 6]
    assert reorder.pop(9.0) == []


def test_bounds() -> None:
    reorder = make(most=3)
    push(reorder, 1, 3, 4, 5)
    assert reorder.pop(0.0) == [1]
    push(reorder, 7)
    assert reorder.pop(0.0) == [None, 3, 4, 5]
    assert len(reorder) == 1
    reorder = make(octets=1000)
    push(reorder, 1)
    push(reorder, 3, 4, size=400)
    assert reorder.pop(0.0) == [1]
    push(reorder, 5, size=400)
    assert reorder.pop(0.0) == [None, 3, 4, 5]


def test_clear() -> None:
    reorder = make()
    push(reorder, 10, 12)
    assert reorder.pop(0.0) == [10]
    reorder.clear()
    assert len(reorder) == 0
    push(reorder, 5)
    assert reorder.pop(0.0) == [5]


@pytest.mark.parametrize("seed", range(10))
def test_whatever_comes(seed: int) -> None:
    """All that is not lost comes out once and in order, with a mark for each hole."""
    random = Random(seed)
    first = random.randrange(1 << 16)
    lost = {number for number in range(first + 1, first + 5000) if random.random() < 0.05}
    arrivals = sorted(
        (number * 0.004 + 0.1 * random.random(), number)
        for number in range(first + 1, first + 5000)
        for _ in range(random.choice((1, 1, 1, 2)))
        if number not in lost
    )
    reorder = make(most=1000)
    push(reorder, first)
    out = reorder.pop(0.0)
    for at, number in arrivals:
        push(reorder, number, now=at)
        out += reorder.pop(at)
        assert len(reorder) < 100
    out += reorder.pop(1e9)
    expected: list[int | None] = [first]
    for number in range(first + 1, max(number for _, number in arrivals) + 1):
        if number not in lost:
            expected.append(number)
        elif expected[-1] is not None:
            expected.append(None)
    assert out == expected
