"""trio_sfu.media.parameters: what decodes, what is refused, and how it is written."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sfu.media.parameters import (
    MAX_CODECS,
    DtlsParameters,
    IceCandidate,
    IceParameters,
    RtcpFeedback,
    RtcpParameters,
    RtpCapabilities,
    RtpCodecCapability,
    RtpCodecParameters,
    RtpEncodingParameters,
    RtpHeaderExtension,
    RtpHeaderExtensionParameters,
    RtpParameters,
)

VP8 = {"mimeType": "video/VP8", "clockRate": 90000, "payloadType": 96}
STRUCTS: list[Any] = [
    DtlsParameters,
    IceCandidate,
    IceParameters,
    RtcpFeedback,
    RtcpParameters,
    RtpCapabilities,
    RtpCodecCapability,
    RtpCodecParameters,
    RtpEncodingParameters,
    RtpHeaderExtension,
    RtpHeaderExtensionParameters,
    RtpParameters,
]


def wire(value: object) -> object:
    """What a client gets to see (to_builtins leaves tuples, which JSON writes as arrays)."""
    return json.loads(msgspec.json.encode(value))


def test_the_least_that_a_client_may_send_gets_mediasoups_defaults() -> None:
    assert wire(msgspec.convert({"codecs": [VP8]}, RtpParameters)) == {
        "codecs": [VP8 | {"parameters": {}, "rtcpFeedback": []}],
        "headerExtensions": [],
        "encodings": [],
        "rtcp": {"reducedSize": True},
    }
    assert wire(msgspec.convert({}, RtpCapabilities)) == {"codecs": [], "headerExtensions": []}
    assert wire(msgspec.convert({"kind": "audio", "uri": "urn:x", "preferredId": 1}, RtpHeaderExtension)) == {
        "kind": "audio",
        "uri": "urn:x",
        "preferredId": 1,
        "preferredEncrypt": False,
        "direction": "sendrecv",
    }
    assert wire(msgspec.convert({"uri": "urn:x", "id": 1}, RtpHeaderExtensionParameters)) == {
        "uri": "urn:x",
        "id": 1,
        "encrypt": False,
        "parameters": {},
    }
    assert wire(msgspec.convert({}, RtpEncodingParameters)) == {"dtx": False}
    assert wire(RtcpFeedback("nack")) == {"type": "nack", "parameter": ""}


def test_kind_and_channels_follow_the_mime_type() -> None:
    opus = msgspec.convert(
        {"kind": "video", "mimeType": "Audio/opus", "clockRate": 48000, "channels": 2}, RtpCodecCapability
    )
    assert (opus.kind, opus.channels) == ("audio", 2)
    pcmu = RtpCodecCapability(mime_type="audio/PCMU", clock_rate=8000)
    assert (pcmu.kind, pcmu.channels) == ("audio", 1)
    vp8 = msgspec.convert(VP8 | {"channels": 2}, RtpCodecParameters)
    assert (vp8.media_kind, vp8.channels) == ("video", None)
    assert b"channels" not in msgspec.json.encode(vp8)


def test_unknown_fields_are_ignored_and_numbers_may_be_either_kind() -> None:
    encoding = msgspec.convert(
        {
            "active": True,
            "ssrc": 0xFFFFFFFF,
            "maxBitrate": 900000.5,
            "scaleResolutionDownBy": 2,
            "priority": "low",
        },
        RtpEncodingParameters,
    )
    assert (encoding.ssrc, encoding.max_bitrate, encoding.scale_resolution_down_by) == (
        0xFFFFFFFF,
        900000.5,
        2,
    )


def test_ice_and_dtls_parameters_have_the_wire_names() -> None:
    candidate = IceCandidate(
        foundation="udpcandidate",
        priority=1076302079,
        ip="192.0.2.1",
        address="192.0.2.1",
        protocol="udp",
        port=44444,
        type="host",
    )
    assert wire(candidate) == {
        "foundation": "udpcandidate",
        "priority": 1076302079,
        "ip": "192.0.2.1",
        "address": "192.0.2.1",
        "protocol": "udp",
        "port": 44444,
        "type": "host",
    }
    ice = IceParameters(username_fragment="abcd", password="p" * 24, ice_lite=True)
    assert wire(ice) == {
        "usernameFragment": "abcd",
        "password": "p" * 24,
        "iceLite": True,
    }
    dtls = msgspec.convert({"fingerprints": [{"algorithm": "sha-256", "value": "AA"}], "iceUfrag": "x"}, DtlsParameters)
    assert wire(dtls) == {
        "role": "auto",
        "fingerprints": [{"algorithm": "sha-256", "value": "AA"}],
    }


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (RtpParameters, None),
        (RtpParameters, {}),
        (RtpParameters, {"codecs": "x"}),
        (RtpParameters, {"codecs": [VP8] * (MAX_CODECS + 1)}),
        (RtpParameters, {"codecs": [None]}),
        (RtpParameters, {"codecs": [VP8], "mid": "\n"}),
        (RtpParameters, {"codecs": [VP8], "rtcp": {"cname": "a\r\na=evil"}}),
        (RtpParameters, {"codecs": [VP8], "rtcp": {"cname": "\ud800"}}),
        (RtpParameters, {"codecs": [VP8], "rtcp": {"cname": "x" * 256}}),
        (RtpParameters, {"codecs": [VP8], "encodings": [{}] * 33}),
        (RtpCodecParameters, VP8 | {"mimeType": "video/"}),
        (RtpCodecParameters, VP8 | {"mimeType": "video/VP8\n"}),
        (RtpCodecParameters, VP8 | {"mimeType": "application/sctp"}),
        (RtpCodecParameters, VP8 | {"clockRate": 0}),
        (RtpCodecParameters, VP8 | {"clockRate": "90000"}),
        (RtpCodecParameters, VP8 | {"payloadType": 128}),
        (RtpCodecParameters, VP8 | {"payloadType": -1}),
        (RtpCodecParameters, VP8 | {"payloadType": True}),
        (RtpCodecParameters, VP8 | {"parameters": {"a": "b\nc"}}),
        (RtpCodecParameters, VP8 | {"parameters": {"a\n": "b"}}),
        (RtpCodecParameters, VP8 | {"parameters": {"a": None}}),
        (RtpCodecParameters, VP8 | {"parameters": {"a": True}}),
        (RtpCodecParameters, VP8 | {"parameters": {"a": {"b": 1}}}),
        (RtpCodecParameters, VP8 | {"parameters": {"a": float("nan")}}),
        (RtpCodecParameters, VP8 | {"parameters": {"a": float("-inf")}}),
        (RtpCodecParameters, VP8 | {"parameters": {"a": 10**400}}),
        (RtpCodecParameters, VP8 | {"parameters": {str(i): i for i in range(33)}}),
        (RtpCodecParameters, VP8 | {"rtcpFeedback": [{"type": ""}]}),
        (RtpCodecParameters, VP8 | {"rtcpFeedback": [{"type": "nack"}] * 33}),
        (RtpHeaderExtensionParameters, {"uri": "urn:x", "id": 0}),
        (RtpHeaderExtensionParameters, {"uri": "urn:x", "id": 256}),
        (RtpHeaderExtensionParameters, {"uri": "", "id": 1}),
        (RtpHeaderExtension, {"kind": "text", "uri": "urn:x", "preferredId": 1}),
        (RtpEncodingParameters, {"ssrc": 2**32}),
        (RtpEncodingParameters, {"ssrc": -1}),
        (RtpEncodingParameters, {"ssrc": 1.5}),
        (RtpEncodingParameters, {"rtx": {}}),
        (RtpEncodingParameters, {"maxBitrate": float("nan")}),
        (RtpEncodingParameters, {"maxBitrate": float("inf")}),
        (RtpEncodingParameters, {"maxBitrate": 10**400}),
        (RtpEncodingParameters, {"scaleResolutionDownBy": -1}),
        (DtlsParameters, {}),
        (DtlsParameters, {"fingerprints": []}),
        (DtlsParameters, {"fingerprints": [{"algorithm": "sha-256", "value": "A" * 300}]}),
        (DtlsParameters, {"role": "boss", "fingerprints": [{"algorithm": "sha-256", "value": "AA"}]}),
    ],
)
def test_what_no_client_sends_is_refused(type_: Any, value: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(value, type_)


def test_values_are_frozen() -> None:
    feedback = RtcpFeedback("nack")
    with pytest.raises(AttributeError):
        feedback.type = "ccm"  # type: ignore[misc]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
_names = st.sampled_from(sorted({field.encode_name for struct in STRUCTS for field in msgspec.structs.fields(struct)}))


@settings(max_examples=150, deadline=None)
@given(struct=st.sampled_from(STRUCTS), value=_json | st.dictionaries(_names, _json, max_size=6))
def test_any_json_decodes_or_is_a_validation_error_and_survives_the_way_back(struct: Any, value: object) -> None:
    """Invariant: nothing but ValidationError comes out, and what decodes encodes and decodes to itself."""
    try:
        decoded = msgspec.convert(value, struct)
    except msgspec.ValidationError:
        return
    encoded = json.dumps(msgspec.to_builtins(decoded), allow_nan=False)
    assert msgspec.convert(json.loads(encoded), struct) == decoded
