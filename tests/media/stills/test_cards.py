"""The cards, as decoders see them, alone and in front of another stream."""

import av
import pytest

from tests.support.coded_video import decode, depacketize, encode
from trio_sfu.media.stills import card, make_repeater
from trio_sfu.wire.keyframe import keyframe_test

CODECS = {"VP8": "vp8", "VP9": "vp9", "H264": "h264", "AV1": "libdav1d"}
ENCODERS = {"VP8": "libvpx", "VP9": "libvpx-vp9", "H264": "libx264 -tune zerolatency", "AV1": "libsvtav1 -preset 12"}


@pytest.mark.parametrize("codec", CODECS)
def test_a_card_is_dark_grey(codec: str) -> None:
    payloads = card(f"video/{codec}")
    assert len(payloads) == 1
    decoder = av.CodecContext.create(CODECS[codec], "r")
    assert isinstance(decoder, av.VideoCodecContext)
    (picture,) = [*decoder.decode(av.Packet(depacketize(codec, payloads))), *decoder.decode(None)]
    assert (picture.width, picture.height, picture.format.name) == (128, 72, "yuv420p")
    grey = picture.to_ndarray(format="rgb24").reshape(-1, 3)
    assert abs(grey.astype(int) - (0x20, 0x21, 0x24)).max() <= 4


@pytest.mark.parametrize("codec", CODECS)
def test_a_card_is_a_keyframe(codec: str) -> None:
    test = keyframe_test(f"VIDEO/{codec}")
    assert test is not None
    assert test(card(f"VIDEO/{codec}")[0])


@pytest.mark.parametrize("codec", CODECS)
def test_a_stream_after_cards_is_as_it_was(codec: str) -> None:
    frames = encode(codec, f"-c:v {ENCODERS[codec]} -g 300", frames=6)
    front = depacketize(codec, card(f"video/{codec}"))
    alone, behind = decode(codec, frames), decode(codec, [front, front, *frames])
    assert [each.digest for each in behind[2:]] == [each.digest for each in alone]
    assert (behind[0].width, behind[2].width) == (128, 176)
    assert behind[0].digest == behind[1].digest


@pytest.mark.parametrize("codec", CODECS)
def test_a_card_can_be_repeated(codec: str) -> None:
    repeater = make_repeater(f"video/{codec}")
    assert repeater is not None
    for payload in card(f"video/{codec}"):
        repeater.observe(payload, marker=True, first=True)
    repeat = repeater.repeat()
    assert repeat is not None
    shown = decode(codec, [depacketize(codec, card(f"video/{codec}")), *[depacketize(codec, repeat)] * 3])
    assert len(shown) == 4
    assert len({each.digest for each in shown}) == 1


def test_no_card_for_other_codecs() -> None:
    with pytest.raises(KeyError):
        card("audio/opus")
