"""What this server forwards: codecs, feedback messages and header extensions of every router.

Anybody may import these. The header extension ids are mediasoup's, and the same for every room and
kind: the forwarding core writes MID, abs-send-time and the transport-wide sequence number with these
ids, whoever the receiver is.
"""

from collections.abc import Iterator
from functools import cache
from typing import Final

from trio_sfu.media.parameters import (
    FormatParameters,
    MediaKind,
    RtcpFeedback,
    RtpCapabilities,
    RtpCodecCapability,
    RtpHeaderExtension,
    RtpHeaderExtensionDirection,
)

# All of 1 to 14, so that one-byte headers (RFC 8285 section 4.2) always do.
MID_ID: Final = 1
RID_ID: Final = 2
REPAIRED_RID_ID: Final = 3
ABS_SEND_TIME_ID: Final = 4
TRANSPORT_CC_ID: Final = 5
DEPENDENCY_DESCRIPTOR_ID: Final = 8
AUDIO_LEVEL_ID: Final = 10
VIDEO_ORIENTATION_ID: Final = 11
TOFFSET_ID: Final = 12
ABS_CAPTURE_TIME_ID: Final = 13
PLAYOUT_DELAY_ID: Final = 14

MID_URI: Final = "urn:ietf:params:rtp-hdrext:sdes:mid"
RID_URI: Final = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
REPAIRED_RID_URI: Final = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
ABS_SEND_TIME_URI: Final = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
TRANSPORT_CC_URI: Final = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
DEPENDENCY_DESCRIPTOR_URI: Final = (
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
)
AUDIO_LEVEL_URI: Final = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
VIDEO_ORIENTATION_URI: Final = "urn:3gpp:video-orientation"
TOFFSET_URI: Final = "urn:ietf:params:rtp-hdrext:toffset"
ABS_CAPTURE_TIME_URI: Final = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"
PLAYOUT_DELAY_URI: Final = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"

# Directions are the router's: it reads rid and does not send it, since a consumer gets one stream. The
# dependency descriptor is sent of AV1 with layers only (ortc.py). Transport-wide congestion control of
# audio works towards the server only.
_HEADER_EXTENSIONS: Final[tuple[tuple[str, int, tuple[MediaKind, ...], RtpHeaderExtensionDirection], ...]] = (
    (MID_URI, MID_ID, ("audio", "video"), "sendrecv"),
    (RID_URI, RID_ID, ("video",), "recvonly"),
    (REPAIRED_RID_URI, REPAIRED_RID_ID, ("video",), "recvonly"),
    (ABS_SEND_TIME_URI, ABS_SEND_TIME_ID, ("audio", "video"), "sendrecv"),
    (TRANSPORT_CC_URI, TRANSPORT_CC_ID, ("audio",), "recvonly"),
    (TRANSPORT_CC_URI, TRANSPORT_CC_ID, ("video",), "sendrecv"),
    (DEPENDENCY_DESCRIPTOR_URI, DEPENDENCY_DESCRIPTOR_ID, ("video",), "sendrecv"),
    (AUDIO_LEVEL_URI, AUDIO_LEVEL_ID, ("audio",), "sendrecv"),
    (VIDEO_ORIENTATION_URI, VIDEO_ORIENTATION_ID, ("video",), "sendrecv"),
    (TOFFSET_URI, TOFFSET_ID, ("video",), "sendrecv"),
    (ABS_CAPTURE_TIME_URI, ABS_CAPTURE_TIME_ID, ("audio", "video"), "sendrecv"),
    (PLAYOUT_DELAY_URI, PLAYOUT_DELAY_ID, ("audio", "video"), "sendrecv"),
)

# Chromium answers NACKs for Opus though it does not say so; mediasoup-client says it in its stead.
_AUDIO_FEEDBACK: Final = (RtcpFeedback("nack"), RtcpFeedback("transport-cc"))
_VIDEO_FEEDBACK: Final = (
    RtcpFeedback("nack"),
    RtcpFeedback("nack", "pli"),
    RtcpFeedback("ccm", "fir"),
    RtcpFeedback("goog-remb"),
    RtcpFeedback("transport-cc"),
)


def _h264(profile_level_id: str) -> tuple[str, FormatParameters]:
    return "video/H264", {
        "level-asymmetry-allowed": 1,
        "packetization-mode": 1,
        "profile-level-id": profile_level_id,
    }


# In the order of preference: mediasoup-client takes the first that its browser has.
_VIDEO_CODECS: Final[tuple[tuple[str, FormatParameters], ...]] = (
    ("video/VP8", {}),
    ("video/VP9", {"profile-id": 0}),
    ("video/VP9", {"profile-id": 2}),
    # Constrained baseline, main, constrained high; all at level 3.1, asymmetrically.
    _h264("42e01f"),
    _h264("4d001f"),
    _h264("640c1f"),
    ("video/AV1", {"level-idx": 5, "profile": 0, "tier": 0}),
)


def payload_types() -> Iterator[int]:
    """The dynamic payload types in the order in which they are given out.

    96 to 127, then 35 to 63. Those from 64 to 95 look like RTCP where both share a port
    (RFC 5761 section 4).
    """
    yield from range(96, 128)
    yield from range(35, 64)


@cache
def router_rtp_capabilities(*, red: bool = False) -> RtpCapabilities:
    """What every router can receive and send; the same object each time.

    ``red`` adds redundant audio (RFC 2198) below Opus in preference. It is off by default: its
    blocks carry the sender's own payload types, which the receiver has to share.
    """
    free = payload_types()
    codecs = [
        RtpCodecCapability(
            kind="audio",
            mime_type="audio/opus",
            preferred_payload_type=next(free),
            clock_rate=48000,
            channels=2,
            parameters={"minptime": 10, "useinbandfec": 1, "usedtx": 1},
            rtcp_feedback=_AUDIO_FEEDBACK,
        )
    ]
    for mime_type, parameters in _VIDEO_CODECS:
        payload_type, rtx_payload_type = next(free), next(free)
        codecs.append(
            RtpCodecCapability(
                kind="video",
                mime_type=mime_type,
                preferred_payload_type=payload_type,
                clock_rate=90000,
                parameters=dict(parameters),
                rtcp_feedback=_VIDEO_FEEDBACK,
            )
        )
        codecs.append(
            RtpCodecCapability(
                kind="video",
                mime_type="video/rtx",
                preferred_payload_type=rtx_payload_type,
                clock_rate=90000,
                parameters={"apt": payload_type},
            )
        )
    if red:
        codecs.insert(
            1,
            RtpCodecCapability(
                kind="audio",
                mime_type="audio/red",
                preferred_payload_type=next(free),
                clock_rate=48000,
                channels=2,
                rtcp_feedback=(RtcpFeedback("transport-cc"),),
            ),
        )
    return RtpCapabilities(
        codecs=tuple(codecs),
        header_extensions=tuple(
            RtpHeaderExtension(kind=kind, uri=uri, preferred_id=id_, direction=direction)
            for uri, id_, kinds, direction in _HEADER_EXTENSIONS
            for kind in kinds
        ),
    )
