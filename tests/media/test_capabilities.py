"""trio_sfu.media.capabilities: the router's codecs, payload types and header extensions."""

import msgspec
import pytest

from tests.support.mediasoup_device import Device
from trio_sfu.media import capabilities as router
from trio_sfu.media.capabilities import payload_types, router_rtp_capabilities
from trio_sfu.media.codec_matching import is_rtx
from trio_sfu.media.parameters import RtpCapabilities


def test_codecs_in_order_of_preference() -> None:
    codecs = [codec for codec in router_rtp_capabilities().codecs if not is_rtx(codec)]
    assert [(codec.mime_type, codec.clock_rate, codec.channels) for codec in codecs] == [
        ("audio/opus", 48000, 2),
        ("video/VP8", 90000, None),
        ("video/VP9", 90000, None),
        ("video/VP9", 90000, None),
        ("video/H264", 90000, None),
        ("video/H264", 90000, None),
        ("video/H264", 90000, None),
        ("video/AV1", 90000, None),
    ]
    assert codecs[0].parameters == {"minptime": 10, "useinbandfec": 1, "usedtx": 1}
    assert [codec.parameters.get("profile-id") for codec in codecs[2:4]] == [0, 2]
    assert [codec.parameters["profile-level-id"] for codec in codecs[4:7]] == ["42e01f", "4d001f", "640c1f"]
    assert all(codec.parameters["packetization-mode"] == 1 for codec in codecs[4:7])
    assert all(codec.parameters["level-asymmetry-allowed"] == 1 for codec in codecs[4:7])
    assert codecs[7].parameters["profile"] == 0


def test_each_video_codec_is_followed_by_its_rtx() -> None:
    codecs = router_rtp_capabilities().codecs
    assert not any(is_rtx(codec) for codec in codecs if codec.kind == "audio")
    video = [codec for codec in codecs if codec.kind == "video"]
    for media, rtx in zip(video[::2], video[1::2], strict=True):
        assert not is_rtx(media)
        assert is_rtx(rtx)
        assert rtx.parameters == {"apt": media.preferred_payload_type}
        assert [(fb.type, fb.parameter) for fb in media.rtcp_feedback] == [
            ("nack", ""),
            ("nack", "pli"),
            ("ccm", "fir"),
            ("goog-remb", ""),
            ("transport-cc", ""),
        ]
        assert rtx.rtcp_feedback == ()


@pytest.mark.parametrize("red", [False, True])
def test_payload_types_are_distinct_and_dynamic(red: bool) -> None:
    used = [codec.preferred_payload_type for codec in router_rtp_capabilities(red=red).codecs]
    assert len(set(used)) == len(used)
    assert set(used) <= set(payload_types())


def test_payload_types_given_out_never_look_like_rtcp() -> None:
    order = list(payload_types())
    assert order[0] == 96
    assert order[31:33] == [127, 35]
    assert len(set(order)) == len(order)
    assert not set(order) & set(range(64, 96))


def test_red_is_off_unless_asked_for() -> None:
    assert "audio/red" not in {codec.mime_type for codec in router_rtp_capabilities().codecs}
    with_red = router_rtp_capabilities(red=True).codecs
    assert [codec.mime_type for codec in with_red[:3]] == ["audio/opus", "audio/red", "video/VP8"]
    # It comes on top: the other payload types stay as they are.
    assert (with_red[0], *with_red[2:]) == router_rtp_capabilities().codecs


def test_header_extensions_ids_and_directions() -> None:
    extensions = {
        (extension.kind, extension.uri): (extension.preferred_id, extension.direction)
        for extension in router_rtp_capabilities().header_extensions
    }
    assert extensions == {
        ("audio", router.MID_URI): (1, "sendrecv"),
        ("video", router.MID_URI): (1, "sendrecv"),
        ("video", router.RID_URI): (2, "recvonly"),
        ("video", router.REPAIRED_RID_URI): (3, "recvonly"),
        ("audio", router.ABS_SEND_TIME_URI): (4, "sendrecv"),
        ("video", router.ABS_SEND_TIME_URI): (4, "sendrecv"),
        ("audio", router.TRANSPORT_CC_URI): (5, "recvonly"),
        ("video", router.TRANSPORT_CC_URI): (5, "sendrecv"),
        ("video", router.DEPENDENCY_DESCRIPTOR_URI): (8, "sendrecv"),
        ("audio", router.AUDIO_LEVEL_URI): (10, "sendrecv"),
        ("video", router.VIDEO_ORIENTATION_URI): (11, "sendrecv"),
        ("video", router.TOFFSET_URI): (12, "sendrecv"),
        ("audio", router.ABS_CAPTURE_TIME_URI): (13, "sendrecv"),
        ("video", router.ABS_CAPTURE_TIME_URI): (13, "sendrecv"),
        ("audio", router.PLAYOUT_DELAY_URI): (14, "sendrecv"),
        ("video", router.PLAYOUT_DELAY_URI): (14, "sendrecv"),
    }
    ids: dict[str, int] = {}
    for (_, uri), (id_, _) in extensions.items():
        assert 1 <= id_ <= 14
        assert ids.setdefault(uri, id_) == id_
    assert len(set(ids.values())) == len(ids)


def test_they_decode_as_a_clients_would_and_are_one_object() -> None:
    capabilities = router_rtp_capabilities()
    assert msgspec.convert(msgspec.to_builtins(capabilities), RtpCapabilities) == capabilities
    assert router_rtp_capabilities() is capabilities


@pytest.mark.parametrize(
    ("browser", "mime_types"),
    [
        ("chrome", ["opus", "VP8", "VP9", "VP9", "H264", "H264", "AV1"]),
        ("firefox", ["opus", "VP8", "VP9", "H264", "AV1"]),
        ("safari", ["opus", "VP8", "VP9", "H264", "H264"]),
    ],
)
def test_what_each_browser_shares_with_the_router(browser: str, mime_types: list[str]) -> None:
    device = Device(browser, msgspec.to_builtins(router_rtp_capabilities()))
    received = msgspec.convert(device.rtp_capabilities, RtpCapabilities)
    media = [codec.mime_type.split("/")[1] for codec in received.codecs if not is_rtx(codec)]
    assert media == mime_types
