"""Numbers without holes for what is left out, by tables, across wrap-arounds, and against a slow and plain map."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sfu.media.sequence_map import PictureMap, SequenceMap

STARTS = [0, 1, 100, 65530, 65534, 65535]


def run(numbers: SequenceMap, text: str, start: int) -> list[int | None]:
    """Feed "k3 d4": each is kept or dropped, counted from ``start``; what comes back, counted from it too."""
    found = []
    for word in text.split():
        number = start + int(word[1:]) & 0xFFFF
        out = numbers.keep(number) if word[0] == "k" else numbers.drop(number)
        found.append(None if out is None else (out - start + 0x8000 & 0xFFFF) - 0x8000)
    return found


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("k0 k1 k2", [0, 1, 2]),
        ("k0 d1 k2", [0, None, 1]),
        ("k0 d1 d2 k3 d4 k5", [0, None, None, 1, None, 2]),
        ("d0 k1", [None, 0]),  # the first one may be left out too
        ("d0 d1 k2", [None, None, 0]),
        ("k0 k3", [0, 3]),  # a loss keeps its hole
        ("k0 k3 k1 k2", [0, 3, 1, 2]),  # until it is filled
        ("k0 d3 k4 k1", [0, None, 3, 1]),
        ("k0 d1 k4 k3 k2", [0, None, 3, 2, 1]),
        ("k0 k2 d1", [0, 2, 1]),  # late: its number has to be filled
        ("k0 d1 k4 d3 d2 k5", [0, None, 3, 2, 1, 4]),
        ("k0 d2 d1 k3", [0, None, 1, 2]),
        # Again.
        ("k0 k1 k1 k0", [0, 1, 1, 0]),
        ("k0 d1 d1 k2 d1", [0, None, None, 1, None]),
        ("k0 k2 d1 d1", [0, 2, 1, None]),  # filled once
        ("k0 k1 d1 d0 k2", [0, 1, None, None, 2]),  # kept is kept
        ("k0 d1 k1 k2 k1", [0, None, None, 1, None]),  # dropped is dropped
        ("k0 k2 d1 k1", [0, 2, 1, None]),  # the empty packet has had its number
        # Before the first one, and too old.
        ("k0 k-1 d-1 k1", [0, None, None, 1]),
        ("d0 k-1 k1", [None, None, 0]),
        ("k0 k4095 k0 k1", [0, 4095, 0, 1]),
        ("k0 k4096 k0 k1", [0, 4096, None, 1]),
        ("k0 k4096 d0 d1", [0, 4096, None, 1]),
        ("k0 k32767 k1", [0, 32767, None]),
        ("k0 k32768 k1", [0, None, 1]),  # half the space ahead is behind
    ],
)
def test_outgoing_numbers(start: int, text: str, expected: list[int | None]) -> None:
    assert run(SequenceMap(start), text, start) == expected


@pytest.mark.parametrize("outgoing", STARTS)
@pytest.mark.parametrize("start", STARTS)
def test_the_first_outgoing_number_may_be_given(start: int, outgoing: int) -> None:
    numbers = SequenceMap(start, outgoing)
    assert numbers.next_outgoing == outgoing
    kept = [numbers.keep(start + each & 0xFFFF) for each in (0, 1, 3)]
    assert kept == [outgoing + each & 0xFFFF for each in (0, 1, 3)]
    numbers.drop(start + 4)
    assert numbers.next_outgoing == outgoing + 4 & 0xFFFF
    assert [numbers.reverse(outgoing + each & 0xFFFF) for each in (-1, 0, 2, 3, 4)] == [
        *(None, start, None, start + 3 & 0xFFFF, None)
    ]


@pytest.mark.parametrize("start", STARTS)
def test_the_first_packet_may_come_late(start: int) -> None:
    assert run(SequenceMap(start), "k2 k1 d0", start) == [2, 1, 0]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(
    ("text", "incoming"),
    [
        ("k0 k1 k2", [0, 1, 2, None]),
        ("k0 d1 k2 d3 d4 k5", [0, 2, 5, None]),
        ("d0 k1", [1, None]),
        ("d0", [None]),
        ("k0 k2", [0, None, 2, None]),  # nothing was sent under a number that is still missing
        ("k0 k2 k1", [0, 1, 2, None]),
        ("k0 d2 k3 d1", [0, None, 3]),  # nor under a filled one that could be sent again
        ("k0 k1 d2", [0, 1, None]),
        ("k0 k4096 k1", [None, 1]),  # too old
    ],
)
def test_the_way_back(start: int, text: str, incoming: list[int | None]) -> None:
    numbers = SequenceMap(start)
    run(numbers, text, start)
    found = [numbers.reverse(start + each & 0xFFFF) for each in range(len(incoming))]
    assert found == [None if each is None else start + each & 0xFFFF for each in incoming]
    assert numbers.reverse(start - 1 & 0xFFFF) is None


def test_a_jump_over_all_that_is_remembered_leaves_nothing_known() -> None:
    numbers = SequenceMap(0)
    assert [numbers.keep(each) for each in range(5000)] == list(range(5000))
    assert numbers.keep(20_000) == 20_000
    assert numbers.reverse(20_000) == 20_000
    assert [numbers.reverse(each) for each in range(15_900, 20_000)] == [None] * 4100
    assert [numbers.drop(each) for each in range(15_905, 20_000)] == list(range(15_905, 20_000))


def test_hours_of_traffic() -> None:
    """A million packets, two of three left out: the numbers stay exact, and what is remembered stays small."""
    numbers = SequenceMap(65_000)
    kept = 0
    for each in range(1_000_000):
        number = 65_000 + each & 0xFFFF
        if each % 3:
            assert numbers.drop(number) is None
        else:
            out = 65_000 + kept & 0xFFFF
            assert numbers.keep(number) == out
            kept += 1
            if each % 999 == 0:
                assert numbers.reverse(out) == number
                assert each < 3000 or numbers.reverse(out - 1000 & 0xFFFF) == number - 3000 & 0xFFFF
    assert len(numbers._closed) <= 2 * 4096


class Oracle:
    """The same by looking through all that has ever come. Numbers do not wrap."""

    def __init__(self, first: int, outgoing: int, window: int) -> None:
        self.first, self.outgoing, self.window = first, outgoing, window
        self.newest = first - 1
        self.closed: list[int] = []
        self.filled: set[int] = set()
        self.sent: dict[int, int] = {}  # outgoing to incoming

    def out(self, number: int) -> int:
        return self.outgoing + number - self.first - sum(each < number for each in self.closed)

    def known(self, number: int) -> bool:
        return number >= self.first and number > self.newest - self.window

    def keep(self, number: int) -> int | None:
        self.newest = max(self.newest, number)
        if not self.known(number) or number in self.closed or number in self.filled:
            return None
        self.sent[self.out(number)] = number
        return self.out(number)

    def drop(self, number: int) -> int | None:
        late = number <= self.newest
        self.newest = max(self.newest, number)
        if not self.known(number) or number in self.closed or number in self.filled or number in self.sent.values():
            return None
        if late:
            self.filled.add(number)
            return self.out(number)
        self.closed.append(number)
        return None

    def reverse(self, outgoing: int) -> int | None:
        number = self.sent.get(outgoing)
        return number if number is not None and self.known(number) else None


@st.composite
def arrivals(draw: st.DrawFn) -> list[tuple[int, bool]]:
    """Numbers from 0 on, and whether to keep each: with losses, doubles, and some late by up to a hundred places."""
    rand = random.Random(draw(st.integers(0, 1 << 32)))
    count = draw(st.integers(1, 250))
    loss, double, late, dropped, jump = (draw(st.sampled_from([0.0, 0.05, 0.3])) for _ in range(5))
    spread = draw(st.sampled_from([1, 5, 100]))
    found = []
    number = 0
    for place in range(count):
        number += rand.choice([2, 50, 2000, 5000]) if rand.random() < jump / 5 else 1
        for _ in range(2 if rand.random() < double else 1):
            if rand.random() >= loss:
                delay = rand.randint(0, spread) if rand.random() < late else 0
                found.append((place + delay, number - 1, rand.random() >= dropped))
    found.sort(key=lambda each: each[0])
    newest = 0
    packets = []
    for _, number, keep in found:
        newest = max(newest, number)
        if number > newest - 10_000:  # a short number says nothing of what is further behind
            packets.append((number, keep))
    return packets


@given(arrivals(), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
@settings(max_examples=500, deadline=None)
def test_sequence_numbers_against_the_plain_map(packets: list[tuple[int, bool]], start: int, outgoing: int) -> None:
    numbers, oracle = SequenceMap(start, outgoing), Oracle(0x10000 + start, 0x10000 + outgoing, 4096)
    check(numbers, oracle, packets, 0xFFFF)


@given(arrivals(), st.integers(0, 0x7FFF), st.integers(0, 0x7FFF))
@settings(max_examples=200, deadline=None)
def test_picture_ids_against_the_plain_map(packets: list[tuple[int, bool]], start: int, outgoing: int) -> None:
    numbers, oracle = PictureMap(start, outgoing=outgoing), Oracle(0x8000 + start, 0x8000 + outgoing, 4096)
    check(numbers, oracle, packets, 0x7FFF)


def check(numbers: SequenceMap | PictureMap, oracle: Oracle, packets: list[tuple[int, bool]], mask: int) -> None:
    used: set[int] = set()
    for number, keep in packets:
        extended = oracle.first + number
        if keep:
            expected = oracle.keep(extended)
            assert numbers.keep(extended & mask) == (None if expected is None else expected & mask)
        else:
            expected = oracle.drop(extended)
            found = numbers.drop(extended & mask)
            if isinstance(numbers, SequenceMap):
                assert found == (None if expected is None else expected & mask)
                assert expected not in used  # an empty packet never takes a number that was used
        if expected is not None:
            used.add(expected)
            newest = oracle.out(oracle.newest)
            for each in (expected, expected - 1, expected - 7, newest, newest + 1, oracle.outgoing - 1):
                back = oracle.reverse(each)
                assert numbers.reverse(each & mask) == (None if back is None else back & mask)


# Pictures.


@pytest.mark.parametrize(("bits", "start"), [(15, 0), (15, 0x7FFE), (7, 0), (7, 126), (7, 127)])
def test_pictures_of_many_packets(bits: int, start: int) -> None:
    mask = (1 << bits) - 1
    pictures = PictureMap(start, bits)
    out = []
    for picture in (0, 0, 1, 1, 1, 2, 2, 4, 4, 3, 3):
        if picture == 1:
            pictures.drop(start + picture & mask)
        else:
            out.append(pictures.keep(start + picture & mask))
    assert out == [start + each & mask for each in (0, 0, 1, 1, 3, 3, 2, 2)]


@pytest.mark.parametrize("bits", [15, 7])
def test_the_hole_of_a_late_picture_stays(bits: int) -> None:
    pictures = PictureMap(0, bits)
    assert [pictures.keep(each) for each in (0, 2)] == [0, 2]
    pictures.drop(1)
    pictures.drop(1)
    assert [pictures.keep(each) for each in (1, 3)] == [None, 3]
    assert [pictures.reverse(each) for each in range(4)] == [0, None, 2, 3]


def test_the_first_packet_of_a_picture_decides() -> None:
    pictures = PictureMap(10)
    assert pictures.keep(10) == 10
    pictures.drop(10)
    assert pictures.keep(10) == 10
    pictures.drop(11)
    assert pictures.keep(11) is None
    assert pictures.keep(12) == 11


def test_short_ids_remember_half_their_space() -> None:
    pictures = PictureMap(0, 7)
    assert [pictures.keep(each & 0x7F) for each in range(200)] == [each & 0x7F for each in range(200)]
    assert pictures.keep(199 - 63 & 0x7F) == 199 - 63 & 0x7F
    assert pictures.keep(199 - 64 & 0x7F) is None
    for each in range(200, 5000):
        pictures.drop(each & 0x7F)
    assert pictures.keep(5000 & 0x7F) == 200 & 0x7F
    assert len(pictures._closed) <= 128
