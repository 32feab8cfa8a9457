"""Packets laid out once, stamped for each consumer, and cut into runs."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sfu.media.layout import Stamp, lay_out
from trio_sfu.media.packet import MAX_RUN_SIZE, Batch, Packet, make_packet, runs_of
from trio_sfu.wire.rtp import pack_extensions, parse_rtp

MID_ID, AST_ID, TCC_ID = 1, 4, 5


def make(
    number: int = 7,
    timestamp: int = 1000,
    *,
    marker: bool = False,
    elements: list[tuple[int, bytes]] | None = None,
    payload: bytes = b"payload",
    keyframe: bool = False,
) -> Packet:
    return make_packet(
        number,
        timestamp,
        96,
        marker,
        pack_extensions(elements or []),
        payload,
        keyframe=keyframe,
        arrival=0.0,
    )


def stamp(*, ssrc: int = 0xFEDCBA98, mid_id: int = MID_ID, ast_id: int = AST_ID, tcc_id: int = TCC_ID) -> Stamp:
    return Stamp(ssrc=ssrc, mid="0zz9", mid_id=mid_id, abs_send_time_id=ast_id, transport_cc_id=tcc_id)


def write(
    packets: list[Packet],
    by: Stamp,
    *,
    sequence_offset: int = 0,
    timestamp_offset: int = 0,
    transport_sequence: int = 0,
    now: float = 0.0,
    gap: int = 16,
) -> tuple[list[bytes], int]:
    arena = memoryview(bytearray(b"\xaa" * (5 + sum(packet.size + gap for packet in packets) + 5)))
    last = by.write(
        arena,
        5,
        lay_out(packets, gap, runs_of([packet.size for packet in packets])),
        sequence_offset=sequence_offset,
        timestamp_offset=timestamp_offset,
        transport_sequence=transport_sequence,
        now=now,
    )
    found = []
    at = 5
    for packet in packets:
        found.append(bytes(arena[at : at + packet.size]))
        assert bytes(arena[at + packet.size : at + packet.size + gap]) == bytes(gap)
        at += packet.size + gap
    assert bytes(arena[:5]) == bytes(arena[at:]) == b"\xaa" * 5
    return found, last


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("mid_id", [0, MID_ID])
@pytest.mark.parametrize("ast_id", [0, AST_ID])
@pytest.mark.parametrize("tcc_id", [0, TCC_ID])
@pytest.mark.parametrize("marker", [False, True])
def test_stamped_packet_parses_back(*, wide: bool, mid_id: int, ast_id: int, tcc_id: int, marker: bool) -> None:
    elements = [(10, b"\x30")] + ([(13, bytes(range(20)))] if wide else [])
    packet = make(marker=marker, elements=elements)
    assert packet.wide == wide
    now = 64.5 + 3.25  # abs-send-time is modulo 64 s
    written, last = write(
        [packet],
        stamp(mid_id=mid_id, ast_id=ast_id, tcc_id=tcc_id),
        sequence_offset=65530,
        timestamp_offset=-2000,
        transport_sequence=0xFFFF,
        now=now,
    )
    parsed = parse_rtp(written[0])
    assert parsed[:5] == (96, marker, 1, 0x100000000 - 1000, 0xFEDCBA98)
    expected = dict(elements)
    if mid_id:
        expected[mid_id] = b"0zz9"
    if ast_id:
        expected[ast_id] = int(3.75 * 262144).to_bytes(3, "big")
    if tcc_id:
        expected[tcc_id] = b"\x00\x00"
    assert parsed.extensions == expected
    assert written[0][parsed.payload_start : parsed.payload_end] == b"payload"
    assert last == (0 if tcc_id else 0xFFFF)


def test_transport_sequence_counts_over_a_batch() -> None:
    written, last = write([make(n) for n in range(5)], stamp(), transport_sequence=0xFFFD)
    numbers = [int.from_bytes(parse_rtp(each).extensions[TCC_ID], "big") for each in written]
    assert numbers == [0xFFFE, 0xFFFF, 0, 1, 2]
    assert last == 2


def test_wide_and_narrow_in_one_batch() -> None:
    packets = [make(0), make(1, elements=[(13, bytes(17))]), make(2, elements=[(12, b"")]), make(3)]
    written, _ = write(packets, stamp(), gap=0)
    parsed = [parse_rtp(each) for each in written]
    assert [each.sequence_number for each in parsed] == [0, 1, 2, 3]
    assert [each.extensions.get(13) for each in parsed] == [None, bytes(17), None, None]
    assert parsed[2].extensions[12] == b""
    assert all(each.extensions[MID_ID] == b"0zz9" for each in parsed)


def test_an_empty_payload() -> None:
    (written,), _ = write([make(payload=b"")], stamp())
    parsed = parse_rtp(written)
    assert parsed.payload_start == parsed.payload_end == len(written) == 28


@pytest.mark.parametrize("mid", ["", "0", "00000"])
def test_other_mids_do_not_fit(mid: str) -> None:
    with pytest.raises(ValueError, match="four"):
        Stamp(ssrc=1, mid=mid, mid_id=1, abs_send_time_id=0, transport_cc_id=0)


@given(
    st.lists(st.binary(max_size=40), min_size=1, max_size=14),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFFFFFF),
    st.integers(-0x20000, 0x20000),
    st.integers(-(1 << 33), 1 << 33),
)
def test_any_packet_parses_back(
    values: list[bytes], number: int, timestamp: int, sequence_offset: int, timestamp_offset: int
) -> None:
    elements = [(identifier, value) for identifier, value in enumerate(values, 1) if identifier not in (1, 4, 5)]
    packet = make(number, timestamp, elements=elements)
    (written,), _ = write(
        [packet], stamp(), sequence_offset=sequence_offset, timestamp_offset=timestamp_offset, now=1e9
    )
    parsed = parse_rtp(written)
    assert parsed.sequence_number == (number + sequence_offset) % 0x10000
    assert parsed.timestamp == (timestamp + timestamp_offset) % (1 << 32)
    assert {key: parsed.extensions[key] for key, _ in elements} == dict(elements)
    assert written[parsed.payload_start :] == b"payload"


@given(
    st.lists(st.tuples(st.sampled_from([0, 0, 0, 0, 1, 2]), st.sampled_from([50, 50, 50, 51, 0])), max_size=40),
    st.lists(
        st.tuples(st.integers(0, 39), st.sampled_from(["timestamp", "wide", "words", "type", "marker"])), max_size=2
    ),
    st.sampled_from([0, MID_ID]),
    st.sampled_from([0, TCC_ID]),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
)
def test_a_batch_is_its_packets_one_by_one(
    steps: list[tuple[int, int]],
    odd: list[tuple[int, str]],
    mid_id: int,
    tcc_id: int,
    first_number: int,
    transport_sequence: int,
) -> None:
    """Frames are written by columns, where their packets are alike: nobody sees a difference."""
    number = first_number
    packets = []
    for index, (missing, size) in enumerate(steps):
        number = number + 1 + missing & 0xFFFF
        kinds = {kind for at, kind in odd if at == index}
        elements = [(13, bytes(17))] if "wide" in kinds else [(12, b"x" * 8)] if "words" in kinds else []
        packet = make(
            number,
            2000 if "timestamp" in kinds else 1000,
            marker="marker" in kinds or index == len(steps) - 1,
            elements=elements,
            payload=bytes([index]) * size,
        )
        packets.append(packet._replace(head=packet.head + 1) if "type" in kinds else packet)
    if not packets:
        return
    by = stamp(mid_id=mid_id, tcc_id=tcc_id)

    def written(some: list[Packet], sequence: int) -> tuple[list[bytes], int]:
        return write(some, by, sequence_offset=40_000, timestamp_offset=-7, transport_sequence=sequence, now=12.5)

    together, last = written(packets, transport_sequence)
    alone = []
    sequence = transport_sequence
    for packet in packets:
        (one,), sequence = written([packet], sequence)
        alone.append(one)
    assert together == alone
    assert last == sequence


sizes_strategy = st.lists(
    st.one_of(st.sampled_from([40, 1200, 1228, 1400, 1401]), st.integers(28, 2100)), min_size=1, max_size=200
)


@given(sizes_strategy)
def test_runs(sizes: list[int]) -> None:
    """The runs are the sizes cut into pieces, of which each fits one segmented send."""
    runs = runs_of(sizes)
    at = 0
    for count, size, octets in runs:
        run = sizes[at : at + count]
        at += count
        assert len(run) == count
        assert 1 <= count <= 64
        assert sum(run) == octets
        assert count == 1 or octets <= 60_000
        assert count == 1 or size <= MAX_RUN_SIZE
        assert all(each == size for each in run[:-1])
        assert run[-1] <= size
    assert at == len(sizes)


def test_runs_are_long_where_they_can_be() -> None:
    assert runs_of([1200] * 33) == [(33, 1200, 39600)]
    assert runs_of([1200] * 32 + [700]) == [(33, 1200, 39100)]
    assert runs_of([1200, 700, 700, 1200]) == [(2, 1200, 1900), (1, 700, 700), (1, 1200, 1200)]
    assert runs_of([100] * 70) == [(64, 100, 6400), (6, 100, 600)]
    assert runs_of([1200] * 51) == [(50, 1200, 60_000), (1, 1200, 1200)]
    assert runs_of([1500, 1500]) == [(1, 1500, 1500), (1, 1500, 1500)]
    assert runs_of([]) == []


def test_batch() -> None:
    packets = [make(0xFFFE), make(0, payload=b"x" * 100), make(0xFFFF, keyframe=True)]
    batch = Batch(packets)
    assert list(batch) == packets
    assert len(batch) == 3
    assert batch.octets == sum(packet.size for packet in packets)
    assert batch.payload_octets == 7 + 100 + 7
    assert batch.runs == runs_of(batch.sizes)
    assert batch.first_keyframe == 2
    assert batch.newest is packets[1]
    assert Batch(packets[:1]).first_keyframe is None
    assert Batch(packets[:1]).runs == [(1, packets[0].size, packets[0].size)]


def test_newest_by_number_whatever_the_order() -> None:
    packets = [make(number & 0xFFFF) for number in range(0xFFF0, 0x10010)]
    for seed in range(20):
        shuffled = packets.copy()
        Random(seed).shuffle(shuffled)
        assert Batch(shuffled).newest is packets[-1]
