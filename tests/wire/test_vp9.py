"""VP9 payload descriptors, written from RFC 9628, section 4.2, and given other ids."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_sfu.wire.errors import BadPacket
from trio_sfu.wire.keyframe import keyframe_test
from trio_sfu.wire.vp9 import Vp9Payload, Vp9Structure, parse_vp9, with_vp9_ids

DATA = b"data"


def parsed(descriptor: str) -> Vp9Payload:
    return parse_vp9(bytes.fromhex(descriptor) + DATA)


def test_each_field_of_a_non_flexible_descriptor() -> None:
    # I, L, B; picture id 0x1234; TID 2, U, SID 1, D; TL0PICIDX 7
    assert parsed("a8 9234 53 07") == Vp9Payload(
        size=5,
        begins_frame=True,
        ends_frame=False,
        keyframe=False,
        inter_picture_predicted=False,
        not_reference_for_upper=False,
        flexible=False,
        picture_id=0x1234,
        picture_id_bits=15,
        picture_id_at=1,
        temporal_layer=2,
        switching_up_point=True,
        spatial_layer=1,
        inter_layer_predicted=True,
        tl0_pic_idx=7,
        tl0_at=4,
        p_diffs=(),
        structure=None,
    )


def test_each_field_of_a_flexible_descriptor() -> None:
    # I, P, L, F, E, Z; picture id 5; TID 7, SID 4; P_DIFF 1 and 127
    assert parsed("f5 05 e8 03 fe") == Vp9Payload(
        size=5,
        begins_frame=False,
        ends_frame=True,
        keyframe=False,
        inter_picture_predicted=True,
        not_reference_for_upper=True,
        flexible=True,
        picture_id=5,
        picture_id_bits=7,
        picture_id_at=1,
        temporal_layer=7,
        switching_up_point=False,
        spatial_layer=4,
        inter_layer_predicted=False,
        tl0_pic_idx=None,
        tl0_at=0,
        p_diffs=(1, 127),
        structure=None,
    )


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("00", (0, False, 0, False)),
        ("20", (1, False, 0, False)),
        ("10", (0, True, 0, False)),
        ("02", (0, False, 1, False)),
        ("01", (0, False, 0, True)),
        ("ee", (7, False, 7, False)),
        ("ff", (7, True, 7, True)),
    ],
)
def test_layer_indices(layers: str, expected: tuple[int, bool, int, bool]) -> None:
    read = parsed(f"28 {layers} 07")
    found = (read.temporal_layer, read.switching_up_point, read.spatial_layer, read.inter_layer_predicted)
    assert found == expected
    assert read.keyframe is (read.spatial_layer == 0)


def test_a_descriptor_of_one_byte() -> None:
    read = parsed("08")
    assert read.size == 1
    assert (read.picture_id, read.temporal_layer, read.spatial_layer, read.tl0_pic_idx) == (None, None, None, None)
    assert read.keyframe


@pytest.mark.parametrize(
    ("descriptor", "size", "p_diffs"),
    [
        ("10", 1, ()),  # F without P
        ("50 02", 2, (1,)),
        ("50 03 04", 3, (1, 2)),
        ("50 03 05 06", 4, (1, 2, 3)),
        ("50 03 05 07", 4, (1, 2, 3)),  # three at most, whatever the last one's N
        ("40", 1, ()),  # P without F
    ],
)
def test_references(descriptor: str, size: int, p_diffs: tuple[int, ...]) -> None:
    read = parsed(descriptor)
    assert (read.size, read.p_diffs) == (size, p_diffs)


@pytest.mark.parametrize(
    ("descriptor", "structure"),
    [
        ("0a 00", (1, ())),
        ("0a 40", (3, ())),
        ("0a 30 0140 00b4 0280 0168", (2, ((320, 180), (640, 360)))),
        ("0a 10 ffff ffff", (1, ((65535, 65535),))),
        ("8a 8001 08 02 00 24 01", (1, ())),  # a group of two pictures, with 0 and 1 references
        ("0a 38 0140 00b4 0280 0168 01 2c 010203", (2, ((320, 180), (640, 360)))),
        ("0a 08 00", (1, ())),
        ("ba 8001 00 40", (3, ())),
    ],
)
def test_scalability_structure(descriptor: str, structure: tuple[int, tuple[tuple[int, int], ...]]) -> None:
    read = parsed(descriptor)
    assert read.structure == Vp9Structure(*structure)
    assert read.size == len(bytes.fromhex(descriptor))


@pytest.mark.parametrize(
    "text",
    [
        *("", "0c", "8c", "8c 80", "8c 05", "2c 00", "2c 00 07", "3c 00", "5c 01 01", "50", "50 02"),
        *("0a", "0a 00", "0a 10", "0a 10 0140 00b4", "0a 08", "0a 08 02 00 2c", "0a 08 01 04 01"),
    ],
)
def test_what_is_too_short(text: str) -> None:
    with pytest.raises(BadPacket):
        parse_vp9(bytes.fromhex(text))


@pytest.mark.parametrize(
    ("descriptor", "picture_id", "tl0_pic_idx", "rewritten"),
    [
        ("a8 8005 53 07", 0x1234, 0x56, "a8 9234 53 56"),
        ("a8 ffff 53 ff", 0x8000, 0x100, "a8 8000 53 00"),  # round the wrap
        ("a8 8000 53 00", -1, -1, "a8 ffff 53 ff"),
        ("a8 7f 53 ff", 128, 256, "a8 00 53 00"),  # the short id stays short
        ("f8 8005 e8 02", 6, 9, "f8 8006 e8 02"),  # flexible: the P_DIFF is no TL0PICIDX
        ("28 53 07", 6, 9, "28 53 09"),
        ("0a 40", 6, 9, "0a 40"),
    ],
)
def test_other_ids(descriptor: str, picture_id: int, tl0_pic_idx: int, rewritten: str) -> None:
    payload = bytes.fromhex(descriptor) + DATA
    assert with_vp9_ids(payload, parse_vp9(payload), picture_id, tl0_pic_idx) == bytes.fromhex(rewritten) + DATA
    view = memoryview(payload)
    assert with_vp9_ids(view, parse_vp9(view), picture_id, tl0_pic_idx) == bytes.fromhex(rewritten) + DATA


@given(st.binary(max_size=24), st.integers(0, 0x7FFF), st.integers(0, 0xFF))
@example(bytes.fromhex("ffffffffffffffff"), 0, 0)
@example(bytes.fromhex("aa8001000718000100"), 1, 1)
def test_any_bytes(payload: bytes, picture_id: int, tl0_pic_idx: int) -> None:
    """Only BadPacket comes out; a keyframe is one for the fast test too; other ids are all that a rewrite changes."""
    keyframe = keyframe_test("video/VP9")
    assert keyframe is not None
    try:
        read = parse_vp9(payload)
    except BadPacket:
        return
    assert read.keyframe is keyframe(payload)
    assert 0 < read.size < len(payload)
    again = parse_vp9(with_vp9_ids(payload, read, picture_id, tl0_pic_idx))
    assert again == read._replace(
        picture_id=None if read.picture_id is None else picture_id & (1 << read.picture_id_bits) - 1,
        tl0_pic_idx=None if read.tl0_pic_idx is None else tl0_pic_idx,
    )
    assert with_vp9_ids(payload, read, read.picture_id or 0, read.tl0_pic_idx or 0) == payload
