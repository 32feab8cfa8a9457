"""trio_sfu.media.ortc: browsers' parameters through the router to other browsers."""

import copy
import json
from typing import Any

import msgspec
import pytest

from tests.support.mediasoup_device import Device, native_capabilities
from trio_sfu.media import capabilities as router
from trio_sfu.media.capabilities import router_rtp_capabilities
from trio_sfu.media.errors import MediaError
from trio_sfu.media.ortc import (
    ProducerMapping,
    can_consume,
    get_consumable_rtp_parameters,
    get_consumer_rtp_parameters,
    get_producer_mapping,
    validate_rtp_parameters,
)
from trio_sfu.media.parameters import (
    MediaKind,
    RtcpFeedback,
    RtpCapabilities,
    RtpParameters,
)

Json = dict[str, Any]
ROUTER = router_rtp_capabilities()
ROUTER_JSON: Json = msgspec.to_builtins(ROUTER)
PAIRS = [
    (browser, mime_type)
    for browser, mime_types in {
        "chrome": ["video/VP8", "video/VP9", "video/H264", "video/AV1"],
        "firefox": ["video/VP8", "video/VP9", "video/H264", "video/AV1"],
        "safari": ["video/VP8", "video/VP9", "video/H264"],
    }.items()
    for mime_type in mime_types
]


def device(browser: str) -> Device:
    return Device(browser, ROUTER_JSON)


def decode(parameters: Json) -> RtpParameters:
    return msgspec.convert(parameters, RtpParameters)


def capabilities(browser: str) -> RtpCapabilities:
    return msgspec.convert(device(browser).rtp_capabilities, RtpCapabilities)


def consumable_of(kind: MediaKind, parameters: Json) -> RtpParameters:
    decoded = decode(parameters)
    validate_rtp_parameters(kind, decoded)
    mapping = get_producer_mapping(kind, decoded, ROUTER)
    return get_consumable_rtp_parameters(kind, decoded, ROUTER, mapping)


def consumer_of(consumable: RtpParameters, caps: RtpCapabilities, enable_rtx: bool | None = None) -> RtpParameters:
    return get_consumer_rtp_parameters(
        consumable, caps, mid="0007", ssrc=1111, rtx_ssrc=2222, cname="c", enable_rtx=enable_rtx
    )


def router_payload_type(mime_type: str, **parameters: str | int) -> int:
    for codec in ROUTER.codecs:
        wanted = {key.replace("_", "-"): value for key, value in parameters.items()}
        if codec.mime_type == mime_type and wanted.items() <= codec.parameters.items():
            assert codec.preferred_payload_type is not None
            return codec.preferred_payload_type
    raise LookupError(mime_type)


def test_mapping_of_chromes_video() -> None:
    parameters = decode(device("chrome").sending_parameters("video"))
    vp8 = router_payload_type("video/VP8")
    assert get_producer_mapping("video", parameters, ROUTER) == ProducerMapping(
        payload_types={96: vp8, 97: router_payload_type("video/rtx", apt=vp8)},
        rtx_payload_types={97: 96},
        header_extension_ids={
            4: router.MID_ID,
            10: router.RID_ID,
            11: router.REPAIRED_RID_ID,
            2: router.ABS_SEND_TIME_ID,
            3: router.TRANSPORT_CC_ID,
            12: router.DEPENDENCY_DESCRIPTOR_ID,
            13: router.VIDEO_ORIENTATION_ID,
            14: router.TOFFSET_ID,
            16: router.ABS_CAPTURE_TIME_ID,
            5: router.PLAYOUT_DELAY_ID,
        },
    )


def test_mapping_of_chromes_audio() -> None:
    parameters = decode(device("chrome").sending_parameters("audio"))
    mapping = get_producer_mapping("audio", parameters, ROUTER)
    assert mapping.payload_types == {111: router_payload_type("audio/opus")}
    assert mapping.rtx_payload_types == {}
    assert mapping.header_extension_ids == {
        4: router.MID_ID,
        2: router.ABS_SEND_TIME_ID,
        3: router.TRANSPORT_CC_ID,
        1: router.AUDIO_LEVEL_ID,
    }


def test_unknown_header_extensions_and_those_of_the_other_kind_are_left_out() -> None:
    parameters = device("chrome").sending_parameters("audio")
    parameters["headerExtensions"] += [
        {"uri": "urn:unheard-of", "id": 20},
        {"uri": router.VIDEO_ORIENTATION_URI, "id": 21},
    ]
    assert {20, 21}.isdisjoint(get_producer_mapping("audio", decode(parameters), ROUTER).header_extension_ids)


def test_h264_and_vp9_variants_map_to_their_own_payload_types() -> None:
    chrome = {codec["preferredPayloadType"]: codec for codec in native_capabilities("chrome")["codecs"]}
    for payload_type, expected in {
        106: router_payload_type("video/H264", profile_level_id="42e01f"),
        127: router_payload_type("video/H264", profile_level_id="4d001f"),
        98: router_payload_type("video/VP9", profile_id=0),
        100: router_payload_type("video/VP9", profile_id=2),
        45: router_payload_type("video/AV1"),
        # Not forwarded: baseline, packetization-mode 0, high, AV1 profile 1, RED and FEC.
        102: None,
        108: None,
        112: None,
        47: None,
        116: None,
        118: None,
    }.items():
        parameters = decode(
            {
                "codecs": [chrome[payload_type] | {"payloadType": payload_type}],
                "encodings": [{"ssrc": 1}],
            }
        )
        if expected is None:
            with pytest.raises(MediaError) as caught:
                get_producer_mapping("video", parameters, ROUTER)
            assert caught.value.code == "unsupported-codec"
        else:
            mapping = get_producer_mapping("video", parameters, ROUTER)
            assert mapping.payload_types == {payload_type: expected}


@pytest.mark.parametrize(
    "codec",
    [
        {"mimeType": "audio/PCMU", "payloadType": 0, "clockRate": 8000},
        {"mimeType": "audio/opus", "payloadType": 111, "clockRate": 48000},
        {"mimeType": "audio/opus", "payloadType": 111, "clockRate": 16000, "channels": 2},
        {"mimeType": "audio/chunky-bacon", "payloadType": 99, "clockRate": 48000},
    ],
)
def test_other_audio_codecs_are_unsupported(codec: Json) -> None:
    with pytest.raises(MediaError) as caught:
        get_producer_mapping("audio", decode({"codecs": [codec], "encodings": [{"ssrc": 1}]}), ROUTER)
    assert caught.value.code == "unsupported-codec"


def test_rtx_of_a_codec_that_the_router_does_not_repair_is_unsupported() -> None:
    parameters = device("chrome").sending_parameters("audio")
    parameters["codecs"].append(
        {"mimeType": "audio/rtx", "payloadType": 50, "clockRate": 48000, "parameters": {"apt": 111}}
    )
    with pytest.raises(MediaError) as caught:
        get_producer_mapping("audio", decode(parameters), ROUTER)
    assert caught.value.code == "unsupported-codec"


def test_mapping_of_parameters_that_were_not_validated_is_an_error_of_its_own() -> None:
    parameters = device("chrome").sending_parameters("video")
    parameters["codecs"][1]["parameters"]["apt"] = 5
    with pytest.raises(MediaError) as caught:
        get_producer_mapping("video", decode(parameters), ROUTER)
    assert caught.value.code == "invalid-rtp-parameters"


@pytest.mark.parametrize(("browser", "mime_type"), PAIRS)
def test_consumable_is_all_in_the_routers_numbers(browser: str, mime_type: str) -> None:
    sent = device(browser).sending_parameters("video", mime_type)
    consumable = consumable_of("video", sent)
    media, rtx = consumable.codecs
    assert media.payload_type == router_payload_type(mime_type)
    assert media.parameters == sent["codecs"][0]["parameters"]
    assert rtx.mime_type == "video/rtx"
    assert rtx.parameters == {"apt": media.payload_type}
    assert rtx.payload_type == router_payload_type("video/rtx", apt=media.payload_type)
    assert [(fb.type, fb.parameter) for fb in media.rtcp_feedback] == [
        ("nack", ""),
        ("nack", "pli"),
        ("ccm", "fir"),
        ("goog-remb", ""),
        ("transport-cc", ""),
    ]
    assert {extension.uri: extension.id for extension in consumable.header_extensions} == {
        router.MID_URI: 1,
        router.ABS_SEND_TIME_URI: 4,
        router.TRANSPORT_CC_URI: 5,
        router.VIDEO_ORIENTATION_URI: 11,
        router.TOFFSET_URI: 12,
        router.ABS_CAPTURE_TIME_URI: 13,
        router.PLAYOUT_DELAY_URI: 14,
    }
    assert [(encoding.ssrc, encoding.rid, encoding.rtx) for encoding in consumable.encodings] == [(None, None, None)]
    assert consumable.rtcp.cname == sent["rtcp"]["cname"]
    assert consumable.mid is None
    assert consumable.msid == sent["msid"]


def test_consumable_has_rtx_even_where_the_producer_has_none() -> None:
    sent = device("chrome").sending_parameters("video")
    del sent["codecs"][1]
    sent["encodings"] = [{"ssrc": 5}]
    assert [codec.mime_type for codec in consumable_of("video", sent).codecs] == ["video/VP8", "video/rtx"]


def test_consumable_carries_the_level_that_was_agreed_upon() -> None:
    def level(given: str, asymmetry: int) -> object:
        sent = device("chrome").sending_parameters("video", "video/H264")
        sent["codecs"][0]["parameters"] = {
            "packetization-mode": 1,
            "profile-level-id": given,
            "level-asymmetry-allowed": asymmetry,
        }
        return consumable_of("video", sent).codecs[0].parameters.get("profile-level-id")

    assert level("42c033", 1) == "42e033"
    assert level("42e033", 0) == "42e01f"
    assert level("42e00d", 0) == "42e00d"
    sent = device("chrome").sending_parameters("video", "video/H264")
    del sent["codecs"][0]["parameters"]["profile-level-id"]
    assert consumable_of("video", sent).codecs[0].parameters["profile-level-id"] == "42e01f"


def test_of_several_codecs_the_one_in_use_comes_first_and_doubles_are_one() -> None:
    chrome = device("chrome")
    sent = chrome.sending_parameters("video", "video/VP8")
    sent["codecs"] += chrome.sending_parameters("video", "video/H264")["codecs"]
    sent["codecs"].append(sent["codecs"][2] | {"payloadType": 60})
    names = [codec.mime_type for codec in consumable_of("video", sent).codecs]
    assert names == ["video/VP8", "video/rtx", "video/H264", "video/rtx"]
    sent["encodings"][0]["codecPayloadType"] = 106
    names = [codec.mime_type for codec in consumable_of("video", sent).codecs]
    assert names == ["video/H264", "video/rtx", "video/VP8", "video/rtx"]


@pytest.mark.parametrize(("browser", "mime_type"), PAIRS)
@pytest.mark.parametrize("viewer", ["chrome", "firefox", "safari"])
def test_every_browser_sees_every_other_where_it_has_the_codec(browser: str, mime_type: str, viewer: str) -> None:
    consumable = consumable_of("video", device(browser).sending_parameters("video", mime_type))
    caps = capabilities(viewer)
    if (viewer, mime_type) not in PAIRS:
        assert not can_consume(consumable, caps)
        with pytest.raises(MediaError) as caught:
            consumer_of(consumable, caps)
        assert caught.value.code == "cannot-consume"
        return
    assert can_consume(consumable, caps)
    consumer = consumer_of(consumable, caps)
    assert [(codec.mime_type, codec.payload_type) for codec in consumer.codecs] == [
        (codec.mime_type, codec.payload_type) for codec in consumable.codecs
    ]
    assert [(fb.type, fb.parameter) for fb in consumer.codecs[0].rtcp_feedback] == [
        ("nack", ""),
        ("nack", "pli"),
        ("ccm", "fir"),
        ("transport-cc", ""),
    ]
    ids = {extension.uri: extension.id for extension in consumer.header_extensions}
    assert ids.items() <= {ext.uri: ext.id for ext in consumable.header_extensions}.items()
    assert {router.MID_URI, router.ABS_SEND_TIME_URI, router.TRANSPORT_CC_URI} <= ids.keys()
    assert list(msgspec.to_builtins(consumer.encodings)) == [{"ssrc": 1111, "rtx": {"ssrc": 2222}, "dtx": False}]
    assert (consumer.mid, consumer.msid) == ("0007", "stream-of-all track-of-video")
    assert msgspec.to_builtins(consumer.rtcp) == {"cname": "c", "reducedSize": True, "mux": True}
    assert decode(json.loads(msgspec.json.encode(consumer))) == consumer


def test_audio_to_every_browser() -> None:
    for browser in ("chrome", "firefox", "safari"):
        consumable = consumable_of("audio", device(browser).sending_parameters("audio"))
        assert [codec.mime_type for codec in consumable.codecs] == ["audio/opus"]
        for viewer in ("chrome", "firefox", "safari"):
            consumer = consumer_of(consumable, capabilities(viewer))
            (opus,) = consumer.codecs
            assert opus.payload_type == router_payload_type("audio/opus")
            assert opus.rtcp_feedback == ()
            assert list(msgspec.to_builtins(consumer.encodings)) == [{"ssrc": 1111, "dtx": False}]
            uris = {extension.uri for extension in consumer.header_extensions}
            assert router.TRANSPORT_CC_URI not in uris
            assert {router.MID_URI, router.AUDIO_LEVEL_URI} <= uris


def test_nack_for_audio_only_where_asked_for() -> None:
    consumable = consumable_of("audio", device("chrome").sending_parameters("audio"))
    consumer = consumer_of(consumable, capabilities("chrome"), enable_rtx=True)
    assert consumer.codecs[0].rtcp_feedback == (RtcpFeedback("nack"),)


def test_without_rtx_there_is_neither_rtx_nor_nack() -> None:
    consumable = consumable_of("video", device("chrome").sending_parameters("video"))
    consumer = consumer_of(consumable, capabilities("chrome"), enable_rtx=False)
    (vp8,) = consumer.codecs
    assert RtcpFeedback("nack") not in vp8.rtcp_feedback
    assert RtcpFeedback("nack", "pli") in vp8.rtcp_feedback
    assert consumer.encodings[0].rtx is None


def test_rtx_only_where_the_viewer_has_it_for_this_codec() -> None:
    consumable = consumable_of("video", device("chrome").sending_parameters("video"))
    vp8: Json = {"mimeType": "video/VP8", "clockRate": 90000, "preferredPayloadType": 101}

    def has_rtx(*codecs: Json) -> bool:
        consumer = consumer_of(consumable, msgspec.convert({"codecs": codecs}, RtpCapabilities))
        assert (len(consumer.codecs) == 2) == (consumer.encodings[0].rtx is not None)
        return consumer.encodings[0].rtx is not None

    rtx: Json = {"mimeType": "video/rtx", "clockRate": 90000, "parameters": {"apt": 101}}
    assert has_rtx(vp8, rtx)
    assert not has_rtx(vp8)
    assert not has_rtx(vp8, rtx | {"parameters": {"apt": 102}})
    # A client that names no payload types: any RTX will do.
    del vp8["preferredPayloadType"]
    assert has_rtx(vp8, rtx)
    assert not has_rtx(vp8)


@pytest.mark.parametrize(
    ("without", "estimation"),
    [
        (set[str](), "transport-cc"),
        ({router.TRANSPORT_CC_URI}, "goog-remb"),
        ({router.TRANSPORT_CC_URI, router.ABS_SEND_TIME_URI}, None),
    ],
)
def test_one_kind_of_bandwidth_estimation(without: set[str], estimation: str | None) -> None:
    consumable = consumable_of("video", device("firefox").sending_parameters("video"))
    caps = device("chrome").rtp_capabilities
    caps["headerExtensions"] = [ext for ext in caps["headerExtensions"] if ext["uri"] not in without]
    consumer = consumer_of(consumable, msgspec.convert(caps, RtpCapabilities))
    kept = {fb.type for fb in consumer.codecs[0].rtcp_feedback} & {"transport-cc", "goog-remb"}
    assert kept == ({estimation} if estimation else set())


def test_extensions_under_another_id_are_not_sent() -> None:
    consumable = consumable_of("video", device("chrome").sending_parameters("video"))
    caps = device("chrome").rtp_capabilities
    for extension in caps["headerExtensions"]:
        if extension["uri"] == router.VIDEO_ORIENTATION_URI:
            extension["preferredId"] = 9
    consumer = consumer_of(consumable, msgspec.convert(caps, RtpCapabilities))
    assert router.VIDEO_ORIENTATION_URI not in {extension.uri for extension in consumer.header_extensions}


def test_simulcast_becomes_one_encoding() -> None:
    encodings = [
        {"rid": f"r{i}", "maxBitrate": 100000 * 3**i, "scalabilityMode": "L1T3", "scaleResolutionDownBy": 4}
        for i in range(3)
    ]
    consumable = consumable_of("video", device("chrome").sending_parameters("video", encodings=encodings))
    assert [encoding.max_bitrate for encoding in consumable.encodings] == [100000, 300000, 900000]
    assert all(encoding.rid is None for encoding in consumable.encodings)
    (encoding,) = consumer_of(consumable, capabilities("chrome")).encodings
    assert (encoding.scalability_mode, encoding.max_bitrate) == ("L3T3", 900000)
    assert encoding.scale_resolution_down_by is None


def test_svc_keeps_its_mode() -> None:
    encodings = [{"ssrc": 1, "scalabilityMode": "L3T3_KEY"}]
    sent = device("chrome").sending_parameters("video", "video/VP9", encodings=encodings)
    (encoding,) = consumer_of(consumable_of("video", sent), capabilities("chrome")).encodings
    assert encoding.scalability_mode == "L3T3_KEY"


def test_a_browsers_own_capabilities_do_too() -> None:
    # Some clients send what the browser lists and not what the device made of it.
    consumable = consumable_of("video", device("safari").sending_parameters("video", "video/H264"))
    caps = msgspec.convert(native_capabilities("chrome"), RtpCapabilities)
    consumer = consumer_of(consumable, caps)
    assert [codec.mime_type for codec in consumer.codecs] == ["video/H264", "video/rtx"]
    # The ids that happen to be the router's, and no others.
    assert all(
        (extension.uri, extension.id) in {(ext.uri, ext.preferred_id) for ext in caps.header_extensions}
        for extension in consumer.header_extensions
    )


def test_empty_capabilities_consume_nothing() -> None:
    consumable = consumable_of("audio", device("chrome").sending_parameters("audio"))
    assert not can_consume(consumable, RtpCapabilities())
    rtx_only = msgspec.convert(
        {"codecs": [{"mimeType": "video/rtx", "clockRate": 90000, "parameters": {"apt": 1}}]}, RtpCapabilities
    )
    assert not can_consume(consumable_of("video", device("chrome").sending_parameters("video")), rtx_only)


def test_invalid_capabilities_are_an_error_and_not_a_no() -> None:
    consumable = consumable_of("audio", device("chrome").sending_parameters("audio"))
    caps = msgspec.convert(
        {"codecs": [{"mimeType": "video/rtx", "clockRate": 90000}]},
        RtpCapabilities,
    )
    with pytest.raises(MediaError) as caught:
        can_consume(consumable, caps)
    assert caught.value.code == "invalid-rtp-capabilities"


def test_negotiation_changes_none_of_its_arguments() -> None:
    before = copy.deepcopy(ROUTER_JSON)
    consumable = consumable_of("video", device("chrome").sending_parameters("video", "video/H264"))
    as_it_was = msgspec.to_builtins(consumable)
    consumer_of(consumable, capabilities("firefox"))
    assert msgspec.to_builtins(consumable) == as_it_was
    assert msgspec.to_builtins(ROUTER) == before


def test_red_where_the_router_has_it() -> None:
    router_caps = router_rtp_capabilities(red=True)
    chrome = Device("chrome", msgspec.to_builtins(router_caps))
    sent = decode(chrome.sending_parameters("audio", "audio/red"))
    validate_rtp_parameters("audio", sent)
    mapping = get_producer_mapping("audio", sent, router_caps)
    consumable = get_consumable_rtp_parameters("audio", sent, router_caps, mapping)
    assert can_consume(consumable, msgspec.convert(chrome.rtp_capabilities, RtpCapabilities))
    assert not can_consume(consumable, capabilities("firefox"))
