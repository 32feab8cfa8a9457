"""RTCP packets: vectors written from RFC 3550, 3611, 4585, 5104, 5506 and draft-alvestrand-rmcat-remb-03."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sfu.wire.errors import BadPacket
from trio_sfu.wire.rtcp import (
    Dlrr,
    ExtendedReport,
    FullIntraRequest,
    GenericNack,
    Goodbye,
    PictureLossIndication,
    ReceiverReferenceTime,
    ReceiverReport,
    Remb,
    ReportBlock,
    RtcpPacket,
    SenderReport,
    SourceDescription,
    TransportFeedback,
    UnknownPacket,
    pack_compound,
    pack_nack_lost,
    parse_compound,
    unpack_nack_lost,
)

BLOCK = ReportBlock(0x01932DB4, 80, -1, 0x0001FFFE, 147, 0x12345678, 65536)
BLOCK_HEX = "01932db4 50 ffffff 0001fffe 00000093 12345678 00010000"
BLOCK_2 = ReportBlock(7, 0, 0x7FFFFF, 0xFFFFFFFF, 0, 0, 0)
BLOCK_2_HEX = "00000007 00 7fffff ffffffff 00000000 00000000 00000000"

VECTORS: list[tuple[str, RtcpPacket, str]] = [
    # |V=2|P| RC | PT=200 | length | SSRC | NTP msw | NTP lsw | RTP | packets | octets | blocks
    (
        "SR",
        SenderReport(0x5D931534, 0xDD3AC1B4_3B9ACA00, 0x23456789, 10, 12000, (BLOCK,)),
        f"81c8000c 5d931534 dd3ac1b4 3b9aca00 23456789 0000000a 00002ee0 {BLOCK_HEX}",
    ),
    (
        "SR without blocks",
        SenderReport(1, 2**64 - 1, 2**32 - 1, 2**32 - 1, 2**32 - 1),
        "80c80006 00000001 ffffffff ffffffff ffffffff ffffffff ffffffff",
    ),
    ("RR", ReceiverReport(0x5D931534, (BLOCK, BLOCK_2)), f"82c9000d 5d931534 {BLOCK_HEX} {BLOCK_2_HEX}"),
    ("empty RR", ReceiverReport(1), "80c90001 00000001"),
    # A chunk: SSRC, items |type|length|text|, nulls to the next 32 bits, at least one.
    ("SDES", SourceDescription(((0x01020304, "ab"),)), "81ca0003 01020304 0102 6162 00000000"),
    ("SDES, one null", SourceDescription(((0x01020304, "a"),)), "81ca0002 01020304 0101 6100"),
    (
        "SDES, two chunks",
        SourceDescription(((1, "abc"), (2, "d"))),
        "82ca0005 00000001 0103 6162 63000000 00000002 0101 6400",
    ),
    ("SDES, no item", SourceDescription(((1, ""),)), "81ca0002 00000001 00000000"),
    ("SDES, UTF-8", SourceDescription(((1, "é"),)), "81ca0003 00000001 0102 c3a9 00000000"),
    ("SDES, no chunk", SourceDescription(()), "80ca0000"),
    ("BYE", Goodbye((1, 2)), "82cb0002 00000001 00000002"),
    ("BYE with a reason", Goodbye((1,), "bye"), "81cb0002 00000001 03627965"),
    ("BYE with a padded reason", Goodbye((1,), "gone"), "81cb0003 00000001 04676f6e 65000000"),
    ("BYE of nobody", Goodbye(()), "80cb0000"),
    # |V=2|P| FMT | PT | length | sender SSRC | media SSRC | FCI
    ("NACK", GenericNack(1, 2, (100,)), "81cd0003 00000001 00000002 0064 0000"),
    (
        "NACK, two items",
        GenericNack(1, 2, (100, 101, 116, 117)),
        "81cd0004 00000001 00000002 0064 8001 0075 0000",
    ),
    (
        "NACK across the wrap",
        GenericNack(1, 2, (65534, 65535, 0, 14)),
        "81cd0003 00000001 00000002 fffe 8003",
    ),
    ("PLI", PictureLossIndication(1, 0xFFFFFFFF), "81ce0002 00000001 ffffffff"),
    # FIR's own media SSRC is 0; |SSRC|Seq nr.|reserved|
    (
        "FIR",
        FullIntraRequest(1, ((2, 255), (3, 0))),
        "84ce0006 00000001 00000000 00000002 ff000000 00000003 00000000",
    ),
    # |Num SSRC| BR Exp | BR Mantissa |: 0x3ffff << 2
    ("REMB", Remb(1, 0x3FFFF << 2, (2, 3)), "8fce0006 00000001 00000000 52454d42 020bffff 00000002 00000003"),
    ("REMB, no exponent", Remb(1, 262143, (2,)), "8fce0005 00000001 00000000 52454d42 0103ffff 00000002"),
    ("REMB, zero", Remb(1, 0, ()), "8fce0004 00000001 00000000 52454d42 00000000"),
    ("REMB, largest", Remb(1, 0x3FFFF << 46, ()), "8fce0004 00000001 00000000 52454d42 00bbffff"),
    # |BT|reserved|block length|
    (
        "XR, RRTR",
        ExtendedReport(1, (ReceiverReferenceTime(2**64 - 2),)),
        "80cf0004 00000001 04000002 ffffffff fffffffe",
    ),
    (
        "XR, DLRR",
        ExtendedReport(1, (Dlrr(((2, 3, 4), (5, 6, 7))),)),
        "80cf0008 00000001 05000006 00000002 00000003 00000004 00000005 00000006 00000007",
    ),
    ("XR, empty DLRR", ExtendedReport(1, (Dlrr(()),)), "80cf0002 00000001 05000000"),
    ("XR, no block", ExtendedReport(1, ()), "80cf0001 00000001"),
    (
        "transport-wide feedback",
        TransportFeedback(1, 2, 3, 4, 5, (6, None, 7)),
        "8fcd0005 00000001 00000002 0003 0003 000004 05 a800 06 07",
    ),
    # Known framing, unknown content.
    ("APP", UnknownPacket(204, bytes.fromhex("81cc0002 00000001 61626364")), "81cc0002 00000001 61626364"),
    ("no known type", UnknownPacket(0, bytes.fromhex("80000000")), "80000000"),
    (
        "SLI",
        UnknownPacket(206, bytes.fromhex("82ce0003 00000001 00000002 00000003")),
        "82ce0003 00000001 00000002 00000003",
    ),
    ("TMMBR", UnknownPacket(205, bytes.fromhex("83cd0002 00000001 00000002")), "83cd0002 00000001 00000002"),
    (
        "an AFB that is no REMB",
        UnknownPacket(206, bytes.fromhex("8fce0003 00000001 00000000 58585858")),
        "8fce0003 00000001 00000000 58585858",
    ),
    (
        "a short AFB",
        UnknownPacket(206, bytes.fromhex("8fce0002 00000001 00000000")),
        "8fce0002 00000001 00000000",
    ),
]
by_name = pytest.mark.parametrize(("value", "data"), [pytest.param(v, bytes.fromhex(d), id=n) for n, v, d in VECTORS])


@by_name
def test_vectors(value: RtcpPacket, data: bytes) -> None:
    assert parse_compound(data) == (value,)
    assert parse_compound(memoryview(data)) == (value,)
    assert value.to_bytes() == data


@by_name
def test_truncated(value: RtcpPacket, data: bytes) -> None:
    for size in range(len(data)):
        with pytest.raises(BadPacket):
            parse_compound(data[:size])


def test_compound() -> None:
    values = tuple(value for _, value, _ in VECTORS)
    data = b"".join(bytes.fromhex(d) for _, _, d in VECTORS)
    assert pack_compound(values) == data
    assert parse_compound(data) == values


def test_a_compound_is_good_or_bad_as_a_whole() -> None:
    with pytest.raises(BadPacket):
        parse_compound(bytes.fromhex("80c90001 00000001 81cd0002 00000001 00000002"))


# Other spellings of the same values.
@pytest.mark.parametrize(
    ("data", "value"),
    [
        # Padding: the P bit, and the count in the last byte.
        ("a0c90002 00000001 00000004", ReceiverReport(1)),
        ("a1ce0003 00000001 00000002 00000004", PictureLossIndication(1, 2)),
        ("a1cd0004 00000001 00000002 00640000 00000004", GenericNack(1, 2, (100,))),
        # Profile-specific extensions of reports.
        ("80c90003 00000001 aaaaaaaa bbbbbbbb", ReceiverReport(1)),
        (
            "80c80007 00000001 00000000 00000000 00000000 00000000 00000000 aaaaaaaa",
            SenderReport(1, 0, 0, 0, 0),
        ),
        # SDES items other than CNAME (2: NAME, 8: PRIV), before and after, and more nulls than needed.
        ("81ca0005 00000001 0201 78 0101 61 0803 017879 0000 000000", SourceDescription(((1, "a"),))),
        ("81ca0002 00000001 0100 0000", SourceDescription(((1, ""),))),
        ("81ca0002 00000001 0101 ff00", SourceDescription(((1, "\N{REPLACEMENT CHARACTER}"),))),
        # FIR: a media SSRC that should be 0, reserved bits that should be.
        ("84ce0004 00000001 00000009 00000002 05ffffff", FullIntraRequest(1, ((2, 5),))),
        # PLI with an FCI.
        ("81ce0003 00000001 00000002 aaaaaaaa", PictureLossIndication(1, 2)),
        # BYE with an empty reason.
        ("81cb0002 00000001 00000000", Goodbye((1,))),
        # REMB: a mantissa not shifted as far as it could be.
        ("8fce0004 00000001 00000000 52454d42 000c0001", Remb(1, 8, ())),
        # XR blocks of other types: 1 (loss RLE), 255.
        (
            "80cf0007 00000001 01000002 aaaaaaaa bbbbbbbb 04000002 00000000 00000005",
            ExtendedReport(1, (ReceiverReferenceTime(5),)),
        ),
        ("80cf0002 00000001 ff000000", ExtendedReport(1, ())),
        # NACK items in any order, and overlapping.
        ("81cd0004 00000001 00000002 0064 0001 0064 0002", GenericNack(1, 2, (100, 101, 100, 102))),
    ],
)
def test_other_spellings(data: str, value: RtcpPacket) -> None:
    assert parse_compound(bytes.fromhex(data)) == (value,)


def test_padding_may_end_a_packet_that_is_not_the_last() -> None:
    data = bytes.fromhex("a0c90002 00000001 00000004 81ce0002 00000001 00000002")
    assert parse_compound(data) == (ReceiverReport(1), PictureLossIndication(1, 2))


@pytest.mark.parametrize(
    "data",
    [
        "",
        "80",
        "80c9",
        "80c90000",  # RR without SSRC
        "40c90001 00000001",  # version 1
        "00c90001 00000001",
        "c0c90001 00000001",
        "80c90002 00000001",  # length beyond the datagram
        "80c9ffff 00000001",
        "80c90001 00000001 80",  # a tail
        "80c90001 00000001 00000000",
        "a0c90001 00000000",  # padding of zero
        "a0c90001 00000005",  # padding beyond the packet
        "a0c90001 00000004",  # padding over the SSRC
        "a0c90000",  # padding without a byte for its count
        "a1ce0002 00000001 00000004",
        "81c90001 00000001",  # a block short
        f"82c90007 00000001 {BLOCK_HEX}",
        "80c80005 00000001 00000000 00000000 00000000 00000000",
        "81c80006 00000001 00000000 00000000 00000000 00000000 00000000",
        "81ca0000",  # SDES chunk missing
        "81ca0001 00000001",
        "81ca0002 00000001 01026162",  # not ended
        "81ca0002 00000001 01ff6100",  # item beyond the packet
        "81ca0002 00000001 02006101",
        "82ca0002 00000001 01016100",  # second chunk missing
        "81cb0000",
        "82cb0001 00000001",
        "81cb0002 00000001 04616263",  # reason beyond the packet
        "81cd0000",
        "81cd0001 00000001",
        "81cd0002 00000001 00000002",  # NACK without item
        "a1cd0003 00000001 00000002 00640001",  # NACK of three bytes
        "81ce0001 00000001",
        "9fce0000",
        "84ce0002 00000001 00000000",  # FIR without entry
        "84ce0003 00000001 00000000 00000002",
        "8fce0003 00000001 00000000 52454d42",
        "8fce0004 00000001 00000000 52454d42 01000001",  # an SSRC short
        "8fce0005 00000001 00000000 52454d42 00000001 00000002",  # one too many
        "8fce0004 00000001 00000000 52454d42 00bfffff",  # beyond 64 bits
        "8fce0004 00000001 00000000 52454d42 00ffffff",
        "80cf0000",
        "80cf0003 00000001 04000002 00000000",  # block beyond the packet
        "80cf0003 00000001 04000001 00000000",  # RRTR too short
        "80cf0003 00000001 05000001 00000000",  # DLRR not of threes
        "a0cf0003 00000001 05000000 00000002",  # two bytes of a block header left
        "8fcd0002 00000001 00000002",
        "8fcd0004 00000001 00000002 00030001 00000400",
    ],
)
def test_malformed(data: str) -> None:
    with pytest.raises(BadPacket):
        parse_compound(bytes.fromhex(data))


@pytest.mark.parametrize(
    ("lost", "fci"),
    [
        ((), ""),
        ((5,), "0005 0000"),
        ((5, 6), "0005 0001"),
        (tuple(range(5, 22)), "0005 ffff"),
        (tuple(range(5, 23)), "0005 ffff 0016 0000"),
        ((5, 21), "0005 8000"),
        ((5, 22), "0005 0000 0016 0000"),
        ((65535, 0), "ffff 0001"),
        ((65535, 15), "ffff 8000"),
        ((65535, 16), "ffff 0000 0010 0000"),
        ((65520, 0), "fff0 8000"),
        ((65519, 0), "ffef 0000 0000 0000"),
        ((0, 65535), "0000 0000 ffff 0000"),
        ((5, 4), "0005 0000 0004 0000"),
    ],
)
def test_nack_items(lost: tuple[int, ...], fci: str) -> None:
    assert pack_nack_lost(lost) == bytes.fromhex(fci)
    assert unpack_nack_lost(bytes.fromhex(fci)) == lost


def test_repeated_numbers_are_written_once() -> None:
    assert pack_nack_lost([5, 5, 6, 6, 5]) == bytes.fromhex("0005 0001")


@given(st.integers(0, 0xFFFF), st.sets(st.integers(0, 400), max_size=60))
def test_nack_numbers_in_order_come_back(start: int, offsets: set[int]) -> None:
    lost = tuple((start + offset) & 0xFFFF for offset in sorted(offsets))
    assert unpack_nack_lost(pack_nack_lost(lost)) == lost


@given(st.lists(st.integers(0, 0xFFFF), max_size=60))
def test_nack_numbers_in_any_order_come_back_as_a_set(lost: list[int]) -> None:
    assert set(unpack_nack_lost(pack_nack_lost(lost))) == set(lost)


def test_remb_rounds_down() -> None:
    assert parse_compound(Remb(1, 2_500_001, (2,)).to_bytes()) == (Remb(1, 2_500_000, (2,)),)
    (parsed,) = parse_compound(Remb(1, 2**40 - 1, (2,)).to_bytes())
    assert isinstance(parsed, Remb)
    assert parsed.bitrate == (2**18 - 1) << 22


def test_local_misuse_raises_value_error() -> None:
    with pytest.raises(ValueError, match="31"):
        ReceiverReport(1, (BLOCK,) * 32).to_bytes()
    with pytest.raises(ValueError, match="31"):
        Goodbye(tuple(range(32))).to_bytes()
    with pytest.raises(ValueError, match="255"):
        SourceDescription(((1, "x" * 256),)).to_bytes()
    with pytest.raises(ValueError, match="255"):
        Goodbye((1,), "é" * 128).to_bytes()


def test_the_most_reports_and_the_longest_texts() -> None:
    values: tuple[RtcpPacket, ...] = (
        ReceiverReport(1, (BLOCK,) * 31),
        SenderReport(1, 2, 3, 4, 5, (BLOCK_2,) * 31),
        SourceDescription(tuple((i, "x" * 255) for i in range(31))),
        Goodbye(tuple(range(31)), "y" * 255),
    )
    assert parse_compound(pack_compound(values)) == values


u8, u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
text = st.text(max_size=60)
blocks = st.builds(ReportBlock, u32, u8, st.integers(-0x800000, 0x7FFFFF), u32, u32, u32, u32)
reports = st.lists(blocks, max_size=4).map(tuple)
packets: st.SearchStrategy[RtcpPacket] = st.one_of(
    st.builds(SenderReport, u32, u64, u32, u32, u32, reports),
    st.builds(ReceiverReport, u32, reports),
    st.builds(SourceDescription, st.lists(st.tuples(u32, text), max_size=4).map(tuple)),
    st.builds(Goodbye, st.lists(u32, max_size=4).map(tuple), text),
    st.builds(
        GenericNack,
        u32,
        u32,
        st.sets(u16, min_size=1, max_size=40).map(lambda lost: tuple(sorted(lost))),
    ),
    st.builds(PictureLossIndication, u32, u32),
    st.builds(FullIntraRequest, u32, st.lists(st.tuples(u32, u8), min_size=1, max_size=4).map(tuple)),
    st.builds(
        Remb,
        u32,
        st.builds(lambda mantissa, shift: mantissa << shift, st.integers(0, 2**18 - 1), st.integers(0, 46)),
        st.lists(u32, max_size=4).map(tuple),
    ),
    st.builds(
        ExtendedReport,
        u32,
        st.lists(
            st.one_of(
                st.builds(ReceiverReferenceTime, u64),
                st.builds(Dlrr, st.lists(st.tuples(u32, u32, u32), max_size=3).map(tuple)),
            ),
            max_size=3,
        ).map(tuple),
    ),
    st.builds(
        TransportFeedback,
        u32,
        u32,
        u16,
        st.integers(-0x800000, 0x7FFFFF),
        u8,
        st.lists(st.one_of(st.none(), u8, st.integers(-0x8000, 0x7FFF)), max_size=40).map(tuple),
    ),
    st.builds(
        lambda payload_type, words: UnknownPacket(
            payload_type, bytes((0x80, payload_type)) + len(words).to_bytes(2, "big") + b"".join(words)
        ),
        st.sampled_from([0, 192, 199, 204, 208, 255]),
        st.lists(st.binary(min_size=4, max_size=4), max_size=4),
    ),
)
compounds = st.lists(packets, min_size=1, max_size=4).map(tuple)


@settings(max_examples=200)
@given(compounds)
def test_round_trip(values: tuple[RtcpPacket, ...]) -> None:
    data = pack_compound(values)
    assert len(data) % 4 == 0
    assert parse_compound(data) == values


def check_fuzzed(data: bytes) -> None:
    """Whatever the bytes, the result is values that survive the wire, or BadPacket."""
    try:
        values = parse_compound(data)
    except BadPacket:
        return
    assert values
    for value in values:
        # Bytes that were no UTF-8 take three as replacement characters: such a text may be too long to write.
        if "\N{REPLACEMENT CHARACTER}" in repr(value):
            continue
        (again,) = parse_compound(value.to_bytes())
        if isinstance(value, GenericNack):
            assert isinstance(again, GenericNack)
            assert set(again.lost) == set(value.lost)
        else:
            assert again == value


@settings(max_examples=300)
@given(st.binary(max_size=80))
def test_fuzz_random(data: bytes) -> None:
    check_fuzzed(data)


@settings(max_examples=300)
@given(
    st.sampled_from([200, 201, 202, 203, 204, 205, 206, 207]),
    st.one_of(st.integers(0, 3), st.just(4), st.just(15), st.integers(0, 31)),
    st.booleans(),
    st.lists(st.binary(min_size=4, max_size=4), max_size=12),
)
def test_fuzz_well_framed(payload_type: int, count: int, padded: bool, words: list[bytes]) -> None:
    first = 0x80 | padded << 5 | count
    check_fuzzed(bytes((first, payload_type)) + len(words).to_bytes(2, "big") + b"".join(words))


@settings(max_examples=400)
@given(compounds, st.lists(st.tuples(st.integers(0, 400), u8), min_size=1, max_size=4), st.integers(0, 400))
def test_fuzz_mutated(values: tuple[RtcpPacket, ...], changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(pack_compound(values))
    for at, byte in changes:
        data[at % len(data)] = byte
    check_fuzzed(bytes(data[: len(data) - cut] if cut < 20 else data))
