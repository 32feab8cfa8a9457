"""trio_sfu.media.codec_matching: when two codecs are the same."""

from typing import Any

import msgspec
import pytest

from trio_sfu.media.codec_matching import associated_payload_type, codecs_match, common_feedback, is_rtx
from trio_sfu.media.parameters import RtcpFeedback, RtpCodecParameters

Json = dict[str, Any]


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ({"mimeType": "video/vp8"}, {"mimeType": "video/VP8"}, True),
        ({"mimeType": "video/VP8"}, {"mimeType": "video/VP9"}, False),
        (
            {"mimeType": "video/VP9", "parameters": {"profile-id": "2"}},
            {"mimeType": "video/VP9", "parameters": {"profile-id": 2}},
            True,
        ),
        (
            {"mimeType": "video/VP9"},
            {"mimeType": "video/VP9", "parameters": {"profile-id": 0}},
            True,
        ),
        (
            {"mimeType": "video/VP9"},
            {"mimeType": "video/VP9", "parameters": {"profile-id": "two"}},
            False,
        ),
        (
            {"mimeType": "audio/multiopus", "channels": 6, "parameters": {"num_streams": 4}},
            {"mimeType": "audio/multiopus", "channels": 6, "parameters": {"num_streams": 5}},
            False,
        ),
        ({"mimeType": "audio/opus", "channels": 2}, {"mimeType": "audio/opus"}, False),
    ],
)
def test_codecs_match(a: Json, b: Json, same: bool) -> None:
    one, other = (
        msgspec.convert({"clockRate": 90000, "payloadType": 96} | codec, RtpCodecParameters) for codec in (a, b)
    )
    assert codecs_match(one, other) == same
    assert codecs_match(other, one) == same


def test_common_feedback_keeps_the_order_of_the_first() -> None:
    nack, pli, remb = RtcpFeedback("nack"), RtcpFeedback("nack", "pli"), RtcpFeedback("goog-remb")
    assert common_feedback((nack, pli, remb), (remb, nack)) == (nack, remb)


def test_rtx_and_what_it_repairs() -> None:
    rtx = RtpCodecParameters(mime_type="video/RTX", clock_rate=90000, payload_type=97, parameters={"apt": 96})
    vp8 = RtpCodecParameters(mime_type="video/VP8", clock_rate=90000, payload_type=96)
    assert (is_rtx(rtx), associated_payload_type(rtx)) == (True, 96)
    assert (is_rtx(vp8), associated_payload_type(vp8)) == (False, None)
