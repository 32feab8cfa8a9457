"""The Engine.IO codec: what it takes, what it refuses, and that it raises nothing but BadPacket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sfu.wire.engineio import (
    Packet,
    PacketType,
    decode_packet,
    decode_payload,
    encode_packet,
    encode_payload,
)
from trio_sfu.wire.errors import BadPacket

MESSAGE = PacketType.MESSAGE


@pytest.mark.parametrize(
    ("frame", "packet"),
    [
        ("0{}", Packet(PacketType.OPEN, "{}")),
        ("1", Packet(PacketType.CLOSE)),
        ("2probe", Packet(PacketType.PING, "probe")),
        ("3", Packet(PacketType.PONG)),
        ("4hello", Packet(MESSAGE, "hello")),
        ("4", Packet(MESSAGE, "")),
        ("4true", Packet(MESSAGE, "true")),
        ("4-5", Packet(MESSAGE, "-5")),
        ("45", Packet(MESSAGE, "5")),
        ('4{"a":1}', Packet(MESSAGE, '{"a":1}')),
        ("4" + "[" * 5000, Packet(MESSAGE, "[" * 5000)),
        ("5", Packet(PacketType.UPGRADE)),
        ("6", Packet(PacketType.NOOP)),
        (b"\x01\x02", Packet(MESSAGE, b"\x01\x02")),
        (b"", Packet(MESSAGE, b"")),
        (b"4", Packet(MESSAGE, b"4")),
    ],
)
def test_packets_both_ways(frame: str | bytes, packet: Packet) -> None:
    assert decode_packet(frame) == packet
    assert encode_packet(packet) == frame


def test_base64() -> None:
    assert decode_packet("bAQIDBA==") == Packet(MESSAGE, b"\x01\x02\x03\x04")
    assert decode_packet("b") == Packet(MESSAGE, b"")


@pytest.mark.parametrize("frame", ["", "7", "9x", "abc", "-1", "b=", "bAQI", "bAQ=I", "b\u0661\u0661==", "\u0664"])
def test_bad_packets(frame: str) -> None:
    with pytest.raises(BadPacket):
        decode_packet(frame)


def test_payloads_both_ways() -> None:
    packets = [Packet(MESSAGE, "one"), Packet(MESSAGE, b"\x01\x02\x03\x04"), Packet(PacketType.NOOP)]
    body = b"4one\x1ebAQIDBA==\x1e6"
    assert encode_payload(packets) == body
    assert decode_payload(body) == packets
    many = [Packet(MESSAGE, str(number)) for number in range(1000)]
    assert decode_payload(encode_payload(many)) == many


def test_one_packet_encodes_both_ways() -> None:
    packet = Packet(MESSAGE, b"\x01")
    assert encode_packet(packet) == b"\x01"
    assert encode_payload([packet]) == b"bAQ=="
    assert encode_packet(packet) == b"\x01"


@pytest.mark.parametrize("body", [b"", b"abc", b"4\x1e", b"\x1e4", b"d=4hello", b"d=", b"\xff", b"4a\x1e9"])
def test_bad_payloads(body: bytes) -> None:
    with pytest.raises(BadPacket):
        decode_payload(body)


def test_too_many_packets() -> None:
    assert len(decode_payload(b"\x1e".join([b"4"] * 5), max_packets=5)) == 5
    with pytest.raises(BadPacket):
        decode_payload(b"\x1e".join([b"4"] * 6), max_packets=5)


@given(st.one_of(st.text(), st.binary(), st.from_regex(r"\A[0-6b].*", fullmatch=False)))
def test_fuzz_packets(frame: str | bytes) -> None:
    """Any frame is a packet that encodes to a frame for that same packet, or BadPacket."""
    try:
        packet = decode_packet(frame)
    except BadPacket:
        return
    assert decode_packet(encode_packet(packet)) == packet


@given(
    st.one_of(
        st.binary(),
        st.lists(st.one_of(st.text(), st.sampled_from(["4", "b", "bAAAA", "d=", "2"]))).map(
            lambda records: "\x1e".join(records).encode()
        ),
    )
)
def test_fuzz_payloads(body: bytes) -> None:
    """Any body is packets that encode to a body for those same packets, or BadPacket."""
    try:
        packets = decode_payload(body)
    except BadPacket:
        return
    assert decode_payload(encode_payload(packets)) == packets
