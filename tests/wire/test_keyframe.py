"""Keyframe detection, by payloads written from RFC 7741, RFC 9628, RFC 6184 and the AV1 RTP specification."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sfu.wire.keyframe import keyframe_test

# What follows the descriptors: a VP8 payload header has P in bit 0 of its first byte (0 for a keyframe).
KEY, DELTA = "10 02 00 9d 01 2a", "31 02 00"

VP8 = [
    ("10" + KEY, True),
    ("10" + DELTA, False),
    ("00" + KEY, False),  # S=0: not the start of a partition
    ("11" + KEY, False),  # partition 1
    ("17" + KEY, False),  # partition 7
    ("30" + KEY, True),  # N (non-reference) changes nothing
    ("90 80 05" + KEY, True),  # X, I: 7-bit picture id
    ("90 80 85 01" + KEY, True),  # 15-bit picture id
    ("90 80 85 01" + DELTA, False),
    ("90 c0 85 01 07" + KEY, True),  # and TL0PICIDX
    ("90 e0 85 01 07 40" + KEY, True),  # and TID
    ("90 f0 85 01 07 41" + KEY, True),  # T and K share one byte
    ("90 d0 85 01 07 41" + KEY, True),  # K alone
    ("90 20 40" + KEY, True),
    ("90 20 40" + DELTA, False),
    ("90 00" + KEY, True),
    # Too short to tell.
    ("", False),
    ("10", False),
    ("90", False),
    ("90 80", False),
    ("90 80 85", False),
    ("90 80 85 01", False),
    ("90 80 05", False),
    ("90 f0 85 01 07", False),
    ("90 f0 85 01 07 41", False),
]

# |I|P|L|F|B|E|V|Z|
VP9 = [
    ("08 49", True),
    ("0c 49", True),
    ("8c 85 01 49", True),
    ("8c 05 49", True),
    ("04 49", False),  # B=0
    ("48 49", False),  # P=1
    ("cc 85 01 49", False),
    ("28 00 07 49", True),  # L, SID 0
    ("28 02 07 49", False),  # SID 1
    ("28 04 07 49", False),  # SID 2
    ("28 e0 07 49", True),  # TID 7
    ("28 11 07 49", True),  # U and D are no part of the SID
    ("ac 05 00 07 49", True),
    ("ac 85 01 00 07 49", True),
    ("ac 85 01 02 07 49", False),
    ("be 85 01 00 10 49", True),  # flexible mode, scalability structure
    ("", False),
    ("08", False),
    ("28", False),
    ("ac 85", False),
    ("ac 85 01", False),
]

# |F|NRI|Type|
H264 = [
    ("65 88", True),  # IDR
    ("67 42", True),  # SPS
    ("68 ce", False),  # PPS
    ("61 9a", False),  # non-IDR
    ("06 05", False),  # SEI
    ("78 0002 67 42 0001 68 0002 65 88", True),  # STAP-A: SPS, PPS, IDR
    ("78 0001 68 0002 65 88", True),  # PPS, IDR
    ("78 0001 68 0002 61 9a", False),
    ("78 0001 68", False),
    ("78 0000 0000 0002 65 88", True),  # empty units are stepped over
    ("78 ffff 68 65", False),  # a size beyond the packet
    ("78 00", False),
    ("78 0002", False),
    ("7c 85 88", True),  # FU-A, S, IDR
    ("7c 87 42", True),  # FU-A, S, SPS
    ("7c 05 88", False),  # the middle of it
    ("7c 45 88", False),  # the end of it
    ("7c 81 9a", False),  # FU-A, S, non-IDR
    ("7c 88 ce", False),  # FU-A, S, PPS
    ("7c", False),
    ("65", False),
    ("", False),
]

# |Z|Y|W W|N|-|-|-|
AV1 = [
    ("18 0a", True),
    ("08 0a", True),
    ("58 0a", True),  # Y: the last element goes on in the next packet
    ("38 0a", True),  # W=3
    ("10 32", False),
    ("98 0a", False),  # Z with N: invalid
    ("90 0a", False),
    ("08", False),
    ("", False),
]

CODECS = {"video/VP8": VP8, "video/VP9": VP9, "video/H264": H264, "video/AV1": AV1}


@pytest.mark.parametrize(
    ("mime_type", "payload", "expected"),
    [(mime_type, payload, expected) for mime_type, rows in CODECS.items() for payload, expected in rows],
)
def test_vectors(mime_type: str, payload: str, expected: bool) -> None:
    test = keyframe_test(mime_type)
    assert test is not None
    data = bytes.fromhex(payload)
    assert test(data) is expected
    assert test(memoryview(b"\xff" + data + b"\xff")[1 : 1 + len(data)]) is expected


def test_names_are_case_insensitive() -> None:
    assert keyframe_test("video/vp8") is keyframe_test("VIDEO/VP8") is not None


@pytest.mark.parametrize("mime_type", ["audio/opus", "audio/red", "video/rtx", "video/ulpfec", "vp8", ""])
def test_codecs_without_keyframes(mime_type: str) -> None:
    assert keyframe_test(mime_type) is None


@pytest.mark.parametrize("mime_type", CODECS)
@given(data=st.binary(max_size=40))
def test_any_payload_has_an_answer_and_only_a_prefix_of_it_counts(mime_type: str, data: bytes) -> None:
    """A test never raises, and what it has found in a packet it finds in a longer one too."""
    test = keyframe_test(mime_type)
    assert test is not None
    found = [test(data[:size]) for size in range(len(data) + 1)]
    assert all(type(each) is bool for each in found)
    assert found == sorted(found)
