"""Whether two codecs are the same codec, as mediasoup judges it.

Used by :mod:`trio_sfu.media.ortc`. A media codec matches by MIME type, clock rate and channels, and
where the codec has incompatible variants by the parameters that tell these apart: H.264's
packetization-mode and profile (RFC 6184), VP9's profile-id (RFC 9628), AV1's profile (RTP payload
format for AV1, section 7.2).
"""

from collections.abc import Iterable, Mapping

from trio_sfu.media import h264_profile
from trio_sfu.media.parameters import RtcpFeedback, RtpCodecCapability, RtpCodecParameters

Codec = RtpCodecCapability | RtpCodecParameters


def is_rtx(codec: Codec) -> bool:
    """Whether it is a retransmission format (RFC 4588) and not media."""
    return codec.mime_type.lower().endswith("/rtx")


def associated_payload_type(codec: Codec) -> int | None:
    """The payload type that an RTX codec repairs, from its ``apt``; ``None`` where it says none."""
    apt = codec.parameters.get("apt")
    return apt if isinstance(apt, int) else None


def codecs_match(a: Codec, b: Codec) -> bool:
    """Whether ``a`` and ``b`` are the same codec (mediasoup's strict match).

    RTX codecs match by MIME type and clock rate only: compare what they repair as well.
    """
    mime_type = a.mime_type.lower()
    if mime_type != b.mime_type.lower() or a.clock_rate != b.clock_rate or a.channels != b.channels:
        return False
    match mime_type:
        case "video/h264":
            return _same_number(a, b, "packetization-mode") and h264_profile.is_same_profile(a.parameters, b.parameters)
        case "video/vp9":
            return _same_number(a, b, "profile-id")
        case "video/av1":
            return _same_number(a, b, "profile")
        case "audio/multiopus":
            return _same_number(a, b, "num_streams") and _same_number(a, b, "coupled_streams")
        case _:
            return True


def common_feedback(a: Iterable[RtcpFeedback], b: Iterable[RtcpFeedback]) -> tuple[RtcpFeedback, ...]:
    """The feedback messages that both list, in the order of ``a``."""
    wanted = set(b)
    return tuple(feedback for feedback in a if feedback in wanted)


def _same_number(a: Codec, b: Codec, name: str) -> bool:
    return _number(a.parameters, name) == _number(b.parameters, name)


def _number(parameters: Mapping[str, str | int | float], name: str) -> str | float:
    # Absent is 0 for each of the parameters that is asked for; "1" and 1 are the same thing, since
    # not every client's SDP parser makes numbers of digits.
    value = parameters.get(name) or 0
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value)
    return value
