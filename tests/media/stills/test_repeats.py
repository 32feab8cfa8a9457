"""Repeats in real streams: what FFmpeg's decoders make of the frames around them, bit by bit."""

import random
from typing import Final

import pytest

from tests.support.coded_video import decode, depacketize, encode, packetize
from trio_sfu.media.stills import Repeater, make_plain, make_repeater

_VPX: Final = "-deadline realtime -cpu-used 8 -b:v 300k -g 300 -lag-in-frames 0 -error-resilient 1"
_LAYERS: Final = (
    "-ts-parameters ts_number_layers=3:ts_target_bitrate=100,200,300:ts_rate_decimator=4,2,1:ts_periodicity=4:"
    "ts_layer_id=0,2,1,2:ts_layering_mode=3"
)
_X264: Final = "-c:v libx264 -bf 0 -g 300"
_AOM: Final = "-c:v libaom-av1 -usage realtime -cpu-used 8 -b:v 300k -g 300 -lag-in-frames 0"

# As browsers encode, and then what else the headers may say.
_STREAMS: Final = {
    "VP8": ("VP8", f"-c:v libvpx {_VPX}"),
    "VP8, four token partitions": ("VP8", f"-c:v libvpx -slices 4 {_VPX}"),
    "VP8, hidden frames, version 3": (
        "VP8",
        "-c:v libvpx -profile:v 3 -b:v 200k -auto-alt-ref 1 -lag-in-frames 10 -arnr-maxframes 5",
    ),
    "VP9": ("VP9", f"-c:v libvpx-vp9 {_VPX}"),
    "VP9, contexts kept, segmentation": (
        "VP9",
        "-c:v libvpx-vp9 -aq-mode 3 -deadline realtime -cpu-used 8 -b:v 300k -g 300 -lag-in-frames 0",
    ),
    "VP9, profile 3, hidden frames": (
        "VP9",
        "-c:v libvpx-vp9 -pix_fmt yuv444p10 -deadline good -cpu-used 8 -b:v 300k -auto-alt-ref 1 -lag-in-frames 12",
    ),
    "H264, as Chromium": ("H264", "-c:v libopenh264 -profile:v constrained_baseline -coder cavlc -g 300"),
    "H264, OpenH264, CABAC": ("H264", "-c:v libopenh264 -profile:v high -coder cabac -g 300"),
    "H264, baseline": ("H264", f"{_X264} -preset ultrafast -tune zerolatency -profile:v baseline"),
    "H264, main, weights": ("H264", f"{_X264} -preset medium -tune zerolatency -profile:v main"),
    "H264, high, slices, matrices": ("H264", f"{_X264} -preset fast -x264-params slices=3:cqm=jvt -profile:v high"),
    "H264, order count in each slice": (
        "H264",
        "-c:v libx264 -preset fast -g 300 -x264-params bframes=2:b-bias=-100:b-adapt=1",
    ),
    "H264, 4:4:4": ("H264", f"{_X264} -preset fast -tune zerolatency -pix_fmt yuv444p"),
    "AV1": ("AV1", _AOM),
    "AV1, frame ids": ("AV1", f"{_AOM} -error-resilience 1 -aq-mode 3"),
}
_LAYERED: Final = {
    "VP8": ("VP8", f"-c:v libvpx {_VPX} {_LAYERS}"),
    "VP9": ("VP9", f"-c:v libvpx-vp9 {_VPX} {_LAYERS}"),
    "AV1": ("AV1", "-c:v libsvtav1 -preset 10 -b:v 300k -g 300 -svtav1-params pred-struct=1:rc=2"),
    "AV1, hidden frames": ("AV1", "-c:v libsvtav1 -preset 10 -crf 40 -g 30"),
}


def pass_on(repeater: Repeater, payloads: list[bytes]) -> None:
    for at, payload in enumerate(payloads):
        repeater.observe(payload, marker=at == len(payloads) - 1, first=at == 0)


def shown(codec: str, options: str, *, seed: int) -> tuple[list[str], list[str], list[tuple[str, list[str]]]]:
    """What a decoder shows: of the stream alone, of its frames between repeats, and of each repeat.

    The last with the pictures before it, the newest first.
    """
    frames = encode(codec, options, frames=40)
    repeater = make_repeater(f"video/{codec}")
    assert repeater is not None
    plain = make_plain(f"video/{codec}")
    chance = random.Random(seed)
    units: list[bytes] = []
    ours: set[int] = set()
    for number, frame in enumerate(frames):
        payloads = [plain(each) for each in packetize(codec, frame, number)]
        pass_on(repeater, payloads)
        units.append(depacketize(codec, payloads))
        for _ in range(chance.choice((0, 0, 1, 2, 5))):
            repeat = repeater.repeat()
            if repeat is not None:
                ours.add(len(units))
                units.append(depacketize(codec, repeat))
    pictures = decode(codec, units)
    assert [each.number for each in pictures] == list(range(len(units)))  # all of them, in order
    real: list[str] = []
    repeated = []
    for picture in pictures:
        if picture.number in ours:
            repeated.append((picture.digest, real[::-1]))
        else:
            real.append(picture.digest)
    return [each.digest for each in decode(codec, frames)], real, repeated


@pytest.mark.parametrize("name", _STREAMS)
def test_a_repeat_shows_the_picture_before_it_and_changes_nothing_after_it(name: str) -> None:
    alone, real, repeated = shown(*_STREAMS[name], seed=1)
    assert len(set(alone)) == 40
    assert real == alone
    assert len(repeated) > 40
    assert all(digest == before[0] for digest, before in repeated)


@pytest.mark.parametrize("name", _LAYERED)
def test_where_frames_are_nobodys_reference_a_repeat_may_show_an_older_one(name: str) -> None:
    alone, real, repeated = shown(*_LAYERED[name], seed=2)
    assert real == alone
    assert len(repeated) > 30
    assert all(digest in before[:4] for digest, before in repeated)
    assert any(digest != before[0] for digest, before in repeated)


@pytest.mark.parametrize("codec", ["VP8", "VP9", "H264", "AV1"])
def test_nothing_can_be_repeated_before_a_keyframe(codec: str) -> None:
    frames = encode(codec, _STREAMS[codec if codec != "H264" else "H264, as Chromium"][1], frames=40)
    repeater = make_repeater(f"video/{codec}")
    assert repeater is not None
    assert repeater.repeat() is None
    for number in (1, 2):
        pass_on(repeater, packetize(codec, frames[number], number))
    assert repeater.repeat() is None
    pass_on(repeater, packetize(codec, frames[0], 0))
    assert repeater.repeat() is not None
    repeater.forget()
    assert repeater.repeat() is None


def test_other_codecs_have_no_repeater() -> None:
    assert make_repeater("video/H265") is None
    assert make_repeater("audio/opus") is None
    assert make_repeater("VIDEO/vp8") is not None
