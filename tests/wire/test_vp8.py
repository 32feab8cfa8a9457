"""VP8 payload descriptors, written from RFC 7741, section 4.2, and given other ids."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_sfu.wire.errors import BadPacket
from trio_sfu.wire.keyframe import keyframe_test
from trio_sfu.wire.vp8 import Vp8Payload, parse_vp8, with_vp8_ids

KEY, DELTA = b"\x10\x02\x00\x9d\x01\x2a", b"\x31\x02\x00"


def parsed(descriptor: str, data: bytes = DELTA) -> Vp8Payload:
    return parse_vp8(bytes.fromhex(descriptor) + data)


@pytest.mark.parametrize(
    ("descriptor", "picture_id", "bits", "at"),
    [
        ("10", None, 0, 0),
        ("90 00", None, 0, 0),
        ("90 80 00", 0, 7, 2),
        ("90 80 7f", 127, 7, 2),
        ("90 80 8000", 0, 15, 2),
        ("90 80 8085", 0x85, 15, 2),
        ("90 80 ffff", 0x7FFF, 15, 2),
        ("90 c0 9234 07", 0x1234, 15, 2),
        ("90 70 07 40", None, 0, 0),
    ],
)
def test_picture_id(descriptor: str, picture_id: int | None, bits: int, at: int) -> None:
    read = parsed(descriptor)
    assert (read.picture_id, read.picture_id_bits, read.picture_id_at) == (picture_id, bits, at)


@pytest.mark.parametrize(
    ("descriptor", "tl0_pic_idx", "at"),
    [
        ("90 00", None, 0),
        ("90 40 ff", 255, 2),
        ("90 c0 05 00", 0, 3),
        ("90 c0 8005 07", 7, 4),
        ("90 f0 8005 07 41", 7, 4),
        ("90 b0 8005 41", None, 0),
    ],
)
def test_tl0_pic_idx(descriptor: str, tl0_pic_idx: int | None, at: int) -> None:
    read = parsed(descriptor)
    assert (read.tl0_pic_idx, read.tl0_at) == (tl0_pic_idx, at)


@pytest.mark.parametrize(
    ("descriptor", "temporal_layer", "layer_sync"),
    [
        ("10", None, False),
        ("90 10 ff", None, False),  # K alone: TID and Y are not said
        ("90 20 00", 0, False),
        ("90 20 20", 0, True),
        ("90 20 40", 1, False),
        ("90 20 60", 1, True),
        ("90 30 df", 3, False),  # with KEYIDX
        ("90 e0 8005 07 a0", 2, True),
    ],
)
def test_temporal_layer(descriptor: str, temporal_layer: int | None, layer_sync: bool) -> None:
    read = parsed(descriptor)
    assert (read.temporal_layer, read.layer_sync) == (temporal_layer, layer_sync)


@pytest.mark.parametrize(
    ("descriptor", "begins"),
    [
        ("10", True),
        ("30", True),  # N
        ("18", True),  # a reserved bit
        ("00", False),
        ("11", False),  # partition 1 begins, not the frame
        ("14", False),
        ("07", False),
        ("90 e0 8005 07 a0", True),
        ("80 e0 8005 07 a0", False),
    ],
)
def test_first_packet_of_a_frame(descriptor: str, begins: bool) -> None:
    assert parsed(descriptor, DELTA)[1:3] == (begins, False)
    assert parsed(descriptor, KEY)[1:3] == (begins, begins)


def test_size_is_the_descriptors() -> None:
    for descriptor in ("10", "90 00", "90 80 05", "90 80 8005", "90 40 07", "90 10 00", "90 30 00", "90 f0 8005 07 41"):
        assert parsed(descriptor).size == len(bytes.fromhex(descriptor))


@pytest.mark.parametrize("text", ["", "10", "90", "90 00", "90 80", "90 80 80", "90 80 8005", "90 f0 8001 05", "90 20"])
def test_what_is_too_short(text: str) -> None:
    with pytest.raises(BadPacket):
        parse_vp8(bytes.fromhex(text))


@pytest.mark.parametrize(
    ("descriptor", "picture_id", "tl0_pic_idx", "rewritten"),
    [
        ("90 e0 8005 07 a0", 0x1234, 0x56, "90 e0 9234 56 a0"),
        ("90 e0 ffff ff a0", 0x8000, 0x100, "90 e0 8000 00 a0"),  # round the wrap
        ("90 e0 8000 00 a0", -1, -1, "90 e0 ffff ff a0"),
        ("90 e0 7f ff a0", 128, 256, "90 e0 00 00 a0"),  # the short id stays short
        ("90 e0 05 ff a0", 0x1234, 1, "90 e0 34 01 a0"),
        ("90 80 8005", 6, 9, "90 80 8006"),
        ("90 60 07 a0", 6, 9, "90 60 09 a0"),
        ("90 00", 6, 9, "90 00"),
        ("10", 6, 9, "10"),
    ],
)
def test_other_ids(descriptor: str, picture_id: int, tl0_pic_idx: int, rewritten: str) -> None:
    payload = bytes.fromhex(descriptor) + DELTA
    assert with_vp8_ids(payload, parse_vp8(payload), picture_id, tl0_pic_idx) == bytes.fromhex(rewritten) + DELTA
    view = memoryview(payload)
    assert with_vp8_ids(view, parse_vp8(view), picture_id, tl0_pic_idx) == bytes.fromhex(rewritten) + DELTA


@given(st.binary(max_size=12), st.integers(0, 0x7FFF), st.integers(0, 0xFF))
@example(bytes.fromhex("90f0ffffffff00"), 0, 0)
def test_any_bytes(payload: bytes, picture_id: int, tl0_pic_idx: int) -> None:
    """Only BadPacket comes out; a keyframe is one for the fast test too; other ids are all that a rewrite changes."""
    keyframe = keyframe_test("video/VP8")
    assert keyframe is not None
    try:
        read = parse_vp8(payload)
    except BadPacket:
        assert not keyframe(payload)
        return
    assert read.keyframe is keyframe(payload)
    assert 0 < read.size < len(payload)
    again = parse_vp8(with_vp8_ids(payload, read, picture_id, tl0_pic_idx))
    assert again == read._replace(
        picture_id=None if read.picture_id is None else picture_id & (1 << read.picture_id_bits) - 1,
        tl0_pic_idx=None if read.tl0_pic_idx is None else tl0_pic_idx,
    )
    assert with_vp8_ids(payload, read, read.picture_id or 0, read.tl0_pic_idx or 0) == payload
