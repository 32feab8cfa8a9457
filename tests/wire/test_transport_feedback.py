"""Transport-wide feedback: vectors from the layouts of draft-holmer-rmcat-transport-wide-cc-extensions-01."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sfu.wire.errors import BadPacket
from trio_sfu.wire.transport_feedback import MAX_GAP, MAX_SIZE, MAX_SPAN, TransportFeedback, build, parse

TICK = 1 / 4000


def feedback(*deltas: int | None, base: int = 39, reference: int = 0x123456, count: int = 3) -> TransportFeedback:
    return TransportFeedback(0xFA17FA17, 0x09FAFF67, base, reference, count, deltas)


def message(words: int, status_count: int, rest: str, *, first: str = "8f", reference: str = "123456") -> bytes:
    """A packet of ``words`` 32-bit words after the first, written out by hand."""
    return bytes.fromhex(f"{first} cd {words:04x} fa17fa17 09faff67 0027 {status_count:04x} {reference} 03 {rest}")


VECTORS = [
    # Run length chunks: |0|S S|run length 13 bits|
    pytest.param(feedback(), message(4, 0, ""), id="no status"),
    pytest.param(feedback(7), message(5, 1, "2001 07 00"), id="one small"),
    pytest.param(feedback(*range(8)), message(7, 8, "2008 0001020304050607 0000"), id="small run"),
    pytest.param(feedback(256), message(5, 1, "4001 0100"), id="one large"),
    pytest.param(feedback(-1), message(5, 1, "4001 ffff"), id="one negative"),
    pytest.param(feedback(-32768, 32767), message(6, 2, "4002 8000 7fff 0000"), id="the limits of a large delta"),
    pytest.param(feedback(*[None] * 20, 5), message(6, 21, "0014 2001 05 000000"), id="lost run"),
    # One-bit status vector: |1|0|14 symbols|
    pytest.param(
        feedback(1, None, 2, None, None, None, None, None, None, None, None, None, None, 3),
        message(6, 14, "a801 01 02 03 000000"),
        id="one-bit vector",
    ),
    # Two-bit status vector: |1|1|7 symbols of two bits|
    pytest.param(
        feedback(1, None, 256, 2, None, None, 3),
        message(6, 7, "d241 01 0100 02 03 00"),
        id="two-bit vector",
    ),
    pytest.param(feedback(1, None, 256), message(6, 3, "d200 01 0100 000000"), id="partial two-bit vector"),
    pytest.param(feedback(1, None, 2), message(5, 3, "a800 01 02"), id="partial one-bit vector"),
    pytest.param(
        feedback(7, reference=-2),
        message(5, 1, "2001 07 00", reference="fffffe"),
        id="negative reference time",
    ),
]


@pytest.mark.parametrize(("value", "data"), VECTORS)
def test_vectors(value: TransportFeedback, data: bytes) -> None:
    assert parse(data) == value
    assert parse(memoryview(data)) == value
    assert value.to_bytes() == data


def test_a_run_longer_than_13_bits_takes_two_chunks() -> None:
    value = feedback(*[None] * 8192, 1)
    data = value.to_bytes()
    assert data[20:26].hex() == "1fff" + "9000" + "0100"
    assert parse(data) == value


def test_statuses_beyond_the_count_are_ignored() -> None:
    # Fourteen and seven symbols, and a run of five, where the count is three.
    assert parse(message(6, 3, "bfff 010203 000000")).deltas == (1, 2, 3)
    assert parse(message(6, 3, "d555 010203 000000")).deltas == (1, 2, 3)
    assert parse(message(6, 3, "2005 010203 000000")).deltas == (1, 2, 3)


def test_runs_of_zero_length_are_stepped_over() -> None:
    assert parse(message(6, 1, "0000 2000 2001 0500")).deltas == (5,)


def test_padding_by_the_p_bit() -> None:
    # libwebrtc writes the number of padding bytes, which is less than four, into the last.
    assert parse(message(5, 1, "2001 07 01", first="af")).deltas == (7,)
    assert parse(message(6, 1, "4001 0100 000000 04", first="af")).deltas == (256,)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        message(4, 0, "")[:-1],
        message(5, 0, ""),  # the length says more
        message(4, 0, "00000000"),  # the length says less
        message(4, 1, ""),  # no chunk
        message(5, 2, "2001 0700"),  # one chunk short
        message(5, 3, "2003 0102"),  # one delta short
        message(5, 2, "4002 0102"),  # a large delta short
        message(5, 1, "6001 0700"),  # the reserved symbol in a run
        message(5, 1, "f000 0700"),  # and in a vector
        message(5, 1, "2001 0700", first="af"),  # padding of zero
        message(5, 1, "2001 07ff", first="af"),  # padding beyond the packet
        message(5, 1, "2001 0702", first="af"),  # padding over the delta
        message(5, 1, "2001 0700", first="8e"),
        message(5, 1, "2001 0700", first="0f"),
        message(9, 0xFFFF, "1fff" * 10),  # more than half the sequence number space
    ],
)
def test_malformed(data: bytes) -> None:
    with pytest.raises(BadPacket):
        parse(data)


# Building from arrivals.

#: The reference time's 24 bits of 64 ms, in ticks.
WRAP = 1 << 32


def statuses(messages: list[TransportFeedback], near: int) -> dict[int, int | None]:
    """What the messages say, as a sender reads it: extended sequence number to arrival in ticks, or None."""
    found: dict[int, int | None] = {}
    for each in messages:
        sequence = near + ((each.base_sequence - near + 0x8000) & 0xFFFF) - 0x8000
        ticks = each.reference_time * 256 % WRAP
        for delta in each.deltas:
            if delta is None:
                found.setdefault(sequence, None)
            else:
                ticks = (ticks + delta) % WRAP
                assert found.get(sequence) is None
                found[sequence] = ticks
            sequence += 1
        near = sequence
    return found


def test_no_arrivals_no_message() -> None:
    assert build(1, 2, 3, [], 100) == []


def test_in_order() -> None:
    (built,) = build(1, 2, 3, [(1000 + i, 10.0 + i / 1000) for i in range(20)], 1000)
    # 10 s are 156.25 units of 64 ms.
    assert built == TransportFeedback(1, 2, 1000, 156, 3, (64, *[4] * 19))
    assert len(built.to_bytes()) == 20 + 2 + 20 + 2


def test_holes_are_reported_from_the_base_on() -> None:
    (built,) = build(1, 2, 0, [(1002, 1.0), (1005, 1.001)], 1000)
    assert built.base_sequence == 1000
    assert built.deltas == (None, None, 4000 % 256, None, None, 4)


def test_reordered_arrivals_have_negative_deltas() -> None:
    (built,) = build(1, 2, 0, [(10, 1.0), (12, 1.001), (11, 1.002)], 10)
    assert built.deltas == (160, 8, -4)


def test_duplicates_count_once_and_the_first_arrival_counts() -> None:
    (built,) = build(1, 2, 0, [(10, 1.001), (10, 1.0), (11, 1.002)], 10)
    assert built.deltas == (160, 8)


def test_a_late_arrival_moves_the_base_back() -> None:
    (built,) = build(1, 2, 0, [(98, 1.001), (101, 1.0)], 100)
    assert built.base_sequence == 98
    assert built.deltas == (164, None, None, -4)


def test_arrival_times_do_not_drift_by_rounding() -> None:
    arrivals = [(i, 1 + i * 0.00039) for i in range(100)]
    (built,) = build(1, 2, 0, arrivals, 0)
    assert statuses([built], 0)[99] == round(arrivals[99][1] * 4000)


def test_a_delta_out_of_range_starts_a_new_message() -> None:
    first, second, third = build(1, 2, 255, [(5, 1.0), (6, 9.2), (7, 20.0), (8, 21.0)], 5)
    assert (first.deltas, second.deltas, third.deltas) == ((160,), (192,), (128, 4000))
    assert [m.feedback_count for m in (first, second, third)] == [255, 0, 1]
    assert statuses([first, second, third], 5) == {5: 4000, 6: 36800, 7: 80000, 8: 84000}


def test_the_largest_deltas_stay_in_one_message() -> None:
    assert len(build(1, 2, 0, [(5, 100.0), (6, 100.0 + 0x7FFF * TICK)], 5)) == 1
    assert len(build(1, 2, 0, [(5, 100.0), (6, 100.0 + 0x8000 * TICK)], 5)) == 2
    assert len(build(1, 2, 0, [(5, 100.0), (6, 100.0 - 0x8000 * TICK)], 5)) == 1
    assert len(build(1, 2, 0, [(5, 100.0), (6, 100.0 - 0x8001 * TICK)], 5)) == 2


@pytest.mark.parametrize(
    ("base", "arrived", "on_wire"),
    [
        (0xFFFE, (0xFFFE, 0xFFFF, 0x10000, 0x10001), 0xFFFE),
        (0x10000, (0x10000, 0x10001), 0),
        (0xFFFF, (0x10001,), 0xFFFF),
        (0x1FFFF, (0x1FFFE, 0x20000), 0xFFFE),
    ],
)
def test_sequence_numbers_wrap(base: int, arrived: tuple[int, ...], on_wire: int) -> None:
    (built,) = build(1, 2, 0, [(s, 1.0 + i / 100) for i, s in enumerate(arrived)], base)
    assert built.base_sequence == on_wire
    assert len(built.deltas) == arrived[-1] - min(base, arrived[0]) + 1
    assert parse(built.to_bytes()) == built


@pytest.mark.parametrize(
    ("seconds", "reference"),
    [
        (0.0, 0),
        (0.064, 1),
        (0x7FFFFF * 0.064, 0x7FFFFF),
        (0x800000 * 0.064, -0x800000),
        (0x1000000 * 0.064, 0),
    ],
)
def test_the_reference_time_wraps_at_24_bits(seconds: float, reference: int) -> None:
    (built,) = build(1, 2, 0, [(5, seconds + TICK)], 5)
    assert built.reference_time == reference
    assert built.deltas == (1,)
    assert parse(built.to_bytes()) == built


def test_a_jump_is_not_reported_as_loss() -> None:
    (built,) = build(1, 2, 0, [(10 + MAX_GAP, 1.0)], 10)
    assert len(built.deltas) == MAX_GAP + 1
    (built,) = build(1, 2, 0, [(11 + MAX_GAP, 1.0)], 10)
    assert (built.base_sequence, built.deltas) == (11 + MAX_GAP, (160,))
    first, second = build(1, 2, 0, [(10, 1.0), (12 + MAX_GAP, 1.001)], 10)
    assert (first.base_sequence, first.deltas) == (10, (160,))
    assert (second.base_sequence, second.deltas) == (12 + MAX_GAP, (164,))


def test_many_holes_do_not_add_up() -> None:
    messages = build(1, 2, 0, [(i * MAX_GAP, 1 + i / 1000) for i in range(200)], 0)
    assert max(len(m.deltas) for m in messages) <= MAX_SPAN
    assert sum(len(m.deltas) for m in messages) == 199 * MAX_GAP + 1


def test_splitting_by_size_wastes_little() -> None:
    messages = build(1, 2, 0, [(i, 1 + i * 0.1) for i in range(2000)], 0)
    sizes = [len(m.to_bytes()) for m in messages]
    assert max(sizes) <= MAX_SIZE
    assert min(sizes[:-1]) >= 1000
    assert len(statuses(messages, 0)) == 2000


gaps = st.one_of(st.integers(0, 3), st.integers(0, 30), st.integers(0, 2 * MAX_GAP))
times = st.one_of(st.integers(0, 20), st.integers(-300, 300), st.integers(-40000, 40000))


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[int, list[tuple[int, float]]]:
    base = sequence = draw(st.sampled_from([0x10000, 0xFFF0, 0x1FF80]))
    ticks = draw(st.sampled_from([10**7, 0x80000000 - 50, 0x100000000 - 50]))
    found: list[tuple[int, float]] = []
    for gap, change in draw(st.lists(st.tuples(gaps, times), max_size=60)):
        sequence += gap
        ticks += change
        found.append((sequence, ticks * TICK))
    # The lists that hypothesis draws are too short to fill a message.
    repeats = draw(st.integers(1, 12))
    span = sequence + 1 - base
    return base, [(s + i * span, t) for i in range(repeats) for s, t in found]


@settings(max_examples=150, deadline=None)
@given(arrivals(), st.sampled_from([100, 300, MAX_SIZE]))
def test_what_is_built_says_what_arrived(drawn: tuple[int, list[tuple[int, float]]], max_size: int) -> None:
    """Each message fits and survives the wire; together they say exactly what arrived and what is missing."""
    base, found = drawn
    messages = build(0xFFFFFFFF, 2, 250, found, base, max_size=max_size)
    assert [m.feedback_count for m in messages] == [(250 + i) & 0xFF for i in range(len(messages))]
    for each in messages:
        data = each.to_bytes()
        assert len(data) <= max_size
        assert len(data) % 4 == 0
        assert parse(data) == each
        assert each.deltas[-1] is not None
    expected: dict[int, int | None] = {}
    previous = base - 1
    for sequence, seconds in sorted(found):
        if sequence - previous - 1 <= MAX_GAP:
            expected.update(dict.fromkeys(range(previous + 1, sequence)))
        if sequence > previous:
            expected[sequence] = round(seconds * 4000) % WRAP
        previous = sequence
    assert statuses(messages, base) == expected


delta = st.one_of(st.none(), st.integers(0, 255), st.integers(-0x8000, 0x7FFF))


@settings(max_examples=200)
@given(
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFFFF),
    st.integers(-0x800000, 0x7FFFFF),
    st.integers(0, 255),
    st.lists(st.tuples(delta, st.integers(1, 40)), max_size=30),
)
def test_round_trip(
    sender: int, media: int, base: int, reference: int, count: int, runs: list[tuple[int | None, int]]
) -> None:
    deltas = tuple(delta for delta, times in runs for _ in range(times))
    value = TransportFeedback(sender, media, base, reference, count, deltas)
    assert parse(value.to_bytes()) == value


@settings(max_examples=300)
@given(st.binary(max_size=60), st.integers(0, 0x10000))
def test_fuzz(rest: bytes, count: int) -> None:
    """Whatever the bytes, the result is a value that survives the wire, or BadPacket."""
    body = bytes(8) + bytes(2) + (count & 0xFFFF).to_bytes(2, "big") + bytes(4) + rest
    body += bytes(-len(body) % 4)
    for data in (rest, b"\x8f\xcd" + (len(body) // 4).to_bytes(2, "big") + body):
        try:
            value = parse(data)
        except BadPacket:
            continue
        assert parse(value.to_bytes()) == value
