"""Payload descriptors, read and reduced."""

import pytest

from trio_sfu.media.stills import make_plain
from trio_sfu.media.stills.descriptors import plain_vp8, plain_vp9
from trio_sfu.wire.errors import BadPacket
from trio_sfu.wire.vp8 import parse_vp8
from trio_sfu.wire.vp9 import parse_vp9

DATA = b"data"


@pytest.mark.parametrize(
    ("descriptor", "plain"),
    [
        ("10", "10"),  # S
        ("00", "00"),
        ("90 00", "10"),  # X
        ("90 80 7f", "10"),  # I, 7 bits
        ("90 80 ffff", "10"),  # I, 15 bits
        ("b0 e0 8001 05 20", "30"),  # N; I, L and T
        ("81 f0 8001 05 2f", "01"),  # PID 1; K too
        ("80 10 03", "00"),  # K alone
    ],
)
def test_vp8(descriptor: str, plain: str) -> None:
    payload = bytes.fromhex(descriptor) + DATA
    assert parse_vp8(payload).size == len(payload) - len(DATA)
    assert plain_vp8(payload) == bytes.fromhex(plain) + DATA


@pytest.mark.parametrize(
    ("descriptor", "plain", "spatial_id"),
    [
        ("0c", "0c", 0),  # B and E
        ("40", "40", 0),  # P
        ("88 7f", "08", 0),  # I, 7 bits
        ("c9 ffff", "49", 0),  # I, 15 bits; Z
        ("a4 8001 24 07", "04", 2),  # L with TL0PICIDX
        ("b8 8001 22", "08", 1),  # flexible: without it
        ("f8 8001 00 02", "48", 0),  # one reference
        ("d8 8001 03 05 06", "48", 0),  # three of them
        ("0a 00", "08", 0),  # V: one layer, nothing said of it
        ("0a 30 0140 00b4 0280 0168", "08", 0),  # two layers with their sizes
        ("8a 8001 08 02 00 24 01", "08", 0),  # two pictures, with 0 and 1 references
    ],
)
def test_vp9(descriptor: str, plain: str, spatial_id: int) -> None:
    payload = bytes.fromhex(descriptor) + DATA
    read = parse_vp9(payload)
    assert read.size == len(payload) - len(DATA)
    assert (read.spatial_layer or 0) == spatial_id
    assert plain_vp9(payload) == bytes.fromhex(plain) + DATA


@pytest.mark.parametrize("text", ["", "10", "90", "90 80", "90 80 80", "90 f0 8001 05"])
def test_what_is_no_vp8(text: str) -> None:
    payload = bytes.fromhex(text)
    with pytest.raises(BadPacket):
        parse_vp8(payload)
    assert plain_vp8(payload) == payload


@pytest.mark.parametrize("text", ["", "0c", "8c", "8c 80", "2c 00", "5c 01 01", "0a 10", "0a 08 02 00 2c"])
def test_what_is_no_vp9(text: str) -> None:
    payload = bytes.fromhex(text)
    with pytest.raises(BadPacket):
        parse_vp9(payload)
    assert plain_vp9(payload) == payload


def test_the_other_codecs_payloads_stay_as_they_are() -> None:
    assert make_plain("video/H264")(b"\x90\x80") == b"\x90\x80"
    assert make_plain("VIDEO/vp8")(b"\x90\x00\x01") == b"\x10\x01"
