"""RTP packets and header extensions (RFC 3550 section 5.1, RFC 8285)."""

import struct
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sfu.wire.errors import BadPacket
from trio_sfu.wire.rtp import (
    ONE_BYTE_PROFILE,
    TWO_BYTE_PROFILE,
    RtpPacket,
    pack_extensions,
    parse_rtp,
    unpack_extensions,
)

HEADER = struct.pack("!HII", 0x1234, 0x89ABCDEF, 0xDEADBEEF)


def packet(first: int, rest: bytes, second: int = 0x60) -> bytes:
    return bytes((first, second)) + HEADER + rest


def extended(profile: int, elements: bytes, payload: bytes = b"pay") -> bytes:
    return packet(0x90, struct.pack("!HH", profile, len(elements) // 4) + elements + payload)


def test_plain_packet() -> None:
    parsed = parse_rtp(packet(0x80, b"payload", second=0xE0))
    assert parsed == RtpPacket(
        payload_type=96,
        marker=True,
        sequence_number=0x1234,
        timestamp=0x89ABCDEF,
        ssrc=0xDEADBEEF,
        block=b"",
        places={},
        payload_start=12,
        payload_end=19,
    )


def test_marker_and_payload_type_are_apart() -> None:
    assert parse_rtp(packet(0x80, b"", second=0x7F))[:2] == (127, False)
    assert parse_rtp(packet(0x80, b"", second=0x80))[:2] == (0, True)


def test_csrcs_are_skipped() -> None:
    parsed = parse_rtp(packet(0x83, bytes(12) + b"x"))
    assert (parsed.payload_start, parsed.payload_end) == (24, 25)


def test_padding_is_cut_off() -> None:
    parsed = parse_rtp(packet(0xA0, b"xy" + bytes((0, 0, 3))))
    assert (parsed.payload_start, parsed.payload_end) == (12, 14)


def test_padding_alone_leaves_an_empty_payload() -> None:
    parsed = parse_rtp(packet(0xA0, bytes(254) + bytes((255,))))
    assert parsed.payload_start == parsed.payload_end == 12


def test_one_byte_extensions() -> None:
    # RFC 8285, section 4.2: ID 1 with one byte, padding, ID 2 with two, ID 3 with four.
    elements = bytes.fromhex("10AA 00 21BBBB 0000 33CCCCCCCC 000000")
    parsed = parse_rtp(extended(ONE_BYTE_PROFILE, elements))
    assert parsed.extensions == {1: b"\xaa", 2: b"\xbb\xbb", 3: b"\xcc" * 4}


def test_two_byte_extensions() -> None:
    # RFC 8285, section 4.3: elements of no, one and three bytes; the profile's low four bits are free.
    elements = bytes.fromhex("0100 0201BB 00 0303CCCCCC") + bytes(1)
    parsed = parse_rtp(extended(TWO_BYTE_PROFILE | 5, elements))
    assert parsed.extensions == {1: b"", 2: b"\xbb", 3: b"\xcc" * 3}
    assert parsed.payload_end - parsed.payload_start == 3


def test_extensions_after_csrcs() -> None:
    data = packet(0x92, bytes(8) + struct.pack("!HH", ONE_BYTE_PROFILE, 1) + bytes.fromhex("10AA0000") + b"p")
    parsed = parse_rtp(data)
    assert parsed.extensions == {1: b"\xaa"}
    assert (parsed.payload_start, parsed.payload_end) == (28, 29)


def test_another_profile_is_skipped() -> None:
    parsed = parse_rtp(extended(0x4242, bytes(8)))
    assert parsed.extensions == {}
    assert parsed.payload_end - parsed.payload_start == 3


@pytest.mark.parametrize("head", ["F0", "F7", "03", "0F"])
def test_id_15_and_id_0_with_a_length_end_the_elements(head: str) -> None:
    """RFC 8285, section 4.2: only what came before counts."""
    elements = bytes.fromhex(f"10AA {head} 20BB 20CC 00")
    assert parse_rtp(extended(ONE_BYTE_PROFILE, elements)).extensions == {1: b"\xaa"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        packet(0x80, b"")[:11],
        packet(0x40, b""),
        packet(0xC0, b""),
        packet(0x81, b""),
        packet(0x8F, bytes(59)),
        packet(0x90, b""),
        packet(0x90, bytes(3)),
        packet(0x90, struct.pack("!HH", 0xBEDE, 1) + bytes(3)),
        packet(0x90, struct.pack("!HH", 0xBEDE, 0xFFFF)),
        packet(0xA0, b""),
        packet(0xA0, b"\x00"),
        packet(0xA0, b"\x02"),
        packet(0xA1, bytes(3) + b"\x04"),
        packet(0xA1, bytes(4) + b"\x02"),
        extended(ONE_BYTE_PROFILE, bytes.fromhex("13AA0000"), b""),
        extended(TWO_BYTE_PROFILE, bytes.fromhex("00000001"), b""),
        extended(TWO_BYTE_PROFILE, bytes.fromhex("0103AAAA"), b""),
    ],
    ids=lambda data: data.hex()[24:],
)
def test_malformed(data: bytes) -> None:
    with pytest.raises(BadPacket):
        parse_rtp(data)


elements_strategy = st.dictionaries(st.integers(1, 14), st.binary(max_size=255), max_size=14)


@given(elements_strategy, st.binary(max_size=20))
def test_extensions_round_trip(elements: dict[int, bytes], payload: bytes) -> None:
    wide, packed = pack_extensions(list(elements.items()))
    assert len(packed) % 4 == 0
    assert wide == any(not 1 <= len(value) <= 16 for value in elements.values())
    parsed = parse_rtp(extended(TWO_BYTE_PROFILE if wide else ONE_BYTE_PROFILE, packed, payload))
    assert parsed.extensions == elements
    assert parsed.payload_end - parsed.payload_start == len(payload)


@given(st.lists(elements_strategy, min_size=2, max_size=4), st.integers(0, 3), st.randoms())
def test_what_was_seen_before_changes_nothing(several: list[dict[int, bytes]], trailing: int, random: Random) -> None:
    """Where elements lie is remembered by a block's shape; another one of the same length may be mistaken for none."""
    blocks: list[tuple[int, bytes, bool]] = []
    for elements in several:
        wide, packed = pack_extensions(list(elements.items()))
        packed += bytes(4 * trailing)
        profile = TWO_BYTE_PROFILE if wide else ONE_BYTE_PROFILE
        blocks.append((profile, packed, True))
        if packed:  # The same with one bit changed: perhaps a value's, perhaps a head's.
            changed = bytearray(packed)
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
            blocks.append((profile, bytes(changed), False))
    for profile, packed, whole in blocks * 2:
        try:
            parsed = parse_rtp(extended(profile, packed))
        except BadPacket:
            assert not whole
            continue
        assert parsed.extensions == dict(unpack_extensions(profile == TWO_BYTE_PROFILE, packed))


@given(st.binary(max_size=80), st.sampled_from([0x80, 0x90, 0xA0, 0xB3]), st.integers(0, 4), st.booleans())
def test_fuzz(rest: bytes, first: int, words: int, wide: bool) -> None:
    """Whatever the bytes: a packet whose payload lies within them, or BadPacket."""
    profile = TWO_BYTE_PROFILE if wide else ONE_BYTE_PROFILE
    for data in (rest, packet(first, rest), packet(first, struct.pack("!HH", profile, words) + rest)):
        try:
            parsed = parse_rtp(data)
        except BadPacket:
            continue
        assert 12 <= parsed.payload_start <= parsed.payload_end <= len(data)
        assert parse_rtp(memoryview(data)) == parsed
        assert all(len(value) <= len(data) for value in parsed.extensions.values())
