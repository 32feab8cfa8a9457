"""Frames out of packets in order: ends, holes, keyframes, parameter sets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.feed_scene import frame_payloads
from trio_sfu.hls.frames import Frame, FrameAssembler, Incoming

SPS, PPS, IDR, SLICE = b"\x67sps", b"\x68pps", b"\x65idr", b"\x41slice"
IDR_BEGIN, IDR_END = b"\x7c\x85one", b"\x7c\x45two"
SETS = b"\x78\x00\x02\x67s\x00\x02\x68p"


def assembler(codec: str = "VP8") -> FrameAssembler:
    return FrameAssembler(f"video/{codec}")


def packets(timestamp: int, payloads: list[bytes], marker: bool = True) -> list[Incoming]:
    return [
        Incoming(timestamp, marker and index == len(payloads) - 1, payload) for index, payload in enumerate(payloads)
    ]


def add(frames: FrameAssembler, *some: Incoming) -> list[Frame]:
    return [frame for packet in some for frame in frames.add(packet)]


def key(number: int = 0, **more: int) -> list[bytes]:
    return frame_payloads(number, key=True, **more)


def test_a_frame_ends_with_its_marker() -> None:
    frames = assembler()
    first, second = packets(10, key()), packets(20, frame_payloads(1))
    assert add(frames, *first[:2]) == []
    assert add(frames, first[2]) == [Frame(10, key(), keyframe=True, whole=True)]
    assert add(frames, *second) == [Frame(20, frame_payloads(1), keyframe=False, whole=True)]


def test_a_frame_without_marker_ends_where_the_next_begins() -> None:
    frames = assembler()
    add(frames, *packets(10, key(), marker=False))
    assert add(frames, *packets(20, frame_payloads(1), marker=False)) == [Frame(10, key(), True, True)]
    assert add(frames, *packets(30, frame_payloads(2))) == [
        Frame(20, frame_payloads(1), False, True),
        Frame(30, frame_payloads(2), False, True),
    ]


def test_a_frame_that_a_keyframe_cuts_off_is_not_whole() -> None:
    frames = assembler()
    add(frames, *packets(10, key()))
    add(frames, *packets(20, frame_payloads(1))[:2])
    cut, *_ = add(frames, *packets(30, key(2)))
    assert cut == Frame(20, frame_payloads(1)[:2], False, False)
    add(frames, *packets(40, key(3))[:1])
    cut, whole = add(frames, *packets(50, key(4)))
    assert (cut.whole, whole) == (False, Frame(50, key(4), True, True))


def test_holes() -> None:
    frames = assembler()
    add(frames, *packets(10, key()))
    add(frames, packets(20, frame_payloads(1))[0])
    assert frames.lose() == [Frame(20, frame_payloads(1)[:1], False, False)]
    # The end of the same frame, or of another; then one that may be whole, and is known to begin.
    assert [frame.whole for frame in add(frames, packets(20, frame_payloads(1))[2])] == [False]
    assert [frame.whole for frame in add(frames, *packets(30, frame_payloads(2)))] == [True]
    assert frames.lose() == []
    assert [frame.whole for frame in add(frames, *packets(40, frame_payloads(3)))] == [False]
    assert frames.lose() == []
    assert [frame.whole for frame in add(frames, *packets(50, key(4))[1:])] == [False]
    assert frames.lose() == []
    assert [frame.whole for frame in add(frames, *packets(60, key(5)))] == [True]


def test_padding_is_left_out() -> None:
    frames = assembler()
    assert add(frames, Incoming(5, False, b""), *packets(10, key()), Incoming(10, False, b"")) == [
        Frame(10, key(), True, True)
    ]
    assert len(frames) == 0


def test_h264_begins_with_its_parameter_sets() -> None:
    frames = assembler("H264")
    for payloads, usable in (
        ([SPS, PPS, IDR], True),
        ([SETS, IDR_BEGIN, IDR_END], True),
        ([IDR], False),
        ([IDR_BEGIN, IDR_END], False),
    ):
        assert add(frames, *packets(10, payloads)) == [Frame(10, payloads, keyframe=usable, whole=usable)]
        frames.lose()
    add(frames, *packets(20, [SPS, IDR]))
    assert add(frames, *packets(30, [IDR])) == [Frame(30, [IDR], keyframe=False, whole=True)]


def test_h264_parameter_sets_with_a_timestamp_of_their_own() -> None:
    for marker in (False, True):
        frames = assembler("H264")
        whole = add(frames, *packets(9, [SPS, PPS], marker=marker), *packets(10, [IDR_BEGIN, IDR_END]))
        assert whole == [Frame(9, [SPS, PPS], True, True), Frame(10, [IDR_BEGIN, IDR_END], False, True)]
        cut, *_ = add(frames, *packets(20, [IDR_BEGIN], marker=False), *packets(30, [SPS, PPS, IDR]))
        assert cut == Frame(20, [IDR_BEGIN], False, False)


def test_a_codec_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="video/mystery"):
        FrameAssembler("video/mystery")


def test_h264_with_a_marker_on_each_slice() -> None:
    frames = assembler("H264")
    slices = [*packets(10, [SPS]), *packets(10, [IDR]), *packets(10, [SLICE])]
    assert [frame.payloads for frame in add(frames, *slices)] == [[SPS], [IDR], [SLICE]]


incoming = st.builds(Incoming, st.integers(0, 3), st.booleans(), st.binary(max_size=6))


@given(codec=st.sampled_from(["VP8", "VP9", "H264", "AV1"]), stream=st.lists(st.none() | incoming, max_size=40))
def test_whatever_the_bytes_are_every_packet_comes_out_once(codec: str, stream: list[Incoming | None]) -> None:
    frames = assembler(codec)
    out: list[Frame] = []
    for item in [*stream, None]:
        out += frames.lose() if item is None else frames.add(item)
    payloads = [payload for frame in out for payload in frame.payloads]
    assert payloads == [item.payload for item in stream if item is not None and item.payload]
    assert frames.octets == len(frames) == 0
